"""What the jobs of a plan are going to do, in seconds, and when the last worker is through."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from sizewise.config.evaluation import CHOICE
from sizewise.config.register import to_run_config
from sizewise.config.training import TrainerConfig
from sizewise.data.batches.plan import count_batches, fit_plan
from sizewise.job.submit import Job
from sizewise.record.directories import ZERO_SHOT_FILE, entry_path
from sizewise.record.identity import asks_untouched, reuse_key, trains
from sizewise.record.stops import standing_stop
from sizewise.record.timing import ENOUGH_SECONDS, MOST_ROUNDS
from sizewise.sweep.brackets import Look
from sizewise.sweep.estimate.calibration import Found, Measured
from sizewise.sweep.halving import Rung
from sizewise.sweep.launch.waiting import Waiting
from sizewise.sweep.plan import Plan

# Claims, records, trackers and their files: what a job takes beside its own work.
JOB_SECONDS = 1.0
TRAINING, ANSWERING, REST = "training", "answers", "rest"
# How far each part may be off (half an interval of some 90 %), beside what its figures scatter: how
# long a tuned model's answers are is not known before it is tuned.
DOUBT = {TRAINING: 0.10, ANSWERING: 0.30, REST: 0.30}
# Of those for whom a rung with a margin has room, beside the best of each group, so many are taken
# to be near enough; an interval goes from none of them to all.
NEAR = 0.5


NOT_YET = Measured({}, reason="not measured yet")


@dataclass(frozen=True)
class Piece:
    """A job, or the part of it that is done at one go: from one share of its steps to another.

    ``weight``: how likely it is to be done at all. ``bracket``: the number of the one whose choice
    it waits for or helps to make; None of what is not screened.
    """

    job: Job
    begin: float = 0.0
    end: float = 1.0
    weight: float = 1.0
    bracket: int | None = None

    @property
    def config(self) -> Mapping[str, Any]:
        return self.job.config


Stages = list[list[Piece]]


def stages(plan: Plan, limit: int | None = None, near: float = NEAR) -> Stages:
    """Return what is done now, and what each choice among candidates will add.

    Which of them are going to be kept is not known: some are taken for them, as many as will be;
    where there is a margin, the share ``near`` of those for whom there is room.
    """
    of = {job.identity.hash: n for n, b in enumerate(plan.brackets) for job in b.jobs}
    now = [
        Piece(job, _begun(job), job.stop_at or 1.0, bracket=of.get(job.identity.hash))
        for job in plan.to_do
    ]
    if limit is not None:
        return [now[:limit]]
    later: list[list[Piece]] = []
    for bracket, look in enumerate(plan.looks):
        for number, stage in enumerate(_after_rungs(look, plan.audit, near)):
            later += [[] for _ in range(number + 1 - len(later))]
            later[number] += [replace(piece, bracket=bracket) for piece in stage]
    return [stage for stage in (now, *later) if stage]


def _after_rungs(look: Look, audit: float, near: float) -> Iterator[list[Piece]]:
    """What follows on each rung of a bracket that is still to be decided."""
    rungs, shares = look.bracket.rungs, [*look.shares, 1.0]
    passed = {name: fate.passed for name, fate in look.fates.items() if not fate.out}
    climbing = {name: look.bracket.candidates[name] for name in passed}
    at = min(passed.values(), default=len(rungs))
    for number in range(at, len(rungs)):
        sure = [name for name in climbing if passed[name] > number]  # they are due now
        names = likely(climbing, rungs[number], sure, near)
        stopped = [job for name, job in climbing.items() if name not in names]
        climbing = {name: climbing[name] for name in [*sure, *climbing] if name in names}
        added = [job for name, job in climbing.items() if name not in sure]
        begin, end = shares[number], shares[number + 1]
        stage = [Piece(job, begin, end) for job in added if begin < end]
        stage += [Piece(job, begin, weight=audit) for job in stopped if audit and begin < 1]
        if number + 1 == len(rungs):
            further = look.bracket.further
            stage += [Piece(job) for c in added for job in further[c.identity.hash]]
        yield stage


def likely(
    names: Iterable[str], rung: Rung, sure: Sequence[str] = (), near: float = NEAR
) -> set[str]:
    """Take as many candidates as a rung leaves: who is sure, the first of each group, others."""
    every = list(dict.fromkeys([*sure, *names]))
    firsts = list({rung.groups[name]: name for name in reversed(every)}.values())[::-1]
    others = [name for name in every if name not in firsts]
    room = min(len(others), max(0, rung.keep - len(firsts)))
    if rung.margin is not None:
        room = math.ceil(near * room)
    return {*firsts, *others[:room], *sure}


def _begun(job: Job) -> float:
    stop = standing_stop(job.run_dir)
    return stop.share or 0.0 if stop is not None else 0.0


@dataclass(frozen=True)
class Cost:
    """Seconds of a piece by what they go into; ``spread`` is a standard error of the training."""

    training: float = 0.0
    answers: float = 0.0
    rest: float = 0.0
    spread: float = 0.0

    @property
    def seconds(self) -> float:
        return self.training + self.answers + self.rest


@dataclass
class Costs:
    """Seconds of pieces, in the order in which they are asked for.

    The untouched model's answers are given once and shared: the first piece that needs them pays.
    ``keys``: the kind of each job by its identity; ``paces``: what a step takes of those that share
    passes, as a share of what it takes alone. ``as_given``: jobs begin in their order.
    """

    found: Found
    keys: Mapping[str, str]
    workers: int
    cache: Path
    paces: Mapping[str, float] = field(default_factory=dict)
    as_given: bool = False
    _given: set[tuple[str, int]] = field(default_factory=set)

    def measured(self, job: Job) -> Measured:
        """What is known of the kind of a job."""
        return self.found.get(self.keys[job.identity.hash], NOT_YET)

    def of(self, piece: Piece, measured: Measured) -> Cost:
        """What a piece takes when it is its turn."""
        config, count = piece.config, _Counts(piece.config, measured)
        answers = self._untouched(config, measured, count)
        if not trains(config):
            more = measured.fit + _timed(config, measured, count, sides=1)
            return Cost(answers=answers, rest=piece.weight * (JOB_SECONDS + measured.data + more))
        pace = self.paces.get(piece.job.identity.hash, 1.0)
        training, spread = (pace * seconds for seconds in _training(piece, measured, count))
        evaluation = config.get("evaluation") or {}
        if piece.end >= 1.0 and config.get("stage") != "train":
            split = count.test + (count.validation if measured.answers_validation[1] else 0)
            prior = 0.0 if evaluation.get("candidates_on") == CHOICE else measured.prior
            answers += piece.weight * (prior + split * measured.tuned)
            answers += piece.weight * _timed(config, measured, count, sides=2)
        rest = JOB_SECONDS + measured.data + measured.fit
        return Cost(piece.weight * training, answers, piece.weight * rest, spread)

    def _untouched(self, config: Mapping[str, Any], measured: Measured, count: _Counts) -> float:
        if config.get("stage") == "train" or not asks_untouched(config):
            return 0.0
        validates = measured.answers_validation[0]
        splits = {"test": count.test, "validation": count.validation if validates else 0}
        new = {name: c for name, c in splits.items() if not self._known(measured, name, c)}
        keys = measured.zero_shot
        self._given |= {(keys[name], c) for name, c in new.items() if name in keys}
        answered = sum(new.values())
        return measured.base * answered + (measured.prior if answered else 0.0)

    def _known(self, measured: Measured, split: str, count: int) -> bool:
        """Whether so many answers are there; those to a part of the prompts have another key."""
        key = measured.zero_shot.get(split)
        if key is None:
            return False
        whole = count == getattr(_Counts({}, measured), split)
        there = whole and (entry_path(self.cache, key) / ZERO_SHOT_FILE).is_file()
        return there or (key, count) in self._given


@dataclass(frozen=True)
class _Counts:
    """Examples of a job: its kind may have been measured with more of them."""

    config: Mapping[str, Any]
    measured: Measured

    def _of(self, split: str) -> int:
        limit = (self.config.get("dataset") or {}).get(f"max_{split}")
        known = self.measured.texts[split].count
        return known if limit is None else min(known, int(limit))

    @property
    def train(self) -> int:
        return self._of("train")

    @property
    def validation(self) -> int:
        return self._of("validation")

    @property
    def test(self) -> int:
        further = [t.count for name, t in self.measured.texts.items() if name.startswith("test/")]
        return self._of("test") + sum(further)


def _training(piece: Piece, measured: Measured, count: _Counts) -> tuple[float, float]:
    """Seconds of the steps and validations of a piece, and the standard error of the steps'."""
    trainer = to_run_config({"trainer": piece.config["trainer"]}, check_types=False).trainer
    first, last, validations = planned_steps(piece, trainer, count.train)
    each = measured.step or [0.0]
    steps = last - first
    spread = steps * stdev(each) / math.sqrt(len(each)) if len(each) > 1 else 0.0
    seconds = steps * fmean(each) + validations * count.validation * measured.validation
    return seconds, spread


def planned_steps(piece: Piece, trainer: TrainerConfig, train: int) -> tuple[int, int, int]:
    """Return the first and last step of a piece, and how often it validates on the way."""
    batches = count_batches(train, trainer.batch_size, trainer.devices * trainer.num_nodes)
    each_epoch = max(1, math.ceil(batches / trainer.accumulate))
    total, _ = fit_plan(each_epoch, trainer)
    first, last = (round(share * total) for share in (piece.begin, piece.end))
    if last <= first:  # it stands there already, or further on
        return first, first, 0
    every = trainer.validate_every or each_epoch
    due = len({step for step in range(first + 1, last + 1) if step % every == 0} | {last} & {total})
    at_rung = last < total  # the mean of the latest weights, beside one that is due there anyway
    return first, last, due + at_rung + (first == 0 and trainer.validate_at_start)


def _timed(config: Mapping[str, Any], measured: Measured, count: _Counts, sides: int) -> float:
    """Seconds of the sample that says how fast a model answers."""
    number = int((config.get("evaluation") or {}).get("timed_answers", 0))
    if not number or not measured.single or not count.test:
        return 0.0
    once = sides * (min(measured.batch, count.test) * measured.base + number * measured.single)
    rounds = 1 if once > ENOUGH_SECONDS else min(MOST_ROUNDS, math.ceil(ENOUGH_SECONDS / once))
    return rounds * once


@dataclass(frozen=True)
class Forecast:
    """What pieces take one after the other on some workers.

    ``seconds`` until the last is through, ``doubt`` half an interval of some 90 % as a share of
    it; ``work`` is the sum over workers by what it goes into; ``jobs``: of each job that is known
    by name, ``later``: of those that are not yet. ``unknown``: reasons, and for how many jobs.
    """

    seconds: float
    doubt: float
    work: Mapping[str, float]
    jobs: Mapping[str, float]
    later: list[float]
    unknown: Mapping[str, int]


def forecast(planned: Stages, costs: Costs) -> Forecast:
    """Hand out the pieces as the local launcher does.

    What a choice adds begins when all pieces of its bracket have ended; until then a worker that is
    free takes what other brackets have.
    """
    simulation = _Simulation(planned, costs)
    workers = [_Worker() for _ in range(costs.workers)]
    seconds = 0.0
    while True:
        for worker in sorted((w for w in workers if w.piece is None), key=lambda w: w.free):
            simulation.begin(worker, {w.base for w in workers}, seconds)
        busy = [worker for worker in workers if worker.piece is not None]
        if not busy:
            break
        first = min(busy, key=lambda w: w.free)
        seconds = first.free
        simulation.end(first)
    work = {name: sum(getattr(cost, name) for cost in simulation.spent) for name in DOUBT}
    unknown = {reason: len(names) for reason, names in simulation.unknown.items()}
    return Forecast(
        seconds, _doubt(work, simulation.spent), work, simulation.jobs, simulation.later, unknown
    )


@dataclass
class _Worker:
    """``free``: when it will be, or has been since."""

    free: float = 0.0
    base: str | None = None
    begun: bool = False
    piece: Piece | None = None

    def start(self, base: str, measured: Measured) -> float:
        """Seconds until the worker can begin with a job on a base."""
        start = 0.0 if self.begun else measured.start + measured.first_data - measured.data
        load = 0.0 if self.base == base else measured.load
        self.base, self.begun = base, True
        return max(0.0, start) + load


class _Simulation:
    """The pieces that wait, those that choices will add to them, and what they have taken."""

    def __init__(self, planned: Stages, costs: Costs) -> None:
        self._costs = costs
        self._waiting: Waiting[Piece] = Waiting([], costs.as_given)
        self._open = Counter[int | None]()
        self._stages: dict[int | None, deque[list[Piece]]] = {}
        self.jobs: dict[str, float] = {}
        self.later: list[float] = []
        self.unknown: dict[str, set[str]] = {}
        self.spent: list[Cost] = []
        self._now = {id(piece) for stage in planned[:1] for piece in stage}
        for stage in planned:
            of_bracket: dict[int | None, list[Piece]] = {}
            for piece in stage:
                of_bracket.setdefault(piece.bracket, []).append(piece)
            for bracket, pieces in of_bracket.items():
                self._stages.setdefault(bracket, deque()).append(pieces)
        for bracket in self._stages:
            self._go_on(bracket)

    def begin(self, worker: _Worker, loaded: Collection[str | None], now: float) -> None:
        """Give a worker the next piece whose seconds are known, if there is one."""
        while len(self._waiting):
            piece = self._waiting.take(worker.base, loaded)
            measured = self._costs.measured(piece.job)
            if not measured.reason:
                start = worker.start(reuse_key(piece.config), measured)
                seconds = self._pay(piece, measured, start)
                worker.piece, worker.free = piece, now + start + seconds
                return
            self.unknown.setdefault(measured.reason, set()).add(piece.job.identity.hash)
            self._through(piece)

    def _pay(self, piece: Piece, measured: Measured, start: float) -> float:
        """Write down what a piece takes, and return it."""
        cost = self._costs.of(piece, measured)
        self.spent += [cost, Cost(rest=start)]
        if id(piece) not in self._now:
            self.later.append(cost.seconds)
        else:
            before = self._costs.of(replace(piece, begin=0.0, end=piece.begin), measured).seconds
            whole = cost.seconds + (before if piece.begin else 0.0)
            self.jobs[piece.job.identity.slug] = whole
        return cost.seconds

    def end(self, worker: _Worker) -> None:
        """Let what a worker is on be through."""
        assert worker.piece is not None
        self._through(worker.piece)
        worker.piece = None

    def _through(self, piece: Piece) -> None:
        self._waiting.ended(piece)
        self._open[piece.bracket] -= 1
        if not self._open[piece.bracket]:
            self._go_on(piece.bracket)

    def _go_on(self, bracket: int | None) -> None:
        if stages := self._stages[bracket]:
            for piece in stages.popleft():
                self._open[bracket] += 1
                self._waiting.put(piece)


def _doubt(work: Mapping[str, float], spent: Sequence[Cost]) -> float:
    whole = sum(work.values())
    if whole <= 0:
        return 0.0
    parts = [DOUBT[name] * seconds for name, seconds in work.items()]
    scatter = 1.64 * sum(
        cost.spread for cost in spent
    )  # one measurement for all: no mean over them
    return math.hypot(*parts, scatter) / whole
