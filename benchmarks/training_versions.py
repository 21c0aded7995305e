"""A training step of this version beside one of an earlier version, on the embedded models.

    python benchmarks/training_versions.py --before CHECKOUT [--repeats 3] [--only NF4]

Both train the same adapter (r=8) on the same rows, one thread, in turns: with the dropout of 0.05
that an earlier version had as its default, without any, each as it is shipped, and over a base in
NF4. Seconds of the steps alone, as each version records them; the ratios are of the turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.sweep import ROOT, run_with, same_question

JOB = (
    "stage=train", "lora.r=8", "optimizer.lr=0.003", "dataset.max_train=480",
    "dataset.max_validation=16", "dataset.max_test=16", "trainer.max_epochs=2",
    "trainer.batch_size=16", "trainer.num_threads=1", "trainer.progress_bar=false",
    "trainer.validate_at_start=false", "logger=none", "callbacks=none",
)  # fmt: skip
DROPOUT, NONE = "lora.dropout=0.05", "lora.dropout=0.0"
# What each version trains with: options of the earlier one, and of this one.
SETTINGS = {
    "dropout 0.05": ((DROPOUT,), (DROPOUT,)),
    "no dropout": ((NONE,), (NONE,)),
    "as shipped": ((DROPOUT,), (NONE,)),
    "no dropout over NF4": ((NONE, "quantization=nf4"), (NONE, "quantization=nf4")),
}


def seconds(checkout: Path, folder: Path, *options: str) -> float:
    """Train in a process of its own and return the seconds of its steps."""
    command = [sys.executable, str(checkout / "train.py"), *JOB, *options]
    command += [f"hydra.run.dir={folder}", f"paths.cache={folder.parent / 'cache'}"]
    run_with(checkout, folder.name, command, folder.parent, OMP_NUM_THREADS="1")
    return float(json.loads((folder / "fit.json").read_text())["seconds"])


def rows(before: Path, repeats: int, place: Path, only: str = "") -> Iterator[str]:
    """Rows of the table: median seconds of both, and the ratios of the turns."""
    alike = same_question(place / "rows.csv")
    for base in ("nano", "micro"):
        for name, ways in SETTINGS.items():
            if only not in name:
                continue
            turns = []
            for turn in range(repeats):
                pair = []
                for number, checkout in enumerate((before, ROOT)):
                    folder = place / str(number) / f"{base}-{name.replace(' ', '-')}-{turn}"
                    folder.parent.mkdir(exist_ok=True)
                    options = [f"model={base}", *alike, *ways[number]]
                    pair.append(seconds(checkout, folder, *options))
                turns.append(pair)
            earlier, now = (statistics.median(t[side] for t in turns) for side in (0, 1))
            ratios = [was / is_now for was, is_now in turns]
            yield (
                f"| {base} | {name} | {earlier:.1f} | {now:.1f} | {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f}) |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="the earlier checkout")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="settings with this in their name")
    options = parser.parse_args()
    print("| base | | before, s | now, s | times as fast |\n|---|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(options.before.resolve(), options.repeats, Path(folder), options.only):
            print(row, flush=True)


if __name__ == "__main__":
    main()
