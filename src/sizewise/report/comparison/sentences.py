"""The sentences of the verdict: the claim with its evidence, and everything that limits it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sizewise import words
from sizewise.report.comparison.arms import ENCODER, Arm, TestSet
from sizewise.report.comparison.contrast import Tested, described, scale_of
from sizewise.report.comparison.costs import costs_sentence
from sizewise.report.comparison.pair import Pair
from sizewise.report.comparison.readings import reading_of, unusable, who_chose
from sizewise.report.comparison.strata import Reversal, Stratum
from sizewise.statistics.routing import RoutingCurve

COMMONEST = "classical:majority"
MOST_REVERSALS, MOST_OTHERS = 3, 3


@dataclass(frozen=True)
class Baseline:
    """A model without a language model, and how each side of the verdict does against it.

    ``small`` and ``large`` are the sides' differences to it (None: could not be tested, and the
    recorded scores decide: ``ahead_small``, ``ahead_large``).
    """

    arm: Arm
    small: Tested | None
    large: Tested | None
    ahead_small: bool
    ahead_large: bool

    @property
    def beaten(self) -> bool:
        """Whether the tuned model is shown to be better."""
        return not self.ahead_small if self.small is None else self.small.wins

    @property
    def beats_small(self) -> bool:
        return self.ahead_small if self.small is None else self.small.loses

    @property
    def beats_large(self) -> bool:
        return self.ahead_large if self.large is None else self.large.loses

    @property
    def is_commonest(self) -> bool:
        """Whether it always gives the commonest answer of the training split."""
        return self.arm.model.path == COMMONEST


@dataclass(frozen=True)
class Findings:
    """All that a verdict on a pair of small tuned and large zero-shot model rests on.

    Attributes:
        others: the same tuned model against the other larger models.
        named: the pair that was named in advance, where it is another one.
        baselines: best first.
        said: the pair's difference in answers as said, where another reading counts.
        useless: sides of the pair without usable answers.
    """

    test: TestSet
    pair: Pair
    others: tuple[Pair, ...]
    named: Pair | None
    baselines: tuple[Baseline, ...]
    strata: tuple[Stratum, ...]
    reversals: tuple[Reversal, ...]
    hybrid: RoutingCurve | None
    said: Tested | None
    useless: tuple[Arm, ...]

    @property
    def baseline(self) -> Baseline | None:
        return self.baselines[0] if self.baselines else None

    @property
    def form(self) -> float | None:
        """How much of the gain as said is form, where it is shown and more than half of it is."""
        if self.said is None or not self.said.wins or self.pair.gain >= self.said.gain / 2:
            return None
        return self.said.gain - self.pair.gain


def verdict_parts(found: Findings) -> tuple[str, ...]:
    """The claim, what else it must beat, and where it does not hold."""
    pair, test = found.pair, found.test
    parts = [
        either(test, pair),
        _no_use(found),
        _form(found),
        _others(found),
        _reversed(found),
        _hybrid(found),
        _baseline(found),
        costs_sentence(test, pair.a, pair.b),
        named_in_advance(test, found.named),
    ]
    return tuple(filter(None, parts))


def named_in_advance(test: TestSet, pair: Pair | None) -> str:
    """How the pair that validation chose ended; empty where there is no such pair to speak of."""
    if pair is None:
        return ""
    how = "is won" if pair.wins else "is lost" if pair.loses else "is not shown to win"
    p = words.p_value(pair.p_corrected, pair.at_floor)
    return (
        f"The pair named in advance, {pair.a.label} against {pair.b.label}, {how}: "
        f"{scale_of(test).difference(pair.gain)} ({p if p != '–' else 'no test was possible'})."
    )


def either(test: TestSet, pair: Pair) -> str:
    """The claim about a pair, or that nothing is shown."""
    return _claim(test, pair) if pair.wins or pair.loses else _undecided(test, pair)


def _claim(test: TestSet, pair: Pair) -> str:
    scale = scale_of(test)
    verb = "beats" if pair.wins else "loses to"
    a, b = pair.result.mean_a, pair.result.mean_b
    return (
        f"{described(pair.a)} {verb} {described(pair.b)} on {_score(test)}: {scale.value(a)} "
        f"against {scale.value(b)}, {scale.difference(pair.gain)} ({_evidence(test, pair)})."
    )


def _score(test: TestSet) -> str:
    """The score's name, and how answers are read where that was chosen."""
    if test.primary == test.said:
        return test.primary
    return (
        f"{test.primary} (answers read {reading_of(test)}, with which {who_chose(test)} did best "
        "on validation)"
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
        f"{_score(test)} and {described(pair.b)} {scale.value(pair.result.mean_b)}: "
        f"{scale.difference(pair.gain)}, {why} ({_evidence(test, pair)}{least})."
    )


def _evidence(test: TestSet, pair: Pair) -> str:
    scale, result = scale_of(test), pair.result
    parts = [f"{words.level(pair.level)} interval {scale.interval(pair.low, pair.high)}"]
    parts.append(f"{words.p_value(pair.p_corrected, pair.at_floor)}, both corrected for all pairs")
    examples = words.plural(result.n, "test example")
    if result.n_clusters is not None:
        examples += f" in {words.plural(result.n_clusters, 'group')}"
    parts.append(examples)
    seeds = [c.seeds for c in (pair.a, pair.b) if c.tuned]
    if seeds:
        parts.append(words.plural(min(len(s) for s in seeds), "seed"))
    most = max((len(s) for s in seeds), default=1)
    if not result.seeds_are_random and most > 1:
        low, high = sorted(test.sign * d for d in result.seed_difference_range)
        if math.isclose(low, high, abs_tol=1e-9):
            parts.append("every seed has the same mean score")
        else:
            spread = scale.interval(low, high)
            parts.append(f"conditional on these seeds, which range from {spread}")
    return ", ".join(parts)


def _no_use(found: Findings) -> str:
    percent = words.Scale(True).value
    said = [
        f"{percent(unusable(found.test, arm))} of the answers of {arm.label} are unusable"
        for arm in found.useless
    ]
    return f"{' and '.join(said)}, so this says nothing about what it knows." if said else ""


def _form(found: Findings) -> str:
    if found.said is None:
        return ""
    scale, said = scale_of(found.test), found.said
    text = f"As said it is {scale.value(said.mean_a)} against {scale.value(said.mean_b)}"
    if found.form is None:
        return f"{text}."
    unit = " points" if scale.percent else ""
    if found.form >= said.gain:
        return f"{text}: form alone."
    part, whole = (scale.points(v).lstrip("+") for v in (found.form, said.gain))
    return f"{text}: mostly form, {part} of {whole}{unit}."


def _others(found: Findings) -> str:
    """The other larger models: a winner beats them all, a loser may not lose to all."""
    if not found.others:
        return ""
    scale, parts = scale_of(found.test), []
    for verb, chosen in (
        ("beats", [p for p in found.others if p.wins]),
        ("is not shown to differ from", [p for p in found.others if not p.wins and not p.loses]),
        ("loses to", [p for p in found.others if p.loses]),
    ):
        named = [f"{p.b.label} ({scale.value(p.result.mean_b)})" for p in chosen[:MOST_OTHERS]]
        more = len(chosen) - MOST_OTHERS
        if named:
            rest = f" and {words.plural(more, 'further larger model')}" if more > 0 else ""
            parts.append(f"{verb} {', '.join(named)}{rest}")
    return f"It {'also ' if found.pair.wins else ''}{'; it '.join(parts)}."


def _baseline(found: Findings) -> str:
    """The best baseline with its figure, and against whom it was tested with what result."""
    best = found.baseline
    if best is None:
        return ""
    value = scale_of(found.test).value(best.arm.score())
    name = f"{best.arm.label} ({value})"
    simple = (
        "the commonest answer" if best.is_commonest else
        "a fine-tuned encoder" if best.arm.kind == ENCODER else "without a language model"
    )  # fmt: skip
    how = _tested_against(found, best)
    said = f"The best baseline, {name}, {simple}, {how}."
    commonest = next((b for b in found.baselines if b.is_commonest and b is not best), None)
    if commonest is None:
        return said
    return (
        f"{said} Always the commonest answer: {scale_of(found.test).value(commonest.arm.score())}."
    )


def _tested_against(found: Findings, best: Baseline) -> str:
    if best.beats_small and best.beats_large:
        return "beats both"
    if best.beats_small:
        return "beats the tuned model"
    if best.beaten:
        tested = best.small
        gain = (
            ""
            if tested is None
            else f" by {scale_of(found.test).difference(tested.gain).lstrip('+')}"
        )
        return f"is beaten by the tuned model{gain}"
    rest = " and beats the larger one" if best.beats_large else ""
    return f"is not shown to differ from the tuned model{rest}"


def mixed_headline(found: Findings) -> str:
    """Who wins where, in the words of the first reversal."""
    where = found.reversals[0].where
    if found.pair.loses:
        return f"Mixed: size wins, but not where {where}"
    wins = "specialisation wins" if found.pair.wins else "not shown in all"
    return f"Mixed: {wins}, but size wins where {where}"


def _reversed(found: Findings) -> str:
    if not found.reversals:
        return ""
    scale, verb = scale_of(found.test), "wins" if found.pair.loses else "loses"
    chosen = found.reversals[:MOST_REVERSALS]
    parts = [
        f"where {r.where} ({scale.value(r.tested.mean_a)} against {scale.value(r.tested.mean_b)}, "
        f"{scale.difference(r.tested.gain)}, 95 % interval "
        f"{scale.interval(r.tested.low, r.tested.high)}, {words.p_value(r.tested.p)} corrected for "
        f"the kinds of examples, {words.plural(r.tested.examples, 'example')})"
        for r in chosen
    ]
    more = len(found.reversals) - len(chosen)
    rest = f" and at {words.plural(more, 'further kind')} of examples" if more > 0 else ""
    return f"But it {verb} {' and '.join(parts)}{rest}."


def _hybrid(found: Findings) -> str:
    """Recommend routing where, on left-out examples, it does better than either model alone."""
    curve, pair, sign = found.hybrid, found.pair, found.test.sign
    if curve is None or not math.isfinite(curve.held_out_score):
        return ""
    alone = max(sign * pair.result.mean_a, sign * pair.result.mean_b)
    if sign * curve.held_out_score <= alone:
        return ""
    return (
        f"Use both: with the {100 * curve.best_share:.0f} % of the prompts of which {pair.a.label} "
        f"is least sure sent to {pair.b.label}, the score is "
        f"{scale_of(found.test).value(curve.held_out_score)} (the share picked on other examples)."
    )
