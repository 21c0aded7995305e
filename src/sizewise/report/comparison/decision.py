"""What to take: which configurations are good enough, and the smallest and cheapest of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sizewise import words
from sizewise.errors import ConfigError
from sizewise.metrics import PERPLEXITY_PREFIX
from sizewise.report.comparison.arms import CLASSICAL, ENCODER, TUNED, ZERO_SHOT, Arm, TestSet
from sizewise.report.comparison.contrast import described, highest_scoring, scale_of
from sizewise.report.comparison.costs import ArmTiming, alike, timing_of
from sizewise.report.comparison.pair import Pair
from sizewise.report.comparison.pairs import ALPHA, rows
from sizewise.report.comparison.selection import one_per_question
from sizewise.report.ratings.judging import unusable_judges
from sizewise.statistics.margin import near_best
from sizewise.statistics.paired import fallback

EVERY_KIND = (TUNED, ENCODER, ZERO_SHOT, CLASSICAL)
BETTER, EQUIVALENT, NOT_WORSE = "better", "equivalent", "not worse"
WORSE, OPEN = "worse", "open"
# Points that are given up for a smaller model where nothing else is said, of scores from 0 to 1.
POINTS = 2.0
# Resamples of fewer groups are too few sets to count who is best in how many.
FEWEST_GROUPS = 10


@dataclass(frozen=True)
class Relation:
    """What is shown of A against B at the margin, with p-values corrected over all pairs.

    ``status``: ``better``; ``equivalent`` (neither is better by the margin or more); ``not worse``
    (A is not worse by the margin or more); ``worse``; or ``open``.
    """

    pair: Pair
    status: str
    p_not_worse: float
    p_equivalent: float


@dataclass(frozen=True)
class Contender:
    """One configuration with its score, what it costs, and how it stands to the best of all.

    ``share_best``: share of the resamples (of groups and seeds) in which it scores best. ``near``:
    whether it is shown not to be worse than the best, whichever that is, by the margin or more.
    """

    arm: Arm
    score: float
    params: float
    timing: ArmTiming | None
    share_best: float
    p_near: float

    @property
    def near(self) -> bool:
        return self.p_near <= ALPHA

    @property
    def seconds(self) -> float | None:
        """Median seconds per answer, mean over seeds."""
        return None if self.timing is None else self.timing.per_answer.mean


@dataclass(frozen=True)
class Decision:
    """Who is good enough. ``margin`` is in units of the score, ``points`` as people read it.

    ``groups``: number of independent groups of test examples.
    """

    margin: float
    points: str
    relations: list[Relation]
    choices: list[Contender]
    groups: int

    @property
    def says_shares(self) -> bool:
        """Whether there are groups enough to say who is best in how many resamples."""
        return self.groups >= FEWEST_GROUPS

    @property
    def smallest(self) -> Contender | None:
        """The near one with the fewest parameters."""
        return min((c for c in self.choices if c.near), key=lambda c: c.params, default=None)

    @property
    def cheapest(self) -> Contender | None:
        """The near one with the fewest seconds per answer; None where these are not alike."""
        near = [c for c in self.choices if c.near]
        timings = [c.timing for c in near if c.timing is not None]
        if len(timings) < len(near) or any(not alike(timings[0], other) for other in timings):
            return None
        return min(near, key=lambda c: c.seconds or 0.0, default=None)

    @property
    def likeliest(self) -> Contender:
        """The one that scores best in most resamples."""
        return max(self.choices, key=lambda c: c.share_best)

    @property
    def sentences(self) -> list[str]:
        """The recommendation in plain words."""
        first = self._first
        near = [c for c in self.choices if c.near]
        if not near:
            return [
                f"It is not shown which configurations are within {self.points} of the best.",
                first,
            ]
        count = words.plural(len(self.choices), "configuration")
        good = f"shown not to be worse than the best by {self.points} or more."
        if len(near) == 1 < len(self.choices):
            return [f"Of {count} only {described(near[0].arm)} is {good}", first]
        found = [f"{len(near)} of {count} {'is' if len(near) == 1 else 'are'} {good}"]
        smallest, cheapest = self.smallest, self.cheapest
        if smallest is not None:
            text = f"The smallest is {smallest.arm.label} ({words.count(smallest.params)}"
            found.append(f"{text} parameters).")
        if cheapest is not None:
            found.append(
                f"The cheapest is {cheapest.arm.label} ({words.seconds(cheapest.seconds)} per "
                "answer)."
            )
        elif len(near) > 1:
            found.append(
                "Which is the cheapest is not said: they were not all timed in the same batches on "
                "the same machine."
            )
        return [*found, first]

    @property
    def _first(self) -> str:
        if not self.says_shares:
            return (
                "In what share of the resamples each scores best is not said: there are fewer than "
                f"{FEWEST_GROUPS} independent groups of test examples."
            )
        best = self.likeliest
        return f"{best.arm.label} scores best in {100 * best.share_best:.0f} % of the resamples."


def decide(
    test: TestSet,
    pairs: Sequence[Pair],
    margin: float | None = None,
    seed: int = 0,
    n_resamples: int = 4_000,
) -> Decision | None:
    """Decide at a margin; None with fewer than two configurations, or without a margin.

    ``margin``: in points of a score between 0 and 1, else in units of the score; None is 2 points,
    and nothing for other scores. Configurations are those that stand for a question of their own:
    settings of the training, and wordings of the prompt, are chosen by validation.
    """
    # How likely a model finds the reference decides nothing between tuned and untouched models.
    kinds = (TUNED,) if test.primary.startswith(PERPLEXITY_PREFIX) else EVERY_KIND
    arms = [arm for kind in kinds for arm in one_per_question(test, kind)]
    scale = scale_of(test)
    if margin is None and scale.percent:
        margin = POINTS
    if margin is None or len(arms) < 2 or len(set(test.groups)) < 2 or unusable_judges(test):
        return None
    delta = margin / 100.0 if scale.percent else margin
    found = near_best(
        [rows(arm) for arm in arms],
        test.groups,
        margin=delta,
        higher_is_better=test.direction == "max",
        weights=test.weights,
        n_resamples=n_resamples,
        seed=seed,
    )
    choices = [
        Contender(
            arm,
            test.mean(arm),
            float(arm.params),
            timing_of(test, arm),
            float(found.share_best[i]),
            float(found.p_near[i]),
        )
        for i, arm in enumerate(arms)
    ]
    choices.sort(key=lambda c: -test.sign * c.score)
    points = scale.difference(delta).lstrip("+")
    return Decision(delta, points, relations(pairs, delta), choices, len(set(test.groups)))


def relations(pairs: Sequence[Pair], margin: float) -> list[Relation]:
    """Every pair at the margin, in units of the score.

    Superiority is what the pairs' own tests show. Non-inferiority and equivalence are families of
    their own, each with the same procedure: the primary pair first, then Holm over the others.
    """
    primary = next((i for i, pair in enumerate(pairs) if pair.primary), None)
    not_worse = fallback([p.p_not_worse(margin) for p in pairs], primary).adjusted
    equivalent = fallback([p.p_equivalent(margin) for p in pairs], primary).adjusted
    return [
        Relation(pair, status(pair, float(worse), float(same)), float(worse), float(same))
        for pair, worse, same in zip(pairs, not_worse, equivalent, strict=True)
    ]


def status(pair: Pair, p_not_worse: float, p_equivalent: float) -> str:
    """The strongest of what is shown."""
    if pair.wins:
        return BETTER
    if p_equivalent <= ALPHA:
        return EQUIVALENT
    if p_not_worse <= ALPHA:
        return NOT_WORSE
    return WORSE if pair.loses else OPEN


@dataclass(frozen=True)
class Gate:
    """One pair against a margin, as a line and as an exit code: 0 good, 1 worse, 2 open."""

    status: str
    code: int
    line: str


def gate(test: TestSet, pair: Pair, margin: float) -> Gate:
    """Answer whether A is good enough. One question alone: nothing is corrected.

    ``margin`` as in ``decide``. Worse is what is shown to be worse and not shown to be within the
    margin.
    """
    if why := unusable_judges(test):
        raise ConfigError(f"No gate, because a judge is not usable: {why}.")
    if test.primary.startswith(PERPLEXITY_PREFIX) and pair.a.kind != pair.b.kind:
        raise ConfigError(
            f"{test.primary} decides nothing between tuned and untouched models: training improves "
            "it whatever the answers are worth. Score the runs with a metric of the task."
        )
    scale = scale_of(test)
    delta = margin / 100.0 if scale.percent else margin
    p = pair.p_not_worse(delta)
    found = status(pair, p, pair.p_equivalent(delta))
    points = scale.difference(delta).lstrip("+")
    claim = {
        BETTER: "is better than",
        EQUIVALENT: f"is not worse by {points} or more than",
        NOT_WORSE: f"is not worse by {points} or more than",
        WORSE: "is worse than",
        OPEN: f"is not shown to be worse, nor to be within {points} of",
    }[found]
    word, code = {WORSE: ("FAIL", 1), OPEN: ("OPEN", 2)}.get(found, ("PASS", 0))
    low, high = pair.uncorrected
    seen = scale.difference(pair.gain)
    line = (
        f"{word}: {pair.a.label} {claim} {pair.b.label} on {test.primary}: {seen}, 95 % interval "
        f"{scale.interval(low, high)}, {words.p_value(p)} for not worse by {points}."
    )
    return Gate(found, code, line + _simpler(test, pair))


def _simpler(test: TestSet, pair: Pair) -> str:
    """Say which other model without a language model scores as high as both, if any does."""
    sides = (pair.a, pair.b)
    most = max(test.sign * arm.score() for arm in sides)
    others = [arm for arm in test.arms if all(arm is not side for side in sides)]
    simple = [arm for arm in others if not arm.has_form and test.sign * arm.score() >= most]
    best = highest_scoring(test, simple)
    if best is None:
        return ""
    kind = "a fine-tuned encoder" if best.kind == ENCODER else "without a language model"
    return (
        f" But {best.label}, {kind}, scores {scale_of(test).value(best.score())}, which neither "
        "of the two exceeds."
    )
