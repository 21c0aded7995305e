"""A signal that comes while a worker is being started stops that worker, too."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sizewise.record.state import JobState, job_state
from sizewise.sweep.launch.slot import Slot

from .conftest import Submit, run_local


def test_ctrl_c_while_a_worker_begins_stops_it(
    tmp_path: Path, submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, spawn, begun = [submitted(seed) for seed in (1, 2)], Slot._spawn, []

    def interrupted(slot: Slot) -> None:
        if not begun:
            os.kill(os.getpid(), signal.SIGINT)
        begun.append(slot.number)
        spawn(slot)

    monkeypatch.setenv("FAKE_SECONDS", "600")
    monkeypatch.setattr(Slot, "_spawn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_local(jobs, tmp_path, n_jobs=2)
    assert begun == [0], "a worker was begun after the signal"
    assert {job_state(job.run_dir) for job in jobs} <= {JobState.WAITING, JobState.INTERRUPTED}
