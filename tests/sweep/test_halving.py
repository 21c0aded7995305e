"""Successive halving: who goes on, whatever is known when, and whoever decides."""

from __future__ import annotations

import json
import logging
import math
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from benchmarks.halving import RULES, At, read, simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from sizewise.composition import resolvers
from sizewise.config import HalvingConfig, SweepConfig
from sizewise.errors import ConfigError
from sizewise.files import sealed, unsealed
from sizewise.record.brackets import audit_sentence
from sizewise.record.directories import SweepDir
from sizewise.record.outcome import read_outcome
from sizewise.record.state import JobState, job_state
from sizewise.record.stops import stop_at
from sizewise.sweep.brackets import all_diverged
from sizewise.sweep.finish import unfinished
from sizewise.sweep.halving import Fate, Rung, halve
from sizewise.sweep.plan import Plan, print_plan
from sizewise.training.milestones import WINDOW

from .fake import trace
from .screened import KilledError, planned, run, tried

RATES = (1e-4, 1e-3, 1e-2, 1e-1)
GRID = [
    (f"r={r}", f"optimizer.lr={lr}", f"seed={seed}")
    for r in (4, 16)
    for lr in RATES
    for seed in (1, 2)
]
Known = set[tuple[str, int]]


@dataclass(frozen=True)
class World:
    """Learning curves: ``losses[name]`` has a loss for each rung, None where it diverged."""

    rungs: list[Rung]
    losses: dict[str, list[float | None]]

    def decide(self, known: Known) -> dict[str, Fate]:
        """Decide from the figures that are known."""

        def losses_at(number: int, contenders: Collection[str]) -> dict[str, float | None]:
            return {n: self.losses[n][number] for n in contenders if (n, number) in known}

        return halve(self.losses, self.rungs, losses_at)

    def next_figures(self, known: Known) -> Known:
        """The figures that a launcher would have made after what is known."""
        fates = self.decide(known)
        ahead = {(n, f.passed) for n, f in fates.items() if not f.out}
        return {(n, number) for n, number in ahead if number < len(self.rungs)} - known

    def wanted(self) -> dict[str, int]:
        """Brute force: how many rungs every candidate passes."""
        passed, left = dict.fromkeys(self.losses, 0), list(self.losses)
        for number, rung in enumerate(self.rungs):
            finite = [n for n in left if self.losses[n][number] is not None]
            ranked = sorted(finite, key=lambda n: (self.losses[n][number], n))
            best = {rung.groups[n]: n for n in reversed(ranked)}.values()
            near = ranked[: rung.keep]
            if rung.margin is not None:
                lowest = self.losses[ranked[0]][number] if ranked else None
                near = [n for n in near if self.losses[n][number] <= lowest * (1 + rung.margin)]
            left = [n for n in ranked if n in near or n in best]
            for name in left:
                passed[name] += 1
        return passed


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Curves with ties, divergence and groups of any size, and rungs with and without a margin."""
    names = [f"c{number}" for number in range(draw(st.integers(1, 9)))]
    number_of_rungs = draw(st.integers(1, 3))
    rungs = []
    for number in range(number_of_rungs):
        groups = {name: str(draw(st.integers(0, 3))) for name in names}
        margin = draw(st.none() | st.sampled_from([0.0, 0.5, 1.0, 2.0]))
        keep = draw(st.integers(0, len(names)))
        rungs.append(Rung((number + 1) / 4, keep, groups, margin=margin))
    loss = st.none() | st.integers(0, 4).map(float)
    losses = {name: draw(st.lists(loss, min_size=3, max_size=3)) for name in names}
    return World(rungs, losses)


@settings(max_examples=300, deadline=None)
@given(world=worlds(), chance=st.randoms(use_true_random=False))
def test_launchers_that_know_different_parts_end_with_what_brute_force_finds(
    world: World, chance: random.Random
) -> None:
    """Each works from stale knowledge, and any of them may be killed before a figure is written."""
    wanted, disk = world.wanted(), set[tuple[str, int]]()
    seen: list[Known] = [set(), set(), set()]
    while world.next_figures(disk):
        launcher = chance.randrange(3)
        if chance.random() < 0.5:
            seen[launcher] = set(disk)
        todo = sorted(world.next_figures(seen[launcher]))
        if not todo:
            seen[launcher] = set(disk)
            continue
        made = chance.choice(todo)
        assert made[1] <= wanted[made[0]], "it ran further than it was kept"
        if chance.random() < 0.7:
            disk.add(made)
            seen[launcher].add(made)
    fates = world.decide(disk)
    assert {name: fate.passed for name, fate in fates.items()} == wanted
    rungs = len(world.rungs)
    assert all(fate.out == (fate.passed < rungs) for fate in fates.values()), "all is decided"


@settings(max_examples=300, deadline=None)
@given(world=worlds(), chance=st.randoms(use_true_random=False))
def test_what_was_sure_stays_so_whatever_else_becomes_known(
    world: World, chance: random.Random
) -> None:
    figures = [(name, number) for name in world.losses for number in range(len(world.rungs))]
    known = {figure for figure in figures if chance.random() < 0.6}
    more = known | {figure for figure in figures if chance.random() < 0.5}
    before, after = world.decide(known), world.decide(more)
    for name, fate in before.items():
        assert after[name].passed >= fate.passed
        assert not fate.out or after[name].out


def test_a_clear_winner_goes_on_while_others_still_run() -> None:
    """Of four two are kept: the best of three known is among them, the worst is not."""
    rung = Rung(1 / 3, 2, dict.fromkeys("abcd", "all"))
    fates = halve("abcd", [rung], lambda *_: {"a": 1.0, "b": 2.0, "c": 3.0})
    assert fates == {"a": Fate(1), "b": Fate(), "c": Fate(0, out=True), "d": Fate()}


def halved(folder: Path, grid: Any = GRID, **options: Any) -> Plan:
    """A sweep of a grid's own learning rates, at a third of the steps."""
    halving = {"rungs": [1 / 3], **options.pop("halving", {})}
    tuning = options.pop("tuning", {"lr_factors": None})
    return planned(folder, grid, tuning=tuning, halving=halving, **options)


def ended(folder: Path) -> set[tuple[int, float, int]]:
    """Rank, learning rate and seed of every run that went to its end."""
    runs = [read_outcome(path.parent) for path in folder.glob("*/outcome.json")]
    return {(r.config["lora"]["r"], r.config["optimizer"]["lr"], r.seed) for r in runs}


# fake.tuned: the loss grows by one for every power of ten between a rate and the best one, which is
# 0.01 for rank 4 and 0.001 for rank 16.
BOTH = {(4, 1e-2, 1), (4, 1e-2, 2), (16, 1e-3, 1), (16, 1e-3, 2)}


def test_half_of_a_grid_goes_on_and_further_seeds_are_spent_on_that_only(tmp_path: Path) -> None:
    plan = halved(tmp_path)
    assert (len(plan.to_do), plan.later) == (8, 4)
    over = run(plan)
    assert len(ended(tmp_path)) == 4 * 2
    assert ended(tmp_path) > BOTH
    assert unfinished([job.run_dir for job in over.jobs]) == []
    states = [job_state(job.run_dir) for job in over.jobs]
    assert (states.count(JobState.DONE), states.count(JobState.PRUNED)) == (8, 4)
    assert halved(tmp_path).to_do == [], "the same command has nothing left to do"


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"keep": 0.1}, BOTH),
        ({"keep": 0.1, "keep_each": ["model"]}, {(16, 1e-3, 1), (16, 1e-3, 2)}),
        ({"keep": 0.1, "keep_each": []}, {(16, 1e-3, 1), (16, 1e-3, 2)}),
        ({"keep": 0.1, "keep_each": ["lora.r", "model"]}, BOTH),
    ],
)
def test_one_of_each_combination_of_keep_each_goes_on(
    tmp_path: Path, options: dict[str, Any], left: set[tuple[int, float, int]]
) -> None:
    run(halved(tmp_path, halving=options))
    found = ended(tmp_path)
    # Both ranks have the same lowest loss, so a tie goes by the name, which the identity gives.
    assert found == left or (len(left) == 2 and found == BOTH - left)


def test_a_later_rung_halves_again(tmp_path: Path) -> None:
    over = run(halved(tmp_path, halving={"rungs": [0.25, 0.5]}))
    (bracket,) = tried(tmp_path).brackets
    assert [(rung.share, rung.keep) for rung in bracket.rungs] == [(0.25, 4), (0.5, 2)]
    assert ended(tmp_path) == BOTH
    steps = sorted(c.step for c in bracket.candidates if c.state == "stopped" and c.step)
    assert steps == [25] * 4 + [50] * 2
    for candidate in bracket.kept:
        run_dir = tmp_path / candidate.run
        assert [entry["stop"] for entry in trace(run_dir)] == [0.25, 0.5, None]
        stops = [stop_at(run_dir, share) for share in (0.25, 0.5)]
        assert [stop and stop.step for stop in stops] == [25, 50], "every rung stays on record"
        assert candidate.values == [stop and stop.value for stop in stops]
    assert over.undecided == 0


@pytest.mark.parametrize(
    ("options", "each_rank", "count"),
    [
        # A rate ten times off the best one of its rank has nearly twice the loss, and the next
        # nearly three times.
        ({"margin": [1.0]}, True, 4),
        ({"margin": [1.0], "keep": 1.0}, True, 6),
        ({"margin": [0.5], "keep": 1.0}, True, 2),
        ({"rungs": [0.25, 0.5], "margin": [1.0, 0.5], "keep": 1.0}, True, 2),
        ({"margin": [0.0], "keep": 1.0, "keep_each": []}, False, 2),
        ({"margin": [1e-3], "keep": 0.1, "keep_each": []}, False, 1),
    ],
)
def test_who_is_farther_behind_than_the_margin_goes_no_further(
    tmp_path: Path, options: dict[str, Any], each_rank: bool, count: int
) -> None:
    run(halved(tmp_path, halving=options))
    found = {(r, lr) for r, lr, _ in ended(tmp_path)}
    assert len(found) == count
    assert not each_rank or found >= {(r, lr) for r, lr, _ in BOTH}
    (bracket,) = tried(tmp_path).brackets
    assert [rung.margin for rung in bracket.rungs] == options["margin"]


def test_a_margin_waits_for_those_that_could_put_others_behind_it() -> None:
    """What is surely the best of its group goes on, and what is surely behind does not."""
    rung = Rung(1 / 3, 4, {"a": "x", "b": "x", "c": "x", "d": "y"}, margin=0.5)
    known = {"a": 1.0, "b": 1.2, "c": 1.6}
    fates = halve("abcd", [rung], lambda *_: known)
    assert fates == {"a": Fate(1), "b": Fate(), "c": Fate(0, out=True), "d": Fate()}
    fates = halve("abcd", [rung], lambda *_: known | {"d": 0.7})
    assert fates == {"a": Fate(1), "b": Fate(0, out=True), "c": Fate(0, out=True), "d": Fate(1)}


def test_how_far_behind_somebody_is_goes_by_who_is_surely_compared_there() -> None:
    """``b`` may yet be stopped at the first rung, and has a loss at the second all the same."""
    everyone = dict.fromkeys("abcde", "all")
    rungs = [Rung(0.25, 4, everyone), Rung(0.5, 5, everyone, margin=0.5)]
    first = {"a": 1.0, "e": 1.0, "b": 2.0}
    second = {"e": 2.5, "a": 3.0, "b": 1.0, "c": 9.0, "d": 9.0}
    assert halve("abcde", rungs, lambda n, _: (first, second)[n])["a"] == Fate(1)
    behind = first | {"c": 1.0, "d": 1.0}
    assert halve("abcde", rungs, lambda n, _: (behind, second)[n])["a"] == Fate(2)
    before = first | {"c": 3.0, "d": 3.0}
    assert halve("abcde", rungs, lambda n, _: (before, second)[n])["a"] == Fate(1, out=True)


def test_a_margin_alone_makes_a_rung_and_says_that_fewer_may_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = halved(tmp_path, halving={"keep": 1.0, "margin": [0.2]})
    with caplog.at_level(logging.INFO):
        print_plan(plan, details=False)
    assert "Sweep " in caplog.text
    assert ": up to 16 jobs; 0 done, 16 to do." in caplog.text
    assert "the best 2 to 8 by validation loss go on, with at most 8 jobs more" in caplog.text
    with_room = halved(tmp_path, halving={"keep": 0.5, "margin": [0.2]})
    with caplog.at_level(logging.INFO):
        print_plan(with_room, details=False)
    assert "the best 2 to 5 by" in caplog.text, "the best of a rank may be behind four of the other"
    few = halved(tmp_path, halving={"keep": 0.1, "margin": [0.2]})
    with caplog.at_level(logging.INFO):
        print_plan(few, details=False)
    assert "the best 2 (at least) by validation loss go on, with 2 jobs more" in caplog.text
    one_seed = [overrides for overrides in GRID if overrides[-1] == "seed=1"]
    with caplog.at_level(logging.INFO):
        print_plan(halved(tmp_path, one_seed, halving={"margin": [0.2]}), details=False)
    assert "the best 2 to 5 by validation loss go on.\n" in caplog.text
    assert halved(tmp_path, halving={"keep": 1.0}).brackets == []
    assert "keep=1 keeps all. Give a sweep.halving.margin, or a lower keep." in caplog.text


def test_with_tuned_rates_one_of_each_configuration_is_left(tmp_path: Path) -> None:
    """Halved at a third over both ranks, then one rate of each kept at two thirds."""
    grid = [(f"r={r}", f"seed={seed}") for r in (4, 16) for seed in (1, 2)]
    factors = {"lr_factors": [0.1, 1.0, 10.0, 100.0]}
    run(halved(tmp_path, grid, tuning=factors))
    (bracket,) = tried(tmp_path).brackets
    assert [(rung.share, rung.keep) for rung in bracket.rungs] == [(1 / 3, 4), (2 / 3, 0)]
    assert ended(tmp_path) == BOTH
    assert [cell.kept.lr for cell in tried(tmp_path).cells if cell.kept] == [1e-2, 1e-3]


def test_losses_are_compared_within_a_base_and_a_data_set(tmp_path: Path) -> None:
    grid = [
        (f"model={model}", f"dataset={data}", f"optimizer.lr={lr}", "seed=1")
        for model in ("a", "b")
        for data in ("x", "y")
        for lr in (1e-4, 1e-3)
    ]
    plan = halved(tmp_path, grid, halving={"keep_each": []})
    names = [bracket.name for bracket in plan.brackets]
    assert names == ["a on x", "a on y", "b on x", "b on y"]
    assert all(len(bracket.candidates) == 2 for bracket in plan.brackets)
    run(plan)
    assert {lr for _, lr, _ in ended(tmp_path)} == {1e-3}
    assert len(list(tmp_path.glob("*/outcome.json"))) == 4


def test_the_stopped_are_records_with_state_rung_loss_and_cost(tmp_path: Path) -> None:
    run(halved(tmp_path, halving={"audit": 0.0}))
    (bracket,) = tried(tmp_path).brackets
    assert (bracket.name, bracket.schedule) == ("tiny on toy", "cosine")
    (rung,) = bracket.rungs
    assert (rung.share, rung.keep) == (1 / 3, 4)
    assert rung.each == HalvingConfig().keep_each
    stopped = [c for c in bracket.candidates if c.state == "stopped"]
    assert len(stopped) == len(bracket.kept) == 4
    assert max(c.value or math.inf for c in bracket.kept) <= min(c.value or 0 for c in stopped)
    for c in stopped:
        assert (c.step, c.of_steps, c.seconds, c.tokens, c.final) == (33, 100, 2.0, 10, None)
        assert c.cell in ("r=4", "r=16")


def test_an_audit_says_whether_the_winner_was_kept_and_the_regret(tmp_path: Path) -> None:
    run(halved(tmp_path, halving={"audit": 1.0}))
    (bracket,) = tried(tmp_path).brackets
    states = [candidate.state for candidate in bracket.candidates]
    assert (states.count("audited"), states.count("kept")) == (4, 4)
    assert all(candidate.final is not None for candidate in bracket.candidates)
    assert bracket.regret == 0
    assert audit_sentence([tried(tmp_path)]) == (
        "Audit: 4 of the stopped were run to their end; the winner had been kept in 1 of 1 "
        "bracket, mean regret 0.00% of the validation loss."
    )
    assert len(ended(tmp_path)) == 4 * 2 + 4, "no further seeds for what was audited"


def test_a_diverged_candidate_loses_and_if_all_do_it_is_an_error(tmp_path: Path) -> None:
    grid = [("r=4", f"optimizer.lr={lr}", "seed=1") for lr in (1e-2, 1e4, 1e5)]
    over = run(halved(tmp_path / "some", grid))
    assert ended(tmp_path / "some") == {(4, 1e-2, 1)}
    states = [c.state for c in tried(tmp_path / "some").brackets[0].candidates]
    assert states == ["kept", "diverged", "diverged"]
    assert all_diverged(over.brackets) == []
    over = run(halved(tmp_path / "all", grid[1:]))
    (failure,) = all_diverged(over.brackets)
    assert "every candidate that was tried diverged (tiny on toy)" in failure.reason


def test_a_failed_candidate_holds_up_only_what_depends_on_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rank 13 fails at 0.001, where it might be the best: of four, one place stays open."""
    grid = [(f"r={r}", f"optimizer.lr={lr}", "seed=1") for r in (13, 16) for lr in (1e-3, 1e-1)]
    over = run(halved(tmp_path, grid, halving={"keep_each": []}))
    failed = unfinished([job.run_dir for job in over.jobs])
    assert [failure.reason for failure in failed] == ["ValueError: this job was made to fail"]
    assert ended(tmp_path) == {(16, 1e-3, 1)}, "the best of the others goes on"
    states = sorted(c.state for c in tried(tmp_path).brackets[0].candidates)
    assert states == ["failed", "kept", "open", "stopped"]
    assert "tiny on toy: 1 candidate waiting at a rung for 1 that failed." in caplog.text
    (tmp_path / "repaired").touch()
    caplog.clear()
    run(halved(tmp_path, grid, halving={"keep_each": []}))
    assert ended(tmp_path) == {(16, 1e-3, 1), (13, 1e-3, 1)}
    assert "waiting" not in caplog.text


def test_a_margin_names_another_sweep_and_none_the_one_of_before() -> None:
    def named(**halving: Any) -> str:
        root = {
            "hydra": {"job": {"config_name": "train"}, "overrides": {"task": ["model=nano"]}},
            "sweep": {
                "arms": {},
                "tuning": {"lr_factors": None},
                "halving": {"rungs": [0.5], "keep": 0.5, "keep_each": [], "margin": None} | halving,
            },
        }
        return resolvers._command_hash(OmegaConf.create(root))

    assert named() == named(margin=[]) == "aa725771"
    assert len({named(), named(margin=[0.1]), named(margin=[0.2])}) == 3


@pytest.mark.parametrize("margin", [[1.0], [0.1]])
def test_where_a_run_had_gone_past_the_rung_the_margin_counts_at_the_end(
    tmp_path: Path, margin: list[float]
) -> None:
    """Without rungs all are run to their ends, with losses of 1.01, 2.01 and 3.01."""
    grid = [("r=16", f"optimizer.lr={lr}", "seed=1") for lr in RATES]
    run(halved(tmp_path, grid, halving={"rungs": None}))
    run(halved(tmp_path, grid, halving={"keep": 1.0, "margin": margin, "keep_each": []}))
    (bracket,) = tried(tmp_path).brackets
    assert [rung.share for rung in bracket.rungs] == [1.0]
    near = {1e-4, 1e-3, 1e-2} if margin == [1.0] else {1e-3}
    assert {candidate.lr for candidate in bracket.kept} == near


def test_a_record_of_before_there_were_margins_is_read(tmp_path: Path) -> None:
    run(halved(tmp_path, halving={"margin": [1.0]}))
    path = SweepDir(tmp_path).tuning
    plain = unsealed(json.loads(path.read_text()))
    for rung in plain["brackets"][0]["rungs"]:
        assert rung.pop("margin") == 1.0
    path.write_text(json.dumps(sealed(plain)))
    assert tried(tmp_path).brackets[0].rungs[0].margin is None


@pytest.mark.parametrize("way", ["repaired", "left out"])
def test_at_a_rung_with_a_margin_a_failed_candidate_holds_up_all_but_the_best_of_each_group(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    grid = [
        (f"r={r}", f"optimizer.lr={lr}", "seed=1") for r in (13, 16) for lr in (1e-3, 1e-2, 1e-1)
    ]
    halving = {"keep": 1.0, "margin": [1.0]}
    run(halved(tmp_path, grid, halving=halving))
    assert ended(tmp_path) == {(16, 1e-3, 1)}, "the best of its rank"
    assert "2 candidates waiting at a rung for 1 that failed" in caplog.text
    caplog.clear()
    if way == "repaired":
        (tmp_path / "repaired").touch()
    else:
        grid.remove(("r=13", f"optimizer.lr={1e-3}", "seed=1"))
    run(halved(tmp_path, grid, halving=halving))
    others = {(16, 1e-3, 1), (16, 1e-2, 1), (13, 1e-2, 1)}
    assert ended(tmp_path) == others | ({(13, 1e-3, 1)} if way == "repaired" else set())
    assert "waiting" not in caplog.text


def test_nobody_is_said_to_wait_for_what_failed_while_others_are_to_come(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grid = [(f"r={r}", f"optimizer.lr={lr}", "seed=1") for r in (13, 16) for lr in (1e-3, 1e-2)]
    over = run(halved(tmp_path, grid, halving={"keep": 1.0, "margin": [1.0]}), limit=3)
    states = [job_state(job.run_dir) for job in over.jobs]
    assert (states.count(JobState.FAILED), states.count(JobState.PRUNED)) == (1, 2)
    assert "waiting" not in caplog.text


@settings(max_examples=8, deadline=None)
@given(
    kills=st.lists(st.integers(0, 9), max_size=5),
    margin=st.sampled_from([None, [1.0, 0.5]]),
)
def test_a_kill_anywhere_leads_to_the_same_survivors(
    tmp_path_factory: pytest.TempPathFactory, kills: list[int], margin: list[float] | None
) -> None:
    folder = tmp_path_factory.mktemp("killed")
    keep = 0.5 if margin is None else 1.0
    halving = {"rungs": [0.25, 0.5], "audit": 0.5, "keep": keep, "margin": margin}
    options: dict[str, Any] = {"halving": halving}
    for after in kills:
        try:
            run(halved(folder, **options), jobs_until_kill=after)
        except KilledError:
            continue
    run(halved(folder, **options))
    kept = {c.lr for c in tried(folder).brackets[0].kept}
    assert kept == {1e-2, 1e-3}
    assert ended(folder) >= BOTH
    begun = [entry for path in folder.glob("*") for entry in trace(path)]
    audited = sum(c.state == "audited" for c in tried(folder).brackets[0].candidates)
    climbed = 4 if margin is None else 6
    assert len(begun) == 8 + climbed + 2 + 2 + audited, "nothing ran twice, and nothing further"


def test_two_launchers_on_one_directory_agree(tmp_path: Path) -> None:
    first, second = halved(tmp_path), halved(tmp_path)
    with pytest.raises(KilledError):
        run(first, jobs_until_kill=9)
    run(second)
    run(first)
    assert len(ended(tmp_path)) == 4 * 2
    begun = [entry for path in tmp_path.glob("*") for entry in trace(path)]
    assert len(begun) == 8 + 4 + 4, "candidates, what went on and its further seeds"


def test_it_is_off_by_default_and_says_where_it_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not SweepConfig().halving.on
    assert halved(tmp_path, halving={"rungs": None}).brackets == []
    with caplog.at_level(logging.WARNING):
        plan = halved(tmp_path, [("r=4", "seed=1"), ("r=16", "seed=1"), ("lora=none",)])
    assert plan.brackets == []
    assert "sweep.halving stops nothing: every configuration is alone" in caplog.text
    assert len(plan.to_do) == 3


def test_the_rates_of_a_single_configuration_are_halved_as_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        plan = halved(tmp_path, [("r=4", f"optimizer.lr={lr}", "seed=1") for lr in RATES])
        print_plan(plan, details=False)
    assert "stops nothing" not in caplog.text
    assert "1 configuration in 1 bracket: 4 jobs" in caplog.text
    assert "the best 2 (at least)" in caplog.text


def test_the_plan_says_what_is_compared_where_and_what_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        print_plan(halved(tmp_path), details=False)
    assert (
        "2 configurations in 1 bracket: 8 jobs run with one seed to 1/3 of their steps; the best 4 "
        "(at least) by validation loss go on, with 4 jobs more for further seeds."
    ) in caplog.text


def test_how_a_sweep_is_halved_is_no_part_of_what_its_jobs_are(tmp_path: Path) -> None:
    plain = {job.identity.hash for job in halved(tmp_path, halving={"rungs": None}).jobs}
    plan = halved(tmp_path)
    assert plain == {job.identity.hash for job in plan.pool}
    assert {job.config["sweep"]["halving"]["keep"] for job in plan.pool} == {0.5}


def test_an_unknown_key_of_keep_each_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"keep_each names 'lora\.rank', which no configuration"):
        halved(tmp_path, halving={"keep_each": ["lora.rank"]})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rungs": [0.0]}, r"sweep\.halving\.rungs=0\.0 is too small"),
        ({"rungs": [0.5, 1.0]}, "a rung is a share of the steps below 1"),
        ({"rungs": [0.5, 0.25]}, "give each rung once, in rising order"),
        ({"keep": 0.0}, r"sweep\.halving\.keep=0\.0 is too small"),
        ({"keep": 1.5}, r"sweep\.halving\.keep=1\.5 is out of range"),
        ({"audit": 2.0}, r"sweep\.halving\.audit=2\.0 is out of range"),
        ({"rungs": [0.5], "margin": [-0.1]}, r"sweep\.halving\.margin=-0\.1 is too small"),
        ({"rungs": [0.5], "margin": [float("nan")]}, r"sweep\.halving\.margin=nan"),
        ({"rungs": [0.2, 0.5], "margin": [0.1]}, "give one margin for each rung"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], said: str) -> None:
    build: Callable[..., HalvingConfig] = HalvingConfig
    with pytest.raises(ConfigError, match=said):
        build(**options)


def test_the_choice_is_said_once_it_is_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run(halved(tmp_path))
    assert caplog.text.count("Tuned: 2 configurations × 4 learning rates with one seed each") == 1
    assert "compared by validation loss after 1/3 of the steps; 4 of 8 went no further" in (
        caplog.text
    )


def test_the_winner_of_sweeps_from_stored_learning_curves_is_kept() -> None:
    """The full version, 1,000 sweeps a rule, is benchmarks/halving.py."""
    curves = read()
    assert len(curves) == 126
    rules = {name: (rungs, each_rank) for name, rungs, each_rank in RULES}
    for name, sweeps, most in (
        ("half at 1/3", 200, 0.75),
        ("all within 10 % at 1/5", 200, 0.5),
        ("half at 1/15 and 1/5, of any rank", 1000, 0.4),
        ("half at 1/15 and 1/5 within 150 % and 10 %, of any rank", 1000, 0.35),
    ):
        rungs, each_rank = rules[name]
        found = simulate(curves, rungs, WINDOW, sweeps, each_rank=each_rank)
        assert (found.kept >= 0.95, found.regret <= 0.005) == (True, True), name
        assert found.steps < most, name
    steep = simulate(curves, [At(1 / 3, 0.125)], WINDOW, sweeps=1000, each_rank=False)
    assert steep.kept < 0.9, "what is too steep is told from what is not"
    mean, plain = (
        simulate(curves, [At(1 / 3, 0.0)], window, sweeps=200) for window in (WINDOW, 0.0)
    )
    assert mean.regret < plain.regret / 2, "the mean of the latest weights misleads less"
