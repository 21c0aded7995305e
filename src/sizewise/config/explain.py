"""What Hydra and OmegaConf complain about, as one sentence that names the key and what to do."""

from __future__ import annotations

from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException


def explain(error: BaseException) -> str:
    """Return one line for an error of composition; search paths and type names are left out."""
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return _explain_value(cause)
    return _one_line(str(error).split("\nConfig search path:")[0])


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


def _one_line(text: str) -> str:
    head, found, options = text.partition("Available options")
    sentence = " ".join(head.split())
    if not found:
        return sentence
    title, *names = options.split("\n")
    return f"{sentence}. {found}{title} {', '.join(name.strip() for name in names if name.strip())}"
