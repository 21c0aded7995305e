"""What the sides of a comparison cost, each figure by its own name and under its own conditions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sizewise.config import PricesConfig
from sizewise.report import words
from sizewise.report.comparison.arms import Arm, Member, TestSet
from sizewise.report.comparison.contrast import Contrast
from sizewise.statistics.cost import BreakEven, api_cost_per_answer, break_even, device_cost

REUSED = "were reused from another run and timed under other conditions"


@dataclass(frozen=True)
class Range:
    """Mean, lowest and highest over seeds."""

    mean: float
    low: float
    high: float

    def text(self) -> str:
        """``8.1 ms (6.5 ms to 13.5 ms over seeds)``."""
        mean, low, high = (words.seconds(v) for v in (self.mean, self.low, self.high))
        return mean if low == high else f"{mean} ({low} to {high} over seeds)"


@dataclass(frozen=True)
class Timing:
    """Seconds of one answer (median) and of one new token, at a batch size on a machine.

    ``conditions`` is what two timings must share to be compared: batch and machine.
    """

    per_answer: Range
    per_token: Range | None
    batch: int | None
    conditions: tuple[Any, ...]
    jobs: frozenset[str]


def timing_of(test: TestSet, arm: Arm) -> Timing | None:
    """Time of the answers as it was recorded; None unless every seed was timed."""
    per_answer = _range(arm.seed_scores("efficiency/latency_p50"))
    if per_answer is None:
        return None
    outcomes = [m.run.outcome for m in arm.members]
    machines = {_machine(outcome.provenance.get("hardware") or {}) for outcome in outcomes}
    reused = any(REUSED in warning for outcome in outcomes for warning in outcome.warnings)
    batches = {_batch(m) for m in arm.members}
    batch = batches.pop() if len(batches) == 1 else None
    known = batch is not None and len(machines) == 1 and not (reused and not arm.tuned)
    return Timing(
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


def _machine(hardware: Any) -> str:
    devices = ", ".join(str(device.get("name")) for device in hardware.get("devices") or ())
    return devices or f"{hardware.get('cpu')}, {hardware.get('threads')} threads"


def _batch(member: Member) -> int | None:
    """Examples generated together: the largest batch, since the last one may hold fewer."""
    answers = member.answers
    known = answers is not None and len(answers.batch_size) > 0
    return int(answers.batch_size.max()) if answers is not None and known else None


def _per_token(test: TestSet, member: Member) -> float:
    if member.answers is None or not test.ids:
        return math.nan
    places = member.answers.positions(test.ids)
    tokens = float(member.answers.new_tokens[places].sum())
    return float(member.answers.seconds[places].sum()) / tokens if tokens else math.nan


def alike(a: Timing, b: Timing) -> bool:
    """Whether both were timed in the same batches on the same machine."""
    return a.conditions == b.conditions


def peak_of(arm: Arm) -> float | None:
    """Peak memory of the jobs in which it answered, mean over seeds; None if not its own."""
    return arm.cost(lambda run: run.outcome.cost.eval_peak_bytes) if arm.own else None


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
    apart = "" if ours.jobs & theirs.jobs else ", timed in separate jobs"
    return f"At batch {ours.batch} {answers}{tokens}{apart}."


def _unlike(ours: Timing, theirs: Timing) -> str:
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

    All tuned runs of the test set are to be paid back: the choice was made among them.
    """
    small, large = contrast.small, contrast.large
    spent = [
        m.run.outcome.cost.train_seconds for arm in test.arms if arm.tuned for m in arm.members
    ]
    known = [seconds for seconds in spent if seconds is not None]
    if large is None or small.train_seconds is None or len(known) < len(spent):
        return []
    ours, theirs = timing_of(test, small), timing_of(test, large)
    if ours is None:
        return []
    training = (float(sum(known)), small.train_seconds, len(known))
    found = []
    if theirs is not None and alike(ours, theirs):
        found.append(
            _paid(large.label, "device seconds", training, ours.per_answer, theirs.per_answer.mean)
        )
    if prices is None or large.first.answers is None:
        return found
    hourly, per_1000 = prices.device_per_hour, prices.api_per_1000_tokens
    if hourly is None or per_1000 is None:
        return found
    answers = large.first.answers
    tokens = float(answers.tokens[answers.positions(test.ids)].mean())
    api = api_cost_per_answer(tokens, 0.0, per_1000)
    all_runs, one_run = (device_cost(seconds, hourly) for seconds in training[:2])
    answer = Range(*(device_cost(v, hourly) for v in _ends(ours.per_answer)))
    name = f"{large.label} over an API"
    found.append(_paid(name, "currency", (all_runs, one_run, training[2]), answer, api))
    return found


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
