"""A sample is timed apart: both sides in turns, alone and in the batch used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from sizewise.config.evaluation import GenerationConfig
from sizewise.evaluation.timing import time_batch, time_sides
from sizewise.record.timing import Timing

from .helpers import StubSplit, StubTemplate, fails_above

GREEDY = GenerationConfig(max_new_tokens=2)


def test_both_sides_take_turns_at_batch_1_and_the_batch_used(
    causal: Any, split: StubSplit, template: StubTemplate
) -> None:
    seen: list[tuple[str, int]] = []
    side = ""

    def block(name: str) -> Any:
        @contextmanager
        def opened() -> Iterator[None]:
            nonlocal side
            side = name
            yield

        return opened

    def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["input_ids"].shape[1] > 1:  # a prompt is read
            seen.append((side, len(kwargs["input_ids"])))

    causal.register_forward_pre_hook(hook, with_kwargs=True)
    sides = {"base": block("base"), "tuned": block("tuned")}
    found = time_sides(causal, sides, split, template, GREEDY, 2, 4)  # type: ignore[arg-type]
    first = [("base", 4)] * 2 + [("tuned", 4)] * 2
    assert seen == [*first, *[("base", 1)] * 3, *[("tuned", 1)] * 3], "the first call warms up"
    assert {(t.side, t.batch_size, t.answers) for t in found} == {
        ("base", 4, 4), ("tuned", 4, 4), ("base", 1, 2), ("tuned", 1, 2),
    }  # fmt: skip
    for timing in found:
        assert 0 < timing.per_answer_low <= timing.per_answer <= timing.per_answer_high
        assert timing.per_token == pytest.approx(timing.per_answer / timing.new_tokens, rel=0.8)
        assert timing.cpu_per_answer is not None


def test_at_batch_1_every_prompt_of_the_sample_is_answered(
    causal: Any, split: StubSplit, template: StubTemplate
) -> None:
    sides = {"base": lambda: time_nothing()}
    (timing,) = time_sides(causal, sides, split, template, GREEDY, 3, 1)  # type: ignore[arg-type]
    assert timing.batch_size == 1
    assert timing.answers % 3 == 0


def test_too_little_memory_halves_the_timed_batch_and_fails_no_job(
    causal: Any, split: StubSplit, template: StubTemplate
) -> None:
    """The batch in which answers fitted with drafts may be too large for plain decoding."""
    sides = {"base": lambda: time_nothing()}
    seen = fails_above(causal, 2)
    found = time_sides(causal, sides, split, template, GREEDY, 2, 4)  # type: ignore[arg-type]
    assert 4 in seen
    assert {(t.batch_size, t.answers >= t.batch_size) for t in found} == {(2, True), (1, True)}


def test_not_even_one_answer_that_fits_is_no_time_and_no_failure(
    causal: Any, split: StubSplit, template: StubTemplate, caplog: pytest.LogCaptureFixture
) -> None:
    sides = {"base": lambda: time_nothing()}
    fails_above(causal, 0)
    assert time_sides(causal, sides, split, template, GREEDY, 2, 4) == []  # type: ignore[arg-type]
    assert "Speed is not known" in caplog.text


class Merging:
    """A side whose weights are merged where that is wanted; memory suffices for some rounds."""

    def __init__(self, bytes_kept: list[int]) -> None:
        self.left, self.merged = bytes_kept, 0

    @contextmanager
    def __call__(self) -> Iterator[int]:
        self.merged = self.left.pop(0) if self.left else 0
        try:
            yield self.merged
        finally:
            self.merged = 0


def test_memory_for_merged_weights_is_given_up_before_the_batch(
    causal: Any, split: StubSplit, template: StubTemplate
) -> None:
    tuned = Merging([9] * 99)

    def hook(module: Any, args: Any, kwargs: Any) -> None:
        if tuned.merged:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = causal.register_forward_pre_hook(hook, with_kwargs=True)
    given: Any = (causal, {"tuned": tuned}, split, template, GREEDY, 2, 4)
    found = time_sides(*given, {"tuned": Merging([])})
    handle.remove()
    assert {(t.batch_size, t.merged) for t in found} == {(4, False), (1, False)}
    tuned = Merging([9] * 99)
    assert {t.merged for t in time_sides(*given[:1], {"tuned": tuned}, *given[2:])} == {True}


def test_memory_that_the_untouched_side_lacks_gives_up_no_merging(
    causal: Any, split: StubSplit, template: StubTemplate
) -> None:
    """Nothing is merged while it answers; the batch is halved for both."""
    tuned = Merging([9] * 99)

    def hook(module: Any, args: Any, kwargs: Any) -> None:
        if not tuned.merged and len(kwargs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = causal.register_forward_pre_hook(hook, with_kwargs=True)
    sides = {"base": lambda: time_nothing(), "tuned": tuned}
    given: Any = (causal, sides, split, template, GREEDY, 2, 4, {"tuned": Merging([])})
    found = {(t.side, t.batch_size, t.merged) for t in time_sides(*given)}
    handle.remove()
    assert found == {("base", n, None) for n in (1, 2)} | {("tuned", n, True) for n in (1, 2)}


def test_rounds_of_both_kinds_are_not_one_time(
    causal: Any, split: StubSplit, template: StubTemplate
) -> None:
    given: Any = (causal, {"tuned": Merging([9])}, split, template, GREEDY, 2, 4)
    found = time_sides(*given, {"tuned": Merging([])})
    assert {(t.batch_size, t.merged) for t in found} == {(4, False), (1, False)}


@contextmanager
def time_nothing() -> Iterator[None]:
    yield


def test_one_batch_of_middling_length_is_timed(
    causal: Any, split: StubSplit, template: StubTemplate
) -> None:
    found = time_batch(causal, split, template, GREEDY, 2)  # type: ignore[arg-type]
    assert len(found) == 2
    assert {size for _, size in found.values()} == {2}
    assert len({seconds for seconds, _ in found.values()}) == 1


def test_a_batch_that_does_not_fit_costs_no_result(
    causal: Any, split: StubSplit, template: StubTemplate, caplog: pytest.LogCaptureFixture
) -> None:
    def forward(*args: Any, **kwargs: Any) -> Any:
        raise MemoryError

    causal.forward, before = forward, causal.forward
    try:
        assert time_batch(causal, split, template, GREEDY, 2) == {}  # type: ignore[arg-type]
    finally:
        causal.forward = before
    assert "Speed is not known" in caplog.text


def test_a_machine_is_busy_where_much_more_time_passed_than_was_computed_in() -> None:
    calm = Timing("base", 1, 4, 5.0, 0.1, 0.1, 0.1, 0.02, 0.02, 0.02, 0.1, 0.09)
    assert not calm.busy
    assert replace(calm, mean_per_answer=0.2).busy
    assert not replace(calm, cpu_per_answer=None, mean_per_answer=9.0).busy
