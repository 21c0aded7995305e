"""What a reviewer would object to."""

from __future__ import annotations

import json
from collections.abc import Iterator

from sizewise.record.identity import flatten
from sizewise.report import words
from sizewise.report.comparison.arms import CLASSICAL, Arm, TestSet
from sizewise.report.comparison.pairs import CHOSEN, Pair, variant_key

FEW_EXAMPLES = 100
FEW_GROUPS = 20
MOST_UNPARSED = 0.05
MANY_COPIED = 0.1
MOST_NAMES = 4


def warnings_of(test: TestSet, pairs: list[Pair]) -> list[str]:
    """Return every objection to the comparison on one test set, each one sentence."""
    checks = (
        _baselines, _seeds, _examples, _leaks, _prompts, _decoding, _int8, _budgets, _unparsed,
        _memorised, _selection,
    )  # fmt: skip
    found = [warning for check in checks for warning in check(test)]
    unusual = [p for p in pairs if p.result.p_value != p.result.p_value]
    if unusual:
        found.append(f"{words.plural(len(unusual), 'pair')} could not be tested: nothing varies.")
    recorded = [w for c in test.arms for m in c.members for w in m.run.outcome.warnings]
    return list(dict.fromkeys([*found, *recorded]))


def _names(arms: list[Arm]) -> str:
    labels = sorted({c.label for c in arms})
    more = f" and {len(labels) - MOST_NAMES} more" if len(labels) > MOST_NAMES else ""
    return ", ".join(labels[:MOST_NAMES]) + more


def _baselines(test: TestSet) -> Iterator[str]:
    """Beating another language model means little where counting words does better."""
    known = [c for c in test.arms if c.score() == c.score()]
    simple = [c for c in known if c.kind == CLASSICAL]
    models = [c for c in known if c.kind != CLASSICAL]
    if not simple or not models:
        return
    best, model = (max(group, key=lambda c: test.sign * c.score()) for group in (simple, models))
    if test.sign * best.score() > test.sign * model.score():
        scale = words.Scale(test.direction == "max" and 0 <= min(c.score() for c in known) <= 1)
        yield (
            f"A baseline without a language model does better than all of these: {best.label} "
            f"{scale.value(best.score())} against {scale.value(model.score())} of {model.label}."
        )


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
    ways = {
        json.dumps(c.first.run.outcome.config.get("generation"), sort_keys=True, default=str)
        for c in test.arms
    }
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


def _budgets(test: TestSet) -> Iterator[str]:
    """Settings tried per question: whoever tries more learning rates finds a better one."""
    tried: dict[str, set[str]] = {}
    for arm in test.arms:
        if arm.tuned:
            flat = flatten(arm.config)
            settings = {k: v for k, v in flat.items() if k.startswith(CHOSEN)}
            text = json.dumps(settings, sort_keys=True, default=str)
            tried.setdefault(variant_key(arm), set()).add(text)
    counts = {len(settings) for settings in tried.values()}
    if len(counts) > 1:
        yield (
            f"Unequal tuning budgets: between {min(counts)} and {max(counts)} settings (learning "
            "rates and the like) were tried per model and rank."
        )


def _unparsed(test: TestSet) -> Iterator[str]:
    high = [c for c in test.arms if (c.unparsed or 0.0) > MOST_UNPARSED]
    if high:
        worst = max(high, key=lambda c: c.unparsed or 0.0)
        share = words.Scale(True).value(worst.unparsed)
        yield f"No answer could be parsed in up to {share} of the outputs: {_names(high)}."


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
