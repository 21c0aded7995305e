"""Is the data of a stored run still what its source gives? Every data set is built again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sizewise.errors import SizewiseError
from sizewise.outcome import Evaluation, Outcome
from sizewise.report.verify_checks import FAILED, OK, UNCHECKED, Check

if TYPE_CHECKING:
    from sizewise.config import DatasetConfig, RunConfig
    from sizewise.data.example import DataSplits

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Rebuilt:
    """A data set that was built anew; ``splits`` is None with the reason where it was not."""

    splits: DataSplits | None
    reason: str = ""


def rebuild(outcome: Outcome) -> dict[str, Rebuilt]:
    """Build every data set of a run anew, by name; one without a source here says why not."""
    from sizewise.config.register import to_run_config

    try:
        cfg = to_run_config(_without_hashes(outcome.config))
    except SizewiseError as error:
        return {outcome.data.name: Rebuilt(None, f"the data could not be built: {error}")}
    found = {outcome.data.name: _built(cfg, cfg.dataset)}
    for dataset in cfg.eval_dataset.values():
        found[dataset.name] = _built(cfg, dataset)
    return found


def _without_hashes(config: Any) -> Any:
    """Leave out the hashes of files: a changed file is to be read, and its examples compared."""
    if not isinstance(config, Mapping):
        return config
    return {key: _without_hashes(value) for key, value in config.items() if key != "sha256"}


def _built(cfg: RunConfig, dataset: DatasetConfig) -> Rebuilt:
    from sizewise.data.build import build_splits

    if dataset.source.kind == "hub":
        return Rebuilt(None, "the source is on the hub and nothing is downloaded here")
    try:
        if not cfg.dry_run:
            return Rebuilt(build_splits(dataset))
        from sizewise.job.dry_run import few

        return Rebuilt(build_splits(few(dataset), stand_in=True))
    except (SizewiseError, OSError) as error:
        return Rebuilt(None, f"the data could not be built: {error}")


def data_checks(outcome: Outcome, rebuilt: dict[str, Rebuilt], reason: str) -> Iterator[Check]:
    """Compare every recorded fingerprint with that of the data of today.

    Args:
        outcome: the run.
        rebuilt: its data sets by name.
        reason: why one is not among them.
    """
    absent = Rebuilt(None, reason)
    own = outcome.data.name
    for name, recorded in outcome.data.fingerprints.items():
        yield _check(own, name, recorded, rebuilt.get(own, absent))
    for name, evaluation in _further(outcome).items():
        there = rebuilt.get(name, absent)
        yield _check(name, evaluation.split, evaluation.fingerprint, there)


def _further(outcome: Outcome) -> dict[str, Evaluation]:
    """What was answered beside the test split of the run's own data set, by data set."""
    found = {**outcome.base, **(outcome.tuned or {})}
    return {name: entry for name, entry in found.items() if name != outcome.data.name}


def _check(dataset: str, split: str, recorded: str, there: Rebuilt) -> Check:
    title = f"data {dataset}/{split}"
    if there.splits is None or split not in SPLITS:
        return Check(title, UNCHECKED, there.reason or "is no split of the data set")
    found = there.splits.question_fingerprint(split)  # type: ignore[arg-type]
    if found == recorded:
        return Check(title, OK)
    return Check(title, FAILED, f"the source gives {found} today, recorded was {recorded}")
