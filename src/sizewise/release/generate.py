"""The model of a finished run, loaded again, and one question as it was trained to read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sizewise.config import QuantizationConfig, RunConfig
from sizewise.config.targets import recorded_config
from sizewise.data.example import Example, Message
from sizewise.data.rows.columns import TextTemplate, placeholders
from sizewise.data.splits.few_shot import add_demonstrations, without_demonstrations
from sizewise.data.tokens.template import Template
from sizewise.errors import EvaluationError, ModelError
from sizewise.job.bases import storage_of
from sizewise.job.data import load_splits
from sizewise.models.adapter.attach import adapter_folder, cast_adapter, load_adapter
from sizewise.models.architecture import context_length
from sizewise.models.base import load_base
from sizewise.record.directories import ADAPTER, RunDir
from sizewise.record.fit import check_adapter
from sizewise.record.outcome import Outcome, read_outcome
from sizewise.runtime import resolve_device


@dataclass(frozen=True)
class FinishedRun:
    """A run directory with its record and typed configuration."""

    folder: Path
    outcome: Outcome
    cfg: RunConfig

    @property
    def adapter(self) -> Path:
        """Folder of the trained weights; those that were scored, where the run is an evaluation.

        Raises:
            ModelError: the run trained nothing, or what it scored is no longer there.
            ConfigError: the weights are not what the training wrote.
        """
        folder = RunDir(self.folder).adapter
        if self.cfg.stage == "evaluate" and self.cfg.adapter is not None:
            folder = adapter_folder(self.cfg.adapter)
        if not folder.is_dir():
            raise ModelError(
                f"{self.folder} holds no {ADAPTER}: the run trained nothing (lora=none). "
                "Choose a run that did."
            )
        check_adapter(folder)
        return folder


def open_run(folder: Path, remote_code: bool = False) -> FinishedRun:
    """Read a finished run, whoever it is from; code of its base runs only with ``remote_code``.

    Raises:
        OutcomeError: it has not finished, or its record is damaged.
        ConfigError: its configuration is not of this version.
    """
    outcome = read_outcome(folder)
    return FinishedRun(folder, outcome, recorded_config(outcome.config, remote_code))


def load_run_base(run: FinishedRun, quantized: bool = True) -> Any:
    """Load the base of a run on the device of its trainer, or of this machine, stored as it was.

    ``quantized`` false: in its own floating-point weights, whatever the run used; that is what an
    adapter is merged into, since merging into 4-bit weights rounds the sum.
    """
    storage = storage_of(run.cfg) if quantized else (run.cfg.model, QuantizationConfig())
    device = resolve_device(replace(run.cfg.trainer, accelerator="auto"))
    return load_base(*storage, device)


def load_run_model(run: FinishedRun, quantized: bool = True) -> Any:
    """Load base and trained weights of a run; the base alone for a run that trained nothing."""
    if run.outcome.tuned is None:
        return load_run_base(run, quantized)
    folder = run.adapter  # before anything is loaded
    return with_weights(run, load_run_base(run, quantized), folder, quantized)


def with_weights(run: FinishedRun, base: Any, folder: Path, as_trained: bool = True) -> Any:
    """Put trained weights on a base of the run; ``as_trained``: in the dtype they had there."""
    model = load_adapter(base, folder).eval()
    if as_trained:
        cast_adapter(model, run.cfg.trainer)
    return model


def as_in_training(prompt: str, text: str) -> str | None:
    """Write a message as the data set writes its prompts; None unless it has one column.

    ``prompt`` is ``dataset.prompt``, such as ``"{dialogue}\\n\\nWhich code fits?"``.
    """
    columns = placeholders(prompt)
    if len(columns) != 1 or prompt.strip() == f"{{{columns[0]}}}":
        return None
    return TextTemplate(prompt, columns, "dataset.prompt").render({columns[0]: text})


def out_of_training(prompt: str, written: str) -> str:
    """Take a message out of the words of ``as_in_training``; as it is where it is not in them."""
    mark = "\x00"
    around = as_in_training(prompt, mark)
    before, _, after = (around or mark).partition(mark)
    fits = written.startswith(before) and written.endswith(after)
    return written[len(before) : len(written) - len(after)] if fits else written


def fit_history(
    messages: Sequence[Message], template: Template, limit: int | None
) -> tuple[list[int], int]:
    """Encode a conversation, leaving out its oldest exchanges until it fits ``limit`` tokens.

    ``messages`` are an optional system turn, then alternating turns that end with a user turn.
    Returns the prompt's ids, and how many messages were left out.

    Raises:
        EvaluationError: the last message alone is too long.
    """
    system = [m for m in messages[:1] if m.role == "system"]
    turns = list(messages[len(system) :])
    for dropped in range(0, len(turns), 2):
        ids = template.encode_prompts([[*system, *turns[dropped:]]])[0]
        if limit is None or len(ids) <= limit:
            return ids, dropped
    raise EvaluationError(
        f"This message needs {len(ids)} tokens with the system text, and the model has room for "
        f"{limit} beside its answer. Shorten it, or lower the answer's length."
    )


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


def prompt_ids(run: FinishedRun, template: Template, messages: tuple[Message, ...]) -> list[int]:
    """Encode a conversation; raises EvaluationError if it leaves no positions for an answer."""
    ids = template.prompt_ids(messages)
    known = [n for n in (context_length(run.cfg.model), template.context) if n is not None]
    room = min(known) - run.cfg.generation.max_new_tokens if known else None
    if room is not None and len(ids) > room:
        raise EvaluationError(
            f"This question needs {len(ids)} tokens as it is put to {run.cfg.model.name}, which "
            f"has room for {max(0, room)} beside an answer. Shorten it."
        )
    return ids
