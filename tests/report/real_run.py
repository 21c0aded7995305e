"""A run whose configuration, identity, scores, examples and data can all be made again."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from tests.report.factory import CODES, Spec, Task, make_run

from sizewise.config.data import SPLITS
from sizewise.config.run import RunConfig
from sizewise.data.example import DataSplits, Example
from sizewise.evaluation.answer import strata_of
from sizewise.evaluation.score import score_predictions
from sizewise.job.data import Task as JobTask
from sizewise.job.data import load_splits
from sizewise.metrics.base import build_metrics
from sizewise.models.sources import embedded_model_path
from sizewise.record.identity import plain_config, run_identity
from sizewise.record.outcome import Evaluation, file_ref, read_outcome, write_outcome
from sizewise.record.predictions import Prediction, read_predictions

METRICS = {
    name: {"_target_": f"sizewise.metrics.{name}.{title}"}
    for name, title in (("icd10", "Icd10"), ("perplexity", "Perplexity"))
}


def real_run(
    root: Path, extra_metrics: dict[str, Any] | None = None, dry_run: bool = False
) -> Path:
    """A run whose configuration, identity, scores and data can all be made again."""
    rows = [{"note": f"Patient {i} complains.", "code": CODES[i % 10]} for i in range(120)]
    source = root / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg = RunConfig()
    cfg.model.name, cfg.model.path = "nano", "embedded:nano"
    cfg.optimizer.target = "torch.optim.AdamW"
    cfg.dataset.name, cfg.dataset.primary = "icd10_dialogues", "icd10/exact_match"
    cfg.dataset.prompt, cfg.dataset.answer, cfg.dataset.label = "{note}", "{code}", "code"
    cfg.dataset.source.kind, cfg.dataset.source.path = "json", str(source)
    cfg.metric, cfg.dry_run = {**METRICS, **(extra_metrics or {})}, dry_run
    config = plain_config(cfg)
    splits = load_splits(cfg.dataset, None, dry_run)
    directory = make_run(root / "run", Spec(task=Task(examples=len(splits.test))))
    (directory / "config.yaml").write_text(json.dumps(config))
    outcome = read_outcome(directory)
    prints: dict[str, str] = {n: splits.question_fingerprint(n) for n in SPLITS}
    data = replace(
        outcome.data,
        fingerprints=prints,
        sizes={name: len(getattr(splits, name)) for name in SPLITS},
        report=asdict(splits.report),
        prompt_fingerprint=JobTask(cfg.dataset, splits, {}).prompt_fingerprint,
    )
    (weights,) = embedded_model_path("nano").glob("*.safetensors")
    sizes = replace(
        outcome.model,
        params_base=parameters_of(weights),
        base_bytes=weights.stat().st_size,
        lora_alpha=cfg.lora.effective_alpha,
        lora_scale=cfg.lora.effective_alpha / cfg.lora.r,
    )
    changed = replace(
        outcome,
        config=config,
        identity=run_identity(config).hash,
        model=sizes,
        data=data,
        base=rescored(outcome.base, directory, cfg.metric, splits),
        tuned=rescored(outcome.tuned or {}, directory, cfg.metric, splits),
        files={**outcome.files, "config": file_ref(directory / "config.yaml", directory)},
    )
    write_outcome(changed, directory)
    return directory


def parameters_of(weights: Path) -> int:
    with safe_open(weights, "pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def rescored(
    evaluations: Any, directory: Path, nodes: dict[str, Any], splits: DataSplits
) -> dict[str, Evaluation]:
    """The same answers, right or wrong, to the questions of a real test split."""
    found = {}
    for name, evaluation in evaluations.items():
        path = directory / evaluation.predictions.path
        pairs = zip(read_predictions(path), splits.test, strict=True)
        rows = [_answer(prediction, example) for prediction, example in pairs]
        scores, scored = score_predictions(rows, build_metrics(nodes))
        path.write_text("".join(json.dumps(p.to_json()) + "\n" for p in scored))
        ref = file_ref(path, directory)
        fingerprint = splits.question_fingerprint("test")
        found[name] = replace(evaluation, scores=scores, predictions=ref, fingerprint=fingerprint)
    return found


def _answer(prediction: Prediction, example: Example) -> Prediction:
    right = prediction.text == prediction.reference
    return replace(
        prediction,
        id=example.id,
        group=example.group,
        prompt=example.prompt_text,
        reference=example.answer,
        answer_bytes=len(example.answer.encode()),
        text=example.answer if right else "B99",
        strata=strata_of(example),
        scores={},
    )
