"""Packages import only packages below them, and no file goes round in a circle."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import sizewise

ROOT = Path(sizewise.__file__).parent.parent
# From the ground up. What stands alone at the top of the package is a package of its own.
FLOORS = (
    "errors", "palette", "words", "signals", "files", "catalogue", "energy", "devices",
    "config", "late_imports", "runtime", "record", "statistics", "embedded", "data", "models",
    "composition", "metrics", "tracking", "training", "evaluation", "report", "job", "release",
    "verify", "sweep", "interface", "app", "commands",
)  # fmt: skip


def imported(path: Path, names: set[str]) -> set[str]:
    """Names of the package's files that a file imports, late and type-checking imports too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= whole & names or {node.module}
    return found & names


def graph_of_files() -> dict[str, set[str]]:
    """File → the files that it imports, as dotted names."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in ROOT.glob("sizewise/**/*.py")
    }
    assert len(files) > 100
    names = set(files)
    return {name: imported(path, names) - {name} for name, path in files.items()}


def test_imports_go_round_in_no_circle() -> None:
    graph = graph_of_files()
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)


def test_packages_import_only_packages_below_them() -> None:
    floor = {name: number for number, name in enumerate(FLOORS)}
    upwards: list[str] = []
    seen: set[str] = set()
    for name, targets in graph_of_files().items():
        package = name.split(".")[1] if "." in name else ""
        if not package:
            continue
        seen.add(package)
        for target in targets:
            below = target.split(".")[1] if "." in target else ""
            if below and floor[below] > floor[package]:
                upwards.append(f"{name} imports {target}")
    assert seen == set(FLOORS)
    assert not upwards, "\n".join(sorted(upwards))
