"""A planned job, and the record of it that whoever runs it reads."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sizewise.composition.inputs import check_candidates_content, pinned
from sizewise.config import RunConfig
from sizewise.config.register import to_run_config
from sizewise.errors import SweepError
from sizewise.files import read_json, sealed, unsealed, write_json
from sizewise.record.directories import JOB_FILE, RunDir
from sizewise.record.identity import Identity, differing_keys, run_identity
from sizewise.record.outcome import Outcome

DEFAULT_FUNCTION = "sizewise.job.run:run_job"
FORMER = {"sizewise.run:run_job": DEFAULT_FUNCTION}  # jobs that were planned by version 0.1
STOP_AT = "stop_at"
JobFunction = Callable[[RunConfig, Path], Outcome]


@dataclass(frozen=True)
class Job:
    """One job of a sweep: what was asked for, resolved, named and given a directory.

    ``stop_at``: the share of its optimiser steps after which the fit is to stop, as of now (1: it
    goes to the end, but may diverge without having failed). It is no part of what the job is.
    """

    overrides: tuple[str, ...]
    config: Mapping[str, Any]
    identity: Identity
    run_dir: Path
    function: str = DEFAULT_FUNCTION
    stop_at: float | None = None


def make_job(
    config: Mapping[str, Any],
    run_dir: Path,
    overrides: tuple[str, ...] = (),
    function: str = DEFAULT_FUNCTION,
) -> Job:
    """Name the job of a resolved configuration that runs in a given directory."""
    config = pinned(config)
    return Job(overrides, config, run_identity(config), run_dir, function)


def make_sweep_job(
    config: Mapping[str, Any],
    sweep_dir: Path,
    overrides: tuple[str, ...] = (),
    function: str = DEFAULT_FUNCTION,
) -> Job:
    """Check the configuration of a job of a sweep; it names its directory.

    Raises:
        ConfigError: a key is unknown or a value out of range.
    """
    config = pinned(config)
    to_run_config(config, check_types=False)
    identity = run_identity(config)
    return Job(overrides, config, identity, sweep_dir / identity.slug, function)


def submit(job: Job) -> None:
    """Write the job's whole configuration, as it is now, where its worker will read it.

    Raises:
        SweepError: the directory belongs to a job with another configuration.
    """
    check_same(job)
    record = sealed(
        {
            "identity": job.identity.hash,
            "slug": job.identity.slug,
            "overrides": list(job.overrides),
            "function": job.function,
            "config": dict(job.config),
            **({} if job.stop_at is None else {STOP_AT: job.stop_at}),
        }
    )
    if read_json(RunDir(job.run_dir).job) != record:
        write_json(RunDir(job.run_dir).job, record)


def check_same(job: Job) -> None:
    """Raise if the directory already holds another job, naming the keys that differ."""
    old = _whole(RunDir(job.run_dir).job) or _whole(RunDir(job.run_dir).outcome)
    if old is None or old.get("identity") in (None, job.identity.hash):
        return
    before = run_identity(old.get("config") or {})
    if before.hash == job.identity.hash:
        return  # another version named the same configuration otherwise
    changed = "\n  ".join(differing_keys(before.config, job.identity.config))
    raise SweepError(
        f"{job.run_dir} holds a run with another configuration:\n  {changed}\n"
        "Choose another directory, or leave it out: it is then named by the configuration."
    )


def load_job(run_dir: Path) -> tuple[RunConfig, JobFunction]:
    """Read the configuration and the function of the job that was submitted to ``run_dir``.

    Raises:
        SweepError: no job was submitted there.
        ConfigError: its file of candidates is no longer the one that it was planned with.
    """
    record = _submitted(run_dir)
    check_candidates_content(record["config"].get("evaluation") or {})
    return to_run_config(record["config"], check_types=False), load_function(record["function"])


def submitted_job(run_dir: Path) -> Job:
    """Return the job that was submitted to ``run_dir``; SweepError if none was."""
    record = _submitted(run_dir)
    config, overrides = record["config"], tuple(record["overrides"])
    identity = run_identity(config)
    return Job(overrides, config, identity, run_dir, record["function"], record.get(STOP_AT))


def _submitted(run_dir: Path) -> dict[str, Any]:
    path = RunDir(run_dir).job
    record = _whole(path)
    if record is None and path.exists():
        raise SweepError(f"{path} is damaged. Start the same command again: it writes it anew.")
    if record is None:
        raise SweepError(f"{run_dir} holds no {JOB_FILE}: no job was submitted there.")
    return record


def _whole(path: Path) -> dict[str, Any] | None:
    """Return a record; None where there is none, or not what was written."""
    record = read_json(path)
    try:
        return record and unsealed(record)
    except ValueError:
        return None


def load_function(path: str) -> JobFunction:
    """Import ``module:function``."""
    module, _, name = FORMER.get(path, path).partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SweepError(f"The job function {path} cannot be imported: {error}") from error
    return function


def submitted_overrides(run_dir: Path) -> list[str]:
    """Return the overrides that a run was submitted with; none for one begun by a program."""
    return list((read_json(RunDir(run_dir).job) or {}).get("overrides", []))


def submitted_stop(run_dir: Path) -> float | None:
    """Return the share of its steps after which a run is to stop; None where it goes to its end."""
    share = (_whole(RunDir(run_dir).job) or {}).get(STOP_AT)
    return float(share) if isinstance(share, int | float) else None
