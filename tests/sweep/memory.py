"""A job that uses memory and random numbers, and leaves traces in its process."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path

import psutil

from sizewise.config import RunConfig
from sizewise.record.outcome import Outcome, write_outcome

from .fake import make_outcome


def peak_bytes() -> int:
    """Peak of resident memory; ru_maxrss also counts the process that this one came from."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found.group(1)) * 1024


def job(cfg: RunConfig, run_dir: Path) -> Outcome:
    leaked = "LEFT_BEHIND" in os.environ
    os.environ["LEFT_BEHIND"] = "1"
    ballast = bytearray(60_000_000 if cfg.seed == 0 else 1_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    ring: list[object] = [ballast]
    ring.append(ring)  # freed only by a collection
    figures = {
        "pid": os.getpid(),
        "resident": psutil.Process().memory_info().rss - len(ballast),
        "peak": peak_bytes(),
        "random": random.random(),
        "leaked": leaked,
    }
    (run_dir / "memory.json").write_text(json.dumps(figures))
    outcome = make_outcome(cfg, objective=0.0)
    write_outcome(outcome, run_dir)
    return outcome
