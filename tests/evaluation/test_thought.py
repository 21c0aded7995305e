"""Answers that begin in the midst of a thought, because the prompt ends in its opening tag."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sizewise.config.evaluation import GenerationConfig
from sizewise.data.example import Example, Message
from sizewise.evaluation.predict import predict
from sizewise.evaluation.text import opened_thought, with_thought
from sizewise.metrics.codes import strip_reasoning
from sizewise.record.predictions import PredictionStore

from .helpers import Pair, StubSplit


class Words:
    """A tokenizer of words, of which one may be special."""

    WORDS = ("E11.9", "so", "<think>", "</think>", "I10")

    def __init__(self, special: str = "") -> None:
        self.special = special

    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        words = [self.WORDS[i] for i in ids]
        return " ".join(w for w in words if not (skip_special_tokens and w == self.special))


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
    assert [strip_reasoning(text).strip() for text in texts.pop("\n<think>\n")] == ["", ""]
    assert not any(text.startswith("<think>") for found in texts.values() for text in found)


@pytest.mark.parametrize(
    ("prompt", "tag"), [([0, 1, 2], "<think>"), ([2, 1, 3], ""), ([2, 1], ""), ([], "")]
)
def test_only_the_end_of_a_prompt_counts(prompt: list[int], tag: str) -> None:
    assert opened_thought(Words(), prompt) == tag


def test_a_closing_tag_that_decoding_drops_keeps_its_answer() -> None:
    ids = [0, 1, 3, 4]
    for special, expected in (("", "I10"), ("</think>", "E11.9 so I10")):
        tokenizer = Words(special)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        found = with_thought(tokenizer, "<think>", ids, text)
        assert strip_reasoning(found).strip() == expected
