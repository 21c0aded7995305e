"""Whether answers come from a closed set, and what to measure then."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sizewise.data.splits.frequency import spellings
from sizewise.data.tokens.reasoning import answer_of
from sizewise.metrics.reading.closed import plain
from sizewise.metrics.reading.codes import find_codes, load_catalogue, normalise

MOST_LABELS = 512
LONGEST_LABEL = 80
REPEATED = 5
"""How often a label has to occur on average for answers to be called a set."""
LISTED = 50, 1500
"""The most labels, and characters of them, that are put into a prompt."""


@dataclass(frozen=True)
class AnswerSet:
    """A closed set of answers: ``task`` is that of ``dataset.task``.

    ``labels`` are as the data writes them most often, with their counts, the commonest first.
    """

    task: str
    labels: tuple[tuple[str, int], ...]

    @property
    def rows(self) -> int:
        return sum(count for _, count in self.labels)

    @property
    def majority(self) -> float:
        """Share of the commonest label: what always giving it scores."""
        return self.labels[0][1] / self.rows

    @property
    def names(self) -> list[str]:
        return sorted(label for label, _ in self.labels)

    @property
    def listed(self) -> str | None:
        """The sentence that names all labels in a prompt; None where they are too many."""
        most, chars = LISTED
        text = ", ".join(self.names)
        fits = self.task == "classification" and len(self.names) <= most and len(text) <= chars
        return f"Answer with one of: {text}." if fits else None

    def unnamed(self, wording: str) -> list[str]:
        """Return the labels that a prompt's own words do not name as whole words."""
        return [name for name in self.names if not _names(wording, name)]


def worded(question: str, answers: AnswerSet | None) -> str:
    """Return a prompt that asks for such answers; ``question`` is it without that."""
    if answers is not None and answers.task == "codes":
        return f"{question}\n\nICD-10-CM code:"
    listed = answers.listed if answers is not None else None
    if listed is None:
        return question
    return f"{question}\n\n{listed.replace('{', '{{').replace('}', '}}')}"


def recognise(answers: Sequence[str]) -> AnswerSet | None:
    """Return the set that answers come from; None where they are free texts.

    Codes of ICD-10-CM are one whether they recur or not; other answers are labels if they are one
    short line each and recur. Reasoning before an answer is left out.
    """
    said = [text for text in map(answer_of, answers) if text]
    texts = {plain(text) for text in said}
    if len(texts) < 2 or any(len(t) > LONGEST_LABEL or "\n" in t for t in texts):
        return None
    if _are_codes(list(texts)):
        return AnswerSet("codes", _counted(said, normalise))
    labels = _counted(said, plain)
    if len(labels) > MOST_LABELS or len(said) < REPEATED * len(labels):
        return None
    return AnswerSet("classification", labels)


def _counted(said: Sequence[str], counts_as: Callable[[str], str]) -> tuple[tuple[str, int], ...]:
    """Count answers that are one and the same, each called by its commonest spelling."""
    kinds_of = spellings(said, counts_as)
    common = [(kinds.most_common(1)[0][0], kinds.total()) for kinds in kinds_of.values()]
    return tuple(sorted(common, key=lambda pair: (-pair[1], pair[0])))


def _are_codes(texts: Sequence[str]) -> bool:
    """Whether nearly all texts are codes and nothing else, most of them known."""
    whole = [text for text in texts if find_codes(text) == [normalise(text)]]
    if len(whole) < 0.9 * len(texts):
        return False
    catalogue = load_catalogue("icd10cm")
    return sum(catalogue.contains(normalise(text)) for text in whole) > 0.5 * len(texts)


def _names(wording: str, label: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(label)}(?!\w)", wording, re.IGNORECASE) is not None
