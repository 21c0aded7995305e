"""What of a run is measured as its energy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.job.runs import run

from sizewise import energy
from sizewise.evaluation.predict import Predicted, predict
from sizewise.job import language_model

ASKED: list[str] = []
PAUSED: list[str] = []


def noted(*given: Any, **options: Any) -> Predicted:
    """Predict, and note the file that the answers go to."""
    ASKED.append(given[4].path.stem)
    return predict(*given, **options)


class Counter:
    """A meter that counts its starts and always says 7 joules."""

    def __init__(self, gpus: tuple[str, ...]) -> None:
        assert gpus == ()

    def start(self) -> None:
        """Begin."""

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Note which answers are left out."""
        before = len(ASKED)
        yield
        PAUSED.extend(ASKED[before:])

    def stop(self) -> float:
        """End."""
        return 7.0


def test_only_whole_runs_have_an_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers out of the cache cost nothing, and a run that goes on has spent some before."""
    monkeypatch.setattr(energy, "EnergyMeter", Counter)
    monkeypatch.setattr(language_model, "predict", noted)
    PAUSED.clear()
    assert run(tmp_path, "zero", "lora=none").cost.energy_joules == 7.0
    assert run(tmp_path, "reused", "lora=none", "seed=43").cost.energy_joules is None
    assert run(tmp_path, "tuned").cost.energy_joules == 7.0
    assert PAUSED == ["tuned_validation.icd10_dialogues"], "validation is no part of the energy"
    (tmp_path / "tuned" / "outcome.json").unlink()
    assert run(tmp_path, "tuned").cost.energy_joules is None
