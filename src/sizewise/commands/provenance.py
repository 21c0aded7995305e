"""``sizewise verify``, ``reproduce`` and ``compare``: finished runs looked at again."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from sizewise.config import PricesConfig
from sizewise.errors import ConfigError, OutcomeError
from sizewise.record.directories import RunDir
from sizewise.record.identity import run_identity
from sizewise.record.outcome import Outcome, read_outcome
from sizewise.report.comparison.compare import compare
from sizewise.report.page.terminal import show
from sizewise.report.page.write import report_folder, write_report
from sizewise.report.words import literal, visible
from sizewise.runtime import command_line, prepare_environment, quiet
from sizewise.verify import FAILED, OK
from sizewise.verify.record import asked_config
from sizewise.verify.reproduce import reproduction
from sizewise.verify.verify import Verification, verify_run, verify_sweep

REPRODUCED = "reproduced"
AS_IT_IS = "Running with the code and packages that are here; nothing is checked out or installed."
STYLES = {OK: "green", FAILED: "bold red"}


def verify_command(directory: Path, trust: bool = False) -> bool:
    """Print every check of a run or of all runs of a sweep; return whether all of them hold.

    ``trust``: also call metrics that a record names and that are not sizewise's.
    """
    prepare_environment(hub=False)
    quiet()
    alone = RunDir(directory).outcome.is_file()
    found = [verify_run(directory, True, trust)] if alone else verify_sweep(directory, True, trust)
    console = Console(emoji=False)
    for verification in found:
        _show(verification, console)
    broken = sum(not verification.ok for verification in found)
    console.print(f"{len(found)} checked, {broken} with a difference.")
    return broken == 0


def _show(verification: Verification, console: Console) -> None:
    console.print(f"[bold]{literal(verification.directory)}[/]", soft_wrap=True)
    for check in verification.checks:
        style = STYLES.get(check.status, "dim")
        detail = f": {literal(check.detail)}" if check.detail else ""
        console.print(f"  [{style}]{check.status}[/] {literal(check.name)}{detail}", soft_wrap=True)


def reproduce_command(directory: Path, run: bool, trust: bool = False) -> int:
    """Print how to make a run again; with ``run``, run it below ``REPRODUCED`` and compare scores.

    It runs with the code and the packages that are here: nothing is checked out or installed.
    ``trust``: run it also where it names code that is not sizewise's. Returns the exit code of the
    run, 0 where only the command was asked for.

    Raises:
        OutcomeError: there is no finished run in ``directory``, or its record is damaged.
        ConfigError: the run would call code that is not sizewise's, and nobody said ``trust``.
    """
    outcome = read_outcome(directory)
    asked = asked_config(outcome, directory)
    found = reproduction(outcome, asked=asked)
    sys.stdout.write(found.script + "\n")
    if not run:
        return 0
    if found.foreign and not trust:
        raise ConfigError(
            f"{directory} would run code that is not sizewise's: {', '.join(found.foreign)}. "
            "If you trust the run, add --trust."
        )
    sys.stdout.write(f"{AS_IT_IS}\n")
    sys.stdout.flush()
    _, script, *overrides = found.command
    # In a folder of its own: where the run was made it is done already.
    command = [*command_line(script.removesuffix(".py")), *overrides]
    code = subprocess.run([*command, f"paths.outputs={REPRODUCED}"]).returncode
    again = Path(REPRODUCED) / run_identity(asked).slug
    if code == 0 and not RunDir(again).outcome.is_file():
        sys.stdout.write("Today's options gave another configuration (see the notes above).\n")
    elif code == 0:
        lines = [*score_changes(outcome, read_outcome(again)), str(again)]
        sys.stdout.write("".join(f"{visible(line)}\n" for line in lines))
    return code


def score_changes(before: Outcome, after: Outcome) -> list[str]:
    """Say of every data set whether its primary score came out again."""
    lines = []
    for name, evaluation in before.best.items():
        old, new = evaluation.scores[before.primary], after.best[name].scores[before.primary]
        same = "again" if math.isclose(old, new, rel_tol=1e-9) else f"recorded was {old:.6g}"
        lines.append(f"{name}: {before.primary} {new:.6g}, {same}")
    return lines


def compare_command(
    directories: Sequence[Path], by: Sequence[str], out: Path | None, prices: PricesConfig
) -> None:
    """Print the comparison of all finished runs below ``directories``.

    Args:
        by: compare pairs that differ in these configuration keys only.
        out: directory for the files of a report; None: print only.

    Raises:
        OutcomeError: a path is no directory, there is no run, or ``out`` cannot be written.
        ConfigError: ``by`` names no key of the runs.
    """
    if out is not None:
        report_folder(out)  # before the work, which may take long
    comparison = compare(directories, by, prices)
    if not comparison.runs:
        where = ", ".join(map(str, directories))
        found = "".join(f"\n  {p.where}: {p.reason}" for p in comparison.problems)
        raise OutcomeError(f"{where}: no finished run, so there is nothing to compare.{found}")
    paths = write_report(comparison, out, title=out.name) if out is not None else {}
    show(comparison, (), {name: path for name, path in paths.items() if path.is_file()})
