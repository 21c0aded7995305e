"""Which jobs are packed, and what a launcher does with packs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from tests.job.comparing import answers, comparable

from sizewise.composition.compose import compose_run
from sizewise.composition.others import JUDGE
from sizewise.config import SweepConfig
from sizewise.errors import ConfigError
from sizewise.job.submit import Job, make_job, make_sweep_job, submit
from sizewise.record.claims import try_claim
from sizewise.record.identity import plain_config
from sizewise.record.state import JobState, job_state
from sizewise.record.stops import standing_stop
from sizewise.sweep.launch.backend import LaunchOptions
from sizewise.sweep.launch.local_launcher import MOST_STOPS, LocalBackend, Pool
from sizewise.sweep.launch.packing import (
    ALONE,
    MOST,
    ON_CPU,
    Packing,
    choose_packing,
    pack_key,
)
from sizewise.sweep.launch.progress import Progress
from sizewise.sweep.launch.ray_launcher import RayBackend
from sizewise.sweep.launch.slot import Slot
from sizewise.sweep.launch.slurm_launcher import SlurmBackend

SMALL = (
    "model=nano", "logger=none", "callbacks=none", "trainer.progress_bar=false",
    "trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.batch_size=4",
    "dataset.max_train=8", "dataset.max_validation=4", "dataset.max_test=4",
    "generation.max_new_tokens=2", "evaluation.timed_answers=0",
    "evaluation.answer_validation=none",
)  # fmt: skip


def job(root: Path, *overrides: str, stop_at: float | None = None) -> Job:
    cfg = compose_run([*SMALL, f"paths.cache={root / 'cache'}", *overrides])
    made = make_sweep_job(plain_config(cfg), root / "sweep", tuple(overrides))
    return Job(made.overrides, made.config, made.identity, made.run_dir, stop_at=stop_at)


def test_what_is_the_adapters_own_may_differ_and_what_a_pass_depends_on_may_not(
    tmp_path: Path,
) -> None:
    own = (
        "lora.r=2", "optimizer.lr=1e-2", "seed=7", "lora.alpha=4", "lora.dropout=0.1",
        "lora.method=rslora", "lora.target=attention", "scheduler.name=linear", "callbacks=default",
        "trainer.accumulate=2", "trainer.max_epochs=2", "optimizer=sgd", "stage=train",
    )  # fmt: skip
    key = pack_key(job(tmp_path))
    assert key is not None
    assert pack_key(job(tmp_path, *own)) == key
    for override in ("model=micro", "dataset.max_train=4", "trainer.batch_size=2",
                     "quantization=nf4", "trainer.precision=bf16-true"):  # fmt: skip
        assert pack_key(job(tmp_path, override)) not in (None, key), override
    recomputing = "trainer.gradient_checkpointing=true"
    assert pack_key(job(tmp_path, recomputing)) not in (None, key)
    assert pack_key(job(tmp_path, recomputing, "lora.dropout=0.1")) is None
    for override in ("lora=dora", "lora=full", "lora=none", "quantization=int8", "stage=evaluate",
                     "lora.modules_to_save=[embed_tokens]"):  # fmt: skip
        assert pack_key(job(tmp_path, override)) is None, override


def test_a_judge_or_a_teacher_that_is_asked_is_not_shared(tmp_path: Path) -> None:
    """The gold arm of a sweep with a teacher asks none."""
    made, other = job(tmp_path), {"model": {"path": "somewhere"}}
    dataset = {**made.config["dataset"], "teacher": other}
    judged = {"metric": {"judge": {"_target_": JUDGE, "models": {"other": other}}}}
    taught = {"dataset": {**dataset, "answers_from": "teacher"}}
    gold = {"dataset": {**dataset, "answers_from": "gold"}}
    for more, packed in ((judged, False), (taught, False), (gold, True)):
        assert (pack_key(replace(made, config={**made.config, **more})) is not None) == packed


def test_auto_packs_on_gpus_and_says_why_not_on_a_cpu(tmp_path: Path) -> None:
    two = [job(tmp_path, f"seed={seed}", "trainer.accelerator=auto") for seed in (1, 2)]
    on_gpu = choose_packing("auto", two, gpus=True)
    assert (on_gpu.most, on_gpu.measured) == (MOST, True)
    assert on_gpu.kept(two[0]) == on_gpu.kept(two[1]) is not None
    assert on_gpu.kept(two[0]) != on_gpu.kept(job(tmp_path, "trainer.batch_size=2"))
    on_cpu = choose_packing("auto", two, gpus=False)
    assert (on_cpu.most, on_cpu.why) == (1, ON_CPU)
    assert choose_packing(3, two, gpus=False).most == 3
    for asked, jobs in (("off", two), (False, two), (4, two[:1]), (1, two)):
        assert choose_packing(asked, jobs, gpus=True) == ALONE


@pytest.mark.parametrize("asked", ["on", 0, -1, True, 1.5])
def test_another_packing_is_refused(asked: Any) -> None:
    with pytest.raises(ConfigError, match=r"sweep\.packing="):
        SweepConfig(packing=asked)


def begun_by(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> list[list[Job]]:
    begun: list[list[Job]] = []
    monkeypatch.setattr(pool, "_begin", lambda slot, jobs: begun.append(list(jobs)))
    while pool.waiting:
        pool.begin_next(pool._slots[0])
    return begun


def test_a_slot_takes_jobs_of_one_key_and_leaves_some_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    like = [job(tmp_path, f"seed={seed}") for seed in range(5)]
    other, alone = job(tmp_path, "trainer.batch_size=2"), job(tmp_path, "lora=dora")
    jobs, quiet = [like[0], other, alone, *like[1:]], Progress(7, live=False)
    options = LaunchOptions(tmp_path)
    one = Pool([Slot(0, None, 1)], jobs, options, quiet, Packing(3))
    assert begun_by(one, monkeypatch) == [like[:3], [other], [alone], like[3:]]
    two = Pool([Slot(0, None, 1), Slot(1, None, 1)], like, options, quiet, Packing(8))
    assert list(map(len, begun_by(two, monkeypatch))) == [3, 1, 1]
    claim = try_claim(like[1].run_dir)
    assert claim is not None
    held = Pool([Slot(0, None, 1)], like, options, quiet, Packing(8))
    assert begun_by(held, monkeypatch) == [[like[0], *like[2:]]]
    assert held.elsewhere == [like[1]]
    claim.release("done")


def test_tasks_of_a_queue_are_packed_when_there_are_fewer_of_them_than_jobs(tmp_path: Path) -> None:
    like = [job(tmp_path, f"seed={seed}") for seed in range(7)]
    other, alone = job(tmp_path, "trainer.batch_size=2"), job(tmp_path, "lora=dora")
    jobs = [like[0], other, alone, *like[1:]]
    cut = {workers: Packing(4).packs(jobs, workers) for workers in (1, 3, 256)}
    assert cut[1] == [like[:4], [other], [alone], like[4:]]
    assert cut[3] == [like[:3], [other], [alone], like[3:6], like[6:]]
    assert cut[256] == [[each] for each in jobs]
    assert ALONE.packs(jobs, 1) == [[each] for each in jobs]


def test_a_queue_packs_by_itself_where_a_task_has_a_gpu_of_its_own(tmp_path: Path) -> None:
    two = [job(tmp_path, f"seed={seed}", "trainer.accelerator=auto") for seed in (1, 2)]
    on_cpu = [job(tmp_path, f"seed={seed}") for seed in (1, 2)]
    for gpu, backend in (
        (True, SlurmBackend(gpus_per_node=1)),
        (True, SlurmBackend(gres="gpu:1")),
        (False, SlurmBackend(cpus_per_task=4)),
        (True, RayBackend(num_gpus=1)),
        (False, RayBackend(num_gpus=0.5)),
    ):
        assert backend.packing("auto", two).measured is gpu
        assert backend.packing("auto", on_cpu).most == 1
        assert backend.packing(2, on_cpu).most == 2
        assert backend.packing("off", two) == ALONE


def launch(backend: LocalBackend, jobs: list[Job], root: Path, packing: Any) -> None:
    for each in jobs:
        submit(each)
    backend.run(jobs, LaunchOptions(root, packing=packing))


@pytest.mark.slow
def test_a_packed_sweep_has_the_outcomes_of_an_unpacked_one(tmp_path: Path) -> None:
    """A first stage that stops at a rung, then some of them to the end, as halving does."""
    grid = [f"lora.r={r}" for r in (2, 8)] + ["lora.r=4", "lora.r=16"]
    found: dict[str, list[Any]] = {}
    with closing(LocalBackend(n_jobs=1, threads=1, progress=False)) as backend:
        for way, packing in (("packed", 3), ("alone", "off")):
            root = tmp_path / way
            stopped = [job(root, each, stop_at=0.5) for each in grid]
            going_on = [job(root, each, stop_at=1.0) for each in grid[1:3]]
            launch(backend, stopped, root, packing)
            stops = [standing_stop(each.run_dir) for each in stopped]
            assert all(stop is not None and stop.value for stop in stops)
            launch(backend, going_on, root, packing)
            states = [job_state(each.run_dir) for each in stopped]
            assert Counter(states) == {JobState.PRUNED: 2, JobState.DONE: 2}
            cost = json.loads((going_on[0].run_dir / "outcome.json").read_text())["cost"]
            assert cost["packed"] == (2.5 if way == "packed" else None)  # of three, then of two
            losses = [comparable(e.run_dir)["validation"]["val_loss"] for e in going_on]
            files = [p for e in going_on for p in sorted(e.run_dir.glob("predictions/tuned.*l"))]
            found[way] = [
                [each.identity.slug for each in stopped],
                [stop.value for stop in stops if stop is not None and stop.value is not None],
                losses,
                [answers(file) for file in files],
            ]
    ours, theirs = found["packed"], found["alone"]
    assert ours[0] == theirs[0]
    assert ours[1] == pytest.approx(theirs[1], abs=1e-5)
    assert ours[2] == pytest.approx(theirs[2], abs=1e-5)
    assert [[row["text"] for row in rows] for rows in ours[3]] == [
        [row["text"] for row in rows] for rows in theirs[3]
    ]
    assert ours[3]


def test_jobs_whose_pack_died_go_on_alone_and_who_kills_the_worker_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    os.close(write)
    jobs = [job(tmp_path, f"seed={seed}") for seed in (1, 2)]
    slot = Slot(0, None, 1, jobs=list(jobs), packed=True)
    monkeypatch.setattr(Slot, "fileno", lambda self: read)
    monkeypatch.setattr(Slot, "_buried", lambda self: -9)
    pool = Pool([slot], [], LaunchOptions(tmp_path), Progress(2, live=False), Packing(8))
    pool._tries = {each.identity.hash: 1 for each in jobs}
    for each in slot.read():
        pool.ended(slot, each.job, each.answer, each.message)
    assert slot.jobs == []
    assert [job_state(each.run_dir) for each in jobs] == [JobState.WAITING] * 2
    assert begun_by(pool, monkeypatch) == [[jobs[0]], [jobs[1]]]
    again = Slot(0, None, 1, jobs=jobs[:1])
    pool._tries[jobs[0].identity.hash] = 1
    for each in again.read():
        pool.ended(again, each.job, each.answer, each.message)
    os.close(read)
    assert job_state(jobs[0].run_dir) == JobState.FAILED


def pool_of(root: Path, jobs: list[Job], monkeypatch: pytest.MonkeyPatch, retries: int = 0) -> Pool:
    """A pool that packs, with one slot whose worker does nothing."""

    def start(self: Slot, jobs: list[Job], kept: Path | None = None) -> None:
        self.jobs, self.packed = list(jobs), len(jobs) > 1
        self.process = self.process or subprocess.Popen(["sleep", "60"])

    monkeypatch.setattr(Slot, "start", start)
    options = LaunchOptions(root, retries=retries)
    pool = Pool([Slot(0, None, 1)], jobs, options, Progress(len(jobs), live=False), Packing(8))
    monkeypatch.setattr(pool, "_selector", Mock(), raising=False)
    return pool


def dies(pool: Pool, code: int) -> list[Job]:
    """Let the worker of the only slot die with all its jobs; return these."""
    slot = pool._slots[0]
    left, slot.jobs = slot.jobs, []
    assert slot.process is not None
    slot.process.kill()
    slot.process.wait()
    slot.process = None
    for each in left:
        pool.ended(slot, each, code)
    return left


def test_the_try_of_a_pack_that_died_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [job(tmp_path, f"seed={seed}") for seed in (1, 2)]
    pool = pool_of(tmp_path, jobs, monkeypatch, retries=1)
    begun = []
    while pool.waiting:
        pool.begin_next(pool._slots[0])
        begun.append(dies(pool, -9))
    assert begun == [jobs, [jobs[0]], [jobs[1]], [jobs[0]], [jobs[1]]]


def test_jobs_of_a_worker_that_was_stopped_from_outside_wait_again_and_have_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose claim another process took over is waited for; not without end."""
    jobs = [job(tmp_path, f"seed={seed}") for seed in (1, 2, 3)]
    pool = pool_of(tmp_path, jobs, monkeypatch)
    pool.begin_next(pool._slots[0])
    claim = try_claim(jobs[0].run_dir)
    assert claim is not None
    assert dies(pool, 130) == jobs
    assert (pool.elsewhere, list(pool.waiting)) == ([jobs[0]], jobs[1:])
    assert {job_state(each.run_dir) for each in jobs[1:]} == {JobState.WAITING}
    claim.release("done")
    for _ in range(MOST_STOPS):
        assert list(pool.waiting) == jobs[1:]
        pool.begin_next(pool._slots[0])
        dies(pool, 130)
    assert {job_state(each.run_dir) for each in jobs[1:]} == {JobState.FAILED}


def test_a_worker_tells_of_several_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    jobs = [make_job(job(tmp_path, f"seed={n}").config, tmp_path / str(n)) for n in (1, 2, 3)]
    slot = Slot(0, None, 1, jobs=list(jobs))
    monkeypatch.setattr(Slot, "fileno", lambda self: read)
    lines = [
        json.dumps({"run_dir": str(each.run_dir), "state": "done", "message": None}) + "\n"
        for each in reversed(jobs[1:])
    ]
    os.write(write, "".join(lines).encode()[:-5])
    assert [each.job for each in slot.read()] == [jobs[2]]
    os.write(write, "".join(lines).encode()[-5:])
    assert [(each.job, each.answer) for each in slot.read()] == [(jobs[1], JobState.DONE)]
    assert slot.jobs == [jobs[0]]
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(("model", "offline"), [("nano", "1"), ("qwen3_0_6b", None)])
def test_the_environment_is_prepared_before_a_pack_imports_torch(
    tmp_path: Path, model: str, offline: str | None
) -> None:
    """Offline, unless one of the jobs names something on the hub."""
    jobs = [job(tmp_path, "seed=1"), job(tmp_path, f"model={model}")]
    for each in jobs:
        submit(each)
    code = (
        "import json, os, sys\n"
        "from pathlib import Path\n"
        "from sizewise.sweep.launch import worker\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            known = ('HF_HUB_OFFLINE', 'PYTORCH_ALLOC_CONF')\n"
        "            print(json.dumps([os.environ.get(name) for name in known]), flush=True)\n"
        "            os._exit(0)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "worker._run([Path(name) for name in sys.argv[1:]], print, None)\n"
    )
    left_out = ("HF_HUB_OFFLINE", "PYTORCH_ALLOC_CONF")
    done = subprocess.run(
        [sys.executable, "-c", code, *(str(each.run_dir) for each in jobs)],
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if name not in left_out},
    )
    assert json.loads(done.stdout) == [offline, "expandable_segments:True"]
