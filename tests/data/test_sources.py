"""Rows are read as they are kept; what cannot be read is one clear error."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest

from sizewise.config.data import SourceConfig
from sizewise.data.rows import hub
from sizewise.data.rows.read import read_rows
from sizewise.errors import DataError


def csv_source(path: Path | str, **kwargs: str) -> SourceConfig:
    return SourceConfig("csv", str(path), **kwargs)


def test_csv_keeps_text_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('\ufeffq,a\n"two\nlines, ""quoted""",NA\n,007\n', encoding="utf-8")
    assert read_rows(csv_source(path)) == [
        {"q": 'two\nlines, "quoted"', "a": "NA"},
        {"q": "", "a": "007"},
    ]


def test_csv_cells_longer_than_the_library_default(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("q,a\n" + "x" * 200_000 + ",y\n")
    assert len(read_rows(csv_source(path))[0]["q"]) == 200_000


def test_csv_delimiter_and_glob_in_order_of_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.csv").write_text(f"q;a\n{name};1\n")
    found = read_rows(csv_source(tmp_path / "*.csv", delimiter=";"))
    assert [row["q"] for row in found] == ["a", "b"]


@pytest.mark.parametrize(("sign", "typed"), [(";", ";"), ("\t", r"\t"), ("|", "|")])
def test_another_delimiter_is_named(tmp_path: Path, sign: str, typed: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"q{sign}a\n1{sign}2\n")
    with pytest.raises(DataError, match=re.escape(f'dataset.source.delimiter="{typed}"')):
        read_rows(csv_source(path))
    assert read_rows(csv_source(path, delimiter=typed)) == [{"q": "1", "a": "2"}]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("q,a,a\n1,2,3\n")
    with pytest.raises(DataError, match="more than one column 'a'"):
        read_rows(csv_source(path))


def test_ragged_csv_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("q,a\n1,2\n1,2,3\n")
    with pytest.raises(DataError, match="line 3"):
        read_rows(csv_source(path))


@pytest.mark.parametrize(
    "text",
    [
        '{"q": "1"}\n\n{"q": "2"}\n',
        '[{"q": "1"},\n {"q": "2"}]',
        '{"data": [{"q": "1"}, {"q": "2"}]}',
        '{\n "data": [{"q": "1"}, {"q": "2"}]\n}',
    ],
)
def test_json_lines_lists_and_wrapped_lists(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    assert read_rows(SourceConfig("json", str(path))) == [{"q": "1"}, {"q": "2"}]


def test_one_json_line_with_a_list_column_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    row = {"id": 1, "turns": [{"role": "user", "content": "hi"}]}
    path.write_text(json.dumps(row) + "\n")
    assert read_rows(SourceConfig("json", str(path))) == [row]


def test_broken_json_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"q": 1}\n{"q": \n')
    with pytest.raises(DataError, match="line 2"):
        read_rows(SourceConfig("json", str(path)))


def test_json_of_other_things_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[1, 2]")
    with pytest.raises(DataError, match="record 1 is int"):
        read_rows(SourceConfig("json", str(path)))


def test_parquet_with_nested_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = [{"q": "x", "turns": [{"role": "user", "content": "hi"}]}, {"q": None, "turns": []}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)
    assert read_rows(SourceConfig("parquet", str(path))) == table


@pytest.mark.parametrize("kind", ["parquet", "sqlite", "csv", "json"])
def test_a_file_of_another_kind_is_a_data_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"\xff\xfe\x00broken" * 50)
    with pytest.raises(DataError, match=r"a\.bin"):
        read_rows(SourceConfig(kind, str(path), table="t"))


def make_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute('CREATE TABLE "my rows" (q TEXT, a TEXT)')
        connection.execute("""INSERT INTO "my rows" VALUES ('1', 'x'), ('2', 'y')""")


def test_sqlite_table_query_and_only_table(tmp_path: Path) -> None:
    path = tmp_path / "a b.sqlite"
    make_database(path)
    everything = [{"q": "1", "a": "x"}, {"q": "2", "a": "y"}]
    assert read_rows(SourceConfig("sqlite", str(path), table="my rows")) == everything
    assert read_rows(SourceConfig("sqlite", str(path))) == everything
    query = "SELECT q AS question FROM \"my rows\" WHERE a = 'y'"
    assert read_rows(SourceConfig("sqlite", str(path), query=query)) == [{"question": "2"}]


def test_sqlite_is_opened_read_only(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    make_database(path)
    with pytest.raises(DataError, match="readonly"):
        read_rows(SourceConfig("sqlite", str(path), query='DELETE FROM "my rows" RETURNING q'))
    assert len(read_rows(SourceConfig("sqlite", str(path)))) == 2


@pytest.mark.parametrize(
    "query",
    ["VACUUM INTO '{}'", "ATTACH '{}' AS other", "PRAGMA journal_mode=WAL", "SELECT 1; SELECT 2"],
)
def test_a_query_of_a_record_may_only_read_its_own_file(tmp_path: Path, query: str) -> None:
    path = tmp_path / "a.sqlite"
    make_database(path)
    with pytest.raises(DataError, match=r"only read this file|one statement"):
        read_rows(SourceConfig("sqlite", str(path), query=query.format(tmp_path / "written")))
    assert [file.name for file in tmp_path.iterdir()] == ["a.sqlite"]


def test_a_query_without_an_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.sqlite"
    make_database(path)
    monkeypatch.setattr("sizewise.data.rows.sqlite.MAX_STEPS", 20_000)
    counting = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n{}) SELECT * FROM n"
    with pytest.raises(DataError, match="stopped after 20,000 steps"):
        read_rows(SourceConfig("sqlite", str(path), query=counting.format("")))
    few = counting.format(" WHERE i < 9")
    assert len(read_rows(SourceConfig("sqlite", str(path), query=few))) == 9


def test_a_query_may_unpack_json(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    make_database(path)
    query = 'SELECT upper(value) AS v FROM json_each(\'["a", "b"]\')'
    assert read_rows(SourceConfig("sqlite", str(path), query=query)) == [{"v": "A"}, {"v": "B"}]


def test_a_full_text_table_is_read_as_any_other(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE VIRTUAL TABLE found USING fts5(q, a)")
        connection.execute("INSERT INTO found VALUES ('sore throat', 'J02'), ('cough', 'R05')")
    query = "SELECT a FROM found WHERE found MATCH 'throat'"
    assert read_rows(SourceConfig("sqlite", str(path), query=query)) == [{"a": "J02"}]
    assert len(read_rows(SourceConfig("sqlite", str(path), table="found"))) == 2


def test_unknown_sqlite_table_names_those_that_exist(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    make_database(path)
    with pytest.raises(DataError, match="my rows"):
        read_rows(SourceConfig("sqlite", str(path), table="other"))


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_rows(csv_source(tmp_path / "none.csv"))
    (tmp_path / "empty.csv").write_text("q,a\n")
    with pytest.raises(DataError, match="no rows"):
        read_rows(csv_source(tmp_path / "empty.csv"))


def test_embedded_rows_and_unknown_embedded_name() -> None:
    found = read_rows(SourceConfig("embedded", "icd10_dialogues"))
    assert {"dialogue", "code", "description", "chapter", "split", "group"} <= set(found[0])
    assert {row["split"] for row in found} == {"train", "validation", "test"}
    with pytest.raises(DataError, match="icd10_dialogues"):
        read_rows(SourceConfig("embedded", "other"))


def hub_source(monkeypatch: pytest.MonkeyPatch, load: object, **kwargs: str) -> SourceConfig:
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))
    monkeypatch.setattr(hub, "reachable", lambda path: True)
    return SourceConfig("hub", "someone/something", **kwargs)


def test_every_hub_split_is_kept_in_a_column(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: str, **kwargs: object) -> dict[str, list[dict[str, str]]]:
        assert kwargs == {"name": None, "revision": None, "split": None}
        return {"train": [{"q": "1"}], "valid": [{"q": "2"}]}

    found = read_rows(hub_source(monkeypatch, load))
    assert found == [{"q": "1", "__split__": "train"}, {"q": "2", "__split__": "valid"}]


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (ConnectionError("Couldn't reach 'x' on the Hub (LocalEntryNotFoundError)"), "local csv"),
        (type("GatedRepoError", (OSError,), {})("403"), "hf auth login"),
        (type("DatasetNotFoundError", (OSError,), {})("not there"), "does not exist or is private"),
        (ValueError('Unknown split "dev"'), "hub_split"),
    ],
)
def test_hub_failures_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, error: Exception, advice: str
) -> None:
    def load(path: str, **kwargs: object) -> None:
        raise error

    with pytest.raises(DataError, match=advice):
        read_rows(hub_source(monkeypatch, load))


def test_the_cause_decides_where_the_hub_wraps_errors() -> None:
    outer = RuntimeError("not found")
    outer.__cause__ = type("GatedRepoError", (OSError,), {})("403")
    assert "gated" in str(hub.explained(SourceConfig("hub", "a/b"), outer))


def test_a_dead_line_is_noticed_at_once_and_the_cache_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import datasets
    import huggingface_hub

    asked = []

    def dead(self: object, path: str, timeout: float) -> None:
        asked.append(path)
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dead)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with pytest.raises(DataError, match="cannot be reached and there is no copy in the cache"):
        read_rows(SourceConfig("hub", "someone/something"))
    assert asked == ["someone/something"]
    assert datasets.config.HF_HUB_OFFLINE


def test_a_local_folder_is_read_like_a_hub_data_set(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("q,a\n1,x\n")
    (tmp_path / "test.csv").write_text("q,a\n2,y\n")
    found = read_rows(SourceConfig("hub", str(tmp_path)))
    assert {(row["q"], row["__split__"]) for row in found} == {(1, "train"), (2, "test")}
