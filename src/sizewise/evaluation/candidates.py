"""Likelihoods of many candidate answers: each prompt read once, then all candidates as a tree.

All nodes of the tree go through the model as one sequence behind the prompt's key/value cache; a
mask lets each node see the prompt and its own ancestors only (Miao et al. 2024, SpecInfer, call
it tree attention). Scores equal those of every candidate alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from sizewise.errors import EvaluationError
from sizewise.evaluation.device import device_of, evaluating, inner_model
from sizewise.evaluation.generate import pad
from sizewise.evaluation.trie import Trie, build_trie

ROWS_PER_PASS = 2048


@dataclass(frozen=True)
class Choice:
    """The most likely candidate of one prompt.

    Attributes:
        index: its position among the candidates.
        log_prob: natural-log probability of its tokens.
        probability: its share of the probability of all candidates.
    """

    index: int
    log_prob: float
    probability: float


def choose(log_probs_BC: Tensor) -> list[Choice]:
    """Return the best candidate of each row; the first one of equals."""
    shares_BC = log_probs_BC.softmax(-1)
    best_B = log_probs_BC.argmax(-1)
    return [
        Choice(int(c), float(log_probs_BC[b, c]), float(shares_BC[b, c]))
        for b, c in enumerate(best_B)
    ]


def candidate_log_probs(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    candidates: Sequence[Sequence[int]] | Trie,
    padding: int = 0,
    rows_per_pass: int = ROWS_PER_PASS,
) -> Tensor:
    """Return the summed log-probability [B, C] (fp64, CPU) of each candidate after each prompt.

    Args:
        model: a causal model with SDPA or eager attention, or a PEFT model around one.
        prompt_ids: B encoded prompts, none empty.
        candidates: C encoded answers, end of turn included, or the tree made of them.
        padding: a valid token id to pad prompts with; it is masked.
        rows_per_pass: bounds the logits in memory to about this number × vocabulary.

    Raises:
        EvaluationError: an encoder-decoder model, an empty prompt or an empty candidate.
    """
    inner, device = inner_model(model), device_of(model)
    if inner.config.is_encoder_decoder:
        raise EvaluationError(
            "Candidates are scored with causal models only. Unset evaluation.candidates."
        )
    if any(not prompt for prompt in prompt_ids):
        raise EvaluationError("A prompt has no tokens. Check dataset.prompt and the chat template.")
    trie = candidates if isinstance(candidates, Trie) else build_trie(candidates)
    nodes_per_pass = max(1, rows_per_pass // len(prompt_ids))
    edges_BM = torch.zeros((len(prompt_ids), len(trie.tokens)), dtype=torch.float64)
    with evaluating(model):
        prefix = _read_prompts(inner, prompt_ids, padding, device)
        for nodes, extra in trie.slices(nodes_per_pass):
            logits_BMV = prefix.logits(inner, trie, nodes)[:, extra:]
            _fill_edges(edges_BM, logits_BMV, trie, nodes[extra:])
    return _path_sums(edges_BM, trie)


@dataclass(frozen=True)
class _Prefix:
    """All prompts but their last tokens, read; the last ones are the roots of the trees.

    Attributes:
        cache: keys and values of what was read; None where every prompt is one token.
        mask: [B, T] of what was read, left-padded.
        last: [B, 1] last token of each prompt.
    """

    cache: DynamicCache | None
    mask: Tensor
    last: Tensor

    def logits(self, inner: Any, trie: Trie, nodes: np.ndarray[Any, Any]) -> Tensor:
        """Return logits [B, M, V] behind each node; the cache is left as it was."""
        device, rows = self.last.device, len(self.last)
        tokens_BM = torch.as_tensor(trie.tokens[nodes], device=device).repeat(rows, 1)
        tokens_BM[:, nodes == 0] = self.last
        depths_M = torch.as_tensor(trie.depths[nodes], device=device)
        positions_BM = self.mask.sum(1, keepdim=True) + depths_M
        tree_MM = torch.as_tensor(trie.visible(nodes), device=device)
        output = inner(
            input_ids=tokens_BM,
            attention_mask=self._masks(inner, tree_MM, positions_BM),
            position_ids=positions_BM,
            past_key_values=self.cache,
            use_cache=self.cache is not None,
        )
        if self.cache is not None:
            self.cache.crop(-len(nodes))
        logits: Tensor = output.logits
        return logits

    def _masks(self, inner: Any, tree_MM: Tensor, positions_BM: Tensor) -> Any:
        """Additive masks [B, 1, M, T + M]; one per kind of layer where some have a window."""
        rows, nodes = positions_BM.shape
        prompt_BMT = self.mask.bool()[:, None].expand(-1, nodes, -1)
        allowed = torch.cat([prompt_BMT, tree_MM.expand(rows, -1, -1)], dim=2)
        config = inner.config.get_text_config()
        window: int | None = getattr(config, "sliding_window", None)
        kinds = getattr(config, "layer_types", None)
        if window is None or (kinds and "sliding_attention" not in kinds):
            return _additive(allowed, inner.dtype)
        near = _additive(allowed & self._near(positions_BM, window), inner.dtype)
        if not kinds:
            return near
        return {"full_attention": _additive(allowed, inner.dtype), "sliding_attention": near}

    def _near(self, positions_BM: Tensor, window: int) -> Tensor:
        keys_BT = torch.cat([self.mask.cumsum(1) - 1, positions_BM], dim=1)
        return keys_BT[:, None] > positions_BM[:, :, None] - window


def _read_prompts(
    inner: Any, prompt_ids: Sequence[Sequence[int]], padding: int, device: torch.device
) -> _Prefix:
    last_B1 = torch.tensor([[prompt[-1]] for prompt in prompt_ids], device=device)
    if max(len(prompt) for prompt in prompt_ids) == 1:
        return _Prefix(None, torch.zeros((len(prompt_ids), 0), device=device).long(), last_B1)
    rows = [prompt[:-1] for prompt in prompt_ids]
    tokens_BT, mask_BT = pad(rows, padding, left=True, device=device)
    cache = DynamicCache()
    inner.base_model(
        input_ids=tokens_BT,
        attention_mask=mask_BT,
        position_ids=(mask_BT.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
    )
    return _Prefix(cache, mask_BT, last_B1)


def _additive(allowed_BMK: Tensor, dtype: torch.dtype) -> Tensor:
    mask = torch.zeros(allowed_BMK.shape, dtype=dtype, device=allowed_BMK.device)
    return mask.masked_fill(~allowed_BMK, torch.finfo(dtype).min)[:, None]


def _fill_edges(
    edges_BM: Tensor, logits_BMV: Tensor, trie: Trie, nodes: np.ndarray[Any, Any]
) -> None:
    """Write the log-probability of every child of ``nodes`` into ``edges``."""
    children = np.flatnonzero(np.isin(trie.parents, nodes) & (trie.depths > 0))
    rows = torch.as_tensor(np.searchsorted(nodes, trie.parents[children]), device=logits_BMV.device)
    tokens = torch.as_tensor(trie.tokens[children], device=logits_BMV.device)
    logits_BMV = logits_BMV.float()
    values = logits_BMV[:, rows, tokens] - logits_BMV.logsumexp(-1)[:, rows]
    edges_BM[:, torch.as_tensor(children)] = values.double().cpu()


def _path_sums(edges_BM: Tensor, trie: Trie) -> Tensor:
    """Add up the edges from the root to the end of every candidate."""
    totals_BM = edges_BM.clone()
    for depth in range(2, int(trie.depths.max()) + 1):
        level = torch.as_tensor(np.flatnonzero(trie.depths == depth))
        totals_BM[:, level] += totals_BM[:, torch.as_tensor(trie.parents[level.numpy()])]
    return totals_BM[:, torch.as_tensor(trie.ends)]
