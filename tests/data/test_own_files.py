"""Files for each split, folders of save_to_disk, TSV and Excel, and what tells files apart."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sizewise.composition.compose import compose_run
from sizewise.composition.inputs import pinned
from sizewise.config.data import SourceConfig, SplitConfig
from sizewise.data.build import build_splits, kept_splits
from sizewise.data.example import DataSplits
from sizewise.data.rows.examples import make_examples
from sizewise.data.rows.read import check_content, content_hash, kind_of, read_rows
from sizewise.errors import ConfigError, DataError

from .toys import config

PARTS = ("train", "validation", "test")


def write(path: Path, count: int, sign: str = ",") -> str:
    lines = [f"{path.stem} {i}{sign}{i}" for i in range(count)]
    path.write_text("\n".join([f"q{sign}a", *lines]) + "\n")
    return str(path)


def files(folder: Path, **counts: int) -> dict[str, str]:
    return {name: write(folder / f"{name}.csv", count) for name, count in counts.items()}


def built(path: Any, kind: str = "csv", **split: float) -> DataSplits:
    shares = {"validation": 0.1, "test": 0.1} | split
    return build_splits(config(source=SourceConfig(kind, path), split=SplitConfig(**shares)))


def sizes(splits: DataSplits) -> list[int]:
    return [len(getattr(splits, name)) for name in PARTS]


@pytest.mark.parametrize("kind", ["csv", "hub"])
def test_point_19_a_file_for_each_split_is_that_split(tmp_path: Path, kind: str) -> None:
    splits = built(files(tmp_path, train=20, validation=5, test=7), kind)
    assert sizes(splits) == [20, 5, 7]
    for name in PARTS:
        words = {e.messages[-1].content.split()[0] for e in getattr(splits, name)}
        assert words == {name}
    assert splits.report.noted == {}


@pytest.mark.parametrize(
    ("counts", "split", "expected"),
    [
        ({"train": 20, "test": 7}, {}, [18, 2, 7]),
        ({"train": 20, "test": 7}, {"validation": 0.0}, [20, 0, 7]),
        ({"train": 20, "validation": 5}, {"test": 0.0}, [20, 5, 0]),
        ({"test": 7}, {}, [0, 0, 7]),
        ({"validation": 5, "test": 7}, {}, [0, 5, 7]),
    ],
)
def test_point_19_what_has_no_file_is_drawn_from_training_alone(
    tmp_path: Path, counts: dict[str, int], split: dict[str, float], expected: list[int]
) -> None:
    assert sizes(built(files(tmp_path, **counts), **split)) == expected


@pytest.mark.parametrize(
    "path", [{}, {"validation": "x"}, {"train": "x", "dev": "y"}, {"train": 3}, 3, None, ["x"]]
)
def test_point_19_a_mapping_of_something_else_is_refused(path: Any) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.source\.path=.* names no files"):
        SourceConfig("csv", path)


def test_point_19_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    paths = files(tmp_path, train=20) | {"test": "gone.csv"}
    with pytest.raises(DataError, match=r"path='gone\.csv': no such file"):
        built(paths)
    with pytest.raises(DataError, match=r"names no file for test: 'gone\.csv'"):
        built(paths, "hub")


def test_point_2_files_named_as_splits_that_are_put_together_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files(tmp_path, train=20, test=7, more=2)
    assert len(read_rows(SourceConfig("csv", str(tmp_path / "*.csv")))) == 29
    assert "The files test.csv, train.csv are put together and divided anew" in caplog.text


def test_point_19_a_planned_job_names_the_content_of_all_files(tmp_path: Path) -> None:
    source = {"kind": "csv", "path": files(tmp_path, train=20, test=7)}
    planned = pinned({"dataset": {"source": dict(source)}})["dataset"]["source"]["sha256"]
    assert planned == content_hash(SourceConfig(**source))
    assert len(planned) == 16


def test_point_19_files_for_each_split_and_a_split_column_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Set dataset\.split\.column=null"):
        config(source=SourceConfig("csv", {"train": "x"}), split=SplitConfig(column="s"))


def test_point_19_the_command_line_names_files_for_each_split(tmp_path: Path) -> None:
    paths = files(tmp_path, train=20, test=7)
    given = f"dataset.source.path={{train: {paths['train']}, test: {paths['test']}}}"
    words = ('dataset.prompt="{q}"', 'dataset.answer="{a}"')
    one = compose_run(["dataset=csv", given, *words])
    assert one.dataset.source.path == paths
    assert sizes(build_splits(one.dataset)) == [18, 2, 7]


def test_point_19_every_file_counts_in_the_hash_and_in_memory(tmp_path: Path) -> None:
    paths = files(tmp_path, train=20, validation=5, test=7)
    source = SourceConfig("csv", paths)
    cfg = config(source=source)
    found = {content_hash(source)}
    before = kept_splits(cfg)
    for name in PARTS:
        write(Path(paths[name]), 9)
        found.add(content_hash(source))
    swapped = SourceConfig("csv", {**paths, "train": paths["test"], "test": paths["train"]})
    assert len(found | {content_hash(swapped)}) == 5
    assert sizes(before) != sizes(kept_splits(cfg))
    planned = SourceConfig("csv", paths, sha256=content_hash(source))
    check_content(planned)
    write(Path(paths["test"]), 11)
    with pytest.raises(DataError, match="holds something else"):
        check_content(planned)


def test_point_19_one_file_keeps_the_hash_that_sweeps_were_planned_with(tmp_path: Path) -> None:
    source = SourceConfig("csv", write(tmp_path / "a.csv", 3))
    whole = hashlib.sha256(Path(source.path).read_bytes()).hexdigest()
    assert content_hash(source) == hashlib.sha256(whole.encode()).hexdigest()[:16]


def test_point_19_a_folder_of_save_to_disk_is_read_and_hashed(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    def rows(name: str, count: int) -> Dataset:
        return Dataset.from_list([{"q": f"{name} {i}", "a": f"{i}"} for i in range(count)])

    folder = tmp_path / "saved"
    DatasetDict(train=rows("train", 12), dev=rows("dev", 3), test=rows("test", 4)).save_to_disk(
        str(folder)
    )
    source = SourceConfig("hub", str(folder))
    split = SplitConfig(column="__split__", validation=0.1, test=0.1)
    assert sizes(build_splits(config(source=source, split=split))) == [12, 3, 4]
    chosen = read_rows(SourceConfig("hub", str(folder), hub_split="dev"))
    assert {row["q"].split()[0] for row in chosen} == {"dev"}
    with pytest.raises(DataError, match=r"has no split 'valid'\. There is: train, dev, test"):
        read_rows(SourceConfig("hub", str(folder), hub_split="valid"))
    before = content_hash(source)
    (folder / "test" / "more.arrow").write_bytes(b"1")
    assert before is not None
    assert content_hash(source) != before
    rows("one", 3).save_to_disk(str(tmp_path / "single"))
    assert len(read_rows(SourceConfig("hub", str(tmp_path / "single")))) == 3


def test_point_3_integers_with_gaps_of_a_folder_stay_integers(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("q,a\n1,7\n2,\n3,0\n")
    rows = read_rows(SourceConfig("hub", str(tmp_path)))
    assert [row["a"] for row in rows if row["a"] == row["a"] and row["a"] is not None] == [7.0, 0.0]
    assert [e.answer for e in make_examples(rows, config()).examples] == ["7", "0"]


@pytest.mark.parametrize(("name", "kind"), [("a.tsv", "csv"), ("a.TAB", "csv"), ("a.tsv", "hub")])
def test_point_19_tabs_by_the_ending(tmp_path: Path, name: str, kind: str) -> None:
    source = SourceConfig(kind, write(tmp_path / name, 2, "\t"))
    assert kind_of(source) == "csv"
    assert read_rows(source) == [{"q": "a 0", "a": "0"}, {"q": "a 1", "a": "1"}]
    commas = SourceConfig(kind, write(tmp_path / name, 1, ","))
    assert read_rows(commas) == [{"q": "a 0", "a": "0"}]


class Book(dict[str, Any]):
    """Stands in for openpyxl's workbook: sheets by name."""

    @property
    def sheetnames(self) -> list[str]:
        return list(self)

    def close(self) -> None:
        """Nothing is open."""


def excel(monkeypatch: pytest.MonkeyPatch, **sheets: list[tuple[Any, ...]]) -> None:
    def load_workbook(path: Path, read_only: bool, data_only: bool) -> Book:
        assert (read_only, data_only, path.is_file()) == (True, True, True)
        made = {
            name: SimpleNamespace(iter_rows=lambda values_only, rows=rows: iter(rows))
            for name, rows in sheets.items()
        }
        return Book(made)

    monkeypatch.setitem(sys.modules, "openpyxl", SimpleNamespace(load_workbook=load_workbook))


ROWS = [(None, None), ("q", "a", None), ("one", 1, None), (None, None, None), ("two", None, None)]


@pytest.mark.parametrize("kind", ["csv", "hub"])
def test_point_19_an_excel_sheet_by_the_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "rows.xlsx"
    path.write_bytes(b"PK\x03\x04")
    excel(monkeypatch, only=ROWS)
    expected = [{"q": "one", "a": 1}, {"q": "two", "a": None}]
    assert read_rows(SourceConfig(kind, str(path))) == expected
    excel(monkeypatch, notes=[("x",)], data=ROWS)
    with pytest.raises(DataError, match=r"table=None does not name .* sheets: notes, data"):
        read_rows(SourceConfig(kind, str(path)))
    assert read_rows(SourceConfig(kind, str(path), table="data")) == expected


def test_point_19_excel_without_its_package_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    path = tmp_path / "rows.xlsx"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"needs the package openpyxl.*or save the sheet as CSV"):
        read_rows(SourceConfig("csv", str(path)))


def csv_source(path: Path, content: bytes | str, **kwargs: str) -> SourceConfig:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return SourceConfig("csv", str(path), **kwargs)


@pytest.mark.parametrize(
    ("encoding", "advice"),
    [
        ("utf-16", "iconv -f UTF-16 -t UTF-8"),
        ("utf-16-le", "iconv -f UTF-16LE -t UTF-8"),
        ("utf-16-be", "iconv -f UTF-16BE -t UTF-8"),
        ("utf-32", "iconv -f UTF-32 -t UTF-8"),
        ("cp1252", "iconv -f CP1252 -t UTF-8"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "json"])
def test_point_21_another_encoding_gets_the_right_command(
    tmp_path: Path, encoding: str, advice: str, kind: str
) -> None:
    text = "q,a\nGrüße,1\n" if kind == "csv" else json.dumps([{"q": "Grüße"}], ensure_ascii=False)
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=advice):
        read_rows(SourceConfig(kind, str(path)))


@pytest.mark.parametrize("start", [b"PK\x03\x04rest", b"\xd0\xcf\x11\xe0rest"])
def test_point_21_a_spreadsheet_called_csv_is_named(tmp_path: Path, start: bytes) -> None:
    with pytest.raises(DataError, match="is a spreadsheet or an archive"):
        read_rows(csv_source(tmp_path / "a.csv", start))


def test_point_21_the_first_line_of_excel_names_the_sign(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert read_rows(csv_source(path, "\ufeffsep=;\r\nq;a\r\n1,5;x\r\n")) == [
        {"q": "1,5", "a": "x"}
    ]
    assert read_rows(csv_source(path, "sep=,\nq|a\n1|x\n", delimiter="|")) == [{"q": "1", "a": "x"}]
    with pytest.raises(DataError, match="line 3: the row does not have 2 fields"):
        read_rows(csv_source(path, "sep=;\nq;a\n1;2;3\n"))


@pytest.mark.parametrize("text", ["5", "null", '"text"', "true", "[[1]]"])
def test_point_21_a_json_file_that_holds_no_object_is_one_message(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"record 1 is \w+, not an object with columns"):
        read_rows(SourceConfig("json", str(path)))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' + "1" * 5000 + "}"])
def test_point_23_json_that_python_cannot_read_is_one_message(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match="line 1: cannot be read as JSON"):
        read_rows(SourceConfig("json", str(path)))


def test_point_23_a_prompt_without_a_column_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 35)
    cfg = config(source=SourceConfig("csv", path), prompt="Write a poem.", answer="{a}")
    with pytest.raises(DataError, match=r"dataset.prompt='Write a poem.' names no column"):
        build_splits(cfg)


def test_point_23_the_answers_column_in_the_prompt_is_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 35)
    cfg = config(source=SourceConfig("csv", path), prompt="{q} {a}", answer="{a}")
    noted = build_splits(cfg).report.noted
    assert noted == {"rows whose prompt shows 'a', which the answer is made of": 35}
