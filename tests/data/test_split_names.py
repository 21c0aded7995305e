"""The user's own splits: synonyms are read, unknown values refused, and what was done is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sizewise.config.data import DatasetConfig, SourceConfig, SplitConfig
from sizewise.data.build import build_splits
from sizewise.data.example import DataSplits
from sizewise.data.rows.examples import make_examples
from sizewise.data.splits.draw import split_examples
from sizewise.errors import DataError

from .toys import config

PARTS = ("train", "validation", "test")


def divided(counts: dict[str | None, int], **kwargs: Any) -> tuple[DataSplits, DatasetConfig]:
    """Split rows of which ``counts`` have each value in the column."""
    values = [value for value, count in counts.items() for _ in range(count)]
    rows = [{"q": f"{v} {i}", "a": f"{i}", "s": v} for i, v in enumerate(values)]
    cfg = config(split=SplitConfig(column="s", validation=0.1, test=0.1, **kwargs))
    return split_examples(make_examples(rows, cfg), cfg), cfg


def origins(splits: DataSplits) -> dict[str, set[str]]:
    """Which values of the column each split is made of."""
    return {
        name: {e.messages[-1].content.split()[0] for e in getattr(splits, name)} for name in PARTS
    }


@pytest.mark.parametrize("validation", ["dev", "valid", "val", "DEV", "Validation", "development"])
@pytest.mark.parametrize(("train", "test"), [("TRAIN", "Test"), ("training", "testing")])
def test_point_2_known_synonyms_in_any_case_are_the_users_own_splits(
    train: str, validation: str, test: str
) -> None:
    splits, _ = divided({train: 20, validation: 6, test: 5})
    assert origins(splits) == {"train": {train}, "validation": {validation}, "test": {test}}
    assert splits.report.noted[f"examples of the split {validation!r} read as validation"] == 6
    assert splits.report.filtered == {}


@pytest.mark.parametrize(
    ("others", "role", "drawn"),
    [
        ({"train": 30, "test": 5}, "validation", None),
        ({"train": 30, "dev": 5}, "test", None),
        ({"train": 30}, "test", "validation"),
    ],
)
def test_point_2_eval_is_what_the_other_splits_leave_open(
    others: dict[str | None, int], role: str, drawn: str | None
) -> None:
    splits, _ = divided({**others, "eval": 7})
    assert origins(splits)[role] == {"eval"}
    assert len(getattr(splits, role)) == 7
    assert splits.report.noted[f"examples of the split 'eval' read as {role}"] == 7
    if drawn is not None:
        said = splits.report.noted[f"{drawn} examples drawn from training"]
        assert said == len(getattr(splits, drawn)) == 3
        assert f"{drawn} examples drawn from training (3)" in splits.report.notes


@pytest.mark.parametrize("value", [None, "", "holdout", "part 7"])
def test_point_2_values_that_fit_nothing_are_refused_with_their_counts(value: str | None) -> None:
    with pytest.raises(DataError) as caught:
        divided({"train": 20, value: 4, "test": 5})
    message = str(caught.value)
    assert f"for validation, and these values fit no split: {value or ''!r} (4)" in message
    assert f'dataset.split.names.validation="{value or ""}"' in message


def test_point_2_two_synonyms_that_compete_are_refused() -> None:
    with pytest.raises(DataError, match=r"'dev' \(4\), 'val' \(3\)"):
        divided({"train": 20, "dev": 4, "val": 3, "test": 5})


@pytest.mark.parametrize(
    ("names", "validation"), [({"validation": ""}, {"None"}), ({"unused": ""}, {"train"})]
)
def test_point_2_what_the_message_advises_is_taken(
    names: dict[str, str], validation: set[str]
) -> None:
    names = {"train": "train", "test": "test"} | names
    splits, _ = divided({"train": 20, None: 4, "test": 5}, names=names)
    assert origins(splits)["validation"] == validation
    assert splits.report.filtered == ({"other_split": 4} if "unused" in names else {})


def test_values_beside_whole_splits_are_left_out_and_counted() -> None:
    splits, _ = divided({"train": 20, "validation": 4, "test": 5, "dev": 3, "extra": 2})
    assert origins(splits) == {name: {name} for name in PARTS}
    assert splits.report.reasons == "5 other split"


def test_the_configured_names_come_before_any_synonym() -> None:
    names = {"train": "a", "validation": "test", "test": "dev"}
    splits, _ = divided({"a": 20, "test": 4, "dev": 5}, names=names)
    assert origins(splits) == {"train": {"a"}, "validation": {"test"}, "test": {"dev"}}
    assert splits.report.noted == {}


def test_a_small_sample_without_a_split_refuses_no_value() -> None:
    """Whether a split is there is seen in all rows, not in the few that are taken."""
    rows = [{"q": f"{i}", "a": "x", "s": "train" if i else "test"} for i in range(40)]
    rows += [{"q": "v", "a": "x", "s": "dev"}, {"q": "o", "a": "x", "s": "other"}]
    cfg = config(split=SplitConfig(column="s"), max_samples=20)
    splits = split_examples(make_examples(rows, cfg), cfg)
    assert sum(len(getattr(splits, name)) for name in PARTS) >= 19


@pytest.mark.parametrize("column", ["__split__", "split"])
def test_point_2_own_splits_that_the_configuration_does_not_name_are_noted(column: str) -> None:
    rows = [{"q": f"{i}", "a": "x", column: "Test" if i % 4 else "train"} for i in range(20)]
    (note,) = make_examples(rows, config()).noted.items()
    assert note[0].startswith("rows of the source's own splits (Test, train) divided anew")
    assert note[1] == 20
    single = [{**row, column: "train"} for row in rows]
    assert make_examples(single, config()).noted == {}


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "sizes"),
    [("dev", (160, 20, 20)), ("valid", (160, 20, 20)), ("upper", (160, 20, 20)), ("eval", None)],
)
def test_point_2_the_cases_keep_their_own_rows(
    shared_dir: Path, name: str, sizes: tuple[int, ...] | None
) -> None:
    source = SourceConfig("json", str(shared_dir / "cases/split_names" / f"{name}.jsonl"))
    splits = build_splits(config(source=source, split=SplitConfig(column="split")))
    if sizes is not None:
        assert tuple(len(getattr(splits, part)) for part in PARTS) == sizes
    else:
        numbers = sorted(int(e.messages[-1].content.split()[1]) for e in splits.test)
        assert len(numbers) == 20
        assert {number % 10 for number in numbers} == {9}


@pytest.mark.shared
def test_point_2_empty_cells_of_the_case_are_refused(shared_dir: Path) -> None:
    source = SourceConfig("json", str(shared_dir / "cases/split_names/none.jsonl"))
    with pytest.raises(DataError, match=r"'' \(20\)"):
        build_splits(config(source=source, split=SplitConfig(column="split")))


@pytest.mark.parametrize(
    ("validation", "test", "role"), [(0.1, 0.0, "validation"), (0.0, 0.1, "test")]
)
def test_eval_is_the_split_that_is_wanted(validation: float, test: float, role: str) -> None:
    values = ["train"] * 30 + ["eval"] * 7
    rows = [{"q": f"{v} {i}", "a": f"{i}", "s": v} for i, v in enumerate(values)]
    cfg = config(split=SplitConfig(column="s", validation=validation, test=test))
    splits = split_examples(make_examples(rows, cfg), cfg)
    assert {name: len(getattr(splits, name)) for name in PARTS if name != "train"} == {
        "validation": 0, "test": 0, role: 7,
    }  # fmt: skip
    assert splits.report.noted == {f"examples of the split 'eval' read as {role}": 7}
