"""What of a run is measured as its energy."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.job.runs import run

from sizewise import energy


class Counter:
    """A meter that counts its starts and always says 7 joules."""

    def __init__(self, gpus: tuple[str, ...]) -> None:
        assert gpus == ()

    def start(self) -> None:
        """Begin."""

    def stop(self) -> float:
        """End."""
        return 7.0


def test_only_whole_runs_have_an_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers out of the cache cost nothing, and a run that goes on has spent some before."""
    monkeypatch.setattr(energy, "EnergyMeter", Counter)
    assert run(tmp_path, "zero", "lora=none").cost.energy_joules == 7.0
    assert run(tmp_path, "reused", "lora=none", "seed=43").cost.energy_joules is None
    assert run(tmp_path, "tuned").cost.energy_joules == 7.0
    (tmp_path / "tuned" / "outcome.json").unlink()
    assert run(tmp_path, "tuned").cost.energy_joules is None
