"""Likelihoods of many candidate answers: each prompt read once, then all candidates as a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from sizewise.data.batches.collate import pad_with_mask
from sizewise.devices import device_of, evaluating
from sizewise.errors import EvaluationError
from sizewise.models.adapter.wrapping import base_of


@dataclass(frozen=True)
class Trie:
    """Nodes in depth-first order; node 0 is the root and stands for the last prompt token.

    Attributes:
        tokens: token of each node (the root's is meaningless).
        parents: parent of each node, which always comes before it (the root's is itself).
        depths: distance of each node from the root.
        ends: the node at which each candidate ends.
    """

    tokens: NDArray[np.int64]
    parents: NDArray[np.int64]
    depths: NDArray[np.int64]
    ends: NDArray[np.int64]

    @property
    def inner(self) -> NDArray[np.int64]:
        """Nodes with children, in depth-first order: those that the model has to read."""
        return np.unique(self.parents[1:])

    def slices(self, size: int) -> list[tuple[NDArray[np.int64], int]]:
        """Cut the inner nodes into parts of at most ``size``.

        Each part begins with the ancestors of its first node that it lacks; the second value is
        their number. In depth-first order no other ancestor can be missing.
        """
        inner, parts = self.inner, []
        for start in range(0, len(inner), size):
            own = inner[start : start + size]
            lacking = self._ancestors(int(own[0]))
            parts.append((np.array([*lacking, *own], dtype=np.int64), len(lacking)))
        return parts

    def visible(self, nodes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return [M, M]: whether node i may see node j, that is itself or an ancestor."""
        place = {int(node): i for i, node in enumerate(nodes)}
        seen = np.eye(len(nodes), dtype=bool)
        for i, node in enumerate(nodes):
            if node != 0:
                seen[i] |= seen[place[int(self.parents[node])]]
        return seen

    def _ancestors(self, node: int) -> list[int]:
        path: list[int] = []
        while node != 0:
            node = int(self.parents[node])
            path.append(node)
        return path[::-1]


def build_trie(candidates: Sequence[Sequence[int]]) -> Trie:
    """Merge token sequences by their common beginnings.

    Raises:
        EvaluationError: there is no candidate, or one has no token.
    """
    if not candidates or any(not candidate for candidate in candidates):
        raise EvaluationError("There has to be at least one candidate, each of at least one token.")
    tokens, parents, depths = [0], [0], [0]
    children: dict[tuple[int, int], int] = {}
    ends = [0] * len(candidates)
    for index in sorted(range(len(candidates)), key=lambda i: tuple(candidates[i])):
        node = 0
        for token in candidates[index]:
            if (node, token) not in children:
                children[node, token] = len(tokens)
                tokens.append(token)
                parents.append(node)
                depths.append(depths[node] + 1)
            node = children[node, token]
        ends[index] = node
    return Trie(*(np.array(values, dtype=np.int64) for values in (tokens, parents, depths, ends)))


ROWS_PER_PASS = 2048


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
    inner, device = base_of(model), device_of(model)
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
    """All prompts but their last tokens [B, 1], read; the last ones are the roots of the trees.

    ``cache`` is None where every prompt is one token; ``mask`` [B, T] is left-padded.
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
    tokens_BT, mask_BT = pad_with_mask(rows, padding, left=True, device=device)
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
