"""Zero-shot predictions of a base, computed once and reused by every run that shares it.

What is kept are predictions, not scores: scoring is cheap and depends on the run (chosen metrics,
training set). One directory per key::

    <cache>/zero_shot/<first two digits>/<key>/
        predictions.jsonl
        measured.json        cost, conditions, the values the key was made from, and hashes
        .claims/             who computes it, or did

The second file is written last: an entry without it is none. One that does not fit its hashes is
damaged, and computed again. Batch size, device and threads are no part of the key, for they change
no answer; but latencies depend on them, so a reuse under others is said (``changed_conditions``).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sizewise.config.evaluation import GenerationConfig
from sizewise.config.model import ModelConfig, QuantizationConfig
from sizewise.data.tokens.encode import EncodedSplit
from sizewise.data.tokens.template import Template
from sizewise.errors import EvaluationError
from sizewise.evaluation.predict import Predicted
from sizewise.evaluation.text import opened_thought, special_tags
from sizewise.files import (
    file_hash,
    hash_text,
    key_text,
    read_json,
    sealed,
    unsealed,
    write_atomically,
    write_json,
)
from sizewise.metrics.base import ExampleMetric
from sizewise.metrics.preference import REJECTED
from sizewise.record.claims import Claim, claim_or_find
from sizewise.record.directories import ZERO_SHOT_FILE, entry_path
from sizewise.record.predictions import read_predictions
from sizewise.record.timing import REUSED

log = logging.getLogger(__name__)

EVALUATION_VERSION = 1
READINGS_VERSION = 1
INT8 = " An int8 model's texts may differ between batches too: set the same evaluation.batch_size."
PREDICTIONS, MEASURED = "predictions.jsonl", ZERO_SHOT_FILE
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
    split: EncodedSplit,
    metrics: Sequence[ExampleMetric] = (),
    candidates: Sequence[str] = (),
    calibration: EncodedSplit | None = None,
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
        "candidates": hash_text(repr(tuple(candidates)), 16),
        "version": EVALUATION_VERSION,
        **({"readings": _readings(calibration)} if candidates else {}),
        **({"opened": opened} if opened else {}),
        **({"read": read} if any(read) else {}),
    }


def _readings(calibration: EncodedSplit | None) -> list[Any]:
    """Return what candidates are chosen by; answers that are without candidates know none of it."""
    return [READINGS_VERSION, None if calibration is None else split_fingerprint(calibration)]


def split_fingerprint(split: EncodedSplit) -> str:
    """Hash what a model reads and should write, example by example (16 hex digits)."""
    digest = hashlib.sha256()
    for example, item in zip(split.examples, split.encoded, strict=True):
        rejected = example.meta.get(REJECTED, "")
        row = [example.id, list(item.prompt_ids), list(item.answer_ids), example.answer, rejected]
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()[:16]


def zero_shot_key(parts: Mapping[str, Any]) -> str:
    """Return the hash (32 hex digits) of the parts, whatever their order."""
    return hash_text(key_text(parts), 32)


def cached(
    cache: Path,
    parts: Mapping[str, Any],
    compute: Callable[[], Predicted],
    ids: Sequence[str] | None = None,
) -> tuple[Predicted, bool]:
    """Return the stored predictions for ``parts``, or compute and store them.

    Of several processes that ask at the same time one computes and the others wait; if it dies,
    another takes over. A damaged entry is computed again, and a cache that cannot be read or
    written is done without; both are said. ``ids``: the examples that were asked. The second
    value says whether the predictions were reused.
    """
    entry = entry_path(cache, zero_shot_key(parts))
    try:
        claim = claim_or_find(entry, lambda: _find(entry, ids))
    except OSError as error:
        log.warning("The cache %s cannot be used (%s): going on without.", cache, error)
        return compute(), False
    if not isinstance(claim, Claim):
        return claim, True
    with claim:
        if (entry / MEASURED).exists():
            log.warning("The zero-shot answers in %s are damaged: they are computed again.", entry)
            (entry / MEASURED).unlink()  # whoever waits need not read them again
        predicted = compute()
        _save(entry, parts, predicted)
    return predicted, False


def changed_conditions(
    dataset: str,
    stored: Mapping[str, str | int],
    here: Mapping[str, str | int],
    quantization: str = "none",
) -> str | None:
    """Say that reused answers were timed under other conditions than this run's; None if not.

    ``quantization``: that of the base; the answers of an int8 one depend on the batch as well.
    """
    if not stored:
        how = "it was not recorded how"
    else:
        names = [n for n in {**stored, **here} if stored.get(n) != here.get(n)]
        how = "; ".join(f"{n} {stored.get(n)}, this run: {here.get(n)}" for n in names)
    if not how:
        return None
    return (
        f"The zero-shot answers of {dataset} {REUSED} ({how}): do not compare their latency, "
        "throughput and memory with this run's."
        + (INT8 if quantization == "int8" and "batch_size" in how else "")
    )


def _save(entry: Path, parts: Mapping[str, Any], predicted: Predicted) -> None:
    """Store an entry; on a full disk there is none."""
    predictions = entry / PREDICTIONS
    lines = [json.dumps(p.to_json()) + "\n" for p in predicted.predictions]
    cost = {name: value for name, value in vars(predicted).items() if name != "predictions"}
    try:
        write_atomically(predictions, "".join(lines))
        record = {"cost": cost, "parts": parts, "predictions_sha256": file_hash(predictions)}
        write_json(entry / MEASURED, sealed(record))
    except OSError as error:
        log.warning("The cache %s cannot be written (%s): going on without.", entry, error)


def _find(entry: Path, ids: Sequence[str] | None) -> Predicted | None:
    if not (entry / MEASURED).is_file():
        return None
    try:
        return load(entry, ids)
    except (EvaluationError, FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def load(entry: Path, ids: Sequence[str] | None = None) -> Predicted:
    """Read an entry and check it against its hashes; one of an earlier version has none.

    Raises:
        EvaluationError, ValueError, KeyError, TypeError: it is damaged.
        OSError: it cannot be read.
    """
    record = unsealed(read_json(entry / MEASURED) or {})
    path = entry / PREDICTIONS
    if record.get("predictions_sha256") not in (None, file_hash(path)):
        raise ValueError(f"{path.name} is not what was written")
    predictions = tuple(read_predictions(path))
    if ids is not None and [prediction.id for prediction in predictions] != list(ids):
        raise ValueError(f"{path.name} does not hold the answers to these examples")
    cost = dict(record["cost"])
    cost |= {name: tuple(cost.get(name, ())) for name in ("out_of_memory", "prior")}
    return Predicted(predictions=predictions, **cost)
