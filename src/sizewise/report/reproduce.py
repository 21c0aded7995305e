"""The exact command, code and package versions that make a run again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sizewise.errors import ConfigError
from sizewise.outcome import Outcome
from sizewise.provenance import package_versions

MOST_KEYS, LONGEST = 8, 80


@dataclass(frozen=True)
class Reproduction:
    """How to make a run again.

    Attributes:
        command: the command line, as arguments.
        commit: revision of the code, None where it was not recorded.
        requirements: ``name==version`` lines.
        python: version of Python.
        notes: what stands in the way of the same figures.
    """

    command: tuple[str, ...]
    commit: str | None
    requirements: tuple[str, ...]
    python: str
    notes: tuple[str, ...]

    @property
    def script(self) -> str:
        """The steps as shell lines."""
        lines = [f"# Python {self.python}"]
        if self.commit:
            lines.append(f"git checkout {self.commit}")
        if self.requirements:
            lines.append("pip install " + " ".join(shlex.quote(r) for r in self.requirements))
        lines.append(shlex.join(self.command))
        return "\n".join([*lines, *(f"# Note: {note}" for note in self.notes)])


def reproduction(outcome: Outcome, check: bool = True) -> Reproduction:
    """Return how to make ``outcome`` again.

    Args:
        outcome: the record of the run.
        check: compose the command's configuration and compare it with the recorded one.
    """
    facts = outcome.provenance
    overrides = [str(o) for o in facts.get("overrides") or []]
    stage = outcome.config.get("stage", "full")
    script = "evaluate.py" if stage == "evaluate" else "train.py"
    code: Mapping[str, Any] = facts.get("code") or {}
    notes = _notes(outcome, code)
    if check:
        notes += _composed(outcome, overrides, script)
    packages: Mapping[str, str] = facts.get("packages") or {}
    known = {name: v for name, v in packages.items() if v != "not installed"}
    builds = [f"{name} {v}" for name, v in known.items() if "+" in v]
    if builds:
        notes.append(f"These were builds of their own: {', '.join(builds)}.")
    notes += _other_versions(known)
    return Reproduction(
        command=("python", script, *overrides),
        commit=code.get("commit"),
        requirements=tuple(f"{name}=={v.partition('+')[0]}" for name, v in known.items()),
        python=str(facts.get("python", "not recorded")),
        notes=tuple(notes),
    )


def _other_versions(recorded: Mapping[str, str]) -> list[str]:
    here = package_versions()
    other = [f"{n} {here.get(n)} (was {v})" for n, v in recorded.items() if here.get(n) != v]
    return [f"Other versions are installed here: {', '.join(other)}."] if other else []


def _notes(outcome: Outcome, code: Mapping[str, Any]) -> list[str]:
    notes = []
    if code.get("commit") is None:
        notes.append("The revision of the code was not recorded.")
    if code.get("dirty"):
        notes.append("The code had changes that were not committed.")
    if "overrides" not in outcome.provenance:
        notes.append("The overrides of the run were not recorded.")
    path = outcome.model.path
    if outcome.model.revision is None and not path.startswith("embedded:"):
        notes.append(f"No revision of the base {path} was recorded: it may have changed.")
    hardware: Mapping[str, Any] = outcome.provenance.get("hardware") or {}
    devices = [str(d.get("name")) for d in hardware.get("devices") or []]
    where = ", ".join(devices) or hardware.get("cpu")
    if where:
        notes.append(f"Figures may differ in their last digits on other devices than {where}.")
    return notes


def _composed(outcome: Outcome, overrides: list[str], script: str) -> list[str]:
    """Say where today's options give another configuration than the recorded one."""
    from sizewise.config.compose import compose_config
    from sizewise.sweep.identity import differing_keys, plain_config, run_identity

    kept = [o for o in overrides if not o.startswith(("hydra", "sweep="))]
    try:
        config = plain_config(compose_config(kept, script.removesuffix(".py")))
    except ConfigError as error:
        return [f"The command does not compose today: {str(error).splitlines()[0]}"]
    recorded = run_identity(outcome.config)
    today = run_identity(config)
    if recorded.hash == today.hash:
        return []
    keys = differing_keys(recorded.config, today.config)
    shown = [key if len(key) <= LONGEST else key[: LONGEST - 1] + "…" for key in keys[:MOST_KEYS]]
    more = f"; and {len(keys) - MOST_KEYS} more" if len(keys) > MOST_KEYS else ""
    return ["Today's options give another configuration: " + "; ".join(shown) + more]
