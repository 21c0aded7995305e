"""The command, code and package versions of a run, and what differs from them here."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sizewise.errors import SizewiseError
from sizewise.record.outcome import Outcome
from sizewise.record.provenance import code_state, package_versions

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


def reproduction(
    outcome: Outcome, check: bool = True, asked: Mapping[str, Any] | None = None
) -> Reproduction:
    """Return how to make ``outcome`` again.

    Args:
        outcome: the record of the run.
        check: compose the command's configuration and compare it with the recorded one.
        asked: the configuration that names the run (see ``asked_config``); default: the recorded.
    """
    facts = outcome.provenance
    overrides = [str(o) for o in facts.get("overrides") or []]
    stage = outcome.config.get("stage", "full")
    script = "evaluate.py" if stage == "evaluate" else "train.py"
    code: Mapping[str, Any] = facts.get("code") or {}
    notes = _notes(outcome, code)
    if check:
        notes += _composed(outcome.config if asked is None else asked, overrides, script)
    packages: Mapping[str, str] = facts.get("packages") or {}
    known = {name: v for name, v in packages.items() if v != "not installed"}
    builds = [f"{name} {v}" for name, v in known.items() if "+" in v]
    if builds:
        notes.append(f"These were builds of their own: {', '.join(builds)}.")
    notes += _other_versions(known) + _other_code(code, facts.get("python"))
    return Reproduction(
        command=("python", script, *overrides),
        commit=code.get("commit"),
        requirements=_requirements(known),
        python=str(facts.get("python", "not recorded")),
        notes=tuple(notes),
    )


def _requirements(versions: Mapping[str, str]) -> tuple[str, ...]:
    """Requirements as pip reads them; the part after ``+`` names a build that an index lacks."""
    return tuple(f"{name}=={version.partition('+')[0]}" for name, version in versions.items())


def _other_versions(recorded: Mapping[str, str]) -> list[str]:
    here = package_versions()
    other = {name: v for name, v in recorded.items() if here.get(name) != v}
    if not other:
        return []
    named = ", ".join(f"{name} {here.get(name)} (was {v})" for name, v in other.items())
    return [
        f"Other versions are installed here: {named}. "
        f"For the recorded ones: pip install {shlex.join(_requirements(other))}"
    ]


def _other_code(code: Mapping[str, Any], python: object) -> list[str]:
    notes = []
    recorded = code.get("commit")
    if recorded is not None:
        here = code_state(Path(__file__).parent)["commit"]
        if here != recorded:
            notes.append(f"The code here is another revision: {here or 'no checkout'}.")
    if python not in (None, platform.python_version()):
        notes.append(f"Python here is {platform.python_version()}.")
    return notes


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


def _composed(asked: Mapping[str, Any], overrides: list[str], script: str) -> list[str]:
    """Say where today's options give another configuration than the recorded one."""
    from sizewise.composition.compose import compose_config
    from sizewise.composition.inputs import pinned
    from sizewise.record.identity import differing_keys, plain_config, run_identity

    kept = [o for o in overrides if not o.startswith(("hydra", "sweep="))]
    try:
        config = pinned(plain_config(compose_config(kept, script.removesuffix(".py"))))
    except (SizewiseError, OSError) as error:
        return [f"The command does not compose today: {str(error).splitlines()[0]}"]
    recorded = run_identity(asked)
    today = run_identity(config)
    if recorded.hash == today.hash:
        return []
    keys = differing_keys(recorded.config, today.config)
    shown = [key if len(key) <= LONGEST else key[: LONGEST - 1] + "…" for key in keys[:MOST_KEYS]]
    more = f"; and {len(keys) - MOST_KEYS} more" if len(keys) > MOST_KEYS else ""
    return ["Today's options give another configuration: " + "; ".join(shown) + more]
