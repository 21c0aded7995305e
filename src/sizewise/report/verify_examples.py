"""Are the answered examples those of the test split that the source gives today?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sizewise.outcome import Evaluation
from sizewise.report.verify_checks import FAILED, OK, UNCHECKED, Check

if TYPE_CHECKING:
    from sizewise.data.example import Example
    from sizewise.evaluation.prediction import Prediction
    from sizewise.report.verify_data import Rebuilt

TITLE = "questions and references"


def example_checks(
    predictions: Sequence[Prediction], evaluation: Evaluation, there: Rebuilt
) -> Iterator[Check]:
    """Compare id, group, prompt, reference and strata of every prediction with its example.

    Args:
        predictions: those of one evaluation.
        evaluation: it.
        there: its data set, built anew.
    """
    if there.splits is None:
        yield Check(TITLE, UNCHECKED, there.reason)
        return
    if there.splits.question_fingerprint("test") != evaluation.fingerprint:
        yield Check(TITLE, UNCHECKED, "the source gives another test split today")
        return
    examples = {example.id: example for example in there.splits.test}
    faults = [fault for p in predictions for fault in _faults(p, examples.get(p.id))]
    detail = f"{len(faults)} differ from the source, first {faults[0]}" if faults else ""
    yield Check(TITLE, FAILED if faults else OK, detail)
    left_out = len(there.splits.test) - len(predictions)
    if left_out:
        detail = (
            f"{left_out} of {len(there.splits.test)}: that they are too long for the model is "
            "counted by its tokenizer only"
        )
        yield Check("examples left out", UNCHECKED, detail)


def _faults(prediction: Prediction, example: Example | None) -> Iterator[str]:
    from sizewise.evaluation.measure import strata_of

    if example is None:
        yield f"{prediction.id}: is no example of the test split"
        return
    pairs = {
        "group": (prediction.group, example.group),
        "prompt": (prediction.prompt, example.prompt_text),
        "reference": (prediction.reference, example.answer),
        "answer_bytes": (prediction.answer_bytes, len(example.answer.encode())),
    }
    for name, value in strata_of(example).items():
        pairs[f"stratum {name}"] = (prediction.strata.get(name), value)
    for name, (stored, found) in pairs.items():
        if stored != found:
            yield f"{prediction.id}: {name} is stored as {stored!r} and is {found!r}"
