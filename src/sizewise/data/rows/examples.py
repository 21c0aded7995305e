"""Rows to examples: columns become messages, an answer, a group and strata."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sizewise.config.data import DatasetConfig
from sizewise.data.example import Example, Message
from sizewise.data.rows.columns import TextTemplate, all_columns, as_text, resolve_column, tidy
from sizewise.data.rows.conversation import answered_turns, join_neighbours, read_turns
from sizewise.data.splits.groups import connect, text_key, worded_key
from sizewise.data.tokens.cache import hash_parts

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Candidates:
    """Examples before they are split.

    Attributes:
        examples: in the order of the rows; ``group`` is already the connected component.
        splits: the source's own split of each example, None where there is no such column.
        filtered: examples left out, by reason.
        rows: rows read.
    """

    examples: tuple[Example, ...]
    splits: tuple[str | None, ...]
    filtered: Mapping[str, int]
    rows: int


def make_examples(rows: Sequence[Row], cfg: DatasetConfig) -> Candidates:
    """Turn rows into examples: one per row, or one per answered turn of a conversation.

    Rows that share a declared group column or their first question get one group: the first user
    turn, or what the columns of the prompt hold, however it is worded. Texts are equal but for
    case, white space and compatibility forms. Another wording leaves groups as they are.
    The values of the system text are part of an id only where examples differ in nothing else.

    Raises:
        DataError: a configured column does not exist, or a dialogue cannot be read.
    """
    reader = RowReader(cfg, all_columns(rows))
    found: list[Example] = []
    told: list[tuple[str, ...]] = []
    splits: list[str | None] = []
    filtered: Counter[str] = Counter()
    for row in rows:
        for example in reader.read(row):
            reason = reason_to_drop(example, cfg)
            if reason is not None:
                filtered[reason] += 1
                continue
            found.append(example)
            told.append(reader.told(row))
            splits.append(reader.split(row))
    groups = connect([example.keys for example in found])
    origins = _origins(found, told)
    made = (
        replace(example, group=group, origin=origin)
        for example, group, origin in zip(found, groups, origins, strict=True)
    )
    return Candidates(tuple(made), tuple(splits), dict(filtered), len(rows))


def _origins(examples: Sequence[Example], told: Sequence[tuple[str, ...]]) -> list[str]:
    """Tell examples apart that differ in the values of their system text alone."""
    tellings: dict[str, set[tuple[str, ...]]] = {}
    for example, values in zip(examples, told, strict=True):
        tellings.setdefault(example.origin, set()).add(values)
    return [
        hash_parts(example.origin, values) if len(tellings[example.origin]) > 1 else example.origin
        for example, values in zip(examples, told, strict=True)
    ]


def reason_to_drop(example: Example, cfg: DatasetConfig) -> str | None:
    """Name the filter that leaves an example out; lengths are characters of question and answer."""
    question = example.messages[-1].content if example.messages else ""
    limits = cfg.filter
    if not example.answer.strip():
        return "empty_answer"
    if not question.strip() and limits.min_prompt_chars > 0:
        return "empty_prompt"
    for name, length, low, high in (
        ("prompt", len(question), limits.min_prompt_chars, limits.max_prompt_chars),
        ("answer", len(example.answer), limits.min_answer_chars, limits.max_answer_chars),
    ):
        if length < low:
            return f"{name}_too_short"
        if high is not None and length > high:
            return f"{name}_too_long"
    return None


class RowReader:
    """Reads the configured columns of one row; all names are resolved once, on construction."""

    def __init__(self, cfg: DatasetConfig, columns: Sequence[str]) -> None:
        def named(name: str | None, key: str) -> str | None:
            return resolve_column(name, columns, f"dataset.{key}") if name else None

        self._clean = cfg.clean_whitespace
        self._train_on = cfg.train_on
        self._system = TextTemplate(cfg.system or "", columns, "dataset.system")
        self._prompt = TextTemplate(cfg.prompt, columns, "dataset.prompt")
        self._answer = TextTemplate(cfg.answer, columns, "dataset.answer")
        self._history = named(cfg.history, "history")
        self._conversation = named(cfg.conversation, "conversation")
        self._label = named(cfg.label, "label")
        self._rejected = named(cfg.rejected, "rejected")
        self._split = named(cfg.split.column, "split.column")
        self._strata = {name: named(name, "strata") for name in cfg.strata}
        self._group = [(name, named(name, "group")) for name in cfg.group]

    def read(self, row: Row) -> Iterator[Example]:
        """Yield the row's examples, without a group."""
        meta = self._meta(row)
        for number, (messages, answer, asked) in enumerate(self._exchanges(row)):
            keys = (*self._declared(row), text_key(asked), worded_key(_question(messages)))
            origin = self._origin(row, number)
            yield Example(messages, answer, group="", meta=meta, origin=origin, keys=keys)

    def split(self, row: Row) -> str | None:
        """Return the source's own split of a row."""
        return as_text(row.get(self._split)).strip() if self._split is not None else None

    def told(self, row: Row) -> tuple[str, ...]:
        """Return the values of the row that the system text uses."""
        return tuple(as_text(row.get(name)) for name in sorted(self._system.columns))

    def _declared(self, row: Row) -> list[str]:
        cells = [(name, as_text(row.get(column or "")).strip()) for name, column in self._group]
        return [f"{name.strip()}={value}" for name, value in cells if value]

    def _exchanges(self, row: Row) -> Iterator[tuple[tuple[Message, ...], str, str]]:
        """Yield prompt, answer and first question, the latter without the prompt's own words."""
        system = self._system.render(row, self._clean)
        if self._conversation is not None:
            turns = read_turns(row.get(self._conversation), "dataset.conversation", self._clean)
            own = [turn for turn in turns if turn.role == "system"]
            dialogue = [turn for turn in turns if turn.role != "system"]
            head = [Message("system", system)] if system else own
            for messages, answer in answered_turns([*head, *dialogue], self._train_on):
                yield messages, answer, _question(messages)
            return
        history: list[Message] = []
        if self._history is not None:
            history = read_turns(row.get(self._history), "dataset.history", self._clean)
        head = [Message("system", system)] if system else [m for m in history if m.role == "system"]
        turns = [turn for turn in history if turn.role != "system"]
        messages = (*head, *_ask(turns, self._prompt.render(row, self._clean)))
        asked = _question(_ask(turns, self._prompt.values(row)))
        yield messages, self._answer.render(row, self._clean), asked

    def _meta(self, row: Row) -> dict[str, str]:
        meta = {name: as_text(row.get(column or "")) for name, column in self._strata.items()}
        if self._label is not None:
            meta["label"] = as_text(row.get(self._label))
        if self._rejected is not None:
            text = as_text(row.get(self._rejected))
            meta["rejected"] = tidy(text) if self._clean else text
        return meta

    def _origin(self, row: Row, number: int) -> str:
        names = {*self._prompt.columns, *self._answer.columns}
        names.update(name for name in (self._history, self._conversation) if name)
        values = {name: row.get(name) for name in sorted(names)}
        text = json.dumps([values, number], ensure_ascii=False, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _ask(history: Sequence[Message], question: str) -> list[Message]:
    """Put the question after the history; a history that ends with the user may be all of it."""
    if question or not history or history[-1].role != "user":
        return join_neighbours([*history, Message("user", question)])
    return list(history)


def _question(messages: Sequence[Message]) -> str:
    return next((message.content for message in messages if message.role == "user"), "")
