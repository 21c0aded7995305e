"""Times the evaluation of a model beside that of another checkout of sizewise, in pairs.

Each checkout has a process of its own that loads the model once and then answers the same examples
whenever it is its turn: `python benchmarks/evaluation.py --other ../older/src model=nano`. Printed
are CPU seconds of both, the median of the paired ratios, and whether texts and scores agree.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent / "src"


def serve(options: argparse.Namespace) -> None:
    """Load everything, then evaluate once for every line on standard input."""
    once = (whole_job if options.job else prepare)(options)
    for _ in sys.stdin:
        started, cpu = time.perf_counter(), time.process_time()
        rows = once()
        spent = time.process_time() - cpu, time.perf_counter() - started
        print(json.dumps({"cpu": spent[0], "wall": spent[1], "rows": rows}), flush=True)


def whole_job(options: argparse.Namespace) -> Callable[[], Any]:
    """Return what answers both splits as a job does: calibrated on validation, nothing cached."""
    from dataclasses import replace

    import torch

    from sizewise.composition.compose import compose_run
    from sizewise.job.answerers import LanguageModel
    from sizewise.job.run import prepare as prepare_job
    from sizewise.models.adapter.attach import load_adapter

    torch.set_num_threads(1)
    sizes = [f"dataset.max_{split}={options.examples}" for split in ("test", "validation")]
    chosen = [*sizes, f"evaluation.batch_size={options.batch}", "logger=none", *options.overrides]
    cfg = compose_run(chosen)
    job = prepare_job(cfg, Path(tempfile.mkdtemp()), "benchmark")
    loaded = LanguageModel.load(job)
    model: Any = load_adapter(loaded.model, options.adapter) if options.adapter else loaded.model

    def once() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            paths = replace(cfg.paths, cache=str(Path(folder) / "cache"))
            mine = replace(job, cfg=replace(cfg, paths=paths), run_dir=Path(folder))
            answerer = LanguageModel(model, loaded.template, untouched=not options.adapter)
            side = "tuned" if options.adapter else "base"
            asked = (("validation", f"{side}_validation"), ("test", side))
            answers = [answerer.answer(mine, mine.task, split, kind) for split, kind in asked]
        found = [p for each in answers for p in each.predicted.predictions]
        return [(p.text, p.candidate, p.log_prob, p.token_log_prob) for p in found]

    return once


def prepare(options: argparse.Namespace) -> Callable[[], Any]:
    """Return what evaluates the test examples as a job does, with its candidates."""
    import torch

    from sizewise.composition.compose import compose_run
    from sizewise.evaluation.candidate_set import encode_candidates, read_candidates
    from sizewise.evaluation.predict import predict
    from sizewise.job.data import load_encoded_tasks
    from sizewise.models.adapter.attach import load_adapter
    from sizewise.models.base import load_base
    from sizewise.models.tokenizer import load_template
    from sizewise.record.predictions import PredictionStore

    torch.set_num_threads(1)
    cfg = compose_run([f"dataset.max_test={options.examples}", *options.overrides])
    template = load_template(cfg.model)
    task = load_encoded_tasks(cfg, template, None)[0]
    model: Any = load_base(cfg.model, cfg.quantization)
    if options.adapter:
        model = load_adapter(model, options.adapter)
    candidates = None
    if options.candidates:
        texts = read_candidates("train", task.examples("train"))
        candidates = encode_candidates(texts, template, task.examples("test")[0].messages)

    def once() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            store = PredictionStore(Path(folder) / "p.jsonl", "key")
            found = predict(
                model, task.encoded["test"], template, cfg.generation, store, options.batch,
                candidates=candidates,
            )  # fmt: skip
        return [(p.text, p.candidate, p.log_prob, p.token_log_prob) for p in found.predictions]

    return once


class Server:
    """A checkout's process."""

    def __init__(self, source: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, *sys.argv[1:], "--serve"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def once(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found


def differences(ours: list[Any], theirs: list[Any]) -> str:
    pairs = list(zip(ours, theirs, strict=True))
    texts = sum(a[0] == b[0] for a, b in pairs)
    chosen = sum(a[1] == b[1] for a, b in pairs)
    gap = max(max(abs(a[2] - b[2]), abs(a[3] - b[3])) for a, b in pairs)
    return (
        f"{texts} of {len(pairs)} texts and {chosen} candidates are the same; "
        f"largest difference of a log-probability {gap:.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*", help="of the job: model=nano dataset=…")
    parser.add_argument("--other", type=Path, required=True, help="src of the other checkout")
    parser.add_argument("--adapter", help="folder of an adapter (default: the untouched base)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--candidates", action="store_true", help="also score training answers")
    parser.add_argument("--job", action="store_true", help="both splits, calibrated on validation")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options)
        return
    ours, theirs = Server(HERE), Server(options.other.resolve())
    first = ours.once(), theirs.once()  # warms up
    print(differences(first[0]["rows"], first[1]["rows"]))
    pairs = [(ours.once(), theirs.once()) for _ in range(options.repeats)]
    for clock in ("cpu", "wall"):
        here, there = ([p[i][clock] for p in pairs] for i in (0, 1))
        ratios = sorted(b / a for a, b in zip(here, there, strict=True))
        print(
            f"{clock}: {statistics.median(here):.2f} s against {statistics.median(there):.2f} s; "
            f"times as fast: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
