from __future__ import annotations

from pathlib import Path

import pytest

from sizewise.errors import DataError
from sizewise.files import append_durably, refuse_changed, whole_lines, whole_part

LINES = '{"a": "ä"}\n{}\n'.encode()
BEFORE = [LINES[:kept] for kept in range(len(LINES) + 1)]


@pytest.mark.parametrize("before", BEFORE)
def test_a_line_goes_after_the_last_whole_one(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(before)
    append_durably(path, "[1]\n[2]\n")
    assert path.read_bytes() == whole_part(before) + b"[1]\n[2]\n"
    assert whole_lines(path.read_bytes()) == [*whole_lines(before), b"[1]", b"[2]"]


@pytest.mark.parametrize("before", BEFORE)
def test_a_torn_line_that_is_kept_stands_on_a_line_of_its_own(
    tmp_path: Path, before: bytes
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(before)
    append_durably(path, "[1]\n", keep_torn=True)
    ended = b"" if before == whole_part(before) else b"\n"
    assert path.read_bytes() == before + ended + b"[1]\n"


def test_a_file_is_created_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.jsonl"
    append_durably(path, "ä\n")
    append_durably(path, "")
    assert path.read_text(encoding="utf-8") == "ä\n"


def test_a_line_that_the_disk_does_not_take_is_an_error() -> None:
    with pytest.raises(OSError, match="No space left"):
        append_durably(Path("/dev/full"), "[1]\n")


@pytest.mark.parametrize(("planned", "found"), [(None, "b"), ("a", None), ("a", "a"), ("", "b")])
def test_files_whose_hash_is_not_known_or_the_same_are_not_refused(
    planned: str | None, found: str | None
) -> None:
    refuse_changed("x", planned, found, DataError)


def test_changed_files_are_refused_with_both_hashes() -> None:
    with pytest.raises(DataError, match=r"^x holds something else \(b\) than .* planned \(a\)\."):
        refuse_changed("x", "a", "b", DataError)
