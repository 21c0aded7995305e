"""How well the ICD-10 code in an answer agrees with the reference code."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sizewise.config.checks import one_of
from sizewise.data.tokens.reasoning import strip_reasoning
from sizewise.errors import EvaluationError
from sizewise.metrics.base import ExampleMetric
from sizewise.metrics.reading.closed import likelihood_matches
from sizewise.metrics.reading.codes import extract_code, load_catalogue, load_descriptions

if TYPE_CHECKING:
    from sizewise.data.example import Example
    from sizewise.record.predictions import Prediction

UNPARSED = ""


def match_scores(predicted: str | None, reference: str) -> dict[str, float]:
    """Compare normalised codes: all characters, the first three (category), the first one."""
    code = predicted or UNPARSED
    return {
        "exact_match": float(code == reference),
        "prefix3": float(code[:3] == reference[:3]),
        "prefix1": float(code[:1] == reference[:1]),
        "unparsed": float(predicted is None),
    }


def averages(predicted: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Macro and weighted precision, recall and F1 over the codes that occur as references.

    As scikit-learn defines them (``labels=`` those codes, ``zero_division=0``): a code that is
    never predicted has precision 0, and an answer without a code is a miss.
    """
    support, given = Counter(references), Counter(predicted)
    hits = Counter(r for p, r in zip(predicted, references, strict=True) if p == r)
    rows = [
        (
            n,
            hits[code] / given[code] if given[code] else 0.0,
            hits[code] / n,
            2 * hits[code] / (n + given[code]),
        )
        for code, n in support.items()
    ]
    total, codes = len(references), len(rows)
    result: dict[str, float] = {}
    for i, name in enumerate(("precision", "recall", "f1"), start=1):
        result[f"macro_{name}"] = math.fsum(row[i] for row in rows) / codes
        result[f"weighted_{name}"] = math.fsum(row[0] * row[i] for row in rows) / total
    return result


class Icd10(ExampleMetric):
    """Exact, 3-character and 1-character agreement, F1 over codes, unparsed and invalid rates.

    Of free generation also ``lenient_match``, for which a description stands for its code, and the
    matches by likelihood where candidates were scored.

    Args:
        catalogue: ``icd10cm`` (ICD-10-CM) or ``who`` (WHO's ICD-10).
        answer: ``text`` (free generation) or ``candidate`` (the most likely of
            ``evaluation.candidates``; the scores are then called ``icd10_candidate/…``).

    Raises:
        ConfigError: ``answer`` is neither.
    """

    name = "icd10"
    closed = True

    def __init__(self, catalogue: str = "icd10cm", answer: str = "text") -> None:
        super().__init__()
        one_of("metric.icd10.answer", answer, ("text", "candidate"))
        self.catalogue = catalogue
        self.answer = answer
        self.name = "icd10" if answer == "text" else "icd10_candidate"
        self.needs_candidates = answer == "candidate"
        self.closed = answer == "text"

    def counts_as(self, answer: str) -> str:
        """The code, however it is written; the answer itself where there is none."""
        return extract_code(answer, load_catalogue(self.catalogue).contains) or answer

    def check_references(self, examples: Sequence[Example]) -> None:
        missing = [e for e in examples if extract_code(e.answer) is None]
        if missing:
            raise EvaluationError(
                f"The metric {self.name} needs codes as reference answers, and {len(missing)} of "
                f"{len(examples)} have none. The first one is the answer "
                f"{missing[0].answer[:60]!r} to {missing[0].messages[-1].content[:60]!r} (example "
                f"{missing[0].id}). Correct or remove these rows, choose another answer column, or "
                "leave the metric out."
            )

    def score(self, prediction: Prediction) -> dict[str, float]:
        """Score one answer; ``invalid`` and ``non_leaf`` are 0 where no code was found.

        Raises:
            EvaluationError: the reference answer holds no code.
        """
        known = load_catalogue(self.catalogue)
        code = extract_code(self._answer(prediction), known.contains)
        reference = self._reference(prediction)
        scores = match_scores(code, reference)
        if self.answer == "text":
            scores |= self._other_readings(prediction, code, reference)
        valid = code is not None and known.contains(code)
        scores["invalid"] = float(code is not None and not valid)
        scores["non_leaf"] = float(code is not None and valid and not known.is_leaf(code))
        return scores

    def aggregate(
        self, predictions: Sequence[Prediction], scores: Sequence[Mapping[str, float]]
    ) -> dict[str, float]:
        """Rates over all examples, and precision, recall and F1 over the reference codes."""
        known = load_catalogue(self.catalogue)
        found = [extract_code(self._answer(p), known.contains) or UNPARSED for p in predictions]
        references = [self._reference(p) for p in predictions]
        return super().aggregate(predictions, scores) | averages(found, references)

    def _other_readings(
        self, prediction: Prediction, code: str | None, reference: str
    ) -> dict[str, float]:
        known = load_catalogue(self.catalogue).contains
        lenient = code == reference
        if not lenient and (code is None or not known(code)):
            said = strip_reasoning(prediction.text)
            lenient = load_descriptions(self.catalogue).only(said) == reference
        return {"lenient_match": float(lenient)} | likelihood_matches(
            prediction, lambda candidate: extract_code(candidate, known) == reference
        )

    def _answer(self, prediction: Prediction) -> str:
        if self.answer == "text":
            return prediction.text
        if prediction.candidate is None:
            raise EvaluationError(
                "The metric icd10_candidate needs candidates. Set evaluation.candidates=train."
            )
        return prediction.candidate

    def _reference(self, prediction: Prediction) -> str:
        code = extract_code(prediction.reference, load_catalogue(self.catalogue).contains)
        if code is None:
            raise EvaluationError(
                f"The metric icd10 needs codes as reference answers; example {prediction.id} has "
                f"{prediction.reference[:60]!r}. Choose another metric or another answer column."
            )
        return code
