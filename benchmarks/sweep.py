"""A sweep of 24 configurations: halved, as a full grid, and as one would write it oneself.

    python benchmarks/sweep.py                    # nano and micro × 3 ranks × 4 learning rates
    python benchmarks/sweep.py --before CHECKOUT  # and the full grid of an earlier version
    python benchmarks/sweep.py --tiny             # whether it runs

One after the other, each with an empty cache: `train.py` with `sweep.halving`, `train.py` without
it, that of an earlier version on the same rows, bases and alpha (its own defaults otherwise), and
`benchmarks/sweep_peer.py` (Hydra's basic launcher, HF Trainer with PEFT, `generate`) with length
groups and with batches as they come, which is the trainer's default. All answer the test examples
alone: no validation answers, no candidates. Wall and CPU seconds of the whole command, imports and
report included; the winner is the configuration with the lowest validation loss.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sizewise.embedded.dialogues import generate_dialogues
from sizewise.models.sources import models_folder
from sizewise.record.directories import OUTCOME_FILE

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Setting:
    """The grid, and the size of every job."""

    bases: tuple[str, ...] = ("nano", "micro")
    ranks: tuple[int, ...] = (4, 8, 16)
    rates: tuple[float, ...] = (0.0005, 0.0015, 0.0045, 0.0135)
    rows: int = 1200
    validation: int = 200
    test: int = 200
    epochs: int = 2
    room: int = 48
    rungs: str = "[0.0667,0.2]"
    keep: float = 0.5
    margin: str = "[1.5,0.1]"
    workers: str = "null"

    @property
    def jobs(self) -> int:
        return len(self.bases) * len(self.ranks) * len(self.rates)


# What an earlier version and the peer do not do either.
ALIKE = (
    "sweep.baselines=false", "evaluation.answer_validation=none", "evaluation.candidates=null",
    "evaluation.timed_answers=0",
)  # fmt: skip
TINY = Setting(
    ("nano",), (2,), (0.001, 0.01), 32, 8, 8, 1, 8, rungs="[0.5]", margin="[1.0]", workers="1"
)


@dataclass(frozen=True)
class Measured:
    """A command's seconds, and its best configuration with its validation loss and score."""

    name: str
    wall: float
    cpu: float
    winner: tuple[str, int, float]
    loss: float
    score: float


def joined(values: Sequence[object]) -> str:
    return ",".join(map(str, values))


def ours(setting: Setting, folder: Path, *more: str, checkout: Path = ROOT) -> list[str]:
    return [
        sys.executable, str(checkout / "train.py"), "-m", f"model={joined(setting.bases)}",
        f"lora.r={joined(setting.ranks)}", f"optimizer.lr={joined(setting.rates)}", "seed=1",
        f"dataset.max_train={setting.rows}", f"dataset.max_validation={setting.validation}",
        f"dataset.max_test={setting.test}", f"trainer.max_epochs={setting.epochs}",
        "trainer.batch_size=16", "evaluation.batch_size=64", "trainer.progress_bar=false",
        f"generation.max_new_tokens={setting.room}", "logger=none",
        f"hydra.launcher.n_jobs={setting.workers}", f"sweep.dir={folder}",
        f"paths.cache={folder / 'cache'}", *more,
    ]  # fmt: skip


def same_question(rows: Path) -> list[str]:
    """What makes an earlier version ask today's question: rows, bases and alpha."""
    with rows.open("w", newline="", encoding="utf-8") as handle:
        dialogues = generate_dialogues()
        writer = csv.DictWriter(handle, list(dialogues[0]))
        writer.writeheader()
        writer.writerows(dialogues)
    return [
        "dataset.source.kind=csv", f"dataset.source.path={rows}",
        f"model.path={models_folder()}/${{model.name}}", "lora.alpha=32",
    ]  # fmt: skip


def peer(setting: Setting, folder: Path, length_groups: bool) -> list[str]:
    return [
        sys.executable, str(ROOT / "benchmarks" / "sweep_peer.py"), "-m",
        f"base={joined(setting.bases)}", f"rank={joined(setting.ranks)}",
        f"lr={joined(setting.rates)}", f"rows={setting.rows}", f"epochs={setting.epochs}",
        f"validation={setting.validation}", f"test={setting.test}", f"room={setting.room}",
        f"length_groups={length_groups}", f"hydra.sweep.dir={folder}",
    ]  # fmt: skip


Result = tuple[float, tuple[str, int, float], float]


def our_results(folder: Path) -> Iterator[Result]:
    for path in folder.glob(f"*/{OUTCOME_FILE}"):
        # As it stands: an earlier version's record is none that this one reads.
        found = json.loads(path.read_text())
        config = found["config"]
        key = (found["model"]["name"], config["lora"]["r"], config["optimizer"]["lr"])
        scores = next(iter(found["tuned"].values()))["scores"]
        yield found["validation"]["val_loss"], key, scores[found["primary"]]


def peer_results(folder: Path) -> Iterator[Result]:
    for path in folder.glob("*/result.json"):
        found = json.loads(path.read_text())
        yield found["val_loss"], (found["base"], found["rank"], found["lr"]), found["exact_match"]


def run_with(checkout: Path, name: str, command: list[str], cwd: Path, **environment: str) -> float:
    """Run a command on the code of a checkout; return the CPU seconds that it took.

    SystemExit with its last words where it fails.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    path = os.pathsep.join([str(checkout / "src"), str(checkout)])
    run = subprocess.run(
        command, cwd=cwd, env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if run.returncode != 0:
        raise SystemExit(f"{name} failed:\n{(run.stderr or run.stdout)[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(
    name: str,
    command: list[str],
    results: Callable[[Path], Iterator[Result]],
    folder: Path,
    checkout: Path = ROOT,
) -> Measured:
    """Run a command to its end; see ``run_with``."""
    folder.mkdir(parents=True)
    begun = time.perf_counter()
    cpu = run_with(checkout, name, command, folder)
    wall = time.perf_counter() - begun
    loss, winner, score = min(results(folder))
    return Measured(name, wall, cpu, winner, loss, score)


def measure_all(setting: Setting, folder: Path, before: Path | None = None) -> Iterator[Measured]:
    halving = (
        f"sweep.halving.rungs={setting.rungs}", f"sweep.halving.keep={setting.keep}",
        f"sweep.halving.margin={setting.margin}", "sweep.halving.keep_each=[model]",
    )  # fmt: skip
    halved, grid, earlier, peers = (folder / name for name in ("halved", "grid", "earlier", "peer"))
    yield measure("halved", ours(setting, halved, *ALIKE, *halving), our_results, halved)
    yield measure("full grid", ours(setting, grid, *ALIKE), our_results, grid)
    if before is not None:
        command = ours(
            setting, earlier, *same_question(folder / "rows.csv"), checkout=before.resolve()
        )
        yield measure("full grid, before", command, our_results, earlier, before.resolve())
    for name, length_groups in (("length groups", True), ("its defaults", False)):
        own = peers / str(length_groups)
        command = peer(setting, own, length_groups)
        yield measure(f"Hydra basic, HF Trainer, {name}", command, peer_results, own)


def table(found: Sequence[Measured]) -> Iterator[str]:
    """Ratios are to the first row, in wall and in CPU seconds."""
    yield "| | wall s | × | CPU s | × | winner | validation loss | exact match |"
    yield "|---|---:|---:|---:|---:|---|---:|---:|"
    first = found[0]
    for row in found:
        base, rank, rate = row.winner
        yield (
            f"| {row.name} | {row.wall:.0f} | {row.wall / first.wall:.2f} | {row.cpu:.0f} | "
            f"{row.cpu / first.cpu:.2f} | {base} r={rank} {rate:g} | {row.loss:.4f} | "
            f"{row.score:.1%} |"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="two configurations of a few steps")
    parser.add_argument("--before", type=Path, help="a checkout of an earlier version")
    parser.add_argument("--folder", type=Path, help="kept; default: a temporary one")
    options = parser.parse_args(arguments)
    setting = TINY if options.tiny else Setting()
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        for one in measure_all(setting, options.folder or Path(temporary), options.before):
            print(f"{one.name}: {one.wall:.0f} s, {one.cpu:.0f} CPU s", flush=True)
            found.append(one)
    print(f"{setting.jobs} configurations, {os.cpu_count()} cores")
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
