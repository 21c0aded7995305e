"""The memorisation figures tell a model overtrained on 50 answers from one trained normally."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tests.experiments.conftest import Run

WORDS = [
    "river",
    "letter",
    "window",
    "garden",
    "morning",
    "bread",
    "music",
    "winter",
    "journey",
    "candle",
    "forest",
    "silver",
    "paper",
    "market",
    "shadow",
    "harbour",
    "meadow",
    "lantern",
    "orchard",
    "pocket",
    "bridge",
    "feather",
    "thunder",
    "blanket",
]
ROWS = 63


def write_rows(path: Path) -> None:
    draw = random.Random(0)
    rows = [
        {"q": f"Tell me of the {' '.join(draw.sample(WORDS, 2))}.",
         "a": " ".join(draw.choices(WORDS, k=14))}
        for _ in range(ROWS)
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)))


@pytest.mark.slow
def test_an_overtrained_model_is_told_from_a_normally_trained_one(run: Run, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl")
    fixed = (
        "model=nano", "lora=full", "dataset=jsonl", f"dataset.source.path={tmp_path / 'rows.jsonl'}",
        'dataset.prompt="{q}"', 'dataset.answer="{a}"', "dataset.max_train=50", "logger=none",
        "metric=[memorization,repetition,perplexity]", "callbacks=none", "optimizer.lr=3e-3",
        "trainer.batch_size=10", "trainer.validate_every=1000", "trainer.validate_at_start=false",
        "generation.max_new_tokens=48", "dataset.max_validation=4", "scheduler=constant",
    )  # fmt: skip
    normal = run("normal", *fixed, "trainer.max_epochs=1").best["my_jsonl"].scores
    overtrained = run("overtrained", *fixed, "trainer.max_epochs=60").best["my_jsonl"].scores
    share = "memorization/shared_5grams"
    assert normal["memorization/reference_shared_5grams"] == 0.0
    assert overtrained[share] > normal[share] + 0.3
    assert overtrained["memorization/longest"] > normal["memorization/longest"] + 3
    assert overtrained["perplexity/perplexity"] > normal["perplexity/perplexity"]
