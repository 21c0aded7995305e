"""The memory of a search: an Optuna study in a journal file, and its word on a trial."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sizewise.errors import SweepError
from sizewise.files import parse_json, read_json, sealed, unsealed
from sizewise.record.directories import RunDir, SweepDir
from sizewise.record.stops import FitStopped, Stop

log = logging.getLogger(__name__)

PRUNERS = ("none", "median", "asha")
SAMPLERS = ("tpe", "random", "nsga2")


def require_optuna() -> Any:
    """Import Optuna quietly, or say how to get it."""
    try:
        import optuna
    except ImportError as error:
        raise SweepError(
            "hydra/sweeper=search needs Optuna: pip install 'sizewise[search]'."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_study(folder: Path, directions: list[str], sampler: str, pruner: str, seed: int) -> Any:
    """Open the study kept in ``folder``, or begin it; directions: ``minimize`` or ``maximize``.

    Of a damaged journal only what stands before the damage counts, which is said. ``seed`` is the
    sampler's; a search that goes on draws other numbers than it has drawn.
    """
    optuna = require_optuna()
    mend_journal(SweepDir(folder).study)
    storage = open_storage(folder)
    name = folder.name
    known = {summary.study_name for summary in optuna.get_all_study_summaries(storage)}
    begun = len(optuna.load_study(study_name=name, storage=storage).trials) if name in known else 0
    return optuna.create_study(
        study_name=name,
        storage=storage,
        directions=directions,
        sampler=make_sampler(sampler, seed + 1000 * begun),
        pruner=make_pruner(pruner),
        load_if_exists=True,
    )


def open_storage(folder: Path) -> Any:
    """Open the journal in ``folder``; its lock works on network file systems."""
    optuna = require_optuna()
    journal = optuna.storages.journal
    path = str(SweepDir(folder).study)
    lock = journal.JournalFileSymlinkLock(path)
    return optuna.storages.JournalStorage(SealedJournal(journal.JournalFileBackend(path, lock)))


class SealedJournal:
    """Optuna's journal file with the hash of each entry beside it."""

    def __init__(self, journal: Any) -> None:
        self._journal = journal

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        return map(unsealed, self._journal.read_logs(log_number_from))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._journal.append_logs([sealed(entry) for entry in logs])


def mend_journal(path: Path) -> None:
    """Cut a journal off before its first damaged entry; the damaged one is kept beside it."""
    lines = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    whole = next((n for n, line in enumerate(lines[:-1]) if not _is_entry(line)), len(lines) - 1)
    if whole == len(lines) - 1 and not lines[-1]:
        return
    kept = path.with_name(f"{path.name}.damaged")
    log.warning("%s is damaged at line %d (see %s): going on from there.", path, whole + 1, kept)
    shutil.copyfile(path, kept)
    with path.open("r+b") as handle:
        handle.truncate(sum(len(line) + 1 for line in lines[:whole]))


def _is_entry(line: bytes) -> bool:
    try:
        return bool(unsealed(parse_json(line)))
    except (ValueError, AttributeError):
        return False


def make_sampler(name: str, seed: int) -> Any:
    samplers = require_optuna().samplers
    if name == "tpe":
        return samplers.TPESampler(seed=seed, constant_liar=True)
    if name == "random":
        return samplers.RandomSampler(seed=seed)
    if name == "nsga2":
        return samplers.NSGAIISampler(seed=seed, population_size=12)
    raise SweepError(f"hydra.sweeper.sampler={name} is not known. Choose: {', '.join(SAMPLERS)}.")


def make_pruner(name: str) -> Any:
    """Return a pruner: the median rule, or asynchronous successive halving (Li et al. 2020)."""
    pruners = require_optuna().pruners
    if name == "none":
        return pruners.NopPruner()
    if name == "median":
        return pruners.MedianPruner(n_startup_trials=4)
    if name == "asha":
        return pruners.SuccessiveHalvingPruner()
    raise SweepError(f"hydra.sweeper.pruner={name} is not known. Choose: {', '.join(PRUNERS)}.")


def load_trial(record: dict[str, Any]) -> Any:
    """Open a running trial from the process that trains it; the search wrote ``record``."""
    optuna = require_optuna()
    folder = Path(record["folder"])
    study = optuna.load_study(
        study_name=folder.name,
        storage=open_storage(folder),
        pruner=make_pruner(record["pruner"]),
    )
    return optuna.trial.Trial(study, record["trial_id"])


class TrialPruned(FitStopped):
    """The search ended this trial early; its run is kept and marked."""

    def __init__(self, step: int, value: float) -> None:
        said = f"validation loss {value:.4f} at step {step} does not promise enough"
        super().__init__(Stop(step, value), said)


class PruningReporter:
    """Tells a search how a trial is doing. Training calls ``report`` after each validation."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial

    @classmethod
    def for_run(cls, run_dir: Path) -> PruningReporter | None:
        """Return the reporter of a run; None if no search with pruning started it."""
        record = read_json(RunDir(run_dir).pruning)
        if record is None:
            return None
        try:
            return cls(load_trial(record))
        except Exception as error:
            raise SweepError(
                f"{RunDir(run_dir).pruning} names no trial of a search ({error}). Start the search "
                "again: it writes that file anew."
            ) from error

    def report(self, step: int, value: float) -> None:
        """Record the validation loss at an optimiser step; raises TrialPruned if given up."""
        maximize = self._trial.study.direction.name == "MAXIMIZE"
        with warnings.catch_warnings():
            # A resumed run validates again at steps that it has already reported.
            warnings.simplefilter("ignore", UserWarning)
            self._trial.report(-value if maximize else value, step)
        if self._trial.should_prune():
            raise TrialPruned(step, value)
