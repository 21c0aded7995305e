from __future__ import annotations

import pytest
from tests.tiny_models import build_tiny
from transformers import PreTrainedModel

from .helpers import VOCAB, StubSplit, StubTemplate, byte_tokenizer, make_split

MANY_STOPS = (1, *range(180, 240))


@pytest.fixture(scope="session")
def template() -> StubTemplate:
    return StubTemplate(byte_tokenizer(), stop_ids=MANY_STOPS)


@pytest.fixture(scope="session")
def split(template: StubTemplate) -> StubSplit:
    return make_split(template)


@pytest.fixture
def causal() -> PreTrainedModel:
    return sharpened(build_tiny("qwen3", VOCAB))


@pytest.fixture
def seq2seq() -> PreTrainedModel:
    model = build_tiny("t5", VOCAB)
    model.config.decoder_start_token_id = model.config.pad_token_id = 0
    return sharpened(model)


def sharpened(model: PreTrainedModel) -> PreTrainedModel:
    """Larger weights: a fresh model says the same token again and again."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return model
