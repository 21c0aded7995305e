"""Reasoning counts neither in an answer nor in its reference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sizewise.data.example import Example, Message
from sizewise.data.tokens.reasoning import REASONING_TAGS, answer_of, strip_reasoning
from sizewise.evaluation.baselines import fit
from sizewise.metrics.base import ExampleMetric
from sizewise.metrics.bertscore import BertScore
from sizewise.metrics.icd10 import Icd10
from sizewise.metrics.label import Label
from sizewise.metrics.length import Length
from sizewise.metrics.memorization import Memorization
from sizewise.metrics.repetition import Repetition
from sizewise.metrics.rouge import Rouge
from sizewise.metrics.similarity import STAND_IN, Similarity
from sizewise.metrics.tfidf import Tfidf

from .helpers import measure, prediction

ANSWERS = ("E11.9 type 2 diabetes", "I10 primary hypertension", "J45.909 asthma")
PERFECT = {
    "icd10": ["exact_match", "prefix3", "prefix1", "macro_f1"],
    "label": ["exact_match", "macro_f1", "weighted_f1"],
    "rouge": ["1", "2", "l", "lsum"],
    "tfidf": ["cosine"],
    "similarity": ["cosine"],
    "bertscore": ["precision", "recall", "f1"],
    "length": ["ratio"],
}


def metrics(encoder: Path) -> list[ExampleMetric]:
    return [
        Icd10(), Label(), Rouge(), Tfidf(), Similarity(STAND_IN), BertScore(str(encoder)),
        Length(),
    ]  # fmt: skip


def thought(number: int, tag: str) -> str:
    return f"<{tag}>row {number} could be B12 or {'so ' * number}</{tag}>\n{ANSWERS[number % 3]}"


@pytest.mark.parametrize("tag", [*REASONING_TAGS, "Think"])
def test_an_answer_that_is_its_reference_is_right_in_every_metric(
    tiny_bert: Path, tag: str
) -> None:
    references = [thought(number, tag) for number in range(6)]
    for texts in (references, [answer_of(text) for text in references], references[3:] * 2):
        rows = [
            prediction(text, reference, id=str(number))
            for number, (text, reference) in enumerate(zip(texts, references, strict=True))
        ]
        for metric in metrics(tiny_bert):
            scores = measure(metric, *rows)
            found = [scores[name] for name in PERFECT[metric.name]]
            assert found == pytest.approx([1.0] * len(found), abs=1e-6), metric.name


@pytest.mark.shared
def test_the_case_of_reasoning_in_references_scores_one(shared_dir: Path) -> None:
    path = shared_dir / "cases/reasoning_in_references/rows.jsonl"
    answers = [json.loads(line)["answer"] for line in path.read_text().splitlines()]
    assert len(answers) > 100
    rows = [prediction(text, text, id=str(number)) for number, text in enumerate(answers)]
    assert measure(Label(), *rows)["exact_match"] == 1.0
    assert measure(Tfidf(), *rows)["cosine"] == pytest.approx(1.0)
    assert measure(Rouge(), *rows)["1"] == pytest.approx(1.0)


def test_training_answers_are_known_by_what_follows_their_reasoning() -> None:
    answers = [f"<think>row {i}</think>\nbilling" for i in range(3)]
    train = [Example((Message("user", "q"),), answer, "g") for answer in answers]
    label = Label()
    label.set_context(train)
    assert label.known == {"billing"}
    copied = Memorization(n=2)
    copied.set_context(train)
    scores = copied.score(prediction("row 0 billing", "<think>row 1</think>\nbilling"))
    assert (scores["longest"], scores["reference_longest"]) == (1.0, 1.0)


def test_reasoning_of_references_neither_repeats_nor_lengthens_anything() -> None:
    row = prediction("<think>a b a b</think> fine", "<think>many words here</think>\nfine")
    assert Length().score(row)["ratio"] == 1.0
    assert measure(Repetition(), row)["corpus_distinct_2"] == 1.0


def test_the_majority_is_counted_without_reasoning() -> None:
    answers = [f"<think>row {i}</think>\nbilling" for i in range(3)] + ["other", "other"]
    train = [Example((Message("user", "q"),), answer, "g") for answer in answers]
    texts, _ = fit("majority", train).answer(train[:1])
    assert texts == ["billing"]


def test_text_without_tags_is_left_as_it_is() -> None:
    for text in ("a < b > c", "think", "<b>bold</b>", "", " spaces "):
        assert strip_reasoning(text) == text
