"""Experiment trackers: W&B and the others, all replays of a run's own ``metrics.jsonl``."""

from sizewise.tracking.loggers import finish_loggers, make_loggers
from sizewise.tracking.summary import RunContext

__all__ = ["RunContext", "finish_loggers", "make_loggers"]
