"""``sizewise verify``, ``reproduce``, ``compare`` and ``gate``: finished runs looked at again."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from sizewise.config import PricesConfig
from sizewise.errors import ConfigError, OutcomeError, SizewiseError
from sizewise.record.directories import RunDir, SweepDir
from sizewise.record.identity import run_identity
from sizewise.record.outcome import Outcome, read_outcome
from sizewise.report.comparison.compare import compare_loaded
from sizewise.report.comparison.decision import Gate, gate
from sizewise.report.comparison.pairs import pair_of, primary_pair
from sizewise.report.comparison.runs import AnswerCache, Loaded, load_runs
from sizewise.report.comparison.test_sets import build_test_sets
from sizewise.report.imports.convert import split_paths, with_imports
from sizewise.report.page.terminal import show
from sizewise.report.page.write import report_folder, write_report
from sizewise.runtime import command_line, prepare_environment, quiet
from sizewise.verify import FAILED, OK, UNCHECKED
from sizewise.verify.record import asked_config
from sizewise.verify.reproduce import reproduction
from sizewise.verify.verify import Verification, verify_run, verify_sweep
from sizewise.words import literal, visible

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
    console.print(f"{len(found)} checked, {broken} with a difference{_unchecked(found)}.")
    return broken == 0


def _unchecked(found: Sequence[Verification]) -> str:
    """Say at the end what of a whole sweep was not checked."""
    said = [
        f"{check.detail} ({check.name})"
        for verification in found
        if verification.comparison
        for check in verification.checks
        if check.status == UNCHECKED
    ]
    return f"; not checked: {literal('; '.join(said))}" if said else ""


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
        ConfigError: the run would call code that is not sizewise's or send texts to a server
            elsewhere, and nobody said ``trust``.
    """
    outcome = read_outcome(directory)
    asked = asked_config(outcome, directory)
    found = reproduction(outcome, asked=asked)
    sys.stdout.write(found.script + "\n")
    if not run:
        return 0
    if found.foreign and not trust:
        raise ConfigError(
            f"{directory} would run code that is not sizewise's, or send texts and a key to a "
            f"server: {', '.join(found.foreign)}. If you trust the run, add --trust."
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


TEMPORARY = "sizewise-imports-"


@dataclass(frozen=True)
class Imports:
    """How logs of other harnesses are read; see ``report.imports.convert.with_imports``."""

    id_field: str | None = None
    score: str | None = None


def compare_command(
    paths: Sequence[Path],
    by: Sequence[str],
    out: Path | None,
    prices: PricesConfig,
    margin: float | None = None,
    imports: Imports | None = None,
) -> None:
    """Print the comparison of all finished runs at or below ``paths``, and of logs among them.

    Args:
        by: compare pairs that differ in these configuration keys only.
        out: directory for the files of a report; None: print only.
        imports: how logs of other harnesses are read.

    Raises:
        OutcomeError: a path is no directory, there is no run, a log shares no example with the
            runs, or ``out`` cannot be written.
        ConfigError: ``by`` names no key of the runs.
    """
    if out is not None:
        report_folder(out)  # before the work, which may take long
    with TemporaryDirectory(prefix=TEMPORARY) as temporary:
        loaded = load_all(paths, Path(temporary) if out is None else out / "imports", imports)
        comparison = compare_loaded(loaded, by, prices, margin=margin)
        if not comparison.runs:
            where = ", ".join(map(str, paths))
            found = "".join(f"\n  {p.where}: {p.reason}" for p in comparison.problems)
            raise OutcomeError(f"{where}: no finished run, so there is nothing to compare.{found}")
        written = write_report(comparison, out, title=out.name) if out is not None else {}
        show(comparison, (), {name: path for name, path in written.items() if path.is_file()})


def load_all(paths: Sequence[Path], folder: Path, imports: Imports | None = None) -> Loaded:
    """Read the runs at or below ``paths``, and the logs among them; these are kept in ``folder``.

    Raises:
        OutcomeError: a path is no directory, or a log shares no example with the runs.
    """
    directories, logs = split_paths(paths)
    loaded, asked = load_runs(directories), imports or Imports()
    if not logs or not loaded.runs:
        return loaded
    return with_imports(loaded, logs, folder, asked.id_field, asked.score)


def report_command(directory: Path, wandb: bool) -> None:
    """Print the summary that a sweep left, made anew where there is none; or make a W&B Report.

    Raises:
        OutcomeError: there is no run, or ``directory`` cannot be written.
        ConfigError: the package that W&B Reports need is not installed.
    """
    alone = RunDir(directory).outcome.is_file()
    folder = RunDir(directory).report if alone else directory
    left = SweepDir(folder).summary
    if not wandb and left.is_file():
        sys.stdout.write(left.read_text(encoding="utf-8"))
    elif not wandb:
        compare_command([directory], (), folder, PricesConfig())
    else:
        from sizewise.report.wandb import save_wandb_report

        path, address = save_wandb_report(directory, folder)
        where = address or "not saved: nobody is logged in to W&B, or it is set to offline."
        sys.stdout.write(f"W&B Report: {path}\n{where}\n")


UNANSWERED = 3


def gate_command(
    paths: Sequence[Path], margin: float, a: str | None = None, b: str | None = None
) -> int:
    """Print in one line whether A is good enough and return the exit code.

    By default A is the small tuned model of the primary pair and B the larger general one, on the
    largest test set that has both.

    Returns:
        0: better, or not worse by ``margin`` points or more. 1: worse. 2: open. 3: there are no
        such runs.
    """
    try:
        with TemporaryDirectory(prefix=TEMPORARY) as folder:
            found = _gate(load_all(paths, Path(folder)), margin, a, b)
    except SizewiseError as error:
        sys.stderr.write(f"sizewise: {error}\n")
        return UNANSWERED
    sys.stdout.write(f"{found.line}\n")
    return found.code


def _gate(loaded: Loaded, margin: float, a: str | None, b: str | None) -> Gate:
    if (a is None) != (b is None):
        raise ConfigError("--a and --b belong together: give the labels of two configurations.")
    if not margin > 0:
        raise ConfigError(f"--margin {margin}: give the points that may be lost, more than 0.")
    tests = build_test_sets(loaded.runs, AnswerCache())
    for test in tests:
        pair = primary_pair(test) if a is None or b is None else pair_of(test, a, b)
        if pair is not None:
            return gate(test, pair, margin)
    labels = sorted({arm.label for test in tests for arm in test.scored})
    what = "a tuned model and a larger general one" if a is None else f"{a!r} and {b!r}"
    raise ConfigError(
        f"No test set has scores of {what}. Name two of these with --a and --b: "
        f"{', '.join(labels) or 'there are none'}."
    )
