"""Examples that are made when they are looked at, and rows of which one is in memory."""

from __future__ import annotations

import csv
import errno
import json
import sqlite3
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizewise.config.data import SourceConfig, SplitConfig
from sizewise.data import stored
from sizewise.data.build import build_splits
from sizewise.data.example import Example, Examples, fingerprint, question_fingerprint
from sizewise.data.rows.examples import make_examples
from sizewise.data.rows.read import read_rows, stream_rows
from sizewise.data.rows.stream import Rows
from sizewise.data.splits.draw import limited
from sizewise.data.splits.frequency import add_frequency, count_labels
from sizewise.data.splits.groups import (
    TEXT,
    WORDED,
    KeyColumns,
    connect,
    question_keys,
    shared_groups,
)
from sizewise.errors import DataError

from .toys import config, rows


def talks(count: int) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": f"question {number % 7}"},
                {"role": "assistant", "content": "first", "tool_calls": [{"name": "f"}]},
                {"role": "tool", "content": "seen", "name": "f"},
                {"role": "assistant", "content": f"answer {number}"},
            ],
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "k": number % 2,
        }
        for number in range(count)
    ]


TALKS = config(prompt="", answer="", conversation="messages", strata=["k"])


def made(count: int = 12) -> Examples:
    return make_examples(talks(count), TALKS).examples


def test_stored_examples_behave_as_a_tuple_of_them() -> None:
    kept = made()
    plain = tuple(kept)
    assert len(plain) == 12
    assert [kept[i] for i in range(-12, 12)] == [plain[i] for i in range(-12, 12)]
    for part in (slice(3), slice(2, 9, 3), slice(None, None, -1), slice(40, 50)):
        assert tuple(kept[part]) == plain[part]
    assert kept == plain
    assert plain == kept
    assert kept != plain[1:]
    assert kept != (*plain[:-1], replace(plain[-1], answer="other"))
    assert tuple(kept[:2] + kept[5:]) == plain[:2] + plain[5:]
    assert (plain[4] in kept, plain[5] in kept[:5], not kept[:0]) == (True, False, True)
    with pytest.raises(IndexError):
        kept[12]


def test_hashes_and_groups_from_columns_are_those_of_the_examples() -> None:
    kept = made()
    plain = tuple(kept)
    assert fingerprint(kept[3:]) == fingerprint(plain[3:])
    assert question_fingerprint(kept) == question_fingerprint(plain)
    assert list(kept.groups()) == [example.group for example in plain]
    parts = {"train": kept[:5], "validation": kept[5:7], "test": kept[7:]}
    listed = {name: tuple(part) for name, part in parts.items()}
    assert shared_groups(parts) == shared_groups(listed) > 0
    cfg = config(max_train=3)
    assert limited(parts, cfg)["train"] == limited(listed, cfg)["train"]


def test_examples_are_the_same_where_they_lie_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = made()
    monkeypatch.setattr(stored, "MOST_IN_MEMORY", 300)
    assert made() == kept
    monkeypatch.setattr(stored, "MOST_SHARED", 1)
    assert made() == kept


def test_a_full_folder_for_temporary_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stored, "MOST_IN_MEMORY", 300)
    monkeypatch.setattr(stored.tempfile, "TemporaryFile", full)
    with pytest.raises(DataError, match=r"No space left on device.*Set TMPDIR"):
        made()


def test_a_disk_that_fills_with_the_last_bytes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait to be written when all has been added."""
    monkeypatch.setattr(stored, "MOST_IN_MEMORY", 300)
    full = partial(Path("/dev/full").open, "w+b")
    monkeypatch.setattr(stored.tempfile, "TemporaryFile", full)
    with pytest.raises(DataError, match=r"No space left on device.*Set TMPDIR"):
        made()


DIALOGUES = config(
    source=SourceConfig("embedded", "icd10_dialogues"), prompt="{dialogue}", answer="{code}",
    label="code", split=SplitConfig(),
)  # fmt: skip


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The places of all examples that were made."""
    places: list[int] = []
    whole = stored.StoredExamples.make

    def make(self: stored.StoredExamples, place: int) -> Example:
        places.append(place)
        return whole(self, place)

    monkeypatch.setattr(stored.StoredExamples, "make", make)
    return places


def test_an_example_is_made_when_it_is_looked_at(looked: list[int]) -> None:
    splits = build_splits(DIALOGUES)
    counted = add_frequency(splits, {}, 5)
    counted.fingerprint("train")
    assert looked == []
    assert counted.train[1].meta["label_frequency"] == "never seen"
    assert len(looked) == 1


def test_demonstrations_are_chosen_without_making_all_examples(looked: list[int]) -> None:
    splits = build_splits(replace(DIALOGUES, few_shot=3, max_train=10))
    assert len(looked) < 10
    assert (len(splits.train), len(splits.test[0].messages)) == (10, 7)


def test_frequencies_change_no_fingerprint() -> None:
    data = [{**row, "l": "ab"[i % 2]} for i, row in enumerate(rows(20))]
    from sizewise.data.splits.draw import split_examples

    cfg = config(label="l")
    splits = split_examples(make_examples(data, cfg), cfg)
    marked = add_frequency(splits, count_labels(splits.train), 3)
    assert marked.fingerprint("train") == splits.fingerprint("train")
    assert fingerprint(tuple(marked.train)) == marked.fingerprint("train")
    assert {e.meta["label_frequency"] for e in marked.train} <= {"frequent (3+)", "rare (1–2)"}
    assert shared_groups({"train": marked.train, "test": marked.test}) == 0


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_preparing_holds_a_small_part_of_the_texts_in_memory(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [{"q": f"{number} " + "word " * 2000, "a": "yes"} for number in range(600)]
    path = tmp_path / f"rows.{kind}"
    with path.open("w", newline="") as handle:
        if kind == "csv":
            table = csv.DictWriter(handle, ["q", "a"])
            table.writeheader()
            table.writerows(texts)
        else:
            handle.writelines(json.dumps(text) + "\n" for text in texts)
    del texts
    monkeypatch.setattr(stored, "MOST_IN_MEMORY", 2**16)
    build_splits(config(source=SourceConfig(kind, str(path))))
    tracemalloc.start()
    splits = build_splits(config(source=SourceConfig(kind, str(path))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(splits.train) + len(splits.test) + len(splits.validation) == 600
    assert peak < path.stat().st_size / 5


@pytest.mark.parametrize("kind", ["csv", "json", "parquet", "sqlite", "embedded"])
def test_streamed_rows_are_those_that_are_read(kind: str, tmp_path: Path) -> None:
    import pandas as pd

    path = tmp_path / f"rows.{kind}"
    frame = pd.DataFrame([{**row, "n": None if i % 2 else 1.0} for i, row in enumerate(rows(9))])
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "json":
        frame.to_json(path, orient="records", lines=True)
    elif kind == "parquet":
        frame.to_parquet(path)
    elif kind == "sqlite":
        with closing(sqlite3.connect(path)) as connection:
            frame.to_sql("t", connection, index=False)
    source = SourceConfig(kind, "icd10_dialogues" if kind == "embedded" else str(path))
    streamed = stream_rows(source)
    plain = read_rows(source)
    assert str(list(streamed)) == str(list(streamed)) == str(plain)
    assert streamed.columns == list(plain[0])
    assert str(streamed.first(2)) == str(plain[:2])
    if kind != "embedded":
        assert streamed.whole == ["n"]


def test_rows_that_change_while_they_are_read_are_refused() -> None:
    lengths = iter([3, 4])

    def read() -> Iterator[dict[str, Any]]:
        return iter(rows(next(lengths)))

    changing = Rows(read)
    with pytest.raises(DataError, match="had 3 rows, and 4 when they were read again"):
        list(changing)


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_is_written_anew_between_two_readings_is_refused(
    kind: str, replaced: bool, tmp_path: Path
) -> None:
    """Also where it has as many rows as before."""
    import pandas as pd

    path = tmp_path / f"rows.{kind}"

    def write(answer: str, to: Path) -> None:
        frame = pd.DataFrame([{**row, "a": answer} for row in rows(9)])
        text = {"csv": frame.to_csv(index=False), "json": frame.to_json(orient="records", lines=1)}
        to.write_bytes(text[kind].encode() if kind in text else frame.to_parquet())

    write("old", path)
    streamed = stream_rows(SourceConfig(kind, str(path)))
    assert {row["a"] for row in streamed} == {"old"}
    write("another" if not replaced else "new", beside := tmp_path / "beside")
    if replaced:
        beside.replace(path)
    else:
        path.write_bytes(beside.read_bytes())
    with pytest.raises(DataError, match=r"rows\.\w+ was changed meanwhile.*Start the"):
        list(streamed)


def numbers_database(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE numbers (q TEXT, a INTEGER, b BLOB, c REAL)")
        cells = [(f"q{n}", n, None, n / 3) for n in range(200)]
        connection.executemany("INSERT INTO numbers VALUES (?, ?, ?, ?)", cells)
    return path


def test_a_query_that_samples_is_read_once(tmp_path: Path) -> None:
    path = numbers_database(tmp_path / "n.sqlite")
    query = "SELECT * FROM numbers WHERE random() % 2"
    streamed = stream_rows(SourceConfig("sqlite", str(path), query=query))
    found = list(streamed)
    assert found == list(streamed)
    assert streamed.first(3) == found[:3]
    assert 0 < len(found) == len(streamed) < 200
    assert all(row == {"q": f"q{row['a']}", "a": row["a"], "b": None, "c": row["a"] / 3}
               for row in found)  # fmt: skip


def test_a_database_is_free_for_writers_while_its_rows_are_read(tmp_path: Path) -> None:
    path = numbers_database(tmp_path / "n.sqlite")
    streamed = stream_rows(SourceConfig("sqlite", str(path)))
    reading = iter(streamed)
    next(reading)
    with closing(sqlite3.connect(path, timeout=0)) as connection, connection:
        connection.execute("DELETE FROM numbers")
    assert len(list(reading)) == 199
    assert len(list(streamed)) == 200


def test_a_group_column_may_be_named_as_hashes_begin() -> None:
    data = [{**row, "text:id": row["k"], "worded:id": "", "row:id": ""} for row in rows(6)]
    cfg = config(group=["text:id", "worded:id", "row:id"])
    examples = make_examples(data, cfg).examples
    assert [example.group for example in examples] == [f"text:id={row['k']}" for row in data]
    assert question_keys(examples[0].keys) == set(examples[0].keys[1:])
    assert connect([example.keys for example in examples]) == list(examples.groups())


keys = st.one_of(
    st.integers(0, 5).map(lambda n: f"patient={n}"),
    st.integers(0, 3).map(lambda n: f"{TEXT}{n}={n:016x}"),
    st.integers(0, 9).map(lambda n: f"{TEXT}{n:016x}"),
    st.integers(0, 9).map(lambda n: f"{WORDED}{n:016x}"),
)


@given(st.lists(st.lists(keys, min_size=1, max_size=3), max_size=12))
def test_groups_from_numbers_are_those_that_sets_of_keys_give(items: list[list[str]]) -> None:
    columns = KeyColumns()
    for own in items:
        columns.add(own)
    groups = columns.connect()
    components: list[set[str]] = []
    for own in items:
        touched = [part for part in components if part & set(own)]
        components = [part for part in components if part not in touched]
        components.append(set(own).union(*touched))

    def name(own: list[str]) -> str:
        (part,) = (part for part in components if part & set(own))
        kinds = (lambda k: "=" in k, lambda k: k.startswith(TEXT), lambda k: True)
        return next(min(found) for kind in kinds if (found := list(filter(kind, part))))

    wanted = [name(own) for own in items]
    assert [groups.name(int(code)) for code in groups.codes] == wanted
    assert connect(items) == wanted
