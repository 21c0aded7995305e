"""Names of all files that a run and a sweep leave on disk; nobody else types one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONFIG_FILE = "config.yaml"
OUTCOME_FILE = "outcome.json"
FIT_FILE = "fit.json"
METRICS_FILE = "metrics.jsonl"
LOG_FILE = "job.log"
JOB_FILE = "job.json"
FAILURE_FILE = "failed.json"
PRUNED_FILE = "pruned.json"
ADAPTER = "adapter"
ADAPTER_CONFIG = "adapter_config.json"  # PEFT's, inside of it
VALIDATION = "validation"
CHECKPOINTS = "checkpoints"
RESULTS_FILE = "results.json"
ZERO_SHOT_FILE = "measured.json"


@dataclass(frozen=True)
class _Directory:
    path: Path


class _Inside:
    """A name inside of a directory; on an instance, the path that it stands for."""

    def __init__(self, *parts: str) -> None:
        self._parts = parts

    def __get__(self, directory: _Directory, kind: type) -> Path:
        return directory.path.joinpath(*self._parts)


class RunDir(_Directory):
    """The directory of one run."""

    config = _Inside(CONFIG_FILE)
    """The resolved configuration."""
    outcome = _Inside(OUTCOME_FILE)
    """The record of the run, written last: a run with a whole one is done."""
    fit = _Inside(FIT_FILE)
    """Steps, tokens, seconds and best step: a run that has it is trained."""
    history = _Inside(METRICS_FILE)
    """Every logged value with its step, a line each."""
    log = _Inside(LOG_FILE)
    """What the job said, with the traceback if it failed."""
    adapter = _Inside(ADAPTER)
    """The trained adapter (or full model) with its template settings."""
    checkpoints = _Inside(CHECKPOINTS)
    """What an interrupted fit goes on from; gone when it is done."""
    last_checkpoint = _Inside(CHECKPOINTS, "last.ckpt")
    """Adapter, optimiser and random state at the last step boundary that was saved."""
    best_weights = _Inside(CHECKPOINTS, "best.safetensors")
    """The weights with the lowest validation loss so far."""
    all_predictions = _Inside("predictions")
    """The folder of all files of predictions."""
    data = _Inside("data")
    """The splits as SQLite and their token lengths, where they are saved."""
    report = _Inside("report")
    """The report of a run on its own."""
    export = _Inside("export")
    """The rehearsed release of a dry run."""
    job = _Inside(JOB_FILE)
    """The job as it was submitted: configuration, overrides, function."""
    failure = _Inside(FAILURE_FILE)
    """Why the last attempt failed."""
    pruned = _Inside(PRUNED_FILE)
    """Where the fit stands still: given up by a search, or stopped at a rung of a sweep."""
    rung = _Inside("rung.json")
    """Where a fit that has gone on since had been given up; see also ``passed_rung``."""
    pruning = _Inside("pruning.json")
    """The search and the trial that this run belongs to."""
    progress = _Inside("progress.json")
    """How far the job is, while it runs."""
    queued = _Inside("queued.json")
    """The id under which the job waits in a queue."""
    spending = _Inside("spending.jsonl")
    """What the run spent at a server."""
    judges = _Inside("judges")
    """What judges said of the answers, while it is asked, and what they cost."""
    teacher = _Inside("teacher")
    """The same of a teacher that writes training answers."""
    taught = _Inside("teacher", "answers.jsonl")
    """What the teacher wrote to every prompt, kept or not and why, a line each."""
    claims = _Inside(".claims")
    """Who works, or worked, on the run."""

    def predictions(self, kind: str, dataset: str) -> Path:
        """Predictions of ``base`` or ``tuned`` on a data set's test split.

        Those on its validation split are ``base_validation`` and ``tuned_validation``.
        """
        return self.all_predictions / f"{kind}.{dataset}.jsonl"

    def passed_rung(self, share: float | None) -> Path:
        """Where a fit that has gone on since stood at a share of its steps (a name each)."""
        return self.rung if share is None else self.path / f"rung-{float(share)!r}.json"

    @property
    def passed_rungs(self) -> list[Path]:
        """Every file of a stop that a fit has gone on from; an earlier version wrote one alone."""
        return [self.rung, *sorted(self.path.glob("rung-*.json"))]


class SweepDir(_Directory):
    """The directory of a sweep: its runs, and what is said of them all."""

    plan = _Inside("sweep.json")
    """The jobs that were planned."""
    summary = _Inside("summary.txt")
    """What stood on the terminal at the end."""
    results = _Inside(RESULTS_FILE)
    """The comparison, for machines."""
    page = _Inside("report.html")
    """The comparison, for people."""
    report_error = _Inside("report_error.log")
    """The traceback of a report that failed."""
    tuning = _Inside("tuning.json")
    """The candidates that were tried, where they were stopped, and which were kept."""
    study = _Inside("study.jsonl")
    """The journal of a search."""
    started = _Inside("started.json")
    """The process that the app began for the sweep, as far as it did."""
    app_log = _Inside("app.log")
    """What that process said."""


def entry_path(cache: Path, key: str) -> Path:
    """The folder of zero-shot answers in a cache; they are whole if it has ``ZERO_SHOT_FILE``."""
    return cache / "zero_shot" / key[:2] / key
