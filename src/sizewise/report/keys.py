"""What makes runs one candidate: the same untouched base, or the same training but for its seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sizewise.outcome import Outcome
from sizewise.report.load import Run
from sizewise.sweep.identity import canonical_config

# Options of a storage format that change the stored weights or the arithmetic on them.
STORAGE_OPTIONS = {
    "nf4": ("double_quant", "compute_dtype"),
    "int8": ("int8_threshold", "compute_dtype"),
}
BASE_OPTIONS = ("content", "init", "tokenizer")
PROMPT_OPTIONS = (
    "system", "prompt", "answer", "few_shot", "few_shot_style", "max_length", "truncate_prompt",
    "clean_whitespace",
)  # fmt: skip
# What zero-shot answers do not depend on.
OF_TRAINING = (
    "stage", "lora", "optimizer", "scheduler", "trainer", "callbacks", "evaluation", "metric",
    "eval_dataset",
)  # fmt: skip
TRAINED_ON = ("train", "validation")
DATA = "data."


def base_key(run: Run, dataset: str) -> str:
    """What zero-shot answers to ``dataset`` depend on: base, storage, prompt and decoding.

    What an older record does not name counts as None.
    """
    outcome = run.outcome
    model, config = outcome.model, outcome.config
    named, stored = config.get("model") or {}, config.get("quantization") or {}
    parts: list[Any] = [model.path, model.revision, model.quantization, model.chat_template]
    parts += [dict(model.template_kwargs), outcome.data.prompt_fingerprint]
    parts += [config.get("generation"), model.dtype]
    parts += [named.get(key) for key in BASE_OPTIONS]
    parts += [stored.get(key) for key in STORAGE_OPTIONS.get(model.quantization, ())]
    further = _further(outcome, dataset)
    parts += [[entry.get(key) for key in PROMPT_OPTIONS] for entry in further.values()]
    return json.dumps(parts, sort_keys=True, default=str)


def base_config(run: Run) -> Mapping[str, Any]:
    """Canonical configuration of a run less all that its zero-shot answers do not depend on."""
    config = canonical_config(run.outcome.config)
    kept = {k: v for k, v in config.items() if k not in (*OF_TRAINING, "seed", "run", "adapter")}
    if isinstance(kept.get("dataset"), Mapping):
        skipped = ("max_train", "max_validation")
        kept["dataset"] = {k: v for k, v in kept["dataset"].items() if k not in skipped}
    return kept


def config_key(run: Run, dataset: str) -> tuple[str, Mapping[str, Any]]:
    """Key and canonical configuration of a run without its seed.

    ``data`` holds the fingerprints of what was trained on: other rows make another candidate. A
    finished run that was scored again is known by the configuration of its training. Metrics
    beside the one of the primary score, and test sets beside ``dataset``, make no difference.
    """
    outcome = run.outcome
    config = dict(outcome.config)
    if config.get("run"):
        config |= {"stage": "full", "run": None, "adapter": None}
    config = canonical_config(config)
    config.pop("seed", None)
    for key in ("run", "adapter"):
        if not config.get(key):
            config.pop(key, None)
    _leave_out_other_scores(config, outcome, dataset)
    prints = outcome.data.fingerprints
    config["data"] = {split: prints.get(split) for split in TRAINED_ON}
    return json.dumps(config, sort_keys=True, default=str), config


def hidden_facts(run: Run) -> dict[str, Any]:
    """What may tell runs of equal configurations apart, for their names."""
    model = run.outcome.model
    return {
        "revision": model.revision,
        "dtype": model.dtype,
        "template": model.chat_template,
        "prompt": run.outcome.data.prompt_fingerprint,
    }


def _leave_out_other_scores(config: dict[str, Any], outcome: Outcome, dataset: str) -> None:
    metrics = config.get("metric")
    name = outcome.primary.split("/")[0]
    if isinstance(metrics, Mapping) and name in metrics:
        config["metric"] = {name: metrics[name]}
    config.pop("eval_dataset", None)
    if further := _further(outcome, dataset):
        config["eval_dataset"] = further
    if isinstance(config.get("evaluation"), Mapping):
        config["evaluation"] = {k: v for k, v in config["evaluation"].items() if k != "zero_shot"}


def _further(outcome: Outcome, dataset: str) -> dict[str, Any]:
    """The entry of ``dataset`` among the further test sets; empty for the run's own data set."""
    if dataset == outcome.data.name:
        return {}
    entries = outcome.config.get("eval_dataset") or {}
    return {key: v for key, v in entries.items() if (v or {}).get("name", key) == dataset}
