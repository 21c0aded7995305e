"""Mixtures: what one part holds out, no other trains on, whatever the wording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sizewise.data.build import build_splits
from sizewise.errors import DataError

from .test_build import NAMES, mixture, part
from .toys import rows


@pytest.mark.parametrize("style", ["turns", "text"])
def test_a_mixture_of_parts_with_demonstrations_keeps_its_training(
    tmp_path: Path, style: str
) -> None:
    """Every prompt begins with the same demonstration, which is not its question."""
    few: dict[str, Any] = {"few_shot": 2, "few_shot_style": style}
    other = [{"q": f"other {i}", "a": "b"} for i in range(50)]
    splits = build_splits(
        mixture(
            one=part(tmp_path / "a.csv", rows(50), **few),
            two=part(tmp_path / "b.csv", other, **few),
        )
    )
    assert [len(getattr(splits, name)) for name in NAMES] == [56, 20, 20]
    assert not splits.report.filtered


def test_demonstrations_do_not_hide_that_two_parts_ask_the_same(tmp_path: Path) -> None:
    one = part(tmp_path / "one.csv", rows(100), few_shot=2)
    again = [{"q": r["q"].upper(), "a": "else"} for r in rows(100)]
    two = part(tmp_path / "two.csv", again, split={"validation": 0.2, "test": 0.2, "seed": 1})
    splits = build_splits(mixture(one=one, two=two))
    asked = [{e.messages[-1].content.lower() for e in getattr(splits, name)} for name in NAMES]
    assert splits.train
    assert not asked[0] & (asked[1] | asked[2])
    assert not asked[1] & asked[2]


def test_no_part_demonstrates_what_another_holds_out(tmp_path: Path) -> None:
    few: dict[str, Any] = {"few_shot": 8, "max_train": 10}
    one = part(tmp_path / "one.csv", rows(60), **few)
    two = part(
        tmp_path / "one.csv", rows(60), split={"validation": 0.2, "test": 0.5, "seed": 1}, **few
    )
    splits = build_splits(mixture(one=one, two=two))
    held = {e.messages[-1].content for e in (*splits.validation, *splits.test)}
    shown = [
        {m.content for e in splits.test if e.meta["part"] == name for m in e.messages[:-1]}
        for name in ("one", "two")
    ]
    assert [len(texts) for texts in shown] == [16, 16]
    assert not held & (shown[0] | shown[1])


def test_a_question_in_the_words_of_another_part_is_held_out_too(tmp_path: Path) -> None:
    """The answers differ, so that the rows do."""
    seed = {"validation": 0.2, "test": 0.2, "seed": 1}
    one = part(tmp_path / "one.csv", rows(100))
    again = [{"q": r["q"].upper(), "a": "else"} for r in rows(100)]
    two = part(tmp_path / "two.csv", again, prompt="Please: {q}", split=seed)
    splits = build_splits(mixture(one=one, two=two))
    asked = [
        {e.messages[-1].content.lower().removeprefix("please: ") for e in getattr(splits, name)}
        for name in NAMES
    ]
    assert not asked[0] & (asked[1] | asked[2])
    assert not asked[1] & asked[2]


def test_a_mixture_whose_parts_hold_out_all_training_says_so(tmp_path: Path) -> None:
    one = part(tmp_path / "one.csv", rows(40))
    two = part(tmp_path / "two.csv", rows(40), split={"validation": 0.0, "test": 1.0})
    with pytest.raises(DataError, match=r"no train and no validation.*24.*one 24"):
        build_splits(mixture(one=one, two=two))


def test_a_mixture_to_test_only_needs_no_training(tmp_path: Path) -> None:
    shares = {"validation": 0.0, "test": 1.0}
    splits = build_splits(mixture(one=part(tmp_path / "one.csv", rows(40), split=shares)))
    assert [len(getattr(splits, name)) for name in NAMES] == [0, 0, 40]


def visits(column: str, kind: str) -> list[dict[str, Any]]:
    """Two rows per patient; no two ask the same."""
    return [{"q": f"{kind} {i}", "a": f"{kind} {i}", column: f"p{i // 2}"} for i in range(200)]


def patients(splits: Any, column: str) -> list[set[str]]:
    return [{e.meta[column] for e in getattr(splits, name)} for name in NAMES]


def test_a_patient_whom_one_part_tests_is_trained_on_by_none(tmp_path: Path) -> None:
    tied: dict[str, Any] = {"group": ["patient"], "strata": ["patient"]}
    one = part(tmp_path / "one.csv", visits("patient", "code"), **tied)
    shares = {"validation": 0.1, "test": 0.3, "seed": 5}
    two = part(tmp_path / "two.csv", visits("patient", "summary"), split=shares, **tied)
    splits = build_splits(mixture(one=one, two=two))
    train, validation, test = patients(splits, "patient")
    assert train
    assert not train & (validation | test)
    assert not validation & test
    assert splits.report.shared_groups == 0
    lost = splits.report.filtered["held_out_by_another_part"]
    assert lost == 400 - sum(len(getattr(splits, name)) for name in NAMES) > 0
    assert len({e.group for e in splits.test}) == len(test)


def test_equal_values_of_columns_with_other_names_are_other_groups(tmp_path: Path) -> None:
    one = part(tmp_path / "one.csv", visits("patient", "code"), group=["patient"])
    two = part(
        tmp_path / "two.csv", visits("row", "summary"), group=["row"],
        split={"validation": 0.1, "test": 0.3, "seed": 5},
    )  # fmt: skip
    splits = build_splits(mixture(one=one, two=two))
    assert sum(len(getattr(splits, name)) for name in NAMES) == 400
    assert splits.report.shared_groups == 0


def test_a_patient_is_held_out_with_all_that_the_other_part_ties_to_them(tmp_path: Path) -> None:
    """One part tests p1; the other has a row of p1 and one of p2 that asks the same."""
    column = {"column": "s"}
    first = [{"q": f"a{i}", "a": "x", "p": f"p{i}", "s": "train"} for i in range(2, 6)]
    first += [{"q": "a1", "a": "x", "p": "p1", "s": "test"}]
    second = [{"q": f"b{i}", "a": f"x{i}", "p": f"p{i}", "s": "train"} for i in (1, 12, 13)]
    second[1]["q"] = "b1"
    split = {**column, "validation": 0.0}
    one = part(tmp_path / "one.csv", first, group=["p"], split=split, strata=["p"])
    two = part(
        tmp_path / "two.csv", second, group=["p"], split={**split, "test": 0.0}, strata=["p"]
    )
    splits = build_splits(mixture(one=one, two=two))
    assert patients(splits, "p") == [{"p2", "p3", "p4", "p5", "p13"}, set(), {"p1"}]


def test_a_patient_whom_a_part_itself_leaks_is_counted_and_stays_if_so_wanted(
    tmp_path: Path,
) -> None:
    data = [{"q": f"a{i}", "a": "x", "p": f"p{i % 4}", "s": "train"} for i in range(8)]
    data[0]["s"] = "test"
    split = {"column": "s", "validation": 0.0}
    one = part(tmp_path / "one.csv", data, group=["p"], split=split)
    splits = build_splits(mixture(one=one))
    assert len(splits.train) == 7
    assert splits.report.shared_groups == splits.report.leaking_rows == 1
