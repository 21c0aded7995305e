"""The data of a job: every data set it names, split and encoded for its model."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sizewise.config import DatasetConfig, ModelConfig
from sizewise.data.build import build_splits
from sizewise.data.encode import EncodedSplit, encode_examples
from sizewise.data.example import DataSplits, SplitName
from sizewise.data.template import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Task:
    """One data set as a model sees it.

    Attributes:
        config: where it comes from and how it is written.
        splits: the examples.
        encoded: the same, encoded; only the splits that were asked for.
    """

    config: DatasetConfig
    splits: DataSplits
    encoded: Mapping[SplitName, EncodedSplit]

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.config.name

    @property
    def prompt_fingerprint(self) -> str:
        """Hash of the texts that surround the columns (16 hex digits)."""
        config = self.config
        parts = [config.system, config.prompt, config.answer, config.few_shot, config.max_length]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def make_template(tokenizer: PreTrainedTokenizerBase, model: ModelConfig) -> Any:
    """Return how prompts and answers are written for ``model``."""
    if model.family == "seq2seq":
        from sizewise.data.seq2seq import Seq2SeqTemplate

        return Seq2SeqTemplate(tokenizer)
    return ChatTemplate(tokenizer, model.chat_template, model.template_kwargs)


def load_task(
    dataset: DatasetConfig,
    template: Any,
    max_positions: int | None,
    cache_dir: Path,
    names: tuple[SplitName, ...] = SPLITS,
) -> Task:
    """Read, split and encode a data set.

    Args:
        dataset: its configuration.
        template: how prompts and answers are written.
        max_positions: the longest sequence the model takes, where it says so.
        cache_dir: where encoded splits are kept.
        names: the splits to encode.

    Raises:
        DataError: a split is empty, or all its answers are cut away.
    """
    splits = build_splits(dataset)
    encoded = {
        name: encode_examples(
            getattr(splits, name),
            template,
            dataset.max_length,
            dataset.truncate_prompt,
            cache_dir,
            context=max_positions,
            name=name,
        )
        for name in names
    }
    task = Task(dataset, splits, encoded)
    _say(task)
    return task


def _say(task: Task) -> None:
    report = task.splits.report
    sizes = ", ".join(f"{len(split.encoded)} {name}" for name, split in task.encoded.items())
    log.info("%s: %s examples from %d rows.", task.name, sizes, report.rows)
    if report.row_split_leak > 0:
        log.info(
            "%s: groups kept apart; a random split of rows would have put %.1f %% of the test "
            "rows' questions into training.",
            task.name,
            100 * report.row_split_leak,
        )
    dropped = {name: dict(split.dropped) for name, split in task.encoded.items() if split.dropped}
    if any(sum(counts.values()) for counts in dropped.values()):
        log.info("%s: dropped while encoding: %s.", task.name, dropped)
    if report.leaking_rows:
        log.warning(
            "%s: %d evaluation rows share a group with training in the source's own split.",
            task.name,
            report.leaking_rows,
        )
