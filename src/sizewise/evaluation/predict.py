"""All examples of a split through one model, crash-safe, with the batch that fits."""

from __future__ import annotations

import dataclasses
import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sizewise.config.evaluation import GenerationConfig
from sizewise.data.example import Example, as_examples
from sizewise.data.tokens.encode import EncodedSplit
from sizewise.data.tokens.table import Encoded
from sizewise.data.tokens.template import Template
from sizewise.devices import (
    BatchSize,
    PeakMemory,
    conditions,
    device_of,
    halve_on_oom,
    is_out_of_memory,
)
from sizewise.errors import EvaluationError
from sizewise.evaluation.answer import Measurer
from sizewise.evaluation.beginning import Beginning
from sizewise.evaluation.candidate_set import CandidateSet
from sizewise.evaluation.timing import shortened, time_batch
from sizewise.evaluation.together import company
from sizewise.metrics.base import ExampleMetric
from sizewise.models.adapter.merged import merged
from sizewise.models.likelihood import plan_batches
from sizewise.record.predictions import Bill, Prediction, PredictionStore
from sizewise.record.progress import ANSWERS, stage
from sizewise.signals import raise_if_lost
from sizewise.training.seat import job_clock

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predicted:
    """Predictions of a whole split and what they cost.

    Attributes:
        predictions: one per example, in the split's order.
        seconds: wall time, added up over the processes that made the predictions; None where one
            of them left no word of it. Of what jobs of a pack share each has an equal part.
        peak_bytes: peak memory of the same; None where the system does not tell.
        batch_size: the batch size that fitted.
        out_of_memory: batch sizes that did not fit.
        observed: what metrics measured of the model itself, by ``metric/score``.
        conditions: batch size, device and threads, which latencies depend on.
        prior: what the candidates were calibrated by, one number for each.
        jobs: for how many a decoding was, on average (1: it was alone).
    """

    predictions: tuple[Prediction, ...]
    seconds: float | None
    peak_bytes: int | None
    batch_size: int
    out_of_memory: tuple[int, ...] = ()
    observed: Mapping[str, float] = field(default_factory=dict)
    conditions: Mapping[str, str | int] = field(default_factory=dict)
    prior: tuple[float, ...] = ()
    jobs: float = 1.0


@dataclass(frozen=True)
class Answers:
    """The answers to one split, where they are kept, and whether another run computed them."""

    predicted: Predicted
    store: PredictionStore
    reused: bool = False
    warnings: tuple[str, ...] = ()


def predict(
    model: Any,
    split_: EncodedSplit,
    template: Template,
    generation: GenerationConfig,
    store: PredictionStore,
    batch_size: int,
    warmup_batches: int = 1,
    retries: int = 3,
    metrics: Sequence[ExampleMetric] = (),
    candidates: CandidateSet | None = None,
    progress: Callable[[int, int], None] | None = None,
    timed: bool = True,
) -> Predicted:
    """Let a language model answer every example that ``store`` does not hold yet; see ``measured``.

    ``metrics`` may measure the model itself (``ExampleMetric.observe``); of ``candidates`` the
    best one in each reading is kept for each example. An adapter answers merged where that is exact
    (``merged``); where it is not, and nothing is drafted (``Measurer.drafts``), with the other jobs
    of its pack (``together``). Where any answer is drafted or shared, one batch is decoded once
    more, to be timed, unless times are not wanted (``timed``); elsewhere all are, after a warm-up.
    """
    _refuse_none(split_)
    beginning = Beginning.of(model, (item.prompt_ids for item in split_.encoded))
    measure = Measurer(model, template, generation, candidates, beginning)
    device, order = device_of(model), partial(_in_order, split_)
    warmup_batches = 0 if measure.drafts else warmup_batches
    with merged(model) as kept, company(model, order, alone=kept > 0 or measure.drafts) as others:
        measure = dataclasses.replace(measure, decode=others.decode)
        warm_up = dataclasses.replace(measure, generation=shortened(generation))
        predicted = measured(
            others.sparing(measure), split_, store, device, batch_size, others.sparing(warm_up),
            warmup_batches, retries, progress, kept,
        )  # fmt: skip
        predicted = dataclasses.replace(predicted, jobs=others.jobs)
        if timed and any(math.isnan(row.latency) for row in predicted.predictions):
            sample = time_batch(model, split_, template, generation, predicted.batch_size)
            predicted = _with_latencies(predicted, sample)
    prior = (candidates.prior if candidates is not None else None) or ()
    found = observations(model, template, metrics)
    return dataclasses.replace(predicted, observed=found, prior=prior)


def _with_latencies(predicted: Predicted, timed: Mapping[str, tuple[float, int]]) -> Predicted:
    """Give the examples of a timed batch its time; of the others it is not known.

    Nor of some that were timed as they were made: they are no sample of all.
    """
    rows = tuple(
        dataclasses.replace(row, latency=timed[row.id][0], batch_size=timed[row.id][1])
        if row.id in timed
        else dataclasses.replace(row, latency=math.nan)
        for row in predicted.predictions
    )
    return dataclasses.replace(predicted, predictions=rows)


Measure = Callable[[Sequence[Example], Sequence[Encoded]], list[Prediction]]


def measured(
    measure: Measure,
    split_: EncodedSplit,
    store: PredictionStore,
    device: torch.device,
    batch_size: int,
    warm_up: Measure,
    warmup_batches: int = 1,
    retries: int = 3,
    progress: Callable[[int, int], None] | None = None,
    kept_bytes: int = 0,
) -> Predicted:
    """Predict every example that ``store`` does not hold yet and return all of them.

    Batches are planned over the whole split, so that a resumed evaluation forms the same ones.

    Args:
        measure: answers one batch.
        split_: the examples.
        store: where answers are kept as they are made.
        device: where the model is.
        batch_size: examples at once; fewer where memory does not suffice.
        warm_up: answers a batch whose answers are forgotten: first calls compile and allocate.
        warmup_batches: so many batches are warmed up with.
        retries: of a batch that failed for a passing reason.
        progress: called with the number of examples done and of all.
        kept_bytes: memory that is held for afterwards, and is no part of the peak.

    Raises:
        EvaluationError: the split is empty.
        OutOfMemoryError: not even one example at a time fits.
    """
    _refuse_none(split_)
    batches = BatchSize(batch_size, lower="dataset.max_length or generation.max_new_tokens")
    ids = list(as_examples(split_.examples).ids())
    counts = Counter(ids)
    done = {prediction.id: prediction for prediction in store.read()}
    answered = sum(counts[own] for own in done)
    bill = Bill(store.path, len(done), PeakMemory(device, kept_bytes), job_clock)
    pending = _pending(split_, ids, set(done), batch_size)
    for _ in halve_on_oom(
        pending[:warmup_batches], batches, partial(_measure, warm_up, split_, retries)
    ):
        pass
    if progress is not None:
        progress(answered, len(ids))
    bill.begin()
    for _, rows in halve_on_oom(pending, batches, partial(_measure, measure, split_, retries)):
        new = {row.id: row for row in rows if row.id not in done}
        bill.note(len(new))
        store.append(new.values())
        done |= new
        answered += sum(counts[own] for own in new)
        if progress is not None:
            progress(answered, len(ids))
    found = tuple(done[own] for own in ids)
    how = conditions(device, batch_size)
    failed = tuple(batches.failed)
    return Predicted(found, bill.seconds, bill.peak_bytes, batches.size, failed, conditions=how)


def _refuse_none(split_: EncodedSplit) -> None:
    if not split_.examples:
        raise EvaluationError("There is no example to evaluate. Check the filters of the data set.")


def observations(
    model: Any, template: Template, metrics: Sequence[ExampleMetric]
) -> dict[str, float]:
    """Return what the metrics measure of the model itself, by ``metric/score``."""
    return {
        f"{metric.name}/{name}": value
        for metric in metrics
        for name, value in metric.observe(model, template).items()
    }


def _pending(
    split_: EncodedSplit, ids: Sequence[str], done: set[str], batch_size: int
) -> list[list[int]]:
    """Batches with at least one example left; an example that occurs twice is predicted once."""
    first = {own: i for i, own in reversed(list(enumerate(ids)))}
    positions = sorted(first.values())
    plan = plan_batches([len(split_.encoded[i].prompt_ids) for i in positions], batch_size)
    batches = [[positions[i] for i in batch] for batch in plan]
    return [b for b in batches if any(ids[i] not in done for i in b)]


def _in_order(split_: EncodedSplit) -> list[str]:
    """Return the ids of a split in the order in which it is answered."""
    ids = list(as_examples(split_.examples).ids())
    return [ids[i] for batch in _pending(split_, ids, set(), len(ids)) for i in batch]


def _measure(
    measure: Measure, split_: EncodedSplit, retries: int, batch: Sequence[int]
) -> list[Prediction]:
    examples, encoded = [split_.examples[i] for i in batch], [split_.encoded[i] for i in batch]
    return with_retries(lambda: measure(examples, encoded), retries)


Result = TypeVar("Result")

_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_PASSING = (
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUBLAS_STATUS_INTERNAL_ERROR",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "CUDA driver error",
    "CUDA error: unknown error",
    "NCCL",
)


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed a moment later (I/O, network, a driver's hiccup).

    Running out of memory is not: that is answered by a smaller batch.
    """
    if is_out_of_memory(error) or isinstance(error, _LASTING):
        return False
    if isinstance(error, OSError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _PASSING)


def with_retries(
    call: Callable[[], Result],
    retries: int,
    pause: Callable[[float], None] | None = None,
) -> Result:
    """Return ``call()``; after a transient failure wait 1, 2, 4, … seconds and try again."""
    for attempt in range(retries):
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("Attempt %d of %d failed: %s", attempt + 1, retries + 1, error)
            (pause or time.sleep)(2.0**attempt)
    return call()


Tell = Callable[[int, int], None]


@contextmanager
def evaluation_bar(label: str, wanted: bool) -> Iterator[Tell]:
    """Yield what is to be called with the examples done and all of them.

    Where standard error is a terminal and a bar is ``wanted`` it is drawn when it is told, never
    beside a measured batch. The job's own stand and log are told in any case. Telling raises
    KeyboardInterrupt where the one of a signal was lost.
    """
    with ExitStack() as stack:
        told: list[Callable[[int], None]] = []

        def tell(done: int, total: int) -> None:
            raise_if_lost()
            if not told:
                told.append(stage(ANSWERS, total, done, label))
                if wanted and sys.stderr.isatty():
                    told.append(stack.enter_context(_bar(label, total)))
            for each in told:
                each(done)

        yield tell


@contextmanager
def _bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    bar = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), auto_refresh=False, transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done, refresh=True)
