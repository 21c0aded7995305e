"""One command's sweep: its grid of jobs planned, shown, launched and summed up."""

from __future__ import annotations

import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from sizewise.composition.jobs import HydraParts, JobComposer
from sizewise.composition.resolvers import exit_on_error, make_directory
from sizewise.config import PricesConfig, SweepConfig
from sizewise.config.register import to_run_config
from sizewise.errors import ConfigError, SweepError
from sizewise.files import write_json
from sizewise.job.submit import Job
from sizewise.record.brackets import write_tuning
from sizewise.record.directories import SweepDir
from sizewise.record.state import JobState, job_state
from sizewise.sweep.brackets import tuning_record
from sizewise.sweep.estimate.estimate import (
    DRY_RUN,
    Estimate,
    command_record,
    comparison,
    estimate_sweep,
    kept_record,
    note_command,
    sentences,
)
from sizewise.sweep.finish import finish, imported_ahead, listed
from sizewise.sweep.launch.backend import Backend, LaunchOptions, More
from sizewise.sweep.plan import Plan, make_plan, peak_memory, print_plan, refusal
from sizewise.sweep.stages import Means, run_stages
from sizewise.words import visible

log = logging.getLogger(__name__)
Parse = Callable[[list[str]], list[Override]]


def expand(
    command: Sequence[str], arms: Mapping[str, Sequence[str]], parse: Parse
) -> list[tuple[str, ...]]:
    """Return the overrides of every job.

    Without arms the command line is the one grid. With arms every arm (name → overrides) is a grid
    of its own, and the command line has the last word in each: a key that it sets replaces the
    arm's. ``parse`` parses overrides in Hydra's grammar.
    """
    own = own_overrides(command, parse)
    if not arms:
        return list(_product(own))
    given = {item.get_key_element() for item in own}
    jobs: list[tuple[str, ...]] = []
    for name, overrides in arms.items():
        try:
            arm = parse([str(text) for text in overrides])
        except ConfigError as error:
            raise ConfigError(f"sweep.arms.{name}: {error}") from error
        kept = [item for item in arm if item.get_key_element() not in given]
        jobs += _product([*kept, *own])
    return jobs


def own_overrides(command: Sequence[str], parse: Parse) -> list[Override]:
    """Return the parsed overrides of a command line that are the jobs' and not the sweep's."""
    return [item for item in parse(list(command)) if not _about_the_sweep(item)]


def _about_the_sweep(override: Override) -> bool:
    key = str(override.key_or_group)
    return key == "sweep" or key.startswith("sweep.")


def _check_places(sweep_dir: Path, config: DictConfig) -> None:
    """Refuse a directory that is none, and names of runs that are not their identities."""
    own = [text for text in config.hydra.overrides.hydra if "hydra.sweep.subdir" in text]
    if own:
        raise SweepError(
            f"{own[0]}: the runs of a sweep are named by their configurations. Leave it out, and "
            "choose the directory of the whole sweep with sweep.dir=DIR."
        )
    if sweep_dir.exists() and not sweep_dir.is_dir():
        raise SweepError(f"sweep.dir={sweep_dir} is a file. Choose a directory.")


def _product(overrides: Iterable[Override]) -> Iterable[tuple[str, ...]]:
    choices: dict[str, list[str]] = {}
    for item in overrides:
        key = item.get_key_element()
        if item.is_sweep_override():
            if not item.is_discrete_sweep():
                raise ConfigError(
                    f"{item.input_line} is a range without steps, which a grid cannot list. "
                    "Use choice() or range(), or search it: hydra/sweeper=search."
                )
            values = [str(value) for value in item.sweep_string_iterator()]
            if not values:
                raise ConfigError(f"{item.input_line} names no value to sweep over.")
            choices[key] = [f"{key}={value}" for value in values]
        else:
            choices[key] = [str(item.input_line)]
    return itertools.product(*choices.values())


UNDER_WAY = (JobState.QUEUED, JobState.RUNNING)


def run_sweep(hydra: HydraParts, command: list[str], job: str, finish: str | None) -> None:
    """Run the sweep of a command line.

    Ends the process with exit code 1 if the plan is invalid or a job failed, 130 if interrupted.
    """
    with exit_on_error():
        context = SweepContext(hydra)
        grid = expand(command, context.options.arms, context.composer.parse)
        plan = make_plan(grid, context.composer, context.sweep_dir, context.options, job)
        options = context.options
        peaks = peak_memory(plan.jobs) if options.dry_run else None
        print_plan(plan, options.dry_run, peaks)
        backend = job_backend(context)
        check_launcher(backend, options)
        if backend is not None and plan.to_do:  # a finished sweep is shown on any machine
            backend.check(plan.to_do)
        peaks = peaks if options.estimate else None
        estimate = estimate_sweep(plan, backend, options.limit, peaks, options.packing)
        tell(estimate, _measuring(options))
        if options.dry_run:
            if estimate is not None and estimate.refused:
                raise SweepError(refusal(estimate.refused, len(plan.jobs)))
            return
        make_directory(plan.sweep_dir)
        with timed(plan, estimate):
            plan = _carry_out(plan, context, backend, command, finish)
            if not _left_running(plan, backend):
                sum_up(plan, finish, options.prices, options.margin)


def _measuring(options: SweepConfig) -> str:
    """What measures that which this command did not."""
    if options.estimate:
        return DRY_RUN
    same = "the same command" if options.dry_run else DRY_RUN
    return f"{same} without sweep.estimate=false"


def tell(estimate: Estimate | None, measuring: str = DRY_RUN) -> None:
    """Say what a command is going to take; ``measuring``: what says what is not known yet."""
    for sentence in sentences(estimate, measuring) if estimate is not None else ():
        log.info("  %s", visible(sentence))  # reasons quote what others wrote


@contextmanager
def timed(plan: Plan, estimate: Estimate | None) -> Iterator[None]:
    """Hold what the block takes against what was planned, and keep both in ``sweep.json``.

    Not where somebody stopped it: it would look as if the rest had been done as well.
    """
    started, jobs = time.monotonic(), len(plan.to_do) + plan.later
    before, stopped = _computed(), False
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        stopped = True
        raise
    finally:
        states = [job_state(job.run_dir) for job in plan.jobs]
        if jobs and not stopped and not any(state in UNDER_WAY for state in states):
            took = time.monotonic() - started
            computed = _computed() - before
            note_command(plan.sweep_dir, command_record(estimate, took, computed, jobs))
            log.info("%s", comparison(estimate, took, computed))


def _computed() -> float:
    """Seconds of computing of this process and of its children that have ended."""
    return sum(os.times()[:4])


def _carry_out(
    plan: Plan,
    context: SweepContext,
    backend: Backend | None,
    command: list[str],
    summary: str | None,
) -> Plan:
    options = context.options
    with (
        nullcontext() if backend is None else closing(backend),
        imported_ahead(summary) as begin_import,
    ):
        means = Means(
            launch=lambda jobs, more: launch(context, backend, jobs, more),
            record=lambda now: record(now, command, options, backend),
            left_running=lambda now: _left_running(now, backend),
            idle=begin_import,
        )
        return run_stages(plan, means, options.limit, options.fail_fast)


class SweepContext:
    def __init__(self, hydra: HydraParts) -> None:
        config, loader = hydra.config, cast(Any, hydra.context.config_loader)
        overrides = [str(text) for text in config.hydra.overrides.hydra]
        self.composer = JobComposer(loader, str(config.hydra.job.config_name), overrides)
        self.launcher = hydra.launcher
        self.options = sweep_options(config)
        self.sweep_dir = Path(str(config.hydra.sweep.dir))
        _check_places(self.sweep_dir, config)

    def own(self, command: list[str]) -> list[Override]:
        return own_overrides(command, self.composer.parse)


def sweep_options(config: DictConfig) -> SweepConfig:
    node: Any = OmegaConf.to_object(config.sweep)
    if isinstance(node, SweepConfig):
        return node
    return to_run_config({"sweep": node}, check_types=False).sweep


def job_backend(context: SweepContext) -> Backend | None:
    """Return sizewise's own launcher; None where another Hydra launcher was chosen."""
    make = getattr(context.launcher, "backend", None)
    return None if make is None else make()


def check_launcher(backend: Backend | None, options: SweepConfig) -> None:
    """Raise where an option asks for what another Hydra launcher cannot do."""
    if backend is None and (options.retries or options.fail_fast):
        raise SweepError(
            "sweep.retries and sweep.fail_fast need one of hydra/launcher=local, slurm or ray: "
            "Hydra's own launchers run every job once."
        )


def record(plan: Plan, command: list[str], options: SweepConfig, backend: Backend | None) -> None:
    """Write the sweep to disk as it is known now: its jobs, and what its brackets have come to."""
    estimate = estimate_sweep(plan, backend, options.limit, packing=options.packing)
    write_json(
        SweepDir(plan.sweep_dir).plan,
        {
            "name": plan.name,
            "description": options.description,
            "overrides": command,
            "arms": {name: list(arm) for name, arm in options.arms.items()},
            "jobs": [job.identity.slug for job in plan.jobs],
            **kept_record(plan.sweep_dir, estimate),
        },
    )
    if plan.brackets:
        looks = [bracket.look() for bracket in plan.brackets]  # others may have gone on
        write_tuning(plan.sweep_dir, tuning_record(looks, plan.audit))
    else:  # what an earlier command had stopped is stopped no more
        SweepDir(plan.sweep_dir).tuning.unlink(missing_ok=True)


def launch(context: SweepContext, backend: Backend | None, jobs: list[Job], more: More) -> None:
    """Run jobs, and ``more`` as they become due where the launcher asks for them."""
    options = context.options
    try:
        if backend is not None:
            choices = LaunchOptions(
                context.sweep_dir,
                options.retries,
                options.fail_fast,
                options.packing,
                as_given=options.as_given,
                more=more,
            )
            backend.run(jobs, choices)
        else:
            _launch_foreign(context, jobs)
    except KeyboardInterrupt:
        sys.stderr.write(f"Stopped. The same command continues in {context.sweep_dir}.\n")
        raise SystemExit(130) from None


def _left_running(plan: Plan, backend: Backend | None) -> bool:
    """Whether the launcher was told not to wait and some jobs have not ended yet."""
    if backend is None or getattr(backend, "waits", True):
        return False
    return any(job_state(job.run_dir) in UNDER_WAY for job in plan.jobs)


def _launch_foreign(context: SweepContext, jobs: list[Job]) -> None:
    """Use any other launcher of Hydra's: it composes again, but the job reads what was planned."""
    assert context.launcher is not None
    overrides = [[*job.overrides, *_directory(job)] for job in jobs]
    context.launcher.launch(overrides, initial_job_idx=0)


def _directory(job: Job) -> tuple[str, str]:
    parent = str(job.run_dir.parent).replace("\\", "\\\\").replace("'", "\\'")
    return f"hydra.sweep.dir='{parent}'", f"hydra.sweep.subdir={job.identity.slug}"


def sum_up(
    plan: Plan, function: str | None, prices: PricesConfig, margin: float | None = None
) -> None:
    """Write the sweep's summary; raises SweepError that names every job without a result."""
    failures = finish(plan, function, prices, margin)
    if failures:
        raise SweepError(listed(failures, len(plan.jobs)))
