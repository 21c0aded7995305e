"""The task: valid codes, a long tail, splits that share nothing, the same rows every time."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
import simple_icd_10_cm as catalogue

from sizewise.embedded.dialogues import (
    COLUMNS,
    PROMPT,
    SPLITS,
    fingerprint,
    generate_dialogues,
)

Row = dict[str, str]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return generate_dialogues()


def by_split(rows: list[Row], column: str) -> dict[str, set[str]]:
    return {split: {r[column] for r in rows if r["split"] == split} for split in SPLITS}


def test_rows_have_all_columns_filled(rows: list[Row]) -> None:
    assert all(tuple(row) == COLUMNS and all(row.values()) for row in rows)


def test_same_seed_same_rows_other_seed_other_rows(rows: list[Row]) -> None:
    assert fingerprint(generate_dialogues()) == fingerprint(rows)
    assert fingerprint(generate_dialogues(seed=1)) != fingerprint(rows)


def test_rows_do_not_depend_on_the_hash_seed(rows: list[Row]) -> None:
    program = (
        "import sys; from sizewise.embedded.dialogues import *; "
        "sys.stdout.write(fingerprint(generate_dialogues()) + str('torch' in sys.modules))"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == fingerprint(rows) + "False"


def test_fingerprint_sees_a_changed_cell(rows: list[Row]) -> None:
    changed = [dict(row) for row in rows]
    changed[7]["code"] = "I10" if changed[7]["code"] != "I10" else "R42"
    assert fingerprint(changed) != fingerprint(rows)


@pytest.mark.parametrize("column", ["group", "dialogue"])
def test_splits_share_neither_scenarios_nor_texts(rows: list[Row], column: str) -> None:
    values = by_split(rows, column)
    assert not values["train"] & values["test"]
    assert not values["train"] & values["validation"]
    assert not values["validation"] & values["test"]


def test_no_text_occurs_twice(rows: list[Row]) -> None:
    assert len({row["dialogue"] for row in rows}) == len(rows)


def test_a_group_has_one_code(rows: list[Row]) -> None:
    assert len({(row["group"], row["code"]) for row in rows}) == len({r["group"] for r in rows})


def test_codes_are_leaves_of_the_catalogue_with_their_texts(rows: list[Row]) -> None:
    for code, description, chapter in {(r["code"], r["description"], r["chapter"]) for r in rows}:
        assert catalogue.is_valid_item(code)
        assert catalogue.is_leaf(code)
        assert description == catalogue.get_description(code)
        assert chapter == catalogue.get_description(catalogue.get_ancestors(code)[-1])


def test_sizes_of_the_splits(rows: list[Row]) -> None:
    sizes = Counter(row["split"] for row in rows)
    assert 2000 <= sizes["train"] <= 3000
    assert sizes["validation"] >= 400
    assert sizes["test"] >= 480


def test_long_tail_and_unseen_codes(rows: list[Row]) -> None:
    train = Counter(row["code"] for row in rows if row["split"] == "train")
    test = Counter(row["code"] for row in rows if row["split"] == "test")
    assert 120 <= len(train) <= 300
    assert sum(count >= 60 for count in train.values()) >= 4
    assert sum(2 <= count <= 4 for count in train.values()) >= 40
    assert 3 <= sum(code not in train for code in test) <= 15
    assert max(test.values()) / sum(test.values()) < 0.06


def test_side_of_a_code_is_told_unless_the_dialogue_is_vague(rows: list[Row]) -> None:
    right = [row for row in rows if ", right knee" in row["description"]]
    told = [row for row in right if "right" in row["dialogue"]]
    assert right
    assert len(told) / len(right) > 0.7


def test_prompt_ends_with_the_question_for_a_code(rows: list[Row]) -> None:
    prompt = PROMPT.format(**rows[0])
    assert prompt.startswith(rows[0]["dialogue"] + "\n\n")
    assert "ICD-10-CM code" in prompt.rsplit("\n", 1)[-1]
