"""What kinds of jobs cost on this machine: measured once, kept by content.

A kind is what decides the seconds of a step and of an answer: base, storage, adapter (whatever its
rank), batch, data and decoding, on this machine with so many workers. Seeds, rates, ranks and the
number of training examples are no part of it.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import platform
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sizewise.config.data import SPLITS
from sizewise.files import hash_text, key_text, read_json, sealed, unsealed, write_json
from sizewise.job.submit import Job
from sizewise.record.kinds import check_kinds
from sizewise.sweep.launch.slot import Slot
from sizewise.words import plural

log = logging.getLogger(__name__)
MODULE = "sizewise.sweep.estimate.measure"
FOLDER = "estimates"
VERSION = 1
# A kind that takes longer than that is left out; imports come on top.
MOST_SECONDS, IMPORT_SECONDS = 120.0, 120.0
LIBRARIES = ("sizewise", "torch", "transformers", "peft")
_DECIDES = ("model", "quantization", "generation", "metric")
_TRAINER = ("batch_size", "accumulate", "precision", "accelerator", "gradient_checkpointing",
            "num_threads", "deterministic")  # fmt: skip
_EVALUATION = ("batch_size", "zero_shot", "objective", "answer_validation", "candidates",
               "candidates_on", "engine")  # fmt: skip
# Keys of a data set that change how much there is, or who wrote it, not what one example costs.
_AMOUNT = ("max_train", "max_validation", "teacher", "teaching", "answers_from")
_LORA = ("method", "target", "dropout")


@dataclass(frozen=True)
class Texts:
    """Prompts of a split: how many, the bytes of all, and the bytes of all references."""

    count: int
    prompt_bytes: int
    answer_bytes: int


@dataclass(frozen=True)
class Measured:
    """Seconds of one kind of job on this machine. What a kind has no use for is 0.

    Attributes:
        texts: prompts by split, and of further test sets under ``test/NAME``.
        start: a worker's imports and first calls.
        first_data: reading the data the first time in a process.
        data: reading it again.
        load: the base.
        step: each optimiser step that was timed, without the first.
        fit: what a fit takes beside its steps; of a classical baseline the whole of it.
        validation: the validation loss, per example.
        base: an answer of the untouched model, with all likelihoods that are read with it.
        tuned: the same of the tuned one.
        prior: what is read of candidates once per model, to calibrate them on validation prompts.
        single: one answer at batch 1.
        answers_validation: whether the untouched and the tuned model answer that split, too.
        zero_shot: keys of the untouched model's answers in the cache, by split.
        batch: examples that are answered together.
        reason: why there are no seconds; empty where there are. Texts may be known all the same.
        refused: whether the reason is that the data cannot be used: jobs of this kind all fail.
    """

    texts: Mapping[str, Texts]
    start: float = 0.0
    first_data: float = 0.0
    data: float = 0.0
    load: float = 0.0
    step: list[float] = field(default_factory=list)
    fit: float = 0.0
    validation: float = 0.0
    base: float = 0.0
    tuned: float = 0.0
    prior: float = 0.0
    single: float = 0.0
    answers_validation: list[bool] = field(default_factory=lambda: [False, False])
    zero_shot: Mapping[str, str] = field(default_factory=dict)
    batch: int = 1
    reason: str = ""
    refused: bool = False


def of_record(record: Any) -> Measured:
    """Read what was measured; ValueError, TypeError or KeyError where a record is none."""
    check_kinds(record, Measured)
    texts = {name: Texts(**each) for name, each in record["texts"].items()}
    return Measured(**{**record, "texts": texts})


Found = Mapping[str, Measured]
"""What is known of every kind, by its key."""


def kind_key(config: Mapping[str, Any], workers: int, threads: int | None) -> str:
    """Name the kind of a job on this machine (24 hex digits)."""
    parts: dict[str, Any] = {name: config.get(name) for name in _DECIDES}
    data = [_costly(each) for each in (config.get("eval_dataset") or {}).values()]
    own = {k: v for k, v in _costly(config.get("dataset")).items() if k != "max_test"}
    parts["data"] = [own, *data]
    for name, keys in (("trainer", _TRAINER), ("evaluation", _EVALUATION), ("lora", _LORA)):
        node = config.get(name) or {}
        parts[name] = {key: node.get(key) for key in keys}
    if parts["lora"]["method"] == "none":  # nothing is trained
        parts["lora"] = parts["trainer"]["accumulate"] = None
    where: list[Any] = [platform.node(), platform.machine(), os.cpu_count(), workers, threads]
    where += [os.environ.get("CUDA_VISIBLE_DEVICES"), _versions()]
    return hash_text(key_text([VERSION, parts, where]), 24)


def _costly(dataset: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (dataset or {}).items() if name not in _AMOUNT}


@functools.cache
def _versions() -> list[str]:
    return [version(name) for name in LIBRARIES]


def representatives(jobs: Mapping[str, Job], keys: Mapping[str, str]) -> dict[str, Job]:
    """Return a job of every kind, with as many examples of every split as any of that kind.

    ``jobs`` and ``keys`` are by identity.
    """
    chosen: dict[str, Job] = {}
    for identity, job in jobs.items():
        key = keys[identity]
        chosen[key] = _with_examples_of(chosen[key], job) if key in chosen else job
    return chosen


Limits = Mapping[str, int | None]
"""At most so many examples, by split; None: all that there are."""


def limits_of(config: Mapping[str, Any]) -> Limits:
    """What a configuration makes of its own data set."""
    dataset = config.get("dataset") or {}
    return {split: dataset.get(f"max_{split}") for split in SPLITS}


def _with_examples_of(job: Job, other: Job) -> Job:
    own, others = limits_of(job.config), limits_of(other.config)
    more = {f"max_{split}": others[split] for split in SPLITS if _more(others[split], own[split])}
    dataset = {**(job.config.get("dataset") or {}), **more}
    return replace(job, config={**job.config, "dataset": dataset}) if more else job


def _more(limit: int | None, other: int | None) -> bool:
    return other is not None and (limit is None or limit > other)


def kept(chosen: Mapping[str, Job], cache: Path) -> dict[str, Measured]:
    """Return what was measured before and still holds: with no fewer examples than are chosen."""
    found = {}
    for key, job in chosen.items():
        try:
            record = unsealed(read_json(_path(cache, key)) or {})
            measured, limits = of_record(record["measured"]), record["limits"]
            check_kinds(limits, Limits)
        except (ValueError, TypeError, KeyError):
            continue
        wanted = limits_of(job.config)
        if not any(_more(wanted[split], limits.get(split)) for split in SPLITS):
            found[key] = measured
    return found


def _path(cache: Path, key: str) -> Path:
    return cache / FOLDER / f"{key}.json"


def calibrate(
    chosen: Mapping[str, Job], places: Sequence[Slot], cache: Path, texts_alone: str = ""
) -> Found:
    """Return what every kind costs, measuring what is not known yet.

    Args:
        chosen: a job of every kind.
        places: where jobs are going to run, one per worker; as many processes measure at once.
        cache: where measurements are kept.
        texts_alone: why seconds of this machine would say nothing; only texts are counted then.
    """
    found = {} if texts_alone else kept(chosen, cache)
    missing = {key: job for key, job in chosen.items() if key not in found}
    if missing and not texts_alone:
        log.info(
            "Timing a few steps and answers of %s; they are kept for the next plan.",
            plural(len(missing), "kind") + " of jobs",
        )
    for key, measured in _ask(missing, places, texts_alone) if missing else ():
        found[key] = measured
        if not measured.reason:
            _keep(_path(cache, key), measured, limits_of(chosen[key].config))
    for key in missing:
        found.setdefault(key, Measured({}, reason="measuring it broke off or took too long"))
    return found


def _keep(path: Path, measured: Measured, limits: Limits) -> None:
    try:
        write_json(path, sealed({"measured": asdict(measured), "limits": limits}))
    except OSError as error:
        log.warning("%s cannot be written (%s): the next plan measures again.", path, error)


def _ask(
    chosen: Mapping[str, Job], places: Sequence[Slot], texts_alone: str
) -> Iterator[tuple[str, Measured]]:
    """Divide the kinds among as many processes as there are places; yield answers as they come."""
    count = min(len(places), len(chosen))
    questions = [_question(key, job, texts_alone) for key, job in chosen.items()]
    shares = [questions[number::count] for number in range(count)]
    children = [_begin(place) for place in places[:count]]
    deadline = time.monotonic() + IMPORT_SECONDS + MOST_SECONDS * max(map(len, shares))
    try:
        with selectors.DefaultSelector() as selector:
            for child, share in zip(children, shares, strict=True):
                left = iter(share)
                _send(child, next(left))
                selector.register(_output(child), selectors.EVENT_READ, (child, left))
            while selector.get_map() and (seconds := deadline - time.monotonic()) > 0:
                for ready, _ in selector.select(seconds):
                    output: Any = ready.fileobj
                    if not (line := output.readline()):
                        selector.unregister(output)
                        continue
                    child, left = ready.data
                    _send(child, next(left, None))
                    reply = json.loads(line)
                    yield reply["key"], of_record(reply["measured"])
    finally:
        for child in children:
            child.kill()
            child.communicate()


def _question(key: str, job: Job, texts_alone: str) -> str:
    asked = {"key": key, "config": dict(job.config), "texts_alone": texts_alone}
    return json.dumps(asked, default=str)


def _begin(place: Slot) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,  # what was read ahead would wake no selector
        env=place.environment(),
    )


def _send(child: subprocess.Popen[bytes], line: str | None) -> None:
    """Ask one question, once the last was answered: with more, both pipes might be full."""
    assert child.stdin is not None
    if line is None:
        child.stdin.close()
        child.stdin = None
        return
    try:
        child.stdin.write(f"{line}\n".encode())
    except BrokenPipeError:
        log.warning("A process that was to measure ended early (exit %s).", child.poll())


def _output(child: subprocess.Popen[bytes]) -> Any:
    assert child.stdout is not None
    return child.stdout
