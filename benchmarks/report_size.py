"""Time and size of a report over many runs: 200 runs × 1,000 test examples by default.

    python benchmarks/report_size.py [--runs 200] [--examples 1000]

The runs are synthetic. Exits with 1 if the report took 60 s or longer, or is 8 MB or larger.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "report"))

from factory import Spec, Task, make_sweep

from sizewise.report.comparison.compare import compare
from sizewise.report.page.write import write_report

MOST_SECONDS, MOST_BYTES = 60.0, 8_000_000


def specs(runs: int, examples: int) -> list[Spec]:
    """Three bases, five ranks, two learning rates, four sizes of training set, many seeds."""
    task = Task(examples=examples, groups=examples // 2, words=250)
    found = [Spec("mini", 0.42, None, task=task)]
    grid = [
        Spec(model, base, base + gain + 0.01 * r / 4, r, seed=seed, lr=lr, max_train=n, task=task)
        for seed in range(1, 100)
        for n, gain in ((125, 0.1), (250, 0.18), (500, 0.24), (1000, 0.3))
        for lr in (1e-4, 2e-4)
        for model, base in (("nano", 0.2), ("micro", 0.3))
        for r in (2, 4, 8, 16, 32)
    ]
    return (found + grid)[:runs]


def main() -> int:
    """Make the runs, time the report, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--examples", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_sweep(root / "sweep", specs(arguments.runs, arguments.examples))
        start, busy = time.perf_counter(), time.process_time()
        comparison = compare([root / "sweep"])
        compared = time.perf_counter()
        paths = write_report(comparison, root / "report")
        end = time.perf_counter()
        size = paths["report"].stat().st_size
        seconds = end - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{arguments.runs} runs × {arguments.examples} examples")
        print(
            f"compare {compared - start:.1f} s, write {end - compared:.1f} s, both {seconds:.1f} s"
        )
        print(f"processor time {time.process_time() - busy:.1f} s, peak memory {peak:.0f} MiB")
        print(f"pairs {len(comparison.sets[0].pairs)}, report.html {size / 1e6:.2f} MB")
    return int(seconds >= MOST_SECONDS or size >= MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
