"""What every tracker is told about the run it records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunContext:
    """One run, as trackers see it.

    Attributes:
        run_dir: the run's directory; trackers write inside it.
        run_id: stable id made from the run's identity: the same run, the same id, every time.
        group: name of the sweep, or None for a single run.
        job_type: ``train``, ``evaluate`` or ``summary``.
        tags: short labels.
        config: the resolved configuration as plain containers.
        log_examples: whether texts of examples may be sent to trackers.
    """

    run_dir: Path
    run_id: str
    group: str | None = None
    job_type: str = "train"
    tags: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    log_examples: bool = False
