"""Dialogues of every spelling become alternating turns."""

from __future__ import annotations

import json
from collections import Counter
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


def test_a_later_system_turn_is_shown_to_no_earlier_answer() -> None:
    value = [
        {"role": "system", "content": "A"},
        {"role": "user", "content": "which?"},
        {"role": "assistant", "content": "111"},
        {"role": "system", "content": "note: the code is 222"},
        {"role": "user", "content": "and now?"},
        {"role": "assistant", "content": "222"},
    ]
    noted: Counter[str] = Counter()
    prompts = [prompt for prompt, _ in answered_turns(read_turns(value, "k", noted=noted), "all")]
    assert [(m.role, m.content) for m in prompts[0]] == [("system", "A"), ("user", "which?")]
    assert [(m.role, m.content) for m in prompts[1][2:]] == [
        ("assistant", "111"), ("user", "note: the code is 222\n\nand now?"),
    ]  # fmt: skip
    assert noted == {"system turns behind an answer read as a text of the user": 1}
    del value[4]
    last = next(answered_turns(read_turns(value, "k"), "last"))[0][-1]
    assert (last.role, last.content) == ("user", "note: the code is 222")


def test_a_system_turn_behind_a_call_of_a_tool_is_the_conversations_own() -> None:
    call = {"function": {"name": "f", "arguments": {}}}
    value = [
        {"role": "user", "content": "a", "weight": 0},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "r"},
        {"role": "system", "content": "s"},
        {"role": "assistant", "content": "b"},
        {"role": "system", "content": "t"},
        {"role": "user", "content": "c", "weight": 0},
    ]
    turns = read_turns(value, "k")
    assert [turn.role for turn in turns] == ["system", *("user", "assistant", "tool"), "assistant",
                                             "user"]  # fmt: skip
    assert turns[-1].content == "t\n\nc"


def test_null_in_a_turn_means_that_the_key_is_absent() -> None:
    value = [
        {"role": None, "from": "human", "content": None, "value": "hello"},
        {"role": "assistant", "content": None, "value": "hi"},
    ]
    assert [(t.role, t.content) for t in read_turns(value, "k")] == [
        ("user", "hello"), ("assistant", "hi"),
    ]  # fmt: skip


def test_system_texts_of_unlike_weight_are_one_and_further_tools_are_counted() -> None:
    noted: Counter[str] = Counter()
    value = [
        {"role": "system", "content": "a", "weight": 0},
        {"role": "system", "content": "b"},
        {"role": "tools", "content": "[1]"},
        {"role": "user", "content": "q"},
        {"role": "tools", "content": "[2]"},
    ]
    turns = read_turns(value, "k", noted=noted)
    assert [turn.content for turn in turns] == ["[1]", "a\n\nb", "q"]
    assert noted == {"further definitions of tools left out": 1}
