"""Metrics on real answers against the reference packages."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import f1_score
from sklearn.metrics.pairwise import cosine_similarity
from torchmetrics.functional.text import rouge_score

from sizewise.evaluation.prediction import Prediction
from sizewise.metrics.icd10 import Icd10
from sizewise.metrics.rouge import Rouge
from sizewise.metrics.tfidf import Tfidf

from .helpers import measure, prediction


@pytest.fixture(scope="module")
def answers(shared_dir: Path) -> list[Prediction]:
    """A hundred real answers, each compared with another answer to the same question."""
    path = shared_dir / "data" / "counsel_chat" / "20200325_counsel_chat.csv"
    by_question: dict[str, list[str]] = {}
    with path.open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            by_question.setdefault(row["questionTitle"], []).append(row["answerText"][:600])
    pairs = [texts[:2] for texts in by_question.values() if len(texts) > 1 and all(texts[:2])]
    assert len(pairs) >= 100
    return [prediction(*pair, id=str(i)) for i, pair in enumerate(pairs[:100])]


@pytest.mark.shared
def test_rouge(answers: list[Prediction]) -> None:
    metric = Rouge()
    measure(metric, *answers)
    for row, p in zip(metric.per_example, answers, strict=True):
        keys = ("rouge1", "rouge2", "rougeL")
        expected = rouge_score(p.text, p.reference, rouge_keys=keys, use_stemmer=True)
        for name, key in zip(("1", "2", "l"), keys, strict=True):
            assert row[name] == pytest.approx(float(expected[f"{key}_fmeasure"]), abs=1e-6)


@pytest.mark.shared
def test_tfidf(answers: list[Prediction]) -> None:
    metric = Tfidf()
    measure(metric, *answers)
    vectorizer = TfidfVectorizer().fit([p.reference for p in answers])
    texts = vectorizer.transform([p.text for p in answers])
    references = vectorizer.transform([p.reference for p in answers])
    expected = cosine_similarity(texts, references).diagonal()
    assert [row["cosine"] for row in metric.per_example] == pytest.approx(list(expected))
    assert 0.05 < expected.mean() < 0.95


@pytest.mark.shared
def test_codes_without_the_dot(shared_dir: Path) -> None:
    path = shared_dir / "data" / "medsynth_notes" / "medsynth_notes_500.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:100]]
    codes = [row["ICD10"] for row in rows]
    texts = [
        f"Code {code[:3]}.{code[3:]}" if i % 3 else rows[0]["ICD10"] for i, code in enumerate(codes)
    ]
    scores = measure(Icd10(), *(prediction(t, c) for t, c in zip(texts, codes, strict=True)))
    found = [code if i % 3 else codes[0] for i, code in enumerate(codes)]
    labels = sorted(set(codes))
    expected = f1_score(codes, found, labels=labels, average="macro", zero_division=0)
    assert scores["macro_f1"] == pytest.approx(expected)
    assert scores["unparsed"] == 0
    assert scores["invalid"] < 0.1
