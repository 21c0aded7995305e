"""Jobs that share passes end as each would alone."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.job.comparing import answers, comparable, near, without_hashes
from tests.job.runs import SMALL
from tests.training.jobs import exit_code, forked

from sizewise.composition.compose import compose_run
from sizewise.job.execute import JobResult, execute
from sizewise.job.pack import Crew, Member, PackRoom, execute_together, fitting, room_for
from sizewise.job.submit import Job, make_job, submit
from sizewise.models.adapter.packed import NotPackableError, PackedBase
from sizewise.models.plan.planner import MemoryPlan
from sizewise.record.claims import try_claim
from sizewise.record.identity import plain_config
from sizewise.record.state import JobState, job_state, read_failure
from sizewise.signals import SignalHandlers
from sizewise.training import module
from sizewise.training.group_size import GroupSize, evenly
from sizewise.training.pack import Pack

UNEQUAL = (
    ("lora.r=2", "optimizer.lr=3e-3", "seed=1"),
    ("lora.r=8", "optimizer.lr=1e-3", "seed=2", "lora.dropout=0.1", "trainer.accumulate=2"),
    ("lora.r=4", "lora.method=rslora", "scheduler.name=linear", "seed=3", "lora.dropout=0.3"),
)
FAST = (
    "evaluation.timed_answers=0", "trainer.batch_size=4", "trainer.log_every=1",
    "dataset.max_train=16", "dataset.max_validation=4", "dataset.max_test=4",
    "generation.max_new_tokens=4", "evaluation.answer_validation=none",
)  # fmt: skip


def planned(root: Path, folder: str, *overrides: str) -> Job:
    """Submit a job in ``root/folder``; each of the two ways has its own cache."""
    cache = root / f"cache_{folder.rstrip('0123456789')}"
    cfg = compose_run([*SMALL, *FAST, f"paths.cache={cache}", *overrides])
    job = make_job(plain_config(cfg), root / folder, tuple(overrides))
    submit(job)
    return job


def together(jobs: list[Job]) -> dict[str, JobResult]:
    found: dict[str, JobResult] = {}
    execute_together([job.run_dir for job in jobs], lambda r: found.update({r.run_dir.name: r}))
    return found


def history(run_dir: Path) -> list[dict[str, Any]]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    assert lines
    return [{k: json.loads(line)[k] for k in ("step", "values")} for line in lines]


def assert_equal(ours: Path, theirs: Path) -> None:
    """The same record, answers and learning curve, to rounding; the same files."""
    assert comparable_plain(ours) == near(comparable_plain(theirs))
    files = [sorted(str(p.relative_to(d)) for p in d.rglob("*")) for d in (ours, theirs)]
    assert files[0] == files[1]
    for path in (theirs / "predictions").glob("*.jsonl"):
        found, expected = answers(ours / "predictions" / path.name), answers(path)
        assert [row["text"] for row in found] == [row["text"] for row in expected]
    assert history(ours) == near(history(theirs))


def comparable_plain(run_dir: Path) -> Any:
    return without_hashes(comparable(run_dir))


def test_unequal_jobs_end_as_each_alone(tmp_path: Path) -> None:
    packed = [planned(tmp_path, f"packed{n}", *each) for n, each in enumerate(UNEQUAL)]
    alone = [planned(tmp_path, f"alone{n}", *each) for n, each in enumerate(UNEQUAL)]
    for job in alone:
        assert execute(job.run_dir).state == JobState.DONE
    results = together(packed)
    assert {r.state for r in results.values()} == {JobState.DONE}
    for ours, theirs in zip(packed, alone, strict=True):
        assert ours.identity == theirs.identity
        assert_equal(ours.run_dir, theirs.run_dir)
        cost = json.loads((ours.run_dir / "outcome.json").read_text())["cost"]
        assert cost["packed"] > 1.5
        assert cost["train_seconds"] > 0
        assert cost["energy_joules"] is None


@pytest.fixture(scope="module")
def trained_alone(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The learning curves of the unequal jobs, each trained alone."""
    root = tmp_path_factory.mktemp("alone")
    jobs = [planned(root, f"alone{n}", *each, "stage=train") for n, each in enumerate(UNEQUAL)]
    for job in jobs:
        assert execute(job.run_dir).state == JobState.DONE
    return [history(job.run_dir) for job in jobs]


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[int]:
    """Let passes of several jobs fail in their midst; return how many were in each, as it fills."""
    asked: list[int] = []
    answer_logits = PackedBase.answer_logits

    def fails(self: PackedBase, parts: Any, training: bool = True) -> Any:
        asked.append(len(parts))
        answer_logits(self, parts, training)
        raise error

    monkeypatch.setattr(PackedBase, "answer_logits", fails)
    return asked


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("CUDA out of memory. Tried"), "Out of memory with 3 jobs in a pass"),
        (NotPackableError("rows moved"), "cannot share a pass (rows moved)"),
        (ValueError("of whatever kind"), "cannot share a pass (of whatever kind)"),
    ],
)
def test_where_a_pass_cannot_be_shared_each_goes_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained_alone: list[Any],
    error: Exception,
    said: str,
) -> None:
    asked = failing(monkeypatch, error)
    jobs = [planned(tmp_path, f"packed{n}", *each, "stage=train") for n, each in enumerate(UNEQUAL)]
    assert {result.state for result in together(jobs).values()} == {JobState.DONE}
    assert [history(job.run_dir) for job in jobs] == near(trained_alone)
    assert asked == [3]
    assert said in "".join((job.run_dir / "job.log").read_text() for job in jobs)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), ValueError("of whatever kind")]
)
def test_a_shared_backward_pass_that_fails_costs_nobody_a_gradient_or_its_micro_batch(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained_alone: list[Any],
    error: Exception,
) -> None:
    """Gradients of earlier micro-batches stay, those of this one are made again, by each alone."""
    backward, failed = torch.autograd.backward, list[int]()

    def fails(tensors: Any, *given: Any, **named: Any) -> None:
        backward(tensors, *given, **named)
        if isinstance(tensors, list) and len(tensors) > 1:
            failed.append(len(tensors))
            raise error

    monkeypatch.setattr(torch.autograd, "backward", fails)
    jobs = [planned(tmp_path, f"packed{n}", *each, "stage=train") for n, each in enumerate(UNEQUAL)]
    assert {result.state for result in together(jobs).values()} == {JobState.DONE}
    assert [history(job.run_dir) for job in jobs] == near(trained_alone)
    fits = [json.loads((job.run_dir / "fit.json").read_text()) for job in jobs]
    assert [fit["out_of_memory"] for fit in fits] == [[]] * 3
    assert failed == [3]


def test_who_runs_out_of_memory_with_its_own_loss_makes_a_pass_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained_alone: list[Any]
) -> None:
    of_all, losses = module._of_all, list[Any]()

    def fails(*given: Any) -> Any:
        losses.extend([given] if torch.is_grad_enabled() else [])
        if len(losses) == 5 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return of_all(*given)

    monkeypatch.setattr(module, "_of_all", fails)
    jobs = [planned(tmp_path, f"packed{n}", *each, "stage=train") for n, each in enumerate(UNEQUAL)]
    assert {result.state for result in together(jobs).values()} == {JobState.DONE}
    assert [history(job.run_dir) for job in jobs] == near(trained_alone)
    fits = [json.loads((job.run_dir / "fit.json").read_text()) for job in jobs]
    assert [fit["out_of_memory"] for fit in fits] == [[]] * 3
    assert len(losses) >= 5


def passes_and_waits(monkeypatch: pytest.MonkeyPatch, folder: Path, kept: Path | None) -> list[str]:
    """Train two jobs together; return the shared passes, and what waits around them."""
    done: list[str] = []
    answer_logits, backward = PackedBase.answer_logits, Pack._backward

    def forward(self: PackedBase, parts: Any, training: bool = True) -> Any:
        done.append(f"pass of {len(parts)}")
        return answer_logits(self, parts, training)

    def differentiated(self: Pack, group: Any) -> None:
        done.append(f"pass of {len(group)}")
        backward(self, group)

    monkeypatch.setattr(PackedBase, "answer_logits", forward)
    monkeypatch.setattr(Pack, "_backward", differentiated)
    monkeypatch.setattr("sizewise.training.pack.synchronize", lambda device: done.append("wait"))
    monkeypatch.setattr(
        Pack, "share_wait", lambda pack, seat, seconds: done.append(f"wait of job {seat.number}")
    )
    ways = (("lora.r=2", "stage=train"), ("lora.r=4", "stage=train"))
    jobs = [planned(folder, f"packed{n}", *each) for n, each in enumerate(ways)]
    found: list[JobResult] = []
    execute_together([job.run_dir for job in jobs], found.append, kept)
    assert [result.state for result in found] == [JobState.DONE] * 2
    return done


def test_no_pass_waits_for_the_device_and_a_wait_is_that_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = passes_and_waits(monkeypatch, tmp_path, None)
    assert done.count("pass of 2") > 4
    assert "wait" not in done
    assert {"wait of job 0", "wait of job 1"} <= set(done)


def test_passes_that_are_timed_are_those_that_the_device_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is measured how many share one; else what is queued would be counted for others."""
    monkeypatch.setattr("sizewise.training.group_size.TIMED", 1)
    done = passes_and_waits(monkeypatch, tmp_path, tmp_path / "cache" / "packing" / "key.json")
    timed = [n for n, each in enumerate(done) if each == "pass of 2"][:2]
    assert [done[n - 1 : n + 2] for n in timed] == [["wait", "pass of 2", "wait"]] * 2


def test_who_waits_first_does_not_pay_for_what_all_have_queued() -> None:
    pack = Pack(GroupSize(3))
    seats = [pack.join(lambda: None) for _ in range(3)]
    for seat in seats[:2]:
        seat._model = torch.nn.Linear(1, 1)
    pack._group = seats
    pack.share_wait(seats[0], 6.0)
    assert [seat.clock() for seat in seats] == [-3.0, 3.0, 0.0], "who has left pays nothing"
    pack._group = []
    pack.share_wait(seats[2], 6.0)
    assert seats[2].clock() == 0.0


def test_who_makes_its_own_passes_waits_at_its_own_cost() -> None:
    pack = Pack(GroupSize(3))
    seats = [pack.join(lambda: None) for _ in range(3)]
    for seat in seats:
        seat._model, seat._alone = torch.nn.Linear(1, 1), "it is a test"
    pack._group = seats[:2]
    pack.share_wait(seats[2], 6.0)
    assert [seat.clock() for seat in seats] == [0.0] * 3, "it had no part in that pass"
    for seat in seats:
        with torch.no_grad():
            assert seat._model is not None
            assert seat.answer_logits(seat._model, {}) is None
        pack.share_wait(seat, 6.0)
    assert [seat.clock() for seat in seats] == [0.0] * 3
    seats[0].waiting = "answers"
    pack._group = [seats[0]]
    pack.pass_through()
    assert pack._group == [], "answers have been read when they are made"


def test_who_dies_while_it_waits_leads_no_pass() -> None:
    def dies() -> None:
        raise KeyboardInterrupt

    pack = Pack(GroupSize(2))
    seat = pack.join(dies)
    with pytest.raises(KeyboardInterrupt):
        seat._wait("forward")
    assert pack.next_leader() is None
    seat.waiting = "backward"  # of one that is never given a turn again
    seat.leave_passes()
    assert pack.next_leader() is None


def test_how_many_share_a_pass_is_measured_on_steps_that_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained_alone: list[Any]
) -> None:
    """Validations are shared by all."""
    monkeypatch.setattr("sizewise.training.group_size.TIMED", 1)
    answer_logits, passes = PackedBase.answer_logits, Counter[tuple[int, bool]]()

    def counted(self: PackedBase, parts: Any, training: bool = True) -> Any:
        passes[len(parts), training] += 1
        return answer_logits(self, parts, training)

    monkeypatch.setattr(PackedBase, "answer_logits", counted)
    jobs = [planned(tmp_path, f"packed{n}", *each, "stage=train") for n, each in enumerate(UNEQUAL)]
    found: list[JobResult] = []
    kept = tmp_path / "cache" / "packing" / "key.json"
    execute_together([job.run_dir for job in jobs], found.append, kept)
    assert [result.state for result in found] == [JobState.DONE] * 3
    assert [history(job.run_dir) for job in jobs] == near(trained_alone)
    assert set(json.loads(kept.read_text())["seconds_per_token"]) == {"1", "3"}
    assert passes[3, True] >= 2
    assert passes[3, False] >= 1


def test_batches_of_long_answers_go_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained_alone: list[Any]
) -> None:
    asked = failing(monkeypatch, AssertionError("their logits together are too many"))
    monkeypatch.setattr("sizewise.training.seat.rows_at_once", lambda base: 0)
    jobs = [planned(tmp_path, f"packed{n}", *each, "stage=train") for n, each in enumerate(UNEQUAL)]
    assert {result.state for result in together(jobs).values()} == {JobState.DONE}
    assert [history(job.run_dir) for job in jobs] == near(trained_alone)
    assert asked == []


def test_a_job_that_is_done_or_that_another_process_holds_is_not_in_the_pack(
    tmp_path: Path, trained_alone: list[Any]
) -> None:
    jobs = [planned(tmp_path, f"packed{n}", *each, "stage=train") for n, each in enumerate(UNEQUAL)]
    execute(jobs[0].run_dir)
    before = (jobs[0].run_dir / "outcome.json").read_bytes()
    claim = try_claim(jobs[1].run_dir)
    assert claim is not None
    found = together(jobs)
    results = [found[job.run_dir.name] for job in jobs]
    claim.release("interrupted")
    assert [(result.state, result.fresh) for result in results] == [
        (JobState.DONE, False), (JobState.RUNNING, False), (JobState.DONE, True),
    ]  # fmt: skip
    assert (jobs[0].run_dir / "outcome.json").read_bytes() == before
    assert not (jobs[1].run_dir / "outcome.json").exists()
    assert history(jobs[2].run_dir) == near(trained_alone[2])


@pytest.mark.parametrize(
    ("how", "tolerance"),
    [
        ("trainer.precision=bf16-mixed", 0.02),
        ("quantization=nf4", 1e-4),
        ("trainer.gradient_checkpointing=true", 1e-5),
    ],
)
def test_in_lower_precision_and_recomputing_it_is_the_same_to_that_precision(
    tmp_path: Path, how: str, tolerance: float
) -> None:
    """Modes of torch that one job has switched on are another's only where it did so itself."""
    ways = [(*each, how, "stage=train") for each in (UNEQUAL[0], ("lora.r=8", "seed=3"))]
    packed = [planned(tmp_path, f"packed{n}", *each) for n, each in enumerate(ways)]
    assert {result.state for result in together(packed).values()} == {JobState.DONE}
    assert not torch.is_autocast_enabled("cpu")
    assert torch.is_grad_enabled()
    for number, (ours, each) in enumerate(zip(packed, ways, strict=True)):
        alone = planned(tmp_path, f"alone{number}", *each)
        execute(alone.run_dir)
        curves = [losses(job.run_dir) for job in (ours, alone)]
        assert curves[0] == pytest.approx(curves[1], rel=tolerance)
        cost = json.loads((ours.run_dir / "outcome.json").read_text())["cost"]
        assert cost["packed"] == 2


def losses(run_dir: Path) -> list[float]:
    lines = [line["values"] for line in history(run_dir)]
    return [line[name] for line in lines for name in ("train_loss", "val_loss") if name in line]


def test_a_planned_pass_leaves_room_for_what_every_job_holds() -> None:
    parts = {"weights": 100, "adapters": 1, "gradients": 1, "optimizer": 2, "activations": 9,
             "logits": 1}  # fmt: skip
    plan = MemoryPlan(0, 0, parts, {}, 6, sum(parts.values()) + 6, 0, {})
    rooms = (500, 178, 177, 158, 10)
    assert [fitting(plan, room, 8).rows for room in rooms] == [8, 4, 3, 2, 1]


def test_planned_answers_leave_room_for_what_every_job_holds() -> None:
    """Keys and values are each job's own, the weights are there once."""
    trained = {"weights": 100, "adapters": 1, "gradients": 1, "optimizer": 2}
    answered = {"weights": 100, "adapters": 1, "kv_cache": 8, "activations": 2}
    peaks = [sum(parts.values()) for parts in (trained, answered)]
    plan = MemoryPlan(0, 0, trained, answered, 0, *peaks, {})
    rooms = (500, 173, 172, 152, 10)
    assert [fitting(plan, room, 8).answers for room in rooms] == [8, 4, 3, 1, 1]


def test_no_more_jobs_are_in_memory_at_once_than_what_each_holds_leaves_room_for() -> None:
    """Adapters, gradients and optimiser states of all jobs, whoever is in the pass."""
    parts = {"weights": 100, "adapters": 10, "gradients": 10, "optimizer": 20, "logits": 1}
    plan = MemoryPlan(0, 0, parts, {}, 0, sum(parts.values()), 150, {})
    found = {room: fitting(plan, room, 4) for room in (1000, 230, 229, 150, 10)}
    assert [room.members for room in found.values()] == [4, 3, 2, 1, 1]
    assert all(1 <= room.rows <= room.members for room in found.values())


def test_jobs_that_do_not_fit_beside_the_others_come_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained_alone: list[Any]
) -> None:
    crews: list[int] = []
    run = Crew.run

    def counted(self: Crew, run_dirs: Sequence[Path]) -> None:
        crews.append(len(run_dirs))
        run(self, run_dirs)

    monkeypatch.setattr(Crew, "run", counted)
    monkeypatch.setattr("sizewise.job.pack.room_for", lambda run_dirs: PackRoom(2, 1, 1))
    jobs = [planned(tmp_path, f"packed{n}", *each, "stage=train") for n, each in enumerate(UNEQUAL)]
    assert {result.state for result in together(jobs).values()} == {JobState.DONE}
    assert crews == [2, 1]
    assert [history(job.run_dir) for job in jobs] == near(trained_alone)
    assert [list(map(len, evenly(jobs * 3, most))) for most in (9, 8, 4, 1)] == [  # type: ignore[arg-type]
        [9], [5, 4], [3, 3, 3], [1] * 9,
    ]  # fmt: skip


def test_the_largest_job_is_planned_and_whatever_cannot_be_planned_limits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kinds = [
        ["lora.r=2"], ["lora.r=16"], ["lora.r=4", "optimizer=sgd"], ["lora.r=8", "seed=2"],
        ["lora.r=2", "evaluation.batch_size=64"],
    ]  # fmt: skip
    jobs = [planned(tmp_path, f"packed{n}", *each) for n, each in enumerate(kinds)]
    run_dirs = [job.run_dir for job in jobs]
    assert room_for(run_dirs) == PackRoom(5, 5, 5), "no GPU"
    card = SimpleNamespace(total_memory=115)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr("sizewise.job.pack.resolve_device", lambda cfg: torch.device("cuda"))
    asked = []

    def plan_job(cfg: Any, advise: bool) -> MemoryPlan:
        asked.append(cfg.lora.r)
        own, kept = cfg.lora.r, {"kv_cache": 1 if cfg.evaluation.batch_size is None else 64}
        peaks = (80 + own, 40 + sum(kept.values()))
        return MemoryPlan(0, 0, {"adapters": own}, kept, 0, *peaks, {})

    monkeypatch.setattr("sizewise.job.pack.plan_job", plan_job)
    assert room_for(run_dirs)[::2] == (2, 1), "of the highest rank, and of the largest batch"
    assert sorted(asked) == [2, 4, 16]

    def fails(cfg: Any, advise: bool) -> MemoryPlan:
        raise ValueError("no such shape")

    monkeypatch.setattr("sizewise.job.pack.plan_job", fails)
    assert room_for(run_dirs) == PackRoom(5, 5, 5)
    assert "no such shape" in caplog.text


def test_who_stops_early_diverges_or_fails_leaves_and_the_others_go_on(tmp_path: Path) -> None:
    stops = (
        "callbacks=default", "callbacks.early_stopping.patience=1", "trainer.validate_every=1",
        "callbacks.early_stopping.min_delta=10",
    )  # fmt: skip
    ways = (
        ("lora.r=2", "stage=train", *stops),
        ("optimizer.lr=1e30",),
        ("dataset.max_length=8",),
        ("lora.r=8", "stage=train"),
    )
    packed = [planned(tmp_path, f"packed{n}", *each) for n, each in enumerate(ways)]
    results = together(packed)
    done, failed = JobState.DONE, JobState.FAILED
    assert [results[job.run_dir.name].state for job in packed] == [done, failed, failed, done]
    reasons = [read_failure(job.run_dir) for job in packed[1:3]]
    assert reasons[0] is not None
    assert reasons[1] is not None
    assert "is nan at optimiser step" in reasons[0].reason
    assert "max_length" in reasons[1].reason
    for job in packed[1:3]:
        assert "Traceback" in (job.run_dir / "job.log").read_text()
    fits = [json.loads((packed[n].run_dir / "fit.json").read_text()) for n in (0, 3)]
    assert [fit["stopped_early"] for fit in fits] == [True, False]
    assert fits[0]["steps"] == 1
    for number in (0, 3):
        alone = planned(tmp_path, f"alone{number}", *ways[number])
        execute(alone.run_dir)
    assert_equal(packed[0].run_dir, tmp_path / "alone0")
    assert_equal(packed[3].run_dir, tmp_path / "alone3")


def _in_a_process(run_dirs: list[Path], number: int, times: int) -> None:
    """Run a pack that sends itself a signal when it is to write a checkpoint the n-th time."""
    from sizewise.training import checkpoint

    write, written = checkpoint.write_checkpoint, []

    def killing(*given: Any) -> None:
        written.append(given)
        if len(written) == times:
            os.kill(os.getpid(), number)
        write(*given)

    checkpoint.write_checkpoint = killing
    torch.set_num_threads(1)
    try:
        execute_together(run_dirs, lambda result: None)
    except KeyboardInterrupt:
        os._exit(7)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 7)])
def test_a_pack_that_is_stopped_goes_on_as_if_undisturbed(
    tmp_path: Path, number: int, code: int
) -> None:
    often = ("trainer.checkpoint_every=1", "trainer.keep_last_checkpoint=true", "stage=train")
    ways = (("lora.r=2", "lora.dropout=0.2"), ("lora.r=4", "seed=3"))
    packed = [planned(tmp_path, f"packed{n}", *each, *often) for n, each in enumerate(ways)]
    process = forked(_in_a_process, [j.run_dir for j in packed], number, 3)
    assert exit_code(process) == code
    assert [job_state(job.run_dir) for job in packed] == [JobState.INTERRUPTED] * 2
    for job in packed:
        assert (job.run_dir / "checkpoints" / "last.ckpt").is_file()
    assert {result.state for result in together(packed).values()} == {JobState.DONE}
    for n, each in enumerate(ways):
        alone = planned(tmp_path, f"alone{n}", *each, *often)
        execute(alone.run_dir)
        ours, theirs = comparable_plain(packed[n].run_dir), comparable_plain(alone.run_dir)
        assert ours == near(theirs)
        assert history(packed[n].run_dir) == near(history(alone.run_dir))


@pytest.mark.parametrize("itself", [True, False])
def test_a_job_hears_once_of_a_signal(tmp_path: Path, itself: bool) -> None:
    """A second one would stop its fit at once; ``itself``: it came when it was the job's turn."""
    crew, heard = Crew(print, Pack(GroupSize(1))), list[int]()
    member = Member(crew, tmp_path)
    with SignalHandlers(lambda number, frame: heard.append(number)):
        if itself:
            signal.raise_signal(signal.SIGTERM)
        crew.signal = signal.SIGTERM
        member._pause()
        member._pause()
    assert heard == [signal.SIGTERM]


def test_a_signal_that_comes_between_two_turns_is_for_all(tmp_path: Path) -> None:
    """And not for the job alone whose turn it was last."""
    crew, heard = Crew(print, Pack(GroupSize(1))), list[int]()
    member = Member(crew, tmp_path)
    member._hub = SimpleNamespace(switch=lambda: signal.raise_signal(signal.SIGTERM))
    with SignalHandlers(lambda number, frame: heard.append(number)):
        member._pause()
        assert (crew.signal, heard) == (signal.SIGTERM, [signal.SIGTERM])


def test_an_error_between_the_jobs_ends_each_with_its_state_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = GroupSize.now, []

    def fails(self: GroupSize, *given: Any) -> int:
        asked.append(given)
        if len(asked) == 3:
            raise RuntimeError("of whatever kind")
        return now(self, *given)

    monkeypatch.setattr(GroupSize, "now", fails)
    ways = (("lora.r=2", "stage=train"), ("lora.r=4", "stage=train"))
    jobs = [planned(tmp_path, f"packed{n}", *each) for n, each in enumerate(ways)]
    with pytest.raises(RuntimeError, match="of whatever kind"):
        together(jobs)
    assert [job_state(job.run_dir) for job in jobs] == [JobState.INTERRUPTED] * 2
    for job in jobs:
        assert (job.run_dir / "checkpoints" / "last.ckpt").is_file()
    assert {r.state for r in together(jobs).values()} == {JobState.DONE}


def test_where_nobody_listens_any_more_the_jobs_save_their_state_and_leave(tmp_path: Path) -> None:
    ways = (("lora.r=2", "stage=train"), ("lora.r=4", "stage=train"), ("dataset.max_length=8",))
    jobs = [planned(tmp_path, f"packed{n}", *each) for n, each in enumerate(ways)]

    def gone(result: JobResult) -> None:
        raise BrokenPipeError("the pool is gone")

    with pytest.raises(BrokenPipeError):
        execute_together([job.run_dir for job in jobs], gone)
    for job in jobs[:2]:
        assert job_state(job.run_dir) == JobState.INTERRUPTED
        assert (job.run_dir / "checkpoints" / "last.ckpt").is_file()
    assert {r.state for r in together(jobs[:2]).values()} == {JobState.DONE}
