"""What stands on top of the results: from ``results.json`` at once, or from the comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sizewise.files import read_json
from sizewise.record.directories import OUTCOME_FILE, SweepDir

if TYPE_CHECKING:
    from sizewise.report.comparison.compare import SetComparison


@dataclass(frozen=True)
class Answer:
    """The answer on one test set, in the words of the report."""

    dataset: str
    metric: str
    status: str
    headline: str
    lines: tuple[str, ...]
    objections: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.dataset} · {self.metric}" if self.metric else self.dataset


def answer_of(compared: SetComparison) -> Answer:
    from sizewise.report.page.prose import plain_answer

    test, verdict = compared.test, compared.verdict
    return Answer(
        test.dataset,
        test.primary,
        verdict.status,
        verdict.headline,
        tuple(plain_answer(compared)),
        tuple(compared.warnings),
    )


@dataclass(frozen=True)
class Written:
    """What a report left in ``results.json``: its answers, and how it was asked for them."""

    answers: tuple[Answer, ...]
    margin: float | None
    prices: Mapping[str, Any]


def read_written(directory: Path) -> Written | None:
    """Read the results of a report; None without one, or where a run is newer than it is."""
    path = SweepDir(directory).results
    if not path.is_file():
        return None
    written = path.stat().st_mtime_ns
    if any(file.stat().st_mtime_ns > written for file in directory.rglob(OUTCOME_FILE)):
        return None
    sets = (read_json(path) or {}).get("test_sets") or []
    try:
        answers = tuple(_answer(entry) for entry in sets)
    except (KeyError, TypeError):
        return None  # of another version: it is computed anew
    if not answers:
        return None
    return Written(answers, sets[0].get("margin"), sets[0].get("prices") or {})


def _answer(entry: Mapping[str, Any]) -> Answer:
    verdict = entry["verdict"]
    return Answer(
        str(entry["dataset"]),
        str(entry["metric"]),
        str(verdict["status"]),
        str(verdict["headline"]),
        tuple(map(str, entry["answer"])),
        tuple(map(str, entry["warnings"])),
    )
