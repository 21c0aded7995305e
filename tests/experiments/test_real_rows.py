"""The experiments on real rows, with tiny models of the right architecture."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.experiments.conftest import Run, rows_of

from sizewise.composition.compose import compose_run
from sizewise.data.build import build_splits

TINY = (
    "model.init=tiny_random", "trainer.accelerator=cpu", "trainer.max_steps=2", "report=false",
    "logger=none", "generation.max_new_tokens=4", "dataset.max_train=32",
    "dataset.max_validation=4", "dataset.max_test=8", "evaluation.batch_size=8", "sweep=none",
)  # fmt: skip


@pytest.mark.shared
def test_context_and_response_rows_are_dialogues_with_history(shared_dir: Path) -> None:
    path = shared_dir / "data" / "empathetic_dialogues" / "ed_valid.jsonl"
    cfg = compose_run(["dataset=empathetic_turns", f"dataset.source.path={path}"]).dataset
    splits = build_splits(cfg)
    assert splits.report.rows == 5734
    assert splits.report.filtered["empty_answer"] == 2762
    every = (*splits.train, *splits.validation, *splits.test)
    assert all(example.messages[-1].role == "user" for example in every)
    assert max(len(example.messages) for example in every) > 3
    conversations = [{e.group for e in part} for part in (splits.train, splits.test)]
    assert not conversations[0] & conversations[1]


@pytest.mark.shared
@pytest.mark.slow
def test_flan_t5_with_the_real_tokenizer(run: Run, shared_dir: Path) -> None:
    path = shared_dir / "data" / "empathetic_dialogues" / "ed_valid.jsonl"
    outcome = run(
        "real_empathy", "experiment=empathy_flan_t5", "dataset=empathetic_turns",
        f"dataset.source.path={path}", f"model.tokenizer={shared_dir / 'tokenizers' / 't5'}",
        "metric=[rouge,perplexity,efficiency]", "save_data=false", *TINY,
    )  # fmt: skip
    assert outcome.model.model_type == "t5"
    assert outcome.best["empathetic_turns"].examples == 8
    assert outcome.tuned is not None


@pytest.mark.shared
@pytest.mark.slow
def test_psychology_in_four_bits(run: Run, root: Path, shared_dir: Path) -> None:
    path = shared_dir / "data" / "psychology" / "psychology_pairs_2000_reordered.jsonl"
    outcome = run(
        "real_psychology", "experiment=psychology_gemma2b", f"dataset.source.path={path}", *TINY
    )
    assert (outcome.model.model_type, outcome.model.quantization) == ("gemma", "nf4")
    rows = rows_of(root / "real_psychology", "tuned.psychology")
    assert {row["scores"]["preference/preferred"] for row in rows} <= {0.0, 0.5, 1.0}


@pytest.mark.shared
def test_the_classical_baseline_on_real_notes(run: Run, shared_dir: Path) -> None:
    path = shared_dir / "data" / "medsynth_notes" / "medsynth_notes_500.jsonl"
    outcome = run(
        "real_classical", "experiment=icd10_size_vs_specialization", "dataset=medsynth_notes",
        f"dataset.source.path={path}", "model=tfidf_logreg", "lora=none",
        *TINY,
    )  # fmt: skip
    scores = outcome.best["medsynth_notes"].scores
    assert scores["icd10/unparsed"] == 0.0
    # Every code occurs once: none of the test notes' codes is in training, and the table says so.
    assert scores["icd10/exact_match"] == 0.0
