"""``sizewise verify`` and ``sizewise reproduce``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from sizewise.config.register import conf_dir
from sizewise.outcome import OUTCOME_FILE, read_outcome
from sizewise.report.reproduce import reproduction
from sizewise.report.verify import FAILED, OK, Verification, verify_run, verify_sweep
from sizewise.runtime import prepare_environment, quiet

STYLES = {OK: "green", FAILED: "bold red"}


def verify_command(directory: Path) -> bool:
    """Print every check of a run or of all runs of a sweep; return whether all of them hold.

    Raises:
        OutcomeError: there is no finished run at or below ``directory``.
    """
    prepare_environment(hub=False)
    quiet()
    alone = (directory / OUTCOME_FILE).is_file()
    found = [verify_run(directory)] if alone else verify_sweep(directory)
    console = Console()
    for verification in found:
        _show(verification, console)
    broken = sum(not verification.ok for verification in found)
    console.print(f"{len(found)} checked, {broken} with a difference.")
    return broken == 0


def _show(verification: Verification, console: Console) -> None:
    console.print(f"[bold]{escape(str(verification.directory))}[/]", soft_wrap=True)
    for check in verification.checks:
        style = STYLES.get(check.status, "dim")
        detail = f": {escape(check.detail)}" if check.detail else ""
        console.print(f"  [{style}]{check.status}[/] {escape(check.name)}{detail}", soft_wrap=True)


def reproduce_command(directory: Path, run: bool) -> int:
    """Print how to make a run again; with ``run``, run it here and return its exit code."""
    found = reproduction(read_outcome(directory))
    sys.stdout.write(found.script + "\n")
    if not run:
        return 0
    sys.stdout.flush()
    return subprocess.run([sys.executable, *found.command[1:]], cwd=conf_dir().parent).returncode
