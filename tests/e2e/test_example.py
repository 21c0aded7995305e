"""The examples run: one run in public names, and the notebook."""

from __future__ import annotations

import ast
import math
import os
from pathlib import Path

import nbformat
import pytest
from examples import one_run
from nbclient import NotebookClient

NOTEBOOK = Path(one_run.__file__).with_name("notebook.ipynb")

SMALL = (
    "model=nano", "lora.r=2", "dataset.max_train=24", "dataset.max_validation=8",
    "dataset.max_test=16", "trainer.max_epochs=1", "generation.max_new_tokens=6",
)  # fmt: skip


def test_one_run_ends_in_a_comparison_of_the_tuned_model_with_its_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = one_run.main(tmp_path, SMALL)
    assert found.names == ("tuned", "base")
    assert found.n == 16
    assert math.isfinite(found.difference)
    assert found.interval.low <= found.difference <= found.interval.high
    assert (tmp_path / "fit.json").is_file()
    for name in ("base", "tuned"):
        assert len((tmp_path / f"{name}.jsonl").read_text().splitlines()) == 16
    assert capsys.readouterr().out.count("icd10/exact_match") == 2


def test_the_example_uses_public_names_alone() -> None:
    source = Path(one_run.__file__).read_text(encoding="utf-8")
    names = [
        name.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sizewise")
        for name in node.names
    ]
    assert len(names) > 20
    assert not [name for name in names if name.startswith("_")]
    assert len(source.splitlines()) <= 125


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> list[nbformat.NotebookNode]:
    """The cells of the notebook, run from top to bottom as in Jupyter, in a folder of their own.

    Only that answers are not timed over and over.
    """
    found = nbformat.read(NOTEBOOK, as_version=4)
    settings = next(cell for cell in found.cells if cell.source.startswith("import sizewise"))
    settings.source += '\ntiny["evaluation.timed_answers"] = 0'
    place = tmp_path_factory.mktemp("notebook")
    there = {"metadata": {"path": str(place)}}
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # one worker for its sweep
    try:
        NotebookClient(found, timeout=240, kernel_name="python3", resources=there).execute()
    finally:
        os.sched_setaffinity(0, cores)
    cells = [cell for cell in found.cells if cell.cell_type == "code"]
    assert len(list(place.glob("runs/sweep/*/outcome.json"))) == 4
    assert (place / "runs" / "report" / "report.html").is_file()
    return cells


def shown(cell: nbformat.NotebookNode, kind: str) -> str:
    return "".join(output.data[kind] for output in cell.outputs if kind in output.get("data", {}))


def test_the_notebook_runs_and_its_results_show_themselves(
    notebook: list[nbformat.NotebookNode],
) -> None:
    one, sweep = (shown(notebook[place], "text/html") for place in (1, 3))
    for html in (one, sweep):
        assert "<svg" in html
        assert "What a reviewer would object to" in html
        assert "nano LoRA r=4" in html
    assert "micro zero-shot" in sweep
    assert "Patient" in shown(notebook[2], "text/html")
    assert "majority" in sweep
    assert "gain_low" in shown(notebook[4], "text/html")
    assert "<svg" in shown(notebook[7], "image/svg+xml")


def test_workers_of_a_sweep_do_not_run_the_notebook_again(
    notebook: list[nbformat.NotebookNode],
) -> None:
    said = "".join(str(output) for output in notebook[3].outputs)
    assert "4/4" in said
    assert not [output for cell in notebook for output in cell.outputs if "ename" in output]


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert len(cells) > 8
    assert not [c for c in cells if c.get("outputs") or c.get("execution_count")]
