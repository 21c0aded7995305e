"""The plan of a sweep: every job composed, checked, named and shown before any starts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from sizewise.composition.jobs import JobComposer
from sizewise.config import HalvingConfig, SweepConfig
from sizewise.config.register import to_run_config
from sizewise.errors import ConfigError, SizewiseError, SweepError
from sizewise.job.submit import Job, make_sweep_job
from sizewise.record.brackets import share_text
from sizewise.record.identity import reuse_key, trains
from sizewise.record.state import JobState, job_state
from sizewise.record.stops import standing_stop
from sizewise.runtime import prepare_environment
from sizewise.sweep.baselines import BASELINES, baseline_overrides
from sizewise.sweep.brackets import Bracket, Look
from sizewise.sweep.screening import RATE, make_brackets, rates_of
from sizewise.words import first_of, literal, plural

log = logging.getLogger(__name__)

FINAL = (JobState.DONE, JobState.PRUNED)


@dataclass(frozen=True)
class Plan:
    """The distinct jobs of a sweep, with their states at planning.

    ``asked`` counts the jobs before equal ones were joined. Where there are ``brackets``, the
    ``jobs`` are those that are to have a result as far as their choices are known, and ``pool`` is
    all that may come to it. ``added`` counts the baselines that nobody named; ``as_given``: jobs
    begin in this order, whatever their bases.
    """

    sweep_dir: Path
    name: str
    jobs: list[Job]
    states: dict[str, JobState]
    asked: int
    brackets: list[Bracket] = field(default_factory=list)
    audit: float = 0.0
    pool: list[Job] = field(default_factory=list)
    added: int = 0
    as_given: bool = False

    @property
    def done(self) -> list[Job]:
        ahead = {job.identity.hash for job in self.to_do}
        return [job for job in self.jobs if job.identity.hash not in ahead]

    @cached_property
    def looks(self) -> list[Look]:
        """What every bracket had come to when this was first asked."""
        return [bracket.look() for bracket in self.brackets]

    @cached_property
    def to_do(self) -> list[Job]:
        """The jobs to start next, each with where it is to stop for now."""
        screened = {job.identity.hash for bracket in self.brackets for job in bracket.jobs}
        chosen = [job for look in self.looks for job in look.to_run(self.audit)]
        due = {job.identity.hash: job for job in chosen}
        for job in self.jobs:
            if job.identity.hash not in screened and self.states[job.identity.slug] not in FINAL:
                due[job.identity.hash] = job
        return [due[j.identity.hash] for j in self.pool or self.jobs if j.identity.hash in due]

    @property
    def later(self) -> int:
        """Number of further seeds of which it is not known yet whose they are."""
        return sum(look.later for look in self.looks)

    @property
    def undecided(self) -> int:
        """Number of brackets in which a choice is still to come."""
        return sum(not look.decided for look in self.looks)


def make_plan(
    grid: Iterable[tuple[str, ...]],
    composer: JobComposer,
    sweep_dir: Path,
    sweep: SweepConfig,
    function: str,
) -> Plan:
    """Compose and check every job, join equal ones, and look up what is already done.

    Of invalid jobs SweepError names every one with its reason.
    """
    make = _Maker(composer, sweep_dir, sweep, function)
    invalid: dict[str, list[str]] = {}
    given = 0
    for given, overrides in enumerate(grid, start=1):
        try:
            make.add(overrides)
        except ConfigError as error:
            invalid.setdefault(str(error), []).append(f"job {given} ({' '.join(overrides)})")
    if invalid:
        raise SweepError(refusal(invalid, given))
    if sweep.tuning.on and not make.tuned and any(trains(job.config) for job in make.jobs.values()):
        log.warning(
            "optimizer.lr is given for every job that trains: those rates are tried, and "
            "sweep.tuning.lr_factors applies to nothing."
        )
    named = len(make.jobs)
    if sweep.baselines:
        _add_baselines(make)
    ordered = _ordered(list(make.jobs.values()), sweep.as_given)
    brackets = make_brackets(ordered, sweep)
    if sweep.halving.on and not any(bracket.halves for bracket in brackets):
        log.warning("sweep.halving stops nothing: %s", _why_none_is_stopped(sweep.halving))
    added, audit = len(ordered) - named, max(sweep.tuning.audit, sweep.halving.audit)
    plan = Plan(
        sweep_dir, make.name, [], {}, make.asked, brackets, audit, ordered, added,
        as_given=sweep.as_given,
    )  # fmt: skip
    plan = current(plan)
    limited = plan.jobs if brackets else _limited(plan.jobs, plan.states, sweep.limit)
    return replace(plan, jobs=limited)


def _why_none_is_stopped(halving: HalvingConfig) -> str:
    if halving.keep == 1 and not halving.margin:
        return "sweep.halving.keep=1 keeps all. Give a sweep.halving.margin, or a lower keep."
    return (
        "every configuration is alone with its values of sweep.halving.keep_each="
        f"[{','.join(halving.keep_each)}]. Leave keys out of that, or try several learning rates."
    )


def _add_baselines(make: _Maker) -> None:
    for overrides in baseline_overrides(list(make.jobs.values())):
        try:
            make.add(overrides)
        except ConfigError as error:  # nobody asked for it: the sweep itself is valid
            log.warning("Left out the baseline %s: %s", " ".join(overrides), error)


def current(plan: Plan) -> Plan:
    """Return a plan as it stands now: the further seeds of what was kept are part of it."""
    looks = [bracket.look() for bracket in plan.brackets]
    open_ = {
        job.identity.hash for b in plan.brackets for jobs in b.further.values() for job in jobs
    }
    open_ -= {job.identity.hash for look in looks for job in look.further}
    jobs = [job for job in plan.pool if job.identity.hash not in open_]
    screened = {job.identity.hash for bracket in plan.brackets for job in bracket.jobs}
    states = {job.identity.slug: _state(job.run_dir, job.identity.hash in screened) for job in jobs}
    return replace(plan, jobs=jobs, states=states)


def _state(run_dir: Path, screened: bool) -> JobState:
    """What was stopped at a rung has been interrupted, where nothing is to be stopped there."""
    state = job_state(run_dir)
    stop = standing_stop(run_dir) if state == JobState.PRUNED and not screened else None
    return state if stop is None or stop.share is None else JobState.INTERRUPTED


class _Maker:
    """Composes jobs, each with the learning rates that it is tried at, and joins equal ones."""

    def __init__(
        self, composer: JobComposer, sweep_dir: Path, sweep: SweepConfig, function: str
    ) -> None:
        self._composer, self._sweep_dir = composer, sweep_dir
        self._tuning, self._halving = sweep.tuning, sweep.halving
        self._function = function
        self.name = sweep.name or sweep_dir.name
        self.jobs: dict[str, Job] = {}
        self.asked = 0
        self.tuned = False

    def add(self, overrides: tuple[str, ...]) -> None:
        """Add a job; ConfigError where it is invalid."""
        config = self._composer.compose(list(overrides))
        given = any(text.lstrip("+").startswith(f"{RATE}=") for text in overrides)
        rates = rates_of(config, given, self._tuning)
        self.tuned = self.tuned or rates != [None]
        for rate in rates:
            tried = overrides if rate is None else (*overrides, f"{RATE}={rate:g}")
            again = config if rate is None else self._composer.compose(list(tried))
            job = self._job(again, tried)
            self.asked += 1
            self.jobs.setdefault(job.identity.hash, job)

    def _job(self, config: dict[str, Any], overrides: tuple[str, ...]) -> Job:
        # The grid itself is not the job's business, its name is: trackers group runs by it.
        config["sweep"] = {"name": self.name, "dir": str(self._sweep_dir)}
        if self._tuning.on:  # reports say so
            config["sweep"]["tuning"] = asdict(self._tuning)
        if self._halving.on:
            config["sweep"]["halving"] = asdict(self._halving)
        return make_sweep_job(config, self._sweep_dir, overrides, self._function)


def refusal(invalid: Mapping[str, Sequence[str]], asked: int) -> str:
    """Name every reason once, with the first job it holds for and the number of the others."""
    lines = [f"{first_of(jobs, 1)}: {reason}" for reason, jobs in invalid.items()]
    more = [f"… and {len(lines) - 20} more reasons"] if len(lines) > 20 else []
    count = sum(map(len, invalid.values()))
    shown = "\n  ".join([*lines[:20], *more])
    return f"{count} of {asked} jobs are invalid; nothing was started.\n  {shown}"


def _ordered(jobs: list[Job], as_given: bool) -> list[Job]:
    """Let jobs that share a base follow one another, bases in the order they first appear."""
    if as_given:
        return jobs
    of_base: dict[str, list[Job]] = {}
    for job in jobs:
        of_base.setdefault(reuse_key(job.config), []).append(job)
    return list(chain.from_iterable(of_base.values()))


def _limited(jobs: list[Job], states: dict[str, JobState], limit: int | None) -> list[Job]:
    if limit is None:
        return jobs
    started = [job for job in jobs if states[job.identity.slug] not in FINAL][:limit]
    kept = {job.identity.slug for job in started}
    return [job for job in jobs if states[job.identity.slug] in FINAL or job.identity.slug in kept]


def print_plan(plan: Plan, details: bool, peaks: Mapping[str, int] | None = None) -> None:
    """Say what a sweep is going to do; with ``details`` job by job.

    ``peaks``: bytes of the jobs, as of ``peak_memory``.
    """
    joined = plan.asked - len(plan.pool if plan.brackets else plan.jobs)
    same = f", {joined} joined with equal ones or left out" if joined else ""
    done = len(plan.done)
    log.info(
        "Sweep %s: %s%d jobs%s; %d done, %d to do. Directory: %s",
        plan.name,
        "up to " if any(look.is_open for look in plan.looks) else "",
        len(plan.jobs) + plan.later,
        same,
        done,
        len(plan.jobs) + plan.later - done,
        plan.sweep_dir,
    )
    for sentence in _plan_sentences(plan):
        log.info("  %s", sentence)
    if details:
        print_table(
            f"{plan.name} (dry run)",
            ("job", "state", "memory", "overrides"),
            list(_rows(plan, peak_memory(plan.jobs) if peaks is None else peaks)),
        )


def _plan_sentences(plan: Plan) -> Iterator[str]:
    """Say what the count of jobs does not: what is screened, and what was added."""
    for rungs, brackets in _by_rungs(plan.brackets).items():
        yield _screening(rungs, brackets)
    if plan.added:
        yield (
            f"{plural(plan.added, 'classical baseline')} ({', '.join(BASELINES)}) added; they take "
            "seconds (sweep.baselines=false leaves them out)."
        )


def _by_rungs(brackets: Iterable[Bracket]) -> dict[tuple[float, ...], list[Bracket]]:
    found: dict[tuple[float, ...], list[Bracket]] = {}
    for bracket in brackets:
        found.setdefault(tuple(rung.share for rung in bracket.rungs), []).append(bracket)
    return found


def _screening(rungs: tuple[float, ...], brackets: Sequence[Bracket]) -> str:
    """Say of brackets with the same rungs what is compared, where, and how much goes on."""
    candidates = sum(len(bracket.candidates) for bracket in brackets)
    configurations = plural(sum(len(bracket.cells) for bracket in brackets), "configuration")
    kept = sum(bracket.survivors for bracket in brackets)
    margins = any(bracket.margins for bracket in brackets)
    least, most = sum(b.least for b in brackets), sum(b.most for b in brackets)
    seeds = sum((b.most if margins else b.survivors) * b.seeds for b in brackets)
    shares = " and ".join(share_text(share) for share in rungs if share < 1)
    until = f"to {shares} of their steps" if shares else "to their end"
    if all(len(bracket.cells) == bracket.survivors == 1 for bracket in brackets):
        what, who = f"{configurations} at several learning rates", "the best of each"
    else:
        what = f"{configurations} in {plural(len(brackets), 'bracket')}"
        who = f"the best {least} to {most}" if margins else f"the best {kept} (at least)"
    count = f"{'at most ' if margins else ''}{plural(seeds, 'job')}"
    more = f", with {count} more for further seeds" if seeds else ""
    return (
        f"{what}: {candidates} jobs run with one seed {until}; "
        f"{who} by validation loss go on{more}."
    )


def _rows(plan: Plan, peaks: Mapping[str, int]) -> Iterator[tuple[str, str, str, str]]:
    for job in plan.jobs:
        slug = job.identity.slug
        shown = " ".join(text for text in job.overrides if not text.startswith("paths."))
        memory = f"{peaks[slug] / 1e9:.2f} GB" if slug in peaks else "–"
        yield slug, str(plan.states[slug]), memory, shown
    for look in plan.looks:
        if look.later:
            seeds = f"{'up to ' if look.is_open else ''}{plural(look.later, 'further seed')}"
            yield f"{look.bracket.name}: {seeds}", "after the choice", "", "of what is kept"


def peak_memory(jobs: Sequence[Job]) -> dict[str, int]:
    """Return the planner's peak of each job in bytes by slug; none where its size is not known.

    Jobs that differ in what costs no memory (seeds, rates) are planned once.
    """
    prepare_environment()
    from sizewise.job.bases import memory_key, peak_bytes

    known: dict[str, int | None] = {}
    found: dict[str, int] = {}
    for job in jobs:
        cfg = to_run_config(job.config, check_types=False)
        key = memory_key(cfg)
        if key not in known:
            try:
                known[key] = peak_bytes(cfg)
            except SizewiseError:
                known[key] = None
        if (peak := known[key]) is not None:
            found[job.identity.slug] = peak
    return found


def print_table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table, as wide as it needs where it does not go to a terminal."""
    from rich.table import Table

    from sizewise.report.page.terminal import wide_console

    table = Table(title=literal(title), title_justify="left")
    for column in columns:
        table.add_column(literal(column), overflow="fold")
    for row in rows:
        table.add_row(*map(literal, row))
    # On a terminal the table fits it; in a file or a pipe nothing may be cut.
    wide_console(400).print(table)
