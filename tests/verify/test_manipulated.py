"""Every manipulation of a record that could decide a verdict is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.report.real_run import METRICS, real_run

from sizewise.evaluation.score import score_predictions
from sizewise.files import hash_text
from sizewise.metrics.base import build_metrics
from sizewise.models.sources import embedded_model_path
from sizewise.record.directories import RunDir
from sizewise.record.fit import FitResult, write_result
from sizewise.record.history import Line, rewrite
from sizewise.record.outcome import file_ref, outcome_from_json, read_outcome, write_outcome
from sizewise.record.predictions import Prediction, bill_path, read_predictions
from sizewise.verify import FAILED, OK, UNCHECKED
from sizewise.verify.record import evaluation_check, size_checks
from sizewise.verify.verify import verify_run

NAME = "icd10_dialogues"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_run(tmp_path_factory.mktemp("honest"))


def changed(record: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split("/")
    for key in parents:
        record = record[key]
    record[last] = value


def swap(record: dict[str, Any]) -> None:
    record["base"], record["tuned"] = record["tuned"], record["base"]


def set_to(dotted: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda record: changed(record, dotted, value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (set_to("direction", "min"), "dataset.direction is recorded as 'min'"),
        (set_to("primary", "icd10/unparsed"), "dataset.primary is recorded as 'icd10/unparsed'"),
        (set_to("seed", 7), "seed is recorded as 7"),
        (set_to("model/name", "gpt"), "model.name is recorded as 'gpt'"),
        (set_to("model/path", "embedded:mini"), "model.path is recorded"),
        (set_to("model/quantization", "nf4"), "quantization.method is recorded as 'nf4'"),
        (set_to("model/params_base", 10**9), "1,000,000,000 parameters"),
        (set_to("model/base_bytes", 1), "in 1 bytes are recorded"),
        (set_to("objective", 0.0), "objective: it is 0.0"),
        (set_to(f"tuned/{NAME}/fingerprint", "other"), "its fingerprint is other"),
        (set_to(f"base/{NAME}/split", "validation"), "it is of the validation split"),
        (set_to("tuned", None), "the configuration describes a tuned model"),
        (set_to("tuned", {}), f"scores of tuned on {NAME} are missing"),
        (set_to("base", {}), f"scores of base on {NAME} are missing"),
        (swap, "its answers are those in predictions/tuned.test.jsonl"),
        (set_to("data/prompt_fingerprint", "zz"), "recorded was zz"),
        (set_to("data/sizes/train", 10**6), "train: 1000000 recorded"),
        (set_to("data/sizes/test", 3), "the test split 3"),
        (set_to("data/report/leaking_rows", 5), "leaking_rows: 5 recorded"),
        (set_to("data/fingerprints/validation", "zz"), "recorded was zz"),
        (lambda r: r["data"]["fingerprints"].pop("test"), "fingerprint is not in the record"),
    ],
)
def test_a_manipulated_record_is_found(
    honest: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], named: str
) -> None:
    directory = shutil.copytree(honest, tmp_path / "run")
    path = directory / "outcome.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    found = [f"{c.name}: {c.detail}" for c in verify_run(directory).checks if c.status == FAILED]
    assert any(named in line for line in found), found


def proved(directory: Path) -> None:
    """Give a run the files that prove what its training took: fit, history, adapter."""
    path = directory / "outcome.json"
    record = json.loads(path.read_text())
    cost, model = record["cost"], record["model"]
    fields = {"seconds": "train_seconds", "tokens": "train_tokens", "steps": "train_steps",
              "answer_tokens": "train_answer_tokens", "peak_bytes": "train_peak_bytes"}  # fmt: skip
    figures = {name: cost[key] for name, key in fields.items()}
    shape = {name: cost[name] for name in ("batch_size", "accumulate", "out_of_memory")}
    loss = record["validation"]["val_loss"]
    fit = FitResult(
        **figures, **shape, epochs=1.0, best_step=7, best_val_loss=loss, stopped_early=False
    )
    (adapter,) = (directory / "adapter").iterdir()
    save_file({"lora_A": torch.zeros(3, 5)}, adapter)
    write_result(fit, directory)
    rewrite(RunDir(directory).history, [Line(7, 0.0, {"val_loss": loss})])
    model["params_trainable"], model["adapter_bytes"] = 15, 60
    record["files"] |= {"adapter": vars(file_ref(adapter, directory))}
    write_outcome(outcome_from_json(record, "it"), directory)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (set_to("cost/train_seconds", 1.0), "cost.train_seconds is recorded as 1.0, fit.json says"),
        (set_to("cost/train_tokens", 5), "cost.train_tokens is recorded as 5"),
        (set_to("validation/val_loss", 0.01), "validation.val_loss is recorded as 0.01"),
        (set_to("model/memory_bytes", 10), "memory_bytes is recorded as 10;"),
        (set_to("model/memory_bytes", 10**12), "memory_bytes is recorded as 1,000,000,000,000;"),
        (set_to("model/params_trainable", 3), "the adapter holds 15 in 60"),
        (set_to("model/adapter_bytes", 3), "the adapter holds 15 in 60"),
        (set_to("cost/eval_seconds", 0.001), "its content is not what was written"),
    ],
)
def test_edited_costs_of_training_and_sizes_are_found(
    honest: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], named: str
) -> None:
    directory = shutil.copytree(honest, tmp_path / "run")
    proved(directory)
    assert verify_run(directory).ok
    path = directory / "outcome.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    found = [f"{c.name}: {c.detail}" for c in verify_run(directory).checks if c.status == FAILED]
    assert any(named in line for line in found), found


def noted(directory: Path) -> None:
    """Give a run what proves its answers' cost and its adapter's settings."""
    proved(directory)
    outcome = read_outcome(directory)
    ((_, entry),) = outcome.best.items()
    peak, half = outcome.cost.eval_peak_bytes, entry.examples // 2
    lines = [[half, 4.0, 1, hash_text(f"[{half}, 4.0, 1]", 16)], [entry.examples, 10.0, peak]]
    bill = bill_path(directory / entry.predictions.path)
    bill.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "use_rslora": False}
    (directory / "adapter" / "adapter_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (set_to("cost/eval_seconds", 0.001), "cost.eval_seconds is recorded as 0.001"),
        (set_to("cost/eval_seconds", None), "cost.eval_seconds is recorded as None"),
        (set_to("cost/eval_peak_bytes", 1), "cost.eval_peak_bytes is recorded as 1,"),
        (set_to("cost/eval_peak_bytes", None), "cost.eval_peak_bytes is recorded as None"),
        (set_to("model/params_trainable", 3), "the adapter holds 15 in 60"),
        (set_to("model/lora_r", 4), "lora_r is recorded as 4, adapter_config.json says 8"),
        (set_to("model/lora_r", 4), "lora.r is recorded as 4, the configuration says 8"),
        (set_to("model/lora_alpha", 1.0), "lora_alpha is recorded as 1.0, adapter_config.json"),
        (set_to("model/lora_alpha", 1.0), "lora.alpha is recorded as 1.0, the configuration says"),
        (set_to("model/lora_scale", 9.0), "lora_scale is recorded as 9.0, adapter_config.json"),
    ],
)
def test_a_forged_figure_is_found_without_the_hash_of_the_record(
    honest: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], named: str
) -> None:
    directory = shutil.copytree(honest, tmp_path / "run")
    noted(directory)
    assert {c.name: c.status for c in verify_run(directory).checks}["evaluation figures"] == OK
    path = directory / "outcome.json"
    record = json.loads(path.read_text())
    del record["sha256"]
    change(record)
    path.write_text(json.dumps(record))
    found = [f"{c.name}: {c.detail}" for c in verify_run(directory).checks if c.status == FAILED]
    assert any(named in line for line in found), found


def test_a_record_without_its_hash_is_not_passed_as_whole(honest: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(honest, tmp_path / "run")

    def own() -> str:
        return {c.name: c.status for c in verify_run(directory).checks}["record's own hash"]

    assert own() == OK
    path = directory / "outcome.json"
    record = json.loads(path.read_text())
    del record["sha256"]
    record["provenance"]["python"] = "2.7"
    path.write_text(json.dumps(record))
    assert own() == UNCHECKED


def test_evaluation_cannot_have_taken_less_than_what_a_part_of_it_took(
    honest: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(honest, tmp_path / "run")
    noted(directory)
    outcome = read_outcome(directory)
    ((_, entry),) = outcome.best.items()
    lost = replace(entry, predictions=replace(entry.predictions, path="predictions/tuned.x.jsonl"))
    more = replace(outcome, tuned={NAME: entry, "other": lost})
    assert evaluation_check(more, directory).status == UNCHECKED
    less = replace(more, cost=replace(more.cost, eval_seconds=9.0))
    assert evaluation_check(less, directory).status == FAILED


@pytest.mark.parametrize(("old", "new"), [("seconds", "secondz"), ('_step": 7', '_step": 8')])
def test_verify_finds_a_damaged_record_of_the_fit(
    honest: Path, tmp_path: Path, old: str, new: str
) -> None:
    directory = shutil.copytree(honest, tmp_path / "run")
    proved(directory)
    path = directory / "fit.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    (found,) = (c for c in verify_run(directory).checks if c.status == FAILED)
    assert (found.name, found.detail) == (
        "training figures",
        "fit.json: its content is not what was written",
    )


def test_verify_finds_a_validation_loss_that_the_history_does_not_know(
    honest: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(honest, tmp_path / "run")
    proved(directory)
    rewrite(RunDir(directory).history, [Line(7, 0.0, {"val_loss": 9.0})])
    (found,) = (c for c in verify_run(directory).checks if c.status == FAILED)
    assert "metrics.jsonl, step 7, says 9.0" in found.detail


def forge(directory: Path, change: Callable[[Prediction], Prediction]) -> None:
    """Change the tuned model's predictions, with new scores and a new hash."""
    path = directory / "outcome.json"
    record = json.loads(path.read_text())
    (entry,) = record["tuned"].values()
    file = directory / entry["predictions"]["path"]
    rows = [change(replace(row, scores={})) for row in read_predictions(file)]
    scores, scored = score_predictions(rows, build_metrics(METRICS))
    file.write_text("".join(json.dumps(row.to_json()) + "\n" for row in scored))
    entry["scores"], entry["predictions"] = dict(scores), vars(file_ref(file, directory))
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda p: replace(p, reference=p.text), "reference is stored as 'B99'"),
        (lambda p: replace(p, group="one"), "group is stored as 'one'"),
        (lambda p: replace(p, prompt="Easy."), "prompt is stored as 'Easy.'"),
        (lambda p: replace(p, answer_bytes=99), "answer_bytes is stored as 99"),
        (lambda p: replace(p, id=f"{p.id}x"), "is no example of the test split"),
        (lambda p: replace(p, strata={}), "stratum label is stored as None"),
    ],
)
def test_forged_predictions_are_found(
    honest: Path, tmp_path: Path, change: Callable[[Prediction], Prediction], named: str
) -> None:
    directory = shutil.copytree(honest, tmp_path / "run")
    forge(directory, change)
    (found,) = (c for c in verify_run(directory).checks if c.status == FAILED)
    assert found.name == f"tuned on {NAME}: questions and references"
    assert named in found.detail


def test_without_the_data_it_says_that_references_are_unchecked(honest: Path) -> None:
    unchecked = {c.name: c.detail for c in verify_run(honest, data=False).checks if c.detail}
    assert unchecked[f"tuned on {NAME}: questions and references"] == "not asked for"
    assert unchecked[f"data {NAME}: counts"] == "not asked for"


def test_examples_that_were_left_out_are_not_passed_in_silence(
    honest: Path, tmp_path: Path
) -> None:
    """Whoever drops what was answered wrongly can call it too long: only a tokenizer knows."""
    directory = shutil.copytree(honest, tmp_path / "run")
    path = directory / "outcome.json"
    record = json.loads(path.read_text())
    for kind in ("base", "tuned"):
        (entry,) = record[kind].values()
        file = directory / entry["predictions"]["path"]
        file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
        rows = [replace(row, scores={}) for row in read_predictions(file)]
        scores, _ = score_predictions(rows, build_metrics(METRICS))
        entry |= {"scores": dict(scores), "examples": len(rows)}
        entry["predictions"] = vars(file_ref(file, directory))
    record["data"]["sizes"]["test"] -= 1
    path.write_text(json.dumps(record))
    checks = verify_run(directory).checks
    assert [c.name for c in checks if c.status == FAILED] == [f"data {NAME}: counts"]
    record["data"]["dropped"]["test/answer_cut"] = 1
    write_outcome(outcome_from_json(record, "it"), directory)
    checks = verify_run(directory).checks
    assert not [c.detail for c in checks if c.status == FAILED]
    assert any(
        "1 of" in c.detail and c.name.endswith("left out") for c in checks if c.status == UNCHECKED
    )


def test_a_second_copy_of_the_weights_in_another_layout_does_not_count(
    honest: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(embedded_model_path("nano"), tmp_path / "base"))
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    outcome = read_outcome(honest)
    moved = replace(outcome, model=replace(outcome.model, path=str(folder)))
    found = next(size_checks(moved, honest))
    assert (found.status, found.detail) == (OK, "")
