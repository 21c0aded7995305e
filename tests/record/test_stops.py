"""Where fits were stopped, as it stands on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from sizewise.record import stops
from sizewise.record.directories import RunDir
from sizewise.record.stops import Stop, go_on, is_past, standing_stop, stop_at, write_stop


def pass_rung(run_dir: Path, share: float, value: float) -> None:
    write_stop(run_dir, Stop(round(100 * share), value, share, 100))
    go_on(run_dir)


def test_another_process_may_let_the_fit_go_on_at_the_same_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stop(tmp_path, Stop(33, 1.5, 1 / 3, 100))
    read = stops.standing_stop

    def read_and_overtaken(run_dir: Path) -> Stop | None:
        stop = read(run_dir)
        RunDir(run_dir).pruned.replace(RunDir(run_dir).passed_rung(1 / 3))
        return stop

    monkeypatch.setattr(stops, "standing_stop", read_and_overtaken)
    go_on(tmp_path)
    assert standing_stop(tmp_path) is None
    assert stop_at(tmp_path, 1 / 3) == Stop(33, 1.5, 1 / 3, 100)


def test_shares_that_read_alike_are_two_records(tmp_path: Path) -> None:
    """2/3 is the default, and 0.666667 what somebody typed."""
    for share, value in ((2 / 3, 1.0), (0.666667, 2.0)):
        pass_rung(tmp_path, share, value)
    found = [stop_at(tmp_path, share) for share in (2 / 3, 0.666667)]
    assert [stop and stop.value for stop in found] == [1.0, 2.0]


def test_rungs_named_by_an_earlier_version_are_read(tmp_path: Path) -> None:
    write_stop(tmp_path, Stop(67, 1.0, 2 / 3, 100))
    RunDir(tmp_path).pruned.replace(tmp_path / "rung-0.666667.json")
    assert stop_at(tmp_path, 2 / 3) == Stop(67, 1.0, 2 / 3, 100)
    assert (is_past(tmp_path, 0.5), is_past(tmp_path, 2 / 3)) == (True, False)
