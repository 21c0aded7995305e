"""The record of one run: what ran, what it cost, how good it was. Reports read nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict

from sizewise.errors import OutcomeError
from sizewise.files import SEAL, parse_json, sealed, unsealed, write_atomically
from sizewise.record.directories import OUTCOME_FILE, RunDir
from sizewise.record.kinds import check_kinds
from sizewise.record.provenance import Provenance
from sizewise.record.timing import Timing
from sizewise.words import score_name

OUTCOME_VERSION = 1


Group = Mapping[str, Any] | None


class Groups(TypedDict, total=False):
    """What every reader takes for a group of the configuration; earlier ones lack some."""

    model: Group
    dataset: Group
    eval_dataset: Mapping[str, Group] | None
    lora: Group
    quantization: Group
    metric: Mapping[str, Group] | None
    trainer: Group
    evaluation: Group
    sweep: Group


class TeacherFacts(TypedDict, total=False):
    """Who wrote training answers: how many were asked for and kept, and what that cost.

    ``held_back`` of the kept choose among checkpoints and are not trained on.
    ``key`` names the answers: runs that share it had them written once. ``seconds`` are those of a
    device of one's own; a server has none.
    """

    key: str
    model: str
    path: str
    family: str
    answers_from: str
    asked: int
    held_out: int
    kept: int
    held_back: int
    left_out: Mapping[str, int]
    score: float | None
    seconds: float | None
    money: float | None


class Report(TypedDict, total=False):
    """What is read of the report of a data set."""

    rows: int
    filtered: Mapping[str, int] | None
    duplicates: int | None
    shared_groups: int | None
    leaking_rows: int | None
    row_split_leak: float | None
    noted: Mapping[str, int] | None
    teacher: TeacherFacts | None


@dataclass(frozen=True)
class FileRef:
    """A file of the run, by path relative to the run's directory and by content."""

    path: str
    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        """Refuse a place outside of the run: what a record names is read."""
        path = PurePosixPath(self.path)
        if path.is_absolute() or ".." in path.parts:
            raise TypeError(f"{self.path!r} lies outside of the run")


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

    @classmethod
    def without_weights(
        cls, name: str, path: str, family: str, model_type: str, params: int, dtype: str = "unknown"
    ) -> ModelFacts:
        """Describe a model of which nothing is loaded here; ``params`` 0: not known."""
        return cls(
            name=name,
            path=path,
            revision=None,
            family=family,
            model_type=model_type,
            params_total=params,
            params_trainable=0,
            params_base=params,
            base_bytes=0,
            memory_bytes=0,
            adapter_bytes=0,
            dtype=dtype,
            quantization="none",
            lora_method="none",
            lora_r=None,
            lora_alpha=None,
            lora_scale=None,
            chat_template="",
        )


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
    ``out_of_memory`` lists the batch sizes that did not fit; ``money`` is what was
    spent at a server; ``timings`` are those of a sample of answers. ``judge_…`` is what judging the
    answers cost when it was done, and no part of the other figures. ``packed``: how many jobs
    shared a training pass, on average, and ``answered_together`` a decoding; ``train_seconds`` and
    ``eval_seconds`` then hold an equal share of each, and peaks are those of all of them.
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
    money: float | None = None
    timings: list[Timing] = field(default_factory=list)
    judge_seconds: float | None = None
    judge_money: float | None = None
    packed: float | None = None
    answered_together: float | None = None


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
    def summary(self) -> str:
        """Say in one line how good the run is."""
        name = self.data.name
        scored, base = self.best.get(name), self.base.get(name)
        if scored is None:
            return f"Trained; validation loss {self.validation.get('val_loss', float('nan')):.4f}"
        value = scored.scores[self.primary]
        line = f"{name}: {self.primary} {value:.4f} on {scored.examples} test examples"
        if self.tuned is None or base is None:
            return line
        before = base.scores[self.primary]
        return f"{line} (zero-shot {before:.4f}, gain {value - before:+.4f})"

    @property
    def objective_text(self) -> str:
        """The objective and what it is: ``validation loss 0.4321``; empty where there is none."""
        if self.objective is None:
            return ""
        of = (self.config.get("evaluation") or {}).get("objective", "val_loss")
        loss = of == "val_loss"
        name = "validation loss" if loss else f"{score_name(self.primary)} on validation"
        return f"{name} {self.objective:.4g}"

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
    """Write ``outcome.json`` atomically, with a hash of its content."""
    path = RunDir(run_dir).outcome
    text = json.dumps(sealed(asdict(outcome)), indent=2, ensure_ascii=False, allow_nan=True)
    write_atomically(path, text)
    return path


def read_outcome(run_dir: Path, intact: bool = False) -> Outcome:
    """Read the outcome of a run directory.

    Args:
        run_dir: the run.
        intact: also refuse a record that does not fit its own hash. Whoever decides by it whether
            a job is done asks for that; a report shows the record as it stands.

    Raises:
        OutcomeError: there is none, it cannot be read, is truncated, or of another version.
    """
    path = RunDir(run_dir).outcome
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
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
    outcome = outcome_from_json(record, str(path))
    if intact:
        _check_seal(record, path)
    return outcome


def _check_seal(record: Mapping[str, Any], path: Path) -> None:
    try:
        unsealed(record)
    except ValueError as error:
        raise OutcomeError(f"{path} was changed: {error}. Run the job again.") from error


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
        check_kinds(record, Outcome)
        check_kinds(record["config"], Groups, "config")
        check_kinds(record["data"]["report"], Report, "data.report")
        check_kinds(record["provenance"], Provenance, "provenance")
        fields = {name: value for name, value in record.items() if name != SEAL}
        return Outcome(**{**fields, **_typed(record)})
    except (KeyError, TypeError) as error:
        raise OutcomeError(
            f"{where} lacks or mistakes a field: {error}. Run the job again."
        ) from error


def _typed(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": ModelFacts(**record["model"]),
        "data": DataFacts(**record["data"]),
        "cost": _cost(record["cost"]),
        "base": _evaluations(record["base"]),
        "tuned": None if record["tuned"] is None else _evaluations(record["tuned"]),
        "files": {name: FileRef(**ref) for name, ref in record["files"].items()},
    }


def _cost(record: Mapping[str, Any]) -> CostFacts:
    timings = [Timing(**timing) for timing in record.get("timings") or ()]
    return CostFacts(**{**record, "timings": timings})


def _evaluations(record: Mapping[str, Any]) -> dict[str, Evaluation]:
    return {
        name: Evaluation(**{**entry, "predictions": FileRef(**entry["predictions"])})
        for name, entry in record.items()
    }
