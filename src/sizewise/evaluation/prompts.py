"""The prompts of one batch, read once: answer, reference and candidates go behind one reading.

A causal model keeps keys and values of all but the last token of each prompt; whatever was read
behind them is cropped off again. An encoder-decoder model keeps its encoder's states. Models whose
state cannot be cropped (recurrent ones) read the prompt anew for each purpose.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from sizewise.data.batches.collate import IGNORED, answer_index, pad, pad_with_mask
from sizewise.data.tokens.table import Encoded
from sizewise.devices import device_of, evaluating
from sizewise.errors import EvaluationError
from sizewise.evaluation.beginning import Beginning, kinds_of_layers
from sizewise.models.adapter.wrapping import base_of
from sizewise.models.head import head_rows, takes
from sizewise.models.likelihood import batch_logits, summed_log_probs


@dataclass
class Prompts(ABC):
    """B prompts of one batch; ``tokens`` and ``mask`` [B, T] are padded as ``generate`` wants.

    Attributes:
        beginning: what is read in one row for all; empty for none. It comes first, and padding
            between it and the rest of each prompt.
    """

    model: Any
    ids: Sequence[Sequence[int]]
    tokens: Tensor
    mask: Tensor
    beginning: Beginning = field(default_factory=Beginning, kw_only=True)

    @property
    def inner(self) -> Any:
        return base_of(self.model)

    @abstractmethod
    def generation_inputs(self) -> dict[str, Any]:
        """Return what ``generate`` needs beside tokens and mask to share the reading."""

    @abstractmethod
    def logits(self, answers: Sequence[Sequence[int]]) -> Tensor:
        """Return logits [N, V] that predict the N tokens of one answer (or none) to each prompt."""

    def log_probs(self, answers: Sequence[Sequence[int]]) -> list[float]:
        """Return the summed natural-log probability of one answer to each prompt; 0 for none."""
        if not any(answers):
            return [0.0] * len(answers)
        return self.summed(self.logits(answers), answers)

    def summed(self, logits_NV: Tensor, answers: Sequence[Sequence[int]]) -> list[float]:
        """Return the same from the answers' logits."""
        targets = torch.tensor([token for answer in answers for token in answer])
        return summed_log_probs(logits_NV, targets.to(logits_NV.device), answers)


def open_prompts(
    model: Any, ids: Sequence[Sequence[int]], padding: int, beginning: Beginning | None = None
) -> Prompts:
    """Return the prompts for ``model``; nothing is read yet.

    Args:
        model: a causal or encoder-decoder model, or a PEFT model around one.
        ids: B encoded prompts, none empty.
        padding: a valid token id to pad with; it is masked.
        beginning: that of all prompts of a split, for this model with the weights that it has.

    Raises:
        EvaluationError: a prompt is empty.
    """
    if any(not prompt for prompt in ids):
        raise EvaluationError("A prompt has no tokens. Check dataset.prompt and the chat template.")
    inner, device = base_of(model), device_of(model)
    if inner.config.is_encoder_decoder:
        return EncodedPrompts(model, ids, *pad_with_mask(ids, padding, left=False, device=device))
    if not croppable(inner):
        return SeparatePrompts(model, ids, *_laid_out(ids, 0, padding, device))
    if beginning is None or not beginning.fits(ids):
        beginning = Beginning()
    tokens_BT, mask_BT = _laid_out(ids, len(beginning.ids), padding, device)
    return CachedPrompts(model, ids, tokens_BT, mask_BT, beginning=beginning)


def croppable(inner: Any) -> bool:
    """Whether a model's state of a prompt is nothing but keys and values, one of each a token."""
    return kinds_of_layers(inner) <= {DynamicLayer, DynamicSlidingWindowLayer}


def _laid_out(
    ids: Sequence[Sequence[int]], shared: int, padding: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return tokens and mask [B, T]: the first tokens that all share, padding, the rest of each."""
    rest_BT, mask_BT = pad_with_mask([row[shared:] for row in ids], padding, True, device)
    first_BT = torch.tensor([list(ids[0][:shared])], dtype=torch.long, device=device)
    first_BT = first_BT.expand(len(ids), -1)
    mask_BT = torch.cat([torch.ones_like(first_BT), mask_BT], dim=1)
    return torch.cat([first_BT, rest_BT], dim=1), mask_BT


@dataclass
class CachedPrompts(Prompts):
    """Prompts of a causal model; ``cache`` begins with all tokens of the prompts but the last.

    The last tokens are read again with whatever follows them, since their logits are wanted there.
    Layers with a window keep everything, too: their masks leave out what is too far away.
    """

    cache: DynamicCache = field(default_factory=DynamicCache)

    @property
    def last(self) -> Tensor:
        """Last tokens [B, 1] of the prompts."""
        return self.tokens[:, -1:]

    @property
    def kept_mask(self) -> Tensor:
        """Mask [B, T - 1] of what the cache keeps."""
        return self.mask[:, :-1]

    def generation_inputs(self) -> dict[str, Any]:
        """Let ``generate`` go on behind what is in the cache, or behind what prompts begin with."""
        if self.cache.get_seq_length() > self.kept_mask.shape[1]:
            self.rewind()
        else:
            self.begin()
        return {"past_key_values": self.cache}

    def begin(self) -> None:
        """Put what all prompts begin with into an empty cache; it is read if nobody did before."""
        size = len(self.beginning.ids)
        if size and not self.cache.get_seq_length():
            if not self.beginning.cache.get_seq_length():
                read = DynamicCache()  # what a failure leaves half read is not kept
                self._read(read, 1, slice(0, size))
                self.beginning.cache = read
            self.cache = self.beginning.rows(len(self.ids))

    def rewind(self) -> DynamicCache:
        """Return the cache with the prompts less their last tokens: read now, or cropped to."""
        self.begin()
        kept, held = self.kept_mask.shape[1], self.cache.get_seq_length()
        if held > kept:
            self.cache.crop(kept - held)
        elif held < kept:
            self._read(self.cache, len(self.ids), slice(held, kept))
        return self.cache

    def _read(self, cache: DynamicCache, rows: int, columns: slice) -> None:
        mask_BT = self.kept_mask[:rows, : columns.stop]
        positions_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
        with evaluating(self.model):
            self.inner.base_model(
                input_ids=self.tokens[:rows, columns],
                attention_mask=mask_BT,
                **self.placed(positions_BT[:, columns]),
                past_key_values=cache,
                use_cache=True,
            )

    def placed(self, positions: Tensor) -> dict[str, Tensor]:
        """Return the positions as an input, where the model takes them."""
        return {"position_ids": positions} if takes(self.inner, "position_ids") else {}

    def logits(self, answers: Sequence[Sequence[int]]) -> Tensor:
        """Read one answer behind each prompt; the head sees the rows that predict it only."""
        device, base = self.tokens.device, self.inner
        rows = [[prompt[-1], *a[:-1]] for prompt, a in zip(self.ids, answers, strict=True)]
        read_BU = pad(rows, rows[0][0]).to(device)
        rows_N, _ = answer_index(pad(answers, IGNORED), shifted=False)
        # Padding behind an answer is no harm: nothing before it sees it.
        behind_BU = torch.ones_like(read_BU)
        positions_BU = self.kept_mask.sum(1, keepdim=True) + behind_BU.cumsum(1) - 1
        with evaluating(self.model):
            cache = self.rewind()
            with head_rows(base, rows_N):
                logits_NV: Tensor = base(
                    input_ids=read_BU,
                    attention_mask=torch.cat([self.kept_mask, behind_BU], dim=1),
                    **self.placed(positions_BU),
                    past_key_values=cache,
                    use_cache=True,
                ).logits
        return logits_NV

    def going_on(self, rows: Sequence[int], known: Sequence[Sequence[int]]) -> CachedPrompts:
        """Return some of the prompts with the first tokens of their answers, to be gone on with.

        What is known is read with the next token. Since ``generate`` reads as many tokens of every
        row, a row of which less is known reads some of its prompt again.
        """
        cache, device = self.rewind(), self.tokens.device
        ids = [[*self.ids[row], *tokens] for row, tokens in zip(rows, known, strict=True)]
        size = len(self.beginning.ids)
        tokens_BT, mask_BT = _laid_out(ids, size, self.ids[0][0], device)
        kept = tokens_BT.shape[1] - max(map(len, known)) - 1
        # Behind the beginning both are left-padded: the columns of a row move right by as much.
        lengths = torch.tensor([[len(self.ids[row]), len(ids[i])] for i, row in enumerate(rows)])
        moved_B1 = (tokens_BT.shape[1] - lengths[:, 1:]) - (self.tokens.shape[1] - lengths[:, :1])
        columns_T = torch.arange(kept)
        moved_BT = torch.where(columns_T < size, 0, moved_B1)
        columns_BT = (columns_T - moved_BT).clamp(min=0).to(device)
        chosen = torch.as_tensor(rows, device=device)
        data = [
            tuple(None if p is None else _columns(p[chosen.to(p.device)], columns_BT) for p in each)
            for each in (layer[:2] for layer in cache)
        ]
        found = DynamicCache(data)
        return CachedPrompts(self.model, ids, tokens_BT, mask_BT, found, beginning=self.beginning)


def _columns(values_BHTD: Tensor, columns_BT: Tensor) -> Tensor:
    """Choose other columns of keys or values for every row."""
    heads, size = values_BHTD.shape[1], values_BHTD.shape[3]
    columns_BHTD = columns_BT[:, None, :, None].expand(-1, heads, -1, size)
    return values_BHTD.gather(2, columns_BHTD.to(values_BHTD.device))


@dataclass
class EncodedPrompts(Prompts):
    """Prompts of an encoder-decoder model, whose encoder reads them once."""

    @cached_property
    def encoded(self) -> Any:
        """What the encoder returns, states first."""
        with evaluating(self.model):
            return self.inner.get_encoder()(
                input_ids=self.tokens, attention_mask=self.mask, return_dict=True
            )

    @property
    def states(self) -> Tensor:
        """States [B, T, D] of the encoder."""
        states: Tensor = self.encoded[0]
        return states

    def generation_inputs(self) -> dict[str, Any]:
        """Give ``generate`` the encoder's states."""
        return {"encoder_outputs": self.encoded}

    def logits(self, answers: Sequence[Sequence[int]]) -> Tensor:
        """Decode one answer to each prompt behind the encoder's states."""
        base = self.inner
        labels_BU = pad(answers, IGNORED)
        rows_N, _ = answer_index(labels_BU, shifted=False)
        labels_BU = labels_BU.to(self.tokens.device)
        with evaluating(self.model), head_rows(base, rows_N):
            logits_NV: Tensor = base(
                encoder_outputs=(self.states,),
                attention_mask=self.mask,
                decoder_input_ids=base.prepare_decoder_input_ids_from_labels(labels=labels_BU),
                use_cache=False,
            ).logits
        return logits_NV


@dataclass
class SeparatePrompts(Prompts):
    """Prompts of a model whose state cannot be cropped: each purpose reads them on its own."""

    def generation_inputs(self) -> dict[str, Any]:
        """Nothing is shared."""
        return {}

    def logits(self, answers: Sequence[Sequence[int]]) -> Tensor:
        """Read prompts and answers together."""
        pairs = [Encoded(list(p), list(a)) for p, a in zip(self.ids, answers, strict=True) if a]
        return batch_logits(self.model, pairs, int(self.tokens[0, -1]))
