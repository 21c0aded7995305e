"""What a reviewer would object to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sizewise import words
from sizewise.files import key_text
from sizewise.record.brackets import CellRecord, read_tuning
from sizewise.record.identity import flatten
from sizewise.report.comparison.arms import CLASSICAL, DATA, ZERO_SHOT, Arm, TestSet
from sizewise.report.comparison.contrast import Case, compare_cases
from sizewise.report.comparison.pair import Pair
from sizewise.report.comparison.pairs import rows
from sizewise.report.comparison.readings import (
    MOST_UNFINISHED,
    calibration_of,
    is_closed,
    same_answer,
    unfinished,
    unusable,
)
from sizewise.report.comparison.selection import (
    CHOSEN,
    UNCHANGING,
    one_per_question,
    rest,
    variant_key,
)
from sizewise.report.ratings.judging import judge_warnings

FEW_EXAMPLES = 100
FEW_GROUPS = 20
MOST_UNPARSED = 0.05
MANY_COPIED = 0.1
MOST_OFF = 0.1
MOST_NAMES = 4


def warnings_of(test: TestSet, pairs: list[Pair]) -> list[str]:
    """Return every objection to the comparison on one test set, each one sentence."""
    checks = (
        _seeds, _examples, _leaks, _prompts, _decoding, _int8, _budgets, _one_rate,
        _edges, _rows, _unusable, _one_answer, _cut, _sure, _memorised, _selection,
        judge_warnings,
    )  # fmt: skip
    found = [*test.notes, *_baselines(test, pairs)]
    found += [warning for check in checks for warning in check(test)]
    unusual = [p for p in pairs if p.result.p_value != p.result.p_value]
    if unusual:
        found.append(f"{words.plural(len(unusual), 'pair')} could not be tested: nothing varies.")
    flat = [p for p in pairs if p.result.standard_error == 0.0 and p.low == p.high]
    if flat:
        found.append(
            f"{words.plural(len(flat), 'pair')} differ by the same on every example: an interval "
            "without width says nothing of other examples."
        )
    recorded = [w for c in test.arms for m in c.members for w in m.run.outcome.warnings]
    return list(dict.fromkeys([*found, *recorded]))


def _names(arms: list[Arm]) -> str:
    return words.first_of(sorted({c.label for c in arms}), MOST_NAMES)


def _baselines(test: TestSet, pairs: Sequence[Pair]) -> Iterator[str]:
    """Beating another language model means little where counting words does better."""
    known = [c for c in test.arms if c.score() == c.score()]
    simple = [c for c in known if c.kind == CLASSICAL]
    models = [c for c in known if c.has_form]
    if is_closed(test) and any(c.tuned for c in models) and not simple:
        yield (
            "No baseline without a language model was run: the commonest answer and TF-IDF cost "
            "seconds (model=majority,tfidf_logreg) and may beat all of these."
        )
    if not simple or not models:
        return
    best, model = (max(group, key=lambda c: test.sign * c.score()) for group in (simple, models))
    if test.sign * best.score() > test.sign * model.score():
        scale = words.Scale(test.direction == "max" and 0 <= min(c.score() for c in known) <= 1)
        shown = _does_worse(test, best, pairs)
        how = "does better than all of these"
        if not shown:
            how = "scores higher than all of these (not shown to differ from every one)"
        yield (
            f"A baseline without a language model {how}: {best.label} "
            f"{scale.value(best.score())} against {scale.value(model.score())} of {model.label}."
        )


def _does_worse(test: TestSet, other: Arm, pairs: Sequence[Pair]) -> bool:
    """Whether every language model is shown to do worse: by its pair, else by a test here.

    Of settings the one that validation chose stands for all.
    """
    arms = [*one_per_question(test), *one_per_question(test, ZERO_SHOT)]
    asked = {id(arm) for arm in arms}
    found = {id(p.a): p.loses for p in pairs if p.b is other and id(p.a) in asked}
    left = [arm for arm in arms if id(arm) not in found]
    if not all(found.values()) or any(arm.scores is None for arm in (other, *left)):
        return False
    tested = compare_cases(test, [Case(rows(arm), rows(other)) for arm in left])
    return all(result is not None and result.loses for result in tested)


def _seeds(test: TestSet) -> Iterator[str]:
    single = [c for c in test.arms if c.tuned and len(c.members) == 1]
    if single:
        yield f"One seed only, so the variation by seed is unknown: {_names(single)}."


def _examples(test: TestSet) -> Iterator[str]:
    n, groups = len(test.ids), len(set(test.groups))
    if 0 < n < FEW_EXAMPLES:
        yield f"Only {words.plural(n, 'test example')} (under {FEW_EXAMPLES})."
    if n and groups < FEW_GROUPS and groups < n:
        yield f"Only {words.plural(groups, 'independent group')} of test examples."
    if test.left_out:
        yield (
            f"{test.left_out} of {test.recorded} test examples were not answered by every "
            "model (too long for one of them) and are left out."
        )


def _leaks(test: TestSet) -> Iterator[str]:
    reports = [c.first.run.outcome.data.report for c in test.arms]
    shared = max((int(r.get("shared_groups") or 0) for r in reports), default=0)
    leaking = max((int(r.get("leaking_rows") or 0) for r in reports), default=0)
    if shared:
        yield f"The splits share {words.plural(shared, 'group')}: results are too good."
    if leaking and not shared:
        yield (
            f"In the source's own split {words.plural(leaking, 'evaluation row')} occur in "
            "training; they were taken out of it."
        )


def _prompts(test: TestSet) -> Iterator[str]:
    prompts = {c.first.run.outcome.data.prompt_fingerprint for c in test.arms}
    if len(prompts) > 1:
        yield f"Models were asked in {len(prompts)} different wordings or with different examples."


def _decoding(test: TestSet) -> Iterator[str]:
    ways = {key_text(c.first.run.outcome.config.get("generation")) for c in test.arms}
    if len(ways) > 1:
        yield f"Answers were decoded in {len(ways)} different ways."


def _int8(test: TestSet) -> Iterator[str]:
    """The text of an 8-bit model is not quite the same in every batch (see docs/architecture)."""
    configs = [
        m.run.outcome.config
        for c in test.arms
        for m in c.members
        if m.run.outcome.model.quantization == "int8"
    ]
    batches = {
        (config.get("evaluation") or {}).get("batch_size") or config["trainer"]["batch_size"]
        for config in configs
        if config.get("trainer")
    }
    if len(batches) > 1:
        yield (
            f"int8 models were asked in batches of {' and '.join(map(str, sorted(batches)))}, and "
            "their answers depend on the batch: set the same evaluation.batch_size."
        )


def _tried(test: TestSet) -> dict[str, int]:
    """Settings tried per question; candidates that a sweep stopped count as those that ended."""
    settings: dict[str, set[str]] = {}
    candidates: dict[str, int] = {}
    in_cell = _candidates(test)
    for arm in test.arms:
        if arm.tuned:
            flat = {k: v for k, v in flatten(arm.config).items() if k.startswith(CHOSEN)}
            key = variant_key(arm)
            settings.setdefault(key, set()).add(key_text(flat))
            several = max(in_cell.get(m.run.directory.name, 0) for m in arm.members)
            candidates[key] = max(candidates.get(key, 0), several)
    return {key: max(len(found), candidates[key]) for key, found in settings.items()}


def _cells(test: TestSet) -> dict[str, CellRecord]:
    """Run → the cell whose learning rates it was among, as the sweeps of the runs have recorded."""
    runs = [m.run for arm in test.arms if arm.tuned for m in arm.members]
    records = [read_tuning(sweep) for sweep in {run.directory.parent for run in runs}]
    return {
        candidate.run: cell
        for record in records
        if record is not None
        for cell in record.cells
        for candidate in cell.candidates
    }


def _candidates(test: TestSet) -> dict[str, int]:
    """Run → number of candidates of its cell."""
    return {run: len(cell.candidates) for run, cell in _cells(test).items()}


def _edges(test: TestSet) -> Iterator[str]:
    """A best rate that has no neighbour on one side is not known to be the best."""
    cells = _cells(test)
    at: dict[str, list[Arm]] = {}
    for arm in test.arms:
        edges = {cells[name].edge for m in arm.members if (name := m.run.directory.name) in cells}
        if arm.tuned and edges - {""}:
            at.setdefault(edges.pop(), []).append(arm)
    for edge, arms in sorted(at.items()):
        further, factors = ("lower", "0.1,0.333,1") if edge == "lowest" else ("higher", "1,3,10")
        yield (
            f"The best learning rate was the {edge} that was tried, so a {further} one may be "
            f"better still: {_names(arms)} (sweep.tuning.lr_factors=[{factors}])."
        )


def _budgets(test: TestSet) -> Iterator[str]:
    """Whoever tries more learning rates finds a better one."""
    counts = set(_tried(test).values())
    if len(counts) > 1:
        yield (
            f"Unequal tuning budgets: between {min(counts)} and {max(counts)} settings (learning "
            "rates and the like) were tried per model and rank."
        )


def _one_rate(test: TestSet) -> Iterator[str]:
    """A rank is judged at its own best learning rate, or with the one that happened to suit it."""
    ranks: dict[str, set[object]] = {}
    rates: dict[str, set[object]] = {}
    for arm in test.arms:
        if arm.tuned and arm.model.lora_r is not None:
            ranks.setdefault(arm.model.name, set()).add(arm.model.lora_r)
            rates.setdefault(variant_key(arm), set()).add(flatten(arm.config).get("optimizer.lr"))
    several = any(len(found) > 1 for found in ranks.values())
    if not several or any(len(found) > 1 for found in rates.values()):
        return
    if max(_candidates(test).values(), default=1) < 2:
        yield (
            "Ranks were compared at one learning rate: a rank may win because the rate suits it. "
            "Try several rates for each (optimizer.lr=…) and let validation choose."
        )


def _rows(test: TestSet) -> Iterator[str]:
    """Unlike numbers of training rows, but for a learning curve: there every cell has all."""
    cells: dict[str, set[int]] = {}
    for arm in test.arms:
        if arm.tuned:
            key = rest(arm, (*CHOSEN, *UNCHANGING, "dataset.max_", DATA))
            cells.setdefault(key, set()).add(arm.max_train)
    if len({tuple(sorted(sizes)) for sizes in cells.values()}) > 1:
        sizes = sorted({size for found in cells.values() for size in found})
        named = " and ".join(f"{size:,}" for size in (sizes[0], sizes[-1]))
        yield (
            f"Models were trained on unlike numbers of rows (between {named}): their differences "
            "are not those of models or ranks alone."
        )


def _unusable(test: TestSet) -> Iterator[str]:
    shares = [(c, unusable(test, c) or 0.0) for c in test.arms]
    high = [(c, share) for c, share in shares if share > MOST_UNPARSED]
    if high and is_closed(test):
        share = words.Scale(True).value(max(share for _, share in high))
        yield (
            f"No existing answer could be read in up to {share} of the outputs (unparsed or "
            f"invalid): {_names([c for c, _ in high])}."
        )


def _one_answer(test: TestSet) -> Iterator[str]:
    """A model that says the same to everybody has not learned the task."""
    found = [(c, share) for c in test.arms if (share := same_answer(test, c)) is not None]
    if found:
        least = min(share for _, share in found)
        which = "all" if least == 1.0 else f"{words.Scale(True).value(least)} or more of the"
        yield (
            f"One answer to {which} prompts, so it may have learned the commonest answer only: "
            f"{_names([c for c, _ in found])}."
        )


def _cut(test: TestSet) -> Iterator[str]:
    shares = [(c, unfinished(test, c) or 0.0) for c in test.arms]
    high = [(c, share) for c, share in shares if share > MOST_UNFINISHED]
    if high:
        share = words.Scale(True).value(max(share for _, share in high))
        yield (
            f"Up to {share} of the answers were cut at generation.max_new_tokens: "
            f"{_names([c for c, _ in high])}."
        )


def _sure(test: TestSet) -> Iterator[str]:
    found = [calibration_of(test, c) for c in test.scored if c.has_form]
    off = [c for c in found if c is not None and c.confidence - c.accuracy > MOST_OFF]
    if not off:
        return
    worst = max(off, key=lambda c: c.confidence - c.accuracy)
    yield (
        f"{worst.model} is surer than it is right: mean probability {worst.confidence:.2f} at "
        f"accuracy {worst.accuracy:.2f} (calibration error {worst.error:.2f}). Do not read its "
        "probabilities as chances."
    )


def _memorised(test: TestSet) -> Iterator[str]:
    """Word runs shared with training answers, by models and (``reference_``) by test answers."""
    natural = 0.0
    for arm in test.arms:
        shares = {
            name.removeprefix("memorization/"): arm.score(name)
            for name in arm.first.scores
            if name.startswith("memorization/") and "shared_" in name
        }
        own = max((v for k, v in shares.items() if k.startswith("shared_")), default=0.0)
        reference = max((v for k, v in shares.items() if k.startswith("reference_")), default=0.0)
        natural = max(natural, reference)
        if own > reference + MANY_COPIED:
            share = words.Scale(True).value(own)
            yield f"{arm.label} repeats training answers: {share} of its word runs."
    if natural > MANY_COPIED:
        share = words.Scale(True).value(natural)
        yield f"Test answers share {share} of their word runs with training answers."


def _selection(test: TestSet) -> Iterator[str]:
    for arm in test.arms:
        outcome = arm.first.run.outcome
        prints = outcome.data.fingerprints
        if prints.get("validation") and prints.get("validation") == prints.get("test"):
            yield "Validation and test are the same examples: choices were made on the test set."
            return
        flat = flatten(outcome.config)
        if any(k.endswith("monitor") and "test" in str(v) for k, v in flat.items()):
            yield f"A callback of {arm.label} watches a figure of the test set."
            return
