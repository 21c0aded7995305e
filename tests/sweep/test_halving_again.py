"""Halving in a directory where others have worked: old views, other rungs, other versions."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tests.job.runs import SMALL

from sizewise.composition.compose import compose_config
from sizewise.config import SweepConfig
from sizewise.job.execute import execute
from sizewise.job.submit import make_job, submit
from sizewise.record.brackets import read_tuning
from sizewise.record.directories import RunDir
from sizewise.record.outcome import Evaluation, read_outcome
from sizewise.record.state import JobState, is_done, job_state
from sizewise.record.stops import Stop, stop_at, write_stop
from sizewise.sweep.grid import record
from sizewise.sweep.stages import _submit

from .fake import trace
from .screened import KilledError, run
from .test_halving import RATES, ended, halved

RUNGS = {"rungs": [0.25, 0.5]}
PLAIN = {"rungs": None}


def begun(folder: Path) -> int:
    return sum(len(trace(path)) for path in folder.glob("*"))


def test_a_launcher_with_an_old_view_leaves_what_others_have_brought_further(
    tmp_path: Path,
) -> None:
    old = halved(tmp_path, halving=RUNGS)
    assert {job.stop_at for job in old.to_do} == {0.25}
    with pytest.raises(KilledError):
        run(halved(tmp_path, halving=RUNGS), jobs_until_kill=8 + 3)
    before = begun(tmp_path)
    job_files = {path: path.read_text() for path in tmp_path.glob("*/job.json")}
    stood = [job for job in old.to_do if stop_at(job.run_dir, 0.5)]
    assert len(stood) == 3
    assert _submit(old.to_do) == []
    assert job_files == {path: path.read_text() for path in tmp_path.glob("*/job.json")}
    assert {job_state(job.run_dir) for job in stood} == {JobState.PRUNED}
    run(old)
    assert begun(tmp_path) == before + 1 + 2 + 2, "the rest, what is kept and its further seeds"


def test_a_fit_that_was_there_already_is_not_trained_again(tmp_path: Path) -> None:
    """A launcher with an old view has written its job just before a worker read it."""
    job = halved(tmp_path, halving=RUNGS).to_do[0]
    for share in (0.25, 0.5):
        _submit([replace(job, stop_at=share)])
        execute(job.run_dir)
    submit(replace(job, stop_at=0.25))
    assert execute(job.run_dir).state == JobState.PRUNED
    assert [entry["stop"] for entry in trace(job.run_dir)] == [0.25, 0.5]
    stops = [stop_at(job.run_dir, share) for share in (0.25, 0.5)]
    assert [stop and stop.step for stop in stops] == [25, 50], "both are on record"


def test_where_one_was_stopped_beyond_the_rung_only_the_end_compares_all(tmp_path: Path) -> None:
    grid = [("r=4", f"optimizer.lr={lr}", "seed=1") for lr in RATES]
    with pytest.raises(KilledError):
        run(halved(tmp_path, grid, halving={"rungs": [0.5]}), jobs_until_kill=1)
    plan = halved(tmp_path, grid, halving={"rungs": [0.25]})
    assert {job.stop_at for job in plan.to_do} == {1.0}


def test_without_halving_what_was_stopped_is_run_to_its_end(tmp_path: Path) -> None:
    run(halved(tmp_path))
    assert read_tuning(tmp_path) is not None
    plain = halved(tmp_path, halving=PLAIN)
    states = [plain.states[job.identity.slug] for job in plain.to_do]
    assert states.count(JobState.INTERRUPTED) == 4, "they stand at the rung"
    record(plain, [], SweepConfig(), None)
    assert read_tuning(tmp_path) is None, "no run is one that was only tried"
    run(plain)
    assert all(is_done(job.run_dir) for job in plain.jobs)
    assert len(ended(tmp_path)) == len(plain.jobs) == 16
    assert halved(tmp_path, halving=PLAIN).to_do == []


def test_candidates_stopped_by_an_earlier_version_among_others_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Which compared the last weights, and not their mean."""
    run(halved(tmp_path))
    assert "earlier version" not in caplog.text
    job = next(j for j in halved(tmp_path).jobs if job_state(j.run_dir) == JobState.PRUNED)
    write_stop(job.run_dir, Stop(33, 9.0, 1 / 3, 100, averaged=16))
    with caplog.at_level(logging.WARNING):
        run(halved(tmp_path))
    assert "tiny on toy: some candidates were stopped by an earlier version" in caplog.text


def test_a_tenth_of_a_tenth_of_a_hundred_is_one(tmp_path: Path) -> None:
    grid = [("r=4", f"optimizer.lr={n / 1e4}", "seed=1") for n in range(1, 101)]
    (bracket,) = halved(tmp_path, grid, halving={**RUNGS, "keep": 0.1, "keep_each": []}).brackets
    assert [rung.keep for rung in bracket.rungs] == [10, 1]


def test_a_fit_that_was_done_before_a_rung_was_asked_is_scored_beside_its_base(
    tmp_path: Path,
) -> None:
    """Killed between the fit and the scores, and begun again by a sweep with rungs."""
    config = compose_config([*SMALL, f"paths.cache={tmp_path / 'cache'}"])
    job = make_job(config, tmp_path / "run")
    submit(job)
    assert execute(job.run_dir).state == JobState.DONE
    undisturbed = read_outcome(job.run_dir)
    RunDir(job.run_dir).outcome.unlink()
    for folder in (RunDir(job.run_dir).all_predictions, tmp_path / "cache"):
        shutil.rmtree(folder)
    submit(replace(job, stop_at=0.5))
    assert execute(job.run_dir).state == JobState.DONE
    again = read_outcome(job.run_dir)
    for side in ("base", "tuned"):
        before, after = (_scores(getattr(each, side)) for each in (undisturbed, again))
        assert before == after


def _scores(evaluations: Mapping[str, Evaluation]) -> dict[str, float]:
    (evaluation,) = evaluations.values()
    return {k: v for k, v in evaluation.scores.items() if not k.startswith("efficiency/")}
