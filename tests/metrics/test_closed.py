"""Closed answer sets: what counts as said when the form is forgiven, and answers by likelihood."""

from __future__ import annotations

import pytest

from sizewise.data.example import Example, Message
from sizewise.metrics.icd10 import Icd10
from sizewise.metrics.label import Label
from sizewise.metrics.reading.closed import plain

from .helpers import measure, prediction

LABELS = (
    "family history", "history", "C++", "C#", "no", "follow-up", "-4", "4", ".5", "5", "है", "ह",
)  # fmt: skip


def lenient(text: str, reference: str) -> float:
    metric = Label()
    metric.set_context([Example((Message("user", "q"),), label, "g") for label in LABELS])
    return measure(metric, prediction(text, reference))["lenient_match"]


@pytest.mark.parametrize(
    ("text", "reference", "match"),
    [
        ("The section is: *Family  History*.", "family history", 1.0),
        ("The section is: Family History.", "history", 0.0),  # the longer label goes first
        ("family history, not history", "family history", 0.0),  # two are named
        ("History, yes: history", "history", 1.0),  # one, twice
        ("prehistory", "history", 0.0),  # whole words only
        ("It is a follow up.", "follow-up", 1.0),
        ("follow_up", "follow-up", 1.0),
        ("not history", "history", 1.0),  # negations are not read
        ("nothing of these", "history", 0.0),
        ("", "history", 0.0),
        ("C++", "C++", 1.0),  # as said
        ("It is C++.", "C++", 0.0),  # the same words as C#: not told apart
        ("<think>history</think> No!", "no", 1.0),
        ("It is -4 degrees.", "-4", 1.0),
        ("It is -4 degrees.", "4", 0.0),  # the sign belongs to the number
        ("type-4", "4", 1.0),  # and here it joins two words
        ("3.4 mg", "4", 0.0),
        ("about .5", ".5", 1.0),
        ("यह सही है", "है", 1.0),
        ("यह सही है", "ह", 0.0),  # signs of vowels belong to their letters
    ],
)
def test_a_label_counts_where_it_is_the_one_that_an_answer_names(
    text: str, reference: str, match: float
) -> None:
    assert lenient(text, reference) == match


@pytest.mark.parametrize(
    ("text", "reference", "match"),
    [
        ("The code is e11.9, I think.", "E11.9", 1.0),
        ("Type 2 diabetes mellitus, without complications!", "E11.9", 1.0),
        ("essential (primary) hypertension", "I10", 1.0),
        ("Essential primary hypertension and cough, unspecified", "I10", 0.0),  # two codes
        ("Cholera, code I10", "A00", 0.0),  # a code goes before a description
        ("I10", "E11.9", 0.0),
        ("diabetes", "E11.9", 0.0),
        ("<think>Cholera</think> nothing", "A00", 0.0),
    ],
)
def test_the_description_of_one_code_stands_for_the_code(
    text: str, reference: str, match: float
) -> None:
    found = measure(Icd10(), prediction(text, reference))
    assert found["lenient_match"] == match
    assert found["lenient_match"] >= found["exact_match"]


def test_a_description_of_a_code_and_its_only_subdivision_means_the_subdivision() -> None:
    """A08.3 "Other viral enteritis" is divided into codes of which A08.39 has the same name."""
    found = measure(Icd10(), prediction("Other viral enteritis", "A08.39"))
    assert (found["exact_match"], found["lenient_match"]) == (0.0, 1.0)


@pytest.mark.parametrize(("metric", "right", "wrong"), [(Label, "a", "b"), (Icd10, "I10", "J00")])
def test_readings_by_likelihood_are_those_of_the_candidates(
    metric: type, right: str, wrong: str
) -> None:
    found = measure(
        metric(),
        prediction("?", right, candidate=wrong, candidate_per_token=right),
        prediction("!", right, candidate=right, candidate_per_token=right),
    )
    assert found["likelihood_match"] == 0.5
    assert found["likelihood_per_token_match"] == 1.0
    assert "likelihood_calibrated_match" not in found, "without validation prompts there is none"
    assert found["exact_match"] == 0.0
    known = prediction(right, right, candidate=right, candidate_calibrated=f" {right}. ")
    assert measure(metric(), known)["likelihood_calibrated_match"] == 1.0


def test_without_candidates_there_is_no_reading_by_likelihood() -> None:
    for metric, reference in ((Label(), "a"), (Icd10(), "I10")):
        found = measure(metric, prediction("?", reference))
        assert not [name for name in found if name.startswith("likelihood")]
        assert "lenient_match" in found


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Yes.", '"yes"', True),
        ("'yes'.", "YES", True),
        (".5", "5", False),
        ('".5"', ".5", True),
        ("5.", "5", True),
        ("-5", "5", False),
        ("...", ".", False),
    ],
)
def test_the_point_before_a_fraction_is_no_full_stop(one: str, other: str, same: bool) -> None:
    assert (plain(one) == plain(other)) is same
