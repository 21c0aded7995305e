"""How often a test example's label occurs in training: never seen, rare or frequent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from sizewise.data.example import DataSplits, Example
from sizewise.data.splits.groups import text_key

Alike = Callable[[str], str]
"""Gives labels that are the same one key, however they are spelled."""

LABEL = "label"
STRATUM = "label_frequency"
NEVER = "never seen"


def count_labels(examples: Sequence[Example], alike: Alike = text_key) -> Counter[str]:
    """Count the labels of examples, by their keys; an example without one is not counted."""
    return Counter(alike(example.meta[LABEL]) for example in examples if example.meta.get(LABEL))


def spellings(labels: Iterable[str], alike: Alike) -> dict[str, Counter[str]]:
    """Count how each label is spelled, by its key, but for white space around it."""
    found: dict[str, Counter[str]] = {}
    for label in labels:
        found.setdefault(alike(label), Counter())[label.strip()] += 1
    return found


def band(count: int, frequent: int) -> str:
    """Name how often a label occurs in training: ``frequent`` times or more, less, or never."""
    if count == 0:
        return NEVER
    return f"frequent ({frequent}+)" if count >= frequent else f"rare (1–{frequent - 1})"


def add_frequency(
    splits: DataSplits, counts: Mapping[str, int], frequent: int, alike: Alike = text_key
) -> DataSplits:
    """Return splits whose labelled examples carry the stratum ``label_frequency``.

    Ids, contents and fingerprints stay what they are. ``counts``: as ``count_labels`` makes them of
    the training split of the run; from ``frequent`` on a label counts as frequent.
    """
    return splits.map(lambda example: _mark(example, counts, frequent, alike), rewords=False)


def _mark(example: Example, counts: Mapping[str, int], frequent: int, alike: Alike) -> Example:
    label = example.meta.get(LABEL)
    if not label:
        return example
    stratum = band(counts.get(alike(label), 0), frequent)
    return replace(example, meta={**example.meta, STRATUM: stratum})
