"""No file of the package imports, directly or by way of others, a file that imports it."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import sizewise

ROOT = Path(sizewise.__file__).parent.parent


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


def test_imports_go_round_in_no_circle() -> None:
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in ROOT.glob("sizewise/**/*.py")
    }
    assert len(files) > 100
    names = set(files)
    graph = {name: imported(path, names) - {name} for name, path in files.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(files)
