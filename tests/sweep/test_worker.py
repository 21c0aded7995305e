"""What a worker does when its GPU answers no more: every later call of CUDA would fail in it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sizewise import devices
from sizewise.job.execute import STOPPED_EXIT, JobResult
from sizewise.record.state import JobState
from sizewise.sweep.launch import worker


def serve(run_dirs: Sequence[str], times: int = 1) -> tuple[int, list[str]]:
    """Ask a worker in this process; return its exit code and the states that it told."""
    replies = io.StringIO()
    requests = io.StringIO((json.dumps({"run_dirs": list(run_dirs)}) + "\n") * times)
    code = worker._serve(requests, replies)
    return code, [json.loads(line)["state"] for line in replies.getvalue().splitlines()]


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def synchronize(card: int) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def fails(*given: Any) -> None:
        raise AssertionError("nothing more is asked of a GPU that is lost")

    cuda = SimpleNamespace(
        device_count=lambda: 2, current_device=lambda: 0, memory_reserved=lambda card: 0,
        synchronize=synchronize, empty_cache=fails,
        reset_peak_memory_stats=lambda card: None,
    )  # fmt: skip
    monkeypatch.setattr(devices, "_cuda_in_use", lambda: cuda)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    def execute(run_dir: Path) -> JobResult:
        return JobResult(run_dir, JobState.FAILED, message="CUDA error")

    monkeypatch.setattr(worker, "execute", execute)


@pytest.mark.usefixtures("lost", "failing")
def test_it_tells_of_its_job_and_leaves_so_that_the_next_one_gets_another(tmp_path: Path) -> None:
    """The next one may have been handed over already: by this exit code it is begun again."""
    assert serve([str(tmp_path)], times=2) == (STOPPED_EXIT, ["failed"])


@pytest.mark.usefixtures("failing")
def test_a_job_that_fails_alone_costs_no_worker(tmp_path: Path) -> None:
    assert serve([str(tmp_path)], times=2) == (0, ["failed", "failed"])


@pytest.mark.usefixtures("lost")
def test_a_pack_is_left_at_the_first_failure_so_that_the_others_go_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[JobState] = []

    def together(run_dirs: Sequence[Path], ended: Callable[[JobResult], None], kept: Any) -> None:
        for run_dir, state in zip(run_dirs, (JobState.DONE, JobState.FAILED), strict=True):
            ended(JobResult(run_dir, state))

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr("sizewise.job.pack.execute_together", together)
    monkeypatch.setattr(worker.os, "_exit", leave)
    run_dirs = [tmp_path / name for name in ("a", "b")]
    with pytest.raises(SystemExit) as left:
        worker._run(run_dirs, lambda result: told.append(result.state), None)
    assert left.value.code == worker.LOST_EXIT
    assert told == [JobState.DONE, JobState.FAILED]


def test_only_cards_that_are_in_use_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one that is asked would have memory taken on it."""
    asked: list[int] = []
    cuda = SimpleNamespace(
        device_count=lambda: 4, current_device=lambda: 1, synchronize=asked.append,
        memory_reserved=lambda card: 100 if card == 3 else 0,
    )  # fmt: skip
    monkeypatch.setattr(devices, "_cuda_in_use", lambda: cuda)
    assert devices.device_works()
    assert asked == [1, 3]


def test_without_a_gpu_there_is_none_that_is_lost() -> None:
    assert devices.device_works()
