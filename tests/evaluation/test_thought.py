"""Answers that begin in the midst of a thought, because the prompt ends in its opening tag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sizewise.config.evaluation import GenerationConfig
from sizewise.data.example import Example, Message
from sizewise.data.tokens.reasoning import answer_of
from sizewise.evaluation.predict import predict
from sizewise.evaluation.text import decode_answer, opened_thought
from sizewise.record.predictions import PredictionStore

from .helpers import Pair, StubSplit, StubTemplate, byte_tokenizer


def asked(template: Any, ending: str) -> StubSplit:
    examples = [Example((Message("user", f"Question {i}{ending}"),), "I10", "g") for i in (1, 2)]
    return StubSplit([Pair(template.prompt_ids(e.messages), [3, 1]) for e in examples], examples)


def test_a_thought_that_was_cut_off_is_no_answer(causal, template, tmp_path: Path) -> None:
    texts = {}
    for ending in ("\n<think>\n", "\n<think>\n\n</think>\n\n", ""):
        found = predict(
            causal, asked(template, ending), template, GenerationConfig(max_new_tokens=6),
            PredictionStore(tmp_path / f"{len(ending)}.jsonl", "key"), 2, warmup_batches=0,
        )  # fmt: skip
        texts[ending] = [p.text for p in found.predictions]
    assert all(text.startswith("<think>") for text in texts["\n<think>\n"])
    assert [answer_of(text) for text in texts.pop("\n<think>\n")] == ["", ""]
    assert not any(text.startswith("<think>") for found in texts.values() for text in found)


@pytest.mark.parametrize(
    ("prompt", "tag"),
    [("E11.9 so <think>", "<think>"), ("<think>\n\n", "<think>"), ("<think> so", ""), ("so", ""),
     ("<think>\n\n</think>\n\n", ""), ("", "")],
)  # fmt: skip
def test_only_the_end_of_a_prompt_counts(prompt: str, tag: str) -> None:
    tokenizer = byte_tokenizer()
    assert opened_thought(tokenizer, tokenizer(prompt).input_ids) == tag


@pytest.mark.parametrize("special", [True, False])
def test_tags_of_reasoning_are_read_whether_special_or_not(special: bool) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<think>", "</think>", "<|x|>"], special_tokens=special)
    template = StubTemplate(tokenizer)
    ids = tokenizer("maybe E11.9</think>I10<|x|>").input_ids
    left = "" if special else "<|x|>"
    for opened in ("", "<think>"):
        text = decode_answer(template, ids, opened)
        assert text == f"{opened}maybe E11.9</think>I10{left}"
        assert answer_of(text) == f"I10{left}"
    assert decode_answer(template, tokenizer("<think>so</think> I10").input_ids).startswith(
        "<think>"
    )
