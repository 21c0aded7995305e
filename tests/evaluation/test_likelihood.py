from __future__ import annotations

import pytest
import torch
from tests.tiny_models import build_tiny
from transformers import PreTrainedModel

from sizewise.errors import EvaluationError, OutOfMemoryError
from sizewise.models.likelihood import answer_log_probs

from .conftest import sharpened
from .helpers import VOCAB, Pair, StubSplit, fails_above


def reference(model: PreTrainedModel, item: Pair) -> float:
    """The whole logits of one unpadded example, one token after the other."""
    answer = torch.tensor(item.answer_ids)
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            start = torch.tensor([model.config.decoder_start_token_id])
            decoder = torch.cat([start, answer[:-1]])[None]
            prompt = torch.tensor([item.prompt_ids])
            logits = model(input_ids=prompt, decoder_input_ids=decoder).logits[0]
        else:
            row = torch.tensor([[*item.prompt_ids, *item.answer_ids]])
            logits = model(row).logits[0, len(item.prompt_ids) - 1 : -1]
    return float(logits.log_softmax(-1)[torch.arange(len(answer)), answer].sum())


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gemma2", "t5"])
def test_sum_over_answer_tokens_for_any_batch_size(architecture: str, split: StubSplit) -> None:
    model = build_tiny(architecture, VOCAB)
    if architecture == "t5":
        model.config.decoder_start_token_id = model.config.pad_token_id = 0
    sharpened(model)
    expected = [reference(model, item) for item in split.encoded]
    assert len({round(value, 2) for value in expected}) > 1
    for batch_size in (1, 3, 8):
        found = answer_log_probs(model, split.encoded, batch_size)
        assert found == pytest.approx(expected, rel=1e-5)


def test_an_empty_answer_is_refused(causal: PreTrainedModel) -> None:
    with pytest.raises(EvaluationError, match="Example 1"):
        answer_log_probs(causal, [Pair([2, 3], [4]), Pair([2], [])], 2)


def test_out_of_memory_halves_the_batch_and_keeps_the_sums(causal, split: StubSplit) -> None:
    expected = answer_log_probs(causal, split.encoded, 8)
    seen = fails_above(causal, rows=2)
    assert answer_log_probs(causal, split.encoded, 8) == pytest.approx(expected, rel=1e-4)
    assert seen == [8, 4, 2, 2, 2, 2]


def test_one_answer_that_does_not_fit_is_an_error(causal, split: StubSplit) -> None:
    fails_above(causal, rows=0)
    with pytest.raises(OutOfMemoryError, match="one single answer"):
        answer_log_probs(causal, split.encoded, 2)
