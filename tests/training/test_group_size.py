"""How many jobs share a pass is timed on the first steps, and kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from sizewise.files import read_json, write_json
from sizewise.training.group_size import TIMED, GroupSize, shared_pace

CPU = torch.device("cpu")


def measure(size: GroupSize, jobs: int, seconds: Mapping[int, float]) -> list[int]:
    """Let ``jobs`` go through passes; those of n jobs take seconds[n] for each token."""
    asked = []
    while size.measuring:
        now = size.now(CPU, jobs)
        if size.measuring:
            asked.append(now)
            size.note(now, 10, 10 * seconds[now])
    return asked


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({8: 1.0, 4: 2.0, 2: 3.0, 1: 5.0}, 8),
        ({8: 2.0, 4: 1.0, 2: 1.5, 1: 5.0}, 4),
        ({8: 1.0, 4: 1.02, 2: 1.5, 1: 5.0}, 4),
        ({8: 3.0, 4: 3.0, 2: 3.0, 1: 2.0}, 1),
    ],
)
def test_the_cheapest_per_token_is_taken_and_kept_for_the_next_pack(
    tmp_path: Path, seconds: dict[int, float], chosen: int
) -> None:
    kept = tmp_path / "packing" / "key.json"
    size = GroupSize(8, kept)
    asked = measure(size, 8, seconds)
    assert [asked.count(n) for n in (8, 4, 2, 1)] == [TIMED + 1] * 4
    assert size.now(CPU, 8) == chosen
    again = GroupSize(8, kept)
    assert (again.now(CPU, 6), again.measuring) == (min(chosen, 6), False)


def test_what_a_shared_step_takes_is_told_where_it_was_measured(tmp_path: Path) -> None:
    kept = tmp_path / "key.json"
    assert shared_pace(kept, 8) is None
    measure(GroupSize(8, kept), 8, {8: 2.0, 4: 1.0, 2: 3.0, 1: 5.0})
    assert shared_pace(kept, 8) == pytest.approx(1 / 5), "four at a time are the cheapest"
    assert shared_pace(kept, 3) == pytest.approx(3 / 5), "of three, two share a pass"
    assert shared_pace(kept, 1) == 1.0
    kept.write_text("{")
    assert shared_pace(kept, 8) is None


def test_another_device_or_more_jobs_are_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "key.json"
    measure(GroupSize(4, kept), 4, {4: 1.0, 2: 2.0, 1: 3.0})
    more = GroupSize(8, kept)
    assert (more.now(CPU, 8), more.measuring) == (8, True)
    monkeypatch.setattr("sizewise.training.group_size.device_name", lambda device: "another")
    other = GroupSize(4, kept)
    assert (other.now(CPU, 4), other.measuring) == (4, True)
    assert str((read_json(kept) or {})["device"]).endswith(torch.__version__)


def test_what_does_not_fit_is_asked_for_no_more(tmp_path: Path) -> None:
    size = GroupSize(8, tmp_path / "key.json")
    assert size.now(CPU, 8) == 8
    size.limit(4)
    assert measure(size, 8, {4: 2.0, 2: 2.5, 1: 9.0})[0] == 4
    assert size.now(CPU, 8) == 4
    fixed = GroupSize(6)
    assert (fixed.now(CPU, 6), fixed.measuring) == (6, False)
    fixed.limit(3)
    assert fixed.now(CPU, 6) == 3


def test_jobs_that_leave_while_it_is_measured_end_the_measuring(tmp_path: Path) -> None:
    size = GroupSize(8, tmp_path / "key.json")
    assert size.now(CPU, 8) == 8
    size.note(8, 10, 1.0)
    assert measure(size, 3, {2: 1.0, 1: 3.0}) == [2] * (TIMED + 1) + [1] * (TIMED + 1)
    assert size.now(CPU, 3) == 2


@pytest.mark.parametrize(
    "change",
    [{"jobs": 0}, {"jobs": None}, {"jobs": 1}, {"seconds_per_token": [4]}, {"device": 5}],
)
@pytest.mark.parametrize("sealed", [True, False])
def test_a_damaged_record_is_measured_anew(
    tmp_path: Path, change: dict[str, object], sealed: bool
) -> None:
    """One of an earlier version, which has no hash, is believed where it can be."""
    kept = tmp_path / "key.json"
    measure(GroupSize(8, kept), 8, {8: 1.0, 4: 2.0, 2: 3.0, 1: 4.0})
    record = {**(read_json(kept) or {}), **change}
    if not sealed:
        del record["sha256"]
    write_json(kept, record)
    size = GroupSize(4, kept)
    believed = not sealed and change == {"jobs": 1}
    assert (size.now(CPU, 4), size.measuring) == ((1, False) if believed else (4, True))


@pytest.mark.parametrize("text", ["", "{", "[1, 2]"])
def test_a_torn_record_is_measured_anew(tmp_path: Path, text: str) -> None:
    kept = tmp_path / "key.json"
    kept.write_text(text)
    size = GroupSize(4, kept)
    assert (size.now(CPU, 4), size.measuring) == (4, True)


def test_a_full_disk_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sizewise.training.group_size.write_json", full)
    size = GroupSize(4, tmp_path / "key.json")
    measure(size, 4, {4: 1.0, 2: 2.0, 1: 3.0})
    assert size.now(CPU, 4) == 4
    assert "No space left on device" in caplog.text
