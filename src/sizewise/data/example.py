"""The nouns of the data path: messages, examples and splits."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from sizewise.files import hash_text

if TYPE_CHECKING:
    from sizewise.config.data import SplitName

Role = Literal["system", "user", "assistant", "tool", "tools"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: who speaks; ``tools`` stands before all turns and holds the definitions of tools (a
            JSON list), which templates take apart from the turns.
        extra: what else a chat template may write of it: ``tool_calls`` (their arguments as
            mappings), ``tool_call_id``, ``name`` and ``reasoning_content``.
        weight: 0 for an answer that is neither trained on nor tested.
    """

    role: Role
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    weight: int = 1

    @property
    def leads(self) -> bool:
        """Whether it stands before the turns: the system text, or definitions of tools."""
        return self.role in ("system", "tools")

    @property
    def text(self) -> str:
        """The content with the calls of tools, for people."""
        calls = [as_json(call) for call in self.extra.get("tool_calls", ())]
        return "\n".join([*([self.content] if self.content or not calls else []), *calls])

    def as_dict(self) -> dict[str, Any]:
        """Return the mapping that chat templates take."""
        unweighted = {"role": self.role, "content": self.content, **self.extra}
        return unweighted if self.weight else {**unweighted, "weight": self.weight}


_JSON = json.JSONEncoder(ensure_ascii=False)


def as_json(value: Any) -> str:
    """Write JSON on one line, with letters as they are."""
    return _JSON.encode(value)


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt with its reference answer.

    Attributes:
        messages: the prompt: optional definitions of tools and an optional system turn, then
            turns that end with one of the user or the result of a tool. The answer is not among
            them.
        group: examples with the same group never straddle splits.
        meta: strings kept for breakdowns: ``label``, ``rejected``, and one entry per stratum.
        origin: hash of the row's values that the example was made of, whatever the wording of the
            prompt; empty: the example stands for itself.
        keys: what ties it to others, whatever is put before its prompt: declared groups
            (``column=value``) and its first question, by its values and as it is worded.
    """

    messages: tuple[Message, ...]
    answer: str
    group: str
    meta: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""
    keys: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Content hash (16 hex digits), the same on every machine and under another prompt wording.

        It is the hash of the row's values (``origin``) where there is one, else ``content_id``:
        of the columns that prompt, answer and earlier turns use, whatever else is said.
        """
        return self.origin or self.content_id

    @property
    def content_id(self) -> str:
        """Hash of exactly what the model reads and should write (16 hex digits)."""
        content = [
            [m.role, m.content, *([dict(m.extra)] if m.extra else [])] for m in self.messages
        ]
        return hash_text(as_json([*content, ["answer", self.answer]]), 16)

    @property
    def prompt_text(self) -> str:
        """The turns as plain text, for people and for duplicate search (not for the model)."""
        return "\n\n".join(m.text for m in self.messages)


@dataclass(frozen=True)
class DataReport:
    """What happened on the way from rows to splits; all figures are counts of rows or examples.

    Attributes:
        rows: rows read from the source.
        filtered: examples removed, by reason.
        duplicates: exact repetitions of prompt and answer that were removed.
        shared_groups: groups that occur in more than one split after splitting (0 unless the
            source's own split leaks and ``on_leak`` is ``report``).
        leaking_rows: evaluation rows whose group occurs in training, under the source's own split.
        row_split_leak: share of test rows whose group would be in training under a random split
            of rows of the same sizes (expected value), the leak that grouping avoided.
        noted: what was read otherwise than it stands, or not at all, in words, with how often; no
            example is left out by it.
    """

    rows: int
    filtered: Mapping[str, int]
    duplicates: int
    shared_groups: int
    leaking_rows: int
    row_split_leak: float
    noted: Mapping[str, int] = field(default_factory=dict)

    @property
    def reasons(self) -> str:
        """What was filtered, in words: "26 empty answer, 3 prompt too long", or "none"."""
        said = [f"{n:,} {why.replace('_', ' ')}" for why, n in self.filtered.items() if n]
        return ", ".join(said) or "none"

    @property
    def notes(self) -> str:
        """What was noted, in words: "empty turns (3), …", or "none"."""
        return ", ".join(f"{what} ({n:,})" for what, n in self.noted.items() if n) or "none"


class Examples(Sequence[Example], ABC):
    """Examples that are made when they are looked at: a tuple of them for those who read it."""

    @abstractmethod
    def make(self, place: int) -> Example:
        """Return the example at ``place``, from 0 on."""

    @abstractmethod
    def select(self, rows: NDArray[np.int64]) -> Examples:
        """Return the examples at ``rows``, in that order."""

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> Examples: ...
    def __getitem__(self, place: int | slice) -> Example | Examples:
        if isinstance(place, slice):
            return self.select(np.arange(len(self))[place])
        return self.make(range(len(self))[place])

    def __iter__(self) -> Iterator[Example]:
        return map(self.make, range(len(self)))

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Sequence) and len(self) == len(other)
        return same and all(one == two for one, two in zip(self, other, strict=True))  # type: ignore[call-overload]

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Sequence[Example]) -> Examples:
        return Listed([*self, *other])

    def where(self, wanted: Sequence[bool] | NDArray[np.bool_]) -> Examples:
        return self.select(np.flatnonzero(np.asarray(wanted, dtype=np.bool_)))

    def ids(self) -> Iterator[str]:
        return (example.id for example in self)

    def content_ids(self) -> Iterator[str]:
        return (example.content_id for example in self)

    def groups(self) -> Iterator[str]:
        return (example.group for example in self)

    def numbered_groups(self) -> tuple[object, NDArray[np.int64]] | None:
        """Return the groups as numbers, and what numbered them; None where nothing did."""
        return None

    def map(self, change: Callable[[Example], Example], rewords: bool = True) -> Examples:
        """Return the examples as ``change`` makes them, each time one is looked at.

        ``rewords``: messages, answers, origins or groups may become others, and not only what is
        kept for breakdowns.
        """
        return Mapped(self, change, rewords)


class Listed(Examples):
    """Examples that are in memory."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def make(self, place: int) -> Example:
        return self._examples[place]

    def select(self, rows: NDArray[np.int64]) -> Listed:
        return Listed([self._examples[row] for row in rows.tolist()])


class Mapped(Examples):
    """Examples as a function makes them of others."""

    def __init__(
        self, whole: Examples, change: Callable[[Example], Example], rewords: bool
    ) -> None:
        self._whole, self._change, self._rewords = whole, change, rewords

    def __len__(self) -> int:
        return len(self._whole)

    def make(self, place: int) -> Example:
        return self._change(self._whole.make(place))

    def select(self, rows: NDArray[np.int64]) -> Mapped:
        return Mapped(self._whole.select(rows), self._change, self._rewords)

    def ids(self) -> Iterator[str]:
        return super().ids() if self._rewords else self._whole.ids()

    def content_ids(self) -> Iterator[str]:
        return super().content_ids() if self._rewords else self._whole.content_ids()

    def groups(self) -> Iterator[str]:
        return super().groups() if self._rewords else self._whole.groups()

    def numbered_groups(self) -> tuple[object, NDArray[np.int64]] | None:
        return None if self._rewords else self._whole.numbered_groups()


def as_examples(examples: Sequence[Example]) -> Examples:
    return examples if isinstance(examples, Examples) else Listed(examples)


@dataclass(frozen=True)
class DataSplits:
    train: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example]
    report: DataReport

    def map(self, change: Callable[[Example], Example], rewords: bool = True) -> DataSplits:
        """Return the splits with examples as ``change`` makes them: see ``Examples.map``."""
        train, validation, test = (
            as_examples(part).map(change, rewords)
            for part in (self.train, self.validation, self.test)
        )
        return DataSplits(train, validation, test, self.report)

    def fingerprint(self, split: SplitName) -> str:
        """Hash of a split's examples in order, prompt wording included (16 hex digits)."""
        return fingerprint(getattr(self, split))

    def question_fingerprint(self, split: SplitName) -> str:
        """Hash of what is asked in a split, whatever the wording of the prompt (16 hex digits)."""
        return question_fingerprint(getattr(self, split))


def fingerprint(examples: Sequence[Example]) -> str:
    """Hash contents and groups of ``examples`` in order (16 hex digits)."""
    whole = as_examples(examples)
    pairs = zip(whole.content_ids(), whole.groups(), strict=True)
    return _digest(f"{content}:{group}" for content, group in pairs)


def question_fingerprint(examples: Sequence[Example]) -> str:
    """Hash the ids of ``examples`` in order: equal for few-shot and reworded prompts.

    A wording that takes other columns of the row asks something else.
    """
    return _digest(as_examples(examples).ids())


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()[:16]
