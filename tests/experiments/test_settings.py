"""Every experiment composes with the settings of its project, and what is chosen by hand wins."""

from __future__ import annotations

import pytest

from sizewise.composition.compose import compose_run
from sizewise.config.register import conf_dir

NAMES = {
    "therapy_gemma4b", "icd10_size_vs_specialization", "counseling_gemma2b",
    "psychology_gemma2b", "empathy_flan_t5",
}  # fmt: skip


def experiment(name: str, *overrides: str):
    return compose_run([f"experiment={name}", *overrides])


def test_the_five_are_there() -> None:
    assert {path.stem for path in (conf_dir() / "experiment").glob("*.yaml")} >= NAMES


def test_therapy() -> None:
    cfg = experiment("therapy_gemma4b")
    assert (cfg.model.path, cfg.seed) == ("google/gemma-3-4b-it", 42)
    assert cfg.dataset.source.path == "entfane/psychotherapy"
    assert cfg.dataset.max_train == 500
    assert "{illness}" in (cfg.dataset.system or "")
    assert "{stage}" in (cfg.dataset.system or "")
    assert list(cfg.eval_dataset) == ["counseling_filtered", "counseling"]
    filtered, plain = cfg.eval_dataset.values()
    limits = filtered.filter
    assert (limits.min_prompt_chars, limits.max_prompt_chars) == (50, 1000)
    assert (limits.min_answer_chars, limits.max_answer_chars) == (50, 2000)
    assert plain.filter.max_prompt_chars is None
    assert filtered.max_test == plain.max_test == 200
    assert {"tfidf", "memorization", "repetition"} <= set(cfg.metric)
    assert "early_stopping" in cfg.callbacks
    assert cfg.evaluation.retries == 3
    assert cfg.evaluation.batch_size is not None


def test_icd10_is_one_command_with_its_arms() -> None:
    cfg = experiment("icd10_size_vs_specialization")
    assert (cfg.lora.r, cfg.lora.alpha, cfg.lora.dropout) == (16, 32, 0.05)
    assert cfg.lora.target == "attention"
    assert (cfg.trainer.batch_size, cfg.trainer.max_epochs) == (8, 3)
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay) == (2e-5, 0.01)
    assert cfg.scheduler.warmup == 500
    assert cfg.dataset.max_length == 2048
    assert (cfg.dataset.split.validation, cfg.dataset.split.test) == (0.15, 0.15)
    stopping = cfg.callbacks["early_stopping"]
    assert (stopping["patience"], stopping["min_delta"]) == (3, 0.001)
    arms = cfg.sweep.arms
    assert set(arms) == {"general", "few_shot", "specialised", "as_the_field_does", "classical"}
    assert "model=llama8b,mistral7b" in cfg.sweep.arms["general"]
    assert "quantization=nf4" in cfg.sweep.arms["general"]
    assert cfg.evaluation.candidates == "labels"
    assert {"icd10", "icd10_candidate"} <= set(cfg.metric)


def test_icd10_baseline_and_training_are_arms_of_their_own() -> None:
    baseline = experiment("icd10_size_vs_specialization", "sweep=icd10_baseline").sweep.arms
    training = experiment("icd10_size_vs_specialization", "sweep=icd10_training").sweep.arms
    assert set(training) == {"specialised", "as_the_field_does"}
    assert all("lora=none" in arm for arm in baseline.values())
    assert all("stage=train" in arm for arm in training.values())


def test_icd10_keeps_the_projects_arm_beside_one_as_the_field_does_it() -> None:
    sweep = experiment("icd10_size_vs_specialization").sweep
    assert sweep.tuning.on
    theirs, ours = sweep.arms["specialised"], sweep.arms["as_the_field_does"]
    assert {"lora=attention", "optimizer.lr=2e-5", "seed=1,2,3"} <= set(theirs)
    assert {"lora=all_linear", "lora.dropout=0", "seed=1,2,3"} <= set(ours)
    assert "optimizer.lr=3e-5,1e-4,3e-4" in ours


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_experiment_that_trains_tunes_its_learning_rate_in_a_grid(name: str) -> None:
    assert experiment(name).sweep.tuning.lr_factors == [0.333, 1, 3]


def test_counseling() -> None:
    cfg = experiment("counseling_gemma2b")
    assert cfg.model.path == "google/gemma-2b-it"
    assert cfg.dataset.source.path == "Amod/mental_health_counseling_conversations"
    assert cfg.dataset.max_length == 2000
    assert cfg.dataset.split.test == 0.1
    assert cfg.optimizer.target.endswith("PagedAdamW8bit")
    assert cfg.optimizer.lr == 2e-4
    assert (cfg.trainer.batch_size, cfg.trainer.accumulate) == (1, 4)
    assert cfg.trainer.max_epochs == 3
    assert {"similarity", "perplexity"} <= set(cfg.metric)


def test_psychology() -> None:
    cfg = experiment("psychology_gemma2b")
    assert cfg.dataset.answer == "{response_j}"
    assert cfg.dataset.rejected == "response_k"
    assert cfg.quantization.method == "nf4"
    assert {"csv", "tensorboard"} == set(cfg.logger.backends)
    assert "preference" in cfg.metric
    assert experiment("psychology_gemma2b", "quantization=int8").quantization.method == "int8"
    assert experiment("psychology_gemma2b", "dataset.max_samples=50").dataset.max_samples == 50


def test_empathy() -> None:
    cfg = experiment("empathy_flan_t5")
    assert (cfg.model.family, cfg.model.path) == ("seq2seq", "google/flan-t5-small")
    assert cfg.lora.method == "full"
    assert cfg.trainer.label_smoothing > 0
    assert cfg.trainer.gradient_clip == 1.0
    assert cfg.optimizer.weight_decay > 0
    assert cfg.scheduler.warmup > 0
    assert (cfg.trainer.max_epochs, cfg.seed) == (3, 42)
    assert cfg.dataset.max_validation == cfg.dataset.max_test == 200
    assert cfg.dataset.clean_whitespace
    assert cfg.save_data
    assert {"rouge", "similarity"} <= set(cfg.metric)
    system = cfg.dataset.system or ""
    assert "empathy" in system
    assert "practical suggestions" in system
    assert "no medical advice" in system


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_command_line_beats_the_experiment_beats_the_defaults(name: str) -> None:
    default, chosen = compose_run(), experiment(name)
    assert chosen.model.name != default.model.name
    given = experiment(name, "model=nano", "trainer.max_epochs=7", "lora.r=5")
    assert (given.model.name, given.trainer.max_epochs, given.lora.r) == ("nano", 7, 5)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_dry_run_beats_the_experiment(name: str) -> None:
    cfg = experiment(name, "debug=dry_run")
    assert cfg.dry_run
    assert cfg.model.init == "tiny_random"
    assert cfg.trainer.max_steps == 4
    assert cfg.trainer.accelerator == "cpu"


def test_every_arm_of_the_named_sweeps_composes() -> None:
    folder = conf_dir().parent / "sweeps" / "sweep"
    base = {"psychology_bits": "psychology_gemma2b", "empathy_prompts": "empathy_flan_t5"}
    names = [path.stem for path in folder.glob("icd10_*.yaml")] + list(base)
    assert len(names) >= 5
    for name in names:
        chosen = f"experiment={base.get(name, 'icd10_size_vs_specialization')}"
        for arm in compose_run([chosen, f"sweep={name}"]).sweep.arms.values():
            first = [text.split(",")[0] for text in arm]
            assert compose_run([chosen, f"sweep={name}", *first]).model.name
