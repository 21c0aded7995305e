"""Jobs of a pack answer together, and as each would alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.job.comparing import answers
from tests.job.test_pack import UNEQUAL, planned, together

from sizewise.evaluation import predict
from sizewise.evaluation.answer import Measurer
from sizewise.evaluation.together import Batch
from sizewise.job.execute import execute
from sizewise.job.submit import Job
from sizewise.models.adapter.packed import NotPackableError, PackedBase
from sizewise.record.outcome import read_outcome
from sizewise.record.predictions import PredictionStore, bill_path, read_bill
from sizewise.record.state import JobState, job_state
from sizewise.training.group_size import GroupSize
from sizewise.training.pack import Pack

# With a penalty no draft tells what is decoded; over NF4 no adapter is merged.
DECODED = (
    "quantization=nf4", "generation.repetition_penalty=1.1", "generation.max_new_tokens=8",
    "dataset.max_test=12", "evaluation.batch_size=4",
)  # fmt: skip
TUNED = "tuned.icd10_dialogues.jsonl"


def submitted(root: Path, folder: str, *more: str) -> list[Job]:
    return [planned(root, f"{folder}{n}", *each, *DECODED, *more) for n, each in enumerate(UNEQUAL)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[Job]:
    """The jobs, each run alone."""
    jobs = submitted(tmp_path_factory.mktemp("alone"), "alone")
    for job in jobs:
        assert execute(job.run_dir).state == JobState.DONE
    texts = [[row["text"] for row in tuned(job)] for job in jobs]
    assert texts[0] != texts[1] != texts[2]
    return jobs


def tuned(job: Job) -> list[dict[str, Any]]:
    return answers(job.run_dir / "predictions" / TUNED)


def assert_same(ours: list[Job], theirs: list[Job]) -> None:
    numbers = ("log_prob", "token_log_prob", "candidate_confidence")
    for our, their in zip(ours, theirs, strict=True):
        rows, expected = tuned(our), tuned(their)
        assert len(expected) == 12
        assert [(r["id"], r["text"]) for r in rows] == [(r["id"], r["text"]) for r in expected]
        for name in numbers:
            found = [row.get(name) for row in rows]
            assert found == pytest.approx([row.get(name) for row in expected], abs=1e-3), name


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Of every decoding for several jobs: how many, and the place of the batch."""
    found: list[tuple[int, int]] = []
    answer = Batch.answer

    def counted(self: Batch, base: PackedBase, asked: Mapping[int, Batch]) -> Any:
        rows = answer(self, base, asked)
        found.append((len(asked), self.place))
        return rows

    monkeypatch.setattr(Batch, "answer", counted)
    return found


def test_they_answer_in_one_decoding_what_each_answers_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    alone: list[Job],
    decoded: list[tuple[int, int]],
) -> None:
    """The first batch twice: to warm up, and to count. Seconds are those of the job's own clock."""
    monkeypatch.setattr("sizewise.evaluation.predict.job_clock", lambda: 5.0)
    jobs = submitted(tmp_path, "packed")
    assert {result.state for result in together(jobs).values()} == {JobState.DONE}
    assert [count for count, _ in decoded] == [3] * 4
    assert_same(jobs, alone)
    for job, one in zip(jobs, alone, strict=True):
        assert read_outcome(job.run_dir).cost.answered_together == 3
        assert read_outcome(one.run_dir).cost.answered_together is None
        file = job.run_dir / "predictions" / TUNED
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert all(math.isnan(row["latency"]) for row in rows)
        assert {spent.seconds for spent in read_bill(bill_path(file))} == {0.0}


def test_a_batch_is_timed_for_each_alone(tmp_path: Path, decoded: list[tuple[int, int]]) -> None:
    jobs = submitted(tmp_path, "packed", "evaluation.timed_answers=2")
    assert {result.state for result in together(jobs).values()} == {JobState.DONE}
    assert [count for count, _ in decoded] == [3] * 4
    for job in jobs:
        outcome = read_outcome(job.run_dir)
        timed = {(timing.side, timing.batch_size) for timing in outcome.cost.timings}
        assert timed == {(side, size) for side in ("base", "tuned") for size in (1, 4)}
        (scored,) = outcome.tuned.values()
        assert scored.scores["efficiency/latency_p50"] > 0, "of one batch"


def test_sampled_answers_draw_their_own_random_numbers(
    tmp_path: Path, decoded: list[tuple[int, int]]
) -> None:
    sampled = ("generation.repetition_penalty=1.0", "generation.do_sample=true")
    jobs = submitted(tmp_path, "packed", *sampled)
    assert {result.state for result in together(jobs).values()} == {JobState.DONE}
    assert [count for count, _ in decoded] == [3] * 4
    theirs = submitted(tmp_path, "alone", *sampled)
    for job in theirs:
        execute(job.run_dir)
    assert_same(jobs, theirs)


def test_whoever_asks_something_else_is_answered_apart(
    tmp_path: Path, alone: list[Job], decoded: list[tuple[int, int]]
) -> None:
    jobs = submitted(tmp_path, "packed")
    other = planned(tmp_path, "packed3", *DECODED, "lora.r=2", "generation.max_new_tokens=6")
    assert {result.state for result in together([*jobs, other]).values()} == {JobState.DONE}
    assert [count for count, _ in decoded] == [4, 3, 3, 3], "only warming up is the same for all"
    assert_same(jobs, alone)
    assert {row["new_tokens"] for row in tuned(other)} == {6}


def test_an_adapter_that_answers_merged_does_so_alone_and_nothing_is_said(
    tmp_path: Path, decoded: list[tuple[int, int]]
) -> None:
    """Its base's weights are not those of the others meanwhile."""
    jobs = submitted(tmp_path, "packed", "quantization=none")
    assert {result.state for result in together(jobs).values()} == {JobState.DONE}
    assert decoded == []
    logs = [(job.run_dir / "job.log").read_text() for job in jobs]
    assert all(logs)
    assert "without the others" not in "".join(logs)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        NotPackableError("rows moved"),
        ValueError("of whatever kind"),
    ],
)
def test_where_they_cannot_be_answered_together_each_answers_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    alone: list[Job],
    error: Exception,
) -> None:
    asked: list[int] = []

    def fails(self: Batch, base: PackedBase, batches: Mapping[int, Batch]) -> Any:
        asked.append(len(batches))
        raise error

    monkeypatch.setattr(Batch, "answer", fails)
    jobs = submitted(tmp_path, "packed")
    assert {result.state for result in together(jobs).values()} == {JobState.DONE}
    assert asked == [3]
    assert_same(jobs, alone)
    assert [read_outcome(job.run_dir).cost.packed for job in jobs] == [3.0, 3.0, 3.0]


def test_too_little_memory_for_all_is_enough_for_some_and_training_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: list[Job]
) -> None:
    asked: list[int] = []
    answer = Batch.answer

    def fails(self: Batch, base: PackedBase, batches: Mapping[int, Batch]) -> Any:
        asked.append(len(batches))
        if len(batches) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return answer(self, base, batches)

    monkeypatch.setattr(Batch, "answer", fails)
    jobs = submitted(tmp_path, "packed")
    more = planned(tmp_path, "packed3", *UNEQUAL[0], *DECODED, "lora.r=16")
    assert {result.state for result in together([*jobs, more]).values()} == {JobState.DONE}
    assert asked[0] == 4
    assert set(asked[1:]) == {2}
    assert_same(jobs, alone)


def test_who_lacks_memory_behind_a_shared_decoding_tries_again_before_its_batch_is_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: list[Job]
) -> None:
    """The keys and values of the others are in memory then, and they go first."""
    references, failed = Measurer._references, list[int]()

    def fails(self: Measurer, *given: Any, **named: Any) -> Any:
        if self.model.__class__.__name__.startswith("Peft") and not failed:
            failed.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return references(self, *given, **named)

    monkeypatch.setattr(Measurer, "_references", fails)
    jobs = submitted(tmp_path, "packed")
    assert {result.state for result in together(jobs).values()} == {JobState.DONE}
    assert failed == [1]
    assert [read_outcome(job.run_dir).cost.out_of_memory for job in jobs] == [[]] * 3
    for job in jobs:
        assert {row["batch_size"] for row in tuned(job)} == {4}
    assert_same(jobs, alone)


def test_they_wait_for_each_other_before_memory_and_seconds_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the answers of one would seem to need what the training of another does."""
    seen: list[str] = []
    forward, measure = PackedBase.answer_logits, predict.measured

    def trained(self: PackedBase, *given: Any) -> Any:
        seen.append("trained")
        return forward(self, *given)

    def measured(given: Any, split: Any, store: PredictionStore, *more: Any) -> Any:
        seen.append(store.path.name.split(".")[0])
        return measure(given, split, store, *more)

    monkeypatch.setattr(PackedBase, "answer_logits", trained)
    monkeypatch.setattr(predict, "measured", measured)
    lengths = ("trainer.max_epochs=1", "trainer.max_epochs=2", "trainer.max_epochs=3")
    jobs = [
        planned(tmp_path, f"packed{n}", *each, *DECODED, length)
        for n, (each, length) in enumerate(zip(UNEQUAL, lengths, strict=True))
    ]
    assert {result.state for result in together(jobs).values()} == {JobState.DONE}
    assert seen[0] == "base"
    assert seen[-3:] == ["tuned"] * 3
    assert set(seen[1:-3]) == {"trained"}


def test_where_some_answers_were_timed_as_they_were_made_a_sample_is_timed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ones were shared, those of the others would be the shortest prompts."""
    answer, asked = Batch.answer, list[int]()

    def fails(self: Batch, *given: Any) -> Any:
        asked.append(1)
        if len(asked) > 3:
            raise ValueError("of whatever kind")
        return answer(self, *given)

    monkeypatch.setattr(Batch, "answer", fails)
    sizes: list[int] = []
    time_batch = predict.time_batch

    def timed(*given: Any) -> Any:
        found = time_batch(*given)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(predict, "time_batch", timed)
    ways = [(*each, *DECODED, "evaluation.timed_answers=2") for each in UNEQUAL[:2]]
    jobs = [planned(tmp_path, f"packed{n}", *each) for n, each in enumerate(ways)]
    assert {result.state for result in together(jobs).values()} == {JobState.DONE}
    assert len(asked) == 4
    assert sizes == [4, 4]
    for job in jobs:
        (scored,) = read_outcome(job.run_dir).tuned.values()
        same = [scored.scores[f"efficiency/latency_p{share}"] for share in (50, 95)]
        assert same[0] == same[1], "that of one batch"


@dataclass
class Asked:
    """What stands in an order, and is like what stands in the same place."""

    place: int

    def is_like(self, other: Asked) -> bool:
        return self.place == other.place

    def answer(self, base: PackedBase, asked: Mapping[int, Asked]) -> list[Any]:
        raise AssertionError(base, asked)


@pytest.mark.parametrize(
    ("places", "room", "together"),
    [
        ([5, 4, 4], 3, [1, 2]),
        ([4, 5, 5], 3, [0]),
        ([4, 4, 4, 4], 3, [0, 1]),
        ([4, 4, 4], 8, [0, 1, 2]),
        ([5, 4, 4], 1, [0]),
    ],
)
def test_who_is_behind_is_answered_first_and_groups_are_even(
    places: list[int], room: int, together: list[int]
) -> None:
    pack = Pack(GroupSize(4), GroupSize(room))
    for place in places:
        seat = pack.join(lambda: None)
        seat.waiting, seat._question = "answers", Asked(place)
    leader = pack.next_leader()
    assert leader is not None
    assert leader.number == together[0]
    assert [seat.number for seat in pack._group] == together


def test_who_was_stopped_behind_the_others_catches_up(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    alone: list[Job],
    decoded: list[tuple[int, int]],
) -> None:
    """One has one batch less on its disk than the others when all are killed."""
    counted = Batch.answer

    def stopped(self: Batch, base: PackedBase, asked: Mapping[int, Batch]) -> Any:
        if len(decoded) == 3:
            raise KeyboardInterrupt("SIGTERM")
        return counted(self, base, asked)

    jobs = submitted(tmp_path, "packed")
    with monkeypatch.context() as patched:
        patched.setattr(Batch, "answer", stopped)
        with pytest.raises(KeyboardInterrupt):
            together(jobs)
    assert [job_state(job.run_dir) for job in jobs] == [JobState.INTERRUPTED] * 3
    assert [len(tuned(job)) for job in jobs] == [8] * 3
    behind = jobs[1].run_dir / "predictions" / TUNED
    behind.write_text("".join(behind.read_text().splitlines(keepends=True)[:4]))
    decoded.clear()
    assert {result.state for result in together(jobs).values()} == {JobState.DONE}
    assert_same(jobs, alone)
    assert decoded[-1][0] == 3, "all are level again"
