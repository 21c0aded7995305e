"""Planted differences on a model's likelihoods of real notes and real counselling answers.

What varies between examples is real: lengths, difficulty, and how alike the answers to one question
are. What differs between the two sides is planted, so that the right answer is known.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sizewise.config import ModelConfig, QuantizationConfig
from sizewise.data.tokens.table import Encoded
from sizewise.models.base import load_base
from sizewise.models.likelihood import answer_log_probs
from sizewise.models.tokenizer import load_tokenizer
from sizewise.statistics.comparison import PairedScores, compare_paired_many

pytestmark = [pytest.mark.shared, pytest.mark.slow]
NANO = ModelConfig(name="nano", path="embedded:nano")
TRIALS = 60


def bits_per_byte(pairs: list[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Bits per byte [N] of each answer by the embedded nano model, and the answers' bytes."""
    tokenizer = load_tokenizer(NANO)
    model = load_base(NANO, QuantizationConfig(method="none"), torch.device("cpu"))
    encoded = [
        Encoded(tokenizer(prompt)["input_ids"][:120], tokenizer(answer)["input_ids"][:60])
        for prompt, answer in pairs
    ]
    bits = -np.array(answer_log_probs(model, encoded, batch_size=16)) / np.log(2)
    sizes = np.array([len(answer.encode()) for _, answer in pairs], dtype=float)
    return bits / sizes, sizes


@pytest.fixture(scope="module")
def notes(shared_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """All 500 real notes with the description of their code as the answer."""
    path = shared_dir / "data" / "medsynth_notes" / "medsynth_notes_500.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 500
    return bits_per_byte([(row["Note"][:300], row["ICD10_desc"]) for row in rows])


@pytest.fixture(scope="module")
def counsel(shared_dir: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Four hundred real answers of therapists, of which several belong to one question."""
    path = shared_dir / "data" / "counsel_chat" / "20200325_counsel_chat.csv"
    with path.open(encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["answerText"]][:400]
    pairs = [(row["questionTitle"], row["answerText"][:150]) for row in rows]
    groups = [row["questionID"] for row in rows]
    assert len(set(groups)) < len(groups) / 2
    return *bits_per_byte(pairs), groups


def rejected(sides: list[PairedScores]) -> float:
    return float(np.mean([found.p_value < 0.05 for found in compare_paired_many(sides)]))


def noisy(scores: np.ndarray, rng: np.random.Generator, gain: float = 0.0) -> np.ndarray:
    """A second model: as good on average but for ``gain``, better here and worse there."""
    return scores * (1.0 + rng.normal(0.0, 0.1, scores.size)) - gain


def test_a_planted_gain_on_real_notes_is_found_with_its_size(notes) -> None:
    scores, weights = notes
    rng = np.random.default_rng(0)
    gain = 0.03 * float(np.average(scores, weights=weights))
    sides = [PairedScores(scores, noisy(scores, rng, gain), weights=weights) for _ in range(TRIALS)]
    found = compare_paired_many(sides)
    assert np.mean([result.p_value < 0.05 for result in found]) > 0.9
    covered = [r.interval.low <= gain <= r.interval.high for r in found]
    assert np.mean(covered) >= 0.88
    assert np.mean([r.difference for r in found]) == pytest.approx(gain, rel=0.15)


def test_no_difference_on_real_notes_is_not_found(notes) -> None:
    scores, weights = notes
    rng = np.random.default_rng(1)
    assert (
        rejected([PairedScores(scores, noisy(scores, rng), weights=weights) for _ in range(TRIALS)])
        <= 0.12
    )


def test_flipped_answers_are_counted(notes) -> None:
    """Exact match: 40 of 500 answers planted to be right on one side only, 5 on the other."""
    scores, _ = notes
    right = (scores < np.quantile(scores, 0.3)).astype(float)
    wrong = np.flatnonzero(right == 0)
    a, b = right.copy(), right.copy()
    a[wrong[:40]], b[wrong[40:45]] = 1.0, 1.0
    (found,) = compare_paired_many([PairedScores(a, b)])
    assert found.difference == pytest.approx(35 / 500)
    assert found.mcnemar is not None
    assert (found.mcnemar.only_a, found.mcnemar.only_b) == (40, 5)
    assert found.p_value < 1e-6
    (even,) = compare_paired_many([PairedScores(a, np.roll(a, 0))])
    assert even.p_value == 1.0


def test_answers_to_one_question_are_not_independent(counsel) -> None:
    """A model that differs by question, in no direction: only without groups is it 'found'."""
    scores, weights, groups = counsel
    rng = np.random.default_rng(2)
    names = sorted(set(groups))

    def other() -> np.ndarray:
        by_question = dict(zip(names, rng.normal(0.0, 0.1, len(names)), strict=True))
        return scores * (1.0 + np.array([by_question[g] for g in groups]))

    others = [other() for _ in range(TRIALS)]
    grouped = rejected([PairedScores(scores, o, groups, weights=weights) for o in others])
    alone = rejected([PairedScores(scores, o, weights=weights) for o in others])
    assert grouped <= 0.12
    assert alone > grouped + 0.05


def test_a_planted_gain_on_real_counselling_answers_is_found(counsel) -> None:
    scores, weights, groups = counsel
    rng = np.random.default_rng(3)
    gain = 0.05 * float(np.average(scores, weights=weights))
    sides = [
        PairedScores(scores, noisy(scores, rng, gain), groups, weights=weights)
        for _ in range(TRIALS)
    ]
    assert rejected(sides) > 0.9
