"""One question as a run's model was trained to read it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sizewise.app.chat.wording import as_in_training
from sizewise.data.example import Example, Message
from sizewise.data.few_shot import add_demonstrations, without_demonstrations
from sizewise.errors import EvaluationError
from sizewise.job.tasks import load_splits
from sizewise.models.figures import context_length
from sizewise.release.loading import FinishedRun

ASKED = "asked"


def conversation(run: FinishedRun, question: str) -> tuple[Message, ...]:
    """Write a question with the run's system text, prompt and worked examples.

    The question is put into the data set's own words where its prompt has one column; a system
    text with columns is left out.

    Raises:
        DataError: the run shows worked examples, and its data can no longer be read.
    """
    dataset = run.cfg.dataset
    text = as_in_training(dataset.prompt, question) or question
    messages: tuple[Message, ...] = (Message("user", text),)
    if dataset.system and "{" not in dataset.system:
        messages = (Message("system", dataset.system), *messages)
    return _demonstrated(run, messages) if dataset.few_shot else messages


def _demonstrated(run: FinishedRun, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Put the run's own worked examples before a question, as they stand before its test ones."""
    dataset = run.cfg.dataset
    splits = load_splits(without_demonstrations(dataset), dry_run=run.cfg.dry_run)
    asked = Example(messages, "", ASKED)
    splits = replace(splits, test=(*splits.test, asked))
    shown = add_demonstrations(splits, dataset.few_shot, dataset.few_shot_style, dataset.max_train)
    return shown.test[-1].messages


def prompt_ids(run: FinishedRun, template: Any, messages: tuple[Message, ...]) -> list[int]:
    """Encode a conversation.

    Raises:
        EvaluationError: the model has no positions for it and an answer.
    """
    ids: list[int] = template.prompt_ids(messages)
    known = [n for n in (context_length(run.cfg.model), template.context) if n is not None]
    room = min(known) - run.cfg.generation.max_new_tokens if known else None
    if room is not None and len(ids) > room:
        raise EvaluationError(
            f"This question needs {len(ids)} tokens as it is put to {run.cfg.model.name}, which "
            f"has room for {max(0, room)} beside an answer. Shorten it."
        )
    return ids
