"""The example of the Python interface runs, and uses public names alone."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest
from examples import one_run

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
