"""Which pairs are compared, and their tests: one primary pair first, then all others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import numpy as np

from sizewise.errors import ConfigError
from sizewise.record.identity import flatten
from sizewise.report.comparison.arms import (
    CLASSICAL,
    DATA,
    ENCODER,
    ZERO_SHOT,
    Arm,
    TestSet,
)
from sizewise.report.comparison.by import pairs_along
from sizewise.report.comparison.pair import Pair, Wanted
from sizewise.report.comparison.selection import (
    CHOSEN,
    UNCHANGING,
    alike_but_for,
    chosen_by_validation,
    one_per_question,
)
from sizewise.report.comparison.test_sets import COUNTED
from sizewise.statistics.comparison import PairedScores, compare_paired_many
from sizewise.statistics.paired import PRIMARY_SHARE, fallback, resamples_needed

SMALL_LARGE = "small tuned against large zero-shot"
OWN_BASE = "tuned against its own base"
BASELINES = "against a baseline without a language model"
ENCODERS = "tuned against a fine-tuned encoder"
MODELS = "tuned model against tuned model"
METHODS = "method against method"
TARGETS = "target against target"
RANKS = "rank against rank"
STORAGE = "quantised against not"
TEACHERS = "a teacher's answers against gold"
ALPHA = 0.05
RESAMPLES, MOST_RESAMPLES = 10_000, 50_000
MOST_PERMUTATIONS = 200_000


def compare_pairs(
    test: TestSet, by: Sequence[str] = (), seed: int = 0, resamples: int | None = None
) -> list[Pair]:
    """Compare every pair of the question, or with ``by`` those that differ in these keys only.

    Where configurations differ in nothing but settings of the training (learning rate, epochs, …)
    the best by validation stands for them, and so for wordings of the prompt of a model that was
    not trained: the test set chooses nothing. The primary pair is tested first and all others
    corrected after it (``statistics.paired.fallback``); with ``by`` there is none, and Holm's
    correction runs over all. ``resamples``: fewer draws, for simulations.

    Raises:
        ConfigError: ``by`` names no key of the arms.
    """
    if by:
        return _compare(test, list(pairs_along(test, by)), None, seed, resamples)
    wanted = list(_question(test))
    return _compare(test, wanted, _primary(test, wanted), seed, resamples)


def gains(test: TestSet, seed: int = 0) -> dict[int, Pair]:
    """Compare every tuned arm with its own base, uncorrected; keyed by position."""
    wanted: dict[int, Wanted] = {}
    for position, arm in enumerate(test.arms):
        base = test.zero_shot_of(arm) if arm.tuned else None
        if arm.scores is not None and base is not None and base.scores is not None:
            wanted[position] = (OWN_BASE, arm, base)
    pairs = _compare(test, list(wanted.values()), None, seed, correct=False)
    return dict(zip(wanted, pairs, strict=False))


def primary_pair(test: TestSet, seed: int = 0) -> Pair | None:
    """The pair that is tested first, alone; None where no tuned model has a larger general one."""
    wanted = list(_question(test))
    primary = _primary(test, wanted)
    alone = [] if primary is None else [wanted[primary]]
    return next(iter(_compare(test, alone, None, seed)), None)


def pair_of(test: TestSet, a: str, b: str, seed: int = 0) -> Pair | None:
    """Two arms by their labels; None where one has no scores in this test set."""
    arms = {arm.label: arm for arm in test.scored}
    if a not in arms or b not in arms:
        return None
    return next(iter(_compare(test, [("asked for", arms[a], arms[b])], None, seed)), None)


def _question(test: TestSet) -> Iterator[Wanted]:
    tuned, zero_shot = one_per_question(test), one_per_question(test, ZERO_SHOT)
    for arm, other in product(tuned, zero_shot):
        if arm.size < other.size:
            yield SMALL_LARGE, arm, other
    for arm in tuned:
        base = test.zero_shot_of(arm)
        if base is not None and base.scores is not None:
            yield OWN_BASE, arm, base
    models = _one_per_model(test, tuned)
    encoders = one_per_question(test, ENCODER)
    baselines = one_per_question(test, CLASSICAL)
    yield from ((BASELINES, *pair) for pair in product([*models, *encoders], baselines))
    yield from ((BASELINES, *pair) for pair in product(_general(test, models), baselines))
    yield from ((ENCODERS, *pair) for pair in product(models, encoders))
    yield from _models(models)
    yield from _methods(test, tuned)
    yield from _differing(TARGETS, tuned, ("lora.target",), _valued("lora.target"))
    yield from _differing(RANKS, tuned, ("lora.r",), _rank)
    yield from _differing(STORAGE, tuned, ("quantization.",), _stored)
    last = _valued("dataset.answers_from", missing="~gold")
    yield from _differing(TEACHERS, tuned, ("dataset.teach", "dataset.answers_from"), last)
    untrained = ("quantization.", "lora.", "dataset.max_train", "dataset.max_validation")
    yield from _differing(STORAGE, zero_shot, untrained, _stored)


# No question between two models, each at its best: settings, and the rows that tokenizers leave.
OF_THE_MODEL = ("model.", "lora.", "quantization.", DATA)


def _one_per_model(test: TestSet, tuned: Sequence[Arm]) -> list[Arm]:
    """The best adapter of every base, for each data set and prompt that was tried."""
    found: list[Arm] = []
    for group in alike_but_for(tuned, (*OF_THE_MODEL, *CHOSEN, *UNCHANGING)):
        bases: dict[tuple[str, int], list[Arm]] = {}
        for arm in group:
            bases.setdefault((arm.model.path, arm.model.params_base), []).append(arm)
        found += [chosen_by_validation(test, arms) for arms in bases.values()]
    return found


def _models(models: Sequence[Arm]) -> Iterator[Wanted]:
    for group in alike_but_for(models, (*OF_THE_MODEL, *CHOSEN, *UNCHANGING)):
        ordered = sorted(group, key=lambda arm: (arm.size, arm.label))
        yield from ((MODELS, *pair) for pair in combinations(ordered, 2))


def _methods(test: TestSet, tuned: Sequence[Arm]) -> Iterator[Wanted]:
    """Methods with all else equal; where two never are, the best of each (full has no rank)."""
    equal = list(_differing(METHODS, tuned, ("lora.method",), _method))
    yield from equal
    for group in alike_but_for(tuned, ("lora.", *CHOSEN, *UNCHANGING)):
        met = {frozenset((a.model.lora_method, b.model.lora_method))
               for _, a, b in equal if any(a is arm for arm in group)}  # fmt: skip
        methods: dict[str, list[Arm]] = {}
        for arm in sorted(group, key=_method):
            methods.setdefault(arm.model.lora_method, []).append(arm)
        for (one, first), (other, second) in combinations(methods.items(), 2):
            if frozenset((one, other)) not in met:
                yield METHODS, chosen_by_validation(test, first), chosen_by_validation(test, second)


def _method(arm: Arm) -> tuple[str, str]:
    return (arm.model.lora_method, arm.label)


def _valued(key: str, missing: str = "") -> Callable[[Arm], tuple[str, str]]:
    """Order by a key of the configuration; ``missing`` stands for what is not said."""
    return lambda arm: (str(flatten(arm.config).get(key) or missing), arm.label)


def _rank(arm: Arm) -> tuple[float, str]:
    return (-(arm.model.lora_r or 0), arm.label)


def _stored(arm: Arm) -> tuple[float, str]:
    return (float(arm.model.quantization == "none"), arm.label)


def _differing(
    question: str,
    arms: Sequence[Arm],
    ignored: tuple[str, ...],
    order: Callable[[Arm], tuple[Any, str]],
) -> Iterator[Wanted]:
    """Pairs whose configurations are equal but for the ignored keys (and chosen settings)."""
    for group in alike_but_for(arms, (*ignored, *CHOSEN, *UNCHANGING)):
        for a, b in combinations(sorted(group, key=order), 2):
            if order(a)[0] != order(b)[0]:
                yield question, a, b


def _primary(test: TestSet, wanted: Sequence[Wanted]) -> int | None:
    """Position of the one pair that is tested first: the best of either side by validation.

    Where the large models were not asked on the validation split the largest is taken, stored
    whole: what opposes may not be chosen by the test set.
    """
    contested = [(i, a, b) for i, (question, a, b) in enumerate(wanted) if question == SMALL_LARGE]
    if not contested:
        return None
    small = _best_small(test, list({id(a): a for _, a, _ in contested}.values()))
    against = [(i, b) for i, a, b in contested if a is small]
    large = _best_large(test, [b for _, b in against])
    return next(i for i, b in against if b is large)


def _best_small(test: TestSet, arms: Sequence[Arm]) -> Arm:
    """By validation; losses of unlike tokens or answers say nothing: there the largest is taken."""
    asked = all(arm.validated(test.primary) is not None for arm in arms)
    if asked or len({_tokens(test, arm) for arm in arms}) == 1:
        return chosen_by_validation(test, arms)
    first = max((arm.size, not arm.chosen_by_teacher) for arm in arms)
    return chosen_by_validation(
        test, [a for a in arms if (a.size, not a.chosen_by_teacher) == first]
    )


def _tokens(test: TestSet, arm: Arm) -> tuple[float, ...]:
    answers = arm.first.answers
    if answers is None:
        return ()
    counts = answers.weights[COUNTED][answers.positions(test.ids)]
    return (float(arm.chosen_by_teacher), *counts.tolist())


def _best_large(test: TestSet, arms: Sequence[Arm]) -> Arm:
    if all(arm.validated(test.primary) is not None for arm in arms):
        return chosen_by_validation(test, arms)
    return min(arms, key=lambda a: (-a.size, -a.model.memory_bytes, a.label))


def _general(test: TestSet, tuned: Sequence[Arm]) -> list[Arm]:
    """The best model that was not trained, by the rule of the primary pair, as a list."""
    arms = one_per_question(test, ZERO_SHOT)
    return [_best_large(test, arms)] if arms else []


def undecidable(pairs: Sequence[Pair]) -> list[str]:
    """Say where the random draws are too few to show anything after the correction."""
    stuck = [pair for pair in pairs if pair.at_floor and pair.p_corrected > ALPHA]
    if not stuck:
        return []
    return [
        f"{len(stuck)} of {len(pairs)} pairs are so many that the draws of the test cannot show a "
        "difference after the correction. Compare fewer runs, or train each with several seeds."
    ]


def _compare(
    test: TestSet,
    wanted: Sequence[Wanted],
    primary: int | None,
    seed: int,
    resamples: int | None = None,
    correct: bool = True,
) -> list[Pair]:
    if not wanted or len(set(test.groups)) < 2:
        return []
    scores = [
        PairedScores(rows(a), rows(b), test.groups, names=(a.label, b.label), weights=test.weights)
        for _, a, b in wanted
    ]
    number = len(wanted)
    draws = min(MOST_RESAMPLES, max(RESAMPLES, 100 * number))
    # A t test over seeds draws nothing; the draws of the others must reach below the correction.
    drawn = any(max(len(a.seeds), len(b.seeds)) < 2 for _, a, b in wanted)
    needed = resamples_needed(number, (1.0 - PRIMARY_SHARE) * ALPHA) if drawn else draws
    results = compare_paired_many(
        scores,
        seed,
        n_resamples=resamples or draws,
        n_permutations=resamples or max(draws, min(MOST_PERMUTATIONS, needed)),
    )
    p_values = np.array([r.p_value for r in results])
    if not correct:
        return [
            Pair(*names, result, float(p), bool(p <= ALPHA), test.sign)
            for names, result, p in zip(wanted, results, p_values, strict=True)
        ]
    tested = fallback(p_values, primary, ALPHA)
    levels = np.where(np.isnan(tested.levels), ALPHA, tested.levels)
    return [
        Pair(
            *names,
            replace(result, alpha=float(levels[i])),
            float(tested.adjusted[i]),
            bool(tested.rejected[i]),
            test.sign,
            1.0 - float(levels[i]),
            i == primary,
        )
        for i, (names, result) in enumerate(zip(wanted, results, strict=True))
    ]


def rows(arm: Arm) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Scores as the statistics take them: [S, N] for seeds, [N] for a model without a seed."""
    if arm.scores is None:
        raise ConfigError(f"{arm.label} has no per-example scores.")
    return arm.scores if arm.has_seeds else arm.scores[0]
