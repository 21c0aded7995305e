"""Which job is begun next, and that no worker waits for another while something is due."""

from __future__ import annotations

import random
import time
from collections.abc import Collection
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sizewise.config import SweepConfig
from sizewise.job.execute import execute
from sizewise.job.submit import Job, make_job, submit
from sizewise.record.claims import try_claim
from sizewise.record.identity import reuse_key
from sizewise.record.state import JobState, is_done, job_state
from sizewise.record.stops import go_on
from sizewise.sweep import finish
from sizewise.sweep.estimate import estimate as estimate_module
from sizewise.sweep.estimate.estimate import estimate_sweep
from sizewise.sweep.estimate.work import forecast, likely, stages
from sizewise.sweep.grid import launch
from sizewise.sweep.halving import Rung
from sizewise.sweep.launch import waiting as waiting_module
from sizewise.sweep.launch.backend import LaunchOptions, More
from sizewise.sweep.launch.local_launcher import LocalBackend, Pool
from sizewise.sweep.launch.packing import may_pack
from sizewise.sweep.launch.progress import Progress
from sizewise.sweep.launch.slot import Slot
from sizewise.sweep.launch.waiting import SMALL_MODEL, Waiting, rough_size
from sizewise.sweep.plan import Plan, current
from sizewise.sweep.stages import Means, run_stages

from .conftest import Submit, job_config
from .fake import trace
from .planned import KIND, costs
from .planned import planned as tuned
from .screened import record, run, survivors
from .test_halving import halved

NANO, MICRO, LARGE, LARGER = 64, 128, 4096, 8192  # widths


def figures(width: int) -> dict[str, int]:
    return {"hidden_size": width, "intermediate_size": 4 * width, "num_layers": 4,
            "vocab_size": 1000}  # fmt: skip


def sized(folder: Path, model: str, width: int | None = None, seed: int = 1) -> Job:
    """A job on a base of some width, or of unknown size."""
    config = job_config(seed, model)
    config["model"]["architecture"] = figures(width) if width is not None else None
    return make_job(config, folder)


def test_small_models_share_the_processor_job_by_job_and_large_ones_do_not() -> None:
    def rough(width: int, **more: object) -> dict[str, object]:
        return {"model": {"architecture": figures(width), **more}}

    assert rough_size(rough(NANO)) < SMALL_MODEL < rough_size(rough(LARGE))
    assert rough_size({"model": {"architecture": None, "path": "owner/name"}}) == 0
    assert rough_size(rough(LARGE, init="tiny_random")) <= SMALL_MODEL
    classical = {"path": "classical:majority", "family": "classical"}
    assert 0 < rough_size({"model": classical}) <= SMALL_MODEL


def test_a_folder_of_weights_says_how_large_a_model_is(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(2000))
    assert rough_size({"model": {"path": str(tmp_path)}}) == 1000


def test_jobs_are_taken_by_base_in_the_order_they_came(tmp_path: Path) -> None:
    """A worker stays on its base; one that begins takes a base that no other has."""
    a, b, c = ([sized(tmp_path, model, seed=seed) for seed in (1, 2)] for model in "abc")
    waiting = Waiting([a[0], b[0], a[1], c[0], b[1]])
    bases = {name: reuse_key(jobs[0].config) for name, jobs in zip("abc", (a, b, c), strict=True)}
    assert waiting.take(None, {bases["a"], None}) == b[0]
    assert waiting.take(bases["b"], {bases["a"], bases["b"]}) == b[1]
    waiting.put(b[0])
    assert waiting.take("gone", {bases["a"], bases["c"]}) == b[0]
    assert waiting.take("gone", {bases["a"], bases["c"]}) == a[0]
    assert [waiting.take(None, {None}), waiting.take(None, {None})] == [a[1], c[0]]
    assert len(waiting) == 0


def test_to_take_a_job_costs_as_much_with_ten_thousand_as_with_ten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configurations are looked at once each, not once for every job that is taken."""
    asked: list[int] = []

    def counted(config: dict[str, Any]) -> str:
        asked.append(1)
        return reuse_key(config)

    monkeypatch.setattr(waiting_module, "reuse_key", counted)
    one = make_job(job_config(), tmp_path)
    waiting = Waiting([one] * 10_000)
    while waiting:
        waiting.take(None, set())
    assert len(asked) == 10_000


def named(job: Job) -> str:
    return str(job.config["model"]["name"])


def bases_taken(waiting: Waiting[Job], loaded: list[str | None]) -> list[str]:
    """Let workers take jobs in turn until none waits; return the bases by name."""
    taken: list[Job] = []
    while waiting:
        ended = taken[-len(loaded) :]
        for number, base in enumerate(loaded):
            if waiting:
                taken.append(waiting.take(base, set(loaded)))
                loaded[number] = reuse_key(taken[-1].config)
        for job in ended:
            waiting.ended(job)
    return [named(job) for job in taken]


@pytest.mark.parametrize(
    ("widths", "workers", "order"),
    [
        ({"nano": NANO, "micro": MICRO}, 1, "micro micro micro nano nano nano"),
        ({"nano": NANO, "micro": MICRO}, 2, "micro nano micro nano micro nano"),
        # A large base is loaded once, and only the worker on it takes its jobs while it can.
        ({"large": LARGE, "larger": LARGER}, 1, "larger larger larger large large large"),
        ({"large": LARGE, "larger": LARGER}, 2, "larger large larger large larger large"),
        ({"nano": NANO, "large": LARGE}, 2, "large nano large nano large nano"),
        # Nothing is known of a server's model: it may be slow.
        ({"nano": NANO, "server": None}, 1, "server server server nano nano nano"),
    ],
)
def test_large_bases_are_begun_first_and_left_last(
    tmp_path: Path, widths: dict[str, int | None], workers: int, order: str
) -> None:
    jobs = [sized(tmp_path, n, width, seed) for seed in (1, 2, 3) for n, width in widths.items()]
    assert bases_taken(Waiting(jobs), [None] * workers) == order.split()


def test_a_worker_comes_to_help_on_a_larger_small_base_when_its_answers_are_there(
    tmp_path: Path,
) -> None:
    """Before a job on it has ended both would wait for the same answers of the untouched model."""
    nano = [sized(tmp_path, "nano", NANO, seed) for seed in range(9)]
    micro = [sized(tmp_path, "micro", MICRO, seed) for seed in range(9)]
    waiting = Waiting([*nano, *micro])
    on = {name: reuse_key(job.config) for name, job in (("nano", nano[0]), ("micro", micro[0]))}
    assert named(waiting.take(on["nano"], set(on.values()))) == "nano"
    waiting.ended(micro[0])
    assert named(waiting.take(on["nano"], set(on.values()))) == "micro"
    assert waiting.wants(on["nano"])
    assert not waiting.wants(None)


def test_jobs_begin_in_the_order_that_was_given_where_that_is_asked(tmp_path: Path) -> None:
    widths = {"nano": NANO, "large": LARGE}
    jobs = [sized(tmp_path, n, width, seed) for seed in (1, 2) for n, width in widths.items()]
    assert bases_taken(Waiting(jobs, as_given=True), [None, None]) == ["nano", "large"] * 2


def test_a_free_worker_begins_what_has_become_due_while_another_is_at_work(
    tmp_path: Path, submitted: Submit
) -> None:
    slow = submitted(1, function="sweep.fake:held")
    quick, later, last = (submitted(seed) for seed in (2, 3, 4))
    due, before = [last, later], [later, quick]
    asked: list[Collection[Path]] = []

    def more(busy: Collection[Path]) -> list[Job]:
        asked.append(busy)
        if not due:
            return []
        assert is_done(before.pop().run_dir)
        assert not is_done(slow.run_dir)
        if len(due) == 1:
            (tmp_path / "go").touch()
        return [due.pop()]

    with closing(LocalBackend(n_jobs=2)) as backend:
        backend.run([slow, quick], LaunchOptions(tmp_path, more=more))
    assert [job_state(job.run_dir) for job in (slow, quick, later, last)] == [JobState.DONE] * 4
    assert asked[:2] == [{slow.run_dir}] * 2


def test_there_is_room_for_more_jobs_than_there_were_at_first(
    tmp_path: Path, submitted: Submit
) -> None:
    waits = submitted(2, function="sweep.fake:held")
    opens = submitted(3, function="sweep.fake:opening")
    due = [[waits, opens]]
    slow = submitted(4, function="sweep.fake:held")
    with closing(LocalBackend(n_jobs=3)) as backend:
        options = LaunchOptions(tmp_path, more=lambda busy: due.pop() if due else [])
        backend.run([submitted(1), slow], options)
    assert [job_state(job.run_dir) for job in (slow, waits, opens)] == [JobState.DONE] * 3


def test_where_it_cannot_be_said_what_is_due_jobs_at_work_still_end(
    tmp_path: Path, submitted: Submit, capfd: pytest.CaptureFixture[str]
) -> None:
    slow, quick = submitted(1, function="sweep.fake:held"), submitted(2)
    asked: list[int] = []

    def more(busy: Collection[Path]) -> list[Job]:
        asked.append(len(busy))
        (tmp_path / "go").touch()
        raise OSError("no space left on device")

    with closing(LocalBackend(n_jobs=2)) as backend:
        backend.run([slow, quick], LaunchOptions(tmp_path, more=more))
    assert [job_state(job.run_dir) for job in (slow, quick)] == [JobState.DONE] * 2
    assert asked == [1]
    assert "not known (no space left on device)" in capfd.readouterr().err


def in_any_order(plan: Plan, chance: random.Random, workers: int, **options: Any) -> Plan:
    """Run a plan with jobs that end in any order, and ask what is due whenever one has."""

    def launch(jobs: list[Job], more: More) -> None:
        waiting, at_work = list(jobs), list[Job]()
        while waiting or at_work:
            while waiting and len(at_work) < workers:
                at_work.append(waiting.pop(0))
            job = at_work.pop(chance.randrange(len(at_work)))
            execute(job.run_dir)
            if not waiting:
                waiting += more({other.run_dir for other in at_work})

    means = Means(launch, record, lambda now: False)
    return run_stages(plan, means, options.get("limit"), options.get("fail_fast", False))


def begun(folder: Path) -> dict[str, list[Any]]:
    """Where each run was to stop whenever it was begun."""
    return {path.name: [entry["stop"] for entry in trace(path)] for path in folder.glob("*_s*")}


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_survivors_are_the_same_whoever_waits_for_whom(tmp_path: Path, workers: int) -> None:
    """Two brackets (bases) of eight, two rungs: each fit is begun once for every rung."""
    options = {"halving": {"rungs": [0.25, 0.5], "keep_each": []}}
    grid = [(f"model={m}", f"r={r}", f"optimizer.lr={lr}", f"seed={seed}")
            for m in ("one", "two") for r in (4, 16) for lr in (1e-4, 1e-3, 1e-2, 1e-1)
            for seed in (1, 2)]  # fmt: skip
    stages_only = tmp_path / "stages"
    run(halved(stages_only, grid, **options))
    for number in range(3):
        folder = tmp_path / str(number)
        in_any_order(halved(folder, grid, **options), random.Random(number), workers)
        assert survivors(folder) == survivors(stages_only)
        assert begun(folder) == begun(stages_only)


def test_a_bracket_that_is_decided_goes_on_while_another_is_not(tmp_path: Path) -> None:
    grid = [(f"model={m}", f"optimizer.lr={lr}") for m in ("one", "two") for lr in (1e-3, 1e-2)]
    plan = halved(tmp_path, grid, halving={"rungs": [0.5], "keep_each": []})
    asked: list[list[Job]] = []

    def launch(jobs: list[Job], more: More) -> None:
        if not asked:
            first, second, third, fourth = jobs
            for job in (first, second, third):
                execute(job.run_dir)
            asked.append(more({fourth.run_dir}))
            asked.append(more({fourth.run_dir, *(job.run_dir for job in asked[0])}))
            jobs = [*asked[0], fourth]
        for job in jobs:
            execute(job.run_dir)

    run_stages(plan, Means(launch, record, lambda now: False), None, False)
    ((kept,), nothing) = asked
    assert kept.config["model"]["name"] == "one"
    assert kept.stop_at is None or kept.stop_at == 1.0
    assert nothing == []
    assert len(list(tmp_path.glob("*/outcome.json"))) == 2


def test_a_limit_counts_what_has_become_due_as_well(tmp_path: Path) -> None:
    halving = {"rungs": [0.5], "keep_each": []}
    in_any_order(halved(tmp_path, halving=halving), random.Random(0), 2, limit=9)
    assert sum(map(len, begun(tmp_path).values())) == 9


def test_what_failed_is_not_begun_again(tmp_path: Path) -> None:
    grid = [("r=13", f"optimizer.lr={lr}") for lr in (1e-4, 1e-3, 1e-2, 1e-1)]
    plan = halved(tmp_path, grid, halving={"rungs": [0.25], "keep_each": []})
    in_any_order(plan, random.Random(0), 2)
    (failed,) = (path for path in tmp_path.glob("*_s*") if job_state(path) == JobState.FAILED)
    assert len(trace(failed)) == 1


def test_a_job_that_has_not_let_go_of_its_rung_is_left_for_later(tmp_path: Path) -> None:
    grid = [("r=4", f"optimizer.lr={lr}") for lr in (1e-3, 1e-2)]
    plan = halved(tmp_path, grid, halving={"rungs": [0.5], "keep_each": []})
    offered: list[list[Job]] = []

    def launch(jobs: list[Job], more: More) -> None:
        for job in jobs:
            execute(job.run_dir)
        (kept,) = (job for job in jobs if job.config["optimizer"]["lr"] == 1e-2)
        claim = try_claim(kept.run_dir)
        assert claim is not None
        offered.append(more(set()))  # another process has it
        claim.release("pruned")
        offered.append(more({kept.run_dir}))  # this launcher has not yet heard that it ended
        offered.append(more(set()))
        for job in offered[-1]:
            execute(job.run_dir)

    run_stages(plan, Means(launch, record, lambda now: False), None, False)
    assert list(map(len, offered)) == [0, 0, 1]


def test_what_goes_on_from_a_rung_has_all_its_retries_before_it(
    tmp_path: Path, submitted: Submit
) -> None:
    slow = submitted(1, function="sweep.fake:held")
    stumbles = submitted(2, function="sweep.fake:stumbling")
    due = [stumbles]

    def more(busy: Collection[Path]) -> list[Job]:
        if not due:
            (tmp_path / "go").touch()
            return []
        go_on(due[0].run_dir)
        return [due.pop()]

    with closing(LocalBackend(n_jobs=2)) as backend:
        backend.run([slow, stumbles], LaunchOptions(tmp_path, retries=1, more=more))
    assert [job_state(job.run_dir) for job in (slow, stumbles)] == [JobState.DONE] * 2
    assert sum(entry["what"] == "begin" for entry in trace(stumbles.run_dir)) == 3


def test_jobs_that_may_be_packed_come_in_stages(tmp_path: Path, submitted: Submit) -> None:
    """Those that are due together share passes; one by one they would not."""
    asked: list[int] = []

    def more(busy: Collection[Path]) -> list[Job]:
        asked.append(len(busy))
        return []

    with closing(LocalBackend(n_jobs=2)) as backend:
        for packing, times in ((4, 0), ("off", 1)):
            held = submitted(1 + times, function="sweep.fake:held")
            opening = submitted(3 + times, function="sweep.fake:opening")
            (tmp_path / "go").unlink(missing_ok=True)
            backend.run([held, opening], LaunchOptions(tmp_path, packing=packing, more=more))
            assert len(asked) == times
            assert backend.by_stages(packing) == (times == 0)
    cases = ((4, False), ("auto", True), ("auto", False), ("off", True))
    assert [may_pack(*each) for each in cases] == [True, True, False, False]


def test_it_is_asked_when_there_is_news_and_not_all_the_time(
    tmp_path: Path, submitted: Submit
) -> None:
    mine, others, third = (submitted(seed) for seed in (1, 2, 3))
    asked: list[Collection[Path]] = []

    def more(busy: Collection[Path]) -> list[Job]:
        asked.append(busy)
        time.sleep(0.1)
        return []

    def ask(soon: bool = False) -> int:
        pool._not_before = pool._not_before if soon else 0.0
        pool._ask_for_more()
        return len(asked)

    options = LaunchOptions(tmp_path, more=more)
    pool = Pool([Slot(0, None, 1)], [], options, Progress(3, live=False))
    assert ask() == 0, "nobody is at work"
    claim, kept = (try_claim(job.run_dir) for job in (others, third))
    assert claim is not None
    assert kept is not None
    pool._wait_for(others)
    assert ask() == 1, "somebody else has taken it, maybe after a rung"
    pool._wait_for(third)
    assert ask(soon=True) == 1, "it takes a twentieth of the time at most"
    assert ask() == 2
    assert ask() == 2, "no news"
    claim.release("done")
    execute(others.run_dir)
    pool.look_elsewhere()
    assert ask() == 3
    pool._settle(Slot(1, None, 1), mine)
    assert ask() == 4
    assert asked[-1] == {third.run_dir}


def test_a_job_goes_to_the_worker_that_has_its_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = (sized(tmp_path, name, LARGE) for name in "ab")
    slots = [Slot(n, None, 1, base=reuse_key(job.config)) for n, job in enumerate((a, b))]
    pool = Pool(slots, [b], LaunchOptions(tmp_path), Progress(1, live=False))
    begun: list[tuple[int, Job]] = []
    monkeypatch.setattr(pool, "_begin", lambda slot, jobs: begun.append((slot.number, *jobs)))
    pool._hand_out()
    assert begun == [(1, b)]


@pytest.mark.parametrize("order", ["base", "given"])
def test_the_order_that_was_asked_for_is_that_of_the_workers(
    tmp_path: Path, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the option to what a pool takes first, and to what is estimated."""
    plan = tuned(tmp_path, [("model=nano", "lora=none"), ("model=micro", "lora=none")], order=order)
    for job in plan.pool:
        config: Any = job.config
        config["model"]["architecture"] = figures({"nano": NANO, "micro": MICRO}[named(job)])
    taken: list[str] = []

    def run_through(pool: Pool) -> None:
        while pool.waiting:
            taken.append(named(pool.waiting.take(None, set())))

    monkeypatch.setattr(Pool, "run", run_through)
    options = SweepConfig(order=order, packing="off")
    context: Any = SimpleNamespace(sweep_dir=tmp_path, options=options)
    launch(context, LocalBackend(n_jobs=1), plan.to_do, lambda busy: [])
    wanted = ["nano", "micro"] if order == "given" else ["micro", "nano"]
    assert taken == wanted
    found = forecast(stages(plan), replace(costs(plan), as_given=plan.as_given))
    assert [name.partition("_")[0] for name in found.jobs] == wanted


def test_what_is_sure_in_the_midst_of_a_rung_is_estimated_once(tmp_path: Path) -> None:
    """Whatever part of a bracket is known: nothing that is due is to be added as well."""
    grid = [(f"optimizer.lr={10**-e:g}", f"seed={seed}")
            for e in (1, 1.5, 2, 2.5, 3, 3.5, 4) for seed in (1, 2)]  # fmt: skip
    plan = halved(tmp_path, grid, halving={"rungs": [0.5], "keep_each": []})
    for job in [*plan.to_do, None]:
        now, *later = stages(current(plan))
        added = [piece.job.identity.hash for stage in later for piece in stage]
        due = {piece.job.identity.hash for piece in now if piece.end >= 1}
        assert not due & set(added)
        assert len(due) + len(added) == 2 * 4, "four and their further seeds"
        if job is not None:
            submit(job)
            execute(job.run_dir)


def test_a_plan_is_estimated_without_waiting_of_one_bracket_for_another(tmp_path: Path) -> None:
    """Of two configurations each tries three rates and keeps one, with a further seed."""
    grid = [(f"r={r}", f"seed={seed}") for r in (4, 16) for seed in (1, 2)]
    plan = tuned(tmp_path, grid, lr_factors=[0.1, 1.0, 10.0])
    planned = stages(plan)
    assert [{piece.bracket for piece in stage} for stage in planned] == [{0, 1}, {0, 1}]
    free = forecast(planned, costs(plan, workers=2))
    one = [[replace(piece, bracket=None) for piece in stage] for stage in planned]
    barrier = forecast(one, costs(plan, workers=2))
    assert free.seconds < barrier.seconds - 1
    assert free.work == pytest.approx(barrier.work)


def test_where_jobs_may_be_packed_an_estimate_waits_for_the_whole_rung(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = [(f"r={r}", f"seed={seed}") for r in (4, 16) for seed in (1, 2)]
    plan = tuned(tmp_path, grid, lr_factors=[0.1, 1.0, 10.0])
    monkeypatch.setattr(estimate_module, "DEFAULT_FUNCTION", plan.pool[0].function)
    monkeypatch.setattr(estimate_module, "calibrate", lambda kinds, *_: dict.fromkeys(kinds, KIND))
    free, barrier = (
        estimate_sweep(plan, LocalBackend(n_jobs=2, gpus=[]), peaks={}, packing=packing)
        for packing in ("off", 4)
    )
    assert free is not None
    assert barrier is not None
    assert free.seconds < barrier.seconds - 1  # type: ignore[operator]


def test_what_is_sure_is_taken_for_kept_beside_the_best_of_every_group() -> None:
    groups = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "c1": "c", "c2": "c"}
    rung = Rung(0.5, 4, groups)
    assert likely(groups, rung) == {"a1", "b1", "c1", "a2"}
    sure = ["a3", "a2", "a1", "b1"]
    assert likely(groups, rung, sure) == {*sure, "c1"}
    assert likely(groups, rung, ["c2"]) == {"c2", "a1", "b1", "a2"}


def test_the_summary_is_imported_while_a_worker_has_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported: list[str] = []
    monkeypatch.setattr(finish, "load_function", imported.append)
    idle: list[int] = []

    def launch(jobs: list[Job], more: More) -> None:
        for job in jobs[:-1]:
            execute(job.run_dir)
            idle.append(len(more({jobs[-1].run_dir})))
        execute(jobs[-1].run_dir)

    plan = tuned(tmp_path, [(f"seed={seed}",) for seed in (1, 2, 3)])
    with finish.imported_ahead("a.module:function") as begin:
        run_stages(plan, Means(launch, record, lambda now: False, begin), None, False)
    assert (idle, imported) == ([0, 0], ["a.module:function"]), "once"
    with finish.imported_ahead("a.module:function"):
        pass
    with finish.imported_ahead(None) as begin:
        begin()
    assert len(imported) == 1, "not where no worker was idle, or where there is no summary"


def test_what_cannot_be_imported_is_said_at_the_end_and_not_before(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with finish.imported_ahead("no.such:function") as begin:
        begin()
    assert capfd.readouterr().err == ""
