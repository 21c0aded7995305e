"""Rows to examples: columns become messages, an answer, a group and strata."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sizewise.config.data import KNOWN_SPLITS, DatasetConfig
from sizewise.data.example import Example, Examples, Message
from sizewise.data.rows.columns import (
    TextTemplate,
    as_integer,
    as_text,
    resolve_column,
    tidy,
)
from sizewise.data.rows.conversation import (
    answered_turns,
    chat_columns,
    join_neighbours,
    read_tools,
    read_turns,
)
from sizewise.data.rows.stream import SPLIT_NAMES, Row, Rows
from sizewise.data.splits.groups import text_key, worded_key
from sizewise.data.stored import ExampleStore
from sizewise.data.tokens.cache import hash_parts
from sizewise.data.tokens.reasoning import answer_of
from sizewise.errors import DataError


@dataclass(frozen=True)
class Candidates:
    """Examples before they are split, and what was left out or read otherwise, with how often.

    Attributes:
        examples: in the order of the rows; ``group`` is already the connected component.
        splits: the source's own split of each example, None where there is no such column.
        noted: what was read otherwise than it stands, or not at all.
    """

    examples: Examples
    splits: tuple[str | None, ...]
    filtered: Mapping[str, int]
    rows: int
    noted: Mapping[str, int] = field(default_factory=dict)


def make_examples(rows: Rows | Sequence[Row], cfg: DatasetConfig) -> Candidates:
    """Turn rows into examples: one per row, or one per answered turn of a conversation.

    Rows that share a declared group column or their first question get one group: the first user
    turn, or what the columns of the prompt hold, however it is worded. Texts are equal but for
    case, white space and compatibility forms. Another wording leaves groups as they are.
    The values of the system text are part of an id only where examples differ in nothing else.

    Raises:
        DataError: a configured column does not exist, or a dialogue cannot be read.
    """
    rows = Rows.of(rows)
    reader = RowReader(cfg, rows)
    store = ExampleStore()
    splits: list[str | None] = []
    filtered = reader.skipped
    for row in rows:
        for example in reader.read(row):
            reason = reason_to_drop(example, cfg, reader.blank(row))
            if reason is not None:
                filtered[reason] += 1
                continue
            store.add(example, reader.telling(row, example))
            splits.append(reader.split(row))
    return Candidates(store.finish(), tuple(splits), dict(filtered), len(rows), dict(reader.noted))


def reason_to_drop(example: Example, cfg: DatasetConfig, blank: Collection[str] = ()) -> str | None:
    """Name the filter that leaves an example out; lengths are characters of question and answer.

    ``blank``: which of ``prompt`` and ``answer`` is nothing but the words of its template.
    """
    question = example.messages[-1].content if example.messages else ""
    limits = cfg.filter
    if "answer" in blank or not example.answer.strip():
        return "empty_answer"
    if not answer_of(example.answer):
        return "only_reasoning"
    if ("prompt" in blank or not question.strip()) and limits.min_prompt_chars > 0:
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


TOOLS = "tools"
FIRST_ROWS = 100
"""Rows that say what the columns of a conversation are."""


class RowReader:
    """Reads the configured columns of one row; all names are resolved once, on construction.

    ``skipped`` counts turns that are no examples, by reason; ``noted`` is that of ``Candidates``.
    """

    def __init__(self, cfg: DatasetConfig, rows: Rows) -> None:
        columns = rows.columns
        cfg = chat_columns(cfg, columns, rows.first(FIRST_ROWS))

        def named(name: str | None, key: str) -> str | None:
            return resolve_column(name, columns, f"dataset.{key}") if name else None

        self.skipped: Counter[str] = Counter()
        self.noted: Counter[str] = Counter()
        self._clean = cfg.clean_whitespace
        self._train_on = cfg.train_on
        self._system = TextTemplate(cfg.system or "", columns, "dataset.system")
        self._prompt = TextTemplate(cfg.prompt, columns, "dataset.prompt")
        self._answer = TextTemplate(cfg.answer, columns, "dataset.answer", structured=True)
        for key in ("system", "prompt", "answer"):
            if (text := (getattr(cfg, key) or "").strip()) and text in columns:
                raise DataError(
                    f"dataset.{key}={text!r} is the same text for every row. If the column is "
                    f"meant, put it in braces: 'dataset.{key}=\"{{{text}}}\"'."
                )
        self._history = named(cfg.history, "history")
        self._conversation = named(cfg.conversation, "conversation")
        self._label = named(cfg.label, "label")
        self._rejected = named(cfg.rejected, "rejected")
        self._split = named(cfg.own_split.column, "split.column")
        self._strata = {name: named(name, "strata") for name in cfg.strata}
        self._group = [(name, named(name, "group")) for name in cfg.group]
        self._whole = [name for name in rows.whole if name in self._used]
        self._spoken = self._soles & rows.spoken
        dialogues = self._conversation is not None or bool(self._spoken)
        self._tools = TOOLS if dialogues and TOOLS in columns else None
        self._worded = self._with_own_words()
        self._note_columns(len(rows))
        for name in SPLIT_NAMES if self._split is None else ():
            self._note_unused_splits(name, rows)

    def _with_own_words(self) -> dict[str, TextTemplate]:
        """Which of ``prompt`` and ``answer`` have words beside columns: they are never empty."""
        if self._conversation is not None:
            return {}
        texts = {"answer": self._answer} | ({} if self._history else {"prompt": self._prompt})
        return {name: t for name, t in texts.items() if t.columns and t.sole is None}

    @property
    def _soles(self) -> set[str]:
        """Columns that may hold turns in place of a text: the prompt's, the answer's, the other."""
        found = {self._prompt.sole, self._answer.sole, self._rejected}
        return {name for name in found if name is not None}

    @property
    def _used(self) -> set[str]:
        names = {*self._prompt.columns, *self._answer.columns, *self._system.columns}
        more = [self._label, self._rejected, *self._strata.values(), *dict(self._group).values()]
        return names | {name for name in more if name is not None}

    def _note_columns(self, count: int) -> None:
        """Note what holds for every row: integers read as such, and answers that prompts show."""
        for name in self._whole:
            self.noted[f"rows whose {name!r} is read as an integer, 1 for 1.0"] = count
        shown = {*self._prompt.columns, *self._system.columns} - self._spoken
        for name in self._answer.columns if self._conversation is None else ():
            if name in shown:
                self.noted[f"rows whose prompt shows {name!r}, which the answer is made of"] = count

    def _note_unused_splits(self, name: str, rows: Rows) -> None:
        """Note that the source has splits of its own, which the configuration divides anew."""
        known = [value for value in sorted(rows.splits[name]) if value.casefold() in KNOWN_SPLITS]
        if len(known) > 1:
            self.noted[
                f"rows of the source's own splits ({', '.join(known)}) divided anew, since "
                f"dataset.split.column does not name {name!r}"
            ] = len(rows)

    def read(self, row: Row) -> Iterator[Example]:
        """Yield the row's examples, without a group."""
        cells = {**row, **{name: as_integer(row.get(name)) for name in self._whole}}
        meta = self._meta(cells)
        exchanges = list(self._exchanges(cells))
        if not exchanges:
            self.noted["conversations without an answer to learn"] += 1
        for number, (messages, answer, asked) in enumerate(exchanges):
            keys = (*self._declared(cells), text_key(asked), worded_key(_question(messages)))
            origin = self._origin(row, number)
            yield Example(messages, answer, group="", meta=meta, origin=origin, keys=keys)

    def blank(self, row: Row) -> list[str]:
        """Name ``prompt`` and ``answer`` where nothing but words of the template is left of them.

        With earlier turns, or something in a system text, a prompt may do without.
        """
        found = [name for name, text in self._worded.items() if not text.values(row)]
        if "prompt" in found and self._system.values(row):
            found.remove("prompt")
        return found

    def split(self, row: Row) -> str | None:
        if self._split is None:
            return None
        return sys.intern(as_text(row.get(self._split)).strip())

    def telling(self, row: Row, example: Example) -> str:
        """Return an origin that also has what the system text uses of the row, and its tools."""
        names = [*sorted(self._system.columns), *([self._tools] if self._tools else [])]
        values = tuple(as_text(row.get(name), name) for name in names)
        return hash_parts(example.origin, values) if names else example.origin

    def _declared(self, row: Row) -> list[str]:
        cells = [
            (name, as_text(row.get(column or ""), name).strip()) for name, column in self._group
        ]
        return [f"{name.strip()}={value}" for name, value in cells if value]

    def _exchanges(self, row: Row) -> Iterator[tuple[tuple[Message, ...], str, str]]:
        """Yield prompt, answer and first question, the latter without the prompt's own words."""
        if self._conversation is not None:
            turns = self._turns(row, self._conversation, "dataset.conversation")
            messages = [*self._head(row, turns), *_dialogue(turns)]
            for prompt, answer in answered_turns(messages, self._train_on, self.skipped):
                yield prompt, answer, _question(prompt)
            return
        history = self._turns(row, self._history, "dataset.history") if self._history else []
        if self._prompt.sole in self._spoken:
            asked = [*history, *self._turns(row, self._prompt.sole, "dataset.prompt")]
            first = _question(asked)
        else:
            asked = _ask(history, self._prompt.render(row, self._clean))
            first = _question(_ask(_dialogue(history), self._prompt.values(row)))
        messages = [*self._head(row, asked), *_dialogue(asked)]
        if self._answer.sole not in self._spoken:
            yield tuple(messages), self._answer.render(row, self._clean), first
            return
        said = self._completion(row, messages)
        joins = bool(said) and said[0].role == "user"
        whole = join_neighbours([*messages, *said]) if joins else [*messages, *said]
        for prompt, answer in answered_turns(whole, self._train_on, self.skipped, len(messages)):
            yield prompt, answer, first

    def _turns(
        self, row: Row, column: str | None, key: str, goes_on: bool = False
    ) -> list[Message]:
        return read_turns(row.get(column or ""), key, self._clean, self.noted, goes_on)

    def _completion(self, row: Row, asked: Sequence[Message]) -> list[Message]:
        """Read turns that go on from a prompt, and so begin with the assistant.

        Those of whole conversations first repeat what was asked: only what comes after is said.
        """
        turns = self._turns(row, self._answer.sole, "dataset.answer", goes_on=True)
        for turn in turns:
            if turn.leads and not any(_repeats(turn, other) for other in asked):
                self.noted[f"{turn.role} turns of a completion left out"] += 1
        said = _after(_dialogue(turns), _dialogue(asked))
        if said and said[0].role == "user":
            self.noted["completions that begin with another question than the prompt's"] += 1
        return said

    def _head(self, row: Row, turns: Sequence[Message]) -> list[Message]:
        """Return what stands before the turns: tools, and the configured or own system text."""
        system = self._system.render(row, self._clean)
        own = [turn for turn in turns if turn.role == "system"]
        tools = [turn for turn in turns if turn.role == "tools"]
        if self._tools is not None:
            tools = read_tools(row.get(self._tools), self._tools) or tools
        if system and own:
            self.noted["conversations whose system text is replaced by dataset.system"] += 1
        return [*tools[:1], *([Message("system", system)] if system else own)]

    def _meta(self, row: Row) -> dict[str, str]:
        meta = {name: as_text(row.get(column or ""), name) for name, column in self._strata.items()}
        if self._label is not None:
            meta["label"] = as_text(row.get(self._label), self._label, structured=True)
        if self._rejected is not None:
            meta["rejected"] = self._rejected_text(row, self._rejected)
        return meta

    def _rejected_text(self, row: Row, column: str) -> str:
        if column not in self._spoken:
            text = as_text(row.get(column), column, structured=True)
            return tidy(text) if self._clean else text
        turns = self._turns(row, column, "dataset.rejected", goes_on=True)
        return next((answer for _, answer in answered_turns(turns, "last")), "")

    def _origin(self, row: Row, number: int) -> str:
        names = {*self._prompt.columns, *self._answer.columns}
        names.update(name for name in (self._history, self._conversation) if name)
        return hash_parts({name: row.get(name) for name in names}, number)


def _dialogue(turns: Sequence[Message]) -> list[Message]:
    return [turn for turn in turns if not turn.leads]


def _after(turns: list[Message], asked: list[Message]) -> list[Message]:
    """Return the turns behind those that repeat the last ones of the prompt."""
    for count in range(min(len(turns), len(asked)), 0, -1):
        pairs = zip(turns, asked[-count:], strict=False)
        if turns[0].role == "user" and all(_repeats(one, other) for one, other in pairs):
            return turns[count:]
    return turns


def _repeats(turn: Message, other: Message) -> bool:
    """Whether a turn says what another does, which may put words of a template around it."""
    return turn.role == other.role and tidy(turn.content) in tidy(other.content)


def _ask(history: Sequence[Message], question: str) -> list[Message]:
    """Put the question after the history; one that ends with user or tool may be all of it."""
    if question or not history or history[-1].role not in ("user", "tool"):
        return join_neighbours([*history, Message("user", question)])
    return list(history)


def _question(messages: Sequence[Message]) -> str:
    return next((message.content for message in messages if message.role == "user"), "")
