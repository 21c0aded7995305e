"""One tested pair of configurations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from sizewise.errors import ConfigError
from sizewise.record.identity import flatten
from sizewise.report.comparison.arms import DATA, TUNED, ZERO_SHOT, Arm, TestSet
from sizewise.statistics.comparison import PairedComparison, PairedScores, compare_paired_many
from sizewise.statistics.paired import holm


@dataclass(frozen=True)
class Pair:
    """A against B, with the comparison in units of the score and the corrected p-value.

    ``gain`` is how much better A is (for a score of which less is better the difference with its
    sign turned); ``found`` whether the corrected test rejects equality.
    """

    question: str
    a: Arm
    b: Arm
    result: PairedComparison
    p_corrected: float
    found: bool
    sign: float

    @property
    def gain(self) -> float:
        return self.sign * self.result.difference

    @property
    def low(self) -> float:
        interval = self.result.interval
        return interval.low if self.sign > 0 else -interval.high

    @property
    def high(self) -> float:
        interval = self.result.interval
        return interval.high if self.sign > 0 else -interval.low

    @property
    def wins(self) -> bool:
        """Whether A is shown to be better: corrected test and interval agree."""
        return self.found and self.low > 0

    @property
    def loses(self) -> bool:
        """Whether A is shown to be worse."""
        return self.found and self.high < 0


SMALL_LARGE = "small tuned against large zero-shot"
OWN_BASE = "tuned against its own base"
RANKS = "rank against rank"
STORAGE = "quantised against not"
BY = "by "
ALPHA = 0.05
RESAMPLES, MOST_RESAMPLES = 10_000, 50_000
# Chosen between by the validation loss; everything else is a question of its own.
CHOSEN = (
    "optimizer.", "scheduler.", "trainer.", "callbacks.", "evaluation.",
    "lora.alpha", "lora.dropout", "lora.init_seed", "lora.fast",
)  # fmt: skip
UNCHANGING = ("metric.", "eval_dataset.")


def compare_pairs(test: TestSet, by: Sequence[str] = (), seed: int = 0) -> list[Pair]:
    """Compare every pair of the question, or with ``by`` those that differ in these keys only.

    Holm's correction runs over all of them. Where configurations differ in nothing but settings
    of the training (learning rate, epochs, …) the one with the best validation loss stands for
    them: the test set chooses nothing.
    """
    wanted = list(_by(test, by)) if by else list(_question(test))
    return _compare(test, wanted, seed)


def gains(test: TestSet, seed: int = 0) -> dict[int, Pair]:
    """Compare every tuned arm with its own base, uncorrected; keyed by position."""
    wanted: dict[int, tuple[str, Arm, Arm]] = {}
    for position, arm in enumerate(test.arms):
        base = test.zero_shot_of(arm) if arm.tuned else None
        if arm.scores is not None and base is not None and base.scores is not None:
            wanted[position] = (OWN_BASE, arm, base)
    return dict(zip(wanted, _compare(test, list(wanted.values()), seed, False), strict=False))


def representatives(test: TestSet) -> list[Arm]:
    """Tuned arms, one per question: variants of training are chosen by validation loss."""
    groups = _alike([arm for arm in test.scored if arm.tuned], (*CHOSEN, *UNCHANGING))
    return [min(group, key=by_validation) for group in groups]


def by_validation(arm: Arm) -> tuple[float, str]:
    """Order of choice: validation loss first; without one last."""
    value = arm.validation
    return (float("inf") if value is None or np.isnan(value) else value, arm.label)


def variant_key(arm: Arm) -> str:
    """Name the question that a tuned arm answers: its configuration less what is chosen."""
    return rest(arm, (*CHOSEN, *UNCHANGING))


def rest(arm: Arm, ignored: tuple[str, ...]) -> str:
    """Flat configuration, as JSON, less the keys that begin like an ignored one.

    Where a choice of the data is ignored, so are the rows that came of it.
    """
    if any(key.startswith("dataset") for key in ignored):
        ignored = (*ignored, DATA)
    flat = {k: v for k, v in flatten(arm.config).items() if not k.startswith(ignored)}
    return json.dumps(flat, sort_keys=True, default=str)


def _question(test: TestSet) -> Iterator[tuple[str, Arm, Arm]]:
    tuned = representatives(test)
    zero_shot = [c for c in test.scored if c.kind == ZERO_SHOT]
    for arm in tuned:
        for other in zero_shot:
            if arm.model.params_base < other.model.params_base:
                yield SMALL_LARGE, arm, other
    for arm in tuned:
        base = test.zero_shot_of(arm)
        if base is not None and base.scores is not None:
            yield OWN_BASE, arm, base
    yield from _differing(RANKS, tuned, ("lora.r",), _rank)
    yield from _differing(STORAGE, tuned, ("quantization.",), _stored)
    untrained = ("quantization.", "lora.", "dataset.max_train", "dataset.max_validation")
    yield from _differing(STORAGE, zero_shot, untrained, _stored)


def _rank(arm: Arm) -> tuple[float, str]:
    return (-(arm.model.lora_r or 0), arm.label)


def _stored(arm: Arm) -> tuple[float, str]:
    return (float(arm.model.quantization == "none"), arm.label)


def _differing(
    question: str,
    arms: Sequence[Arm],
    ignored: tuple[str, ...],
    order: Callable[[Arm], tuple[float, str]],
) -> Iterator[tuple[str, Arm, Arm]]:
    """Pairs whose configurations are equal but for the ignored keys (and chosen settings)."""
    for group in _alike(arms, (*ignored, *CHOSEN)):
        for a, b in combinations(sorted(group, key=order), 2):
            if order(a)[0] != order(b)[0]:
                yield question, a, b


def _alike(arms: Sequence[Arm], ignored: tuple[str, ...]) -> list[list[Arm]]:
    """Group arms by their configuration less the keys that begin like an ignored one."""
    groups: dict[str, list[Arm]] = {}
    for arm in arms:
        groups.setdefault(rest(arm, ignored), []).append(arm)
    return list(groups.values())


def _by(test: TestSet, by: Sequence[str]) -> Iterator[tuple[str, Arm, Arm]]:
    known = {key for c in test.arms for key in flatten(c.config)}
    for name in by:
        if not any(key.startswith(name) for key in known):
            raise ConfigError(
                f"--by {name} names no key of these runs. Give keys such as lora.r or model."
            )
    for kind in (TUNED, ZERO_SHOT):
        for group in _alike([c for c in test.scored if c.kind == kind], tuple(by)):
            for a, b in combinations(group, 2):
                yield BY + ", ".join(by), a, b


def _compare(
    test: TestSet, wanted: Sequence[tuple[str, Arm, Arm]], seed: int, correct: bool = True
) -> list[Pair]:
    if not wanted or len(set(test.groups)) < 2:
        return []
    scores = [
        PairedScores(rows(a), rows(b), test.groups, names=(a.label, b.label), weights=test.weights)
        for _, a, b in wanted
    ]
    resamples = min(MOST_RESAMPLES, max(RESAMPLES, 100 * len(wanted)))
    results = compare_paired_many(scores, seed, n_resamples=resamples)
    p_values = np.array([r.p_value for r in results])
    if correct:
        p_values = holm(p_values, ALPHA, nan="propagate").adjusted
    return [
        Pair(question, a, b, result, float(p), bool(p <= ALPHA), test.sign)
        for (question, a, b), result, p in zip(wanted, results, p_values, strict=True)
    ]


def rows(arm: Arm) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Scores as the statistics take them: [S, N] for seeds, [N] for a model without a seed."""
    if arm.scores is None:
        raise ConfigError(f"{arm.label} has no per-example scores.")
    return arm.scores if arm.tuned else arm.scores[0]
