"""``sizewise plan``: bytes by part, peaks, the cards on which a job fits, and its seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sizewise.commands.explore import check_language_model
from sizewise.composition.compose import compose_config, compose_run
from sizewise.composition.inputs import names_hub
from sizewise.job.bases import plan_job
from sizewise.job.submit import make_sweep_job
from sizewise.models.plan.planner import GB, MemoryPlan
from sizewise.runtime import prepare_environment, quiet
from sizewise.sweep.estimate.estimate import estimate_sweep, sentences
from sizewise.sweep.launch.local_launcher import LocalBackend
from sizewise.sweep.plan import Plan, current
from sizewise.words import literal


def plan_command(overrides: Sequence[str], time: bool = False) -> None:
    """Print the memory plan of a job; SizewiseError where its architecture is not known.

    ``time``: also how long it will take, from a few steps and answers that are timed now.
    """
    cfg = compose_run(overrides)
    check_language_model(cfg.model, "plan memory for")
    prepare_environment(hub=names_hub(cfg))
    quiet()
    title = (
        f"{cfg.model.name}, {cfg.quantization.method} base, {cfg.lora.method}, "
        f"batch {cfg.trainer.batch_size}, {cfg.dataset.max_length} tokens"
    )
    if cfg.trainer.devices > 1 and (cfg.trainer.shards or cfg.model.device_map):
        title += f", on each of {cfg.trainer.devices} cards"
    console = Console(emoji=False)
    show(plan_job(cfg), title, cfg.lora.trains, console)
    for sentence in _timed(overrides) if time else ():
        console.print(literal(sentence), highlight=False)


def _timed(overrides: Sequence[str]) -> Iterator[str]:
    config = compose_config(overrides)
    job = make_sweep_job(config, Path(config["paths"]["outputs"]), tuple(overrides))
    backend = LocalBackend(n_jobs=1)
    backend.check([job])
    plan = current(Plan(job.run_dir.parent, "plan", [], {}, 1, pool=[job]))
    estimate = estimate_sweep(plan, backend, peaks={})
    return sentences(estimate) if estimate is not None else iter(("This job is done already.",))


def show(plan: MemoryPlan, title: str, trains: bool, console: Console) -> None:
    console.print(f"[bold]{literal(title)}[/]")
    share = plan.trainable / plan.total
    console.print(f"{plan.total:,} parameters, {plan.trainable:,} of them trained ({share:.2%}).")
    columns = {"training": plan.training, "generation": plan.generation}
    if not trains:
        del columns["training"]
    peaks = {"training": plan.training_peak, "generation": plan.generation_peak}
    console.print(_parts(columns, plan.overhead, peaks))
    for card, fits in plan.fits.items():
        advice = plan.advice.get(card)
        line = "fits" if fits else f"does not fit; would fit with {advice}" if advice else "no"
        console.print(f"{card:>3} GB: {literal(line)}", style="green" if fits else None)


def _parts(
    columns: Mapping[str, Mapping[str, int]], overhead: int, peaks: Mapping[str, int]
) -> Table:
    table = Table("GB (10⁹ bytes)", *columns)
    names = dict.fromkeys(name for parts in columns.values() for name in parts)
    for name in names:
        table.add_row(literal(name), *(_gb(parts.get(name)) for parts in columns.values()))
    table.add_row("device and allocator", *(_gb(overhead) for _ in columns))
    table.add_row("peak", *(_gb(peaks[name]) for name in columns), style="bold")
    return table


def _gb(value: int | None) -> str:
    return "–" if value is None else f"{value / GB:.3f}"
