"""The record of one run: what ran, what it cost, how good it was. Reports read nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sizewise.errors import OutcomeError
from sizewise.files import write_atomically
from sizewise.record.directories import OUTCOME_FILE, RunDir

OUTCOME_VERSION = 1


@dataclass(frozen=True)
class FileRef:
    """A file of the run, by path relative to the run's directory and by content."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class ModelFacts:
    """Sizes of the model. Counts are parameters, sizes are bytes.

    ``params_total`` counts the base and the adapter as published (before quantisation packs them);
    ``memory_bytes`` is what the loaded weights occupy.
    """

    name: str
    path: str
    revision: str | None
    family: str
    model_type: str
    params_total: int
    params_trainable: int
    params_base: int
    base_bytes: int
    memory_bytes: int
    adapter_bytes: int
    dtype: str
    quantization: str
    lora_method: str
    lora_r: int | None
    lora_alpha: float | None
    lora_scale: float | None
    chat_template: str
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataFacts:
    """The data that was used: fingerprints say which runs are comparable."""

    name: str
    sizes: Mapping[str, int]
    fingerprints: Mapping[str, str]
    dropped: Mapping[str, int]
    report: Mapping[str, Any]
    prompt_fingerprint: str
    token_lengths: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class CostFacts:
    """What the run cost. Seconds of wall time, tokens, bytes; None where not measured or trained.

    ``train_tokens`` counts all tokens that went through the model in training, padding excluded;
    ``out_of_memory`` lists the batch sizes that did not fit.
    """

    train_seconds: float | None = None
    train_tokens: int | None = None
    train_answer_tokens: int | None = None
    train_steps: int | None = None
    train_peak_bytes: int | None = None
    eval_seconds: float | None = None
    eval_peak_bytes: int | None = None
    energy_joules: float | None = None
    batch_size: int | None = None
    accumulate: int | None = None
    out_of_memory: list[dict[str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model (base or tuned) on one split of one data set.

    ``scores`` maps ``metric/score`` to its aggregate; ``predictions`` is the file that holds the
    per-example values.
    """

    dataset: str
    split: str
    fingerprint: str
    examples: int
    scores: Mapping[str, float]
    predictions: FileRef


@dataclass(frozen=True)
class Outcome:
    """One finished run. ``tuned`` is None for a run without training.

    ``identity`` is the hash of the whole resolved configuration less volatile keys; ``primary``
    names the score (``metric/score``) that the data set calls its own and ``direction`` whether
    more (``max``) or less (``min``) is better. ``objective`` comes from the validation split.
    ``validated`` has the scores of the answers to that split, under ``base`` and ``tuned``, as far
    as these models answered it; what is chosen is chosen by them.
    """

    run_id: str
    identity: str
    config: Mapping[str, Any]
    model: ModelFacts
    data: DataFacts
    cost: CostFacts
    primary: str
    direction: str
    base: Mapping[str, Evaluation]
    tuned: Mapping[str, Evaluation] | None
    validation: Mapping[str, float]
    objective: float | None
    seed: int
    provenance: Mapping[str, Any]
    files: Mapping[str, FileRef] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    version: int = OUTCOME_VERSION
    validated: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def best(self) -> Mapping[str, Evaluation]:
        """The evaluations that stand for this run: tuned where it trained, else the base's."""
        return self.tuned if self.tuned is not None else self.base

    def score(self, dataset: str | None = None) -> float:
        """Return the primary score of this run on ``dataset`` (default: its own test split)."""
        return self.best[dataset or self.data.name].scores[self.primary]


def file_ref(path: Path, root: Path) -> FileRef:
    """Describe ``path`` relative to ``root``, with its SHA-256 and size in bytes."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return FileRef(path.relative_to(root).as_posix(), digest, path.stat().st_size)


def write_outcome(outcome: Outcome, run_dir: Path) -> Path:
    """Write ``outcome.json`` atomically: it is there whole or not at all."""
    path = RunDir(run_dir).outcome
    text = json.dumps(asdict(outcome), indent=2, ensure_ascii=False, allow_nan=True)
    write_atomically(path, text)
    return path


def read_outcome(run_dir: Path) -> Outcome:
    """Read the outcome of a run directory.

    Raises:
        OutcomeError: there is none, it cannot be read, is truncated, or of another version.
    """
    path = RunDir(run_dir).outcome
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise OutcomeError(
            f"{run_dir} holds no {OUTCOME_FILE}: the run has not finished."
        ) from error
    except OSError as error:
        raise OutcomeError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise OutcomeError(
            f"{path} is truncated or damaged ({error}). Run the job again."
        ) from error
    return outcome_from_json(record, str(path))


def outcome_from_json(record: Any, where: str) -> Outcome:
    """Build an Outcome from its JSON record; ``where`` names it in errors.

    Raises:
        OutcomeError: it is no such record, of another version, or lacks or mistakes a field.
    """
    if not isinstance(record, dict):
        raise OutcomeError(f"{where} is no record of a run. Run the job again.")
    version = record.get("version")
    if version != OUTCOME_VERSION:
        raise OutcomeError(
            f"{where} is of version {version}; this sizewise reads version {OUTCOME_VERSION}. "
            "Run the job again or use the sizewise that wrote it."
        )
    try:
        check_record(record)
        return Outcome(**{**record, **_typed(record)})
    except (KeyError, TypeError) as error:
        raise OutcomeError(
            f"{where} lacks or mistakes a field: {error}. Run the job again."
        ) from error


def _typed(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": ModelFacts(**record["model"]),
        "data": DataFacts(**record["data"]),
        "cost": CostFacts(**record["cost"]),
        "base": _evaluations(record["base"]),
        "tuned": None if record["tuned"] is None else _evaluations(record["tuned"]),
        "files": {name: FileRef(**ref) for name, ref in record["files"].items()},
    }


def _evaluations(record: Mapping[str, Any]) -> dict[str, Evaluation]:
    return {
        name: Evaluation(**{**entry, "predictions": FileRef(**entry["predictions"])})
        for name, entry in record.items()
    }


MAPPINGS = ("config", "model", "data", "cost", "base", "validation", "provenance", "files")
OF_DATA = ("sizes", "fingerprints", "dropped", "report")
TEXTS = ("run_id", "identity", "primary", "direction")


def check_record(record: Mapping[str, Any]) -> None:
    """Check the fields of an outcome's record that are mappings or texts.

    Raises:
        TypeError: one is something else; the message names it.
        KeyError: one is not there.
    """
    for name in MAPPINGS:
        _mapping(name, record[name])
    for name in OF_DATA:
        _mapping(f"data.{name}", record["data"][name])
    for name in TEXTS:
        if not isinstance(record[name], str):
            raise TypeError(f"{name} is no text but {record[name]!r}")
    for kind in ("base", "tuned"):
        if kind == "tuned" and record[kind] is None:
            continue
        _mapping(kind, record[kind])
        for name, entry in record[kind].items():
            _evaluation(f"{kind}.{name}", entry)


def _evaluation(where: str, entry: Any) -> None:
    _mapping(where, entry)
    _mapping(f"{where}.scores", entry["scores"])
    for name, value in entry["scores"].items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{where}.scores.{name} is no number but {value!r}")


def _mapping(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is no mapping but {value!r}")
