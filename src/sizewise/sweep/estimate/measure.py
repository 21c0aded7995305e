"""A few real steps and answers of a kind of job, timed in a process of its own.

    python -m sizewise.sweep.estimate.measure

reads one JSON line per kind (``key`` and the configuration of a job) from standard input and
answers each with a line: what was measured, or why nothing was. It has the environment of a worker
and runs beside as many others as there will be workers, so that what they cost each other is in the
figures. Where a worker has one thread, seconds on a CPU are those of computing: a machine that is
busy with something else makes no estimate longer.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from pytorch_lightning import LightningModule as Module
from pytorch_lightning import Trainer

from sizewise.config import RunConfig
from sizewise.config.data import SPLITS
from sizewise.config.register import to_run_config
from sizewise.data.example import Example
from sizewise.data.tokens.encode import EncodedSplit
from sizewise.errors import DataError, SizewiseError, UnreachableError
from sizewise.evaluation.candidate_set import PRIOR_PROMPTS
from sizewise.evaluation.text import pad_id
from sizewise.job.answerers import kind_of_answerer
from sizewise.job.bases import loaded_bases, storage_of
from sizewise.job.data import PreparedJob, Task, answers_validation, load_plain_tasks
from sizewise.job.fitting import batches, build_module
from sizewise.job.language_model import LanguageModel
from sizewise.metrics.base import build_metrics
from sizewise.models.adapter.attach import attach_adapter, enable_checkpointing
from sizewise.models.likelihood import answer_log_probs
from sizewise.models.sources import is_local
from sizewise.record.logs import redirect
from sizewise.runtime import prepare_environment, quiet, resolve_device, use_threads
from sizewise.sweep.estimate.calibration import Measured, Texts
from sizewise.training.fit import fit_job
from sizewise.training.lightning_internals import StepCallback

STEPS, STEP_SECONDS = 13, 5.0
FEW, VALIDATED = 4, 48
ANSWER_SECONDS = 5.0
"""A batch that would take longer is replaced by one of half its size."""


def main() -> int:
    """Measure what standard input asks for; see the module."""
    with os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8") as replies:
        redirect(Path(os.devnull))
        logging.disable(logging.WARNING)
        prepare_environment(hub=False)
        quiet()
        process = Process()
        for line in iter(sys.stdin.readline, ""):
            asked = json.loads(line)
            cfg = to_run_config(asked["config"], check_types=False)
            found = measure(cfg, asked["texts_alone"], process)
            replies.write(json.dumps({"key": asked["key"], "measured": asdict(found)}) + "\n")
    return 0


@dataclass
class Process:
    """What this process has paid once: seconds of its imports and first calls; None: not yet."""

    start: float | None = None


def measure(cfg: RunConfig, texts_alone: str = "", process: Process | None = None) -> Measured:
    """Measure a kind of job in this process; nothing is fetched and nobody is asked.

    ``texts_alone``: why only texts are to be counted. They are counted too where measuring fails;
    the reason then stands in what is returned.
    """
    own_answers = cfg.dataset.teacher is None and cfg.dataset.answers_from is None
    dataset = replace(cfg.dataset, teacher=None, answers_from=None)
    trainer = replace(cfg.trainer, devices=1, num_nodes=1, strategy="auto", progress_bar=False)
    cfg = replace(cfg, dataset=dataset, trainer=trainer)
    reason, refused = texts_alone or why_not(cfg), False
    with tempfile.TemporaryDirectory() as folder, use_threads(trainer.num_threads):
        if not reason:
            try:
                return _Timed(cfg, Path(folder)).measured(process or Process())
            except Exception as error:  # whatever it is, the sweep is planned without it
                reason = _in_a_line(error)
                refused = own_answers and _is_refusal(error)
        try:
            return replace(plain_texts(cfg), reason=reason, refused=refused)
        except Exception as error:
            refused = not texts_alone and _is_refusal(error)
            return Measured({}, reason=_in_a_line(error), refused=refused)


def _is_refusal(error: Exception) -> bool:
    """Whether the data are here and cannot be used."""
    return isinstance(error, DataError) and not isinstance(error, UnreachableError)


def why_not(cfg: RunConfig) -> str:
    """Why a kind of job is not measured; empty where it is."""
    model = cfg.model
    if model.family in ("encoder", "endpoint"):
        return f"the seconds of an {model.family} are not measured"
    if cfg.evaluation.engine is not None or model.device_map is not None:
        return "a server of its own or a base over several devices is not started for an estimate"
    if model.has_weights and not is_local(model.path, model.revision, "config.json"):
        return "its weights are not on this machine, and an estimate fetches nothing"
    return ""


def _in_a_line(error: Exception) -> str:
    said = str(error) if isinstance(error, SizewiseError) else f"{type(error).__name__}: {error}"
    return (said.splitlines() or [""])[0]


def plain_texts(cfg: RunConfig) -> Measured:
    """Count the prompts of a job, and say whether the validation split is answered."""
    metrics, (first, *further) = build_metrics(cfg.metric), load_plain_tasks(cfg)
    there = bool(first.examples("validation"))
    sides = [there and answers_validation(cfg, metrics, side) for side in ("base", "tuned")]
    return Measured(texts_of(first, further), answers_validation=sides)


class _Timed:
    """The parts of one kind of job, each timed."""

    def __init__(self, cfg: RunConfig, folder: Path) -> None:
        self._cfg, self._folder = cfg, folder
        self._kind = kind_of_answerer(cfg)
        self._device = resolve_device(cfg.trainer)
        self._seconds = clock(self._device.type)

    def measured(self, process: Process) -> Measured:
        imports = process_seconds(self._seconds) if process.start is None else 0.0
        first, (template, tasks) = self._timed(self._read)
        again, _ = self._timed(self._read)
        metrics = tuple(build_metrics(self._cfg.metric))
        job = PreparedJob(
            self._cfg, self._folder, "estimate", self._device, metrics, tuple(tasks), template
        )
        sides = [job.validates(side) for side in ("base", "tuned")]
        texts = texts_of(job.task, job.tasks[1:])
        start = imports if process.start is None else process.start
        found = Measured(texts, start, first, again, answers_validation=sides)
        if self._kind is not LanguageModel:
            fit, model = self._timed(lambda: self._kind.load(job))
            answered, _ = self._timed(lambda: model.answer(job, job.task, "test", "base"))
            return replace(found, fit=fit, base=answered / max(1, len(job.task.examples("test"))))
        if process.start is None:
            process.start = start + self._timed(lambda: self._warm_up(job))[0]
        return self._model(replace(found, start=process.start), job)

    def _read(self) -> tuple[Any, list[Task]]:
        return self._kind.read_data(self._cfg, self._folder)

    def _warm_up(self, job: PreparedJob) -> None:
        """Call everything once: libraries import, allocate and compile when they are first used."""
        untouched = LanguageModel.load(job)
        self._answers(untouched, without_candidates(job), 1)
        if self._cfg.lora.trains:
            self._trained(Measured({}), untouched, without_candidates(job), 1)

    def _model(self, found: Measured, job: PreparedJob) -> Measured:
        loaded_bases.clear()
        load, untouched = self._timed(lambda: LanguageModel.load(job))
        keys = {n: untouched.untouched_key(job, job.task, n) for n in ("test", "validation")}
        prior, base = self._per_answer(untouched, job)
        single = self._answers(untouched, without_candidates(job), 1)
        found = replace(
            found, load=load, zero_shot=keys, batch=job.eval_batch_size, prior=prior, base=base,
            single=single,
        )  # fmt: skip
        return self._trained(found, untouched, job, STEPS) if self._cfg.lora.trains else found

    def _per_answer(self, model: LanguageModel, job: PreparedJob) -> tuple[float, float]:
        """Seconds of calibrating candidates, and of each answer in the batch that is used.

        Candidates are calibrated on some of the prompts that a job would take. Those prompts are
        answered afterwards without candidates, which were read behind them already.
        """
        on_test = job.cfg.evaluation.candidates_on is None
        job = everywhere(job)
        validation = job.task.encoded["validation"]
        some = sample(validation, FEW)
        task = replace(job.task, encoded={**job.task.encoded, "validation": some})
        job = replace(job, tasks=(task, *job.tasks[1:]))
        first, again = (self._answers(model, job, FEW) for _ in range(2))
        size = job.eval_batch_size
        size = size if again * size < ANSWER_SECONDS else max(FEW, size // 2)
        used = -(-len(validation) // max(1, -(-len(validation) // PRIOR_PROMPTS)))
        prior = max(0.0, FEW * (first - again)) * used / max(1, len(some))
        full = plain = self._answers(model, job, size)
        if job.candidates(job.task):
            plain = self._answers(model, without_candidates(job), size)
        if on_test:
            saved = used if job.validates("base" if model.untouched else "tuned") else 0
            return max(0.0, prior - saved * (full - plain)), full
        return prior + (len(validation) - used) * (full - plain), plain

    def _answers(self, model: LanguageModel, job: PreparedJob, count: int) -> float:
        """Answer ``count`` test prompts at even distances of length; return seconds of each."""
        split = sample(job.task.encoded["test"], count)
        if not split.examples:
            return 0.0
        folder = self._folder / f"answers{time.time_ns()}"
        evaluation = replace(job.cfg.evaluation, timed_answers=0, warmup_batches=0, retries=0)
        paths = replace(job.cfg.paths, cache=str(folder / "cache"))
        task = replace(job.task, encoded={**job.task.encoded, "test": split})
        cfg = replace(job.cfg, evaluation=evaluation, paths=paths)
        asked = replace(job, cfg=cfg, run_dir=folder, tasks=(task,))
        return self._timed(lambda: model.answer(asked, task, "test", "base"))[0] / len(split)

    def _trained(
        self, found: Measured, untouched: LanguageModel, job: PreparedJob, steps: int
    ) -> Measured:
        """Train a few steps, then measure the validation loss and the answers of the tuned."""
        cfg, padding = self._cfg, pad_id(untouched.template)
        model = attach_adapter(untouched.model, cfg.lora, storage_of(cfg)[0], cfg.seed)
        if cfg.trainer.gradient_checkpointing:
            enable_checkpointing(model)
        watch = Stopwatch(self._seconds)
        whole, _ = self._timed(lambda: self._fit(model, job.task, padding, steps, watch))
        found = replace(found, step=watch.steps, fit=whole - watch.whole)
        shown = sample(job.task.encoded["validation"], VALIDATED).encoded
        if steps == 1 or not shown:
            return found
        size = job.eval_batch_size
        seconds, _ = self._timed(lambda: answer_log_probs(model.eval(), shown, size, padding))
        tuned = LanguageModel(model.eval(), untouched.template, untouched=False)
        each = self._per_answer(tuned, as_long_as_references(job))[1]
        return replace(found, validation=seconds / len(shown), tuned=each)

    def _fit(self, model: Any, task: Task, padding: int, steps: int, watch: Stopwatch) -> None:
        cfg = self._cfg
        few = replace(
            cfg.trainer, max_steps=steps, max_epochs=-1, validate_at_start=False,
            validate_every=None, checkpoint_every=None,
        )  # fmt: skip
        unvalidated = replace(task, encoded={**task.encoded, "validation": EncodedSplit((), ())})
        folder = self._folder / f"fit{time.time_ns()}"
        data = batches(cfg, unvalidated, padding)
        fit_job(build_module(cfg, model), data, few, [watch], [], folder, cfg.seed)

    def _timed(self, call: Callable[[], Any]) -> tuple[float, Any]:
        started = self._seconds()
        found = call()
        return self._seconds() - started, found


class Stopwatch(StepCallback):
    """Seconds of every optimiser step but the first; ends the fit when there are enough.

    ``whole``: seconds of all of them.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._last = 0.0
        self.steps: list[float] = []
        self.whole = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: Module) -> None:
        self._last = self._seconds()

    def on_step_end(self, trainer: Trainer, pl_module: Module) -> None:
        now = self._seconds()
        self.whole += now - self._last
        if trainer.global_step > 1:
            self.steps.append(now - self._last)
        self._last = now
        if len(self.steps) > 2 and self.whole > STEP_SECONDS:
            trainer.should_stop = True


def everywhere(job: PreparedJob) -> PreparedJob:
    """The job with candidates wherever it answers."""
    evaluation = replace(job.cfg.evaluation, candidates_on=None)
    return replace(job, cfg=replace(job.cfg, evaluation=evaluation))


def without_candidates(job: PreparedJob) -> PreparedJob:
    evaluation = replace(job.cfg.evaluation, candidates=None)
    return replace(job, cfg=replace(job.cfg, evaluation=evaluation))


def as_long_as_references(job: PreparedJob) -> PreparedJob:
    """The job with answers no longer than references: so a tuned model writes, and a few steps do
    not teach it.
    """
    lengths = [len(item.answer_ids) for item in job.task.encoded["test"].encoded]
    generation = job.cfg.generation
    most = min(max(lengths, default=1), generation.max_new_tokens)
    return replace(job, cfg=replace(job.cfg, generation=replace(generation, max_new_tokens=most)))


def clock(device: str) -> Callable[[], float]:
    """Seconds of computing where that is one thread's, else those that pass."""
    alone = device == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def process_seconds(seconds: Callable[[], float]) -> float:
    """Seconds of this process so far, by the same clock."""
    if seconds is time.process_time:
        return time.process_time()
    return time.time() - psutil.Process().create_time()


def texts_of(task: Task, further: Sequence[Task]) -> dict[str, Texts]:
    """Count the prompts of every split, and of further test sets under ``test/NAME``."""
    own = {split: _texts(task.examples(split)) for split in SPLITS}
    return own | {f"test/{each.name}": _texts(each.examples("test")) for each in further}


def _texts(examples: Sequence[Example]) -> Texts:
    prompts = sum(len(m.content.encode()) for e in examples for m in e.messages)
    return Texts(len(examples), prompts, sum(len(e.answer.encode()) for e in examples))


def sample(split: EncodedSplit, count: int) -> EncodedSplit:
    """Return ``count`` examples at even distances in the order of their lengths."""
    order = sorted(range(len(split)), key=lambda i: len(split.encoded[i].prompt_ids))
    step = max(1.0, len(order) / max(count, 1))
    kept = [order[int((number + 0.5) * step)] for number in range(min(count, len(order)))]
    return EncodedSplit([split.encoded[i] for i in kept], tuple(split.examples[i] for i in kept))


if __name__ == "__main__":
    raise SystemExit(main())
