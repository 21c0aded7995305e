"""Is the stored comparison of runs the one that their predictions give?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sizewise.errors import OutcomeError, SizewiseError
from sizewise.record.directories import RESULTS_FILE
from sizewise.verify import FAILED, OK, UNCHECKED, Check

TITLE = RESULTS_FILE


def results_check(directory: Path, stored: Path) -> Check:
    """Make the comparison again; every figure in it is a function of the predictions."""
    from sizewise.report.page.results import RESULTS_VERSION

    try:
        before = read_results(stored)
    except OutcomeError as error:
        return Check(TITLE, FAILED, str(error))
    if before.get("version") != RESULTS_VERSION:
        return Check(TITLE, UNCHECKED, "another version of sizewise wrote it")
    try:
        return _compared(before, directory)
    except SizewiseError as error:
        return Check(TITLE, FAILED, f"the comparison cannot be made again: {error}")
    except (AttributeError, KeyError, TypeError) as error:
        return Check(TITLE, FAILED, f"is no record of a comparison: {error!r}")


def read_results(path: Path) -> dict[str, Any]:
    """Read a record of a comparison; raises OutcomeError where there is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutcomeError(f"cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise OutcomeError("is no record of a comparison")
    return record


def _compared(before: Mapping[str, Any], directory: Path) -> Check:
    from sizewise.config import PricesConfig
    from sizewise.report.comparison.compare import compare_loaded
    from sizewise.report.comparison.runs import Loaded, load_runs
    from sizewise.report.page.results import results_record

    # A directory may hold more runs than were compared, e.g. of a sweep that was since narrowed.
    wanted = set(before.get("run_ids") or [])
    loaded = load_runs([directory])
    runs = tuple(r for r in loaded.runs if not wanted or r.outcome.run_id in wanted)
    absent = sorted(wanted - {run.outcome.run_id for run in runs})
    if absent:
        return Check(TITLE, UNCHECKED, f"not below this directory: the runs {', '.join(absent)}")
    sets = before.get("test_sets") or [{}]
    prices = PricesConfig(**(sets[0].get("prices") or {}))
    by = tuple(before.get("by") or ())
    after = results_record(compare_loaded(Loaded(runs, loaded.problems), by, prices))
    changed = [k for k in ("runs", "run_ids", "test_sets") if not same(before.get(k), after.get(k))]
    if not changed:
        return Check(TITLE, OK)
    return Check(TITLE, FAILED, f"differs from a new comparison in {', '.join(changed)}")


def same(before: Any, after: Any, tolerance: float = 1e-9) -> bool:
    """Equal values, numbers within ``tolerance`` (relative)."""
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(same(v, after[k]) for k, v in before.items())
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(same, before, after))
    if isinstance(before, (int, float)) and isinstance(after, (int, float)):
        return abs(before - after) <= tolerance * max(1.0, abs(before), abs(after))
    return bool(before == after)
