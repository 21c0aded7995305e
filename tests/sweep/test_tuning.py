"""Learning rates screened with one seed: what is chosen, and that nothing but figures chooses."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizewise.config import SweepConfig, TuningConfig
from sizewise.errors import ConfigError
from sizewise.job.submit import submitted_stop
from sizewise.record.brackets import (
    BracketRecord,
    Candidate,
    RungRecord,
    TuningRecord,
    audit_sentence,
    read_tuning,
)
from sizewise.record.state import JobState, is_done, job_state
from sizewise.record.stops import standing_stop
from sizewise.sweep.brackets import all_diverged, drawn
from sizewise.sweep.finish import unfinished
from sizewise.sweep.plan import print_plan

from .fake import trace
from .screened import OWN, KilledError, planned, run, survivors


def test_candidates_run_with_one_seed_and_only_the_best_gets_the_others(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert (len(plan.jobs), plan.later) == (2 * 3, 2 * 2), "candidates, further seeds"
    ended = run(plan)
    # fake.tuned: the best rate is 0.01 for rank 4 and 0.001 for rank 16.
    assert survivors(tmp_path) == {
        (r, seed): lr for r, lr in ((4, 0.01), (16, 0.001)) for seed in (1, 2, 3)
    }
    states = [job_state(job.run_dir) for job in ended.jobs]
    assert (states.count(JobState.DONE), states.count(JobState.PRUNED)) == (6, 4)
    assert unfinished([job.run_dir for job in ended.jobs]) == []


def test_what_was_stopped_is_recorded_with_its_budget(tmp_path: Path) -> None:
    run(planned(tmp_path))
    tuned = read_tuning(tmp_path)
    assert tuned is not None
    assert [cell.kept.lr for cell in tuned.cells if cell.kept] == [0.01, 0.001]
    assert {cell.name for cell in tuned.cells} == {"r=4", "r=16"}
    for bracket, candidate in tuned.stopped:
        stop = standing_stop(tmp_path / candidate.run)
        assert stop is not None
        assert [rung.share for rung in bracket.rungs] == [2 / 3]
        assert (candidate.step, candidate.of_steps) == (67, 100)
        assert (candidate.value, candidate.seconds) == (stop.value, 2.0)


def test_the_same_command_has_nothing_left_to_do(tmp_path: Path) -> None:
    run(planned(tmp_path))
    again = planned(tmp_path)
    assert (again.to_do, again.later) == ([], 0)
    before = {path: path.read_text() for path in tmp_path.glob("*/trace.jsonl")}
    run(again)
    assert before == {path: path.read_text() for path in tmp_path.glob("*/trace.jsonl")}


@settings(max_examples=15, deadline=None)
@given(kills=st.lists(st.integers(0, 9), max_size=5))
def test_a_kill_anywhere_leads_to_the_same_survivors(
    tmp_path_factory: pytest.TempPathFactory, kills: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("killed")
    for after in kills:
        try:
            run(planned(folder), jobs_until_kill=after)
        except KilledError:
            continue
    run(planned(folder))
    assert set(survivors(folder).values()) == {0.01, 0.001}
    assert len(survivors(folder)) == len(list(folder.glob("*/outcome.json"))) == 6


def test_two_launchers_on_one_directory_agree(tmp_path: Path) -> None:
    """One has planned before the other has chosen, and each finds the other's work done."""
    first, second = planned(tmp_path), planned(tmp_path)
    with pytest.raises(KilledError):
        run(first, jobs_until_kill=7)  # one step into its second stage
    run(second)
    run(first)
    assert len(survivors(tmp_path)) == 6
    begun = [entry for path in tmp_path.glob("*") for entry in trace(path)]
    assert len(begun) == 6 + 6, "six candidates, two that went on and four further seeds"


def test_a_failed_candidate_does_not_silently_lose(tmp_path: Path) -> None:
    def grid(seeds: str) -> list[tuple[str, ...]]:
        return [(f"r={r}", f"seed={seed}") for r in (13, 16) for seed in seeds.split()]

    ended = run(planned(tmp_path, grid("1 2")))  # fake.tuned fails for rank 13 at its own rate
    failed = unfinished([job.run_dir for job in ended.jobs])
    assert [failure.reason for failure in failed] == ["ValueError: this job was made to fail"]
    assert {r for r, _ in survivors(tmp_path)} == {16}, "the rest goes on"
    tuned = read_tuning(tmp_path)
    assert tuned is not None
    states = [[c.state for c in cell.candidates] for cell in tuned.cells]
    assert states == [["stopped", "failed", "open"], ["stopped", "kept", "stopped"]]
    assert tuned.cells[0].kept is None, "the failed one may be the better of the two"
    (tmp_path / "repaired").touch()
    run(planned(tmp_path, grid("1 2")))
    assert {r for r, _ in survivors(tmp_path)} == {13, 16}


def test_a_rate_that_diverges_loses_and_if_all_do_it_is_an_error(tmp_path: Path) -> None:
    ended = run(planned(tmp_path / "one", tuning={"lr_factors": [1.0, 1e4]}))
    assert set(survivors(tmp_path / "one").values()) == {OWN}
    assert all_diverged(ended.brackets) == []
    ended = run(planned(tmp_path / "all", tuning={"lr_factors": [1e4, 1e5]}))
    assert survivors(tmp_path / "all") == {}
    reasons = [failure.reason for failure in all_diverged(ended.brackets)]
    assert len(reasons) == 2
    assert all("every candidate that was tried diverged (r=" in reason for reason in reasons)


def test_to_the_end_compares_the_best_losses_of_whole_fits(tmp_path: Path) -> None:
    run(planned(tmp_path, tuning={"rung": 1.0}))
    tuned = read_tuning(tmp_path)
    assert tuned is not None
    assert [rung.share for bracket in tuned.brackets for rung in bracket.rungs] == [1.0, 1.0]
    assert [cell.kept.lr for cell in tuned.cells if cell.kept] == [0.01, 0.001]
    assert len(list(tmp_path.glob("*/outcome.json"))) == 6 + 4, "every candidate ended"


def test_a_cell_with_a_run_that_went_past_the_rung_is_decided_at_the_end(tmp_path: Path) -> None:
    """Such as one of a sweep without tuning, in the same directory."""
    run(planned(tmp_path, [("r=4", "seed=1")], tuning={"lr_factors": None}))
    run(planned(tmp_path, [("r=4", "seed=1"), ("r=4", "seed=2")]))
    tuned = read_tuning(tmp_path)
    assert tuned is not None
    (bracket,), (cell,) = tuned.brackets, tuned.cells
    assert [rung.share for rung in bracket.rungs] == [1.0]
    assert cell.kept is not None
    assert cell.kept.lr == 0.01
    assert all(candidate.final is not None for candidate in cell.candidates)


def test_an_audit_runs_the_drawn_to_their_end_and_spends_no_seeds_on_them(tmp_path: Path) -> None:
    run(planned(tmp_path))
    plan = planned(tmp_path, tuning={"audit": 1.0})
    assert len(plan.to_do) == 4
    run(plan)
    tuned = read_tuning(tmp_path)
    assert tuned is not None
    assert [c.state for _, c in tuned.stopped] == ["audited"] * 4
    assert len(list(tmp_path.glob("*/outcome.json"))) == 6 + 4
    assert audit_sentence([tuned]).startswith(
        "Audit: 4 of the stopped were run to their end; the winner had been kept in 2 of 2 brackets"
    )


def test_the_draw_of_an_audit_is_the_runs_own_and_has_its_share() -> None:
    draws = [drawn(f"{number:012x}") for number in range(2000)]
    assert draws == [drawn(f"{number:012x}") for number in range(2000)]
    assert sum(draw < 0.1 for draw in draws) == pytest.approx(200, abs=45)


def test_the_regret_of_an_audit_is_that_of_the_final_losses() -> None:
    def bracket(kept: float, other: float) -> BracketRecord:
        candidates = [
            Candidate("a", 1.0, "kept", value=0.5, final=kept),
            Candidate("b", 2.0, "audited", value=0.6, final=other),
        ]
        return BracketRecord("x", [RungRecord(0.5, 1)], candidates)

    said = audit_sentence([TuningRecord([bracket(0.44, 0.4), bracket(0.3, 0.4)], 0.5)])
    assert "kept in 1 of 2 brackets, mean regret 5.00%" in said


def test_a_rate_that_the_command_gives_is_swept_instead(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grid = [("r=4", f"optimizer.lr={lr}", f"seed={seed}") for lr in (1, 2) for seed in (1, 2)]
    with caplog.at_level(logging.WARNING):
        plan = planned(tmp_path, grid)
    assert "sweep.tuning.lr_factors applies to nothing" in caplog.text
    (bracket,) = plan.brackets
    rates = [job.config["optimizer"]["lr"] for job in bracket.candidates.values()]
    assert rates == [1.0, 2.0]
    single = planned(tmp_path, [("r=4", "optimizer.lr=0.5", "seed=1")])
    assert (single.brackets, len(single.jobs)) == ([], 1)


def test_tuning_is_off_by_default_and_leaves_what_does_not_train_alone(tmp_path: Path) -> None:
    assert not SweepConfig().tuning.on
    plan = planned(tmp_path, [("lora=none",), ("r=4", "seed=1")])
    assert [job.config["lora"]["method"] for job in plan.jobs] == ["none", "lora", "lora", "lora"]
    assert planned(tmp_path, tuning={"lr_factors": []}).brackets == []
    whole = planned(tmp_path, tuning={"screen": False})
    assert (whole.brackets, len(whole.jobs)) == ([], 2 * 3 * 3)


def test_the_rate_of_factor_one_is_the_job_that_there_would_be_without_tuning(
    tmp_path: Path,
) -> None:
    plain = {job.identity.hash for job in planned(tmp_path, tuning={"lr_factors": None}).jobs}
    tuned = {job.identity.hash for job in planned(tmp_path).pool}
    assert plain < tuned


def test_the_plan_counts_what_it_cannot_name_yet(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        print_plan(planned(tmp_path), details=False)
    assert "10 jobs; 0 done, 10 to do" in caplog.text
    assert (
        "2 configurations at several learning rates: 6 jobs run with one seed to 2/3 of their"
        in (caplog.text)
    )
    assert "the best of each by validation loss go on, with 4 jobs more" in caplog.text


def test_a_limit_counts_starts_over_both_stages(tmp_path: Path) -> None:
    ended = run(planned(tmp_path, limit=7), limit=7)
    done = [job for job in ended.jobs if is_done(job.run_dir)]
    assert len(done) == 1
    assert len(list(tmp_path.glob("*/trace.jsonl"))) == 6


def test_fail_fast_leaves_the_second_stage_out(tmp_path: Path) -> None:
    run(planned(tmp_path, [("r=13", "seed=1"), ("r=16", "seed=1")]), fail_fast=True)
    assert survivors(tmp_path) == {}


def test_where_a_job_stops_is_no_part_of_what_it_is(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    run(plan)
    kept = next(job for job in plan.jobs if is_done(job.run_dir))
    assert submitted_stop(kept.run_dir) is None
    assert [entry["stop"] for entry in trace(kept.run_dir)] == [2 / 3, None]
    assert not standing_stop(kept.run_dir)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr_factors": [1.0, 1.0]}, "names a factor twice"),
        ({"lr_factors": [0.0]}, r"sweep\.tuning\.lr_factors=0\.0 is too small"),
        ({"rung": 0.0}, r"sweep\.tuning\.rung=0\.0 is too small"),
        ({"rung": 1.5}, r"sweep\.tuning\.rung=1\.5 is out of range"),
        ({"audit": 2.0}, r"sweep\.tuning\.audit=2\.0 is out of range"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], said: str) -> None:
    build: Callable[..., TuningConfig] = TuningConfig
    with pytest.raises(ConfigError, match=said):
        build(**options)
