from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from sizewise.data.example import Example, Message
from sizewise.errors import DataError
from sizewise.evaluation.baselines import answer_all, fit, question
from sizewise.evaluation.score import score_predictions
from sizewise.metrics.base import ExampleMetric
from sizewise.metrics.icd10 import Icd10
from sizewise.metrics.label import Label

SIGNS = {"E11.9": "thirst sugar", "I10": "pressure blood", "J45.909": "wheeze asthma"}


def made_up(count: int, seed: int) -> list[Example]:
    rng = random.Random(seed)
    examples = []
    for i in range(count):
        code = rng.choices(list(SIGNS), [5, 3, 2])[0]
        text = f"I have {rng.choice(SIGNS[code].split())} since {rng.choice('abcdef')}"
        messages = (Message("system", "Give a code."), Message("user", f"{text} {i}"))
        examples.append(Example(messages, code, f"g{i}", {"label": code, "rejected": "x"}))
    return examples


def test_words_decide() -> None:
    train, test = made_up(120, 0), made_up(40, 1)
    predictions, _ = answer_all(fit("tfidf_logreg", train), test)
    scores, scored = score_predictions(predictions, [Icd10()])
    assert scores["icd10/exact_match"] == 1.0
    assert [p.id for p in scored] == [e.id for e in test]
    assert scored[0].strata == {"label": test[0].answer}
    assert all(p.token_log_prob is not None and p.token_log_prob <= 0 for p in predictions)
    assert [p.text for p in predictions] == [
        p.text for p in answer_all(fit("tfidf_logreg", train), test)[0]
    ]


def test_the_majority_answers_everything() -> None:
    train, test = made_up(120, 0), made_up(40, 1)
    predictions, _ = answer_all(fit("majority", train), test)
    assert {p.text for p in predictions} == {"E11.9"}
    share = sum(e.answer == "E11.9" for e in train) / 120
    assert predictions[0].token_log_prob == pytest.approx(np.log(share))
    scores, _ = score_predictions(predictions, [Icd10()])
    assert scores["icd10/exact_match"] == sum(e.answer == "E11.9" for e in test) / 40


def test_one_class_and_no_examples() -> None:
    train = [e for e in made_up(50, 0) if e.answer == "I10"]
    assert {p.text for p in answer_all(fit("tfidf_logreg", train), made_up(5, 1))[0]} == {"I10"}
    with pytest.raises(DataError, match="training examples"):
        fit("tfidf_logreg", [])


@pytest.mark.parametrize(
    ("metric", "spellings", "other"),
    [
        (Label(), ["Yes", "yes", "YES", "yes."], "No"),
        (Icd10(), ["E11.9", "E119", "e11.9"], "I10"),
    ],
)
@pytest.mark.parametrize("name", ["majority", "tfidf_logreg"])
def test_spellings_that_score_alike_are_one_class(
    metric: ExampleMetric, spellings: list[str], other: str, name: str
) -> None:
    """Each spelling is rarer than the other answer; together they are the commonest."""
    answers = [spellings[i % len(spellings)] if i % 5 < 3 else other for i in range(200)]
    train = [
        Example((Message("user", f"says nothing {i}"),), answer, f"g{i}")
        for i, answer in enumerate(answers)
    ]
    fitted = fit(name, train, counts_as=metric.counts_as)
    texts, _ = fitted.answer(train)
    assert len(set(texts)) <= 2
    assert metric.counts_as(Counter(texts).most_common(1)[0][0]) == metric.counts_as(spellings[0])
    if name == "majority":
        assert set(texts) == {min(spellings, key=lambda s: (-answers.count(s), s))}


def test_the_instruction_is_no_feature() -> None:
    assert question(made_up(1, 0)[0]).startswith("I have")
