"""Cells of every type and source are read as the text that a small renderer gives, or refused."""

from __future__ import annotations

import csv
import json
import math
import re
import sqlite3
import tempfile
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizewise.config.data import SourceConfig
from sizewise.data.rows.columns import as_text
from sizewise.data.rows.examples import make_examples
from sizewise.data.rows.read import read_rows
from sizewise.errors import DataError

from .toys import config

CASES = Path("cases/structured_answers/rows.jsonl")
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), TEXT,
    st.floats(allow_infinity=False, width=32), st.sampled_from([0.0, 1.0, 2.0]),
)  # fmt: skip
PARTS = st.fixed_dictionaries({"type": st.sampled_from(["text", "other"]), "text": TEXT})
VALUES = st.recursive(
    SCALARS | PARTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(PARTS, min_size=1, max_size=2)
        | st.dictionaries(st.sampled_from(["a", "b", "type", "text"]), inner, max_size=3)
    ),
    max_leaves=6,
)
ALIKE = (st.integers(-9, 9), TEXT, st.sampled_from([0.0, 1.0, 2.5]), st.lists(PARTS, max_size=2))
COLUMNS = st.one_of(
    st.lists(VALUES, min_size=1, max_size=6),
    *(st.lists(st.none() | kind, min_size=1, max_size=6) for kind in ALIKE),
)


def reference(value: Any, prompt: bool) -> str:
    """What a cell reads, written down anew: text, joined text parts, or JSON.

    Prompts join lists of plain values by spaces.
    """
    if value is None or value != value:
        return ""
    if not isinstance(value, (list, dict)):
        return str(value)
    parts = value if isinstance(value, list) else [value]
    if parts and all(isinstance(p, dict) and p.get("type") == "text" for p in parts):
        texts = [p.get("text") for p in parts]
        if all(isinstance(text, str) for text in texts):
            return "".join(texts)
    if prompt and isinstance(value, list) and not any(isinstance(v, (list, dict)) for v in value):
        return " ".join(reference(item, prompt) for item in value)
    text = json.dumps(value, ensure_ascii=False)
    return json.dumps(json.loads(text, parse_constant=lambda _: None), ensure_ascii=False)


def expected(values: list[Any], prompt: bool) -> list[str]:
    """The texts of a column; integers that gaps made 1.0 are integers again."""
    gaps = [v is None or v == "" or v != v for v in values]
    filled = [v for v, gap in zip(values, gaps, strict=True) if not gap]
    whole = all(
        (isinstance(v, float) and v.is_integer())
        or (isinstance(v, str) and re.fullmatch(r"-?\d+\.0", v))
        for v in filled
    )
    if any(gaps) and filled and whole:
        return ["" if gap else str(int(float(v))) for v, gap in zip(values, gaps, strict=True)]
    return [reference(value, prompt) for value in values]


def write(kind: str, values: list[Any], folder: Path) -> tuple[SourceConfig, list[Any]] | None:
    """Write a column to a file; return its source and what the file then says, if it can say it."""
    path = folder / f"rows.{kind}"
    rows = [{"q": f"question {i}", "a": value} for i, value in enumerate(values)]
    if kind == "csv":
        values = [_typed(value) for value in values]
        cells = zip([row["q"] for row in rows], values, strict=True)
        with path.open("w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows([("q", "a"), *cells])
    elif kind == "json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row, ensure_ascii=True) for row in rows))
    elif kind == "sqlite":
        values = [_stored(value) for value in values]
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE t (q, a)")
            pairs = [(row["q"], value) for row, value in zip(rows, values, strict=True)]
            connection.executemany("INSERT INTO t VALUES (?, ?)", pairs)
    else:
        try:
            table = pyarrow.Table.from_pylist(rows)
            pyarrow.parquet.write_table(table, path)
        except (pyarrow.ArrowException, OverflowError):
            return None  # a column of several types is no column of a table
        values = [row["a"] for row in table.to_pylist()]
    return SourceConfig("json" if kind == "jsonl" else kind, str(path)), values


def _typed(value: Any) -> str:
    return (
        ""
        if value is None
        else json.dumps(value)
        if isinstance(value, (list, dict))
        else str(value)
    )


def _stored(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    return None if value != value else int(value) if isinstance(value, bool) else value


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet", "sqlite"])
def test_point_3_every_source_gives_the_text_of_a_reference_renderer(kind: str) -> None:
    compared: list[str] = []

    @settings(max_examples=60)
    @given(COLUMNS)
    def check(values: list[Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            written = write(kind, values, Path(folder))
            if written is None:
                return
            source, said = written
            rows = read_rows(source)
            made = make_examples(rows, config(source=source))
            asked = make_examples(rows, config(source=source, prompt="{q} {a}", answer="{q}"))
        found = {e.messages[-1].content: e.answer for e in made.examples}
        wanted = {f"question {i}": text for i, text in enumerate(expected(said, False))}
        assert found == {q: text for q, text in wanted.items() if text.strip()}
        compared.extend(found.values())
        prompts = [e.messages[-1].content for e in asked.examples]
        texts = enumerate(expected(said, True))
        assert prompts == [f"question {i} {text}" for i, text in texts]

    check()
    assert len(compared) > 50
    assert any(text.startswith(("{", "[")) for text in compared)


ROW = {
    "q": "mail",
    "fields": {"name": "Ann", "ok": True, "note": None},
    "cities": ["New York", "Boston"],
    "none": [],
    "parts": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}],
    "pair": [{"label": "Ä", "p": 0.5}],
}


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("fields", '{"name": "Ann", "ok": true, "note": null}'),
        ("cities", '["New York", "Boston"]'),
        ("none", "[]"),
        ("parts", "one two"),
        ("pair", '[{"label": "Ä", "p": 0.5}]'),
    ],
)
def test_point_3_answers_keep_their_structure(column: str, text: str) -> None:
    (example,) = make_examples([ROW], config(answer=f"{{{column}}}", label=column)).examples
    assert example.answer == example.meta["label"] == text


def test_point_3_prompts_write_no_python_text() -> None:
    cfg = config(prompt="{fields}\n\n{cities}\n\n{none}\n\n{parts}", answer="{q}")
    (example,) = make_examples([ROW], cfg).examples
    assert example.messages[-1].content == (
        '{"name": "Ann", "ok": true, "note": null}\n\nNew York Boston\n\none two'
    )


@pytest.mark.parametrize("value", [b"yes", bytearray(b"yes"), object(), [b"yes"], {"a": b"yes"}])
def test_point_3_bytes_and_objects_are_refused_with_their_column(value: Any) -> None:
    with pytest.raises(DataError, match=r"column 'a' holds (bytes|bytearray|object), which is no"):
        make_examples([{"q": "x", "a": value}], config())


def test_point_3_half_a_surrogate_pair_is_refused_and_not_a_traceback() -> None:
    with pytest.raises(DataError, match="column 'a' holds text that is not valid Unicode"):
        make_examples([{"q": "x", "a": json.loads(r'"\ud800"')}], config())


def test_dates_and_missing_numbers_are_text() -> None:
    assert as_text(date(2024, 5, 1)) == "2024-05-01"
    assert as_text([math.nan, date(2024, 5, 1)], structured=True) == '[null, "2024-05-01"]'


@pytest.mark.parametrize("gap", [None, math.nan])
def test_point_3_integers_with_gaps_stay_integers_and_it_is_said(gap: Any) -> None:
    values = [1.0, 2.0, gap, 0.0]
    made = make_examples(
        [{"q": f"{i}", "a": v, "b": v} for i, v in enumerate(values)], config(label="b")
    )
    assert [e.answer for e in made.examples] == ["1", "2", "0"]
    assert made.examples[0].meta == {"label": "1"}
    assert made.noted == {
        "rows whose 'a' is read as an integer, 1 for 1.0": 4,
        "rows whose 'b' is read as an integer, 1 for 1.0": 4,
    }


@pytest.mark.parametrize("values", [[1.0, 2.5, None], [1.0, 2.0], ["1.0", "v2.0", ""]])
def test_numbers_without_gaps_or_with_fractions_stay_as_they_are(values: list[Any]) -> None:
    made = make_examples([{"q": f"{i}", "a": v} for i, v in enumerate(values)], config())
    assert [e.answer for e in made.examples] == [str(v) for v in values if v]
    assert made.noted == {}


@pytest.mark.shared
@pytest.mark.parametrize("column", ["tags", "fields", "pair", "maybe", "stars"])
def test_point_3_rows_of_the_case_are_read_as_json(shared_dir: Path, column: str) -> None:
    rows = read_rows(SourceConfig("json", str(shared_dir / CASES)))
    made = make_examples(rows, config(answer=f"{{{column}}}"))
    texts = {e.messages[-1].content: e.answer for e in made.examples}
    assert len(texts) == sum(row[column] is not None for row in rows) > 40
    assert all(json.loads(texts[row["q"]]) == row[column] for row in rows if row["q"] in texts)
