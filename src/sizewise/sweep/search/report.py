"""What a search found: its best trial or its Pareto front, on the terminal and on disk."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from sizewise.config import PricesConfig
from sizewise.errors import SweepError
from sizewise.files import write_json
from sizewise.sweep.finish import ReportError, finish
from sizewise.sweep.plan import Plan, print_table

log = logging.getLogger(__name__)

SEARCH_FILE = "search.json"


def report_search(
    study: Any,
    names: list[str],
    sweep_dir: Path,
    plan: Plan,
    function: str | None,
    prices: PricesConfig,
) -> None:
    """Write and show the trials and the front, then the summary of a sweep.

    Raises:
        SweepError: no trial gave a figure, or the summary could not be made.
    """
    trials = [trial for trial in study.trials if "overrides" in trial.user_attrs]
    front = study.best_trials if len(names) > 1 else _best(study)
    write_json(
        sweep_dir / SEARCH_FILE,
        {
            "objectives": dict(zip(names, (str(d.name) for d in study.directions), strict=True)),
            "trials": [_record(trial, names) for trial in trials],
            "front": [trial.number for trial in front],
        },
    )
    broken: ReportError | None = None
    try:
        failures = finish(plan, function, prices)
    except ReportError as error:  # said last: the best trial is known without the summary
        failures, broken = error.failures, error
    for failure in failures:
        log.warning("%s: %s\n    log: %s", failure.run_dir, failure.reason, failure.log)
    counts = Counter(trial.state.name.lower() for trial in trials)
    log.info("%d trials: %s", len(trials), ", ".join(f"{n} {s}" for s, n in counts.items()))
    if not front and broken is None:
        raise SweepError(f"No trial gave a figure to compare; see the logs in {sweep_dir}.")
    title = "Pareto front" if len(names) > 1 else "Best trial"
    rows = [
        (
            str(t.number),
            *(f"{value:.5g}" for value in t.values),
            " ".join(t.user_attrs["overrides"]),
        )
        for t in sorted(front, key=lambda trial: trial.values)
    ]
    if rows:
        print_table(title, ("trial", *names, "overrides"), rows)
    if broken is not None:
        raise broken


def _best(study: Any) -> list[Any]:
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    return [study.best_trial] if done else []


def _record(trial: Any, names: list[str]) -> dict[str, Any]:
    values = trial.values if trial.state.name == "COMPLETE" else None
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "values": dict(zip(names, values, strict=True)) if values else None,
        "overrides": trial.user_attrs["overrides"],
    }
