"""The rungs of the ladder: three Qwen3 models of different size, pretrained on one stream.

Smaller rungs take more steps, so they see more tokens; learning rates differ as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools.embedded_models.tokenizer import VOCABULARY_SIZE

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM


CONTEXT = 1024


@dataclass(frozen=True)
class Rung:
    """Shape of one model and how long it is pretrained.

    `steps` counts optimiser steps of `pretraining.TOKENS_PER_STEP` tokens on text that tells one
    finding at a time, `contrast_steps` those that follow on text that tells two.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    steps: int
    contrast_steps: int
    learning_rate: float
    contrast_learning_rate: float = 2e-3


RUNGS: dict[str, Rung] = {
    "nano": Rung(64, 192, 4, 4, 700, 600, 5e-3),
    "micro": Rung(128, 384, 4, 4, 450, 500, 4e-3),
    "mini": Rung(256, 704, 5, 4, 260, 300, 3e-3),
}


def new_model(rung: Rung, pad: int, end: int) -> Qwen3ForCausalLM:
    """Model with random weights from torch's random state; embeddings are tied."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=rung.hidden,
        intermediate_size=rung.intermediate,
        num_hidden_layers=rung.layers,
        num_attention_heads=rung.heads,
        num_key_value_heads=rung.heads // 2,
        head_dim=rung.hidden // rung.heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=pad,
        eos_token_id=end,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)
