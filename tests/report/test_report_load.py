from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.report.factory import PRIMARY, Spec, Task, make_run, make_sweep

from sizewise.errors import OutcomeError
from sizewise.record.directories import RunDir
from sizewise.report.comparison.runs import AnswerCache, find_run_dirs, load_runs, parse_answers

SMALL = Task(examples=20)


def test_runs_are_found_at_and_below_the_given_directories(tmp_path: Path) -> None:
    dirs = make_sweep(tmp_path / "sweep", [Spec(seed=s, task=SMALL) for s in (1, 2)])
    alone = make_run(tmp_path / "alone", Spec(seed=3, task=SMALL))
    assert find_run_dirs([tmp_path / "sweep", alone, dirs[0]]) == sorted([*dirs, alone])
    with pytest.raises(OutcomeError, match="is no directory"):
        find_run_dirs([tmp_path / "nowhere"])


def test_damaged_record_is_a_problem_and_not_an_error(tmp_path: Path) -> None:
    first, second = make_sweep(tmp_path, [Spec(seed=s, task=SMALL) for s in (1, 2)])
    RunDir(first).outcome.write_text('{"run_id": "x", ')
    loaded = load_runs([tmp_path])
    assert [run.directory for run in loaded.runs] == [second]
    assert "truncated" in loaded.problems[0].reason


def test_copied_run_counts_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a" / "run", Spec(task=SMALL))
    shutil.copytree(run, tmp_path / "b" / "run")
    loaded = load_runs([tmp_path])
    assert len(loaded.runs) == 1
    assert "counted once" in loaded.problems[0].reason


def test_the_same_job_run_twice_is_no_further_seed(tmp_path: Path) -> None:
    """Made on two machines the records differ in their times, and are still one seed."""
    for machine, seconds in (("a", 60.0), ("b", 90.0)):
        specs = [Spec(seed=s, task=SMALL, train_seconds=seconds) for s in (1, 2, 3)]
        make_sweep(tmp_path / machine, specs)
    loaded = load_runs([tmp_path / "a", tmp_path / "b"])
    assert sorted(run.outcome.seed for run in loaded.runs) == [1, 2, 3]
    assert all("counted once" in problem.reason for problem in loaded.problems)
    assert len(loaded.problems) == 3


def test_answers_follow_a_run_to_another_place(tmp_path: Path) -> None:
    run = make_run(tmp_path / "here" / "run", Spec(task=SMALL))
    shutil.move(run, tmp_path / "there")
    (loaded,) = load_runs([tmp_path / "there"]).runs
    answers = AnswerCache().get(loaded, loaded.outcome.base[SMALL.name])
    assert len(answers.ids) == 20
    assert answers.scores[PRIMARY].mean() == pytest.approx(0.2)
    assert set(answers.strata) == {"label", "label_band", "language"}


def test_changed_or_missing_predictions_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", Spec(task=SMALL))
    (loaded,) = load_runs([run]).runs
    evaluation = loaded.outcome.base[SMALL.name]
    path = run / evaluation.predictions.path
    path.write_text(path.read_text().replace("A00.0", "A00.1", 1))
    with pytest.raises(OutcomeError, match="was changed after the run"):
        AnswerCache().get(loaded, evaluation)
    path.unlink()
    with pytest.raises(OutcomeError, match="cannot be read"):
        AnswerCache().get(loaded, evaluation)


@pytest.mark.parametrize("data", [b'{"scores": {"\xc3\n', b"[1]\n", b"{}\n", b"{\n"])
def test_damaged_predictions_are_one_message(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(data)
    with pytest.raises(OutcomeError, match="is no predictions file of this version"):
        parse_answers(path)
