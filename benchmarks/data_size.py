"""Rows to token ids at size: seconds, memory and growth, beside the ``datasets`` library.

    python benchmarks/data_size.py --rows 10000 100000 1000000

Every measurement is a process of its own, whose memory, and that of its children, is summed twice
a second (proportional set size: a page that several processes map counts once). ``datasets`` reads
the file and tokenises the same texts with two processes, without templates, masks, splits or a
search for shared questions.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

COLUMNS = ("question", "answer", "topic")


def write_rows(path: Path, rows: int) -> None:
    """Write a CSV file of about a kilobyte a row."""
    from sizewise.embedded.dialogues import generate_dialogues

    draw = random.Random(0)
    words = sorted({word for row in generate_dialogues() for word in row["dialogue"].split()})
    with path.open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow(COLUMNS)
        for number in range(rows):
            question, answer = (" ".join(draw.choices(words, k=n)) for n in (70, 100))
            table.writerow([f"{question} {number}", answer, f"t{draw.randrange(20)}"])


def prepare_ours(path: Path, cache: Path) -> int:
    """Read, split and encode as a job does; return the number of tokens."""
    from hydra import compose, initialize_config_dir

    from sizewise.commands.run import prepare
    from sizewise.config import conf_dir, to_run_config
    from sizewise.data.tokens.table import table_of
    from sizewise.job.data import load_encoded_tasks
    from sizewise.models.tokenizer import load_template

    prepare()
    overrides = [
        "model=nano", "dataset=csv", f"dataset.source.path={path}", "dataset.name=size",
        'dataset.prompt="{question}"', 'dataset.answer="{answer}"', "dataset.max_length=2048",
        "metric=[perplexity]", f"paths.cache={cache}",
    ]  # fmt: skip
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = to_run_config(compose("train", overrides=overrides))
    template = load_template(cfg.model)
    started()
    (task,) = load_encoded_tasks(cfg, template, None)
    tables = [table_of(split.encoded) for split in task.encoded.values()]
    return int(sum(t.prompt_lengths.sum() + t.answer_lengths.sum() for t in tables))


def prepare_theirs(path: Path, cache: Path) -> int:
    """Read and tokenise with ``datasets`` and two processes; return the number of tokens."""
    from importlib.resources import files

    import datasets
    from transformers import AutoTokenizer

    folder = files("sizewise.embedded").joinpath("models", "nano")
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    datasets.disable_progress_bars()
    started()

    def tokenised(batch: dict[str, list[str]]) -> dict[str, Any]:
        plain = {"return_attention_mask": False, "return_token_type_ids": False}
        return {
            name: tokenizer(batch[name], add_special_tokens=False, **plain)["input_ids"]
            for name in ("question", "answer")
        }

    rows = datasets.load_dataset("csv", data_files=str(path), cache_dir=str(cache), split="train")
    done = rows.map(tokenised, batched=True, num_proc=2, remove_columns=list(COLUMNS))
    lengths = [
        column.chunk(i).value_lengths()
        for column in (done.data["question"], done.data["answer"])
        for i in range(column.num_chunks)
    ]
    return int(sum(part.sum().as_py() or 0 for part in lengths))


WAYS = {"sizewise": prepare_ours, "datasets": prepare_theirs}
_BEGUN: dict[str, float] = {}


def started() -> None:
    """Note the time, the processor's seconds and the memory after the imports."""
    _BEGUN.update(wall=time.perf_counter(), cpu=_cpu(), before=memory_of(os.getpid()))


def _cpu() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in both)


def memory_of(pid: int) -> float:
    """Return the memory of a process and its children in MiB; 0 where one is gone."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return float(sum(one.memory_full_info().pss for one in family)) / 2**20
    except psutil.Error:
        return 0.0


def measure(way: str, path: Path) -> dict[str, float]:
    """Run one way in a process of its own, with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, "--way", way, "--file", str(path), "--cache", cache]
        environment = {**os.environ, "HF_DATASETS_OFFLINE": "1", "HF_HOME": cache}
        output, peak = Path(cache) / "output", 0.0
        with output.open("w") as handle:
            process = subprocess.Popen(command, stdout=handle, env=environment)
            while process.poll() is None:
                peak = max(peak, memory_of(process.pid))
                time.sleep(0.5)
        if process.returncode:
            raise SystemExit(f"{way} failed")
        found: dict[str, float] = json.loads(output.read_text().splitlines()[-1])
    return {**found, "peak": peak}


def one(way: str, path: Path, cache: Path) -> None:
    """Do the work of one process and print what it took."""
    tokens = WAYS[way](path, cache)
    wall, cpu = time.perf_counter() - _BEGUN["wall"], _cpu() - _BEGUN["cpu"]
    print(json.dumps({"wall": wall, "cpu": cpu, "tokens": tokens, "before": _BEGUN["before"]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--cache", type=Path)
    given = parser.parse_args()
    if given.way:
        one(given.way, given.file, given.cache)
        return
    print("| rows | way | seconds | CPU seconds | peak MiB | after imports | tokens |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for rows in given.rows:
            path = Path(folder) / f"{rows}.csv"
            write_rows(path, rows)
            for way in WAYS:
                f = measure(way, path)
                print(
                    f"| {rows:,} | {way} | {f['wall']:.1f} | {f['cpu']:.1f} | {f['peak']:.0f} | "
                    f"{f['before']:.0f} | {f['tokens']:,} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
