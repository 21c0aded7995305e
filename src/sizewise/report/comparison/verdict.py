"""The answer in one status, a headline and a sentence that carries all that a reader must know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sizewise import words
from sizewise.metrics import PERPLEXITY_PREFIX
from sizewise.report.comparison import sentences
from sizewise.report.comparison.arms import ZERO_SHOT, Arm, TestSet
from sizewise.report.comparison.contrast import (
    Case,
    Tested,
    compare_cases,
    find_contrast,
    highest_scoring,
    scale_of,
)
from sizewise.report.comparison.pair import Pair
from sizewise.report.comparison.pairs import OWN_BASE, SMALL_LARGE, rows
from sizewise.report.comparison.readings import has_no_usable_answer, read_as
from sizewise.report.comparison.selection import chosen_by_validation
from sizewise.report.comparison.sentences import Baseline, Findings
from sizewise.report.comparison.strata import Reversal, Stratum, hybrid_of, reversals, strata_of
from sizewise.report.comparison.test_sets import COMPARABLE
from sizewise.report.ratings.judging import unusable_judges

SHOWN = "shown"
BEATS_SIZE = "beats size, not the baseline"
NEITHER = "neither is useful yet"
NO_CONTEST = "no contest"
MIXED = "mixed"
FORM = "form"
SIZE_WINS = "size wins"
NOT_SHOWN = "not shown"
OPEN = "open"
DIFFER = "differ"  # of a comparison by keys: some pair differs

# How a status looks wherever it is shown: won, won with a limit, lost, undecided, open.
TONES = {
    SHOWN: "shown", DIFFER: "shown", BEATS_SIZE: "limited", MIXED: "limited", FORM: "limited",
    SIZE_WINS: "size-wins", NEITHER: "not-shown", NO_CONTEST: "not-shown", NOT_SHOWN: "not-shown",
    OPEN: "open",
}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """One of the statuses above, with the claim and what it rests on.

    Attributes:
        headline: a few words.
        sentence: the claim with its figures and everything that limits it.
        pair: what it is about.
        also: further statuses that hold beside the first, gravest first.
        baseline: the best model without a language model, tested against both sides.
        strata: scores by kind of example, tested.
        reversals: kinds of examples at which the other side is shown to win.
        parts: what the sentence is made of, where it is made of several.
        named: how the pair named in advance ended, where ``pair`` is another one.
    """

    status: str
    headline: str
    sentence: str
    pair: Pair | None = None
    also: tuple[str, ...] = ()
    baseline: Baseline | None = None
    strata: tuple[Stratum, ...] = ()
    reversals: tuple[Reversal, ...] = ()
    parts: tuple[str, ...] = ()
    named: str = ""

    @property
    def tone(self) -> str:
        return TONES[self.status]


def judge(test: TestSet, pairs: Sequence[Pair], by: Sequence[str] = (), seed: int = 0) -> Verdict:
    """Say whether a small tuned model beats the larger zero-shot ones.

    Each small model is stood for by its adapter that is best by validation, and beats size if it
    beats every larger zero-shot model, in every way it was asked; the smallest winner is named. If
    none wins, the pair is the one that comes nearest, against the model that is hardest to beat.
    The correction over all pairs covers that choice, which the test set makes; how the pair that
    validation named in advance ended is said with it.
    With ``by`` the pairs are those that differ in these configuration keys only.
    """
    if why := unusable_judges(test):
        return _not_usable(why)
    verdict = _by_key(test, pairs, ", ".join(by)) if by else _judged(test, pairs, seed)
    if test.tokenizers == 1:
        return verdict
    first = (
        f"{test.primary} cannot be compared across tokenizers (there are {test.tokenizers}; use "
        f"{COMPARABLE}), so only models with the same one are compared. "
    )
    return replace(verdict, sentence=first + verdict.sentence)


def _judged(test: TestSet, pairs: Sequence[Pair], seed: int) -> Verdict:
    contested = [p for p in pairs if p.question == SMALL_LARGE]
    if test.primary.startswith(PERPLEXITY_PREFIX) and any(arm.tuned for arm in test.arms):
        return _no_score_of_the_task(test)
    if not contested:
        return _without_contest(test, pairs)
    pair = _decisive(test, contested)
    found = _findings(test, pair, pairs, seed)
    statuses, parts = _statuses(found), sentences.verdict_parts(found)
    return Verdict(
        status=statuses[0],
        headline=_headline(statuses[0], found),
        sentence=" ".join(parts),
        parts=parts,
        named=sentences.named_in_advance(test, found.named),
        pair=pair,
        also=tuple(statuses[1:]),
        baseline=found.baseline,
        strata=found.strata,
        reversals=found.reversals,
    )


def _decisive(test: TestSet, contested: Sequence[Pair]) -> Pair:
    """The smallest winner's pair with the model hardest to beat, else the nearest to winning."""
    of_small: dict[int, list[Pair]] = {}
    chosen = _chosen(test, [p.a for p in contested])
    for pair in contested:
        if any(pair.a is arm for arm in chosen):
            of_small.setdefault(id(pair.a), []).append(pair)
    hardest = [min(pairs, key=_ease) for pairs in of_small.values()]
    winners = [p for p in hardest if p.wins]
    if winners:
        return min(winners, key=lambda p: (p.a.size, -p.gain))
    return max(hardest, key=lambda p: p.gain)


def _ease(pair: Pair) -> tuple[int, float]:
    return (2 if pair.wins else 0 if pair.loses else 1, pair.gain)


def _chosen(test: TestSet, arms: Sequence[Arm]) -> list[Arm]:
    """Per small model the adapter that is best by validation, a teacher's apart from gold's."""
    of_model: dict[tuple[str, float, bool], list[Arm]] = {}
    for arm in arms:
        key = (arm.model.name, arm.size, arm.chosen_by_teacher)
        of_model.setdefault(key, []).append(arm)
    return [chosen_by_validation(test, same) for same in of_model.values()]


def _findings(test: TestSet, pair: Pair, pairs: Sequence[Pair], seed: int) -> Findings:
    contrast = find_contrast(test, pair)
    strata = tuple(strata_of(test, contrast, seed)) if contrast else ()
    turned = tuple(reversals(strata, pair.wins, pair.loses))
    return Findings(
        test=test,
        pair=pair,
        others=tuple(
            p for p in pairs if p.question == SMALL_LARGE and p.a is pair.a and p is not pair
        ),
        named=next((p for p in pairs if p.primary and p is not pair), None),
        baselines=_baselines(test, pair, pairs, seed),
        strata=strata,
        reversals=turned,
        hybrid=hybrid_of(test, contrast, seed) if turned and contrast else None,
        said=_as_said(test, pair, seed),
        useless=tuple(arm for arm in (pair.a, pair.b) if has_no_usable_answer(test, arm)),
    )


def _baselines(test: TestSet, pair: Pair, pairs: Sequence[Pair], seed: int) -> tuple[Baseline, ...]:
    """Models that write no text, best first, each tested against both sides where it can be.

    A test among the pairs goes before one of its own.
    """
    arms = [arm for arm in test.arms if not arm.has_form and arm.score() == arm.score()]
    arms.sort(key=lambda arm: -test.sign * arm.score())
    wanted = [(side, arm) for arm in arms if arm.scores is not None for side in (pair.a, pair.b)]
    tested = compare_cases(test, [Case(rows(side), rows(arm)) for side, arm in wanted], seed)
    found = {
        (id(side), id(arm)): _among(pairs, side, arm) or result
        for (side, arm), result in zip(wanted, tested, strict=True)
    }
    return tuple(
        Baseline(
            arm,
            found.get((id(pair.a), id(arm))),
            found.get((id(pair.b), id(arm))),
            *_ahead(test, arm, pair),
        )
        for arm in arms
    )


def _among(pairs: Sequence[Pair], a: Arm, b: Arm) -> Tested | None:
    for p in pairs:
        if p.a is a and p.b is b:
            means = (p.result.mean_a, p.result.mean_b)
            return Tested(*means, p.gain, p.low, p.high, p.p_corrected, p.result.n)
    return None


def _ahead(test: TestSet, baseline: Arm, pair: Pair) -> tuple[bool, bool]:
    """Whether the baseline's recorded score is at least that of each side."""
    scores = (test.sign * side.score() for side in (pair.a, pair.b))
    ahead = [test.sign * baseline.score() >= score for score in scores]
    return ahead[0], ahead[1]


def _as_said(test: TestSet, pair: Pair, seed: int) -> Tested | None:
    """The pair's difference in answers as said, where another reading counts."""
    if test.primary == test.said:
        return None
    small, large = (read_as(arm, test.said, test) for arm in (pair.a, pair.b))
    if small is None or large is None:
        return None
    return compare_cases(test, [Case(small, large[0])], seed)[0]


def _statuses(found: Findings) -> list[str]:
    """Every status that holds, gravest first."""
    pair = found.pair
    result = [SHOWN if pair.wins else SIZE_WINS if pair.loses else NOT_SHOWN]
    if found.reversals:
        result.insert(0, MIXED)
    if found.form is not None:
        result.insert(0, FORM)
    if pair.wins and found.baseline is not None and not found.baseline.beaten:
        result.insert(0, BEATS_SIZE)
    if _neither(found):
        result.insert(0, NEITHER)
    elif found.useless:
        result.insert(0, NO_CONTEST)
    # What is overruled is not said beside it; a limit is.
    return [result[0], *[s for s in result[1:] if s not in (SHOWN, NOT_SHOWN)]]


def _neither(found: Findings) -> bool:
    """Whether no side is of use: without a right or readable answer, or below a baseline."""
    pair, rival = found.pair, found.baseline
    nothing = scale_of(found.test).percent and pair.result.mean_a == pair.result.mean_b == 0
    if nothing or len(found.useless) == 2:
        return True
    if not pair.wins:
        return rival is not None and rival.beats_small and rival.beats_large
    commonest = [b for b in found.baselines if b.is_commonest]
    if any(not b.beaten for b in commonest):
        return True
    return bool(found.useless) and rival is not None and not rival.beaten


def _headline(status: str, found: Findings) -> str:
    fixed = {
        SHOWN: "Specialisation beats size",
        NEITHER: "Neither is useful yet",
        FORM: "Mostly form, not knowledge",
        SIZE_WINS: "Size beats specialisation",
        NOT_SHOWN: "Not shown",
    }
    if status == BEATS_SIZE and found.baseline is not None:
        beaten = "not" if found.baseline.beats_small else "not shown to beat"
        return f"Beats size, {beaten} the baseline"
    if status == NO_CONTEST:
        return f"No contest: {found.useless[0].label} gives no usable answer"
    if status == MIXED:
        return sentences.mixed_headline(found)
    return fixed[status]


def _no_score_of_the_task(test: TestSet) -> Verdict:
    name = test.primary.partition("/")[2].replace("_", " ")
    sentence = (
        f"Between tuned and untouched models nothing is decided by {name}: it is no score of the "
        "task but says how likely a model finds the reference answers, and that is what training "
        "improves, whatever the answers are worth. Use a metric of the task, a judge or ratings. "
        "Tuned models may be compared with each other by it."
    )
    return Verdict(OPEN, "Open: no score of the task", sentence)


def _not_usable(why: str) -> Verdict:
    sentence = (
        f"No verdict, because a judge is not usable: {why}. Leave it out (metric.judge.models), "
        "take a larger one, or rate answers in the app."
    )
    return Verdict(OPEN, "Open: the judge is not usable", sentence)


def _without_contest(test: TestSet, pairs: Sequence[Pair]) -> Verdict:
    own = [p for p in pairs if p.question == OWN_BASE]
    if not test.arms:
        return Verdict(OPEN, "No finished run", "No run has finished, so there is nothing to say.")
    if missing := _missing(test):
        return Verdict(OPEN, "Open", missing)
    which = "model" if test.tokenizers == 1 else "model with the same tokenizer"
    why = f"no larger zero-shot {which} answered the same test examples"
    if own:
        pair = max(own, key=lambda p: p.gain)
        how = sentences.either(test, pair)
        which = f" (the largest gain of {len(own)} such pairs)" if own[1:] else ""
        sentence = (
            f"Whether specialisation beats size is open: {why}. Against its own base{which}: {how}"
        )
        return Verdict(OPEN, "Open", sentence, pair)
    return Verdict(OPEN, "Open", f"Whether specialisation beats size is open: {why}.")


def _missing(test: TestSet) -> str:
    """What stands in the way of any pair, the first reason that holds; empty if nothing does."""
    unsaid = "Whether specialisation beats size cannot be said"
    if not any(arm.tuned for arm in test.arms):
        first = highest_scoring(test)
        if first is None:
            return f"No run has usable values of {test.primary} per example; nothing is compared."
        score = scale_of(test).value(first.score())
        kind = "zero-shot model" if first.kind == ZERO_SHOT else "model"
        return f"Nothing was tuned. Best {kind}: {first.label} with {score}."
    if not test.scored:
        return f"No run has usable values of {test.primary} per example; nothing is compared."
    if single := _single_unit(test):
        return f"{unsaid}: {single}."
    if not any(arm.tuned for arm in test.scored):
        lost = next(arm for arm in test.arms if arm.tuned)
        return f"{unsaid}: {lost.label} was tuned, but {lost.missing}."
    small = min(arm.size for arm in test.scored if arm.tuned)
    larger = [a for a in test.arms if a.kind == ZERO_SHOT and a.size > small]
    if larger and all(arm.scores is None for arm in larger):
        return f"{unsaid}: {larger[0].label} is larger, but {larger[0].missing}."
    return ""


def _single_unit(test: TestSet) -> str:
    """Why nothing can be tested, where the test examples are one unit; else empty."""
    if len(set(test.groups)) != 1:
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
    sentence = (
        f"Of the pairs that differ in {key} only, the largest difference: "
        f"{sentences.either(test, pair)}"
    )
    return Verdict(DIFFER if found else NOT_SHOWN, headline, sentence, pair)
