"""Early end of unpromising trials: the trial reports its validation loss, the study decides."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from sizewise.errors import SizewiseError
from sizewise.sweep.files import read_json

PRUNING_FILE = "pruning.json"


class TrialPruned(SizewiseError):  # noqa: N818 — Optuna's own word
    """The search ended this trial early; its run is kept and marked."""

    def __init__(self, step: int, value: float) -> None:
        super().__init__(f"validation loss {value:.4f} at step {step} does not promise enough")
        self.step, self.value = step, value


class PruningReporter:
    """Tells a search how a trial is doing. Training calls ``report`` after each validation."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial

    @classmethod
    def for_run(cls, run_dir: Path) -> PruningReporter | None:
        """Return the reporter of a run; None if no search with pruning started it."""
        record = read_json(run_dir / PRUNING_FILE)
        if record is None:
            return None
        from sizewise.sweep.study import load_trial

        return cls(load_trial(record))

    def report(self, step: int, value: float) -> None:
        """Record the validation loss at an optimiser step.

        Raises:
            TrialPruned: the search gives this trial up.
        """
        maximize = self._trial.study.direction.name == "MAXIMIZE"
        with warnings.catch_warnings():
            # A resumed run validates again at steps that it has already reported.
            warnings.simplefilter("ignore", UserWarning)
            self._trial.report(-value if maximize else value, step)
        if self._trial.should_prune():
            raise TrialPruned(step, value)
