"""Exchanges packed into rows of equal length without cutting any of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sizewise.embedded.pretraining_text import Exchange

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROW_LENGTH = 256
Encoded = tuple[list[int], int]


@dataclass(frozen=True)
class PackedBatch:
    """Rows of several exchanges; positions start at 0 with each exchange.

    All fields have the shape (rows, ROW_LENGTH). `weights` says how much each
    token counts as a target: 0 for padding and for first tokens.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    weights: torch.Tensor


def encode(exchange: Exchange, tokenizer: PreTrainedTokenizerFast) -> Encoded:
    """Token ids of an exchange in chat format and how many of them are the prompt."""
    prompt = f"<|user|>{exchange.question}<|end|><|assistant|>"
    ids = tokenizer([prompt, f"{exchange.answer}<|end|>"], add_special_tokens=False).input_ids
    return ids[0] + ids[1], len(ids[0])


def packed_batches(
    exchanges: Iterator[Exchange],
    tokenizer: PreTrainedTokenizerFast,
    rows: int,
    prompt_weight: float,
) -> Iterator[PackedBatch]:
    """Endless batches of `rows` rows, filled first-fit from the stream."""
    waiting: list[Encoded] = []
    while True:
        batch = []
        for _ in range(rows):
            while len(waiting) < 64:
                encoded = encode(next(exchanges), tokenizer)
                if len(encoded[0]) <= ROW_LENGTH:
                    waiting.append(encoded)
            batch.append(_fill_row(waiting))
        yield _collate(batch, tokenizer.pad_token_id, prompt_weight)


def _fill_row(waiting: list[Encoded]) -> list[Encoded]:
    """Takes from `waiting` the oldest exchange and whatever else still fits."""
    row: list[Encoded] = []
    room = ROW_LENGTH
    for encoded in list(waiting):
        if len(encoded[0]) <= room:
            row.append(encoded)
            waiting.remove(encoded)
            room -= len(encoded[0])
    return row


def _collate(batch: list[list[Encoded]], pad: int, prompt_weight: float) -> PackedBatch:
    shape = (len(batch), ROW_LENGTH)
    tokens_BT = torch.full(shape, pad)
    positions_BT = torch.zeros(shape, dtype=torch.long)
    weights_BT = torch.zeros(shape)
    for row, encoded in enumerate(batch):
        start = 0
        for ids, prompt in encoded:
            end = start + len(ids)
            tokens_BT[row, start:end] = torch.tensor(ids)
            positions_BT[row, start:end] = torch.arange(len(ids))
            weights_BT[row, start + 1 : start + prompt] = prompt_weight
            weights_BT[row, start + prompt : end] = 1.0
            start = end
    return PackedBatch(tokens_BT, positions_BT, weights_BT)
