"""Zero-shot predictions of a base, computed once and reused by every run that shares it.

What is kept are predictions, not scores: scoring is cheap and depends on the run (chosen metrics,
training set). One directory per key::

    <cache>/zero_shot/<first two digits>/<key>/
        predictions.jsonl
        measured.json        cost, conditions, and the values the key was made from

Batch size, device and threads are no part of the key, for they change no answer; but latencies
depend on them, so a reuse under others is said (``changed_conditions``).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sizewise.config.evaluation import GenerationConfig
from sizewise.config.model import ModelConfig, QuantizationConfig
from sizewise.data.tokens.template import Template
from sizewise.errors import OutcomeError
from sizewise.evaluation.answer import REJECTED
from sizewise.evaluation.lock import held_lock
from sizewise.evaluation.predict import Predicted, Split
from sizewise.evaluation.text import opened_thought, special_tags
from sizewise.files import write_atomically
from sizewise.metrics.base import ExampleMetric
from sizewise.record.predictions import read_predictions

EVALUATION_VERSION = 1
READINGS_VERSION = 1
_MODEL_KEYS = (
    "path",
    "revision",
    "family",
    "init",
    "tokenizer",
    "attn_implementation",
    "trust_remote_code",
    "architecture",
)


def zero_shot_parts(
    model: ModelConfig,
    quantization: QuantizationConfig,
    generation: GenerationConfig,
    weights: str,
    dtype: str,
    device_type: str,
    template: Template,
    split: Split,
    metrics: Sequence[ExampleMetric] = (),
    candidates: Sequence[str] = (),
    calibration: Split | None = None,
) -> dict[str, Any]:
    """Return everything that zero-shot predictions depend on.

    The encoded split itself stands for data, prompt wording, few-shot examples, system text,
    rendered template and truncation: whatever changes a token that the model reads, or a reference
    answer, changes the key. ``weights`` comes from ``weights_fingerprint``. Of ``metrics`` only
    those count that measure the model itself: the others are computed from the predictions.
    ``calibration``: the validation split, whose prompts calibrate the candidates; None without one.
    """
    every = asdict(model)
    first = split.encoded[0].prompt_ids if split.encoded else ()
    opened = opened_thought(template.tokenizer, first)
    read = [sorted(special_tags(template.tokenizer)), list(template.answer_lead)]
    return {
        "model": {name: every[name] for name in _MODEL_KEYS},
        "quantization": asdict(quantization),
        "generation": asdict(generation),
        "weights": weights,
        "dtype": dtype,
        "device_type": device_type,
        "template": template.fingerprint,
        "stop_ids": list(template.stop_ids),
        "split": split_fingerprint(split),
        "observed": {m.name: m.observation for m in metrics if m.observation},
        "candidates": hashlib.sha256(repr(tuple(candidates)).encode()).hexdigest()[:16],
        "version": EVALUATION_VERSION,
        **({"readings": _readings(calibration)} if candidates else {}),
        **({"opened": opened} if opened else {}),
        **({"read": read} if any(read) else {}),
    }


def _readings(calibration: Split | None) -> list[Any]:
    """Return what candidates are chosen by; answers that are without candidates know none of it."""
    return [READINGS_VERSION, None if calibration is None else split_fingerprint(calibration)]


def split_fingerprint(split: Split) -> str:
    """Hash what a model reads and should write, example by example (16 hex digits)."""
    digest = hashlib.sha256()
    for example, item in zip(split.examples, split.encoded, strict=True):
        rejected = example.meta.get(REJECTED, "")
        row = [example.id, list(item.prompt_ids), list(item.answer_ids), example.answer, rejected]
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()[:16]


def zero_shot_key(parts: Mapping[str, Any]) -> str:
    """Return the hash (32 hex digits) of the parts, whatever their order."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def cached(
    cache: Path, parts: Mapping[str, Any], compute: Callable[[], Predicted]
) -> tuple[Predicted, bool]:
    """Return the stored predictions for ``parts``, or compute and store them.

    Of several processes that ask at the same time one computes and the others wait; if it dies,
    another takes over. The second value says whether the predictions were reused.
    """
    entry = entry_path(cache, zero_shot_key(parts))
    with held_lock(entry.with_name(f"{entry.name}.lock"), entry.is_dir) as mine:
        if not mine:
            return load(entry), True
        predicted = compute()
        save(entry, parts, predicted)
        return predicted, False


def changed_conditions(
    dataset: str, stored: Mapping[str, str | int], here: Mapping[str, str | int]
) -> str | None:
    """Say that reused answers were timed under other conditions than this run's; None if not."""
    if not stored:
        how = "it was not recorded how"
    else:
        names = [n for n in {**stored, **here} if stored.get(n) != here.get(n)]
        how = "; ".join(f"{n} {stored.get(n)}, this run: {here.get(n)}" for n in names)
    if not how:
        return None
    return (
        f"The zero-shot answers of {dataset} were reused from another run and timed under other "
        f"conditions ({how}): do not compare their latency, throughput and memory with this run's."
    )


def entry_path(cache: Path, key: str) -> Path:
    """Return the directory of a key."""
    return cache / "zero_shot" / key[:2] / key


def save(entry: Path, parts: Mapping[str, Any], predicted: Predicted) -> None:
    """Store an entry in one rename; if somebody was faster, theirs stays."""
    building = entry.with_name(f".{entry.name}.{uuid.uuid4().hex}")
    building.mkdir(parents=True)
    lines = [json.dumps(p.to_json()) + "\n" for p in predicted.predictions]
    write_atomically(building / "predictions.jsonl", "".join(lines))
    cost = {name: value for name, value in vars(predicted).items() if name != "predictions"}
    text = json.dumps({"cost": cost, "parts": parts}, indent=2, default=str)
    write_atomically(building / "measured.json", text)
    try:
        building.rename(entry)
    except OSError:
        shutil.rmtree(building)
        if not entry.is_dir():
            raise


def load(entry: Path) -> Predicted:
    """Read an entry.

    Raises:
        OutcomeError: it is damaged.
    """
    try:
        cost = json.loads((entry / "measured.json").read_text(encoding="utf-8"))["cost"]
        cost |= {name: tuple(cost.get(name, ())) for name in ("out_of_memory", "prior")}
        predictions = tuple(read_predictions(entry / "predictions.jsonl"))
        return Predicted(predictions=predictions, **cost)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutcomeError(
            f"The cached zero-shot result {entry} is damaged ({error}). Remove that directory."
        ) from error
