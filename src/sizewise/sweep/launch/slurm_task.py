"""What runs inside a SLURM job."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from sizewise.errors import SweepError
from sizewise.job.execute import Interrupts, execute
from sizewise.record.logs import output_to_log
from sizewise.record.state import JobState


class SlurmTask:
    """Runs the job of one directory; begun again in the same directory after a requeue.

    A failed job raises, so that SLURM too knows it as FAILED.
    """

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir
        self._interrupts: Interrupts | None = None

    def __call__(self) -> float | None:
        """Run the job and return its objective."""
        run_dir = Path(self.run_dir)
        if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
            os.environ.setdefault("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))
        # submitit handles the signals; this only remembers that one was the reason to stop.
        self._interrupts = Interrupts(enabled=False)
        with output_to_log(run_dir):
            result = execute(run_dir, self._interrupts)
        if result.state == JobState.FAILED:
            raise SweepError(f"{run_dir}: {result.message}")
        return result.objective

    def checkpoint(self) -> Any:
        """Submit the same job again; submitit calls this before a time limit or a preemption."""
        from submitit.helpers import DelayedSubmission

        if self._interrupts is not None:
            self._interrupts.received = signal.SIGUSR2
        return DelayedSubmission(SlurmTask(self.run_dir))
