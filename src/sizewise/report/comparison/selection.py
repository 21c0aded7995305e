"""Which arms stand for a question: mere settings are chosen by validation, never by the test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sizewise.files import key_text
from sizewise.record.identity import flatten
from sizewise.record.stops import by_loss
from sizewise.report.comparison.arms import CLASSICAL, DATA, TUNED, ZERO_SHOT, Arm, TestSet

# Chosen between by validation; everything else is a question of its own.
CHOSEN = (
    "optimizer.", "scheduler.", "trainer.", "callbacks.", "evaluation.",
    "lora.alpha", "lora.dropout", "lora.init_seed", "lora.fast",
)  # fmt: skip
UNCHANGING = ("metric.", "eval_dataset.")
# Chosen between by validation for a model that was not trained: its only settings.
WORDING = (
    "dataset.prompt", "dataset.system", "dataset.answer", "dataset.few_shot",
    "dataset.max_train", "dataset.max_validation",
)  # fmt: skip


def one_per_question(test: TestSet, kind: str = TUNED) -> list[Arm]:
    """Arms of a kind, one per question: what is a mere setting is chosen by validation.

    Zero-shot arms whose wordings were not asked on the validation split all stand for themselves.
    """
    arms = [arm for arm in test.scored if arm.kind == kind]
    if kind == CLASSICAL:
        return arms
    if kind != ZERO_SHOT:
        return [
            chosen_by_validation(test, group)
            for group in alike_but_for(arms, (*CHOSEN, *UNCHANGING))
        ]
    found: list[Arm] = []
    for group in alike_but_for(arms, WORDING):
        asked = all(arm.validated(test.primary) is not None for arm in group)
        found += [chosen_by_validation(test, group)] if asked else group
    return found


def chosen_by_validation(test: TestSet, arms: Sequence[Arm]) -> Arm:
    """The best by validation: by the primary score where all have it, else by the loss."""
    scores = [arm.validated(test.primary) for arm in arms]
    known = [score for score in scores if score is not None and np.isfinite(score)]
    if len(known) < len(arms):
        return min(arms, key=validation_order)
    ranked = zip(arms, known, strict=True)
    return min(ranked, key=lambda entry: (-test.sign * entry[1], *validation_order(entry[0])))[0]


def validation_order(arm: Arm) -> tuple[float, str]:
    """Order of choice: validation loss first; without one last."""
    return by_loss(arm.validation, arm.label)


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
    return key_text(flat)


def alike_but_for(arms: Sequence[Arm], ignored: tuple[str, ...]) -> list[list[Arm]]:
    """Group arms by their configuration less the keys that begin like an ignored one."""
    groups: dict[str, list[Arm]] = {}
    for arm in arms:
        groups.setdefault(rest(arm, ignored), []).append(arm)
    return list(groups.values())
