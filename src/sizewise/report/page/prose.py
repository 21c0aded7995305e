"""Sentences and cards that stand beside the pictures of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sizewise import words
from sizewise.record.outcome import DataFacts
from sizewise.report.comparison.arms import ENCODER, TestSet
from sizewise.report.comparison.compare import SetComparison
from sizewise.report.comparison.contrast import described, highest_scoring, scale_of
from sizewise.report.comparison.costs import PaidBack, alike, timing_of
from sizewise.report.comparison.decision import BETTER, EQUIVALENT, NOT_WORSE, WORSE, Decision
from sizewise.report.comparison.decision import OPEN as UNDECIDED
from sizewise.report.comparison.detail import Views
from sizewise.report.comparison.pair import Pair
from sizewise.report.comparison.pairs import SMALL_LARGE
from sizewise.report.comparison.verdict import Verdict
from sizewise.statistics.learning_curve import AT_SMALLEST, REACHED


@dataclass(frozen=True)
class Card:
    """A number with its name and what it rests on."""

    name: str
    value: str
    detail: str


AT_MARGIN = {
    BETTER: "is better than",
    EQUIVALENT: "is as good as",
    NOT_WORSE: "is not worse than",
    WORSE: "is worse than",
    UNDECIDED: "is not shown to be as good as",
}


def plain_answer(compared: SetComparison) -> list[str]:
    """The answer in short sentences: scores of both sides, margin, baseline, cost, what to take.

    How the pair named in advance ended stands last, where the verdict is about another. Where there
    are no two sides to speak of it is the verdict's own sentence.
    """
    verdict, test = compared.verdict, compared.test
    pair = verdict.pair
    if pair is None or not verdict.parts:
        return [verdict.sentence]
    found = [_both(test, pair), _at_margin(compared, pair), _beside(verdict, scale_of(test))]
    said = [*found, _price(test, pair), _take(compared.decision), verdict.named]
    return list(filter(None, said))


def _both(test: TestSet, pair: Pair) -> str:
    scale = scale_of(test)
    by = scale.difference(abs(pair.gain)).lstrip("+")
    how = (
        f"{by} better"
        if pair.wins
        else f"{by} worse"
        if pair.loses
        else f"{scale.difference(pair.gain)}, which is not shown to be a difference"
    )
    a, b = scale.value(pair.result.mean_a), scale.value(pair.result.mean_b)
    return f"{described(pair.a)} scores {a}, {described(pair.b)} {b}: {how}."


def _at_margin(compared: SetComparison, pair: Pair) -> str:
    decision = compared.decision
    if decision is None:
        return ""
    relation = next((r for r in decision.relations if r.pair is pair), None)
    if relation is None or relation.status == BETTER:
        return ""
    return (
        f"If {decision.points} may be lost, the small one {AT_MARGIN[relation.status]} the large "
        "one."
    )


def _beside(verdict: Verdict, scale: words.Scale) -> str:
    best = verdict.baseline
    if best is None:
        return ""
    name = f"{best.arm.label} ({scale.value(best.arm.score())})"
    if best.beaten:
        return f"The small one also beats the best baseline, {name}."
    how = "does better" if best.beats_small else "is not shown to do worse"
    kind = "a fine-tuned encoder" if best.arm.kind == ENCODER else "no language model at all"
    return f"But {name}, {kind}, {how}."


def _price(test: TestSet, pair: Pair) -> str:
    small, large = pair.a, pair.b
    parts = []
    if small.model.memory_bytes and large.model.memory_bytes and small.model is not large.model:
        sizes = [words.size(arm.model.memory_bytes) for arm in (small, large)]
        parts.append(f"{sizes[0]} of weights instead of {sizes[1]}")
    ours, theirs = timing_of(test, small), timing_of(test, large)
    if ours is not None and theirs is not None and alike(ours, theirs):
        times = [words.seconds(timing.per_answer.mean) for timing in (ours, theirs)]
        busy = " (timed on a busy machine)" if ours.busy or theirs.busy else ""
        parts.append(f"{times[0]} an answer instead of {times[1]}{busy}")
    if small.train_seconds is not None:
        parts.append(f"{words.seconds(small.train_seconds)} of training for each seed")
    return f"The small one takes {', '.join(parts)}." if parts else ""


def _take(decision: Decision | None) -> str:
    if decision is None:
        return ""
    if decision.smallest is None:
        return f"It is not shown which are within {decision.points} of the best of all."
    smallest = decision.smallest
    near = sum(choice.near for choice in decision.choices)
    which = "The only one" if near == 1 else f"The smallest of the {near}"
    return (
        f"{which} shown to be within {decision.points} of the best of all: {smallest.arm.label} "
        f"({words.count(smallest.params)} parameters)."
    )


def cards_of(compared: SetComparison) -> list[Card]:
    """Some numbers: both scores, gain, what limits it, costs; or what a lone run has to tell."""
    verdict, test = compared.verdict, compared.test
    pair = verdict.pair
    if pair is None:
        return _lone(compared)
    scale = scale_of(test)
    interval = f"{words.level(pair.level)} interval {scale.interval(pair.low, pair.high)}"
    gain = Card("Gain", scale.difference(pair.gain), interval)
    if pair.question != SMALL_LARGE:
        return [gain, *_tuning(pair), *_lone(compared)]
    small = Card("Small, tuned", scale.value(pair.result.mean_a), described(pair.a))
    large = Card("Large, untouched", scale.value(pair.result.mean_b), described(pair.b))
    limits = [*_baseline(verdict, scale), *_reversal(verdict, scale)]
    return [small, large, gain, *limits, *_against(test, pair), *_paid(compared.paid_back)]


def _baseline(verdict: Verdict, scale: words.Scale) -> list[Card]:
    best = verdict.baseline
    if best is None:
        return []
    how = "beats both" if best.beats_small and best.beats_large else (
        "beats the tuned model" if best.beats_small else
        "beaten by the tuned model" if best.beaten else "not shown to differ"
    )  # fmt: skip
    return [Card("Best baseline", scale.value(best.arm.score()), f"{best.arm.label}, {how}")]


def _reversal(verdict: Verdict, scale: words.Scale) -> list[Card]:
    if not verdict.reversals:
        return []
    first = verdict.reversals[0]
    return [Card("But", scale.difference(first.tested.gain), f"where {first.where}")]


def _against(test: TestSet, pair: Pair) -> list[Card]:
    small, large = pair.a, pair.b
    cards = []
    if large.model.memory_bytes:
        share = small.model.memory_bytes / large.model.memory_bytes
        detail = (
            f"{words.size(small.model.memory_bytes)} against {words.size(large.model.memory_bytes)}"
        )
        cards.append(Card("Bytes of weights", f"{words.ratio(share)} ×", detail))
    ours, theirs = timing_of(test, small), timing_of(test, large)
    if ours is not None and theirs is not None and alike(ours, theirs):
        factor = words.ratio(theirs.per_answer.mean / ours.per_answer.mean)
        times = [words.seconds(t.per_answer.mean) for t in (ours, theirs)]
        detail = f"{times[0]} against {times[1]} per answer at batch {ours.batch}"
        cards.append(Card("Speed", f"{factor} ×", detail))
    return cards


def _tuning(pair: Pair) -> list[Card]:
    model = pair.a.model
    trained = Card("Trained", words.count(model.params_trainable), "parameters in the adapter")
    if pair.a.train_seconds is None:
        return [trained]
    return [trained, Card("Training", words.seconds(pair.a.train_seconds), "mean of the seeds")]


def _paid(entries: Sequence[PaidBack]) -> list[Card]:
    if not entries:
        return []
    entry = entries[0]
    answers = entry.result.answers
    value = f"{answers:,.0f} answers" if math.isfinite(answers) else "never"
    jobs = words.plural(entry.jobs, "training run")
    detail = f"after {words.seconds(entry.training)} of {jobs}, in device time"
    return [Card("Paid back", value, detail)]


def _lone(compared: SetComparison) -> list[Card]:
    best = highest_scoring(compared.test)
    if best is None:
        return []
    score = scale_of(compared.test).value(best.score(compared.test.primary))
    return [Card("Best score", score, best.label)]


def scaling_sentence(test: TestSet, views: Views) -> str:
    """Where a zero-shot model would match the tuned one; never extrapolated."""
    match, contrast = views.scaling, views.contrast
    if match is None or contrast is None:
        return ""
    if match.parameters is None:
        text = (
            f"The size of a zero-shot model that would match {contrast.small.label}: "
            f"{match.status}. Nothing is extrapolated."
        )
    else:
        ends = [match.interval.low, match.interval.high]
        low = "below the range" if ends[0] == 0 else words.count(ends[0])
        high = "above the range" if math.isinf(ends[1]) else words.count(ends[1])
        text = (
            f"By this fit a zero-shot model of {words.count(match.parameters)} parameters would "
            f"match {contrast.small.label} (95 % interval {low} to {high})."
        )
    if match.exact_fit:
        text += " Two sizes only: the fit has nothing left to be checked with."
    return text


def learning_sentences(views: Views) -> list[str]:
    """Number of training examples at which each curve overtakes the large model."""
    found = []
    for entry in views.learning:
        result = entry.overtaking
        if result is None:
            continue
        name = f"{entry.curve.name} against {entry.large}"
        if result.status == REACHED and result.examples_needed is not None:
            high = result.interval.high
            to = "beyond the measured sizes" if math.isinf(high) else f"{high:,.0f}"
            found.append(
                f"{name}: overtaken from about {result.examples_needed:,.0f} training examples on "
                f"(95 % interval {result.interval.low:,.0f} to {to})."
            )
        elif result.status == AT_SMALLEST:
            found.append(f"{name}: overtaken already with {result.sizes[0]:,.0f} examples.")
        else:
            found.append(f"{name}: not overtaken within the measured sizes.")
    return found


def hybrid_sentence(test: TestSet, views: Views) -> str:
    """What sending the least confident prompts to the large model would give."""
    curve, contrast = views.hybrid, views.contrast
    if curve is None or contrast is None or contrast.large is None:
        return ""
    scale = scale_of(test)
    alone = scale.value(float(curve.scores[0]))
    text = (
        f"{contrast.small.label} alone: {alone}. Best with {100 * curve.best_share:.0f} % of the "
        f"prompts sent to {contrast.large.label}: {scale.value(curve.best_score)} (picked on these "
        f"examples; {scale.value(curve.held_out_score)} where the share is picked on others)."
    )
    if math.isfinite(curve.gain_captured):
        reached = [*curve.oracle.tolist(), curve.best_score]
        ideal = max(reached, key=lambda score: test.sign * score)
        text += (
            " Ideal routing, which would know beforehand who does better on each prompt: "
            f"{scale.value(ideal)}. Of the area between random and ideal routing, over all "
            f"shares of prompts, its confidence covers {100 * curve.gain_captured:.0f} %."
        )
    return text


def paid_back_sentences(entries: Sequence[PaidBack]) -> list[str]:
    """Break-even against every way of getting the large model's answers."""
    return [_paid_back(entry) for entry in entries]


def _paid_back(entry: PaidBack) -> str:
    text = f"Against {entry.against}, in {entry.unit}: {entry.result.reason}"
    if not math.isfinite(entry.result.answers):
        return f"{text}."
    low, high = (f"{v:,.0f}" if math.isfinite(v) else "never" for v in (entry.low, entry.high))
    spread = "" if low == high else f" ({low} to {high} over the seeds' speed)"
    return (
        f"{text}{spread}. That is all {words.plural(entry.jobs, 'training run')} behind the choice;"
        f" one run of the chosen configuration alone: {entry.alone:,.0f} answers."
    )


# Why an example was left out when it was cut into tokens.
TOO_LONG = {
    "answer_cut": "prompt and answer too long, the answer would be cut",
    "no_room_to_answer": "prompt too long, no room for an answer",
}


def data_sentences(test: TestSet) -> list[str]:
    """Say what of a test set's rows did not become examples as they stand; once for equal data."""
    outcomes = [member.run.outcome for arm in test.arms for member in arm.members]
    said = [_left_out(test.dataset, outcome.data) for outcome in outcomes]
    return list(dict.fromkeys(filter(None, said)))


def _left_out(dataset: str, data: DataFacts) -> str:
    """A set beside the data of the run has a report of its own within the run's."""
    own = dataset == data.name
    report = data.report if own else (data.report.get("further") or {}).get(dataset) or {}
    dropped = data.dropped if own else report.get("dropped") or {}
    counts = {
        **(report.get("filtered") or {}),
        "duplicates": report.get("duplicates"),
        **{_dropped(key): number for key, number in dropped.items()},
    }
    left, cut = (
        [f"{number:,} {what.replace('_', ' ')}" for what, number in found.items() if number]
        for found in (counts, report.get("shortened") or {})
    )
    noted = [
        f"{what} ({number:,})" for what, number in (report.get("noted") or {}).items() if number
    ]
    parts = (("Left out", left), ("Prompts cut", cut), ("Noted", noted))
    said = " ".join(f"{title}: {', '.join(found)}." for title, found in parts if found)
    return f"{dataset}, {report.get('rows', 0):,} rows. {said}" if said else ""


def _dropped(key: str) -> str:
    """``train/answer_cut`` in words, the split first."""
    split, _, reason = key.partition("/")
    return f"of {split} ({TOO_LONG.get(reason, reason)})"
