"""The answer in one plain sentence, with its numbers, or "not shown"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sizewise.report import words
from sizewise.report.comparison.arms import ZERO_SHOT, Arm, TestSet
from sizewise.report.comparison.pairs import (
    OWN_BASE,
    SMALL_LARGE,
    Pair,
    by_validation,
    representatives,
)
from sizewise.report.comparison.test_sets import COMPARABLE

SHOWN, SIZE_WINS, NOT_SHOWN, OPEN = "shown", "size wins", "not shown", "open"


@dataclass(frozen=True)
class Verdict:
    """``status`` is ``shown``, ``size wins``, ``not shown`` or ``open`` (no such pair was run).

    ``headline`` is a few words, ``sentence`` the claim with its figures, ``pair`` what it is about.
    """

    status: str
    headline: str
    sentence: str
    pair: Pair | None = None


def scale_of(test: TestSet) -> words.Scale:
    """Scores between 0 and 1 of which more is better are shown as percent."""
    matrices = [c.scores for c in test.scored if c.scores is not None]
    inside = all(m.min() >= 0 and m.max() <= 1 for m in matrices)
    return words.Scale(bool(matrices) and inside and test.direction == "max")


def judge(test: TestSet, pairs: Sequence[Pair], by: Sequence[str] = ()) -> Verdict:
    """Say whether a small tuned model beats a larger zero-shot one.

    Each small model is stood for by the adapter with the best validation loss, against the
    largest zero-shot model; where that was asked in several ways (stored in fewer bits, with
    examples in the prompt), in the way that scored best. The smallest winner is named; if none
    wins, the pair with the largest gain. Holm's correction over all pairs covers that choice.
    With ``by`` the pairs are those that differ in these configuration keys only.
    """
    verdict = _by_key(test, pairs, ", ".join(by)) if by else _judged(test, pairs)
    if test.tokenizers == 1:
        return verdict
    first = (
        f"{test.primary} cannot be compared across tokenizers (there are {test.tokenizers}; use "
        f"{COMPARABLE}), so only models with the same one are compared. "
    )
    return replace(verdict, sentence=first + verdict.sentence)


def _judged(test: TestSet, pairs: Sequence[Pair]) -> Verdict:
    contested = [p for p in pairs if p.question == SMALL_LARGE]
    if not contested:
        return _without_contest(test, pairs)
    largest = _strongest_of_largest(test, [p.b for p in contested])
    against = _chosen([p for p in contested if p.b is largest])
    winners = [p for p in against if p.wins]
    if winners:
        pair = min(winners, key=lambda p: (p.a.model.params_base, -p.gain))
        return Verdict(SHOWN, "Specialisation beats size", _claim(test, pair), pair)
    pair = max(against, key=lambda p: p.gain)
    if pair.loses:
        return Verdict(SIZE_WINS, "Size beats specialisation", _claim(test, pair), pair)
    return Verdict(NOT_SHOWN, "Not shown", _undecided(test, pair), pair)


def _strongest_of_largest(test: TestSet, models: Sequence[Arm]) -> Arm:
    """The largest model at its best: whoever beats only a weak variant has not beaten it."""
    return max(models, key=lambda arm: (arm.model.params_base, test.sign * test.mean(arm)))


def _chosen(pairs: Sequence[Pair]) -> list[Pair]:
    """Per small model the pair whose adapter has the best validation loss."""
    best: dict[tuple[str, int], Pair] = {}
    for pair in pairs:
        key = (pair.a.model.name, pair.a.model.params_base)
        if key not in best or by_validation(pair.a) < by_validation(best[key].a):
            best[key] = pair
    return list(best.values())


def _without_contest(test: TestSet, pairs: Sequence[Pair]) -> Verdict:
    own = [p for p in pairs if p.question == OWN_BASE]
    which = "model" if test.tokenizers == 1 else "model with the same tokenizer"
    why = f"no larger zero-shot {which} answered the same test examples"
    if not test.arms:
        return Verdict(OPEN, "No finished run", "No run has finished, so there is nothing to say.")
    if own:
        pair = max(own, key=lambda p: p.gain)
        how = _claim(test, pair) if pair.wins or pair.loses else _undecided(test, pair)
        sentence = f"Whether specialisation beats size is open: {why}. Against its own base: {how}"
        return Verdict(OPEN, "Open", sentence, pair)
    if not test.scored:
        sentence = f"No run has usable values of {test.primary} per example; nothing is compared."
        return Verdict(OPEN, "Open", sentence)
    if all(c.kind == ZERO_SHOT for c in test.scored):
        best = max(test.scored, key=lambda c: test.sign * c.score(test.primary))
        score = scale_of(test).value(best.score(test.primary))
        sentence = f"Nothing was tuned. Best zero-shot model: {best.label} with {score}."
        return Verdict(OPEN, "Open", sentence)
    if single := _single_unit(test):
        return Verdict(OPEN, "Open", f"Whether specialisation beats size cannot be said: {single}.")
    return Verdict(OPEN, "Open", f"Whether specialisation beats size is open: {why}.")


def _single_unit(test: TestSet) -> str:
    """Why nothing can be tested, where the test examples are one unit; else empty."""
    if len(set(test.groups)) != 1 or not test.scored[1:]:
        return ""
    return "all test examples are of one group" if test.ids[1:] else "there is one test example"


def _by_key(test: TestSet, pairs: Sequence[Pair], key: str) -> Verdict:
    if single := _single_unit(test):
        return Verdict(OPEN, "No pair", f"What {key} changes cannot be said: {single}.")
    if not pairs:
        return Verdict(OPEN, "No pair", f"No two configurations differ in {key} only.")
    found = [p for p in pairs if p.wins or p.loses]
    headline = f"{len(found)} of {words.plural(len(pairs), 'pair')} differ"
    pair = max(found or pairs, key=lambda p: abs(p.gain))
    how = _claim(test, pair) if pair.wins or pair.loses else _undecided(test, pair)
    sentence = f"Of the pairs that differ in {key} only, the largest difference: {how}"
    return Verdict(SHOWN if found else NOT_SHOWN, headline, sentence, pair)


def _claim(test: TestSet, pair: Pair) -> str:
    scale = scale_of(test)
    verb = "beats" if pair.wins else "loses to"
    a, b = pair.result.mean_a, pair.result.mean_b
    return (
        f"{described(pair.a)} {verb} {described(pair.b)} on {test.primary}: {scale.value(a)} "
        f"against {scale.value(b)}, {scale.difference(pair.gain)} ({_evidence(test, pair)})"
        f"{_price(pair)}."
    )


def _undecided(test: TestSet, pair: Pair) -> str:
    scale = scale_of(test)
    mde = pair.result.minimum_detectable_effect
    if pair.low > 0 or pair.high < 0:
        why = "not shown after the correction for all pairs"
    elif pair.found:
        why = "not shown: the test finds a difference, but the interval includes none"
    else:
        why = "which is within chance"
    least = f"; {scale.difference(mde).lstrip('+')} could have been found" if mde == mde else ""
    if scale.percent and mde > 1:
        least = "; no difference is large enough to be found in so few"
    return (
        f"{described(pair.a)} scores {scale.value(pair.result.mean_a)} on "
        f"{test.primary} and {described(pair.b)} {scale.value(pair.result.mean_b)}: "
        f"{scale.difference(pair.gain)}, {why} ({_evidence(test, pair)}{least})."
    )


def described(arm: Arm) -> str:
    """Label with the size: ``nano LoRA r=8 (0.3 M)``."""
    return f"{arm.label} ({words.count(arm.params)})"


def _evidence(test: TestSet, pair: Pair) -> str:
    scale, result = scale_of(test), pair.result
    parts = [f"95 % interval {scale.interval(pair.low, pair.high)}"]
    parts.append(f"{words.p_value(pair.p_corrected)} after Holm's correction")
    examples = words.plural(result.n, "test example")
    if result.n_clusters is not None:
        examples += f" in {words.plural(result.n_clusters, 'group')}"
    parts.append(examples)
    seeds = [c.seeds for c in (pair.a, pair.b) if c.tuned]
    if seeds:
        parts.append(words.plural(min(len(s) for s in seeds), "seed"))
    if not result.seeds_are_random and max((len(s) for s in seeds), default=1) > 1:
        low, high = sorted(test.sign * d for d in result.seed_difference_range)
        parts.append(f"conditional on these seeds, which range from {scale.interval(low, high)}")
    return ", ".join(parts)


def _price(pair: Pair) -> str:
    parts = []
    if pair.b.model.memory_bytes and pair.a.model is not pair.b.model:
        memory = pair.a.model.memory_bytes / pair.b.model.memory_bytes
        parts.append(f"{words.ratio(memory)} of the memory")
    if pair.a.latency and pair.b.latency:
        parts.append(f"{words.ratio(pair.b.latency / pair.a.latency)} times the speed")
    if pair.question != SMALL_LARGE or not parts:
        return ""
    return ", at " + " and ".join(parts)


def best_of(test: TestSet) -> Arm | None:
    """The arm with the best recorded score, or None without any finite one."""
    finite = [c for c in test.arms if np.isfinite(c.score(test.primary))]
    return max(finite, key=lambda c: test.sign * c.score(test.primary)) if finite else None


@dataclass(frozen=True)
class Contrast:
    """The tuned model of the verdict, its own base, and the larger zero-shot model if any."""

    small: Arm
    base: Arm | None
    large: Arm | None

    @property
    def shown(self) -> list[Arm]:
        return [c for c in (self.small, self.base, self.large) if c is not None]


def find_contrast(test: TestSet, verdict: Verdict) -> Contrast | None:
    """Take the verdict's pair, else the tuned model with the best validation loss; None without."""
    pair = verdict.pair
    if pair is not None and pair.a.tuned:
        small = pair.a
    else:
        tuned = representatives(test)
        if not tuned:
            return None
        small = min(tuned, key=lambda c: (c.validation is None, c.validation or 0.0, c.label))
    base = test.zero_shot_of(small)
    base = base if base is not None and base.scores is not None else None
    larger = [
        c
        for c in test.scored
        if c.kind == ZERO_SHOT and c.model.params_base > small.model.params_base
    ]
    large = pair.b if pair is not None and pair.b in larger else None
    if large is None and larger:
        large = max(larger, key=lambda c: c.model.params_base)
    return Contrast(small, base, large)
