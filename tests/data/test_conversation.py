"""Dialogues of every spelling become alternating turns."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sizewise.data.rows.conversation import answered_turns, read_turns
from sizewise.errors import DataError

MAPPED = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
]


@pytest.mark.parametrize(
    "value",
    [
        MAPPED,
        json.dumps(MAPPED),
        ["a", "b", "c"],
        [
            {"from": "human", "value": "a"},
            {"from": "gpt", "value": "b"},
            {"from": "human", "value": "c"},
        ],
    ],
)
def test_all_spellings_give_the_same_turns(value: Any) -> None:
    turns = read_turns(value, "dataset.conversation")
    assert [turn.as_dict() for turn in turns] == MAPPED


def test_roles_alternate_and_begin_with_the_user() -> None:
    value = [
        {"role": "assistant", "content": "welcome"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "  "},
        {"role": "user", "content": "b"},
        {"role": "system", "content": "s"},
    ]
    turns = read_turns(value, "k")
    assert [(t.role, t.content) for t in turns] == [("system", "s"), ("user", "a\n\nb")]


def test_every_answered_turn_is_encoded_with_its_own_history() -> None:
    turns = read_turns(["a", "b", "c", "d", "e"], "k")
    found = [
        ([m.content for m in prompt], answer) for prompt, answer in answered_turns(turns, "all")
    ]
    assert found == [(["a"], "b"), (["a", "b", "c"], "d")]
    assert [answer for _, answer in answered_turns(turns, "last")] == ["d"]


@pytest.mark.parametrize("value", [{"a": 1}, [{"role": "judge", "content": "x"}], "[broken", [3]])
def test_what_is_no_dialogue_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match=r"dataset\.conversation"):
        read_turns(value, "dataset.conversation")


def test_empty_cells_have_no_turns() -> None:
    assert read_turns(None, "k") == read_turns(float("nan"), "k") == read_turns([], "k") == []
