"""A request to stop is never forgotten, whenever it comes."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from sizewise.training.interrupt import Stopped, StopRequest

Event = Callable[[StopRequest], None]


def fit(*events: Event) -> None:
    with StopRequest() as stop:
        for event in events:
            event(stop)


def ctrl_c(stop: StopRequest) -> None:
    signal.raise_signal(signal.SIGINT)
    assert stop.signal == signal.SIGINT


def sigterm(stop: StopRequest) -> None:
    signal.raise_signal(signal.SIGTERM)
    assert stop.signal == signal.SIGTERM


def fail(stop: StopRequest) -> None:
    raise RuntimeError("out of memory")


def test_a_signal_after_the_last_step_is_handed_on() -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(ctrl_c)


def test_a_signal_in_a_step_that_fails_is_handed_on() -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(ctrl_c, fail)
    assert isinstance(caught.value.__context__, RuntimeError)


def test_a_fit_that_left_ends_as_the_signal_would_have() -> None:
    with pytest.raises(SystemExit) as caught:
        fit(sigterm, StopRequest.leave)
    assert caught.value.code == 128 + signal.SIGTERM


def test_without_a_signal_nothing_is_changed() -> None:
    fit()
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(fail)


def test_a_second_signal_leaves_at_once() -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(ctrl_c, ctrl_c, fail)
    assert isinstance(caught.value.__context__, Stopped)
