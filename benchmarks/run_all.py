"""Runs every benchmark in turn; each prints its own ratios. `make bench` calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SCRIPTS = (
    "training_step.py",
    "loop_overhead.py",
    "generation.py",
    "int8_threshold.py",
    "sweep_overhead.py",
    "report_size.py",
    "data_size.py",
    "step_memory.py",
    "packing.py",
    "embedded_ladder.py",
)


def main() -> int:
    """Run all scripts, also after one failed; return 1 if any did."""
    failed = []
    for name in SCRIPTS:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, str(FOLDER / name)]).returncode != 0:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
