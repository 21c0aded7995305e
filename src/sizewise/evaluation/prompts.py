"""The prompts of one batch, read once: answer, reference and candidates go behind one reading.

A causal model keeps keys and values of all but the last token of each prompt; whatever was read
behind them is cropped off again. Where all prompts of a batch begin alike, as behind the same
instruction or the same examples, that beginning is read in one row for all of them, and once for
the batches that follow (servers call it prefix caching). An encoder-decoder model keeps its
encoder's states. Models whose state cannot be cropped (recurrent ones) read the prompt anew for
each purpose.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from sizewise.data.batches.collate import IGNORED, pad, pad_with_mask
from sizewise.data.tokens.table import Encoded
from sizewise.devices import device_of, evaluating
from sizewise.errors import EvaluationError
from sizewise.models.adapter.wrapping import base_of
from sizewise.models.architecture import positions_depend_on_length
from sizewise.models.base import has_int8
from sizewise.models.head import head_rows, takes
from sizewise.models.likelihood import batch_logits, summed_log_probs

PASS = 1 / 8
"""What reading a beginning apart costs as a further pass, in tokens of the batch."""


@dataclass
class Beginning:
    """What one model has read at the beginning of prompts, for prompts that begin so as well.

    Attributes:
        ids: the tokens.
        layers: keys and values [1, H, T, D] of each layer.
    """

    ids: list[int] = field(default_factory=list)
    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def cache(self, tokens: int) -> DynamicCache:
        """Return what holds the first tokens."""
        return DynamicCache([(k[:, :, :tokens], v[:, :, :tokens]) for k, v in self.layers])

    def keep(self, ids: Sequence[int], cache: DynamicCache) -> None:
        """Take what was read of one row."""
        self.ids, self.layers = list(ids), [(layer[0], layer[1]) for layer in cache]


@dataclass
class Prompts(ABC):
    """B prompts of one batch; ``tokens`` and ``mask`` [B, T] are padded as ``generate`` wants."""

    model: Any
    ids: Sequence[Sequence[int]]
    tokens: Tensor
    mask: Tensor

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
        beginning: what this model has read, the same weights in it, of prompts before these.

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
    beginning = beginning or Beginning()
    shared = _common_beginning(ids, beginning.ids) if _may_share(inner) else 0
    tokens_BT, mask_BT = _laid_out(ids, shared, padding, device)
    return CachedPrompts(model, ids, tokens_BT, mask_BT, shared=shared, beginning=beginning)


def croppable(inner: Any) -> bool:
    """Whether a model's state of a prompt is nothing but keys and values, one of each a token."""
    return _kinds_of_layers(inner) <= {DynamicLayer, DynamicSlidingWindowLayer}


def _kinds_of_layers(inner: Any) -> set[type]:
    return set(map(type, DynamicCache(config=inner.config.get_text_config(decoder=True)).layers))


def _may_share(inner: Any) -> bool:
    """Whether a beginning may be read apart, and padding may stand behind it.

    Windows and positions that are no input count columns, padding included; longer prompts change
    some kinds of positions; kernels other than torch's own want padding at one end.
    """
    return (
        _kinds_of_layers(inner) == {DynamicLayer}
        and takes(inner, "position_ids")
        and inner.config._attn_implementation in ("sdpa", "eager")
        and not positions_depend_on_length(inner)
        and not has_int8(inner)
    )


def _common_beginning(ids: Sequence[Sequence[int]], read: Sequence[int]) -> int:
    """Return how many first tokens, the same in all prompts, are best read in one row.

    ``read`` are the first tokens that were read already. A prompt's last token is never among them.
    """
    ordered = sorted(map(list, ids))  # what the first and the last have in common all have
    common = min(_alike(ordered[0], ordered[-1]), min(map(len, ids)) - 1)
    known = min(_alike(ordered[0], read), common)
    every = len(ids) * max(map(len, ids))

    def cost(shared: int) -> float:
        more = shared - known
        return every - len(ids) * shared + (more + PASS * every if more > 0 else 0)

    return min(0, known, common, key=cost)


def _alike(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _laid_out(
    ids: Sequence[Sequence[int]], shared: int, padding: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return tokens and mask [B, T]: what is shared, padding, and the rest of each prompt."""
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

    Attributes:
        shared: with how many tokens all prompts begin that are read in one row. They come first,
            and padding between them and the rest of each prompt.
        beginning: what was read of them before, and is kept for others.
    """

    cache: DynamicCache = field(default_factory=DynamicCache)
    shared: int = 0
    beginning: Beginning = field(default_factory=Beginning)

    @property
    def last(self) -> Tensor:
        """Last tokens [B, 1] of the prompts."""
        return self.tokens[:, -1:]

    @property
    def kept_mask(self) -> Tensor:
        """Mask [B, T - 1] of what the cache keeps."""
        return self.mask[:, :-1]

    def generation_inputs(self) -> dict[str, Any]:
        """Let ``generate`` fill the cache, or go on behind what is in it."""
        held = self.cache.get_seq_length()
        if held > self.kept_mask.shape[1] or (self.shared and not held):
            self.rewind()
        return {"past_key_values": self.cache}

    def rewind(self) -> DynamicCache:
        """Return the cache with the prompts less their last tokens: read now, or cropped to."""
        kept, held = self.kept_mask.shape[1], self.cache.get_seq_length()
        if held > kept:
            self.cache.crop(kept - held)
        elif held < kept:
            if self.shared:
                self._begin()
            if kept > self.shared:
                self._read(len(self.ids), slice(self.shared, kept))
        return self.cache

    def _begin(self) -> None:
        first = self.ids[0][: self.shared]
        known = _alike(first, self.beginning.ids)
        self.cache = self.beginning.cache(known)
        if known < self.shared:
            self._read(1, slice(known, self.shared))
            self.beginning.keep(first, self.cache)
        rows = [
            tuple(part.expand(len(self.ids), -1, -1, -1) for part in layer[:2])
            for layer in self.cache
        ]
        self.cache = DynamicCache(rows)

    def _read(self, rows: int, columns: slice) -> None:
        mask_BT = self.kept_mask[:rows, : columns.stop]
        positions_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
        self.inner.base_model(
            input_ids=self.tokens[:rows, columns],
            attention_mask=mask_BT,
            **self.placed(positions_BT[:, columns]),
            past_key_values=self.cache,
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
        chosen_BU = pad([[1] * len(answer) for answer in answers], 0).bool().to(device)
        # Padding behind an answer is no harm: nothing before it sees it.
        behind_BU = torch.ones_like(read_BU)
        positions_BU = self.kept_mask.sum(1, keepdim=True) + behind_BU.cumsum(1) - 1
        with evaluating(self.model):
            cache = self.rewind()
            with head_rows(base, chosen_BU):
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
        tokens_BT, mask_BT = _laid_out(ids, self.shared, self.ids[0][0], device)
        kept = tokens_BT.shape[1] - max(map(len, known)) - 1
        # Behind what is shared both are left-padded: the columns of a row move right by as much.
        lengths = torch.tensor([[len(self.ids[row]), len(ids[i])] for i, row in enumerate(rows)])
        moved_B1 = (tokens_BT.shape[1] - lengths[:, 1:]) - (self.tokens.shape[1] - lengths[:, :1])
        columns_T = torch.arange(kept)
        moved_BT = torch.where(columns_T < self.shared, 0, moved_B1)
        columns_BT = (columns_T - moved_BT).clamp(min=0).to(device)
        chosen = torch.as_tensor(rows, device=device)
        data = [
            tuple(_columns(part[chosen.to(part.device)], columns_BT) for part in layer[:2])
            for layer in cache
        ]
        return CachedPrompts(self.model, ids, tokens_BT, mask_BT, DynamicCache(data), self.shared)


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
        labels_BU = pad(answers, IGNORED).to(self.tokens.device)
        chosen_BU = labels_BU != IGNORED
        with evaluating(self.model), head_rows(base, chosen_BU):
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
