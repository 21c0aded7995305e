"""What SLURM's own commands say about jobs; none of it needs accounting."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
import time

from sizewise.errors import SweepError

ATTEMPTS, WAIT_SECONDS = 4, 5.0


def require_slurm() -> None:
    missing = [tool for tool in ("sbatch", "squeue") if shutil.which(tool) is None]
    if missing:
        raise SweepError(
            f"hydra/launcher=slurm needs SLURM's {' and '.join(missing)}, which this machine does "
            "not have. Start the sweep on a login node, or use hydra/launcher=local."
        )


def queue_reasons() -> dict[str, str] | None:
    """Return this user's queued and running jobs with what each waits for; None if nobody answers.

    SLURM's word for nothing is ``None``.
    """
    if shutil.which("squeue") is None:
        return None
    answer = _run("squeue", "-h", "-r", "-u", getpass.getuser(), "-o", "%i|%r")
    if answer is None:
        return None
    return {i: reason for i, _, reason in (line.partition("|") for line in answer.split("\n")) if i}


def is_held(reason: str) -> bool:
    """Whether a job waits until somebody lets it go, as after a node went down at its start."""
    return "held" in reason.lower()


def require_queued_ids() -> set[str]:
    """Return the ids of this user's queued and running jobs; ask again where nobody answers.

    SweepError where SLURM's controller stays silent: a job might be submitted twice.
    """
    for attempt in range(ATTEMPTS):
        found = queue_reasons()
        if found is not None:
            return set(found)
        if attempt + 1 < ATTEMPTS:
            time.sleep(WAIT_SECONDS)
    raise SweepError(
        f"squeue did not answer {ATTEMPTS} times, so which jobs are queued already is not known. "
        "Nothing was submitted: start the same command again when SLURM answers."
    )


def job_end(job_id: str) -> str:
    """Return SLURM's word for how a job ended (``CANCELLED``, ``TIMEOUT``, …), or ``unknown``."""
    answer = _run("scontrol", "-o", "show", "job", job_id)
    found = re.search(r"\bJobState=(\w+).*\bExitCode=(\d+):(\d+)", answer or "")
    if found is not None:
        state, code, signal = found.groups()
        return f"{state} (exit code {code}, signal {signal})" if state == "FAILED" else state
    answer = _run("sacct", "-n", "-X", "-P", "-j", job_id, "-o", "State")
    return (answer or "").split("\n")[0].split(" ")[0] or "unknown"


def cancel(job_ids: list[str]) -> None:
    if job_ids:
        _run("scancel", *job_ids)


def _run(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except subprocess.TimeoutExpired:
        return None
    return answer.stdout if answer.returncode == 0 else None
