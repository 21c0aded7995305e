"""Baselines without a language model, on the same splits and in the same form."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sizewise.data.example import Example
from sizewise.data.splits.frequency import spellings
from sizewise.data.tokens.reasoning import answer_of
from sizewise.errors import ConfigError, DataError
from sizewise.evaluation.answer import of_example
from sizewise.record.predictions import Prediction

Guesses = tuple[list[str], list[float]]
MOST_FEATURES = 50_000
MOST_WEIGHTS = 20_000_000
"""Weights (classes × features) beyond which features are dropped: the solver keeps 20 copies."""


@dataclass(frozen=True)
class Fitted:
    """A fitted baseline: its answers with the natural-log probability of each, and its size.

    ``parameters``: numbers that were fitted; ``bytes``: what they occupy in memory.
    """

    answer: Callable[[Sequence[Example]], Guesses]
    parameters: int
    bytes: int


CountsAs = Callable[[str], str]
"""Gives answers that are one and the same to the score the same text."""


def fit(name: str, train: Sequence[Example], seed: int = 0, counts_as: CountsAs = str) -> Fitted:
    """Fit ``tfidf_logreg`` or ``majority`` on the training split.

    Answers that ``counts_as`` the same are one class, called by its commonest spelling.

    Raises:
        ConfigError: there is no such baseline.
        DataError: the training split is empty.
    """
    check_baseline(name)
    if not train:
        raise DataError("A baseline needs training examples. Check dataset.max_train and split.")
    answers = _classes([answer_of(example.answer) for example in train], counts_as)
    if name == "majority" or len(set(answers)) == 1:
        return fit_majority(answers)
    return fit_tfidf(train, answers, seed, features_for(len(set(answers))))


def check_baseline(name: str) -> None:
    """Raise ConfigError unless there is a baseline of that name."""
    if name not in ("majority", "tfidf_logreg"):
        raise ConfigError(
            f"model.path=classical:{name} is not known. There is: classical:tfidf_logreg, "
            "classical:majority."
        )


def features_for(classes: int) -> int:
    return min(MOST_FEATURES, max(2_000, MOST_WEIGHTS // max(classes, 1)))


def fit_majority(answers: Sequence[str]) -> Fitted:
    """Fit the baseline that always gives the most frequent answer (of equals the first)."""
    counts = Counter(answers)
    answer = _commonest(counts)
    share = float(np.log(counts[answer] / counts.total()))
    return Fitted(
        lambda examples: ([answer] * len(examples), [share] * len(examples)),
        parameters=1,
        bytes=len(answer.encode()),
    )


def fit_tfidf(
    train: Sequence[Example],
    answers: Sequence[str],
    seed: int = 0,
    max_features: int | None = MOST_FEATURES,
    inverse_strength: float = 10.0,
    max_iter: int = 300,
) -> Fitted:
    """Fit TF-IDF and logistic regression.

    The classes are the ``answers`` to the examples; ``max_features`` the most frequent words and
    pairs that are kept; ``inverse_strength`` that of the L2 penalty (scikit-learn's ``C``).
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=max_features)
    model = LogisticRegression(C=inverse_strength, max_iter=max_iter, random_state=seed)
    classifier = make_pipeline(vectorizer, model)
    classifier.fit([question(example) for example in train], answers)
    weights = (model.coef_, model.intercept_, vectorizer.idf_)
    return Fitted(
        lambda examples: _classify(classifier, examples),
        parameters=sum(int(array.size) for array in weights),
        bytes=sum(int(array.nbytes) for array in weights),
    )


def question(example: Example) -> str:
    """Return what the user said last; instructions and few-shot examples are no features."""
    return example.messages[-1].content


def _classify(classifier: Any, examples: Sequence[Example]) -> Guesses:
    log_probs_NC = classifier.predict_log_proba([question(example) for example in examples])
    best_N = log_probs_NC.argmax(axis=1)
    values = log_probs_NC[np.arange(len(best_N)), best_N]
    return [str(classifier.classes_[i]) for i in best_N], [float(value) for value in values]


def _classes(answers: Sequence[str], counts_as: CountsAs) -> list[str]:
    """Call each answer by the commonest spelling of what it counts as (of equals the first)."""
    keys = {answer: counts_as(answer) for answer in set(answers)}
    names = {key: _commonest(c) for key, c in spellings(answers, keys.__getitem__).items()}
    return [names[keys[answer]] for answer in answers]


def _commonest(counts: Counter[str]) -> str:
    return min(counts, key=lambda text: (-counts[text], text))


def answer_all(fitted: Fitted, test: Sequence[Example]) -> tuple[list[Prediction], float]:
    """Answer all examples at once; return the predictions and the seconds it took.

    There are no tokens, and no likelihood of references.
    """
    started = time.perf_counter()
    texts, confidences = fitted.answer(test) if test else ([], [])
    seconds = time.perf_counter() - started
    rows = [
        Prediction(
            **of_example(example),
            text=text,
            log_prob=float("nan"),
            answer_tokens=1,
            prompt_tokens=0,
            new_tokens=0,
            finished=True,
            latency=seconds,
            batch_size=len(test),
            token_log_prob=confidence,
        )
        for example, text, confidence in zip(test, texts, confidences, strict=True)
    ]
    return rows, seconds
