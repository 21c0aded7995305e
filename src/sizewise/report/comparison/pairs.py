"""One tested pair of configurations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from sizewise.errors import ConfigError
from sizewise.report.comparison.arms import DATA, TUNED, ZERO_SHOT, Candidate, TestSet
from sizewise.report.comparison.labels import flatten
from sizewise.statistics.comparison import PairedComparison, PairedScores, compare_paired_many
from sizewise.statistics.paired import holm


@dataclass(frozen=True)
class Pair:
    """A against B, with the comparison in units of the score and the corrected p-value.

    ``gain`` is how much better A is (for a score of which less is better the difference with its
    sign turned); ``found`` whether the corrected test rejects equality.
    """

    question: str
    a: Candidate
    b: Candidate
    result: PairedComparison
    p_corrected: float
    found: bool
    sign: float

    @property
    def gain(self) -> float:
        """Improvement of A over B in units of the score."""
        return self.sign * self.result.difference

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval of the gain."""
        interval = self.result.interval
        return interval.low if self.sign > 0 else -interval.high

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval of the gain."""
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
    """Compare every tuned candidate with its own base, uncorrected; keyed by position."""
    wanted = []
    for candidate in test.scored:
        base = test.zero_shot_of(candidate) if candidate.tuned else None
        if base is not None and base.scores is not None:
            wanted.append((OWN_BASE, candidate, base))
    return {_position(test, pair.a): pair for pair in _compare(test, wanted, seed, correct=False)}


def representatives(test: TestSet) -> list[Candidate]:
    """Tuned candidates, one per question: variants of training are chosen by validation loss."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in test.scored:
        if candidate.tuned:
            groups.setdefault(variant_key(candidate), []).append(candidate)
    return [min(group, key=by_validation) for group in groups.values()]


def by_validation(candidate: Candidate) -> tuple[float, str]:
    """Order of choice: validation loss first; without one last."""
    value = candidate.validation
    return (float("inf") if value is None or np.isnan(value) else value, candidate.label)


def variant_key(candidate: Candidate) -> str:
    """Name the question that a tuned candidate answers: its configuration less what is chosen."""
    return json.dumps(rest(candidate, (*CHOSEN, *UNCHANGING)), sort_keys=True, default=str)


def rest(candidate: Candidate, ignored: tuple[str, ...]) -> dict[str, Any]:
    """Flat configuration less the keys that begin like an ignored one.

    Where a choice of the data is ignored, so are the rows that came of it.
    """
    if any(key.startswith("dataset") for key in ignored):
        ignored = (*ignored, DATA)
    flat = flatten(candidate.config)
    return {key: value for key, value in flat.items() if not key.startswith(ignored)}


def _question(test: TestSet) -> Iterator[tuple[str, Candidate, Candidate]]:
    tuned = representatives(test)
    zero_shot = [c for c in test.scored if c.kind == ZERO_SHOT]
    for candidate in tuned:
        for other in zero_shot:
            if candidate.model.params_base < other.model.params_base:
                yield SMALL_LARGE, candidate, other
    for candidate in tuned:
        base = test.zero_shot_of(candidate)
        if base is not None and base.scores is not None:
            yield OWN_BASE, candidate, base
    yield from _differing(RANKS, tuned, ("lora.r",), _rank)
    yield from _differing(STORAGE, tuned, ("quantization.",), _stored)
    untrained = ("quantization.", "lora.", "dataset.max_train", "dataset.max_validation")
    yield from _differing(STORAGE, zero_shot, untrained, _stored)


def _rank(candidate: Candidate) -> tuple[float, str]:
    return (-(candidate.model.lora_r or 0), candidate.label)


def _stored(candidate: Candidate) -> tuple[float, str]:
    return (float(candidate.model.quantization == "none"), candidate.label)


def _differing(
    question: str,
    candidates: Sequence[Candidate],
    ignored: tuple[str, ...],
    order: Callable[[Candidate], tuple[float, str]],
) -> Iterator[tuple[str, Candidate, Candidate]]:
    """Pairs whose configurations are equal but for the ignored keys (and chosen settings)."""
    for group in _alike(candidates, (*ignored, *CHOSEN)):
        for a, b in combinations(sorted(group, key=order), 2):
            if order(a)[0] != order(b)[0]:
                yield question, a, b


def _alike(candidates: Sequence[Candidate], ignored: tuple[str, ...]) -> list[list[Candidate]]:
    """Group candidates by their configuration less the keys that begin like an ignored one."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        key = json.dumps(rest(candidate, ignored), sort_keys=True, default=str)
        groups.setdefault(key, []).append(candidate)
    return list(groups.values())


def _by(test: TestSet, by: Sequence[str]) -> Iterator[tuple[str, Candidate, Candidate]]:
    known = {key for c in test.candidates for key in flatten(c.config)}
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
    test: TestSet,
    wanted: Sequence[tuple[str, Candidate, Candidate]],
    seed: int,
    correct: bool = True,
) -> list[Pair]:
    if not wanted or len(set(test.groups)) < 2:
        return []
    scores = [_paired_scores(test, a, b) for _, a, b in wanted]
    resamples = min(MOST_RESAMPLES, max(RESAMPLES, 100 * len(wanted)))
    results = compare_paired_many(scores, seed, n_resamples=resamples)
    p_values = np.array([r.p_value for r in results])
    if correct:
        p_values = holm(p_values, ALPHA, nan="propagate").adjusted
    return [
        Pair(question, a, b, result, float(p), bool(p <= ALPHA), test.sign)
        for (question, a, b), result, p in zip(wanted, results, p_values, strict=True)
    ]


def _paired_scores(test: TestSet, a: Candidate, b: Candidate) -> PairedScores:
    return PairedScores(
        rows(a), rows(b), test.groups, names=(a.label, b.label), weights=test.weights
    )


def rows(candidate: Candidate) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Scores as the statistics take them: [S, N] for seeds, [N] for a model without a seed."""
    if candidate.scores is None:
        raise ConfigError(f"{candidate.label} has no per-example scores.")
    return candidate.scores if candidate.tuned else candidate.scores[0]


def _position(test: TestSet, candidate: Candidate) -> int:
    return next(i for i, c in enumerate(test.candidates) if c is candidate)
