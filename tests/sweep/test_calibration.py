"""Kinds of jobs are measured once, kept, and asked of processes like workers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sizewise.composition.compose import compose_run
from sizewise.job.submit import Job
from sizewise.record.identity import run_identity
from sizewise.sweep.estimate import calibration
from sizewise.sweep.estimate import estimate as estimate_module
from sizewise.sweep.estimate.calibration import Texts, calibrate, kind_key, representatives
from sizewise.sweep.estimate.estimate import Estimate, estimate_sweep, sentences
from sizewise.sweep.estimate.measure import _Timed, measure, why_not
from sizewise.sweep.estimate.work import Piece
from sizewise.sweep.launch.local_launcher import LocalBackend
from sizewise.sweep.launch.slot import Slot
from sizewise.sweep.plan import Plan, current

from .planned import KIND, SPLITS


def real_job(folder: Path, *overrides: str) -> Job:
    small = ("model=nano", "lora.r=4", "logger=none", "dataset.max_train=24",
             "dataset.max_validation=8", "dataset.max_test=8", "generation.max_new_tokens=8",
             f"paths.cache={folder / 'cache'}")  # fmt: skip
    config = asdict(compose_run([*small, *overrides]))
    identity = run_identity(config)
    return Job(tuple(overrides), config, identity, folder / identity.slug)


def of_plan(folder: Path, *jobs: Job) -> Plan:
    return current(Plan(folder, "sweep", [], {}, len(jobs), pool=list(jobs)))


class Child:
    """Stands for the processes that measure; counts what they are asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, chosen: dict[str, Job], places: Any, texts_alone: str) -> Any:
        for key in chosen:
            self.asked.append(key)
            yield key, replace(KIND, reason=texts_alone)


def test_a_second_plan_costs_nothing_and_seeds_rates_and_ranks_share_their_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Child()
    monkeypatch.setattr(calibration, "_ask", child)
    jobs = [
        real_job(tmp_path, *more)
        for more in (("seed=1",), ("seed=2",), ("lora.r=8",), ("optimizer.lr=0.01",))
    ]
    plan, backend = of_plan(tmp_path, *jobs), LocalBackend(n_jobs=2)
    assert estimate_sweep(plan, backend) is None, "nothing was ever measured"
    first = estimate_sweep(plan, backend, peaks={jobs[0].identity.slug: 5})
    assert first is not None
    assert len(child.asked) == 1
    again = estimate_sweep(plan, backend, peaks={jobs[0].identity.slug: 5})
    assert (again, len(child.asked)) == (first, 1)
    run = estimate_sweep(plan, backend)
    assert run is not None
    assert (run.seconds, run.memory_bytes) == (first.seconds, None)
    other = real_job(tmp_path, "trainer.batch_size=2")
    assert kind_key(other.config, 2, 1) != kind_key(jobs[0].config, 2, 1)
    assert kind_key(jobs[0].config, 1, 2) != kind_key(jobs[0].config, 2, 1)


def test_on_other_machines_no_seconds_are_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "_ask", Child())
    backend: Any = object()
    found = estimate_sweep(of_plan(tmp_path, real_job(tmp_path)), backend, peaks={})
    assert found is not None
    assert found.seconds is None
    assert next(sentences(found)).startswith("Time is not known for 1 job: its jobs run on other")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("model=nano",), ""),
        (("model=qwen3_0_6b",), "its weights are not on this machine, and an estimate fetches"),
        (("model=modernbert_base", "lora=full"), "the seconds of an encoder are not measured"),
        (
            ("evaluation.engine=server", "evaluation.server.base_url=http://127.0.0.1:1/v1"),
            "a server of its own",
        ),
    ],
)
def test_what_would_need_a_download_or_a_server_is_not_measured_and_said(
    overrides: tuple[str, ...], reason: str
) -> None:
    found = why_not(compose_run([*overrides, "logger=none"]))
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


@pytest.mark.parametrize(
    ("data", "texts_alone", "refused"),
    [
        (("dataset.prompt='{nope}'",), "", True),
        (("dataset.prompt='{nope}'",), "its jobs run elsewhere", False),
        (("dataset.source.kind=hub", "dataset.source.path=who/absent"), "", False),
        (("dataset.max_length=8",), "", True),
        ((), "", False),
    ],
)
@pytest.mark.parametrize("model", ["nano", "qwen3_0_6b"])
def test_data_that_fit_no_job_are_told_from_what_is_only_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, data: tuple[str, ...],
    texts_alone: str, refused: bool,
) -> None:  # fmt: skip
    """Data that are elsewhere may be found by the jobs; a column that is missing may not."""
    monkeypatch.setattr(_Timed, "_model", lambda self, found, job: found)
    monkeypatch.setattr(_Timed, "_warm_up", lambda self, job: None)
    monkeypatch.setattr("sizewise.data.rows.hub.reachable", lambda path: False)
    source = tmp_path / "own.csv"
    source.write_text("q,a\n" + "".join(f"question {i},answer {i}\n" for i in range(12)))
    own = ["dataset=csv", f"dataset.source.path={source}", "dataset.prompt='{q}'",
           "dataset.answer='{a}'", f"model={model}", *data]  # fmt: skip
    found = measure(compose_run([*own, f"paths.cache={tmp_path / 'cache'}"]), texts_alone)
    # A base that is not here has no tokenizer either, with which lengths could be known.
    known = model == "nano" or not any("max_length" in each for each in data)
    assert found.refused == (refused and known), found.reason
    assert bool(found.reason) == (model != "nano" or bool(data or texts_alone)), found.reason


def test_a_kind_is_measured_on_the_tiny_model(tmp_path: Path) -> None:
    job = real_job(tmp_path, "evaluation.batch_size=4", "trainer.batch_size=4")
    hub = real_job(tmp_path, "model=qwen3_0_6b")
    chosen = {"nano": job, "hub": hub}
    found = calibrate(chosen, [Slot(0, None, 1)], tmp_path / "cache")
    nano = found["nano"]
    assert nano.reason == ""
    assert {name: texts.count for name, texts in nano.texts.items()} == {
        "train": 24, "validation": 8, "test": 8,
    }  # fmt: skip
    seconds = (nano.start, nano.first_data, nano.load, nano.validation, nano.base, nano.tuned,
               nano.single)  # fmt: skip
    assert all(value > 0 for value in seconds), seconds
    assert nano.prior >= 0  # what one reading takes longer than the next: nothing, if all is noise
    assert len(nano.step) > 2
    assert min(nano.step) > 0
    assert set(nano.zero_shot) == {"test", "validation"}
    assert "not on this machine" in found["hub"].reason
    assert found["hub"].texts["test"].count == 8
    assert calibration.kept(chosen, tmp_path / "cache") == {"nano": nano}


def test_a_first_sweep_against_a_server_says_that_its_cost_is_not_known(tmp_path: Path) -> None:
    """Nothing was ever measured in this folder, and the first request would be paid for."""
    prices = ("model.endpoint.prices.prompt=0.4", "model.endpoint.prices.answer=1.6")
    server = ("model=endpoint", "model.base_url=https://api.example/v1", "model.path=large",
              "lora=none", *prices)  # fmt: skip
    job = real_job(tmp_path, *server)
    found = estimate_sweep(of_plan(tmp_path, job), LocalBackend(n_jobs=1))
    assert found is not None
    said = "\n".join(sentences(found))
    assert "Texts and money for answers by " in said
    assert "are not known yet; sweep.dry_run=true counts them." in said
    assert "Money" not in said.replace("Texts and money", "")


def limited(job: Job, **limits: int | None) -> Job:
    """The same job with other limits of its data set, and a name of its own."""
    dataset = {**job.config["dataset"], **limits}
    return renamed(job, dataset=dataset)


def renamed(job: Job, **parts: Any) -> Job:
    config = {**job.config, **parts}
    identity = run_identity(config)
    return Job(job.overrides, config, identity, job.run_dir.with_name(identity.slug))


class Counting(Child):
    """Finds 1000 examples of every split, less where a configuration allows less."""

    def __call__(self, chosen: dict[str, Job], places: Any, texts_alone: str) -> Any:
        self.asked += chosen
        for key, job in chosen.items():
            limits = calibration.limits_of(job.config)
            counts = {name: min(1000, limits[name] or 1000) for name in SPLITS}
            yield key, replace(KIND, texts={n: Texts(c, c, c) for n, c in counts.items()})


def test_what_was_measured_with_fewer_examples_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Counting()
    monkeypatch.setattr(calibration, "_ask", child)
    backend, small = LocalBackend(n_jobs=1), real_job(tmp_path, "dataset.max_train=100")
    large, larger = limited(small, max_train=500), limited(small, max_train=5000)
    every = limited(small, max_train=None)
    found = [
        estimate_sweep(of_plan(tmp_path, job), backend, peaks={})
        for job in (small, large, every, larger, small)
    ]
    assert len(child.asked) == 3, "all are known from the third on"
    small_one, large_one, every_one, larger_one, again = (each.work["training"] for each in found)  # type: ignore[union-attr]
    assert small_one < large_one / 3 < every_one / 3
    assert (larger_one, again) == (every_one, pytest.approx(small_one))
    unknown = estimate_sweep(of_plan(tmp_path, limited(small, max_test=9)), backend)
    assert unknown is not None
    assert list(unknown.unknown) == ["not measured yet"]
    assert "not measured yet (sweep.dry_run=true does)." in "".join(sentences(unknown))


def test_a_kind_is_measured_with_as_many_examples_as_any_of_its_jobs(tmp_path: Path) -> None:
    first = real_job(tmp_path, "dataset.max_test=50", "dataset.max_train=70")
    jobs = [first, limited(first, max_test=500, max_train=7, max_validation=None)]
    keys = {job.identity.hash: kind_key(job.config, 1, 1) for job in jobs}
    assert len(set(keys.values())) == 1
    (chosen,) = representatives({job.identity.hash: job for job in jobs}, keys).values()
    limits = calibration.limits_of(chosen.config)
    assert limits == {"train": 70, "validation": None, "test": 500}


def test_answers_to_other_test_sets_are_given_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "_ask", Counting())
    first = real_job(tmp_path, "dataset.max_test=50")
    plan = of_plan(tmp_path, first, limited(first, max_test=500))
    found = estimate_sweep(plan, LocalBackend(n_jobs=1), peaks={})
    assert found is not None
    tuned = 2 * KIND.prior + (550 + 2 * 8) * KIND.tuned
    assert found.work["answers"] == pytest.approx(2 * KIND.prior + 550 * KIND.base + tuned)


WITHOUT_HURRY = """
import json, os, select
for number in range(99):
    question = b""
    while not question.endswith(b"\\n"):
        if not (byte := os.read(0, 1)):
            raise SystemExit
        question += byte
    more = bool(select.select([0], [], [], 0.1)[0])
    reply = {"key": json.loads(question)["key"], "measured": {"texts": {}, "reason": str(more)}}
    print(json.dumps(reply), flush=True)
"""


def test_the_next_kind_is_asked_for_when_the_last_was_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(place: Slot) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", WITHOUT_HURRY]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )  # fmt: skip

    monkeypatch.setattr(calibration, "_begin", begin)
    job = real_job(tmp_path)
    chosen = {f"kind {number}": job for number in range(5)}
    found = calibrate(chosen, [Slot(0, None, 1), Slot(1, None, 1)], tmp_path)
    assert {key: measured.reason for key, measured in found.items()} == dict.fromkeys(
        chosen, "False"
    )


def test_a_kind_keeps_its_name_while_jobs_end_and_later_stages_have_their_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Counting()
    monkeypatch.setattr(calibration, "_ask", child)
    monkeypatch.setattr("sizewise.sweep.launch.local_launcher.available_cores", lambda: 16)
    first = real_job(tmp_path)
    jobs = [first, *(renamed(first, seed=seed) for seed in range(101, 112))]
    plan, backend = of_plan(tmp_path, *jobs), LocalBackend(n_jobs=16, gpus=[])
    pieces = [Piece(job) for job in jobs]
    at_stage: dict[str, list[list[Piece]]] = {
        "all twelve": [pieces],
        "four are left": [pieces[:4]],
        "one, then eight": [pieces[:1], pieces[:8]],
    }
    workers = {}
    for name, planned in at_stage.items():
        monkeypatch.setattr(estimate_module, "stages", lambda *_, found=planned: found)
        found = estimate_sweep(plan, backend, peaks={} if name == "all twelve" else None)
        assert found is not None
        assert found.unknown == {}, name
        workers[name] = found.workers
    assert list(workers.values()) == [12, 4, 8]
    assert len(child.asked) == 1


def test_the_interval_begins_at_nothing_at_the_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scattered(chosen: Mapping[str, Job], *_: Any) -> Any:
        for key in chosen:
            yield key, replace(KIND, step=[0.01, 0.01, 90.0])

    monkeypatch.setattr(calibration, "_ask", scattered)
    found = estimate_sweep(of_plan(tmp_path, real_job(tmp_path)), LocalBackend(n_jobs=1), peaks={})
    assert isinstance(found, Estimate)
    assert found.low == 0.0


def test_versions_of_libraries_are_looked_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(calibration, "version", lambda name: calls.append(name) or "1")
    getattr(getattr(calibration, "_versions", None), "cache_clear", lambda: None)()
    for workers in range(1, 9):
        kind_key({}, workers, 1)
    getattr(getattr(calibration, "_versions", None), "cache_clear", lambda: None)()
    assert calls == list(calibration.LIBRARIES)
