"""Tools, weights, reasoning and parts of conversations reach the template, or are counted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sizewise.config.data import SourceConfig, SplitConfig
from sizewise.data.build import build_splits
from sizewise.data.example import Example, Message
from sizewise.data.rows.conversation import read_turns
from sizewise.data.rows.examples import Candidates, make_examples
from sizewise.data.rows.read import read_rows
from sizewise.data.rows.sqlite import write_splits
from sizewise.data.splits.draw import split_examples
from sizewise.data.tokens.encode import encode_examples
from sizewise.data.tokens.seq2seq import Seq2SeqTemplate
from sizewise.data.tokens.template import ChatTemplate
from sizewise.errors import DataError, ModelError

from .toys import CHATML, byte_tokenizer, config

WITH_TOOLS = (
    "{% if tools %}{{ '<turn>tools\n' + (tools | tojson) + '<end>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<turn>' + m['role'] + '\n' + m['content'] }}"
    "{% for c in m.tool_calls or [] %}{{ '[call ' + (c.function | tojson) + ']' }}{% endfor %}"
    "{{ '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>assistant\n' }}{% endif %}"
)
ONLY_USERS = (
    "{% for m in messages %}{% if m['role'] in ('user', 'assistant') %}"
    "{{ '<turn>' + m['role'] + '\n' + m['content'] + '<end>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>assistant\n' }}{% endif %}"
)
CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"town": 0}'}}
READ_CALL = {**CALL, "function": {"name": "weather", "arguments": {"town": 0}}}
WEATHER = [
    {"role": "user", "content": "weather?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "rain", "tool_call_id": "1"},
    {"role": "assistant", "content": "It rains."},
]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def made(turns: Any, **columns: Any) -> Candidates:
    cfg = config(prompt="", answer="", conversation="m")
    return make_examples([{"m": turns, **columns}], cfg)


def rendered(example: Example, template: str = WITH_TOOLS) -> str:
    return ChatTemplate(byte_tokenizer(template)).prompt(example.messages)


def test_point_4_calls_and_results_of_tools_go_through_the_template() -> None:
    found = made(WEATHER)
    (example,) = found.examples
    assert example.answer == "It rains."
    assert example.messages[1].as_dict() == {
        "role": "assistant", "content": "", "tool_calls": [READ_CALL],
    }  # fmt: skip
    assert rendered(example) == (
        "<turn>user\nweather?<end>\n"
        '<turn>assistant\n[call {"name": "weather", "arguments": {"town": 0}}]<end>\n'
        "<turn>tool\nrain<end>\n<turn>assistant\n"
    )
    assert found.filtered == {"tool_call_as_answer": 1}
    assert '"weather"' in example.prompt_text


def test_point_4_a_turn_that_is_only_a_call_is_kept_and_its_neighbours_apart() -> None:
    turns = [*WEATHER[:2], {"role": "user", "content": "and tomorrow?"}, WEATHER[3]]
    (example,) = made(turns).examples
    assert [m.role for m in example.messages] == ["user", "assistant", "user"]
    assert [m.content for m in example.messages] == ["weather?", "", "and tomorrow?"]


def test_point_4_definitions_of_tools_reach_the_template() -> None:
    for tools in (TOOLS, json.dumps(TOOLS)):
        (example,) = made(WEATHER, tools=tools).examples
        assert rendered(example).startswith(f"<turn>tools\n{json.dumps(TOOLS)}<end>\n<turn>user")
    other = made(WEATHER, tools=None).examples[0]
    assert other.content_id != example.content_id
    assert "<turn>tools" not in rendered(other)


@pytest.mark.parametrize(
    ("template", "tools", "named"),
    [
        (CHATML, None, "calls of tools"),
        (CHATML, TOOLS, "definitions of tools"),
        (ONLY_USERS, None, "calls of tools"),
    ],
)
def test_point_4_a_template_that_does_not_know_tools_is_refused(
    template: str, tools: Any, named: str
) -> None:
    (example,) = made(WEATHER, tools=tools).examples
    with pytest.raises(ModelError, match=f"{named}, which the chat template does not write"):
        encode_examples([example], ChatTemplate(byte_tokenizer(template)), 1000)


def test_point_4_results_that_a_template_leaves_out_are_refused() -> None:
    turns = [
        {"from": "human", "value": "area?"},
        {"from": "function_call", "value": "look it up"},
        {"from": "observation", "value": "15"},
        {"from": "gpt", "value": "15 it is"},
    ]
    first, second = made(turns).examples
    assert [m.role for m in second.messages] == ["user", "assistant", "tool"]
    assert (first.answer, second.answer) == ("look it up", "15 it is")
    assert "<turn>tool\n15<end>" in rendered(second, CHATML)
    with pytest.raises(ModelError, match="results of tools"):
        rendered(second, ONLY_USERS)
    tokenizer = byte_tokenizer(CHATML)
    with pytest.raises(ModelError, match="an encoder-decoder model has no form for"):
        Seq2SeqTemplate(tokenizer).prompt(second.messages)


def test_control_tokens_within_calls_and_results_are_text() -> None:
    call = {"function": {"name": "f", "arguments": {"town": "<end>"}}}
    turns = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "function", "content": "<turn>user", "name": "f"},
        {"role": "assistant", "content": "y"},
    ]
    (example,) = made(turns, tools=[{"name": "f", "description": "<end>"}]).examples
    template = ChatTemplate(byte_tokenizer(WITH_TOOLS))
    ids = template.prompt_ids(example.messages)
    assert ids.count(template.end_of_turn) == 4
    assert ids.count(template.tokenizer.convert_tokens_to_ids("<turn>")) == 5
    assert template.prompt(example.messages).count("<end>") == 6


def test_point_4_a_sharegpt_call_with_a_name_is_a_call() -> None:
    value = json.dumps({"name": "area", "arguments": {"side": 2}})
    turns = [{"from": "human", "value": "?"}, {"from": "function_call", "value": value}]
    (turn,) = read_turns(turns, "k")[1:]
    (call,) = turn.as_dict()["tool_calls"]
    assert call["function"] == {"name": "area", "arguments": {"side": 2}}
    assert turn.content == ""


def test_point_4_the_old_function_call_is_a_call() -> None:
    turn = {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "{}"}}
    (_, read) = read_turns([{"role": "user", "content": "x"}, turn], "k")
    assert read.extra["tool_calls"][0]["function"] == {"name": "f", "arguments": {}}


@pytest.mark.parametrize("calls", ["broken", [3], [{"function": {}}], {"id": 1}])
def test_calls_that_are_none_are_refused(calls: Any) -> None:
    turn = {"role": "assistant", "content": "", "tool_calls": calls}
    with pytest.raises(DataError, match="tool_calls are not a list of mappings"):
        read_turns([{"role": "user", "content": "x"}, turn], "k")


def test_point_4_the_developer_speaks_as_the_system() -> None:
    turns = [{"role": "developer", "content": "Be brief."}, *MAPPED]
    (example,) = made(turns).examples
    assert [m.role for m in example.messages] == ["system", "user"]


MAPPED = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize("key", ["weight", "train", "loss"])
@pytest.mark.parametrize("zero", [0, False])
def test_point_4_turns_of_weight_0_are_read_but_neither_trained_on_nor_tested(
    key: str, zero: Any
) -> None:
    wrong = {"role": "assistant", "content": "wrong", key: zero}
    turns = [MAPPED[0], wrong, {"role": "user", "content": "no"}, {**MAPPED[1], key: 1}]
    found = made(turns)
    assert [e.answer for e in found.examples] == ["a"]
    assert [m.content for m in found.examples[0].messages] == ["q", "wrong", "no"]
    assert found.filtered == {"weight_0": 1}
    assert found.rows == 1


def test_point_4_a_weight_between_is_refused() -> None:
    with pytest.raises(DataError, match=r"a turn has weight=0\.5\. Give 0"):
        made([MAPPED[0], {**MAPPED[1], "weight": 0.5}])


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_point_4_reasoning_is_part_of_the_answer_that_is_learnt(key: str) -> None:
    turns = [MAPPED[0], {**MAPPED[1], key: "Hm."}, *MAPPED]
    first, second = made(turns).examples
    assert first.answer == "<think>\nHm.\n</think>\n\na"
    assert second.messages[1].as_dict() == {**MAPPED[1], "reasoning_content": "Hm."}
    assert second.answer == "a"


def test_point_4_text_parts_are_joined_and_others_refused() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    (example,) = made([{"role": "user", "content": parts}, MAPPED[1]]).examples
    assert example.messages[-1].content == "one two"
    image = [*parts, {"type": "image_url", "image_url": {"url": "x"}}]
    with pytest.raises(DataError, match="parts of the type image_url"):
        made([{"role": "user", "content": image}, MAPPED[1]])


def test_point_4_what_is_left_out_or_not_read_is_counted() -> None:
    noted: Counter[str] = Counter()
    turns = [
        {"role": "assistant", "content": "welcome"},
        {**MAPPED[0], "name": "Ann", "id": None},
        {"role": "user", "content": "  "},
        {**MAPPED[1], "audio": "x.wav"},
    ]
    assert [m.as_dict() for m in read_turns(turns, "k", noted=noted)] == MAPPED
    assert noted == {
        "turns before the first of the user left out": 1,
        "turns whose 'name' is not read": 1,
        "empty turns left out": 1,
        "turns whose 'audio' is not read": 1,
    }
    assert made([MAPPED[0]]).noted == {"conversations without an answer to learn": 1}


def pair(prompt: Any, completion: Any, **columns: Any) -> Candidates:
    cfg = config(prompt="{prompt}", answer="{completion}", **columns.pop("cfg", {}))
    return make_examples([{"prompt": prompt, "completion": completion, **columns}], cfg)


def test_point_3_conversational_prompts_and_completions_are_recognised() -> None:
    (example,) = pair(MAPPED[:1], MAPPED[1:]).examples
    assert example.messages == (Message("user", "q"),)
    assert example.answer == "a"
    (plain,) = make_examples([{"q": "q", "a": "a"}], config()).examples
    assert (example.content_id, example.group) == (plain.content_id, plain.group)
    (mixed,) = pair("q", MAPPED[1:]).examples
    assert mixed.content_id == plain.content_id
    (text,) = pair([{"role": "system", "content": "s"}, *MAPPED, *MAPPED[:1]], "a").examples
    assert [m.role for m in text.messages] == ["system", "user", "assistant", "user"]


def test_point_3_a_completion_with_a_call_answers_after_its_result() -> None:
    found = pair(WEATHER[:1], WEATHER[1:], tools=TOOLS)
    (example,) = found.examples
    assert [m.role for m in example.messages] == ["tools", "user", "assistant", "tool"]
    assert example.answer == "It rains."
    assert found.filtered == {"tool_call_as_answer": 1}


def test_point_3_rejected_completions_are_texts_too() -> None:
    worse = [{"role": "assistant", "content": "b"}]
    found = pair(MAPPED[:1], MAPPED[1:], worse=worse, cfg={"rejected": "worse"})
    assert found.examples[0].meta == {"rejected": "b"}


def test_calls_and_tools_survive_the_file_of_the_splits(tmp_path: Path) -> None:
    rows = [
        {"m": [{"role": "user", "content": f"{i}?"}, *WEATHER[1:]], "tools": TOOLS}
        for i in range(9)
    ]
    cfg = config(prompt="", answer="", conversation="m")
    splits = split_examples(make_examples(rows, cfg), cfg)
    write_splits(splits, tmp_path / "splits.sqlite")
    back = build_splits(
        config(
            source=SourceConfig("sqlite", str(tmp_path / "splits.sqlite")),
            system="{system}", prompt="{prompt}", history="history", answer="{answer}",
            split=SplitConfig(column="split"),
        )
    )  # fmt: skip
    ours, theirs = ({e.content_id for e in part.train} for part in (splits, back))
    assert len(ours) > 3
    assert ours == theirs


def test_ids_and_fingerprints_of_plain_conversations_are_what_they_were() -> None:
    turns = [
        {"role": "system", "content": "s"}, {"role": "user", "content": "u0"},
        {"role": "assistant", "content": "a0"}, {"role": "user", "content": "v"},
        {"role": "assistant", "content": "b"},
    ]  # fmt: skip
    rows = [{"m": [turns[0], {"role": "user", "content": f"u{i}"}, *turns[2:]]} for i in range(30)]
    cfg = config(prompt="", answer="", conversation="m", split=SplitConfig())
    for row in rows:
        row["m"][2] = {"role": "assistant", "content": f"a{row['m'][1]['content'][1:]}"}
    splits = split_examples(make_examples(rows, cfg), cfg)
    found = [splits.fingerprint(name) for name in ("train", "validation", "test")]
    assert found == ["612724eccc37a25d", "e9a84479ef41f201", "52b51cc840f10190"]


@pytest.mark.shared
@pytest.mark.parametrize(
    "name", ["b_tools", "c_call_only", "e_developer", "f_parts", "h_weight", "i_reasoning"]
)
def test_point_4_nothing_of_the_cases_is_lost(shared_dir: Path, name: str) -> None:
    path = shared_dir / "cases/conversations" / f"{name}.jsonl"
    rows = read_rows(SourceConfig("json", str(path)))
    found = make_examples(rows, config(prompt="", answer="", conversation="messages"))
    template = ChatTemplate(byte_tokenizer(WITH_TOOLS))
    assert len(found.examples) == len(rows) == 40
    for example, row in zip(found.examples, rows, strict=True):
        text = template.prompt(example.messages) + example.answer
        for turn in row["messages"]:
            said = turn["content"] or ""
            parts = [part["text"] for part in said] if isinstance(said, list) else [said]
            parts += [turn.get("reasoning_content") or ""]
            parts += [call["function"]["name"] for call in turn.get("tool_calls", [])]
            assert all(part in text for part in parts)


def test_a_completion_that_repeats_the_prompt_gives_the_question_once() -> None:
    (plain,) = pair(MAPPED[:1], MAPPED[1:]).examples
    talk = [{"role": "system", "content": "s"}, *MAPPED, {"role": "user", "content": "more"}]
    worse = [*MAPPED[:1], {"role": "assistant", "content": "b"}]
    found = pair("q", MAPPED, worse=worse, cfg={"rejected": "worse"})
    (text,) = found.examples
    assert (text.content_id, text.answer, found.noted) == (plain.content_id, "a", {})
    assert text.meta == {"rejected": "b"}
    found = pair(talk, [*talk, MAPPED[1]])
    (whole,) = found.examples
    assert [m.role for m in whole.messages] == ["system", "user", "assistant", "user"]
    assert (whole.answer, found.noted) == ("a", {})
    worded = make_examples([{"q": "q", "c": MAPPED}], config(prompt="Answer: {q}", answer="{c}"))
    assert [m.content for m in worded.examples[0].messages] == ["Answer: q"]
    both = pair("q", [*MAPPED, talk[-1], MAPPED[1]]).examples
    assert [[m.content for m in e.messages] for e in both] == [["q"], ["q", "a", "more"]]


def test_a_completion_that_asks_something_else_is_counted() -> None:
    found = pair("first", MAPPED)
    assert found.noted == {"completions that begin with another question than the prompt's": 1}
    (example,) = found.examples
    assert [m.content for m in example.messages] == ["first\n\nq"]


def test_what_is_left_out_of_completions_is_counted() -> None:
    said = [
        {"role": "system", "content": "s"},
        {"role": "assistant", "content": " "},
        {**MAPPED[1], "audio": "x.wav"},
    ]
    found = pair(MAPPED[:1], said, worse=said[1:], cfg={"rejected": "worse"})
    assert found.examples[0].answer == "a"
    assert found.noted == {
        "system turns of a completion left out": 1,
        "empty turns left out": 2,
        "turns whose 'audio' is not read": 2,
    }
