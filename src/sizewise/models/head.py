"""Logits at answer positions only: the output head never sees the prompt."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from sizewise.data.batches.collate import IGNORED
from sizewise.errors import ModelError
from sizewise.models.adapter.wrapping import base_of

OPTIONAL_INPUTS = ("position_ids", "token_type_ids", "decoder_attention_mask")


def answer_logits(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """Run the body on the whole batch and the output head at answer positions only.

    The rows that predict an answer token are chosen just before the model's own output head, so
    that whatever follows it (Gemma 2's soft-cap, logit scales, T5's scale) is the model's own
    code, and the result equals the full logits at these positions.

    Args:
        batch: ``input_ids`` (B, T), ``attention_mask`` (B, T) and ``labels``: (B, T), aligned
            with the inputs for a causal model; (B, U), the decoder's targets, for seq2seq.
            −100 marks what is not answer.

    Returns:
        Logits (N, V) for the N answer tokens, row by row: those of ``answer_targets``.

    Raises:
        ModelError: the batch has no answer token.
    """
    base = base_of(model)
    seq2seq = bool(base.config.is_encoder_decoder)
    chosen_BT = answer_rows(batch["labels"], seq2seq)
    if not bool(chosen_BT.any()):
        raise ModelError(
            "A batch has no answer token: every label is -100. Check the template and max_length."
        )
    with head_rows(base, chosen_BT):
        logits_NV: Tensor = base(**forward_inputs(base, batch)).logits
    return logits_NV


@contextmanager
def head_rows(base: Any, chosen_BT: Tensor) -> Iterator[None]:
    """Let the output head see the chosen positions only: its logits are (N, V), row by row."""
    with base.get_output_embeddings().register_forward_pre_hook(partial(_select_rows, chosen_BT)):
        yield


def answer_rows(labels: Tensor, seq2seq: bool = False) -> Tensor:
    """Return the mask (B, T) of positions whose output predicts an answer token.

    A causal model predicts the next token, so labels move one to the left; a decoder is already
    shifted by its start token.
    """
    answer = labels != IGNORED
    if seq2seq:
        return answer
    return torch.cat([answer[:, 1:], torch.zeros_like(answer[:, :1])], dim=1)


def answer_targets(batch: Mapping[str, Any], seq2seq: bool = False) -> Tensor:
    """Return the answer tokens (N,) in the order of ``answer_logits``' rows.

    A causal model cannot predict a sequence's first token: a label there is not counted.
    """
    labels: Tensor = batch["labels"] if seq2seq else batch["labels"][:, 1:]
    return labels[labels != IGNORED]


def forward_inputs(base: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the inputs that this model's forward takes.

    A right-padded causal batch needs no mask: no answer position can see its padding, and without
    one the attention kernels take their faster causal path.
    """
    wrapper: Any = base
    inputs = {"input_ids": batch["input_ids"], "use_cache": False}
    inputs |= {key: batch[key] for key in OPTIONAL_INPUTS if key in batch and takes(base, key)}
    mask = batch.get("attention_mask")
    if base.config.is_encoder_decoder:
        decoder_ids = wrapper.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
        return inputs | {"attention_mask": mask, "decoder_input_ids": decoder_ids}
    if mask is not None and not is_right_padded(mask):
        inputs["attention_mask"] = mask
        inputs.setdefault("position_ids", (mask.cumsum(-1) - 1).clamp_min(0))
    return inputs


def is_right_padded(mask_BT: Tensor) -> bool:
    """Whether every row of a mask is ones, then zeros."""
    return bool((mask_BT[:, 1:] <= mask_BT[:, :-1]).all())


def takes(base: nn.Module, name: str) -> bool:
    """Whether the model's forward has a parameter of that name."""
    return name in _parameters(cast(Hashable, type(base)))


@cache
def _parameters(model_class: Any) -> frozenset[str]:
    return frozenset(inspect.signature(model_class.forward).parameters)


def _select_rows(
    chosen_BT: Tensor, head: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Give the head hidden states (N, D) instead of (B, T, D)."""
    return (inputs[0][chosen_BT.to(inputs[0].device)], *inputs[1:])
