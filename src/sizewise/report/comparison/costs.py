"""What the sides of a comparison cost, each figure by its own name and under its own conditions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sizewise import words
from sizewise.config import PricesConfig
from sizewise.record.brackets import read_tuning
from sizewise.record.outcome import Outcome
from sizewise.record.spending import PER_1000
from sizewise.record.timing import REUSED
from sizewise.report.comparison.arms import Arm, Member, TestSet
from sizewise.report.comparison.contrast import Contrast
from sizewise.report.comparison.runs import Run
from sizewise.statistics.cost import BreakEven, api_cost_per_answer, break_even, device_cost


@dataclass(frozen=True)
class Range:
    """Mean, lowest and highest over seeds, or over the answers of a timed sample."""

    mean: float
    low: float
    high: float
    over: str = "seeds"

    def text(self) -> str:
        """``8.1 ms (6.5 ms to 13.5 ms over seeds)``."""
        mean, low, high = (words.seconds(v) for v in (self.mean, self.low, self.high))
        return mean if low == high else f"{mean} ({low} to {high} over {self.over})"


@dataclass(frozen=True)
class ArmTiming:
    """Seconds of one answer (median) and of one new token, at a batch size on a machine.

    ``conditions`` is what two timings must share to be compared: batch and machine. ``alone`` is an
    answer at batch 1, ``computing`` the mean seconds of computing that an answer took; None where
    no sample was timed apart. ``busy``: the machine did other work meanwhile. ``beside``: an
    adapter stayed beside its base.
    """

    per_answer: Range
    per_token: Range | None
    batch: int | None
    conditions: tuple[Any, ...]
    jobs: frozenset[str]
    alone: Range | None = None
    computing: float | None = None
    busy: bool = False
    beside: bool = False


def timing_of(test: TestSet, arm: Arm) -> ArmTiming | None:
    """Time of a sample that was timed apart, else of the answers as they were made.

    None unless every seed was timed.
    """
    return _timed_apart(arm) if arm.timed else _timed_as_made(test, arm)


def _timed_apart(arm: Arm) -> ArmTiming:
    outcomes = [m.run.outcome for m in arm.members]
    used, alone = [s[-1] for s in arm.timed], [s[0] for s in arm.timed]
    batches, machines = {t.batch_size for t in used}, {_machine(o) for o in outcomes}
    known = len(batches) == len(machines) == 1
    computing = [t.cpu_per_answer for t in used if t.cpu_per_answer is not None]
    return ArmTiming(
        _spread([(t.per_answer, t.per_answer_low, t.per_answer_high) for t in used]),
        _spread([(t.per_token, t.per_token_low, t.per_token_high) for t in used]),
        used[0].batch_size if known else None,
        (used[0].batch_size, *machines) if known else (arm.label, "unknown"),
        frozenset(outcome.run_id for outcome in outcomes),
        _spread([(t.per_answer, t.per_answer_low, t.per_answer_high) for t in alone])
        if all(t.batch_size == 1 for t in alone)
        else None,
        float(np.mean(computing)) if len(computing) == len(used) else None,
        any(t.busy for t in used),
        arm.tuned and any(t.merged is False for t in used),
    )


def _spread(values: Sequence[tuple[float, float, float]]) -> Range:
    """Mean of the seeds' medians, with the lowest and the highest of all their answers."""
    medians, lows, highs = zip(*values, strict=True)
    return Range(float(np.mean(medians)), min(lows), max(highs), "timed answers")


def _timed_as_made(test: TestSet, arm: Arm) -> ArmTiming | None:
    per_answer = _range(arm.seed_scores("efficiency/latency_p50"))
    if per_answer is None:
        return None
    outcomes = [m.run.outcome for m in arm.members]
    machines = {_machine(outcome) for outcome in outcomes}
    reused = any(REUSED in warning for outcome in outcomes for warning in outcome.warnings)
    batches = {_batch(m) for m in arm.members}
    batch = batches.pop() if len(batches) == 1 else None
    known = batch is not None and len(machines) == 1 and not (reused and not arm.tuned)
    return ArmTiming(
        per_answer,
        _range([_per_token(test, m) for m in arm.members]),
        batch,
        (batch, *machines) if known else (arm.label, "unknown"),
        frozenset(outcome.run_id for outcome in outcomes),
    )


def _range(values: Sequence[float]) -> Range | None:
    if not values or not np.isfinite(values).all():
        return None
    return Range(float(np.mean(values)), min(values), max(values))


def _machine(outcome: Outcome) -> str:
    """The devices, else the processor and its threads; a server's own are not known."""
    if outcome.model.family == "endpoint":
        return f"server of {outcome.model.path}"
    hardware: Any = outcome.provenance.get("hardware") or {}
    devices = ", ".join(str(device.get("name")) for device in hardware.get("devices") or ())
    return devices or f"{hardware.get('cpu')}, {hardware.get('threads')} threads"


def _batch(member: Member) -> int | None:
    """Examples generated together, of those that were timed: the last batch may hold fewer.

    None where none was.
    """
    if member.answers is None:
        return None
    timed = member.answers.batch_size[np.isfinite(member.answers.seconds)]
    return int(timed.max()) if len(timed) else None


def _per_token(test: TestSet, member: Member) -> float:
    if member.answers is None or not test.ids:
        return math.nan
    places = np.array(member.answers.positions(test.ids))
    timed = places[np.isfinite(member.answers.seconds[places])]
    tokens = float(member.answers.new_tokens[timed].sum())
    return float(member.answers.seconds[timed].sum()) / tokens if tokens else math.nan


def alike(a: ArmTiming, b: ArmTiming) -> bool:
    """Whether both were timed in the same batches on the same machine."""
    return a.conditions == b.conditions


def peak_of(arm: Arm) -> float | None:
    """Peak memory of the jobs in which it answered, mean over seeds; None if not its own.

    That of jobs that answered together is nobody's own.
    """

    def own(run: Run) -> int | None:
        cost = run.outcome.cost
        return None if cost.answered_together else cost.eval_peak_bytes

    return arm.cost(own) if arm.own else None


def costs_sentence(test: TestSet, small: Arm, large: Arm) -> str:
    """Weights, peak memory and time of both sides; empty for two states of one model."""
    if small.model is large.model:
        return ""
    parts = []
    if small.model.memory_bytes and large.model.memory_bytes:
        parts.append(
            _share("of the bytes of weights", *(a.model.memory_bytes for a in (small, large)))
        )
    peaks = (peak_of(small), peak_of(large))
    if peaks[0] and peaks[1]:
        parts.append(_share("of the peak memory", *peaks))
    cost = f"It has {' and '.join(parts)}." if parts else ""
    return " ".join(filter(None, (cost, _speed(test, small, large))))


def _share(what: str, small: float | None, large: float | None) -> str:
    ratio = (small or 0.0) / (large or math.nan)
    return f"{words.ratio(ratio)} {what} ({words.size(small)} against {words.size(large)})"


def _speed(test: TestSet, small: Arm, large: Arm) -> str:
    ours, theirs = timing_of(test, small), timing_of(test, large)
    if ours is None or theirs is None:
        return ""
    if not alike(ours, theirs):
        return f"Speed is not compared: {_unlike(ours, theirs)}."
    answers = f"an answer takes {ours.per_answer.text()} against {theirs.per_answer.text()}"
    tokens = ""
    if ours.per_token is not None and theirs.per_token is not None:
        tokens = f", a new token {ours.per_token.text()} against {theirs.per_token.text()}"
    alone = ""
    if ours.alone is not None and theirs.alone is not None and ours.batch != 1:
        alone = f"; at batch 1 an answer {ours.alone.text()} against {theirs.alone.text()}"
    apart = "" if ours.jobs & theirs.jobs else ", timed in separate jobs"
    unmerged = [arm.label for arm, time in ((small, ours), (large, theirs)) if time.beside]
    beside = f" The adapter of {' and of '.join(unmerged)} was not merged." if unmerged else ""
    return f"At batch {ours.batch} {answers}{tokens}{alone}{apart}.{beside}{_busy(ours, theirs)}"


def _busy(ours: ArmTiming, theirs: ArmTiming) -> str:
    """Say that the times are not the models' own, and what was computed in."""
    if not (ours.busy or theirs.busy):
        return ""
    text = " The machine was busy while they were timed, so that these times are too long"
    if ours.computing is None or theirs.computing is None:
        return f"{text}."
    computing = [words.seconds(timing.computing) for timing in (ours, theirs)]
    return f"{text}: of computing an answer took {computing[0]} against {computing[1]}."


def _unlike(ours: ArmTiming, theirs: ArmTiming) -> str:
    if ours.batch != theirs.batch:
        sizes = " and ".join(str(t.batch or "unknown size") for t in (ours, theirs))
        return f"the answers were timed in batches of {sizes}"
    return "the answers were timed on unlike machines, or it was not recorded where"


@dataclass(frozen=True)
class PaidBack:
    """Break-even of the small tuned model against one way of getting the large one's answers.

    Attributes:
        training: cost of all that was trained for the claim, in ``jobs`` jobs.
        result: break-even with the mean cost of an answer.
        low, high: answers at the lowest and the highest cost of an answer over the seeds.
        alone: answers that would pay back one run of the chosen configuration.
    """

    against: str
    unit: str
    training: float
    jobs: int
    small_per_answer: float
    large_per_answer: float
    result: BreakEven
    low: float
    high: float
    alone: float


def paid_back(
    test: TestSet, contrast: Contrast, prices: PricesConfig | None = None
) -> list[PaidBack]:
    """Break-even in device time, and in money where prices are given.

    All tuned runs of the test set are to be paid back, those that were stopped among them: the
    choice was made between them. So is what their teachers wrote, once.
    """
    small, large = contrast.small, contrast.large
    tuned = [m.run for arm in test.arms if arm.tuned for m in arm.members]
    spent = [*(run.outcome.cost.train_seconds for run in tuned), *_stopped(tuned)]
    known = [seconds for seconds in spent if seconds is not None]
    if large is None or small.train_seconds is None or len(known) < len(spent):
        return []
    ours, theirs = timing_of(test, small), timing_of(test, large)
    if ours is None:
        return []
    lessons, own = teaching_of(tuned), teaching_of([m.run for m in small.members])
    training = (
        float(sum(known)) + lessons.seconds, small.train_seconds + own.seconds, len(known),
    )  # fmt: skip
    found = []
    if theirs is not None and alike(ours, theirs):
        found.append(_paid(large.label, *_device_seconds(ours, theirs, training)))
    hourly, api = None if prices is None else prices.device_per_hour, _api_cost(test, large, prices)
    if hourly is None or api is None:
        return found
    all_runs, one_run = (
        device_cost(seconds, hourly) + taught.money
        for seconds, taught in zip(training[:2], (lessons, own), strict=True)
    )
    mean, low, high = (device_cost(v, hourly) for v in _ends(ours.per_answer))
    answer = Range(mean, low, high, ours.per_answer.over)
    name = large.label if measured_money(large) is not None else f"{large.label} over an API"
    found.append(_paid(name, "currency", (all_runs, one_run, training[2]), answer, api))
    return found


@dataclass(frozen=True)
class Teaching:
    """What teachers' answers cost when they were written: device seconds, money of a server."""

    seconds: float
    money: float


def teaching_of(runs: Sequence[Run]) -> Teaching:
    """Sum up what the teachers of these runs cost; answers that several runs share count once."""
    facts = {}
    for run in runs:
        found = run.outcome.data.report.get("teacher")
        if found:
            facts[found.get("key")] = found
    return Teaching(
        sum(found.get("seconds") or 0.0 for found in facts.values()),
        sum(found.get("money") or 0.0 for found in facts.values()),
    )


def _device_seconds(
    ours: ArmTiming, theirs: ArmTiming, training: tuple[float, float, int]
) -> tuple[str, tuple[float, float, int], Range, float]:
    """Unit, training and the cost of an answer of both; what was computed in on a busy machine."""
    busy = ours.busy or theirs.busy
    if busy and ours.computing is not None and theirs.computing is not None:
        unit = "device seconds (of an answer those of computing, since the machine was busy)"
        own = Range(ours.computing, ours.computing, ours.computing)
        return unit, training, own, theirs.computing
    return "device seconds", training, ours.per_answer, theirs.per_answer.mean


def measured_money(arm: Arm) -> float | None:
    """Money of 1,000 answers as a server's own counts of tokens make it; None for other models."""
    value = arm.score(PER_1000)
    return value if math.isfinite(value) else None


def money_per_1000(arm: Arm, prices: PricesConfig | None) -> float | None:
    """Money of 1,000 answers: measured at a server, else by seconds on a device with a price."""
    measured = measured_money(arm)
    hourly = None if prices is None else prices.device_per_hour
    if measured is not None or hourly is None or arm.latency is None:
        return measured
    return 1000 * device_cost(arm.latency, hourly)


def _api_cost(test: TestSet, large: Arm, prices: PricesConfig | None) -> float | None:
    """Money of one answer of the large model: measured where a server gave it, else by tokens."""
    measured = measured_money(large)
    if measured is not None:
        return measured / 1000
    answers = large.first.answers
    if prices is None or prices.api_per_1000_tokens is None or answers is None:
        return None
    tokens = float(answers.tokens[answers.positions(test.ids)].mean())
    return api_cost_per_answer(tokens, 0.0, prices.api_per_1000_tokens)


def _stopped(runs: Sequence[Run]) -> list[float]:
    """Training seconds of the candidates that the sweeps of these runs stopped."""
    finished = {run.directory.name for run in runs}
    records = [read_tuning(sweep) for sweep in sorted({run.directory.parent for run in runs})]
    return [
        candidate.seconds
        for record in records
        if record is not None
        for _, candidate in record.stopped
        if candidate.seconds is not None and candidate.run not in finished
    ]


def _ends(values: Range) -> tuple[float, float, float]:
    return values.mean, values.low, values.high


def _paid(
    against: str, unit: str, training: tuple[float, float, int], small: Range, large: float
) -> PaidBack:
    every, one, jobs = training
    result, low, high = (break_even(every, cost, large) for cost in _ends(small))
    alone = break_even(one, small.mean, large).answers
    return PaidBack(
        against, unit, every, jobs, small.mean, large, result, low.answers, high.answers, alone
    )
