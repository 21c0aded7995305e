"""Does a stored run hold what it reports? Hashes, data, configuration, and every score anew."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sizewise.errors import OutcomeError
from sizewise.outcome import FileRef, Outcome, read_outcome
from sizewise.report.verify_checks import FAILED, OK, UNCHECKED, Check
from sizewise.report.verify_data import Rebuilt, data_checks, rebuild
from sizewise.report.verify_scores import check_scores

# What cannot be had again from stored predictions, and why.
NEVER = (
    ("training figures", "seconds, peaks, energy and validation losses are those of the training"),
    ("generation", "answers and their log-probabilities: `sizewise reproduce` makes them again"),
)


@dataclass(frozen=True)
class Verification:
    """All checks of one run."""

    directory: Path
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed, and something was checked at all."""
        held = [c for c in self.checks if c.status == OK]
        return bool(held) and all(c.status != FAILED for c in self.checks)


def verify_run(directory: Path, data: bool = True) -> Verification:
    """Check one run directory.

    Args:
        directory: the run.
        data: build every data set again from its source where that is on this machine, and compare
            the fingerprints.

    Returns:
        Every check with its result; nothing is raised for what does not hold.
    """
    try:
        outcome = read_outcome(directory)
    except OutcomeError as error:
        return Verification(directory, (Check("outcome.json", FAILED, str(error)),))
    rebuilt = rebuild(outcome) if data else {}
    reason = "is no data set of the configuration" if data else "not asked for"
    checks = [
        *_files(outcome, directory),
        *_config(outcome, directory),
        *data_checks(outcome, rebuilt, reason),
    ]
    splits = rebuilt.get(outcome.data.name, Rebuilt(None)).splits
    train = splits.train if splits is not None else ()
    for kind, evaluations in (("base", outcome.base), ("tuned", outcome.tuned or {})):
        for evaluation in evaluations.values():
            path = directory / evaluation.predictions.path
            name = f"{kind} on {evaluation.dataset}"
            found = check_scores(path, evaluation, outcome.config, train)
            checks += [replace(check, name=f"{name}: {check.name}") for check in found]
    checks += [Check(name, UNCHECKED, why) for name, why in NEVER]
    return Verification(directory, tuple(checks))


def _files(outcome: Outcome, directory: Path) -> Iterator[Check]:
    refs: dict[str, FileRef] = dict(outcome.files)
    for kind, evaluations in (("base", outcome.base), ("tuned", outcome.tuned or {})):
        refs |= {f"{kind} predictions/{n}": e.predictions for n, e in evaluations.items()}
    for name, ref in refs.items():
        yield _file(name, ref, directory)


def _file(name: str, ref: FileRef, directory: Path) -> Check:
    path = directory / ref.path
    title = f"file {name} ({ref.path})"
    if not path.is_file():
        return Check(title, FAILED, "is missing")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != ref.sha256:
        return Check(title, FAILED, "was changed: its SHA-256 is not the recorded one")
    return Check(title, OK)


def _config(outcome: Outcome, directory: Path) -> Iterator[Check]:
    import yaml

    from sizewise.sweep.identity import differing_keys, run_identity

    path, scored_run = directory / "config.yaml", outcome.config.get("run")
    stored = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else None
    # An evaluation of a finished run is named by what was asked for, and takes the rest over.
    yield _identity(outcome, stored if scored_run and stored else outcome.config)
    if stored is None:
        yield Check("config.yaml", UNCHECKED, "there is none")
    elif scored_run:
        yield Check("config.yaml", UNCHECKED, f"most of the configuration is that of {scored_run}")
    else:
        recorded = run_identity(outcome.config).config
        changed = differing_keys(run_identity(stored).config, recorded)
        yield Check("config.yaml", FAILED if changed else OK, "; ".join(changed))


def _identity(outcome: Outcome, config: Mapping[str, Any]) -> Check:
    from sizewise.sweep.identity import run_identity

    found = run_identity(config).hash
    if found == outcome.identity:
        return Check("identity", OK)
    # These go into the identity by their content.
    given = [str(config[key]) for key in ("run", "adapter") if config.get(key)]
    absent = [place for place in given if not Path(place).exists()]
    if absent:
        return Check("identity", UNCHECKED, f"{', '.join(absent)} is not on this machine")
    detail = (
        f"the recorded configuration hashes to {found} and not to {outcome.identity}: "
        "it was changed, or written by another version"
    )
    return Check("identity", FAILED, detail)


def verify_sweep(directory: Path, data: bool = True) -> list[Verification]:
    """Check every finished run at or below ``directory``, and the sweep's ``results.json``.

    Raises:
        OutcomeError: there is no finished run, so that nothing could be checked.
    """
    from sizewise.report.load import find_run_dirs

    runs = find_run_dirs([directory])
    if not runs:
        raise OutcomeError(f"{directory} holds no finished run: there is nothing to verify.")
    found = [verify_run(run, data) for run in runs]
    results = directory / "results.json"
    if results.is_file():
        found.append(Verification(directory, (_results(directory, results),)))
    return found


def _results(directory: Path, stored: Path) -> Check:
    """Make the comparison again; every figure in it is a function of the predictions."""
    import json

    from sizewise.config import PricesConfig
    from sizewise.report.comparison import compare_loaded
    from sizewise.report.load import Loaded, load_runs
    from sizewise.report.results import RESULTS_VERSION, results_record

    before: dict[str, Any] = json.loads(stored.read_text(encoding="utf-8"))
    if before.get("version") != RESULTS_VERSION:
        return Check("results.json", UNCHECKED, "another version of sizewise wrote it")
    # A directory may hold more runs than were compared, e.g. of a sweep that was since narrowed.
    wanted = set(before.get("run_ids") or [])
    loaded = load_runs([directory])
    runs = tuple(r for r in loaded.runs if not wanted or r.outcome.run_id in wanted)
    sets = before.get("test_sets") or [{}]
    prices = PricesConfig(**(sets[0].get("prices") or {}))
    after = results_record(compare_loaded(Loaded(runs, loaded.problems), prices=prices))
    changed = [k for k in ("runs", "run_ids", "test_sets") if not same(before.get(k), after.get(k))]
    if not changed:
        return Check("results.json", OK)
    return Check("results.json", FAILED, f"differs from a new comparison in {', '.join(changed)}")


def same(before: Any, after: Any, tolerance: float = 1e-9) -> bool:
    """Equal values, numbers within ``tolerance`` (relative)."""
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(same(v, after[k]) for k, v in before.items())
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(same, before, after))
    if isinstance(before, (int, float)) and isinstance(after, (int, float)):
        return abs(before - after) <= tolerance * max(1.0, abs(before), abs(after))
    return bool(before == after)
