"""Whole data sets: from files, mixtures, demonstrations, and SQLite there and back."""

from __future__ import annotations

import csv
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sizewise.config.data import SourceConfig, SplitConfig
from sizewise.data.build import build_splits
from sizewise.data.example import Message
from sizewise.data.rows.sqlite import write_splits
from sizewise.errors import ConfigError, DataError

from .toys import config, rows

NAMES = ("train", "validation", "test")


def write_csv(path: Path, data: list[dict[str, Any]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(data[0]))
        writer.writeheader()
        writer.writerows(data)
    return str(path)


def from_csv(path: Path, data: list[dict[str, Any]], **kwargs: Any) -> Any:
    return config(source=SourceConfig("csv", write_csv(path, data)), **kwargs)


def part(path: Path, data: list[dict[str, Any]], **kwargs: Any) -> dict[str, Any]:
    source = {"kind": "csv", "path": write_csv(path, data)}
    shares = {"validation": 0.2, "test": 0.2}
    base = {"name": path.stem, "source": source, "prompt": "{q}", "answer": "{a}"}
    return {**base, "split": shares, "primary": "x/y"} | kwargs


def mixture(**parts: Any) -> Any:
    source = SourceConfig("mixture", "")
    return config(source=source, prompt="", answer="", parts=parts)


def test_the_same_file_gives_the_same_splits(tmp_path: Path) -> None:
    cfg = from_csv(tmp_path / "a.csv", rows(100, 60))
    one, two = build_splits(cfg), build_splits(cfg)
    assert one == two
    assert one.report.rows == 100


def test_mixture_keeps_parts_limits_and_a_stratum(tmp_path: Path) -> None:
    one = part(tmp_path / "one.csv", rows(100), max_train=10)
    two = part(tmp_path / "two.csv", [{"q": f"other {i}", "a": "b"} for i in range(50)])
    splits = build_splits(mixture(one=one, two=two))
    counts = [sum(e.meta["part"] == name for e in splits.train) for name in ("one", "two")]
    assert counts == [10, 30]
    assert {e.meta["part"] for e in splits.test} == {"one", "two"}
    assert splits.report.rows == 150
    assert splits.report.shared_groups == 0


def test_equal_values_of_two_parts_own_columns_are_two_groups(tmp_path: Path) -> None:
    one = part(
        tmp_path / "one.csv", [{"q": f"a{i}", "a": "x", "g": i} for i in range(9)], group=["g"]
    )
    two = part(
        tmp_path / "two.csv", [{"q": f"b{i}", "a": "x", "h": i} for i in range(9)], group=["h"]
    )
    splits = build_splits(mixture(one=one, two=two))
    everything = splits.train + splits.validation + splits.test
    assert len({e.group for e in everything}) == 18


def test_a_question_that_one_part_tests_is_trained_on_by_none(tmp_path: Path) -> None:
    one = part(tmp_path / "one.csv", rows(100))
    other_seed = {"validation": 0.2, "test": 0.2, "seed": 1}
    again = [{"q": r["q"].upper(), "a": "else", "k": ""} for r in rows(100)]
    two = part(tmp_path / "two.csv", again, split=other_seed)
    splits = build_splits(mixture(one=one, two=two))
    asked = [{e.messages[-1].content.lower() for e in getattr(splits, name)} for name in NAMES]
    assert not asked[0] & (asked[1] | asked[2])
    assert not asked[1] & asked[2]
    lost = splits.report.filtered["held_out_by_another_part"]
    assert lost == 200 - len(splits.train) - len(splits.validation) - len(splits.test) > 0


def test_one_row_in_the_words_of_two_parts_is_in_one_split_under_two_ids(tmp_path: Path) -> None:
    one = part(tmp_path / "one.csv", rows(100))
    two = part(tmp_path / "one.csv", rows(100), prompt="Please: {q}")
    splits = build_splits(mixture(one=one, two=two))
    asked = [
        {e.messages[-1].content.removeprefix("Please: ") for e in getattr(splits, name)}
        for name in NAMES
    ]
    assert not asked[0] & (asked[1] | asked[2])
    assert not asked[1] & asked[2]
    assert len({e.id for e in splits.test}) == len(splits.test) > len(asked[2])


def test_mixture_of_nothing_or_of_a_typo(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="parts is empty"):
        build_splits(mixture())
    with pytest.raises(ConfigError, match=r"dataset\.parts\.one.*promt"):
        build_splits(mixture(one=part(tmp_path / "one.csv", rows(9)) | {"promt": "{q}"}))


def labelled(path: Path, **kwargs: Any) -> Any:
    data = [{"q": f"q{i}", "a": "ABC"[i % 3], "k": ""} for i in range(60)]
    return from_csv(path, data, label="a", system="Say a letter.", **kwargs)


def test_demonstrations_are_training_examples_before_every_prompt(tmp_path: Path) -> None:
    zero = build_splits(labelled(tmp_path / "a.csv"))
    few = build_splits(labelled(tmp_path / "a.csv", few_shot=3))
    messages = few.test[0].messages
    assert [m.role for m in messages] == ["system"] + ["user", "assistant"] * 3 + ["user"]
    assert {m.content for m in messages if m.role == "assistant"} == {"A", "B", "C"}
    shown = {m.content for m in messages[1:-1] if m.role == "user"}
    assert shown <= {e.messages[-1].content for e in zero.train}
    assert not shown & {e.messages[-1].content for e in few.train}
    assert len(few.train) == len(zero.train) - 3


def test_demonstrations_are_the_same_for_every_training_size(tmp_path: Path) -> None:
    """``max_train`` counts what is trained on; even fewer than demonstrations are enough."""
    sizes = (2, 10, 20, None)
    built = [build_splits(labelled(tmp_path / "a.csv", few_shot=5, max_train=n)) for n in sizes]
    assert [len(splits.train) for splits in built] == [2, 10, 20, 31]
    assert all(splits.test == built[0].test for splits in built)
    asked = [[e.messages[-1].content for e in splits.train] for splits in built]
    assert all(questions == asked[-1][: len(questions)] for questions in asked)


def test_no_demonstration_shares_a_group_with_a_held_out_example(tmp_path: Path) -> None:
    """The source's own split may leak: leaking rows are reported, and never shown."""
    data = [
        {
            "q": f"q{i}",
            "a": f"a{i}",
            "k": str(i % 12),
            "s": ("train", "test")[i % 12 < 6 and i > 30],
        }
        for i in range(60)
    ]
    cfg = from_csv(
        tmp_path / "a.csv", data, group=["k"], few_shot=6,
        split=SplitConfig(column="s", validation=0.0),
    )  # fmt: skip
    splits = build_splits(cfg)
    held_out = {example.group for example in splits.test}
    groups = {row["q"]: f"k={row['k']}" for row in data}
    shown = {groups[m.content] for m in splits.test[0].messages[:-1] if m.role == "user"}
    assert splits.report.shared_groups > 0
    assert not shown & held_out


def test_demonstrations_change_the_prompt_fingerprint_and_not_the_question(tmp_path: Path) -> None:
    zero = build_splits(labelled(tmp_path / "a.csv"))
    few = build_splits(labelled(tmp_path / "a.csv", few_shot=2))
    assert [e.id for e in zero.test] == [e.id for e in few.test]
    assert zero.question_fingerprint("test") == few.question_fingerprint("test")
    assert zero.fingerprint("test") != few.fingerprint("test")


def test_demonstrations_as_text(tmp_path: Path) -> None:
    few = build_splits(labelled(tmp_path / "a.csv", few_shot=1, few_shot_style="text"))
    system, user = few.test[0].messages
    assert system == Message("system", "Say a letter.")
    shown, answer, own = user.content.split("\n\n")
    assert answer in "ABC"
    assert shown != own


def test_too_many_demonstrations(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="few_shot=36"):
        build_splits(labelled(tmp_path / "a.csv", few_shot=36))


def test_splits_written_to_sqlite_read_back_and_can_be_queried(tmp_path: Path) -> None:
    data = [
        {"q": f"q{i}", "a": f"a {i}", "k": "x", "h": f'["hi {i}", "yes"]' if i % 2 else ""}
        for i in range(40)
    ]
    cfg = from_csv(tmp_path / "a.csv", data, history="h", system="Be kind.", strata=["k"])
    splits = build_splits(cfg)
    path = tmp_path / "deep" / "splits.sqlite"
    write_splits(splits, path)
    write_splits(splits, path)
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT count(*) FROM examples WHERE split = 'test' AND meta ->> 'k' = 'x'"
        assert connection.execute(query).fetchone() == (len(splits.test),)
    assert [p.name for p in path.parent.iterdir()] == ["splits.sqlite"]
    back = build_splits(
        config(
            source=SourceConfig("sqlite", str(path), table="examples"),
            system="{system}", prompt="{prompt}", answer="{answer}", history="history",
            group=["group_id"], split=SplitConfig(column="split"),
        )
    )  # fmt: skip
    for name in NAMES:
        ours = {(e.messages, e.answer) for e in getattr(splits, name)}
        assert {(e.messages, e.answer) for e in getattr(back, name)} == ours
    assert back.report.leaking_rows == splits.report.leaking_rows == 0


def test_sqlite_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    splits = build_splits(from_csv(tmp_path / "a.csv", rows(10)))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_splits(splits, tmp_path / "file" / "x.sqlite")


def test_embedded_dialogues_split_as_their_column_says() -> None:
    cfg = config(
        source=SourceConfig("embedded", "icd10_dialogues"),
        prompt="{dialogue}", answer="{code}", label="code", group=["group"],
        split=SplitConfig(column="split", on_leak="error"),
    )  # fmt: skip
    splits = build_splits(cfg)
    assert splits.report.leaking_rows == splits.report.shared_groups == 0
    assert len(splits.train) > len(splits.test) > 100
    assert splits.test[0].meta["label"] == splits.test[0].answer


def test_a_backslash_and_an_n_are_no_new_line_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build_splits(from_csv(tmp_path / "a.csv", rows(60), prompt="{q}\nGo on."))
    assert not caplog.records
    build_splits(from_csv(tmp_path / "a.csv", rows(60), prompt="{q}\\nGo on."))
    assert "dataset.prompt holds a backslash and an n" in caplog.text
