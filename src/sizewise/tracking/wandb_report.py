"""A sweep as a W&B Report: the verdict in words, and W&B's own panels over the sweep's runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sizewise.errors import ConfigError
from sizewise.files import write_atomically
from sizewise.tracking.wandb_run import import_wandb

REPORT_FILE = "wandb_report.json"
SCORE, SIZE = "quality/score", "size/params"
MOST_COLUMNS = 10
TITLE_LENGTH = 128
INSTALL = "Install it with `pip install 'sizewise[wandb-report]'`."


@dataclass(frozen=True)
class ReportText:
    """What a report says.

    Attributes:
        group: the sweep, as its runs name it.
        headline, sentence: the verdict.
        objections: what limits it.
        configs: the flat configuration of every configuration that was run.
        metric, direction: the score, and whether ``max`` or ``min`` is better.
    """

    group: str
    headline: str
    sentence: str
    objections: Sequence[str] = ()
    configs: Sequence[Mapping[str, Any]] = field(default_factory=list)
    metric: str = ""
    direction: str = "max"


def available() -> bool:
    return find_spec("wandb_workspaces") is not None


def build_report(text: ReportText, project: str, entity: str = "") -> Any:
    """Return the ``wandb_workspaces`` Report; nothing is asked of a server without an entity.

    Raises:
        ConfigError: the package is not installed.
    """
    if not available():
        raise ConfigError(f"A W&B Report needs the package wandb-workspaces. {INSTALL}")
    import_wandb()
    import wandb_workspaces.reports.v2 as wr

    return wr.Report(
        project=project,
        entity=entity,
        title=f"{text.group}: {text.headline}"[:TITLE_LENGTH],
        width="fluid",
        blocks=[
            wr.H1(text=text.headline),
            wr.P(text=text.sentence),
            *([wr.UnorderedList(items=list(text.objections))] if text.objections else []),
            wr.H2(text="Size against quality, one run per configuration"),
            wr.PanelGrid(
                runsets=[_runset(wr, text, project, entity, "configuration")],
                panels=_panels(wr, text),
            ),
            wr.H2(text="Training: base × rank, seeds collapsed"),
            wr.PanelGrid(
                runsets=[_runset(wr, text, project, entity, "train")],
                panels=[
                    wr.LinePlot(title=name, x="trainer/global_step", y=[name], layout=place)
                    for name, place in (
                        ("val_loss", wr.Layout(0, 0, 12, 8)),
                        ("train_loss", wr.Layout(12, 0, 12, 8)),
                    )
                ],
            ),
        ],
    )


def _runset(wr: Any, text: ReportText, project: str, entity: str, kind: str) -> Any:
    """Runs of one kind; those of training are grouped, which collapses their seeds."""
    from wandb_workspaces import expr

    # Flat keys are addressed as `lora.r.value`; without `.value` at the end the library takes them
    # for nested ones.
    grouped = ["config.model.name.value", "config.lora.r.value"] if kind == "train" else []
    return wr.Runset(
        entity=entity,
        project=project,
        name={"train": "Jobs by base and rank"}.get(kind, "Configurations"),
        filters=[expr.Metric("Group") == text.group, expr.Metric("JobType") == kind],
        groupby=grouped,
        order=[wr.OrderBy(name=wr.SummaryMetric(SCORE), ascending=text.direction == "min")],
    )


def _panels(wr: Any, text: ReportText) -> list[Any]:
    score = text.metric or SCORE
    return [
        wr.ScatterPlot(
            title=f"{score} against parameters",
            x=wr.SummaryMetric(SIZE),
            y=wr.SummaryMetric(SCORE),
            log_x=True,
            layout=wr.Layout(0, 0, 12, 9),
        ),
        wr.ParameterImportancePlot(with_respect_to=SCORE, layout=wr.Layout(12, 0, 12, 9)),
        wr.ParallelCoordinatesPlot(
            title=f"Settings and {score}",
            columns=[*_columns(wr, text), _column(wr, f"summary:{SCORE}", score)],
            layout=wr.Layout(0, 9, 24, 9),
        ),
        wr.BarPlot(title=score, metrics=[SCORE], layout=wr.Layout(0, 18, 12, 9)),
        wr.RunComparer(diff_only="split", layout=wr.Layout(12, 18, 12, 9)),
    ]


def _columns(wr: Any, text: ReportText) -> list[Any]:
    """An axis per setting in which the configurations differ, numbers and short words only."""
    keys = {key for config in text.configs for key in config}
    wanted = sorted(keys, key=lambda key: (not key.startswith(("model.", "lora.", "optim")), key))
    differing = [key for key in wanted if _differs([c.get(key) for c in text.configs])]
    return [
        _column(wr, f"config:{key}.value", key, log=key.endswith((".lr", "params_base")))
        for key in differing[:MOST_COLUMNS]
    ]


def _differs(values: Sequence[Any]) -> bool:
    plain = [v for v in values if isinstance(v, (int, float)) or (isinstance(v, str) and v)]
    return len({repr(value) for value in plain}) > 1 and all(len(str(v)) <= 40 for v in plain)


def _column(wr: Any, accessor: str, name: str, log: bool = False) -> Any:
    """An axis by its accessor: the library has no name for a flat key that holds dots."""
    from wandb_workspaces.reports.v2 import internal

    class Column(wr.ParallelCoordinatesPlotColumn):
        def _to_model(self) -> Any:
            return internal.Column(
                accessor=accessor, display_name=self.display_name, inverted=None, log=self.log
            )

    return Column(metric=accessor, display_name=name, log=log or None)


def write_report_file(report: Any, folder: Path) -> Path:
    """Write the specification that W&B would be sent; return its path."""
    model = json.loads(report._to_model().model_dump_json(by_alias=True, exclude_none=True))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / REPORT_FILE
    write_atomically(path, json.dumps(model, indent=1, ensure_ascii=False) + "\n")
    return path
