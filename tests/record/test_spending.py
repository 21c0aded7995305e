"""What was spent is known whenever and however often a run is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sizewise.config.endpoint import TokenPrices
from sizewise.errors import EvaluationError
from sizewise.record.spending import Ledger

PRICED = TokenPrices(prompt=1.0, answer=2.0)


def half_spent(path: Path, ends_with: str) -> None:
    """Two requests, the second one open or settled by the file's last line."""
    ledger = Ledger(path, PRICED, None)
    ledger.settle(ledger.reserve(10, 5), 0.001)
    number = ledger.reserve(100, 100)
    if ends_with == "settled":
        ledger.settle(number, 0.25)


def torn(path: Path, kept: int) -> bool:
    """Leave ``kept`` bytes of the last line, unless it is no longer than that."""
    *whole, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*whole, last[:kept]]))
    return kept < len(last)


@pytest.mark.parametrize("ends_with", ["open", "settled"])
@pytest.mark.parametrize("restarted", [True, False], ids=["restarted", "full_disk"])
def test_a_line_torn_at_any_byte_is_written_over(
    tmp_path: Path, ends_with: str, restarted: bool
) -> None:
    path, kept = tmp_path / "spending.jsonl", 0
    while True:
        path.unlink(missing_ok=True)
        half_spent(path, ends_with)
        running = Ledger(path, PRICED, None)
        if not torn(path, kept):
            break
        before = Ledger(path, PRICED, None).spent
        ledger = Ledger(path, PRICED, None) if restarted else running
        highest = PRICED.cost(1000, 0)
        number = ledger.reserve(1000, 0)
        assert Ledger(path, PRICED, None).spent == pytest.approx(before + highest)
        ledger.settle(number, 0.5)
        assert Ledger(path, PRICED, None).spent == pytest.approx(before + 0.5)
        kept += 1
    assert kept > len("[1, 0.2")


def test_a_run_that_is_killed_again_and_again_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "spending.jsonl"
    half_spent(path, "open")
    for kept in range(1, 9):
        ledger = Ledger(path, PRICED, None)
        ledger.settle(ledger.reserve(10, 0), 0.0)
        ledger.reserve(10, 0)
        assert torn(path, kept)
    assert Ledger(path, PRICED, None).spent == pytest.approx(0.001 + 0.3)


def test_a_request_whose_line_was_lost_takes_no_number_of_another(tmp_path: Path) -> None:
    path = tmp_path / "spending.jsonl"
    path.write_text("[0, 0.1]\n[2, 0.2]\n")
    Ledger(path, PRICED, None).reserve(10, 0)
    assert Ledger(path, PRICED, None).spent == pytest.approx(0.1 + 0.2 + 0.01)


def test_a_blank_line_at_the_end_is_none(tmp_path: Path) -> None:
    path = tmp_path / "spending.jsonl"
    path.write_text("[0, 0.1]\n\n")
    assert Ledger(path, PRICED, None).spent == pytest.approx(0.1)


def test_a_ledger_that_is_no_text_is_damaged_and_its_torn_end_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "spending.jsonl"
    path.write_bytes(b"[0, 0.1]\n\xff\x00")
    assert Ledger(path, PRICED, None).spent == pytest.approx(0.1)
    path.write_bytes(b"\xff\n[0, 0.1]\n")
    with pytest.raises(EvaluationError, match="is damaged"):
        Ledger(path, PRICED, None)
