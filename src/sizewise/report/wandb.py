"""A comparison as W&B gets it: the summary run, a run per configuration, winners, a Report."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sizewise.errors import ConfigError, OutcomeError
from sizewise.record.identity import flatten
from sizewise.report.comparison.arms import Arm, Member, TestSet
from sizewise.report.comparison.compare import Comparison, SetComparison, compare
from sizewise.report.comparison.selection import chosen_by_validation
from sizewise.report.page.page import charts_of
from sizewise.report.page.results import clean
from sizewise.report.page.tables import stopped_table, tuning_note
from sizewise.report.views.charts import parallel_chart
from sizewise.tracking.summary_run import (
    WINNER,
    ConfigurationRun,
    SweepSummary,
    Winner,
    wandb_options,
    write_summary_run,
)
from sizewise.tracking.wandb_artifacts import alias
from sizewise.tracking.wandb_backend import WandbBackend
from sizewise.tracking.wandb_report import ReportText, available, build_report, write_report_file
from sizewise.tracking.wandb_run import choose_mode, import_wandb

log = logging.getLogger(__name__)


def record_in_wandb(sweep_dir: Path, comparison: Comparison, paths: dict[str, Path]) -> None:
    """Write a sweep's own runs where its runs used W&B; a failure there is only reported."""
    options = wandb_options([run.outcome for run in comparison.runs])
    if options is None or not comparison.sets:
        return
    group = sweep_name(comparison) or sweep_dir.name
    try:
        write_summary_run(sweep_dir, group, options, sweep_summary(comparison, paths))
        if available():
            text = report_text(comparison, group)
            write_report_file(build_report(text, WandbBackend(**options).project), sweep_dir)
    except Exception:
        log.warning("The summary run could not be written to W&B.", exc_info=True)


def save_wandb_report(sweep_dir: Path, folder: Path) -> tuple[Path, str | None]:
    """Build the W&B Report of a sweep, keep it in ``folder`` and save it where logged in.

    Returns:
        The file, and the address of the saved Report; None where nobody is logged in.

    Raises:
        ConfigError: wandb-workspaces is not installed.
        OutcomeError: there is nothing to report on.
    """
    comparison = compare([sweep_dir])
    if not comparison.sets:
        raise OutcomeError(f"{sweep_dir}: no finished and scored run, so there is no report.")
    backend = WandbBackend(**(wandb_options([run.outcome for run in comparison.runs]) or {}))
    text = report_text(comparison, sweep_name(comparison) or sweep_dir.name)
    path = write_report_file(build_report(text, backend.project), folder)
    if choose_mode(backend.mode) != "online":
        return path, None
    entity = backend.entity or import_wandb().Api().default_entity
    try:
        saved = build_report(text, backend.project, entity).save()
    except ValueError as error:  # W&B has no such project
        raise ConfigError(f"{error} Send the runs first (`wandb sync`, docs/report.md).") from error
    return path, str(saved.url)


def sweep_name(comparison: Comparison) -> str | None:
    """The name that the runs' configurations give their sweep, if they give one."""
    names = {(r.outcome.config.get("sweep") or {}).get("name") for r in comparison.runs}
    return names.pop() if len(names) == 1 else None


def sweep_summary(comparison: Comparison, paths: Mapping[str, Path]) -> SweepSummary:
    frame = comparison.table
    main = comparison.sets[0]
    values: dict[str, Any] = {
        "verdict": f"{comparison.verdict.headline}. {comparison.verdict.sentence}",
        "verdict_status": comparison.verdict.status,
        "runs_finished": len(comparison.runs),
    }
    for front in main.fronts:
        values[f"pareto/{front.cost}"] = ", ".join(front.labels)
        values[f"hypervolume/{front.cost}"] = front.share
    if comparison.tuning:
        values["tuning"] = tuning_note(comparison.tuning)
    images = {"size_vs_quality": paths["picture"]} if paths["picture"].is_file() else {}
    rows: list[list[Any]] = clean(frame.astype(object).to_numpy().tolist())
    figures = {f"report/{name}": figure for name, figure in charts_of(main).items()}
    figures["parallel_coordinates"] = parallel_chart(main.table, main.test.primary)
    return SweepSummary(
        list(frame.columns),
        rows,
        values,
        images,
        figures,
        [run for compared in comparison.sets for run in configuration_runs(compared)],
        winners(main),
        _stopped(comparison),
    )


def _stopped(comparison: Comparison) -> dict[str, tuple[Sequence[str], list[list[Any]]]]:
    """What went no further than a rung, as the report shows it."""
    table = stopped_table(comparison.tuning)
    rows = [[cell.text for cell in row] for row in table.rows]
    return {"stopped": (table.columns, rows)} if rows else {}


def configuration_runs(compared: SetComparison) -> list[ConfigurationRun]:
    """One run per configuration of a test set, untouched bases included, seeds put together.

    The gain is tuned − zero-shot, as of single runs, with the interval over seeds and examples.
    """
    test, found = compared.test, []
    points = {point.position: point for point in compared.points}
    for position, arm in enumerate(test.arms):
        point = points.get(position)
        values: dict[str, Any] = {
            **_sizes(arm),
            "quality/metric": test.primary,
            "quality/score": arm.score(test.primary),
            "quality/score_low": point and point.low,
            "quality/score_high": point and point.high,
            **_gain(compared, position),
            "val_loss": arm.validation,
            "seeds": len(arm.seeds) or None,
        }
        for seed, score in zip(arm.seeds, arm.seed_scores(test.primary), strict=False):
            values[f"seed/{seed}"] = score
        key = json.dumps([test.dataset, test.fingerprint, arm.kind, arm.config], default=str)
        model = arm.model
        config = {
            **flatten(arm.config),
            "arm": arm.kind,
            "label": arm.label,
            "seeds": list(arm.seeds),
            "model.params_base": model.params_base,
            "model.params_total": int(arm.params) if math.isfinite(arm.params) else None,
            "model.params_trainable": model.params_trainable if arm.fitted else 0,
        }
        found.append(ConfigurationRun(arm.label, key, _tags(arm), config, _known(values)))
    return found


def _sizes(arm: Arm) -> dict[str, Any]:
    model = arm.model
    return {
        "size/params": int(arm.params) if math.isfinite(arm.params) else None,
        "size/params_trainable": model.params_trainable if arm.fitted else 0,
        "size/memory_bytes": model.memory_bytes or None,
        "cost/train_seconds": arm.train_seconds,
        "cost/latency_seconds": arm.latency,
        "cost/energy_joules": arm.energy_joules,
    }


def _gain(compared: SetComparison, position: int) -> dict[str, Any]:
    pair = compared.gains.get(position)
    if pair is None:
        return {}
    ends = sorted(compared.test.sign * end for end in (pair.low, pair.high))
    return {
        "quality/zero_shot": pair.b.score(compared.test.primary),
        "quality/tuned": pair.a.score(compared.test.primary),
        "quality/gain": pair.result.difference,
        "quality/gain_low": ends[0],
        "quality/gain_high": ends[1],
    }


def _tags(arm: Arm) -> list[str]:
    model, rank = arm.model, arm.model.lora_r
    method = [model.lora_method, f"r={rank}" if rank is not None else "none"]
    words = [model.name, arm.kind, *(method if arm.tuned else []), model.quantization]
    return list(dict.fromkeys(word for word in words if word != "none"))


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in values.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }


def winners(compared: SetComparison) -> list[Winner]:
    """The adapters that validation chose: ``best-MODEL`` of every base, ``winner`` of the verdict.

    Where the verdict is about no tuned model, the only base's best is the winner; several bases
    have none, since their losses do not compare.
    """
    test, chosen = compared.test, []
    tuned = [arm for arm in test.arms if arm.tuned]
    models = list(dict.fromkeys(arm.model.name for arm in tuned))
    firsts = [
        chosen_by_validation(test, [a for a in tuned if a.model.name == name]) for name in models
    ]
    pair = compared.verdict.pair
    crowned = pair.a if pair is not None and pair.a.tuned else None
    if crowned is None and len(firsts) == 1:
        crowned = firsts[0]
    for arm in tuned:
        names = [f"best-{alias(arm.model.name)}"] if any(arm is f for f in firsts) else []
        names += [WINNER] if arm is crowned else []
        if names:
            run = _best_seed(test, arm).run
            chosen.append(Winner(run.directory, run.outcome, tuple(names)))
    return chosen


def _best_seed(test: TestSet, arm: Arm) -> Member:
    """The seed with the best validation score where all have one, else the lowest loss."""

    def scores(member: Member) -> float | None:
        return member.run.outcome.validated.get("tuned", {}).get(test.primary)

    if all(scores(member) is not None for member in arm.members):
        return max(arm.members, key=lambda m: test.sign * (scores(m) or 0.0))
    return min(arm.members, key=lambda m: m.run.outcome.validation.get("val_loss", math.inf))


def report_text(comparison: Comparison, group: str) -> ReportText:
    main, verdict = comparison.sets[0], comparison.verdict
    return ReportText(
        group=group,
        headline=verdict.headline,
        sentence=verdict.sentence,
        objections=main.warnings,
        configs=_configs(configuration_runs(main)),
        metric=main.test.primary,
        direction=main.test.direction,
    )


def _configs(runs: Sequence[ConfigurationRun]) -> list[dict[str, Any]]:
    """Configurations as far as a chart can show them: no hashes, no names of what was run."""
    left_out = ("data.", "label", "seeds")
    return [{k: v for k, v in run.config.items() if not k.startswith(left_out)} for run in runs]
