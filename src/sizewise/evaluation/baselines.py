"""Baselines without a language model, on the same splits and in the same form."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sizewise.data.example import Example
from sizewise.errors import DataError
from sizewise.evaluation.measure import strata_of
from sizewise.evaluation.prediction import Prediction

Answers = tuple[list[str], list[float]]


def majority_baseline(train: Sequence[Example], test: Sequence[Example]) -> list[Prediction]:
    """Always give the most frequent training answer (of equals the first in the alphabet)."""
    counts = Counter(example.answer for example in _not_empty(train))
    answer = min(counts, key=lambda text: (-counts[text], text))
    share = float(np.log(counts[answer] / counts.total()))
    return _predictions(test, lambda examples: ([answer] * len(examples), [share] * len(examples)))


def tfidf_baseline(
    train: Sequence[Example],
    test: Sequence[Example],
    seed: int = 0,
    max_features: int | None = 50_000,
    inverse_strength: float = 10.0,
    max_iter: int = 300,
) -> list[Prediction]:
    """TF-IDF of words and word pairs of the user's text, then multinomial logistic regression.

    Args:
        train: examples whose whole answers are the classes.
        test: examples to answer.
        seed: of the solver.
        max_features: most frequent words and pairs that are kept.
        inverse_strength: inverse of the L2 penalty (scikit-learn's ``C``).
        max_iter: of the solver (L-BFGS).

    Raises:
        DataError: the training split is empty.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    answers = [example.answer for example in _not_empty(train)]
    if len(set(answers)) == 1:
        return majority_baseline(train, test)
    classifier = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=max_features),
        LogisticRegression(C=inverse_strength, max_iter=max_iter, random_state=seed),
    )
    classifier.fit([question(example) for example in train], answers)
    return _predictions(test, lambda examples: _classify(classifier, examples))


def question(example: Example) -> str:
    """Return what the user said last; instructions and few-shot examples are no features."""
    return example.messages[-1].content


def _classify(classifier: Any, examples: Sequence[Example]) -> Answers:
    log_probs_NC = classifier.predict_log_proba([question(example) for example in examples])
    best_N = log_probs_NC.argmax(axis=1)
    values = log_probs_NC[np.arange(len(best_N)), best_N]
    return [str(classifier.classes_[i]) for i in best_N], [float(value) for value in values]


def _not_empty(train: Sequence[Example]) -> Sequence[Example]:
    if not train:
        raise DataError("A baseline needs training examples. Check dataset.max_train and split.")
    return train


def _predictions(
    test: Sequence[Example], answer: Callable[[Sequence[Example]], Answers]
) -> list[Prediction]:
    """Answer all examples at once; there are no tokens, and no likelihood of references."""
    started = time.perf_counter()
    texts, confidences = answer(test) if test else ([], [])
    seconds = time.perf_counter() - started
    return [
        Prediction(
            id=example.id,
            group=example.group,
            prompt=example.prompt_text,
            reference=example.answer,
            text=text,
            log_prob=float("nan"),
            answer_tokens=1,
            answer_bytes=len(example.answer.encode()),
            prompt_tokens=0,
            new_tokens=0,
            finished=True,
            latency=seconds,
            batch_size=len(test),
            token_log_prob=confidence,
            strata=strata_of(example),
        )
        for example, text, confidence in zip(test, texts, confidences, strict=True)
    ]
