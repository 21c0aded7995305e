"""sizewise from Python: ``run``, ``sweep`` and ``compare``, with results as DataFrames.

They do what the commands do, with the same options, directories and records; but they raise
SizewiseError where a command ends, and leave the process as they found it.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sizewise.composition.alone import check_alone
from sizewise.composition.compose import compose_config, initialized, override_of
from sizewise.composition.jobs import sweeper_of
from sizewise.composition.resolvers import errors_raised, make_directory
from sizewise.composition.shorthand import spelt_out
from sizewise.config import PricesConfig, to_run_config
from sizewise.errors import ConfigError, SizewiseError, SweepError
from sizewise.job.execute import execute, require
from sizewise.job.submit import make_job, submit
from sizewise.runtime import guest

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from sizewise.record.outcome import Outcome
    from sizewise.report.comparison.compare import Comparison, SetComparison

__all__ = ["Options", "Results", "RunResult", "SizewiseError", "compare", "run", "sweep"]
Options = Mapping[str, Any] | Sequence[str]
Place = Path | str


@dataclass(frozen=True)
class Results:
    """Finished runs and their comparison; in a notebook it shows itself.

    ``directory`` is that of the run or sweep (None where several were compared); ``comparison``
    holds everything, one ``SetComparison`` per test set.
    """

    comparison: Comparison
    directory: Path | None = None

    @property
    def table(self) -> pd.DataFrame:
        """One row per configuration, best first: scores, gains with intervals, costs."""
        return self.comparison.table

    @property
    def runs(self) -> pd.DataFrame:
        """One row per run, every score of every test set among its columns."""
        return self.comparison.runs_table

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per answer: run, ``side`` (zero_shot or tuned), example, texts, scores, cost."""
        from sizewise.report.comparison.compare import answer_rows

        return answer_rows(self.comparison.runs)

    @property
    def verdict(self) -> str:
        """What the runs say about the question, on the largest test set, in plain words."""
        found = self.comparison.verdict
        return f"{found.headline}. {found.sentence}"

    @property
    def objections(self) -> tuple[str, ...]:
        """What a reviewer would object to, on the largest test set."""
        return tuple(self._first.warnings) if self.comparison.sets else ()

    @property
    def figure(self) -> Figure:
        """Quality over size on the largest test set, as a Matplotlib figure.

        Raises:
            SweepError: no run was scored.
        """
        from sizewise.report.views.pictures import size_versus_quality

        return size_versus_quality(self._first.test, self._first.points)

    @property
    def _first(self) -> SetComparison:
        if not self.comparison.sets:
            raise SweepError(self.comparison.verdict.sentence)
        return self.comparison.sets[0]

    def write_report(self, directory: Place) -> Path:
        """Write the files of the report below ``directory`` and return its page."""
        from sizewise.report.page.write import write_report

        folder = Path(directory)
        return write_report(self.comparison, folder, title=folder.name)["report"]

    def __repr__(self) -> str:
        """Return the summary that a sweep prints; nothing in it is obeyed by a terminal."""
        from rich.console import Console

        from sizewise.report.page.terminal import NO_TERMINAL, show

        text = io.StringIO()
        show(self.comparison, console=Console(file=text, width=NO_TERMINAL, emoji=False))
        return text.getvalue().rstrip()

    def _repr_html_(self) -> str:
        from sizewise.report.page.notebook import notebook_html

        return notebook_html(self.comparison)


@dataclass(frozen=True, repr=False)
class RunResult(Results):
    """One run: ``outcome`` is its whole record."""

    @property
    def outcome(self) -> Outcome:
        return self.comparison.runs[0].outcome

    @property
    def scores(self) -> dict[str, float]:
        """Scores of the model that stands for the run, on its own test set."""
        outcome = self.outcome
        evaluation = outcome.best.get(outcome.data.name) or next(iter(outcome.best.values()), None)
        return dict(evaluation.scores) if evaluation is not None else {}

    @property
    def objective(self) -> float | None:
        """What a search would minimise or maximise (``evaluation.objective``)."""
        return self.outcome.objective


def run(
    options: Options | None = None,
    *,
    overrides: Sequence[str] = (),
    dir: Place | None = None,
    evaluate: bool = False,
) -> RunResult:
    """Train and score one configuration, or only score it; a run that is done is read back.

    Args:
        options: values by key (``{"model": "nano", "lora.r": 8}``), or overrides as of
            ``train.py``.
        overrides: further overrides; they come last, and win.
        dir: the run's directory; by default one below ``paths.outputs`` that is named by the
            configuration.
        evaluate: as ``evaluate.py``: an untouched base, a finished run or an adapter is scored.

    Raises:
        SizewiseError: an option is wrong, or the run failed; its message says why.
        KeyboardInterrupt: it was interrupted; the same call continues.
    """
    words = [*_words(options), *overrides]
    if dir is not None:  # beside others of that folder it would seem to be part of a sweep
        words = [override_of("paths.outputs", Path(dir).resolve().parent), *words]
    with _called_from_python():
        config = compose_config(words, "evaluate" if evaluate else "train")
        to_run_config(config, check_types=False)
        check_alone(config, words)
        job = make_job(config, Path(), tuple(words))
        place = Path(dir or Path(config["paths"]["outputs"]) / job.identity.slug)
        make_directory(place)
        submit(make_job(config, place, tuple(words)))
        require(execute(place))
        return RunResult(_compared([place]), place)


def sweep(
    options: Options | None = None,
    *,
    overrides: Sequence[str] = (),
    arms: Mapping[str, Options] | None = None,
    dir: Place | None = None,
) -> Results:
    """Run many configurations in worker processes and compare them; what is done is not repeated.

    Args:
        options: values by key, where a list is one job per element (``{"lora.r": [8, 16]}``); or
            overrides as of ``train.py -m``. ``{"sweep": NAME}`` chooses a named sweep.
        overrides: further overrides; they come last, and win.
        arms: grids of their own by name, each as ``options``; the sweep is their union.
        dir: the sweep's directory; by default one below ``paths.sweeps`` that is named by the
            command.

    With ``sweep.dry_run=true`` the plan is printed, and the results are those that are there.

    Raises:
        SizewiseError: the plan is not valid, or jobs failed: they are named with their reasons.
            ``compare(dir)`` has the results of the others.
        KeyboardInterrupt: it was interrupted; the same call continues.
    """
    words = [*_words(options, choices=True), *overrides]
    for name, arm in (arms or {}).items():
        words.append(override_of(f"++sweep.arms.{name}", _words(arm, choices=True)))
    if dir is not None:
        words.append(override_of("sweep.dir", Path(dir)))
    with _called_from_python():
        place = _carry_out(words)
        return Results(_compared([place] if place.is_dir() else []), place)


def _carry_out(words: list[str]) -> Path:
    """Plan, launch and finish a sweep; return its directory."""
    words = spelt_out(words)
    with initialized(words):
        sweeper, config = sweeper_of(words)
        place, dry = Path(str(config.hydra.sweep.dir)), bool(config.sweep.dry_run)
        # The results show themselves: plan and summary would come twice.
        with nullcontext() if dry else redirect_stdout(io.StringIO()):
            sweeper.sweep(list(config.hydra.overrides.task))
    return place


def compare(
    *paths: Place,
    by: Sequence[str] = (),
    prices: PricesConfig | None = None,
    margin: float | None = None,
    seed: int = 0,
) -> Results:
    """Compare all finished runs at or below ``paths``.

    Args:
        paths: directories of sweeps or runs.
        by: compare pairs that differ in these configuration keys only.
        prices: what a device and an API cost, for the break-even in money.
        margin: by how much (in points of the score) the small model may be worse.
        seed: of the resampling; the same seed gives the same figures.

    Raises:
        SizewiseError: there is no such directory or no finished run, or ``by`` names no key.
    """
    if not paths:
        raise ConfigError("compare() needs directories: compare('multirun/my_sweep').")
    with _called_from_python():
        found = _compared([Path(path) for path in paths], by, prices, margin, seed)
    if not found.runs:
        where = ", ".join(map(str, paths))
        reasons = "".join(f"\n  {p.where}: {p.reason}" for p in found.problems)
        raise SweepError(f"{where}: no finished run, so there is nothing to compare.{reasons}")
    return Results(found, Path(paths[0]) if len(paths) == 1 else None)


def _compared(
    paths: Sequence[Path],
    by: Sequence[str] = (),
    prices: PricesConfig | None = None,
    margin: float | None = None,
    seed: int = 0,
) -> Comparison:
    from sizewise.report.comparison.compare import compare as compare_runs

    return compare_runs(paths, by, prices, seed, margin)


def _words(options: Options | None, choices: bool = False) -> list[str]:
    if options is None:
        return []
    if isinstance(options, str):
        raise ConfigError(f"{options!r}: give a mapping, or a list of overrides: [{options!r}].")
    if isinstance(options, Mapping):
        return [override_of(str(key), value, choices) for key, value in options.items()]
    return [str(text) for text in options]


@contextmanager
def _called_from_python() -> Iterator[None]:
    """Errors are raised, an interrupt is one, and the process is left as it was found."""
    try:
        with guest(), errors_raised():
            logging.getLogger("sizewise").setLevel(logging.INFO)  # for the log of the job
            yield
    except SystemExit as error:
        if error.code == 130:
            raise KeyboardInterrupt from None
        raise SweepError(f"The work ended its process with exit code {error.code}.") from error
