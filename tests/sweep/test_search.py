"""The search: its space, its figures, pruning, and what it remembers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from sizewise.config import HalvingConfig, SweepConfig, to_run_config
from sizewise.errors import SweepError
from sizewise.files import write_json
from sizewise.job.submit import Job
from sizewise.record.directories import RunDir, SweepDir
from sizewise.record.outcome import write_outcome
from sizewise.record.study import PruningReporter, TrialPruned, open_study
from sizewise.sweep.launch.backend import LaunchOptions
from sizewise.sweep.search.search import check_options, run_search
from sizewise.sweep.search.space import corners, objective_values, parse_objectives, search_space

from .conftest import Submit, job_config
from .fake import make_outcome

parse = OverridesParser.create().parse_overrides


def test_the_space_is_said_in_hydras_grammar() -> None:
    texts = [
        "model=nano",
        "lora.r=4,8,16",
        "optimizer.lr=tag(log,interval(1e-5,1e-3))",
        "trainer.max_steps=range(10,50,10)",
        "lora.dropout=interval(0.0,0.3)",
    ]
    fixed, space = search_space(parse(texts))
    assert fixed == ["model=nano"]
    assert space["lora.r"].choices == ("4", "8", "16")
    assert (space["optimizer.lr"].low, space["optimizer.lr"].log) == (1e-5, True)
    steps = space["trainer.max_steps"]
    assert (steps.low, steps.high, steps.step) == (10, 40, 10)
    assert space["lora.dropout"].high == 0.3


def test_every_category_and_both_ends_are_looked_at_before_the_first_trial() -> None:
    _, space = search_space(parse(["lora.r=2,4,8", "lora.dropout=interval(0.0,0.3)"]))
    assert corners(space) == [
        ["lora.r=2", "lora.dropout=0.0"],
        ["lora.r=4", "lora.dropout=0.3"],
        ["lora.r=8", "lora.dropout=0.3"],
    ]


def searched(folder: Path) -> Path:
    """A study of three trials that have ended; return its journal."""
    study = open_study(folder, ["minimize"], "random", "none", 0)
    for value in (3.5, 1.25, 2.5):
        study.tell(study.ask(), value)
    return SweepDir(folder).study


def values(folder: Path) -> list[float]:
    study = open_study(folder, ["minimize"], "random", "none", 0)
    return [trial.value for trial in study.trials if trial.state.name == "COMPLETE"]


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (lambda text: text[: text.rindex(b"[2.5]") + 2], [3.5, 1.25]),
        (lambda text: text.replace(b"[1.25]", b"[0.25]"), [3.5]),
        (lambda text: text.replace(b"[1.25]", b"[1,25]"), [3.5]),
        (lambda text: text.replace(b"[1.25]", b"[\xff.25]"), [3.5]),
        (lambda text: b"", []),
    ],
)
def test_a_damaged_study_goes_on_from_before_the_damage_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any, left: list[float]
) -> None:
    path = searched(tmp_path)
    assert values(tmp_path) == [3.5, 1.25, 2.5]
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    assert values(tmp_path) == left
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == bool(damaged)
    assert all("is damaged at line" in line for line in said)
    study = open_study(tmp_path, ["minimize"], "random", "none", 0)
    study.tell(study.ask(), 0.5)
    assert values(tmp_path) == [*left, 0.5]


def test_a_study_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    path = searched(tmp_path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(line.pop("sha256") for line in lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert values(tmp_path) == [3.5, 1.25, 2.5]


def test_a_damaged_note_of_a_trial_is_one_message(tmp_path: Path) -> None:
    searched(tmp_path)
    for record in ({}, {"folder": str(tmp_path / "other"), "trial_id": 0, "pruner": "median"}):
        write_json(RunDir(tmp_path).pruning, record)
        with pytest.raises(SweepError, match="names no trial of a search"):
            PruningReporter.for_run(tmp_path)


def test_a_number_of_trials_that_starts_none_is_refused_and_not_waited_for() -> None:
    with pytest.raises(SweepError, match=r"hydra\.sweeper\.parallel=-1 starts no trial"):
        check_options(SweepConfig(), -1)


def test_nothing_to_search_over_is_an_error() -> None:
    with pytest.raises(SweepError, match="nothing to search"):
        search_space(parse(["model=nano"]))


@pytest.mark.parametrize(
    ("objectives", "pruner", "said"),
    [
        ([], "none", "empty"),
        (["objective"], "none", "minimize:NAME"),
        (["minimize:test/accuracy"], "none", "test scores are only reported"),
        (["maximize:objective", "minimize:model/params_total"], "asha", "needs one objective"),
    ],
)
def test_objectives_that_make_no_sense_are_refused(
    objectives: list[str], pruner: str, said: str
) -> None:
    with pytest.raises(SweepError, match=said):
        parse_objectives(objectives, pruner)


def test_figures_come_from_validation_and_cost() -> None:
    outcome = make_outcome(to_run_config(job_config()), objective=0.5)
    names = ["objective", "validation/val_loss", "model/params_total"]
    assert objective_values(outcome, names) == [0.5, 0.5, 8000.0]
    assert objective_values(outcome, ["validation/other"]) is None
    assert objective_values(replace(outcome, objective=float("nan")), ["objective"]) is None


def test_a_search_that_goes_on_remembers_and_draws_anew(tmp_path: Path) -> None:
    _, space = search_space(parse(["optimizer.lr=interval(0.0,1.0)"]))

    def drawn(folder: Path, trials: int) -> list[float]:
        study = open_study(folder, ["minimize"], "tpe", "none", seed=3)
        values = []
        for _ in range(trials):
            trial = study.ask(space)
            values.append(float(trial.params["optimizer.lr"]))
            study.tell(trial, 0.0)
        return values

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first, again = drawn(tmp_path / "one", 3), drawn(tmp_path / "one", 3)
    assert len({*first, *again}) == 6, "a continued search repeats its draws"
    assert drawn(tmp_path / "two", 3) == first, "the seed does not fix the draws"


@pytest.mark.parametrize(("direction", "pruner"), [("minimize", "median"), ("maximize", "asha")])
def test_an_unpromising_trial_is_given_up(
    tmp_path: Path, submitted: Submit, direction: str, pruner: str
) -> None:
    study = open_study(tmp_path, [direction], "random", pruner, seed=0)
    _, space = search_space(parse(["lora.r=4,8"]))

    def report(losses: list[float]) -> None:
        trial: Any = study.ask(space)
        job = submitted(trial.number)
        record = {"folder": str(tmp_path), "trial_id": trial._trial_id, "pruner": pruner}
        write_json(RunDir(job.run_dir).pruning, record)
        reporter = PruningReporter.for_run(job.run_dir)
        assert reporter is not None
        for step, loss in enumerate(losses):
            reporter.report(step, loss)
        study.tell(trial, losses[-1] if direction == "minimize" else -losses[-1])

    for _ in range(6):
        report([3.0, 1.0, 0.5, 0.3, 0.2])
    with pytest.raises(TrialPruned, match="does not promise enough"):
        report([9.0] * 5)


def test_a_run_outside_a_search_reports_to_nobody(tmp_path: Path) -> None:
    assert PruningReporter.for_run(tmp_path) is None


@pytest.mark.parametrize(
    "options",
    [
        SweepConfig(limit=2),
        SweepConfig(order="given"),
        SweepConfig(fail_fast=True),
        SweepConfig(halving=HalvingConfig(rungs=[0.5])),
    ],
    ids=["limit", "order", "fail_fast", "halving"],
)
def test_options_of_a_grid_are_refused(options: SweepConfig, request: Any) -> None:
    check_options(SweepConfig(retries=1))
    with pytest.raises(SweepError, match=f"sweep.{request.node.callspec.id}: a search has no such"):
        check_options(options)


class Composer:
    """Composes configurations that differ in their seed."""

    def compose(self, overrides: list[str]) -> dict[str, Any]:
        (seed,) = (int(text.partition("=")[2]) for text in overrides if text.startswith("seed="))
        return job_config(seed)


class ThreeAtOnce:
    """Knows only after its check how many jobs it runs side by side, as the local launcher."""

    def __init__(self) -> None:
        self.slots, self.checked = 1, []
        self.batches: list[int] = []

    def check(self, jobs: Sequence[Job]) -> None:
        self.checked += [job.config["seed"] for job in jobs]
        self.slots = 3

    def run(self, jobs: Sequence[Job], options: LaunchOptions) -> None:
        self.batches.append(len(jobs))
        for job in jobs:
            write_outcome(
                make_outcome(to_run_config(job.config, check_types=False), 1.0), job.run_dir
            )

    def close(self) -> None:
        self.slots = 0


def search(folder: Path, backend: ThreeAtOnce, monkeypatch: pytest.MonkeyPatch) -> None:
    context = SimpleNamespace(
        composer=Composer(), options=SweepConfig(), sweep_dir=folder, own=parse
    )
    monkeypatch.setattr("sizewise.sweep.search.search.SweepContext", lambda hydra: context)
    monkeypatch.setattr("sizewise.sweep.search.search.job_backend", lambda context: backend)
    hydra: Any = None
    command, goals = ["seed=range(0,1000)"], ["minimize:objective"]
    run_search(hydra, command, "sweep.fake:job", None, goals, 6, "random", "none", 0, None)


def test_as_many_trials_at_once_as_there_are_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = ThreeAtOnce()
    search(tmp_path, backend, monkeypatch)
    assert backend.checked == [0, 999], "both ends of the range are known to the launcher"
    assert backend.batches == [3, 3]
    again = ThreeAtOnce()
    search(tmp_path, again, monkeypatch)
    assert (again.checked, again.batches) == ([], []), "a finished search needs no launcher"
