"""W&B runs that stand for a sweep: one for all of it, and one per configuration over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from sizewise.files import hash_text, key_text, write_atomically
from sizewise.record.outcome import Outcome
from sizewise.tracking.summary import RunContext
from sizewise.tracking.wandb_artifacts import adapter_artifact
from sizewise.tracking.wandb_backend import WandbBackend
from sizewise.tracking.wandb_run import choose_mode, import_wandb, open_run, say_once

MARKER = "wandb-summary.sha256"
WINNER = "winner"
TARGET = "sizewise.tracking.wandb_backend.WandbBackend"


@dataclass(frozen=True)
class ConfigurationRun:
    """One configuration with all its seeds, an untouched base too, as a run of its own.

    Attributes:
        name: its label in the report.
        key: what it is, hashed into the run's id.
        tags: a few words.
        config: flat.
        values: the run's summary: means over seeds with their intervals, sizes, costs.
    """

    name: str
    key: str
    tags: Sequence[str]
    config: Mapping[str, Any]
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Winner:
    """A run whose adapter was chosen by validation, and the aliases that say so."""

    run_dir: Path
    outcome: Outcome
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class SweepSummary:
    """What the summary run shows.

    Attributes:
        columns, rows: the table of all outcomes, plain values.
        values: the run's summary (verdict, number of runs, best score, …).
        images: pictures by name.
        figures: plotly figures by name (parallel coordinates, size against quality).
        configurations: what gets a run of its own.
        winners: adapters that get an alias.
        tables: further tables by name, each its columns and rows.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    values: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Path] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    configurations: Sequence[ConfigurationRun] = ()
    winners: Sequence[Winner] = ()
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]] = field(
        default_factory=dict
    )

    @property
    def fingerprint(self) -> str:
        """Hash of all but pictures: the same outcomes need no second summary."""
        shown = [asdict(configuration) for configuration in self.configurations]
        won = [(winner.run_dir.name, winner.aliases) for winner in self.winners]
        told = [self.columns, self.rows, self.values, shown, won, *sorted(self.tables.items())]
        text = key_text(told)
        return hash_text(text)


def wandb_options(outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    """Return the options of W&B that runs recorded, as far as they are known here; None without."""
    known = {option.name for option in fields(WandbBackend)}
    for outcome in outcomes:
        logger = outcome.config.get("logger") or {}
        for node in (logger.get("backends") or {}).values():
            if isinstance(node, Mapping) and node.get("_target_") == TARGET:
                return {key: value for key, value in node.items() if key in known}
    return None


def summary_id(group: str) -> str:
    """Stable id of a sweep's summary run: the same sweep, the same run."""
    return "summary-" + hash_text(group, 16)


def write_summary_run(
    sweep_dir: Path, group: str, options: Mapping[str, Any], summary: SweepSummary
) -> bool:
    """Write the summary run of a sweep, replacing an older one; return whether it was written.

    Nothing is done where the same summary is there already: a finished sweep that is started
    again adds no run.
    """
    marker = sweep_dir / "wandb" / MARKER
    if marker.is_file() and marker.read_text(encoding="utf-8").strip() == summary.fingerprint:
        return False
    backend = WandbBackend(**options)
    mode = choose_mode(backend.mode)
    told = {"sweep": group, "runs": len(summary.rows)}
    context = RunContext(sweep_dir, summary_id(group), group, "summary", ("summary",), told)
    run = open_run(context, mode, backend.project, backend.entity, stats=False)
    try:
        _log(run, summary)
        _crown(run, group, summary.winners, backend)
    finally:
        run.finish()
    for configuration in summary.configurations:
        _log_configuration(sweep_dir, group, configuration, backend, mode)
    marker.parent.mkdir(exist_ok=True)
    write_atomically(marker, summary.fingerprint + "\n")
    return True


def _log_configuration(
    sweep_dir: Path, group: str, found: ConfigurationRun, backend: WandbBackend, mode: str
) -> None:
    digest = hash_text(f"{group}/{found.key}", 16)
    tags, told = tuple(found.tags), dict(found.config)
    context = RunContext(sweep_dir, digest, group, "configuration", tags, told, name=found.name)
    run = open_run(context, mode, backend.project, backend.entity, stats=False)
    run.summary.update(dict(found.values))
    run.finish()


def _crown(run: Any, group: str, winners: Sequence[Winner], backend: WandbBackend) -> None:
    """Give the chosen adapters their aliases: the same content is the version that is there."""
    for winner in winners:
        upload = backend.upload_adapters
        artifact = adapter_artifact(winner.outcome, winner.run_dir, group, upload)
        if artifact is None:
            continue
        run.log_artifact(artifact, aliases=list(winner.aliases))
        if backend.registry and WINNER in winner.aliases:
            if run.offline:
                say_once("W&B: the registry is linked to by runs that are online only.")
            else:
                run.link_artifact(artifact, backend.registry)


def _log(run: Any, summary: SweepSummary) -> None:
    wandb = import_wandb()
    values: dict[str, Any] = {}
    tables = {"runs": (summary.columns, summary.rows), **summary.tables}
    for name, (columns, rows) in tables.items():
        cells = [[_cell(value) for value in row] for row in rows]
        values[name] = wandb.Table(columns=list(columns), data=cells)
    values |= {name: wandb.Image(str(path)) for name, path in summary.images.items()}
    values |= {name: wandb.Plotly(figure) for name, figure in summary.figures.items()}
    run.log(values)
    run.summary.update(dict(summary.values))


def _cell(value: Any) -> str | float | None:
    if value is None or value != value:
        return None
    return value if isinstance(value, (str, int, float)) else str(value)
