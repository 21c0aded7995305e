"""Each experiment runs from end to end as a dry run, without a network, and says that it is one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.experiments.conftest import Run, rows_of
from tests.job.comparing import comparable

from sizewise.composition.compose import compose_run
from sizewise.data.build import build_splits
from sizewise.errors import ConfigError
from sizewise.record.outcome import read_outcome

DRY = ("debug=dry_run", "sweep=none")
# Another test counts what a fit writes; here the smallest sizes will do.
LEAN = ("report=false", "logger=none", "generation.max_new_tokens=3", "trainer.max_steps=2")


@pytest.fixture(scope="module")
def psychology(run: Run, root: Path) -> Path:
    run("psychology", "experiment=psychology_gemma2b", *DRY)
    return root / "psychology"


@pytest.mark.slow
def test_psychology_is_interrupted_resumed_scored_and_reported(psychology: Path) -> None:
    outcome = read_outcome(psychology)
    assert any("Dry run" in warning for warning in outcome.warnings)
    assert outcome.cost.train_steps == 4
    log = (psychology / "job.log").read_text()
    assert "goes on from there" in log
    assert "Synthetic rows" in log
    assert (psychology / "report" / "report.html").stat().st_size > 10_000
    assert "Dry run" in (psychology / "report" / "report.html").read_text()
    header, *lines = (psychology / "csv" / "metrics.csv").read_text().splitlines()
    assert "train_loss" in header
    assert "val_loss" in header
    assert len(lines) >= 4


@pytest.mark.slow
def test_a_dry_run_also_exports(psychology: Path) -> None:
    assert (psychology / "export" / "model.safetensors").is_file()
    assert "psychology" in (psychology / "export" / "README.md").read_text()


@pytest.mark.slow
def test_a_finished_run_is_scored_again_without_training(run: Run, psychology: Path) -> None:
    again = run("scored", f"run={psychology}", "metric=[length]", "logger=none")
    before = read_outcome(psychology)
    assert again.cost.train_steps is None
    assert again.tuned is not None
    assert before.tuned is not None
    scores, old = again.tuned["psychology"].scores, before.tuned["psychology"].scores
    assert scores["perplexity/bits_per_byte"] == pytest.approx(old["perplexity/bits_per_byte"])
    assert "length/words" in scores
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        run("nowhere", "run=no/such/run")


@pytest.mark.slow
def test_psychology_prefers_by_likelihood_before_and_after(psychology: Path) -> None:
    for name in ("base.psychology", "tuned.psychology"):
        for row in rows_of(psychology, name):
            margin = row["log_prob"] - row["scores"]["rejected/log_prob"]
            assert row["scores"]["preference/margin"] == pytest.approx(margin)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_outcome_and_another_differs(run: Run, root: Path) -> None:
    base = ("experiment=counseling_gemma2b", *DRY, *LEAN)
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        run(name, *base, f"seed={seed}")
    assert comparable(root / "one") == comparable(root / "again")
    losses = [read_outcome(root / name).validation["val_loss"] for name in ("one", "other")]
    assert losses[0] != losses[1]


@pytest.mark.slow
def test_counseling_in_small_batches_with_perplexity_before_and_after(run: Run, root: Path) -> None:
    outcome = run("one", "experiment=counseling_gemma2b", *DRY, *LEAN, "seed=1")
    assert outcome.cost.accumulate == 4
    assert outcome.tuned is not None
    for evaluation in (outcome.base["counseling"], outcome.tuned["counseling"]):
        assert evaluation.scores["perplexity/perplexity"] > 1
        assert 0 <= evaluation.scores["similarity/cosine"] <= 1
    assert "stands in for it" in (root / "one" / "job.log").read_text()


@pytest.mark.slow
def test_therapy_is_tested_on_other_data_under_two_conditions(run: Run) -> None:
    outcome = run("therapy", "experiment=therapy_gemma4b", *DRY, *LEAN)
    assert outcome.model.model_type == "gemma3"
    assert outcome.tuned is not None
    assert set(outcome.tuned) == {"psychotherapy", "counseling_filtered", "counseling"}
    for name, tuned in outcome.tuned.items():
        assert {"tfidf/cosine", "tfidf/cosine_std", "tfidf/base_cosine"} <= tuned.scores.keys()
        assert "tfidf/base_cosine" not in outcome.base[name].scores
        assert "memorization/reference_longest" in tuned.scores
        assert "repetition/distinct_2" in tuned.scores


@pytest.mark.slow
def test_therapy_has_a_server_and_a_judge_beside_it_for_which_others_stand_in(
    run: Run, root: Path
) -> None:
    cfg = compose_run(["experiment=therapy_gemma4b", "debug=dry_run"])
    assert set(cfg.sweep.arms) == {"specialised", "general"}
    for name, arm in cfg.sweep.arms.items():
        own = [text for text in arm if not text.startswith("seed=")]
        outcome = run(f"judged_{name}", "experiment=therapy_gemma4b", "debug=dry_run", *LEAN, *own)
        scores = outcome.best["counseling"].scores
        assert 0 <= scores["judge/win"] <= 1
        assert any("Dry run" in warning for warning in outcome.warnings)
        log = (root / f"judged_{name}" / "job.log").read_text()
        assert "a tiny random model stands in for qwen3_14b" in log
    assert outcome.model.family == "endpoint"
    assert "A stand-in answers for the server: nothing is sent" in log


@pytest.mark.slow
@pytest.mark.parametrize("lora", ["full", "all_linear"])
def test_empathy_keeps_its_splits_as_sqlite(run: Run, root: Path, lora: str) -> None:
    outcome = run(f"empathy_{lora}", "experiment=empathy_flan_t5", f"lora={lora}", *DRY, *LEAN)
    assert outcome.model.family == "seq2seq"
    assert "rouge/l" in outcome.best["empathetic_dialogues"].scores
    folder = root / f"empathy_{lora}" / "data"
    assert (folder / "token_lengths.png").stat().st_size > 1000
    with closing(sqlite3.connect(folder / "splits.sqlite")) as connection:
        counts = connection.execute("SELECT split, count(*) FROM examples GROUP BY split")
        assert dict(counts.fetchall()) == outcome.data.sizes
    back = compose_run(["dataset=sqlite", f"dataset.source.path={folder / 'splits.sqlite'}"])
    assert len(build_splits(back.dataset).test) == outcome.data.sizes["test"]


@pytest.mark.slow
def test_icd10_scores_candidates_and_strata_beside_free_answers(run: Run, root: Path) -> None:
    outcome = run("icd10", "experiment=icd10_size_vs_specialization", "model=qwen3b", *DRY, *LEAN)
    assert outcome.tuned is not None
    scores = outcome.tuned["medsynth"].scores
    assert {"icd10/exact_match", "icd10_candidate/exact_match"} <= scores.keys()
    bands = {row["strata"]["label_frequency"] for row in rows_of(root / "icd10", "tuned.medsynth")}
    assert bands <= {"never seen", "rare (1–9)", "frequent (10+)"}
    assert bands


def test_the_classical_baseline_stands_beside_them(run: Run, root: Path) -> None:
    chosen = ("experiment=icd10_size_vs_specialization", "model=tfidf_logreg", "lora=none")
    outcome = run("classical", *chosen, *DRY, "report=false", "logger=none")
    assert outcome.tuned is None
    assert (outcome.model.family, outcome.model.name) == ("classical", "tfidf_logreg")
    assert outcome.model.params_total > 10
    scores = outcome.best["medsynth"].scores
    assert {"icd10/exact_match", "icd10_candidate/exact_match"} <= scores.keys()
    assert not any(name.startswith("perplexity/") for name in scores)
    assert all(
        "label_frequency" in row["strata"] for row in rows_of(root / "classical", "base.medsynth")
    )


def test_the_classical_baseline_takes_no_adapter_and_needs_classes(run: Run) -> None:
    with pytest.raises(ConfigError, match="lora=none"):
        run("wrong", "model=tfidf_logreg", "lora=attention")
    with pytest.raises(ConfigError, match="likelihoods"):
        run("wrong", "model=tfidf_logreg", "lora=none", "dataset=counseling")
