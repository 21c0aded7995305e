"""Synthetic runs on disk: outcomes and predictions with differences that were planted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sizewise.record.outcome import (
    CostFacts,
    DataFacts,
    Evaluation,
    ModelFacts,
    Outcome,
    file_ref,
    read_outcome,
    write_outcome,
)

PRIMARY = "icd10/exact_match"
CODES = ("A00.0", "B20", "E11.9", "F32.1", "I10", "J45.909", "K21.9", "M54.5", "R51.9", "Z00.0")
PARAMS = {"nano": 300_000, "micro": 1_000_000, "mini": 4_000_000}


@dataclass(frozen=True)
class Task:
    """A test set: ``hard`` [N] is the latent difficulty that all models share."""

    name: str = "icd10_dialogues"
    examples: int = 200
    groups: int | None = None
    seed: int = 0
    answer: str | None = None
    words: int = 0

    @property
    def fingerprint(self) -> str:
        text = f"{self.name}{self.examples}{self.groups}{self.seed}{self.answer}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def hard(self) -> np.ndarray:
        return np.random.default_rng(self.seed).uniform(size=self.examples)

    def group(self, index: int) -> str:
        return f"g{index if self.groups is None else index % self.groups}"


@dataclass(frozen=True)
class Spec:
    """One run: share of right answers of the base and of the tuned model (None: not trained)."""

    model: str = "nano"
    base: float = 0.2
    tuned: float | None = 0.6
    r: int | None = 8
    quantization: str = "none"
    seed: int = 42
    task: Task = field(default_factory=Task)
    lr: float = 2e-4
    max_train: int | None = None
    train_seconds: float = 60.0
    latency: float | None = None
    unparsed: float = 0.0
    family: str = "causal"
    by_chance: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        r = "zero" if self.tuned is None else f"r{self.r}"
        parts = [self.model, r, self.quantization, f"s{self.seed}", f"lr{self.lr}"]
        return "-".join([*parts, f"n{self.max_train}", self.task.fingerprint[:6]])


def make_sweep(root: Path, specs: list[Spec]) -> list[Path]:
    """Write one run directory per spec below ``root`` and return them."""
    return [make_run(root / spec.name, spec) for spec in specs]


def make_run(run_dir: Path, spec: Spec) -> Path:
    """Write one run directory: predictions, config, metrics and the outcome."""
    (run_dir / "predictions").mkdir(parents=True)
    base = _evaluation(run_dir, spec, "base", spec.base)
    tuned = None if spec.tuned is None else _evaluation(run_dir, spec, "tuned", spec.tuned)
    config = _config(spec)
    (run_dir / "config.yaml").write_text(json.dumps(config))
    files = {"config": file_ref(run_dir / "config.yaml", run_dir)}
    if tuned:
        (run_dir / "adapter").mkdir()
        (run_dir / "adapter" / "adapter_model.safetensors").write_bytes(spec.name.encode())
        files["adapter"] = file_ref(run_dir / "adapter" / "adapter_model.safetensors", run_dir)
    write_outcome(_outcome(spec, config, base, tuned, files), run_dir)
    return run_dir


def right_answers(spec: Spec, kind: str, rate: float) -> np.ndarray:
    """Which examples are answered rightly: difficulty that is shared, plus a run's own noise.

    The share is exact, or with ``by_chance`` that of independent draws.
    """
    task = spec.task
    key = f"{spec.model}{spec.quantization}{kind}"
    if kind == "tuned":
        key += f"{spec.r}{spec.seed}{spec.lr}{spec.max_train}"
    noise_seed = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16)
    noise = np.random.default_rng(noise_seed).uniform(size=task.examples)
    if spec.by_chance:
        return (
            np.random.default_rng([noise_seed, task.seed]).uniform(size=task.examples) < rate
        ) * 1.0
    latent = 0.6 * task.hard() + 0.4 * noise
    count = round(rate * task.examples)
    right = np.zeros(task.examples)
    right[np.argsort(latent)[:count]] = 1.0
    return right


def _evaluation(run_dir: Path, spec: Spec, kind: str, rate: float) -> dict[str, Evaluation]:
    right = right_answers(spec, kind, rate)
    path = run_dir / "predictions" / f"{kind}.test.jsonl"
    task = spec.task
    with path.open("w") as handle:
        for index in range(task.examples):
            handle.write(json.dumps(_prediction(spec, index, bool(right[index]))) + "\n")
    unparsed = round(spec.unparsed * task.examples) / task.examples
    scores = {
        PRIMARY: float(right.mean()),
        "icd10/unparsed": unparsed,
        "efficiency/latency_p50": _latency(spec),
    }
    entry = Evaluation(
        task.name, "test", task.fingerprint, task.examples, scores, file_ref(path, run_dir)
    )
    return {task.name: entry}


def _latency(spec: Spec) -> float:
    return spec.latency if spec.latency is not None else PARAMS[spec.model] / 1e8


def _prediction(spec: Spec, index: int, right: bool) -> dict[str, Any]:
    code = CODES[index % len(CODES)]
    wrong = CODES[(index + 3) % len(CODES)]
    unparsed = index < round(spec.unparsed * spec.task.examples)
    text = spec.task.answer or (code if right else "no idea" if unparsed else wrong)
    return {
        "id": f"{spec.task.fingerprint[:8]}{index:08d}",
        "group": spec.task.group(index),
        "prompt": f"Patient {index}: it hurts. " + "More words. " * (index % 7 + spec.task.words),
        "reference": code,
        "text": text,
        "log_prob": -1.0 - (not right),
        "answer_tokens": 4,
        "answer_bytes": len(code),
        "prompt_tokens": 20 + 10 * (index % 7),
        "new_tokens": 4,
        "finished": True,
        "latency": _latency(spec),
        "batch_size": 8,
        "token_log_prob": -0.1 if right else -1.0 - 0.01 * (index % 9),
        "strata": {
            "label": code,
            "label_band": ("1-5", "6-20", "21+")[index % 3],
            "language": ("en", "de")[index % 2],
        },
        "scores": {PRIMARY: float(right), "icd10/unparsed": float(unparsed)},
    }


def _config(spec: Spec) -> dict[str, Any]:
    backends = {"wandb": {"_target_": "sizewise.tracking.wandb_backend.WandbBackend"}}
    config: dict[str, Any] = {
        "seed": spec.seed,
        "stage": "full",
        "model": {"name": spec.model, "path": f"embedded:{spec.model}"},
        "dataset": {"name": spec.task.name, "max_train": spec.max_train, "label": "code"},
        "lora": {"method": "none" if spec.tuned is None else "lora", "r": spec.r},
        "quantization": {"method": spec.quantization},
        "generation": {"max_new_tokens": 16, "do_sample": False},
        "optimizer": {"target": "torch.optim.AdamW", "lr": spec.lr},
        "trainer": {"max_epochs": 3, "batch_size": 8},
        "logger": {"log_examples": False, "backends": backends},
        "paths": {"outputs": "outputs"},
    }
    return {**config, **spec.extra}


def _outcome(
    spec: Spec,
    config: dict[str, Any],
    base: dict[str, Evaluation],
    tuned: dict[str, Evaluation] | None,
    files: dict[str, Any],
) -> Outcome:
    trains = tuned is not None
    identity = hashlib.sha256(spec.name.encode()).hexdigest()[:16]
    return Outcome(
        run_id=identity,
        identity=identity,
        config=config,
        model=_model_facts(spec),
        data=_data_facts(spec),
        cost=CostFacts(
            train_seconds=spec.train_seconds if trains else None,
            train_steps=100 if trains else None,
            train_tokens=50_000 if trains else None,
            eval_seconds=10.0,
            eval_peak_bytes=PARAMS[spec.model] * 6,
        ),
        primary=PRIMARY,
        direction="max",
        base=base,
        tuned=tuned,
        validation={"val_loss": 2.0 - (spec.tuned or 0.0)} if trains else {},
        objective=2.0 - (spec.tuned or 0.0) if trains else None,
        seed=spec.seed,
        provenance={
            "command": ["train.py", f"model={spec.model}"],
            "overrides": [f"model={spec.model}", f"seed={spec.seed}"],
            "packages": {"torch": "2.13.0"},
            "python": "3.11.7",
            "commit": "abc",
            "dirty": False,
        },
        files=files,
    )


def _model_facts(spec: Spec) -> ModelFacts:
    params = PARAMS[spec.model]
    trainable = 0 if spec.tuned is None or spec.r is None else 1_000 * spec.r
    width = {"none": 4, "int8": 1, "nf4": 0.5}[spec.quantization]
    return ModelFacts(
        name=spec.model,
        path=f"embedded:{spec.model}",
        revision=None,
        family=spec.family,
        model_type="qwen3",
        params_total=params + trainable,
        params_trainable=trainable,
        params_base=params,
        base_bytes=int(params * 2),
        memory_bytes=int(params * width) + trainable * 4,
        adapter_bytes=trainable * 4,
        dtype="float32",
        quantization=spec.quantization,
        lora_method="none" if spec.tuned is None else "lora",
        lora_r=None if spec.tuned is None else spec.r,
        lora_alpha=None if spec.r is None else 2.0 * spec.r,
        lora_scale=2.0,
        chat_template="abc",
    )


def _data_facts(spec: Spec) -> DataFacts:
    task = spec.task
    train = spec.max_train or 1_000
    return DataFacts(
        name=task.name,
        sizes={"train": train, "validation": 100, "test": task.examples},
        fingerprints={"train": f"train{train}", "validation": "v", "test": task.fingerprint},
        dropped={"train": 0, "validation": 0, "test": 0},
        report={
            "rows": 1_300,
            "filtered": {},
            "duplicates": 0,
            "shared_groups": 0,
            "leaking_rows": 0,
            "row_split_leak": 0.0,
        },
        prompt_fingerprint="p1",
    )


Columns = dict[str, np.ndarray]


def share(rate: float, examples: int, offset: int = 0) -> np.ndarray:
    """Exactly so many ones, spread evenly over the examples and turned by ``offset``."""
    order = np.random.default_rng(offset).permutation(examples)
    values = np.zeros(examples)
    values[order[: round(rate * examples)]] = 1.0
    return values


def plant(
    run_dir: Path,
    spec: Spec,
    base: Columns,
    tuned: Columns | None = None,
    strata: dict[str, list[str]] | None = None,
    rows: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write a run whose scores are these columns, per example and as means.

    ``rows`` changes every prediction, ``model`` the facts of the model, ``changes`` the outcome.
    """
    directory = make_run(run_dir, replace(spec, tuned=None if tuned is None else 0.5))
    outcome = read_outcome(directory)
    sides = {"base": (outcome.base, base), "tuned": (outcome.tuned or {}, tuned or {})}
    found = {}
    for side, (evaluations, columns) in sides.items():
        if evaluations:
            ((name, evaluation),) = evaluations.items()
            found[side] = {name: _planted(directory, evaluation, columns, strata or {}, rows or {})}
    facts = replace(outcome.model, **(model or {}))
    config = {**outcome.config, "model": {"name": facts.name, "path": facts.path}}
    changes = {"identity": run_dir.name, "run_id": run_dir.name, "config": config, **changes}
    write_outcome(replace(outcome, model=facts, **found, **changes), directory)
    return directory


def _planted(
    directory: Path,
    evaluation: Evaluation,
    columns: Columns,
    strata: dict[str, list[str]],
    rows: dict[str, Any],
) -> Evaluation:
    path = directory / evaluation.predictions.path
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for index, row in enumerate(lines):
        row["scores"] = {name: float(values[index]) for name, values in columns.items()}
        row["strata"] = {name: values[index] for name, values in strata.items()}
        row |= rows
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    means = {name: float(np.mean(values)) for name, values in columns.items()}
    times = {n: v for n, v in evaluation.scores.items() if n.startswith("efficiency/")}
    return replace(evaluation, scores={**means, **times}, predictions=file_ref(path, directory))
