from __future__ import annotations

import signal
import threading
from contextlib import suppress

import pytest

from sizewise.evaluation.predict import evaluation_bar
from sizewise.job.execute import Interrupts
from sizewise.signals import SignalHandlers, raise_if_lost, signal_noted, signals_held
from sizewise.training.interrupt import StopRequest


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


def test_a_signal_waits_until_what_must_be_whole_is_done() -> None:
    heard: list[str] = []
    with SignalHandlers(lambda number, frame: heard.append(signal.Signals(number).name)):
        with signals_held():
            signal.raise_signal(signal.SIGTERM)
            heard.append("done")
        assert heard == ["done", "SIGTERM"]
        with suppress(MemoryError), signals_held():
            signal.raise_signal(signal.SIGTERM)
            raise MemoryError
    assert heard == ["done", "SIGTERM", "SIGTERM"]


def test_who_is_in_force_tells_whether_a_signal_has_come() -> None:
    with SignalHandlers(lambda number, frame: None):
        assert not signal_noted()
        signal.raise_signal(signal.SIGTERM)
        assert signal_noted()
        with SignalHandlers(lambda number, frame: None):
            assert not signal_noted()
    assert not signal_noted()


class Finalised:
    """In the midst of whose end a signal comes."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_whose_exception_is_lost_stops_the_job_before_its_next_long_part() -> None:
    with Interrupts() as interrupts:
        raise_if_lost()
        Finalised()
        assert interrupts.received == signal.SIGTERM, "nothing was raised here"
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            raise_if_lost()
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"), StopRequest():
            pytest.fail("the fit began")
        with (
            pytest.raises(KeyboardInterrupt, match="SIGTERM"),
            evaluation_bar("answers", wanted=False) as tell,
        ):
            tell(0, 8)
    raise_if_lost()


def test_a_signal_that_a_fit_has_noted_is_its_own_business() -> None:
    noted: list[int | None] = []
    with suppress(KeyboardInterrupt), Interrupts(), StopRequest() as request:
        signal.raise_signal(signal.SIGTERM)
        raise_if_lost()
        noted.append(request.signal)
    assert noted == [signal.SIGTERM]
