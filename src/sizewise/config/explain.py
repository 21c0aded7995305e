"""What Hydra and OmegaConf complain about, as one sentence that names the key and what to do."""

from __future__ import annotations

import re

from hydra.errors import OverrideParseException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from sizewise.config.folder import conf_dir


def explain(error: BaseException) -> str:
    """Return one line for an error of composition; search paths and type names are left out."""
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return _explain_value(cause)
    if isinstance(error, OverrideParseException):
        said = str(error).split("\nSee ")[0]
        return f"{error.override!r} cannot be read as KEY=VALUE: {said}. Is a quote missing?"
    said = str(error).split("\nConfig search path:")[0]
    return _one_line(said) + _options(said)


def _explain_value(error: OmegaConfBaseException) -> str:
    key = error.full_key or "the configuration"
    reason = str(error).splitlines()[0]
    if isinstance(error, MissingMandatoryValue) or "missing mandatory value" in reason:
        return f"{key} has no value and needs one. Give {key}=… on the command line."
    return f"{key}: {reason}{_siblings(error)}"


def _siblings(error: OmegaConfBaseException) -> str:
    """Name the keys that exist where an unknown one was given."""
    fields = getattr(error.object_type, "__dataclass_fields__", None)
    if fields is None or error.key in fields:
        return ""
    return f". Known keys: {', '.join(fields)}"


def _options(said: str) -> str:
    """Name the options of a group from which one of a list was not found: Hydra does not."""
    found = re.search(r"Could not load '(.+)/[^/]+'", said)
    names = sorted(path.stem for path in (conf_dir() / found[1]).glob("*.yaml")) if found else []
    return f" Available options in '{found[1]}': {', '.join(names)}" if found and names else ""


def _one_line(text: str) -> str:
    head, found, options = text.partition("Available options")
    sentence = " ".join(head.split())
    if not found:
        return sentence
    title, *names = options.split("\n")
    return f"{sentence}. {found}{title} {', '.join(name.strip() for name in names if name.strip())}"
