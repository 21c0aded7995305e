"""What the columns of somebody's table are for: question, answer, groups, splits, strata."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

from sizewise.config.data import KNOWN_SPLITS, SplitConfig
from sizewise.data.rows.columns import all_columns, as_integer, as_text, resolve_column
from sizewise.data.rows.conversation import DIALOGUES, holds_turns
from sizewise.data.rows.stream import Rows
from sizewise.data.splits.draw import read_names
from sizewise.errors import DataError
from sizewise.metrics.reading.answer_sets import AnswerSet, recognise

# In this order: a column called by an earlier word is the more likely one.
ANSWERS = (
    "answer", "label", "target", "class", "category", "intent", "sentiment", "output", "completion",
    "chosen", "response", "reply", "summary", "translation", "code", "icd", "diagnosis", "topic",
    "a",
)  # fmt: skip
QUESTIONS = (
    "prompt", "question", "query", "instruction", "dialogue", "dialog", "conversation", "input",
    "text", "message", "note", "document", "article", "body", "content", "ticket", "review",
    "sentence", "context", "description", "title", "q",
)  # fmt: skip
OWNERS = (
    "id", "patient", "user", "author", "speaker", "conversation", "conv", "dialog", "dialogue",
    "session", "thread", "doc", "document", "group", "case", "visit", "customer", "client",
    "subject",
)  # fmt: skip
IDS = ("id", "ids", "uuid", "guid", "index", "idx")
RATINGS = (
    "rating", "ratings", "stars", "star", "score", "grade", "level", "severity", "overall",
    "points",
)  # fmt: skip
# In names of columns of numbers: target_value is called an answer, zip_code is not.
VALUES = ("value", "number", "num")
LOOSE = ("code", "icd", "a")
# Two columns that ask together, and how.
TOGETHER = {
    ("instruction", "input"): "{instruction}\n\n{input}",
    ("context", "question"): "{context}\n\n{question}",
    ("title", "body"): "{title}\n\n{body}",
}
HELD = 9
SPLIT_NAMES = ("split", "fold", "part", "partition", "set", "subset", "__split__")
FEW_KINDS = 50
NEARLY_ALL = 0.95
MOST_GRADES = 20


@dataclass(frozen=True)
class Column:
    """One column: share of cells that are filled, different texts, and characters on average."""

    name: str
    filled: float
    distinct: int
    chars: float
    cells: tuple[str, ...]

    @cached_property
    def said(self) -> list[str]:
        """The cells that are filled."""
        return [cell.strip() for cell in self.cells if cell.strip()]

    @property
    def is_text(self) -> bool:
        """Whether it says something of its rows, and is neither a number nor an address."""
        return self._varies and not self._mostly(_NO_TEXT)

    @property
    def is_number(self) -> bool:
        """Whether it says something of its rows, in numbers; dates and times are none."""
        return self._varies and self._mostly(_NUMBER)

    @cached_property
    def is_whole(self) -> bool:
        """Whether all that it says are whole numbers."""
        return all(_WHOLE.fullmatch(cell) for cell in self.said)

    @property
    def is_graded(self) -> bool:
        """Whether it is a scale: few whole numbers, which recur as labels do."""
        few = self.is_number and self.distinct <= MOST_GRADES and self.is_whole
        return few and recognise(self.said) is not None

    @property
    def _varies(self) -> bool:
        return bool(self.name) and self.filled > 0.5 and self.distinct > 1

    def _mostly(self, pattern: re.Pattern[str]) -> bool:
        said = [cell.strip() for cell in self.cells[:200] if cell.strip()]
        return sum(bool(pattern.fullmatch(cell)) for cell in said) >= len(said) / 2


_NO_TEXT = re.compile(
    r"[-+]?[\d.,:\s/-]+|[-+]?[\d.,]+[eE][-+]?\d+|https?://\S+|[0-9a-fA-F]{8}-[0-9a-fA-F-]+"
)
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?[.,]?\d+(?:[eE][-+]?\d+)?")
_WHOLE = re.compile(r"[-+]?\d{1,300}(?:\.0)?")


@dataclass(frozen=True)
class Guess:
    """What a data set of these rows would say, as keys of ``dataset``, and what else it could.

    ``parts``: how many rows the column ``split`` gives to each split.
    """

    columns: tuple[Column, ...]
    task: str
    prompt: str = ""
    answer: str = ""
    chat: bool = False
    history: str | None = None
    answers: AnswerSet | None = None
    rejected: str | None = None
    group: tuple[str, ...] = ()
    strata: tuple[str, ...] = ()
    split: str | None = None
    parts: Mapping[str, int] = field(default_factory=dict)
    other_answers: tuple[str, ...] = ()
    used: Mapping[str, str] = field(default_factory=dict)


def guess(
    rows: Sequence[Mapping[str, Any]], question: str | None = None, answer: str | None = None
) -> Guess:
    """Guess from names and contents; ``question`` and ``answer`` are columns that are known.

    Raises:
        DataError: a column that is named does not exist, or nothing can be question and answer.
    """
    whole = Rows(lambda: map(dict, rows)).whole
    columns = tuple(_column(name, rows, name in whole) for name in all_columns(rows))
    if question is None and answer is None and _is_chat(columns, rows):
        return Guess(columns, "chat", chat=True, used={n: "conversation" for n in _turns(rows)})
    divided = next(filter(_is_split, columns), None)
    split = divided.name if divided else None
    objects = _objects(rows)
    given = _named(question, columns, "--prompt"), _named(answer, columns, "--answer")
    for column, flag in zip(given, ("--prompt", "--answer"), strict=True):
        if column is not None and column.name in objects:
            raise DataError(f"{flag} {column.name}: {_no_cells(column.name, objects)}")
    free = [column for column in columns if column.name not in (split, *objects)]
    hint = "".join(f" The {_no_cells(name, objects)}" for name in [*objects][:1])
    answered = given[1] or _answer(free, question)
    if answered is None:
        raise DataError(
            f"No column looks like an answer: {_listed(columns)}. Say which: --answer COLUMN.{hint}"
        )
    asked = given[0] or _question(free, answered)
    if asked is None:
        raise DataError(
            f"No column looks like a question: {_listed(columns)}. Say which: --prompt COLUMN."
            + hint
        )
    if asked is answered:
        raise DataError(
            f"{asked.name!r} is named as the question and as the answer: a model would learn to "
            f"copy. Name two of the columns: {_listed(columns)}."
        )
    prompt, spoken = _prompt(asked, free, answered)
    history = asked.name if any(holds_turns(row.get(asked.name)) for row in rows[:100]) else None
    found = recognise(answered.said)
    left = [c for c in free if c.name not in spoken and c is not answered]
    rejected = next((c.name for c in left if c.name.casefold() == "rejected"), None)
    group = tuple(c.name for c in left if _groups(c, len(rows)))
    left = [c for c in left if c.name not in group and not _is_id(c)]
    strata = tuple(c.name for c in left if _is_kind(c))[:2]
    others = tuple(c.name for c in left if (c.is_text or c.is_number) and c.name != rejected)
    used = dict.fromkeys(spoken, "earlier turns" if history else "question") | {
        answered.name: "answer"
    }
    used |= dict.fromkeys(group, "group") | dict.fromkeys(strata, "stratum")
    return Guess(
        columns=columns,
        # Numbers that differ in one digit are as wrong as any: shared words would say nothing.
        task=found.task if found else "classification" if answered.is_number else "text",
        prompt="" if history else prompt,
        answer=f"{{{answered.name.strip()}}}",
        history=history,
        answers=found,
        rejected=rejected,
        group=group,
        strata=strata,
        split=split,
        parts=_parts(divided) if divided else {},
        other_answers=others,
        used=used | ({split: "split"} if split else {}),
    )


def _objects(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the columns whose cells are objects, with the names of the fields."""
    found: dict[str, dict[str, None]] = {}
    for row in rows[:100]:
        for name, cell in row.items():
            if isinstance(cell, Mapping) and not holds_turns(cell):
                found.setdefault(name, {}).update(dict.fromkeys(map(str, cell)))
    return {name: list(fields) for name, fields in found.items()}


def _no_cells(name: str, objects: Mapping[str, Sequence[str]]) -> str:
    fields = ", ".join(f"{name}.{field}" for field in objects[name])
    return f"column {name!r} holds objects. Name one of their fields: {fields}."


def _column(name: str, rows: Sequence[Mapping[str, Any]], whole: bool) -> Column:
    """Read a column as examples do; ``whole``: gaps turned its integers into 1.0, 2.0, …"""
    given = (as_integer(row.get(name)) if whole else row.get(name) for row in rows)
    cells = tuple(as_text(cell, name, structured=True) for cell in given)
    said = [cell for cell in cells if cell.strip()]
    chars = fmean(map(len, said)) if said else 0.0
    return Column(name, len(said) / len(rows), len(set(said)), chars, cells)


def _is_chat(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> bool:
    return bool(set(_turns(rows)) & {c.name for c in columns})


def _turns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the columns that ``dataset=chat`` knows and that hold turns."""
    known = (*DIALOGUES, "prompt", "completion", "chosen")
    names = [name for name in all_columns(rows) if name.strip().casefold() in known]
    return [name for name in names if any(holds_turns(row.get(name)) for row in rows[:100])]


def _is_split(column: Column) -> bool:
    """Whether it is called like a split and says mostly known ones: the rest is refused later."""
    values = [cell.strip().casefold() for cell in column.cells]
    known = sum(value in KNOWN_SPLITS for value in values)
    called = column.name.strip().casefold() in SPLIT_NAMES
    return called and column.distinct > 1 and known > len(values) / 2


def _parts(column: Column) -> Counter[str]:
    """Count the rows that a split column gives to each split, read as it will be."""
    values = [cell.strip() for cell in column.cells]
    split_of = read_names(values, SplitConfig().names)
    return Counter(split_of[value] for value in values if value in split_of)


def _named(name: str | None, columns: Sequence[Column], flag: str) -> Column | None:
    if name is None:
        return None
    found = resolve_column(name.strip("{}"), [column.name for column in columns], flag)
    return next(column for column in columns if column.name == found)


def _answer(columns: Sequence[Column], question: str | None) -> Column | None:
    """Return what is called like an answer, else what is likely to be one by its contents.

    These are ratings, labels or codes, the last text, a scale of any name, other numbers called
    like a rating, and what says whose rows these are, in this order.
    """
    asked = (question or "").strip("{} ")
    free = [c for c in columns if c.name.strip() != asked and not _is_id(c)]
    texts = [c for c in free if c.is_text]
    numbers = [c for c in free if c.is_number and not any(_numbers(c, text) for text in texts)]
    named = _called([*texts, *filter(_holds_answers, numbers)], ANSWERS)
    if named:
        return named[0]
    others = [c for c in texts if not _owns(c)]
    closed = [c for c in others if recognise(c.said)]
    scales = [c for c in numbers if c.is_graded and not _owns(c) and not _ends(c, SPLIT_NAMES)]
    rated = _called([c for c in numbers if _ends(c, RATINGS)], RATINGS)
    likely = (
        [c for c in rated if c.is_graded][:1],
        [c for c in closed if c.filled > NEARLY_ALL] or closed,
        others[1:],
        scales,
        rated[:1],
        texts[1:],
    )
    return next((found[-1] for found in likely if found), None)


def _is_id(column: Column) -> bool:
    """Whether it tells rows apart: called so, or words or whole numbers that hardly recur.

    Whole numbers that are called like an answer are one, unless they just count up.
    """
    said = column.said
    if _ends(column, IDS):
        return True
    if not said or column.distinct < NEARLY_ALL * len(said):
        return False
    if _ends(column, OWNERS) and not any(re.search(r"\s", cell) for cell in said):
        return True
    if not column.is_whole:
        return False
    numbers = {int(as_integer(cell)) for cell in said}
    counts = len(numbers) == len(said) == max(numbers) - min(numbers) + 1
    return counts or not _holds_answers(column)


def _owns(column: Column) -> bool:
    """Whether it says whose rows these are: called so, and values recur or are codes."""
    recurs = column.distinct < NEARLY_ALL * len(column.said)
    return _ends(column, OWNERS) and (recurs or recognise(column.said) is not None)


def _numbers(column: Column, text: Column) -> bool:
    """Whether a scale does no more than number the values of a text column: 0 for 'billing'."""
    if not column.is_graded or column.distinct != text.distinct:
        return False
    return len(set(zip(column.cells, text.cells, strict=True))) == column.distinct


def _question(columns: Sequence[Column], answer: Column) -> Column | None:
    """Return what is called like a question, the longest of several, else the longest text."""
    free = [c for c in columns if c.is_text and c is not answer]
    named = _called(sorted(free, key=lambda column: -column.chars), QUESTIONS)
    return named[0] if named else max(free, key=lambda c: c.chars, default=None)


def _called(columns: Sequence[Column], words: Sequence[str]) -> list[Column]:
    """Return columns whose name is, or holds, one of these words, those of likely words first.

    A name that only holds a word counts less, as one that is called by a word further down.
    """
    found: list[tuple[int, Column]] = []
    for column in columns:
        said = _words(column.name)
        places = [words.index(w) + (0 if said == [w] else HELD) for w in said if w in words]
        found += [(min(places), column)] if places else []
    return [column for _, column in sorted(found, key=lambda pair: pair[0])]


def _words(name: str) -> list[str]:
    """Split a name: ``questionText``, ``question_text`` and ``Question Text`` are two words."""
    return [w.casefold() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def _ends(column: Column, words: Sequence[str]) -> bool:
    """Whether the last word of its name is one of these."""
    return any(word in words for word in _words(column.name)[-1:])


def _holds_answers(column: Column) -> bool:
    """Whether a column of numbers is called like an answer."""
    said = [word for word in _words(column.name) if word not in VALUES]
    return any(word in ANSWERS and (said == [word] or word not in LOOSE) for word in said[-1:])


def _prompt(
    asked: Column, columns: Sequence[Column], answer: Column
) -> tuple[str, tuple[str, ...]]:
    """Return the prompt's wording and the columns it is made of."""
    there = {c.name.strip().casefold(): c.name for c in columns if c is not answer}
    for names, wording in TOGETHER.items():
        if asked.name.strip().casefold() in names and all(name in there for name in names):
            for name in names:
                wording = wording.replace(f"{{{name}}}", f"{{{there[name].strip()}}}")
            return wording, tuple(there[name] for name in names)
    return f"{{{asked.name.strip()}}}", (asked.name,)


def _groups(column: Column, rows: int) -> bool:
    """Whether a column says whose rows these are: called so, and several rows have one value."""
    owner = _ends(column, OWNERS)
    return owner and column.filled > 0.9 and 20 <= column.distinct < NEARLY_ALL * rows


def _is_kind(column: Column) -> bool:
    found = recognise(column.said) if column.is_text else None
    return found is not None and len(found.labels) <= FEW_KINDS


def _listed(columns: Sequence[Column]) -> str:
    return ", ".join(repr(column.name) for column in columns)
