"""The benchmark of sweeps runs, and measures what it says it does."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import sweep

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_a_halved_sweep_is_measured_against_the_grid_and_against_hydra_with_hf_trainer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.main(["--tiny", "--folder", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 configurations")
    assert [line.split("|")[1].strip() for line in lines[3:]] == [
        "halved", "full grid", "Hydra basic, HF Trainer",
    ]  # fmt: skip
    ended = [len(list((tmp_path / n).glob("*/outcome.json"))) for n in ("halved", "grid")]
    assert ended == [2, 4]
    assert len(list((tmp_path / "peer").glob("*/result.json"))) == 4
