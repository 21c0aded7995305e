from __future__ import annotations

import signal
import threading

import pytest

from sizewise.job.execute import Interrupts
from sizewise.signals import SignalHandlers


@pytest.fixture(autouse=True)
def ignored_interrupt():
    """SIGINT ignored, as in a worker; everything as it was afterwards."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN), signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


def test_signals_reach_the_function_and_what_was_there_comes_back() -> None:
    before, heard = signal.getsignal(signal.SIGTERM), []
    with SignalHandlers(lambda number, frame: heard.append(number)) as handlers:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert handlers.before == {signal.SIGTERM: before}
    assert heard == [signal.SIGTERM], "a signal that was ignored was not left ignored"
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_ignored_signal_is_taken_where_that_is_wanted() -> None:
    heard: list[int] = []
    with SignalHandlers(lambda number, frame: heard.append(number), even_ignored=True):
        signal.raise_signal(signal.SIGINT)
    assert heard == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_nothing_is_installed_in_another_thread() -> None:
    found: list[object] = []

    def enter() -> None:
        with SignalHandlers(lambda number, frame: None) as handlers:
            found.append(handlers.before)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [{}]


def test_a_job_is_interrupted_once_and_says_by_what() -> None:
    interrupts = Interrupts()
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"), interrupts:
        signal.raise_signal(signal.SIGTERM)
    assert (interrupts.received, interrupts.name) == (signal.SIGTERM, "SIGTERM")
