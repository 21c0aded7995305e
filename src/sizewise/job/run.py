"""One job: data, base, zero-shot scores, training, tuned scores, and the record of it all."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict
from pathlib import Path

from sizewise.config import RunConfig
from sizewise.files import read_json
from sizewise.job.preflight import check_names, check_primary, names_hub, write_config
from sizewise.record.directories import RunDir
from sizewise.record.identity import Identity, run_identity, trains
from sizewise.record.logs import job_log
from sizewise.record.outcome import Outcome, write_outcome
from sizewise.record.state import finished
from sizewise.runtime import (
    is_ddp_child,
    prepare_environment,
    quiet,
    resolve_device,
    seed_everything,
    use_threads,
)

log = logging.getLogger(__name__)


def run_job(cfg: RunConfig, run_dir: Path) -> Outcome:
    """Run one job in ``run_dir`` and return its outcome; go on where an earlier attempt stopped.

    Everything that can be refused is refused before a weight is loaded. A finished job is read
    back, not repeated; a torn record is no result. The record is written last, in one piece.

    Args:
        cfg: the whole job.
        run_dir: its directory, named by the job's identity.

    Raises:
        SizewiseError: the configuration, data, model or memory does not allow the job.
    """
    if (done := finished(run_dir)) is not None:
        return done
    identity = run_identity(cfg)
    prepare_environment(hub=cfg.run is not None or names_hub(cfg))
    quiet()
    from sizewise.job.finished import of_finished_run

    with job_log(run_dir):
        if RunDir(run_dir).outcome.exists():
            log.warning("%s is damaged: the job is done again.", RunDir(run_dir).outcome)
        write_config(cfg, run_dir)
        job = read_json(RunDir(run_dir).job) or {}
        cfg = of_finished_run(cfg, job.get("overrides"))
        with use_threads(cfg.trainer.num_threads):
            return _run(cfg, run_dir, identity)


def _run(cfg: RunConfig, run_dir: Path, identity: Identity) -> Outcome:
    from sizewise.job.classical import FAMILY, ClassicalPipeline, check_classical
    from sizewise.job.dry_run import reachable_metrics
    from sizewise.job.pipeline import Pipeline
    from sizewise.job.preflight import check_settings
    from sizewise.metrics.base import build_metrics
    from sizewise.models.preflight import check_model
    from sizewise.tracking import finish_loggers, make_loggers

    metrics = build_metrics(reachable_metrics(cfg.metric) if cfg.dry_run else cfg.metric)
    check_names(cfg)
    check_settings(cfg, metrics)
    check_primary(cfg, metrics)
    kind: type[Pipeline | ClassicalPipeline] = Pipeline
    if cfg.model.family == FAMILY:
        kind = ClassicalPipeline
        check_classical(cfg)
    else:
        check_model(cfg.model, cfg.quantization, cfg.lora, cfg.trainer)
    seed_everything(cfg.seed)
    group = sweep_name(cfg, run_dir)
    pipeline = kind.prepare(cfg, run_dir, identity.hash, metrics, resolve_device(cfg.trainer))
    if is_ddp_child():
        pipeline.train_as_further_process()
        raise SystemExit(0)
    loggers = make_loggers(
        cfg.logger,
        run_dir,
        run_id=tracking_id(group, identity.hash),
        group=group,
        job_type="train" if trains(asdict(cfg)) else "evaluate",
        tags=(cfg.model.name, cfg.dataset.name),
        config=asdict(cfg),
    )
    outcome: Outcome | None = None
    try:
        outcome = pipeline.run(loggers)
    finally:
        finish_loggers(loggers, outcome, error=outcome is None)
    # Last of all: a run killed before its trackers were closed is not done, and closes them again.
    write_outcome(outcome, run_dir)
    log.info("%s", summary_line(outcome, run_dir))
    if cfg.report and group is None:
        write_own_report(run_dir)
    return outcome


def write_own_report(run_dir: Path) -> None:
    """Write the report of one run into its folder ``report``."""
    from sizewise.report.comparison.compare import compare_loaded
    from sizewise.report.comparison.runs import load_runs
    from sizewise.report.page.write import write_report

    paths = write_report(
        compare_loaded(load_runs([run_dir])), RunDir(run_dir).report, (), run_dir.name
    )
    log.info("Report: %s", paths["report"])


def summary_line(outcome: Outcome, run_dir: Path) -> str:
    """Return one line that says how good the run is and where it lies."""
    name = outcome.data.name
    scored = outcome.best.get(name)
    if scored is None:
        loss = outcome.validation.get("val_loss", float("nan"))
        return f"Trained; validation loss {loss:.4f}. {run_dir}"
    value = scored.scores[outcome.primary]
    line = f"{name}: {outcome.primary} {value:.4f} on {scored.examples} test examples"
    base = outcome.base.get(name)
    if outcome.tuned is not None and base is not None:
        before = base.scores[outcome.primary]
        line += f" (zero-shot {before:.4f}, gain {value - before:+.4f})"
    return f"{line}. {run_dir}"


def sweep_name(cfg: RunConfig, run_dir: Path) -> str | None:
    """Return the name of the sweep that a run belongs to, or None for a run on its own."""
    if run_dir.parent.resolve() == Path(cfg.paths.outputs).resolve():
        return None
    return cfg.sweep.name or run_dir.parent.name


def tracking_id(group: str | None, identity: str) -> str:
    """Name a run for trackers: the same run of the same sweep, the same id, every time."""
    return hashlib.sha256(f"{group}/{identity}".encode()).hexdigest()[:16]
