"""The memorisation figures tell a model overtrained on 50 answers from one trained normally."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tests.experiments.conftest import Run

from sizewise.composition.compose import compose_run
from sizewise.models.tokenizer import load_tokenizer

ROWS = 63
WORDS_PER_ANSWER = 8


def whole_words() -> list[str]:
    """Words that are one token each, so that the word before tells which answer goes on."""
    vocabulary = load_tokenizer(compose_run(["model=nano"]).model).get_vocab()
    words = sorted(t[1:] for t in vocabulary if t[0] == "Ġ" and t[1:].isalpha() and len(t) > 4)
    assert len(words) > 100
    return words


def write_rows(path: Path) -> None:
    """Random words: whatever repeats five in a row was learnt by heart."""
    draw, words = random.Random(0), whole_words()
    rows = [
        {"q": draw.choice(words), "a": " ".join(draw.choices(words, k=WORDS_PER_ANSWER))}
        for _ in range(ROWS)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))


@pytest.mark.slow
def test_an_overtrained_model_is_told_from_a_normally_trained_one(run: Run, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl")
    fixed = [
        f"dataset.source.path={tmp_path / 'rows.jsonl'}",
        *("model=nano", "lora=full", "dataset=jsonl", "logger=none", "callbacks=none"),
        *('dataset.prompt="{q}"', 'dataset.answer="{a}"', "dataset.max_train=50"),
        *("metric=[memorization,repetition,perplexity]", "evaluation.zero_shot=false"),
        *("optimizer.lr=4e-3", "scheduler=constant", "trainer.batch_size=25"),
        *("trainer.validate_every=1000", "trainer.validate_at_start=false"),
        *("generation.max_new_tokens=16", "dataset.max_validation=4"),
    ]
    normal = run("normal", *fixed, "trainer.max_epochs=2").best["my_jsonl"].scores
    overtrained = run("overtrained", *fixed, "trainer.max_epochs=60").best["my_jsonl"].scores
    share, longest = "memorization/shared_5grams", "memorization/longest"
    assert normal["memorization/reference_shared_5grams"] == 0.0
    assert overtrained[share] > normal[share] + 0.2
    assert overtrained[longest] > normal[longest] + 2
    assert overtrained[longest] > overtrained["memorization/reference_longest"] + 2
