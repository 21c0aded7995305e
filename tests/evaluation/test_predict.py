from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from sizewise.config.data import DatasetConfig
from sizewise.config.evaluation import GenerationConfig
from sizewise.data.rows.examples import make_examples
from sizewise.errors import EvaluationError, OutOfMemoryError
from sizewise.evaluation.answer import REJECTED_LOG_PROB, REJECTED_TOKENS
from sizewise.evaluation.endpoint import answered
from sizewise.evaluation.predict import is_transient, measured, predict, with_retries
from sizewise.models.likelihood import answer_log_probs
from sizewise.record.predictions import Prediction, PredictionStore

from .helpers import Pair, StubSplit, StubTemplate, fails_above, make_split

GREEDY = GenerationConfig(max_new_tokens=6)


def run(model: Any, split: StubSplit, template: StubTemplate, path: Path, **options: Any) -> Any:
    store = PredictionStore(path, "key")
    options = {"batch_size": 4, "generation": GREEDY} | options
    return predict(model, split, template, store=store, **options)


def assert_same(found: tuple[Prediction, ...], expected: tuple[Prediction, ...]) -> None:
    """They agree in what does not depend on timings and batch sizes."""
    assert [(p.id, p.text, p.new_tokens) for p in found] == [
        (p.id, p.text, p.new_tokens) for p in expected
    ]
    likelihoods = [p.log_prob for p in expected]
    assert [p.log_prob for p in found] == pytest.approx(likelihoods, abs=1e-3)


def test_every_example_in_the_order_of_the_split(causal, split, template, tmp_path) -> None:
    done: list[tuple[int, int]] = []
    found = run(causal, split, template, tmp_path / "p.jsonl", progress=lambda *c: done.append(c))
    assert [p.id for p in found.predictions] == [e.id for e in split.examples]
    assert done == [(0, 8), (4, 8), (8, 8)]
    likelihoods = answer_log_probs(causal, split.encoded, 1)
    assert [p.log_prob for p in found.predictions] == pytest.approx(likelihoods, rel=1e-4)
    first = found.predictions[0]
    assert (first.group, first.reference, first.answer_bytes) == ("g0", "E11.0", 5)
    assert (first.answer_tokens, first.prompt_tokens) == (6, len(split.encoded[0].prompt_ids))
    assert {p.batch_size for p in found.predictions} == {4}
    assert found.batch_size == 4
    assert found.conditions["batch_size"] == 4
    assert found.conditions["threads"] == torch.get_num_threads()
    assert found.conditions["device"]
    assert found.out_of_memory == ()
    assert found.peak_bytes > 2**20


def test_a_prediction_makes_each_example_once(tmp_path, monkeypatch) -> None:
    """However many batches there are, and whatever progress says after each."""
    from sizewise.data.stored import StoredExamples

    rows = [{"q": f"question {i}", "a": "yes"} for i in range(20)]
    examples = make_examples(rows, DatasetConfig(prompt="{q}", answer="{a}")).examples
    whole, made = StoredExamples.make, Counter()

    def make(self: StoredExamples, place: int) -> Any:
        made[place] += 1
        return whole(self, place)

    monkeypatch.setattr(StoredExamples, "make", make)
    split = StubSplit([Pair([2], [1])] * 20, examples)  # type: ignore[arg-type]
    told: list[tuple[int, int]] = []
    store, device = PredictionStore(tmp_path / "p.jsonl", "key"), torch.device("cpu")

    def measure(batch: Any, encoded: Any) -> list[Prediction]:
        return [answered(example) for example in batch]

    def run_all() -> Any:
        return measured(measure, split, store, device, 2, measure, 0,  # type: ignore[arg-type]
                        progress=lambda *counts: told.append(counts))  # fmt: skip

    assert [row.id for row in run_all().predictions] == list(examples.ids())
    assert made == dict.fromkeys(range(20), 1)
    assert told == [(count, 20) for count in range(0, 21, 2)]
    assert len(run_all().predictions) == 20
    assert made.total() == 20, "a finished prediction made examples"
    assert told[-1] == (20, 20)


def test_an_interrupted_evaluation_goes_on_where_it_was(causal, split, template, tmp_path) -> None:
    sampling = GenerationConfig(max_new_tokens=6, do_sample=True, temperature=0.9)
    whole = run(causal, split, template, tmp_path / "a.jsonl", generation=sampling)
    lines = (tmp_path / "a.jsonl").read_bytes()
    first_batch = lines.split(b"\n")[:3]
    (tmp_path / "b.jsonl").write_bytes(b"\n".join([*first_batch, b'{"id": "to']))
    (tmp_path / "b.jsonl.key").write_text("key\n")
    sizes = fails_above(causal, rows=100)
    resumed = run(causal, split, template, tmp_path / "b.jsonl", generation=sampling)
    assert_same(resumed.predictions, whole.predictions)
    kept = PredictionStore(tmp_path / "b.jsonl", "key").read()
    assert len(kept) == len({p.id for p in kept}) == 8
    calls = len(sizes)
    run(causal, split, template, tmp_path / "b.jsonl", generation=sampling)
    assert len(sizes) == calls, "a finished evaluation ran the model again"


def test_seconds_and_peak_add_up_over_processes(causal, split, template, tmp_path) -> None:
    """Also where the last process found nothing left to do, or died before storing a batch."""
    path = tmp_path / "p.jsonl"
    whole = run(causal, split, template, path)
    bill = tmp_path / "p.jsonl.spent"
    first, last = (json.loads(line) for line in bill.read_text().splitlines())
    assert (first[0], last[0]) == (4, 8)
    assert 0 < first[1] < last[1] == whole.seconds
    assert run(causal, split, template, path).seconds == whole.seconds

    bill.write_text(json.dumps([4, 1000.0, 2**60]) + "\n" + json.dumps([8, 5000.0, 2**61]) + "\n[8")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:4]))
    resumed = run(causal, split, template, path)
    assert 1000.0 < resumed.seconds < 2000.0, "4 answers of the first process, 4 of this one"
    assert resumed.peak_bytes == 2**60
    assert run(causal, split, template, path).seconds == resumed.seconds


def test_seconds_that_nobody_noted_are_not_made_up(causal, split, template, tmp_path) -> None:
    path = tmp_path / "p.jsonl"
    run(causal, split, template, path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:4]))
    (tmp_path / "p.jsonl.spent").unlink()
    assert run(causal, split, template, path).seconds is None
    assert run(causal, split, template, path).seconds is None


def test_an_example_that_occurs_twice_is_predicted_once(causal, template, tmp_path) -> None:
    split = make_split(template, 3)
    double = StubSplit([*split.encoded, split.encoded[0]], [*split.examples, split.examples[0]])
    found = run(causal, double, template, tmp_path / "p.jsonl")
    assert found.predictions[3] == found.predictions[0]
    assert len(PredictionStore(tmp_path / "p.jsonl", "key").read()) == 3


@pytest.mark.parametrize("warmup", [0, 1])
def test_out_of_memory_halves_the_batch(causal, split, template, tmp_path, warmup) -> None:
    expected = run(causal, split, template, tmp_path / "a.jsonl", batch_size=8)
    fails_above(causal, rows=2)
    options = {"batch_size": 8, "warmup_batches": warmup}
    found = run(causal, split, template, tmp_path / "b.jsonl", **options)
    assert found.batch_size == 2
    assert found.out_of_memory == (8, 4)
    assert_same(found.predictions, expected.predictions)
    assert {p.batch_size for p in found.predictions} == {2}


def test_one_example_that_does_not_fit_is_an_error(causal, split, template, tmp_path) -> None:
    fails_above(causal, rows=0)
    with pytest.raises(OutOfMemoryError, match="one single example"):
        run(causal, split, template, tmp_path / "a.jsonl")


def test_an_empty_split_is_an_error(causal, template, tmp_path) -> None:
    with pytest.raises(EvaluationError, match="no example"):
        run(causal, StubSplit([], []), template, tmp_path / "a.jsonl")


SAMPLING = GenerationConfig(max_new_tokens=6, do_sample=True)


def test_warm_up_is_not_measured(causal, split, template, tmp_path) -> None:
    sizes = fails_above(causal, rows=100)
    options = {"generation": SAMPLING}
    run(causal, split, template, tmp_path / "a.jsonl", warmup_batches=0, **options)
    without = len(sizes)
    sizes.clear()
    found = run(causal, split, template, tmp_path / "b.jsonl", warmup_batches=2, **options)
    assert len(sizes) > without
    assert all(p.new_tokens <= 6 and p.latency > 0 for p in found.predictions)
    assert len(PredictionStore(tmp_path / "b.jsonl", "key").read()) == 8


def test_of_drafted_answers_one_batch_is_timed_that_was_decoded_plainly(
    causal, split, template, tmp_path
) -> None:
    found = run(causal, split, template, tmp_path / "p.jsonl", batch_size=2).predictions
    timed = [p for p in found if p.latency > 0]
    lengths = sorted(p.prompt_tokens for p in found)
    assert len(timed) == 2
    assert {p.batch_size for p in timed} == {2}
    assert all(lengths[1] < p.prompt_tokens < lengths[-2] for p in timed)
    assert all(math.isnan(p.latency) for p in found if p not in timed)
    stored = run(causal, split, template, tmp_path / "p.jsonl", batch_size=2).predictions
    assert sum(p.latency > 0 for p in stored) == 2, "a resumed evaluation is timed, too"
    untimed = run(causal, split, template, tmp_path / "q.jsonl", timed=False).predictions
    assert all(math.isnan(p.latency) for p in untimed)


def test_rejected_answers_get_their_likelihood(causal, template, tmp_path) -> None:
    split = make_split(template, 3, rejected="No idea at all.", label="E11")
    found = run(causal, split, template, tmp_path / "p.jsonl").predictions
    ids = template.answer_ids((), "No idea at all.")
    pairs = [Pair(item.prompt_ids, ids) for item in split.encoded]
    expected = answer_log_probs(causal, pairs, 1)
    assert [p.scores[REJECTED_LOG_PROB] for p in found] == pytest.approx(expected, rel=1e-4)
    assert {p.scores[REJECTED_TOKENS] for p in found} == {float(len(ids))}
    assert {tuple(p.strata.items()) for p in found} == {(("label", "E11"),)}


@pytest.mark.parametrize("warmup", [0, 1])
def test_transient_failures_are_tried_again_with_growing_pauses(
    causal, split, template, tmp_path, monkeypatch, warmup
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("sizewise.evaluation.predict.time.sleep", pauses.append)
    left = [OSError("disk is away"), RuntimeError("CUDNN_STATUS_INTERNAL_ERROR")]

    def hook(*args: Any) -> None:
        if left:
            raise left.pop(0)

    causal.register_forward_pre_hook(hook)
    found = run(causal, split, template, tmp_path / "a.jsonl", warmup_batches=warmup)
    assert len(found.predictions) == 8
    assert pauses == [1.0, 2.0]


def test_what_is_retried() -> None:
    assert is_transient(ConnectionError("reset"))
    assert is_transient(TimeoutError())
    assert is_transient(RuntimeError("NCCL error: unhandled system error"))
    lasting = (FileNotFoundError("x"), PermissionError("x"), ValueError("x"))
    shapes = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    memory = RuntimeError("CUDA out of memory.")
    assert not any(is_transient(e) for e in (*lasting, shapes, memory))
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise ConnectionError("always")

    with pytest.raises(ConnectionError):
        with_retries(fail, retries=2, pause=lambda _: None)
    assert len(calls) == 3
