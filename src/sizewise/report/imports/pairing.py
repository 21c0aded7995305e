"""Which sample of another harness's log answers which example of ours."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sizewise.errors import OutcomeError
from sizewise.record.predictions import Prediction
from sizewise.report.imports.samples import HarnessLog, Sample

ID_FIELDS = ("sizewise_id", "example_id", "id")
LEAST = 16
"""Letters that a text needs before it is looked for within others."""


@dataclass(frozen=True)
class Paired:
    """Samples with the examples that they answer.

    Attributes:
        pairs: each sample and each example at most once.
        by: ``text``, or the field that holds the example's id.
        unknown: samples that match no example.
        ambiguous: samples that match several, or of which several match one.
        other_reference: samples whose question is an example's and whose target is not.
        unanswered: examples without a sample.
    """

    pairs: Sequence[tuple[Sample, Prediction]]
    by: str
    unknown: int
    ambiguous: int
    other_reference: int
    unanswered: int

    @property
    def left_out(self) -> str:
        """Say what was not paired; empty where everything was."""
        said = {
            "samples match no example": self.unknown,
            "samples match several examples, or one that others match": self.ambiguous,
            "samples have another reference answer": self.other_reference,
            "examples have no sample": self.unanswered,
        }
        return "; ".join(f"{count:,} {what}" for what, count in said.items() if count)


def pair(log: HarnessLog, examples: Sequence[Prediction], id_field: str | None = None) -> Paired:
    """Pair the samples of a log with examples.

    By id where a field of the samples' rows holds the ids of examples (``id_field``, or one that is
    called so). Otherwise by the question's text, but for case and white space: a sample's prompt or
    a field of its row is the example's prompt, or the one holds the other. Where a log names the
    reference answer, it has to be the example's.

    Raises:
        OutcomeError: ``id_field`` is in no row, or holds the id of no example.
    """
    ids = {example.id: place for place, example in enumerate(examples)}
    field = _id_field(log, ids, id_field)
    if field is not None:
        hits = [_by_id(sample, ids, field) for sample in log.samples]
    else:
        texts = [plain(example.prompt) for example in examples]
        hits = [_by_text(sample, texts) for sample in log.samples]
    return _one_to_one(log.samples, hits, examples, field or "text")


def plain(text: str) -> str:
    """Return a text as it is compared: without case, white space joined, Unicode composed."""
    return " ".join(unicodedata.normalize("NFC", text.casefold()).split())


def _id_field(log: HarnessLog, ids: Mapping[str, int], wanted: str | None) -> str | None:
    """Return the field that holds ids; the one asked for, or one of the usual names."""
    for name in ID_FIELDS if wanted is None else (wanted,):
        if any(sample.fields.get(name) in ids for sample in log.samples):
            return name
    if wanted is None:
        return None
    there = sorted({name for sample in log.samples for name in sample.fields})
    raise OutcomeError(
        f"{log.path}: no field {wanted!r} holds ids of the examples (16 hex digits, `id` in the "
        f"predictions of a run). Its rows have: {', '.join(there) or 'no fields'}. Leave "
        "--id-field out to pair by text."
    )


def _by_id(sample: Sample, ids: Mapping[str, int], field: str) -> list[int]:
    place = ids.get(sample.fields.get(field, ""))
    return [] if place is None else [place]


def _by_text(sample: Sample, texts: Sequence[str]) -> list[int]:
    """Return the places of the examples with this question: equal texts, else one in the other."""
    own = [plain(text) for text in sample.texts]
    equal = [place for place, text in enumerate(texts) if text in own]
    if equal:
        return equal
    whole, parts = own[0], [text for text in own[1:] if len(text) >= LEAST]
    longest = max(parts, key=len, default="")
    if longest:
        inside = [place for place, text in enumerate(texts) if _holds(text, longest)]
        if inside:
            return inside
    return [place for place, text in enumerate(texts) if len(text) >= LEAST and text in whole]


def _holds(text: str, other: str) -> bool:
    """Whether one text holds the other, which has to be long enough."""
    return other in text or (len(text) >= LEAST and text in other)


def _one_to_one(
    samples: Sequence[Sample],
    hits: Sequence[Sequence[int]],
    examples: Sequence[Prediction],
    by: str,
) -> Paired:
    fitting = [
        [place for place in places if _same_reference(sample, examples[place])]
        for sample, places in zip(samples, hits, strict=True)
    ]
    asked = Counter(place for places in fitting for place in places)
    pairs = [
        (sample, examples[places[0]])
        for sample, places in zip(samples, fitting, strict=True)
        if len(places) == 1 and asked[places[0]] == 1
    ]
    unknown = sum(not places for places in hits)
    other = sum(bool(there) and not same for there, same in zip(hits, fitting, strict=True))
    return Paired(
        pairs=pairs,
        by=by,
        unknown=unknown,
        ambiguous=len(samples) - unknown - other - len(pairs),
        other_reference=other,
        unanswered=len(examples) - len(pairs),
    )


def _same_reference(sample: Sample, example: Prediction) -> bool:
    return sample.target is None or plain(sample.target) == plain(example.reference)
