"""The command, code and package versions of a run, and what differs from them here."""

from __future__ import annotations

import platform
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from sizewise.config.targets import foreign_code
from sizewise.errors import SizewiseError
from sizewise.record.outcome import Outcome
from sizewise.record.provenance import code_state, package_versions
from sizewise.words import cut, first_of, visible

MOST_KEYS, LONGEST = 8, 80
UNKNOWN = "what does not compose as one job, so that nobody can tell"
# What a job is made from. A sweep and Hydra's own settings are no part of a run, and whatever else
# stands there is no override: a record's lines are pasted into a shell.
OVERRIDE = re.compile(r"[+~]{0,2}(?!hydra\b|sweep\b)[A-Za-z_][\w/.@-]*(=.*)?", re.DOTALL)
REVISION = re.compile(r"[0-9a-f]{3,64}")
REQUIREMENT = re.compile(r"[A-Za-z0-9][\w.-]*==[\w.!-]+")


@dataclass(frozen=True)
class Reproduction:
    """How to make a run again.

    Attributes:
        commit: revision of the code, None where it was not recorded.
        requirements: ``name==version`` lines.
        notes: what stands in the way of the same figures.
        foreign: what the command would run that is not sizewise's, and servers elsewhere that it
            would ask, as ``key=value``; one sentence where it does not compose.
    """

    command: tuple[str, ...]
    commit: str | None
    requirements: tuple[str, ...]
    python: str
    notes: tuple[str, ...]
    foreign: tuple[str, ...] = ()

    @property
    def script(self) -> str:
        """The steps as shell lines; a remark is one line whatever it quotes."""
        lines = []
        if self.commit:
            lines.append(f"git checkout {quoted(self.commit)}")
        if self.requirements:
            lines.append("pip install " + " ".join(map(quoted, self.requirements)))
        lines.append(" ".join(map(quoted, self.command)))
        remarks = [f"# Python {self.python}", *(f"# Note: {note}" for note in self.notes)]
        head, *notes = [visible(" ".join(remark.splitlines())) for remark in remarks]
        return "\n".join([head, *lines, *notes])


def quoted(word: str) -> str:
    """Quote a word for a shell; characters that a terminal would obey are written as codes."""
    if visible(word) == word:
        return shlex.quote(word)
    return "$'" + visible(word.replace("\\", "\\\\").replace("'", "\\'")) + "'"


def reproduction(
    outcome: Outcome, check: bool = True, asked: Mapping[str, Any] | None = None
) -> Reproduction:
    """Return how to make ``outcome`` again.

    Args:
        check: compose the command's configuration and compare it with the recorded one.
        asked: the configuration that names the run (see ``asked_config``); default: the recorded.
    """
    facts = outcome.provenance
    recorded = [str(o) for o in facts.get("overrides") or []]
    overrides = [o for o in recorded if OVERRIDE.fullmatch(o)]
    stage = outcome.config.get("stage", "full")
    script = "evaluate.py" if stage == "evaluate" else "train.py"
    code: Mapping[str, Any] = facts.get("code") or {}
    notes, foreign = _notes(outcome, code), list[str]()
    if len(overrides) < len(recorded):
        odd = ", ".join(repr(o) for o in recorded if o not in overrides)
        notes.append(f"Left out of the command, since no job is given such a thing: {odd}.")
    if check:
        differ, foreign = _composed(outcome.config if asked is None else asked, overrides, script)
        notes += differ
    if foreign and foreign != [UNKNOWN]:
        named = ", ".join(foreign)
        notes.append(f"This runs what is not sizewise's own, or sends texts there: {named}.")
    packages: Mapping[str, str] = facts.get("packages") or {}
    known = {n: str(v) for n, v in packages.items() if REQUIREMENT.fullmatch(_requirement(n, v))}
    builds = [f"{name} {v}" for name, v in known.items() if "+" in v]
    if builds:
        notes.append(f"These were builds of their own: {', '.join(builds)}.")
    notes += _other_versions(known) + _other_code(code, facts.get("python"))
    return Reproduction(
        command=("python", script, *overrides),
        commit=str(commit) if REVISION.fullmatch(str(commit := code.get("commit"))) else None,
        requirements=_requirements(known),
        python=str(facts.get("python", "not recorded")),
        notes=tuple(notes),
        foreign=tuple(foreign),
    )


def _requirements(versions: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(_requirement(name, version) for name, version in versions.items())


def _requirement(name: object, version: object) -> str:
    """As pip reads it; the part after ``+`` names a build that an index lacks."""
    return f"{name}=={str(version).partition('+')[0]}"


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


def _composed(
    asked: Mapping[str, Any], overrides: list[str], script: str
) -> tuple[list[str], list[str]]:
    """Say where today's options give another configuration, and what foreign code they name."""
    from sizewise.composition.compose import compose_config
    from sizewise.composition.inputs import pinned
    from sizewise.record.identity import differing_keys, run_identity

    try:
        config = pinned(compose_config(overrides, script.removesuffix(".py")))
    except (SizewiseError, OmegaConfBaseException, OSError) as error:
        said = f"The command does not compose today: {str(error).splitlines()[0]}"
        return [said], [UNKNOWN]  # as a sweep it might: nobody has looked at what it would run
    foreign = foreign_code(config)
    recorded = run_identity(asked)
    today = run_identity(config)
    if recorded.hash == today.hash:
        return [], foreign
    keys = differing_keys(recorded.config, today.config)
    shown = first_of([cut(key, LONGEST) for key in keys], MOST_KEYS, between="; ")
    return [f"Today's options give another configuration: {shown}"], foreign
