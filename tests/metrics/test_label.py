"""Labels: what counts as the same one, and the averages over them."""

from __future__ import annotations

import pytest
from sklearn.metrics import f1_score

from sizewise.data.example import Example, Message
from sizewise.metrics.label import Label, plain

from .helpers import measure, prediction


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("GENHX", 1.0),
        (" genhx.\n", 1.0),
        ("<think>CC?</think> GENHX", 1.0),
        ("GENHX because of the history", 0.0),
        ("CC", 0.0),
        ("", 0.0),
    ],
)
def test_the_whole_answer_is_the_label(text: str, match: float) -> None:
    assert measure(Label(), prediction(text, "GENHX"))["exact_match"] == match


def test_labels_of_signs_stay_apart() -> None:
    assert len({plain(text) for text in ("C", "C++", "C#", ".", "+")}) == 5
    assert plain(' "Family  history." ') == "family history"
    assert plain("Cafe\u0301") == plain("CAF\u00c9")
    assert measure(Label(), prediction("+", "-"))["exact_match"] == 0.0


def test_an_answer_that_is_no_label_is_unparsed() -> None:
    metric = Label()
    metric.set_context([Example((Message("user", "q"),), "rare", "g")])
    texts = ("a", "rare", "neither", "")
    found = measure(metric, *(prediction(text, "a") for text in texts))
    assert found["unparsed"] == 0.5
    assert found["empty"] == 0.25


def test_averages_are_those_of_scikit_learn() -> None:
    references, answers = list("aaabbc"), list("aabbcx")
    pairs = zip(answers, references, strict=True)
    found = measure(Label(), *(prediction(a, r) for a, r in pairs))
    for kind in ("macro", "weighted"):
        wanted = f1_score(
            references, answers, labels=["a", "b", "c"], average=kind, zero_division=0
        )
        assert found[f"{kind}_f1"] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("<think>something else", "<think>I was cut"),
        ("", "<think>cut"),
        ("<think>x</think>", "<think>the true answer</think>"),
    ],
)
def test_an_answer_without_content_matches_nothing(text: str, reference: str) -> None:
    found = measure(Label(), prediction(text, reference))
    assert (found["exact_match"], found["unparsed"], found["empty"]) == (0.0, 1.0, 1.0)
