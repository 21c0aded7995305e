"""Is the configuration of a stored run the one that names it? Also: what was asked for at first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sizewise.config.targets import recorded_config
from sizewise.errors import OutcomeError, SizewiseError
from sizewise.job.finished import of_finished_run, stored_config
from sizewise.record.directories import CONFIG_FILE
from sizewise.record.outcome import Outcome
from sizewise.verify import FAILED, OK, UNCHECKED, Check


def asked_config(outcome: Outcome, directory: Path) -> Mapping[str, Any]:
    """Return the configuration that names a run.

    An evaluation of a finished run is named by what was asked for (its ``config.yaml``); what its
    outcome records is what it took over from that run.

    Raises:
        OutcomeError: ``config.yaml`` is damaged.
    """
    stored = stored_config(directory) if outcome.config.get("run") else None
    return stored if stored is not None else outcome.config


def config_checks(outcome: Outcome, directory: Path, trust: bool = False) -> Iterator[Check]:
    try:
        stored = stored_config(directory)
    except OutcomeError as error:
        yield Check(CONFIG_FILE, FAILED, str(error))
        return
    scored_run = outcome.config.get("run")
    yield _identity(outcome, stored if scored_run and stored else outcome.config)
    if stored is None:
        yield Check(CONFIG_FILE, UNCHECKED, "there is none")
    elif scored_run:
        yield _taken_over(outcome, stored, trust)
    else:
        yield _compared(outcome, stored)


def _compared(outcome: Outcome, config: Mapping[str, Any]) -> Check:
    from sizewise.record.identity import differing_keys, run_identity

    try:
        recorded = run_identity(outcome.config).config
        changed = differing_keys(run_identity(config).config, recorded)
    except (AttributeError, TypeError, ValueError, OSError) as error:
        return Check(CONFIG_FILE, FAILED, f"is no configuration of a job: {error}")
    return Check(CONFIG_FILE, FAILED if changed else OK, "; ".join(changed))


def _taken_over(outcome: Outcome, stored: dict[str, Any], trust: bool) -> Check:
    """Compare the recorded configuration with what the scored run gives today."""
    overrides = outcome.provenance.get("overrides")
    try:
        asked = replace(recorded_config(stored), trust=trust)
        done = asdict(of_finished_run(asked, overrides))
        # Whether code of the base was let in is typed with each command, and no part of the run.
        done["model"]["trust_remote_code"] = outcome.config["model"]["trust_remote_code"]
    except (SizewiseError, OSError, ValueError, KeyError, TypeError) as error:
        detail = f"most of the configuration is that of {outcome.config['run']}: {error}"
        return Check(CONFIG_FILE, UNCHECKED, detail)
    return _compared(outcome, done)


def _identity(outcome: Outcome, config: Mapping[str, Any]) -> Check:
    from sizewise.record.identity import run_identity

    try:
        found = run_identity(config).hash
    except (AttributeError, TypeError, ValueError, OSError) as error:
        return Check("identity", FAILED, f"the configuration is none of a job: {error}")
    if found == outcome.identity:
        return Check("identity", OK)
    # These go into the identity by their content.
    given = [str(config[key]) for key in ("run", "adapter") if config.get(key)]
    absent = [place for place in given if not Path(place).exists()]
    if absent:
        return Check("identity", UNCHECKED, f"{', '.join(absent)} is not on this machine")
    detail = (
        f"the recorded configuration hashes to {found} and not to {outcome.identity}: "
        "it was changed, or written by another version"
    )
    return Check("identity", FAILED, detail)
