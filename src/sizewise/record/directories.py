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
VALIDATION = "validation"
RESULTS_FILE = "results.json"


@dataclass(frozen=True)
class RunDir:
    """The directory of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / CONFIG_FILE

    @property
    def outcome(self) -> Path:
        """The record of the run, written last: a run with a whole one is done."""
        return self.path / OUTCOME_FILE

    @property
    def fit(self) -> Path:
        """Steps, tokens, seconds and best step: a run that has it is trained."""
        return self.path / FIT_FILE

    @property
    def history(self) -> Path:
        """Every logged value with its step, a line each."""
        return self.path / METRICS_FILE

    @property
    def log(self) -> Path:
        """What the job said, with the traceback if it failed."""
        return self.path / LOG_FILE

    @property
    def adapter(self) -> Path:
        """The trained adapter (or full model) with its template settings."""
        return self.path / ADAPTER

    @property
    def checkpoints(self) -> Path:
        """What an interrupted fit goes on from; gone when it is done."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """Adapter, optimiser and random state at the last step boundary that was saved."""
        return self.checkpoints / "last.ckpt"

    @property
    def best_weights(self) -> Path:
        """The weights with the lowest validation loss so far."""
        return self.checkpoints / "best.safetensors"

    @property
    def all_predictions(self) -> Path:
        """The folder of all files of predictions."""
        return self.path / "predictions"

    def predictions(self, kind: str, dataset: str) -> Path:
        """Predictions of ``base`` or ``tuned`` on a data set's test split.

        Those on its validation split are ``base_validation`` and ``tuned_validation``.
        """
        return self.all_predictions / f"{kind}.{dataset}.jsonl"

    @property
    def data(self) -> Path:
        """The splits as SQLite and their token lengths, where they are saved."""
        return self.path / "data"

    @property
    def report(self) -> Path:
        """The report of a run on its own."""
        return self.path / "report"

    @property
    def export(self) -> Path:
        """The rehearsed release of a dry run."""
        return self.path / "export"

    @property
    def job(self) -> Path:
        """The job as it was submitted: configuration, overrides, function."""
        return self.path / JOB_FILE

    @property
    def failure(self) -> Path:
        """Why the last attempt failed."""
        return self.path / FAILURE_FILE

    @property
    def pruned(self) -> Path:
        """When a search gave the trial up."""
        return self.path / PRUNED_FILE

    @property
    def pruning(self) -> Path:
        """The search and the trial that this run belongs to."""
        return self.path / "pruning.json"

    @property
    def queued(self) -> Path:
        """The id under which the job waits in a queue."""
        return self.path / "queued.json"

    @property
    def claims(self) -> Path:
        """Who works, or worked, on the run."""
        return self.path / ".claims"


@dataclass(frozen=True)
class SweepDir:
    """The directory of a sweep: its runs, and what is said of them all."""

    path: Path

    @property
    def plan(self) -> Path:
        """The jobs that were planned."""
        return self.path / "sweep.json"

    @property
    def summary(self) -> Path:
        """What stood on the terminal at the end."""
        return self.path / "summary.txt"

    @property
    def results(self) -> Path:
        """The comparison, for machines."""
        return self.path / RESULTS_FILE

    @property
    def page(self) -> Path:
        """The comparison, for people."""
        return self.path / "report.html"

    @property
    def report_error(self) -> Path:
        """The traceback of a report that failed."""
        return self.path / "report_error.log"

    @property
    def study(self) -> Path:
        """The journal of a search."""
        return self.path / "study.jsonl"
