"""The one exception hierarchy: every message says what was wrong, where, and what to do."""

from __future__ import annotations


class SizewiseError(Exception):
    """Base class of every error that sizewise raises on purpose."""


class ConfigError(SizewiseError):
    """A configuration value is wrong; the message names the key and the options."""


class DataError(SizewiseError):
    """The data cannot be used as configured (missing file or column, empty split, …)."""


class UnreachableError(DataError):
    """The data are elsewhere: they are not on this machine, and the hub cannot be reached."""


class ModelError(SizewiseError):
    """A base model, tokenizer, template, quantisation or adapter cannot be used as configured."""


class TrainingError(SizewiseError):
    """Training cannot go on (non-finite loss, checkpoint that does not fit, …)."""


class DivergedError(TrainingError):
    """The loss of a fit is no number any more."""


class OutOfMemoryError(SizewiseError):
    """The device's memory does not suffice; the message says what was tried and what would fit."""


class EvaluationError(SizewiseError):
    """Predictions or scores cannot be made or do not belong to this run."""


class OutcomeError(SizewiseError):
    """A stored record is missing, truncated, of another version, or contradicts its files."""


class SweepError(SizewiseError):
    """A sweep cannot be planned, resumed or launched, or some of its jobs failed."""


class StatisticsError(SizewiseError):
    """Scores cannot be compared, or a statistic is not defined for what was passed."""


def causes(error: BaseException) -> list[BaseException]:
    """An error and what led to it, the last one first."""
    found: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and not any(link is earlier for earlier in found):
        found.append(link)
        link = link.__cause__ or link.__context__
    return found
