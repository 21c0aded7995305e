"""Thoughts that a prompt opens are closed in the answer; a turn ends where its template ends it.

The templates have the form of published ones (Phi-3, Cohere, R1, Nemotron, Qwen 3.5) and are
written for these tests.
"""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import pytest
from tests.metrics.helpers import measure, prediction

from sizewise.data.example import Example, Message
from sizewise.data.tokens.encode import encode_examples
from sizewise.data.tokens.reasoning import answer_of
from sizewise.data.tokens.template import ChatTemplate
from sizewise.errors import ModelError
from sizewise.evaluation.text import decode_answer, opened_thought
from sizewise.metrics.label import Label

from .toys import CHATML, THINKING, byte_tokenizer, space_tokenizer, write_template

QUESTION = [Message("user", "my invoice")]
REASONED = "<think>it says invoice</think>\nbilling"

_USER = (
    "{% if m['role'] != 'assistant' %}{{ '<turn>' + m['role'] + '\n' + m['content'] + '<end>\n' }}"
)
_OPENS = "{% if add_generation_prompt %}{{ '<turn>assistant\n<think>\n' }}{% endif %}"
_REST = "{% endif %}{% endfor %}" + _OPENS
R1 = (
    "{% for m in messages %}" + _USER + "{% else %}"
    "{{ '<turn>assistant\n' + m['content'].split('</think>')[-1] + '<end>' }}" + _REST
)
PASSES_ON = (
    "{% for m in messages %}" + _USER + "{% else %}"
    "{{ '<turn>assistant\n' + m['content'] + '<end>' }}" + _REST
)
EMPTY_THOUGHT = (
    "{% for m in messages %}" + _USER + "{% else %}{% set c = m['content'] %}"
    "{% if '</think>' not in c %}{% set c = '<think></think>' + c %}{% endif %}"
    "{{ '<turn>assistant\n' + c + '<end>\n' }}" + _REST
)
LONE_CLOSING = (
    "{% for m in messages %}" + _USER + "{% else %}"
    "{{ '<turn>assistant</think>' + m['content'].split('</think>')[-1] + '<end>' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<turn>assistant<think>' }}{% endif %}"
)
QWEN_3_5 = (
    "{% for m in messages %}" + _USER + "{% else %}{% set c = m['content'] %}{% set t = '' %}"
    "{% if '</think>' in c %}{% set t = c.split('</think>')[0].split('<think>')[-1].strip() %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<turn>assistant\n<think>\n' + t + '\n</think>\n\n' + c + '<end>\n' }}" + _REST
)
SWITCHED = R1.replace(
    "{{ '<turn>assistant\n<think>\n' }}",
    "{{ '<turn>assistant\n' }}{% if 'no thoughts' not in messages[0]['content'] %}"
    "{{ '<think>\n' }}{% endif %}",
)
OPENING = {
    "r1": R1,
    "passes_on": PASSES_ON,
    "empty_thought": EMPTY_THOUGHT,
    "lone_closing": LONE_CLOSING,
    "qwen_3_5": QWEN_3_5,
    "switched": SWITCHED,
}
KEEPING = ("passes_on", "empty_thought", "qwen_3_5")


def perfect_answer(chat: ChatTemplate, messages: list[Message], answer: str) -> str:
    """What evaluation reads of a model that writes exactly what training taught."""
    opened = opened_thought(chat.tokenizer, chat.prompt_ids(messages))
    return decode_answer(chat, chat.answer_ids(messages, answer), opened)


@pytest.fixture(params=["text", "tokens", "special"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """Tokenizers that know the tags as text, as tokens, and as special tokens."""
    made = byte_tokenizer(None)
    tags = ["<think>", "</think>"]
    if request.param == "tokens":
        made.add_tokens(tags)
    if request.param == "special":
        made.add_special_tokens({"extra_special_tokens": [*made.extra_special_tokens, *tags]})
    return made


@pytest.mark.parametrize("name", OPENING)
def test_a_thought_opened_by_the_prompt_is_closed_in_the_answer(tokenizer: Any, name: str) -> None:
    tokenizer.chat_template = OPENING[name]
    chat = ChatTemplate(tokenizer)
    assert opened_thought(tokenizer, chat.prompt_ids(QUESTION)) == "<think>"
    text = perfect_answer(chat, QUESTION, "billing")
    assert text.count("<think>") == text.count("</think>") == 1
    assert answer_of(text) == "billing"
    assert chat.answer_ids(QUESTION, "billing")[-1] == chat.end_of_turn
    pairs = [(QUESTION, "billing"), (QUESTION, REASONED)]
    assert chat.encode_pairs(pairs)[1] == [chat.answer_ids(*pair) for pair in pairs]


@pytest.mark.parametrize("name", OPENING)
def test_reasoning_of_an_answer_fills_the_thought_that_the_prompt_opened(
    tokenizer: Any, name: str
) -> None:
    tokenizer.chat_template = OPENING[name]
    chat = ChatTemplate(tokenizer)
    assert chat.keeps_reasoning("think") == (name in KEEPING)
    text = perfect_answer(chat, QUESTION, REASONED)
    assert text.count("<think>") == text.count("</think>") == 1
    assert ("it says invoice" in text) == (name in KEEPING)
    assert answer_of(text) == "billing"


def test_an_empty_thought_is_written_as_templates_write_it() -> None:
    for source, expected in (
        (R1, "\n</think>\n\nbilling<end>"),
        (QWEN_3_5, "\n</think>\n\nbilling<end>"),
        (EMPTY_THOUGHT, "</think>billing<end>"),
        (LONE_CLOSING, "</think>billing<end>"),
        (THINKING, "<think>\n\n</think>\n\nbilling<end>"),
        (CHATML, "billing<end>"),
    ):
        chat = ChatTemplate(byte_tokenizer(source))
        assert chat.tokenizer.decode(chat.answer_ids(QUESTION, "billing")) == expected


def test_a_thought_is_closed_only_where_this_prompt_opened_it() -> None:
    chat = ChatTemplate(byte_tokenizer(SWITCHED))
    silent = [Message("system", "no thoughts"), *QUESTION]
    assert chat.tokenizer.decode(chat.answer_ids(silent, "billing")) == "billing<end>"
    assert perfect_answer(chat, silent, "billing") == "billing"


def test_a_thought_opened_by_the_wording_of_the_prompt_is_closed_too() -> None:
    chat = ChatTemplate(byte_tokenizer(None), "plain")
    asked = [Message("user", "my invoice\n<think>")]
    assert answer_of(perfect_answer(chat, asked, "billing")) == "billing"
    assert perfect_answer(chat, asked, REASONED).count("<think>") == 1


@pytest.mark.shared
def test_a_perfect_model_scores_one_where_the_prompt_opens_a_thought(shared_dir: Path) -> None:
    folder = shared_dir / "cases/thought_opened_by_the_prompt"
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    chat = ChatTemplate(byte_tokenizer(), str(folder / "opens_thought.jinja"))
    answered = [
        prediction(
            perfect_answer(chat, [Message("user", row["text"])], row["label"]),
            row["label"],
            id=str(number),
        )
        for number, row in enumerate(rows)
    ]
    assert len(answered) > 100
    scores = measure(Label(), *answered)
    assert scores["exact_match"] == 1.0
    assert scores["empty"] == 0.0


def test_a_template_that_strips_the_reasoning_of_a_training_answer_says_so(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    examples = [Example(tuple(QUESTION), text, "g") for text in (REASONED, "billing", REASONED)]
    for source, expected in ((R1, True), (CHATML, False)):
        chat = ChatTemplate(byte_tokenizer(source))
        for _ in ("encoded", "from the cache"):
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                encode_examples(examples, chat, 1000, cache_dir=tmp_path, name="train")
            said = "out of 2 of 3 answers of the train split" in caplog.text
            assert said is expected
    caplog.clear()
    encode_examples(examples[1:2], ChatTemplate(byte_tokenizer(R1)), 1000)
    assert not caplog.records


CHANNELS = (
    "{% for m in messages %}{{ '<turn>' + m['role'] }}"
    "{% if m['role'] == 'assistant' %}{{ '<|channel|>final' }}{% endif %}"
    "{{ '<|message|>' + m['content'] + '<end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>assistant' }}{% endif %}"
)


def test_the_header_that_a_template_puts_before_an_answer_is_no_answer() -> None:
    tokenizer = byte_tokenizer(CHANNELS)
    tokenizer.add_tokens(["<|channel|>", "<|message|>"], special_tokens=True)
    chat = ChatTemplate(tokenizer)
    ids = chat.answer_ids(QUESTION, "billing")
    assert tokenizer.decode(ids) == "<|channel|>final<|message|>billing<end>"
    assert perfect_answer(chat, QUESTION, "billing") == "billing"
    written = "<|channel|>analysis<|message|>an invoice<turn>assistant"
    other = tokenizer(written).input_ids
    assert decode_answer(chat, [*other, *ids]) == "billing"
    assert decode_answer(chat, other) == "analysisan invoiceassistant"


PHI = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}"
    "{% else %}{{ eos_token }}{% endif %}"
)
COHERE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{{ '<|BOT|><|START_RESPONSE|>' + m['content'] + '<|END_RESPONSE|><|END_OF_TURN|>' }}"
    "{% else %}{{ '<|USER|>' + m['content'] + '<|END_OF_TURN|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|BOT|><|START_RESPONSE|>' }}{% endif %}"
)
CLOSED = {
    "phi": (PHI, ["<|user|>", "<|assistant|>", "<|end|>"], "<|end|>", ["<|end|>", "<eos>"]),
    "cohere": (
        COHERE,
        ["<|USER|>", "<|BOT|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|END_OF_TURN|>"],
        "<|END_RESPONSE|>",
        ["<|END_RESPONSE|>", "<|END_OF_TURN|>", "<eos>"],
    ),
}


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("name", CLOSED)
def test_the_end_of_turn_is_the_first_special_token_of_the_closing(
    name: str, special: bool
) -> None:
    source, tokens, end, stops = CLOSED[name]
    tokenizer = byte_tokenizer(source)
    tokenizer.add_tokens(tokens, special_tokens=special)
    chat = ChatTemplate(tokenizer)
    ids = chat.answer_ids(QUESTION, "fine")
    assert tokenizer.decode(ids) == "fine" + end
    assert ids[-1] == chat.end_of_turn
    assert chat.stop_ids == sorted(tokenizer.convert_tokens_to_ids(stops))
    asked = tokenizer.decode(chat.prompt_ids(QUESTION))
    whole = [QUESTION[0].as_dict(), {"role": "assistant", "content": "fine"}]
    assert tokenizer.apply_chat_template(whole, tokenize=False).startswith(asked + "fine" + end)


def test_the_models_own_end_tokens_stop_an_answer() -> None:
    tokenizer = byte_tokenizer(PHI)
    tokenizer.add_tokens(["<|end|>", "<|other|>"], special_tokens=True)
    end, other, eos = tokenizer.convert_tokens_to_ids(["<|end|>", "<|other|>", "<eos>"])
    assert ChatTemplate(tokenizer, own_stop_ids=[other, end]).stop_ids == sorted([end, other, eos])


def test_a_closing_whose_text_is_unknown_ends_with_eos(tmp_path: Path) -> None:
    tokenizer = space_tokenizer()
    tokenizer.unk_token = "<unk>"
    chat = ChatTemplate(tokenizer, write_template(tmp_path, CHATML.replace("<end>", "###")))
    assert chat.end_of_turn == tokenizer.eos_token_id
    assert chat.stop_ids == [tokenizer.eos_token_id]
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no EOS"):
        ChatTemplate(tokenizer, write_template(tmp_path, CHATML.replace("<end>", "###")))
