"""Fixtures of the app's tests: the factory of synthetic runs that the report's tests use."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.report.factory import Spec, Task, make_sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep of three synthetic runs: nano tuned twice, mini zero-shot."""
    task = Task("counselling", examples=60)
    specs = [Spec("nano", r=4, task=task), Spec("nano", r=8, task=task)]
    specs += [Spec("mini", 0.4, None, task=task)]
    make_sweep(tmp_path / "sweep", specs)
    return tmp_path / "sweep"
