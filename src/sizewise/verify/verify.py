"""Does a stored run hold what it reports? Hashes, data, configuration, and every score anew."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sizewise import words
from sizewise.errors import OutcomeError, SizewiseError
from sizewise.files import SEAL, parse_json, read_json
from sizewise.record.directories import OUTCOME_FILE, RESULTS_FILE, VALIDATION, RunDir, SweepDir
from sizewise.record.outcome import Evaluation, FileRef, Outcome, read_outcome
from sizewise.record.predictions import Prediction, read_predictions
from sizewise.record.state import JobState, job_state
from sizewise.verify import FAILED, OK, UNCHECKED, Check
from sizewise.verify.data import Rebuilt, data_checks, rebuild, same, trained_on
from sizewise.verify.record import (
    config_checks,
    evaluation_check,
    record_checks,
    scored,
    size_checks,
    training_check,
)
from sizewise.verify.scores import check_scores

NEVER = Check(
    "generation",
    UNCHECKED,
    "answers, log-probabilities and what they cost: `sizewise reproduce` makes them again",
)

# So many jobs without a result are named, and the others counted.
MOST_NAMES = 8


@dataclass(frozen=True)
class Verification:
    """All checks of one run, or of the ``comparison`` of many."""

    directory: Path
    checks: tuple[Check, ...]
    comparison: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing failed, and of a run something was checked at all."""
        held = self.comparison or any(c.status == OK for c in self.checks)
        return held and all(c.status != FAILED for c in self.checks)


def verify_run(directory: Path, data: bool = True, trust: bool = False) -> Verification:
    """Check one run directory, whoever it is from: of its record only classes of ours are called.

    Nothing is raised for what does not hold.

    Args:
        data: build every data set again from its source where that is on this machine, and compare
            fingerprints, sizes and the answered examples.
        trust: also call metrics that the record names and that are not sizewise's.
    """
    try:
        outcome = read_outcome(directory)
    except OutcomeError as error:
        return Verification(directory, (Check(OUTCOME_FILE, FAILED, str(error)),))
    absent = Rebuilt(None, "is no data set of the configuration" if data else "not asked for")
    rebuilt = rebuild(outcome) if data else {}
    checks = [
        *_files(outcome, directory),
        *config_checks(outcome, directory, trust),
        *record_checks(outcome),
        *size_checks(outcome, directory),
        training_check(outcome, directory),
        evaluation_check(outcome, directory),
        *data_checks(outcome, rebuilt, absent),
        *_scores(outcome, directory, rebuilt, absent, trust),
        NEVER,
    ]
    if all(check.status != FAILED for check in checks):
        checks.append(_whole(directory))
    return Verification(directory, tuple(checks))


def _whole(directory: Path) -> Check:
    """Where nothing else contradicts the record: is it, to the last digit, what the run wrote?"""
    title = "record's own hash"
    try:
        read_outcome(directory, intact=True)
    except OutcomeError as error:
        return Check(title, FAILED, str(error))
    if SEAL not in (read_json(RunDir(directory).outcome) or {}):
        detail = "there is none: earlier code wrote none, and whoever edits a record can remove it"
        return Check(title, UNCHECKED, detail)
    return Check(title, OK)


def _scores(
    outcome: Outcome,
    directory: Path,
    rebuilt: dict[str, Rebuilt],
    absent: Rebuilt,
    trust: bool,
) -> Iterator[Check]:
    train = trained_on(outcome, directory, rebuilt.get(outcome.data.name, absent).splits)
    for kind, evaluations in scored(outcome):
        for name, evaluation in evaluations.items():
            path = directory / evaluation.predictions.path
            there = rebuilt.get(name, absent)
            config, base = outcome.config, _base(outcome, directory, kind, name)
            for check in check_scores(path, evaluation, config, train, there, base, trust):
                yield replace(check, name=f"{kind} on {name}: {check.name}")
    yield from _validated(outcome, directory, rebuilt.get(outcome.data.name, absent), trust)


def _validated(outcome: Outcome, directory: Path, there: Rebuilt, trust: bool) -> Iterator[Check]:
    """Score the answers to the validation split anew: what was chosen was chosen by them."""
    name, train = outcome.data.name, trained_on(outcome, directory, there.splits)
    for side, scores in outcome.validated.items():
        title, file = f"{side} on {name}, {VALIDATION}", outcome.files.get(f"{side}_{VALIDATION}")
        if file is None:
            yield Check(title, FAILED, "scores are reported and no answers are recorded")
            continue
        prints, sizes = outcome.data.fingerprints, outcome.data.sizes
        print_, size = prints.get(VALIDATION, ""), sizes.get(VALIDATION, 0)
        entry = Evaluation(name, VALIDATION, print_, size, scores, file)
        known = {score.partition("/")[0] for score in scores}
        chosen = outcome.config.get("metric") or {}
        nodes = {key: node for key, node in chosen.items() if key in known}
        path, config = directory / file.path, {**outcome.config, "metric": nodes}
        for check in check_scores(path, entry, config, train, there, trust=trust):
            yield replace(check, name=f"{title}: {check.name}")


def _base(outcome: Outcome, directory: Path, kind: str, name: str) -> list[Prediction]:
    """The answers of the base that a tuned model's were scored beside; none if unreadable."""
    found = outcome.base.get(name) if kind == "tuned" else None
    try:
        return read_predictions(directory / found.predictions.path) if found else []
    except (OSError, ValueError, TypeError, SizewiseError):
        return []  # said where the base's own scores are checked


def _files(outcome: Outcome, directory: Path) -> Iterator[Check]:
    refs: dict[str, FileRef] = dict(outcome.files)
    for kind, evaluations in scored(outcome):
        refs |= {f"{kind} predictions/{n}": e.predictions for n, e in evaluations.items()}
    for name, ref in refs.items():
        yield _file(name, ref, directory)


def _file(name: str, ref: FileRef, directory: Path) -> Check:
    path = directory / ref.path
    title = f"file {name} ({ref.path})"
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return Check(title, FAILED, "is missing")
    except OSError as error:
        return Check(title, FAILED, f"cannot be read: {error.strerror or error}")
    if digest != ref.sha256:
        return Check(title, FAILED, "was changed: its SHA-256 is not the recorded one")
    return Check(title, OK)


def verify_sweep(directory: Path, data: bool = True, trust: bool = False) -> list[Verification]:
    """Check every finished run at or below ``directory`` (OutcomeError: none) and its results.

    Jobs that a sweep planned in ``directory``, and that have no result there, are said.
    """
    from sizewise.report.comparison.runs import find_run_dirs

    runs = find_run_dirs([directory])
    if not runs:
        raise OutcomeError(f"{directory} holds no finished run: there is nothing to verify.")
    found = [verify_run(run, data, trust) for run in runs]
    sweep, without = SweepDir(directory), without_result(directory)
    checks = [_planned_check(sweep, without)] if without else []
    if sweep.results.is_file():
        checks.append(results_check(directory, sweep.results))
    if checks:
        found.append(Verification(directory, tuple(checks), comparison=True))
    return found


def without_result(directory: Path) -> dict[str, str]:
    """The jobs that a sweep planned and that have no result in it, by what is there instead.

    Not those that a rung stopped. Whoever the record is from, nothing outside is looked at.
    """
    planned = (read_json(SweepDir(directory).plan) or {}).get("jobs")
    here = {path.name: path for path in directory.iterdir()}
    found: dict[str, str] = {}
    for name in map(str, planned) if isinstance(planned, list) else ():
        if name not in here:
            found[name] = "no directory"
        elif not RunDir(here[name]).outcome.is_file():
            found[name] = str(job_state(here[name]))
    return {name: state for name, state in found.items() if state != JobState.PRUNED}


def _planned_check(sweep: SweepDir, without: Mapping[str, str]) -> Check:
    said = [f"{name} ({state})" for name, state in without.items()]
    number = words.plural(len(said), "planned job")
    detail = f"{number} without a result here: {words.first_of(said, MOST_NAMES)}"
    return Check(sweep.plan.name, UNCHECKED, detail)


def results_check(directory: Path, stored: Path) -> Check:
    """Make the comparison again; every figure in it is a function of the predictions."""
    from sizewise.report.page.results import RESULTS_VERSION

    try:
        before = read_results(stored)
    except OutcomeError as error:
        return Check(RESULTS_FILE, FAILED, str(error))
    if before.get("version") != RESULTS_VERSION:
        return Check(RESULTS_FILE, UNCHECKED, "another version of sizewise wrote it")
    try:
        return _compared(before, directory)
    except SizewiseError as error:
        return Check(RESULTS_FILE, FAILED, f"the comparison cannot be made again: {error}")
    except (AttributeError, KeyError, TypeError) as error:
        return Check(RESULTS_FILE, FAILED, f"is no record of a comparison: {error!r}")


def read_results(path: Path) -> dict[str, Any]:
    """Read a record of a comparison; raises OutcomeError where there is none."""
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutcomeError(f"cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise OutcomeError("is no record of a comparison")
    return record


def _compared(before: Mapping[str, Any], directory: Path) -> Check:
    from sizewise.config import PricesConfig
    from sizewise.report.comparison.compare import compare_loaded
    from sizewise.report.comparison.runs import load_runs
    from sizewise.report.page.results import results_record

    # A directory may hold more runs than were compared, e.g. of a sweep that was since narrowed.
    wanted = set(before.get("run_ids") or [])
    loaded = load_runs([directory])
    runs = tuple(r for r in loaded.runs if not wanted or r.outcome.run_id in wanted)
    absent = sorted(wanted - {run.outcome.run_id for run in runs})
    gone = sorted(without_result(directory).keys() & set(absent))
    if gone:
        detail = f"compares runs of this sweep that have no result here: {', '.join(gone)}"
        return Check(RESULTS_FILE, FAILED, detail)
    if absent:
        return Check(
            RESULTS_FILE, UNCHECKED, f"not below this directory: the runs {', '.join(absent)}"
        )
    sets = before.get("test_sets") or [{}]
    prices = PricesConfig(**(sets[0].get("prices") or {}))
    by = tuple(before.get("by") or ())
    margin = sets[0].get("margin")
    again = compare_loaded(replace(loaded, runs=runs), by, prices, margin=margin)
    after = results_record(again)
    changed = [k for k in ("runs", "run_ids", "test_sets") if not same(before.get(k), after.get(k))]
    if not changed:
        return Check(RESULTS_FILE, OK)
    return Check(RESULTS_FILE, FAILED, f"differs from a new comparison in {', '.join(changed)}")
