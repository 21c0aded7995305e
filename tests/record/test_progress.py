"""A job says how far it is: in a file that others read, and once a minute in its log."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from sizewise.record.progress import clock_text, pulse, read_stand, stage


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_job_of_an_hour_has_a_line_a_minute_in_its_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO), pulse(tmp_path, clock):
        tell = stage("training", 720)
        for step in range(1, 721):
            clock.now += 5
            tell(step, "train 0.5")
    assert len(caplog.messages) == 60
    assert caplog.messages[0] == "training: 12 of 720, about 59:00 left  train 0.5"


def test_the_stand_is_for_others_while_the_job_runs_and_gone_afterwards(tmp_path: Path) -> None:
    clock = Clock()
    with pulse(tmp_path, clock):
        tell = stage("answers", 10, 4, "tuned.toy")
        clock.now += 30
        tell(7)
        stand = read_stand(tmp_path)
        assert stand is not None
        assert (str(stand), stand.left) == ("answers tuned.toy: 7 of 10", 30.0), "3 in 30 seconds"
        clock.now += 0.5
        tell(8)
        assert read_stand(tmp_path) == stand, "written again every two seconds only"
    assert read_stand(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": 1}', '{"stage": "training"}'])
def test_a_damaged_stand_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "progress.json").write_text(text)
    assert read_stand(tmp_path) is None


def test_outside_of_a_job_nobody_is_told(tmp_path: Path) -> None:
    stage("training", 3)(2)
    assert list(tmp_path.iterdir()) == []


def test_times_left_read_like_a_clock() -> None:
    assert [clock_text(s) for s in (7.4, 754, 11_100)] == ["0:07", "12:34", "3:05:00"]
