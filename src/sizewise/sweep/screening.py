"""Which jobs of a plan are candidates, and whom each of them is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sizewise.config import HalvingConfig, SweepConfig, TuningConfig
from sizewise.errors import ConfigError
from sizewise.files import key_text
from sizewise.job.submit import Job
from sizewise.record.identity import trains
from sizewise.sweep.brackets import CONFIGURATION, Bracket, Cell
from sizewise.sweep.halving import Rung, kept_of

RATE = "optimizer.lr"


def rates_of(config: Mapping[str, Any], given: bool, tuning: TuningConfig) -> list[float | None]:
    """Return the learning rates to try for a job; None is its own.

    ``given``: the command or the arm sets ``optimizer.lr`` itself, which is then left alone.
    """
    if not tuning.on or given or not trains(config):
        return [None]
    own = float(config["optimizer"]["lr"])
    factors = tuning.lr_factors or ()
    return [None if factor == 1 else float(f"{own * factor:.4g}") for factor in factors]


def make_brackets(jobs: Sequence[Job], sweep: SweepConfig) -> list[Bracket]:
    """Gather the trained jobs that are screened; what has nothing to be compared with is not.

    Raises:
        ConfigError: ``sweep.halving.keep_each`` names a key that there is not.
    """
    tuning, halving = sweep.tuning, sweep.halving
    screens = tuning.on and tuning.screen
    if not halving.on:
        cells = _cells(jobs, at_least=2) if screens else []
        return [_tuned(cell, tuning) for cell in cells]
    cells = _cells(jobs, at_least=1)
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(_comparable(cell.candidates[0]), []).append(cell)
    names = _labels([found[0].candidates[0].config for found in groups.values()])
    made = [
        Bracket(name, tuple(found), _rungs(found, halving, tuning if screens else None))
        for name, found in zip(names, groups.values(), strict=True)
    ]
    return [bracket for bracket in made if bracket.rungs]


def _tuned(cell: Cell, tuning: TuningConfig) -> Bracket:
    return Bracket(cell.name, (cell,), (_one_rate_each((cell,), tuning.rung),))


def _one_rate_each(cells: Sequence[Cell], share: float) -> Rung:
    groups = {c.identity.slug: str(n) for n, cell in enumerate(cells) for c in cell.candidates}
    return Rung(share, 0, groups, CONFIGURATION)


def _rungs(
    cells: Sequence[Cell], halving: HalvingConfig, tuning: TuningConfig | None
) -> tuple[Rung, ...]:
    """The rungs of a bracket at which somebody may be stopped, by their shares."""
    jobs = [job for cell in cells for job in cell.candidates]
    groups = {job.identity.slug: _values(job.config, halving.keep_each) for job in jobs}
    shares, each = halving.rungs or [], tuple(halving.keep_each)
    margins: Sequence[float | None] = halving.margin or [None] * len(shares)
    rungs = [
        Rung(share, kept_of(len(jobs), halving.keep**number), groups, each, margin)
        for number, (share, margin) in enumerate(zip(shares, margins, strict=True), start=1)
    ]
    if tuning is not None:
        rungs.append(_one_rate_each(cells, tuning.rung))
    return tuple(r for r in sorted(rungs, key=lambda r: r.share) if r.least < len(jobs))


def _values(config: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The values of configuration keys as one text."""
    return key_text([_value(config, key) for key in keys])


def _value(config: Mapping[str, Any], dotted: str) -> Any:
    node: Any = config
    for key in dotted.split("."):
        if not isinstance(node, Mapping) or key not in node:
            raise ConfigError(
                f"sweep.halving.keep_each names {dotted!r}, which no configuration has. Give keys "
                "such as model, lora.r or optimizer.lr."
            )
        node = node[key]
    return node


def _comparable(job: Job) -> str:
    """What losses have to share to be compared: the validation examples, and the model's tokens.

    A loss per answer token says nothing beside one of another tokenizer, and bits per byte beside
    another base's little: the better base would be left with all the budget.
    """
    return _values(job.config, ("dataset", "model"))


def _labels(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name brackets by base and data set; equal names are numbered."""
    names = [f"{c['model']['name']} on {c['dataset']['name']}" for c in configs]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: number + 1].count(name)})"
        for number, name in enumerate(names)
    ]


def _cells(jobs: Sequence[Job], at_least: int) -> list[Cell]:
    """Gather jobs that differ in learning rate and seed only, where there are enough rates."""
    groups: dict[str, dict[float, list[Job]]] = {}
    for job in jobs:
        if trains(job.config):
            rates = groups.setdefault(_key(job), {})
            rates.setdefault(float(job.config["optimizer"]["lr"]), []).append(job)
    found = [rates for rates in groups.values() if len(rates) >= at_least]
    names = _names([next(iter(rates.values()))[0] for rates in found])
    return [_cell(name, rates) for name, rates in zip(names, found, strict=True)]


def _cell(name: str, rates: Mapping[float, list[Job]]) -> Cell:
    candidates = tuple(jobs[0] for jobs in rates.values())
    further = {jobs[0].identity.hash: tuple(jobs[1:]) for jobs in rates.values()}
    return Cell(name, candidates, further)


def _key(job: Job) -> str:
    config = {key: value for key, value in job.identity.config.items() if key != "seed"}
    config["optimizer"] = {k: v for k, v in config["optimizer"].items() if k != "lr"}
    return key_text(config)


def _names(jobs: Sequence[Job]) -> list[str]:
    """Name configurations by the overrides in which they differ; a single one by its directory."""
    kept = [
        [text for text in job.overrides if not text.startswith((f"{RATE}=", "seed="))]
        for job in jobs
    ]
    shared = set.intersection(*map(set, kept)) if len(kept) > 1 else set()
    said = [" ".join(text for text in texts if text not in shared) for texts in kept]
    plain = [job.identity.slug.rpartition("_s")[0] or job.identity.slug for job in jobs]
    return [name or fallback for name, fallback in zip(said, plain, strict=True)]
