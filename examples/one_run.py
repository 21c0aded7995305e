"""One run in a hundred lines of public names: data → base → fit → answers → scores → comparison.

    python examples/one_run.py [FOLDER]

``python train.py`` does the same and more (caches, resuming, records, trackers); this page shows
what a run consists of, and how to use the parts from Python.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sizewise.composition.compose import compose_run
from sizewise.config import RunConfig
from sizewise.data.batches.collate import collate_training
from sizewise.data.batches.datamodule import SizewiseDataModule
from sizewise.data.build import build_splits
from sizewise.data.tokens.encode import EncodedSplit, encode_examples
from sizewise.data.tokens.template import ChatTemplate
from sizewise.evaluation.predict import predict
from sizewise.evaluation.score import score_predictions
from sizewise.evaluation.text import pad_id
from sizewise.metrics.base import build_metrics
from sizewise.models.adapter.attach import attach_adapter
from sizewise.models.architecture import context_length
from sizewise.models.base import load_base
from sizewise.models.tokenizer import load_tokenizer
from sizewise.record.predictions import Prediction, PredictionStore
from sizewise.runtime import prepare_environment, quiet, resolve_device, seed_everything
from sizewise.statistics.comparison import PairedComparison, compare_paired
from sizewise.training.fit import fit_job
from sizewise.training.module import CausalModule
from sizewise.training.optimizer import make_optimizer_factory, make_scheduler_factory

OVERRIDES = ("model=nano", "lora.r=8", "dataset.max_train=240", "trainer.max_epochs=2")


def encode(cfg: RunConfig, template: ChatTemplate) -> dict[str, EncodedSplit]:
    """Read rows, split them by groups, and turn prompts and answers into token ids."""
    splits = build_splits(cfg.dataset)
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {
        name: encode_examples(
            examples, template, cfg.dataset.max_length, context=context_length(cfg.model), name=name
        )
        for name, examples in parts.items()
    }


def fit(cfg: RunConfig, base: Any, data: dict[str, EncodedSplit], pad: int, folder: Path) -> Any:
    """Put an adapter on the base and train it; return the model with its best weights."""
    model = attach_adapter(base, cfg.lora, cfg.model, cfg.seed)
    optimizer = make_optimizer_factory(cfg.optimizer, allow_fused=True)
    module = CausalModule(model, optimizer, make_scheduler_factory(cfg.scheduler), 0.0)
    trainer = cfg.trainer
    batches = SizewiseDataModule(
        train=data["train"],
        validation=data["validation"],
        batch_size=trainer.batch_size,
        accumulate=trainer.accumulate,
        eval_batch_size=trainer.batch_size,
        length_grouping=trainer.length_grouping,
        seed=cfg.seed,
        pad_token_id=pad,
        collate=collate_training,
    )
    fit_job(module, batches, trainer, (), (), folder, cfg.seed)
    return model


def primary_scores(cfg: RunConfig, predictions: list[Prediction], base: list[Prediction]) -> Any:
    """Score every answer, and return the primary score of each as an array [N]."""
    totals, scored = score_predictions(predictions, build_metrics(cfg.metric), (), base)
    print(f"{cfg.dataset.primary}: {totals[cfg.dataset.primary]:.3f}")
    return np.array([prediction.scores[cfg.dataset.primary] for prediction in scored])


def main(folder: Path, overrides: tuple[str, ...] = OVERRIDES) -> PairedComparison:
    """Run everything in ``folder`` and compare the tuned model with its base, answer by answer."""
    cfg = compose_run(list(overrides))
    prepare_environment(hub=False)
    quiet()
    seed_everything(cfg.seed)
    template = ChatTemplate(load_tokenizer(cfg.model), cfg.model.chat_template)
    data = encode(cfg, template)
    model = load_base(cfg.model, cfg.quantization, resolve_device(cfg.trainer))
    answers: dict[str, list[Prediction]] = {}
    for name in ("base", "tuned"):
        if name == "tuned":
            model = fit(cfg, model, data, pad_id(template), folder)
        store = PredictionStore(folder / f"{name}.jsonl", key=name)
        done = predict(model, data["test"], template, cfg.generation, store, batch_size=32)
        answers[name] = [replace(row, scores={}) for row in done.predictions]
    base, tuned = (primary_scores(cfg, answers[n], answers["base"]) for n in ("base", "tuned"))
    groups = [example.group for example in data["test"].examples]
    return compare_paired(tuned, base, groups, names=("tuned", "base"))


if __name__ == "__main__":
    found = main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
    interval = f"{found.interval.low:+.3f} to {found.interval.high:+.3f}"
    print(f"tuned − base: {found.difference:+.3f} ({interval}), p = {found.p_value:.4f}")
