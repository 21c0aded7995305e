"""The search: Optuna proposes, the launcher runs, the study remembers; and what it found."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sizewise.composition.jobs import HydraParts
from sizewise.composition.resolvers import exit_on_error, make_directory
from sizewise.config import PricesConfig, SweepConfig
from sizewise.errors import ConfigError, SweepError
from sizewise.files import write_json
from sizewise.job.submit import Job, make_sweep_job, submit
from sizewise.record.directories import RunDir, SweepDir
from sizewise.record.state import JobState, finished, job_state
from sizewise.record.study import make_pruner, make_sampler, open_study, require_optuna
from sizewise.sweep.finish import ReportError, finish
from sizewise.sweep.grid import SweepContext, job_backend
from sizewise.sweep.launch.backend import Backend, LaunchOptions
from sizewise.sweep.plan import Plan, print_table
from sizewise.sweep.search.space import (
    Space,
    corners,
    objective_values,
    parse_objectives,
    search_space,
)

log = logging.getLogger(__name__)
OVERRIDES = "overrides"


def run_search(
    hydra: HydraParts,
    command: list[str],
    job: str,
    finish: str | None,
    objectives: list[str],
    n_trials: int,
    sampler: str,
    pruner: str,
    seed: int,
    parallel: int | None,
) -> None:
    """Run a search until ``n_trials`` trials have ended, or continue one.

    Failed and NaN trials are recorded and passed over; a trial that was under way when the search
    was killed is taken up again in its directory.
    """
    with exit_on_error():
        goals = parse_objectives(objectives, pruner)
        check_settings(n_trials, sampler, pruner, seed)
        context = SweepContext(hydra)
        backend = job_backend(context)
        if backend is None:
            raise SweepError("hydra/sweeper=search needs one of hydra/launcher=local, slurm, ray.")
        check_options(context.options, parallel)
        fixed, space = search_space(context.own(command))
        # What can never work would be proposed again and again, and fail each time.
        extremes = [
            make_sweep_job(context.composer.compose([*fixed, *values]), context.sweep_dir)
            for values in corners(space)
        ]
        begun = SweepDir(context.sweep_dir).study.exists()
        if context.options.dry_run or not begun:
            backend.check(extremes)
        if context.options.dry_run:
            log.info("Search of %d trials over %s", n_trials, ", ".join(space))
            return
        make_directory(context.sweep_dir)
        study = open_study(context.sweep_dir, list(goals.values()), sampler, pruner, seed)
        search = _Search(study, context, backend, job, fixed, space, list(goals), pruner)
        try:
            with closing(backend):
                if search.goes_on(n_trials):  # a finished search is shown on any machine
                    if begun:
                        backend.check(extremes)  # which also tells it how many of them fit
                    search.run(n_trials, parallel or backend.slots)
        except KeyboardInterrupt:
            sys.stderr.write(f"Stopped. The same command continues in {context.sweep_dir}.\n")
            raise SystemExit(130) from None
        prices, margin = context.options.prices, context.options.margin
        plan = search.plan()
        report_search(study, list(goals), context.sweep_dir, plan, finish, prices, margin)


def check_settings(n_trials: int, sampler: str, pruner: str, seed: int) -> None:
    """Raise before anything is written for what Optuna would refuse, or no trial at all."""
    if n_trials < 1:
        raise SweepError(f"hydra.sweeper.n_trials={n_trials} tries nothing. Set 1 or more.")
    if not 0 <= seed < 2**32 - 1_000_000:
        raise SweepError(f"hydra.sweeper.seed={seed} is no seed. Give 0 to 4000000000.")
    make_sampler(sampler, seed)
    make_pruner(pruner)


def check_options(options: SweepConfig, parallel: int | None = None) -> None:
    """Raise where an option asks for what only a grid can do, or for no trial at all."""
    if parallel is not None and parallel < 1:
        raise SweepError(f"hydra.sweeper.parallel={parallel} starts no trial. Set 1 or more.")
    if options.arms:
        raise SweepError("A named sweep has a fixed grid. Search without sweep=…")
    default = SweepConfig()
    names = ("limit", "order", "fail_fast", "halving")
    given = [f"sweep.{n}" for n in names if getattr(options, n) != getattr(default, n)]
    if given:
        raise SweepError(
            f"{', '.join(given)}: a search has no such option. Its trials run in the order in "
            "which they are proposed, hydra.sweeper.n_trials says how many, and failed ones are "
            "passed over."
        )


@dataclass
class _Search:
    study: Any
    context: SweepContext
    backend: Backend
    function: str
    fixed: list[str]
    space: Space
    names: list[str]
    pruner: str

    def run(self, n_trials: int, parallel: int) -> None:
        states = require_optuna().trial.TrialState
        under_way = self._under_way()
        # A trial without overrides was being proposed when the search was killed.
        for trial in under_way:
            if OVERRIDES not in trial.user_attrs:
                self.study.tell(trial.number, state=states.FAIL, skip_if_finished=True)
        self._batch([t for t in under_way if OVERRIDES in t.user_attrs])
        while (left := n_trials - len(self.counted())) > 0:
            self._batch([self._ask() for _ in range(min(left, parallel))])

    def goes_on(self, n_trials: int) -> bool:
        return bool(self._under_way()) or len(self.counted()) < n_trials

    def _under_way(self) -> list[Any]:
        states = require_optuna().trial.TrialState
        return [trial for trial in self.study.trials if trial.state == states.RUNNING]

    def counted(self) -> list[Any]:
        return [trial for trial in self.study.trials if OVERRIDES in trial.user_attrs]

    def plan(self) -> Plan:
        jobs = [self._job(trial.user_attrs[OVERRIDES]) for trial in self.counted()]
        unique = {job.identity.hash: job for job in jobs if job is not None}
        states = {job.identity.slug: job_state(job.run_dir) for job in unique.values()}
        sweep_dir = self.context.sweep_dir
        return Plan(sweep_dir, sweep_dir.name, list(unique.values()), states, len(jobs))

    def _ask(self) -> Any:
        trial = self.study.ask(self.space)
        chosen = [f"{key}={value}" for key, value in trial.params.items()]
        trial.set_user_attr(OVERRIDES, [*self.fixed, *chosen])
        return trial

    def _batch(self, trials: list[Any]) -> None:
        planned = [(trial, self._job(trial.user_attrs[OVERRIDES])) for trial in trials]
        jobs: dict[str, Job] = {}
        for trial, job in planned:
            if job is None or job_state(job.run_dir) in (JobState.DONE, JobState.PRUNED):
                continue
            submit(job)
            self._allow_pruning(job, trial)
            jobs[job.identity.hash] = job
        options = self.context.options
        if jobs:
            launch = LaunchOptions(self.context.sweep_dir, options.retries, packing=options.packing)
            self.backend.run(list(jobs.values()), launch)
        for trial, job in planned:
            self._tell(trial, job)

    def _job(self, overrides: list[str]) -> Job | None:
        try:
            config = self.context.composer.compose(list(overrides))
            folder = self.context.sweep_dir
            config["sweep"] = {"name": folder.name, "dir": str(folder)}
            return make_sweep_job(config, folder, tuple(overrides), self.function)
        except ConfigError as error:
            log.warning("Not a valid trial (%s): %s", " ".join(overrides), error)
            return None

    def _allow_pruning(self, job: Job, trial: Any) -> None:
        if self.pruner == "none":
            return
        trial_id = trial._trial_id
        folder = str(self.context.sweep_dir.resolve())
        record = {"folder": folder, "trial_id": trial_id, "pruner": self.pruner}
        write_json(RunDir(job.run_dir).pruning, record)

    def _tell(self, trial: Any, job: Job | None) -> None:
        states = require_optuna().trial.TrialState
        number = trial.number
        state = job_state(job.run_dir) if job is not None else JobState.FAILED
        outcome = finished(job.run_dir) if job is not None else None
        values = objective_values(outcome, self.names) if outcome is not None else None
        if values is not None:
            self.study.tell(number, values, skip_if_finished=True)
        elif state == JobState.PRUNED:
            self.study.tell(number, state=states.PRUNED, skip_if_finished=True)
        else:
            log.warning("Trial %d has no figure to compare (%s); it is passed over.", number, state)
            self.study.tell(number, state=states.FAIL, skip_if_finished=True)


SEARCH_FILE = "search.json"


def report_search(
    study: Any,
    names: list[str],
    sweep_dir: Path,
    plan: Plan,
    function: str | None,
    prices: PricesConfig,
    margin: float | None = None,
) -> None:
    """Write and show the trials and the front, then the summary; SweepError without any figure."""
    trials = [trial for trial in study.trials if "overrides" in trial.user_attrs]
    front = study.best_trials if len(names) > 1 else _best(study)
    write_json(
        sweep_dir / SEARCH_FILE,
        {
            "objectives": dict(zip(names, (str(d.name) for d in study.directions), strict=True)),
            "trials": [_record(trial, names) for trial in trials],
            "front": [trial.number for trial in front],
        },
    )
    broken: ReportError | None = None
    try:
        failures = finish(plan, function, prices, margin)
    except ReportError as error:  # said last: the best trial is known without the summary
        failures, broken = error.failures, error
    for failure in failures:
        log.warning("%s: %s\n    log: %s", failure.run_dir, failure.reason, failure.log)
    counts = Counter(trial.state.name.lower() for trial in trials)
    log.info("%d trials: %s", len(trials), ", ".join(f"{n} {s}" for s, n in counts.items()))
    if not front and broken is None:
        raise SweepError(f"No trial gave a figure to compare; see the logs in {sweep_dir}.")
    title = "Pareto front" if len(names) > 1 else "Best trial"
    rows = [
        (
            str(t.number),
            *(f"{value:.5g}" for value in t.values),
            " ".join(t.user_attrs["overrides"]),
        )
        for t in sorted(front, key=lambda trial: trial.values)
    ]
    if rows:
        print_table(title, ("trial", *names, "overrides"), rows)
    if broken is not None:
        raise broken


def _best(study: Any) -> list[Any]:
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    return [study.best_trial] if done else []


def _record(trial: Any, names: list[str]) -> dict[str, Any]:
    values = trial.values if trial.state.name == "COMPLETE" else None
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "values": dict(zip(names, values, strict=True)) if values else None,
        "overrides": trial.user_attrs["overrides"],
    }
