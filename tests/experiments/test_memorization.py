"""The memorisation figures tell a model overtrained on 50 answers from one trained normally."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tests.experiments.conftest import Run

SYLLABLES = [f"{a}{b}" for a in "bdfgklm" for b in ("a", "o", "en")]
ROWS = 63


def write_rows(path: Path) -> None:
    """Answers of eight rare words: whatever repeats five in a row was learnt by heart."""
    draw = random.Random(0)
    rows = [{"q": f"Tell me of {_word(draw)}.", "a": _words(draw, 8)} for _ in range(ROWS)]
    path.write_text("\n".join(map(json.dumps, rows)))


def _words(draw: random.Random, count: int) -> str:
    return " ".join(_word(draw) for _ in range(count))


def _word(draw: random.Random) -> str:
    return "".join(draw.choices(SYLLABLES, k=2))


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
        *("generation.max_new_tokens=40", "dataset.max_validation=4"),
    ]
    normal = run("normal", *fixed, "trainer.max_epochs=2").best["my_jsonl"].scores
    overtrained = run("overtrained", *fixed, "trainer.max_epochs=80").best["my_jsonl"].scores
    share, longest = "memorization/shared_5grams", "memorization/longest"
    assert normal["memorization/reference_shared_5grams"] == 0.0
    assert overtrained[share] > normal[share] + 0.2
    assert overtrained[longest] > normal[longest] + 2
    assert overtrained[longest] > overtrained["memorization/reference_longest"] + 2
