"""The task: valid codes, a long tail, splits that share nothing, the same rows every time.

And words that do not tell the code: who says them of whom does.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections import Counter, defaultdict

import pytest
import simple_icd_10_cm as catalogue

from sizewise.config.data import SPLITS
from sizewise.data.example import Example, Message
from sizewise.embedded.contrasts import FRAMES, Scenario, pair_up
from sizewise.embedded.dialogues import (
    COLUMNS,
    PROMPT,
    fingerprint,
    generate_dialogues,
)
from sizewise.embedded.phrasing import load_conditions
from sizewise.evaluation.baselines import fit

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


def test_no_scenario_is_told_in_two_splits_be_it_the_answer_or_only_mentioned(
    rows: list[Row],
) -> None:
    told = {s: {key for g in groups for key in g.split("+")}
            for s, groups in by_split(rows, "group").items()}  # fmt: skip
    assert not told["train"] & told["test"]
    assert not told["train"] & told["validation"]
    assert not told["validation"] & told["test"]


def test_a_group_holds_two_codes_equally_often(rows: list[Row]) -> None:
    codes: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        codes[row["group"]][row["code"]] += 1
    for group, counts in codes.items():
        assert {*counts} == {key.split("/")[0] for key in group.split("+")}
        assert len(counts) == 2
        assert len({*counts.values()}) == 1


@pytest.mark.parametrize("seed", [42, 3])
def test_each_dialogue_has_a_twin_of_the_same_words_and_another_code(seed: int) -> None:
    """So no reader of word counts, however good, has more than half of them right."""
    twins: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in generate_dialogues(seed):
        twins[tuple(sorted(re.findall(r"\w+", row["dialogue"].lower())))].append(row)
    for pair in twins.values():
        counts = Counter(row["code"] for row in pair)
        assert len(counts) == 2
        assert len({*counts.values()}) == 1
        assert len({row["group"] for row in pair}) == len({row["split"] for row in pair}) == 1


def test_the_place_of_a_finding_does_not_tell_whether_it_is_meant() -> None:
    places = Counter((frame.cue, frame.meant) for frame in FRAMES)
    assert {place for _, place in places} == {"a", "b"}
    assert all(places[cue, "a"] == places[cue, "b"] for cue, _ in places)
    assert {cue for cue, _ in places} == {
        "person", "time", "negation", "change of mind", "order"
    }  # fmt: skip


def test_a_bag_of_words_finds_the_two_codes_and_guesses_between_them(rows: list[Row]) -> None:
    train, asked = (
        [Example((Message("user", r["dialogue"]),), r["code"], r["group"])
         for r in rows if r["split"] == split]
        for split in ("train", "validation")
    )  # fmt: skip
    answers, _ = fit("tfidf_logreg", train[:1200]).answer(asked)
    right = sum(a == e.answer for a, e in zip(answers, asked, strict=True)) / len(asked)
    one_of_two = sum(
        a in {key.split("/")[0] for key in e.group.split("+")}
        for a, e in zip(answers, asked, strict=True)
    ) / len(asked)
    assert one_of_two > 0.6
    assert right < 0.45
    assert right == pytest.approx(one_of_two / 2, abs=0.06)


def test_findings_of_like_frequency_and_one_complaint_are_told_together() -> None:
    conditions = [c for c in load_conditions() if c.family in ("asthma", "cut")]
    units = [(Scenario(c, n, 0), rows) for c in conditions for n in (0, 1) for rows in (1, 8)]
    cases = pair_up(units, random.Random(0))
    assert 2 * len(cases) == len(units)
    assert all(case.codes[0] != case.codes[1] for case in cases)
    size = {(scenario.key, rows) for scenario, rows in units}
    for case in cases:
        assert {(case.first.key, case.twins), (case.second.key, case.twins)} <= size
    assert sum(case.share_complaint for case in cases) > len(cases) / 2


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
    assert max(test.values()) / sum(test.values()) < 0.07


def test_side_of_a_code_is_told_unless_the_dialogue_is_vague(rows: list[Row]) -> None:
    right = [row for row in rows if ", right knee" in row["description"]]
    told = [row for row in right if "right" in row["dialogue"]]
    assert right
    assert len(told) / len(right) > 0.7


def test_prompt_ends_with_the_question_for_a_code(rows: list[Row]) -> None:
    prompt = PROMPT.format(**rows[0])
    assert prompt.startswith(rows[0]["dialogue"] + "\n\n")
    assert "ICD-10-CM code" in prompt.rsplit("\n", 1)[-1]
