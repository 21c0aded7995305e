"""What a sweep is going to take, before it starts; and what it took in the end."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sizewise.config import SweepConfig
from sizewise.config.training import TrainerConfig
from sizewise.files import sealed, write_json
from sizewise.job.execute import execute
from sizewise.job.submit import DEFAULT_FUNCTION, Job
from sizewise.record.directories import ZERO_SHOT_FILE, entry_path
from sizewise.record.identity import run_identity
from sizewise.record.spending import at_most
from sizewise.sweep.estimate import estimate as estimate_module
from sizewise.sweep.estimate.calibration import Measured
from sizewise.sweep.estimate.estimate import (
    comparison,
    estimate_sweep,
    kept_record,
    sentences,
    span,
)
from sizewise.sweep.estimate.outgoing import Outgoing, outgoing
from sizewise.sweep.estimate.work import (
    JOB_SECONDS,
    NOT_YET,
    Piece,
    forecast,
    planned_steps,
    stages,
)
from sizewise.sweep.grid import _measuring, tell, timed
from sizewise.sweep.launch.local_launcher import LocalBackend
from sizewise.sweep.launch.packing import Packing
from sizewise.sweep.plan import current
from sizewise.sweep.stages import _submit

from .conftest import job_config
from .planned import ESTIMATE, KIND, costs, planned

# Of the jobs here: 80 examples, batches of 8, three epochs: 30 steps with four validations.
STEPS, VALIDATIONS = 30 * 0.5, 4 * 20 * 0.1
TUNED = 4.0 + 30 * 0.2
UNTOUCHED = 4.0 + 10 * 0.4
AROUND = JOB_SECONDS + 1.0 + 1.0


def test_a_job_is_the_sum_of_what_it_does(tmp_path: Path) -> None:
    plan = planned(tmp_path, [("seed=1",)])
    found = forecast(stages(plan), costs(plan))
    whole = UNTOUCHED + STEPS + VALIDATIONS + TUNED + AROUND
    assert found.jobs == {plan.jobs[0].identity.slug: pytest.approx(whole)}
    assert found.seconds == pytest.approx(whole + 10 + 2 + 2), "imports, base, first reading"
    assert found.work["training"] == pytest.approx(STEPS + VALIDATIONS)
    assert found.work["answers"] == pytest.approx(UNTOUCHED + TUNED)


def test_steps_of_jobs_that_share_passes_are_counted_at_the_pace_that_was_measured(
    tmp_path: Path,
) -> None:
    plan = planned(tmp_path, [("seed=1",), ("seed=2",), ("seed=3", "lora=none")])
    for job in plan.jobs:
        config: Any = job.config
        config["paths"] = {"cache": str(tmp_path / "cache")}
    jobs = [replace(job, function=DEFAULT_FUNCTION) for job in plan.jobs]
    packing = Packing(8, measured=True)
    assert packing.paces(jobs) == {}, "nothing was measured yet"
    seconds = {"8": 1.0, "2": 2.0, "1": 5.0}
    kept = packing.kept(jobs[0])
    assert kept is not None
    write_json(kept, sealed({"device": "any", "jobs": 8, "seconds_per_token": seconds}))
    paces = packing.paces(jobs)
    assert paces == {job.identity.hash: pytest.approx(0.4) for job in jobs[:2]}
    assert Packing(8).paces(jobs) == {}, "as many as were asked for: nothing is measured"
    alone, shared = costs(plan), replace(costs(plan), paces=paces)
    trained = [forecast(stages(plan), each).work["training"] for each in (alone, shared)]
    assert trained == [pytest.approx(2 * (STEPS + VALIDATIONS) * pace) for pace in (1.0, 0.4)]


def test_the_untouched_models_answers_are_paid_once_and_not_where_they_are_kept(
    tmp_path: Path,
) -> None:
    plan = planned(tmp_path, [("seed=1",), ("seed=2",)])
    first, second = forecast(stages(plan), costs(plan)).jobs.values()
    assert first - second == pytest.approx(UNTOUCHED)
    kept = entry_path(tmp_path / "cache", "a" * 32)
    kept.mkdir(parents=True)
    (kept / ZERO_SHOT_FILE).write_text("{}")
    first, second = forecast(stages(plan), costs(plan)).jobs.values()
    assert first == pytest.approx(second)


def test_workers_share_the_jobs_and_each_pays_its_own_start(tmp_path: Path) -> None:
    plan = planned(tmp_path, [(f"seed={seed}",) for seed in range(1, 5)])
    one, two = (forecast(stages(plan), costs(plan, workers)) for workers in (1, 2))
    assert sum(two.work.values()) == pytest.approx(sum(one.work.values()) + 10 + 2 + 2)
    assert one.seconds / 2 < two.seconds < 0.7 * one.seconds


def test_stopped_candidates_run_a_share_of_the_steps_and_the_chosen_one_the_rest(
    tmp_path: Path,
) -> None:
    grid = [(f"seed={seed}",) for seed in (1, 2, 3)]
    plan = planned(tmp_path, grid, lr_factors=[0.1, 1.0, 10.0])
    now, later = stages(plan)
    assert [(piece.begin, piece.end) for piece in now] == [(0.0, 2 / 3)] * 3
    assert [(piece.begin, piece.end) for piece in later] == [(2 / 3, 1.0), (0.0, 1.0), (0.0, 1.0)]
    found = forecast([now, later], costs(plan))
    rung = 20 * 0.5 + 4 * 20 * 0.1 + AROUND  # at the start, after two epochs, and at the rung
    first, *others = found.jobs.values()
    assert others == [pytest.approx(rung)] * 2
    assert first == pytest.approx(rung + UNTOUCHED)
    rest = 10 * 0.5 + 1 * 20 * 0.1 + TUNED + AROUND
    assert found.later == pytest.approx([rest, *[STEPS + VALIDATIONS + TUNED + AROUND] * 2])


def test_of_a_halved_grid_as_many_go_on_from_each_rung_as_are_kept(tmp_path: Path) -> None:
    grid = [(f"r={r}", f"seed={seed}") for r in (2, 4, 8, 16) for seed in (1, 2)]
    halving = {"rungs": [0.25, 0.5], "keep": 0.5, "keep_each": []}
    plan = planned(tmp_path, grid, halving)
    spans = [[(piece.begin, piece.end) for piece in stage] for stage in stages(plan)]
    assert spans == [[(0.0, 0.25)] * 4, [(0.25, 0.5)] * 2, [(0.5, 1.0), (0.0, 1.0)]]
    each = planned(tmp_path, grid, halving | {"keep_each": ["lora.r"]})
    assert [len(stage) for stage in stages(each)] == [8 - 4 + 4], "every rank is kept: no rung"


def test_at_a_rung_with_a_margin_half_of_those_with_room_are_taken_to_go_on(tmp_path: Path) -> None:
    grid = [(f"r={r}", f"seed={seed}") for r in (2, 4, 8, 16) for seed in (1, 2)]
    halving = {"rungs": [0.25, 0.5], "keep": 1.0, "keep_each": [], "margin": [0.3, 0.1]}
    plan = planned(tmp_path, grid, halving, audit=0.5)
    counts = {
        near: [[(p.begin, p.end, p.weight) for p in stage] for stage in stages(plan, near=near)]
        for near in (0.0, 0.5, 1.0)
    }
    first = [(0.0, 0.25, 1.0)] * 4
    assert counts[0.0][:2] == [first, [(0.25, 0.5, 1.0)] + [(0.25, 1.0, 0.5)] * 3]
    assert counts[0.5][:2] == [first, [(0.25, 0.5, 1.0)] * 3 + [(0.25, 1.0, 0.5)]]
    assert counts[0.5][2] == [(0.5, 1.0, 1.0)] * 2 + [(0.5, 1.0, 0.5)] + [(0.0, 1.0, 1.0)] * 2
    assert counts[1.0][2] == [(0.5, 1.0, 1.0)] * 4 + [(0.0, 1.0, 1.0)] * 4


@pytest.mark.usefixtures("fake_kinds")
def test_with_a_margin_the_interval_holds_few_and_many_and_money_is_that_of_many(
    tmp_path: Path,
) -> None:
    large = {"model": SERVER, "quantization": {"method": "none"}}
    judge = {"_target_": "sizewise.metrics.judge.Judge", "prompt": "1234", "max_new_tokens": 2,
             "models": {"large": large}}  # fmt: skip
    found = {}
    for name, margin in {"all": None, "near": [0.1]}.items():
        grid = [(f"r={r}",) for r in (2, 4, 8, 16)]
        halving = {"rungs": [0.5], "keep": 0.75, "keep_each": [], "margin": margin}
        plan = planned(tmp_path / name, grid, halving)
        for job in plan.pool:
            config: Any = job.config
            config["metric"] = {"judge": judge}
        estimate = estimate_sweep(plan, LocalBackend(n_jobs=1), peaks={})
        assert estimate is not None
        assert estimate.seconds is not None
        found[name] = estimate
    many, near = found["all"], found["near"]
    end = 15 * 0.5 + 2 * 20 * 0.1 + TUNED + AROUND
    assert many.seconds - near.seconds == pytest.approx(end), "two of three are taken to go on"
    assert many.low > near.low + end
    assert near.high == pytest.approx(many.high)
    assert near.money == many.money
    assert near.money


def test_an_audit_counts_as_likely_as_it_is(tmp_path: Path) -> None:
    plan = planned(tmp_path, [("seed=1",)], lr_factors=[0.1, 1.0, 10.0], audit=0.5)
    now, later = stages(plan)
    assert [piece.weight for piece in later] == [1.0, 0.5, 0.5]
    sure, likely, _ = forecast([now, later], costs(plan)).later
    assert likely == pytest.approx(sure / 2)


@pytest.fixture
def fake_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """All jobs are of one kind, which need not be measured."""
    monkeypatch.setattr(estimate_module, "DEFAULT_FUNCTION", "sweep.fake:tuned")
    monkeypatch.setattr(
        estimate_module, "calibrate", lambda chosen, *_: dict.fromkeys(chosen, KIND)
    )


@pytest.mark.usefixtures("fake_kinds")
def test_whatever_is_sure_an_estimate_knows_all_that_may_come(tmp_path: Path) -> None:
    """A margin at one rung, and one rate of each rank left at the next."""
    grid = [(f"r={r}", f"seed={seed}") for r in (4, 16) for seed in (1, 2)]
    halving = {"rungs": [0.2], "keep": 1.0, "margin": [2.0]}
    plan = planned(tmp_path, grid, halving, lr_factors=[0.1, 1.0, 10.0])
    while (plan := current(plan)).to_do:
        estimate = estimate_sweep(plan, LocalBackend(n_jobs=1), peaks={})
        assert estimate is not None
        assert estimate.seconds is not None
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low <= estimate.seconds <= estimate.high
        job = plan.to_do[0]
        (job,) = _submit([job])
        execute(job.run_dir)


@pytest.mark.parametrize(
    ("piece", "limits", "expected"),
    [
        ((0.0, 1.0), {}, (0, 30, 4)),
        ((0.0, 2 / 3), {}, (0, 20, 4)),
        ((0.0, 0.5), {}, (0, 15, 3)),
        ((0.5, 1.0), {}, (15, 30, 2)),
        ((2 / 3, 1 / 3), {}, (20, 20, 0)),
        ((0.0, 1.0), {"max_steps": 12}, (0, 12, 3)),
        ((0.0, 1.0), {"validate_every": 7, "validate_at_start": False}, (0, 30, 5)),
        ((0.0, 1.0), {"accumulate": 2}, (0, 15, 4)),
        ((0.0, 1.0), {"devices": 2}, (0, 15, 4)),
    ],
)
def test_steps_and_validations_of_a_fit_are_counted(
    tmp_path: Path,
    piece: tuple[float, float],
    limits: dict[str, Any],
    expected: tuple[int, int, int],
) -> None:
    (job,) = planned(tmp_path, [("seed=1",)]).jobs
    assert planned_steps(Piece(job, *piece), TrainerConfig(**limits), 80) == expected


def test_what_is_not_measured_is_left_out_and_said(tmp_path: Path) -> None:
    plan = planned(tmp_path, [("seed=1",), ("seed=2",)])
    none = costs(plan, kind=Measured({}, reason="its weights are not on this machine"))
    found = forecast(stages(plan), none)
    assert (found.jobs, found.seconds) == ({}, 0.0)
    assert found.unknown == {"its weights are not on this machine": 2}
    parts = [[Piece(job, end=0.5) for job in plan.jobs], [Piece(plan.jobs[0], begin=0.5)]]
    assert forecast(parts, none).unknown == found.unknown, "jobs count, not their parts"


def test_it_is_said_with_its_interval_and_held_against_what_the_sweep_took() -> None:
    time, memory = sentences(ESTIMATE)
    assert time.startswith("Time: about 6.0 min (5.0–8.0) with 2 workers on this machine, 10 ")
    assert "training 50%, answers 50%" in time
    assert memory == "Memory: at most about 2.1 GB at once with 2 workers."
    assert comparison(ESTIMATE, 420) == "Planned 6.0 min (5.0–8.0), took 7.0 min."
    assert comparison(ESTIMATE, 3000, computed=620) == (
        "Planned 6.0 min (5.0–8.0), took 50 min: the machine had other work to do (10 min of "
        "computing, 10 min planned)."
    )
    assert comparison(ESTIMATE, 3000, computed=1500) == "Planned 6.0 min (5.0–8.0), took 50 min."
    unknown = replace(ESTIMATE, unknown={"its weights are not on this machine": 3})
    assert "Without 3 jobs: its weights are not on this machine." in list(sentences(unknown))
    assert "(without the jobs that were not known)" in comparison(unknown, 420)
    nothing = replace(unknown, seconds=None)
    assert next(sentences(nothing)).startswith("Time is not known for 3 jobs: its weights")
    assert comparison(nothing, 420) == comparison(None, 420) == "Took 7.0 min."
    assert [span(s) for s in (5, 119, 120, 7_200)] == ["5 s", "119 s", "2.0 min", "2.0 h"]


def test_sweep_json_records_the_estimate_and_what_it_took(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = planned(tmp_path, [("seed=1",)])
    path = tmp_path / "sweep.json"
    write_json(path, {"jobs": [], **kept_record(tmp_path, ESTIMATE)})
    with caplog.at_level(logging.INFO), timed(plan, ESTIMATE):
        pass
    record = json.loads(path.read_text())
    assert record["estimate"]["jobs"] == {"a": 600.0}
    (command,) = record["commands"]
    assert command["planned"] == {"seconds": 360.0, "low": 300.0, "high": 480.0}
    assert (command["jobs"], command["took"] < 60) == (1, True)
    assert caplog.messages[-1].startswith("Planned 6.0 min (5.0–8.0), took ")
    more = replace(ESTIMATE, jobs={"b": 5.0})
    found = kept_record(tmp_path, more)
    assert found["estimate"]["jobs"] == {"a": 600.0, "b": 5.0}
    assert found["commands"] == record["commands"]


PRICES = {"prompt": 0.5, "answer": 1.0}
SERVER = {"name": "large", "path": "large-1", "family": "endpoint",
          "base_url": "https://api.example/v1", "endpoint": {"prices": PRICES}}  # fmt: skip


def test_money_of_a_server_and_the_number_of_texts_that_go_there(tmp_path: Path) -> None:
    config = job_config() | {"lora": {"method": "none"}}
    config["model"] = config["model"] | SERVER
    config["generation"]["max_new_tokens"] = 20
    job = Job((), config, run_identity(config), tmp_path / "run")
    (found,) = outgoing([(job, KIND, 1.0)])
    assert (found.model, found.role, found.texts) == ("large", "answers", 10)
    assert found.place == "https://api.example/v1"
    assert found.tokens == 1000, "400 bytes each, four to a token"
    assert found.money == pytest.approx((1000 * 0.5 + 10 * 20 * 1.0) / 1000)
    said = list(sentences(replace(ESTIMATE, outgoing=[found])))
    assert said[-2].startswith(
        "Texts: 10 for answers by large at https://api.example/v1 (about 1,000 tokens), at most "
        "about 0.70"
    )
    assert said[-1] == "Money: at most about 0.70 in all."


def test_what_was_not_counted_is_not_said_to_cost_nothing(tmp_path: Path) -> None:
    config = job_config() | {"lora": {"method": "none"}}
    config["model"] = config["model"] | SERVER
    job = Job((), config, run_identity(config), tmp_path / "run")
    (unknown,) = outgoing([(job, NOT_YET, 1.0)])
    estimate = replace(ESTIMATE, outgoing=[unknown])
    assert estimate.money is None
    where = "for answers by large at https://api.example/v1"
    said = list(sentences(estimate))
    assert said[-1] == (
        f"Texts and money {where} are not known yet; sweep.dry_run=true counts them."
    )
    assert not [line for line in said if line.startswith(("Texts: 0", "Money:"))]
    (known,) = outgoing([(job, KIND, 1.0)])
    *_, texts, more, money = sentences(replace(ESTIMATE, outgoing=[known.plus(unknown)]))
    assert texts.startswith(f"Texts: 10 {where}")
    assert more.startswith(f"Further texts and money {where} are not known yet")
    assert money.endswith("without what is not known.")
    (failed,) = outgoing([(job, Measured({}, reason="its file is gone"), 1.0)])
    assert list(sentences(replace(ESTIMATE, outgoing=[failed])))[-1] == (
        f"Texts and money {where} are not known: its file is gone."
    )


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({}, "sweep.dry_run=true"),
        ({"estimate": False}, "sweep.dry_run=true without sweep.estimate=false"),
        (
            {"estimate": False, "dry_run": True},
            "the same command without sweep.estimate=false",
        ),
    ],
)
def test_nobody_is_told_to_type_what_they_typed(options: dict[str, Any], advice: str) -> None:
    unknown = {NOT_YET.reason: 2}
    said = sentences(
        replace(ESTIMATE, seconds=None, unknown=unknown), _measuring(SweepConfig(**options))
    )
    assert next(said) == f"Time is not known for 2 jobs: not measured yet ({advice} does)."


def test_a_small_sum_is_not_rounded_to_nothing() -> None:
    each = Outgoing("large", "answers", "https://api.example/v1", 1, 4, 0.004, 0.001)
    texts, whole = list(sentences(replace(ESTIMATE, outgoing=[each])))[-2:]
    assert "(about 4 tokens), under 0.01 (under 0.01 spent already);" in texts
    assert whole == "Money: under 0.01 in all."
    assert [at_most(amount) for amount in (0.0, 0.006, 0.7)] == [
        "at most about 0.00", "at most about 0.01", "at most about 0.70",
    ]  # fmt: skip


def test_judges_read_every_pair_twice_and_a_teacher_every_training_prompt(tmp_path: Path) -> None:
    large = {"model": SERVER, "quantization": {"method": "none"}}
    judge = {"_target_": "sizewise.metrics.judge.Judge", "prompt": "1234", "max_new_tokens": 2,
             "models": {"large": large}}  # fmt: skip
    jobs = []
    for seed in (1, 2):
        config = job_config(seed) | {"metric": {"judge": judge}}
        config["dataset"]["teacher"] = large
        config["dataset"]["teaching"] = {"samples": 3}
        jobs.append((Job((), config, run_identity(config), tmp_path / str(seed)), KIND, 1.0))
    by_role = {each.role: each for each in outgoing(jobs)}
    # Both seeds share the untouched model's ten answers; each has thirty of its own.
    assert by_role["judging"].texts == 2 * (10 + 2 * 30)
    assert by_role["teaching"].texts == 3 * 80, "asked once for both"
    money = by_role["judging"].money
    assert money is not None
    assert money > 0


def test_what_a_candidate_asks_of_judges_after_its_rung_counts(tmp_path: Path) -> None:
    """Up to the rung nobody asks; the same job goes on from there."""
    large = {"model": SERVER, "quantization": {"method": "none"}}
    judge = {"_target_": "sizewise.metrics.judge.Judge", "prompt": "1234", "max_new_tokens": 2,
             "models": {"large": large}}  # fmt: skip
    config = job_config() | {"metric": {"judge": judge}}
    job = Job((), config, run_identity(config), tmp_path / "run")
    (whole,) = outgoing([(job, KIND, 1.0)])
    assert outgoing([(job, KIND, 0.0), (job, KIND, 1.0)]) == [whole]
    assert whole.money is not None


def test_without_a_new_estimate_jobs_to_come_do_not_count_twice(tmp_path: Path) -> None:
    first = replace(ESTIMATE, later=[30.0, 40.0])
    write_json(tmp_path / "sweep.json", {"jobs": [], **kept_record(tmp_path, first)})
    found = kept_record(tmp_path, None)["estimate"]
    assert (found["jobs"], found["later"]) == ({"a": 600.0}, [])


def test_a_command_that_was_stopped_is_not_held_against_its_plan(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = planned(tmp_path, [("seed=1",)])
    write_json(tmp_path / "sweep.json", {"jobs": []})
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit), timed(plan, ESTIMATE):
        raise SystemExit(130)
    assert "commands" not in json.loads((tmp_path / "sweep.json").read_text())
    assert not [said for said in caplog.messages if "took" in said]


def test_reasons_that_others_wrote_command_no_terminal(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tell(replace(ESTIMATE, unknown={"ValueError: \x1b[31mred": 1}))
    assert "  Without 1 job: ValueError: \\u001b[31mred." in caplog.messages
