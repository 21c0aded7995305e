"""Likelihoods of many candidate answers: each prompt read once, then all candidates behind it.

A causal model reads the candidates as a tree. An encoder-decoder model's decoder may know positions
by their order alone (T5's biases), so it reads every candidate on its own, from the beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sizewise.data.batches.collate import IGNORED, pad_with_mask
from sizewise.devices import evaluating
from sizewise.errors import EvaluationError
from sizewise.evaluation.drafts import Best, Known
from sizewise.evaluation.prompts import CachedPrompts, EncodedPrompts, Prompts
from sizewise.models.likelihood import target_log_probs


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

    @cached_property
    def children(self) -> dict[tuple[int, int], int]:
        """The child of each node under each token."""
        keys = zip(self.parents[1:].tolist(), self.tokens[1:].tolist(), strict=True)
        return {key: node for node, key in enumerate(keys, 1)}

    @cached_property
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

    def sequences(self) -> list[list[int]]:
        """Return the tokens of each candidate."""
        paths = ([*self._ancestors(int(end)), int(end)] for end in self.ends)
        return [[int(self.tokens[node]) for node in path if node != 0] for path in paths]

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


ROWS_PER_PASS = 1024
NODES_PER_PASS = 64
LOGITS_PER_PASS = 2**24


@dataclass(frozen=True)
class Scored:
    """Candidates read behind B prompts.

    Attributes:
        log_probs: summed log-probability [B, C] (fp64, CPU) of each candidate after each prompt.
        known: the first tokens of each greedy answer, as far as it stays among the candidates;
            nothing where it was not asked for.
    """

    log_probs: Tensor
    known: Sequence[Known]

    def rows(self) -> list[Scored]:
        """Take the prompts apart."""
        pairs = zip(self.log_probs.split(1), self.known, strict=True)
        return [Scored(row, [known]) for row, known in pairs]

    @classmethod
    def joined(cls, rows: Sequence[Scored]) -> Scored:
        """Put prompts together."""
        known = [known for row in rows for known in row.known]
        return cls(torch.cat([row.log_probs for row in rows]), known)


def score_candidates(
    prompts: Prompts,
    candidates: Sequence[Sequence[int]] | Trie,
    stops: Sequence[int] | None = None,
    rows_per_pass: int | None = None,
) -> Scored:
    """Read all candidates behind each prompt.

    Args:
        prompts: of a causal model with SDPA or eager attention, or of an encoder-decoder model.
        candidates: C encoded answers, end of turn included, or the tree made of them.
        stops: tokens that end an answer; given where the greedy answers are wanted as well.
        rows_per_pass: bounds the logits in memory to about this number × vocabulary (default: see
            ``nodes_per_pass``).

    Raises:
        EvaluationError: there is no candidate, or an empty one.
    """
    trie = candidates if isinstance(candidates, Trie) else build_trie(candidates)
    count = len(prompts.ids)
    with evaluating(prompts.model):
        if isinstance(prompts, EncodedPrompts):
            rows = rows_per_pass or ROWS_PER_PASS
            return Scored(_decoded(prompts, trie.sequences(), rows), [Known()] * count)
        if not isinstance(prompts, CachedPrompts):
            prompts = CachedPrompts(prompts.model, prompts.ids, prompts.tokens, prompts.mask)
        edges_BM = torch.zeros((count, len(trie.tokens)), dtype=torch.float64)
        best: list[Best] = []
        vocabulary = prompts.inner.config.get_text_config().vocab_size
        size = rows_per_pass // count if rows_per_pass else nodes_per_pass(count, vocabulary)
        for nodes, extra in trie.slices(max(1, size)):
            logits_BMV = _tree_logits(prompts, trie, nodes)[:, extra:].float()
            log_probs_BMV = logits_BMV.log_softmax(-1)
            _fill_edges(edges_BM, log_probs_BMV, trie, nodes[extra:])
            if stops is not None:
                best.append(Best.of(logits_BMV, log_probs_BMV))
    known = [Known()] * count if stops is None else walk(trie, best, stops)
    return Scored(_path_sums(edges_BM, trie), known)


def nodes_per_pass(prompts: int, vocabulary: int) -> int:
    """How many nodes are read at once behind each of a number of prompts.

    Every part of the tree begins with ancestors that are read again, some half of the nodes in
    parts of 8 and a twentieth in parts of ``NODES_PER_PASS``; larger ones gain nothing. There are
    at least ``ROWS_PER_PASS`` rows of logits, and more where the vocabulary is small.
    """
    rows = max(ROWS_PER_PASS, LOGITS_PER_PASS // vocabulary)
    return max(ROWS_PER_PASS // prompts, min(NODES_PER_PASS, rows // prompts))


def candidate_log_probs(
    prompts: Prompts,
    candidates: Sequence[Sequence[int]] | Trie,
    rows_per_pass: int | None = None,
) -> Tensor:
    """Return the log-probabilities [B, C] alone; see ``score_candidates``."""
    return score_candidates(prompts, candidates, None, rows_per_pass).log_probs


def walk(trie: Trie, best: Sequence[Best], stops: Sequence[int]) -> list[Known]:
    """Follow the best tokens of each prompt through the tree, and one step out of it.

    ``best``: the best tokens [B, M] behind the inner nodes, in parts.
    """
    tokens, log_probs, sure = (
        torch.cat([getattr(part, name) for part in best], dim=1).tolist()
        for name in ("tokens", "log_probs", "sure")
    )
    place = {int(node): i for i, node in enumerate(trie.inner)}
    found = []
    for row in range(len(tokens)):
        path: list[int] = []
        node: int | None = 0
        while node in place and sure[row][place[node]]:
            path.append(place[node])
            token = tokens[row][path[-1]]
            node = None if token in stops else trie.children.get((node, token))
        found.append(
            Known(tuple(tokens[row][i] for i in path), tuple(log_probs[row][i] for i in path))
        )
    return found


def _tree_logits(prompts: CachedPrompts, trie: Trie, nodes: NDArray[np.int64]) -> Tensor:
    """Return logits [B, M, V] behind each node; the last prompt tokens are the roots."""
    device, mask_BT, cache = prompts.tokens.device, prompts.kept_mask, prompts.rewind()
    tokens_BM = torch.as_tensor(trie.tokens[nodes], device=device).repeat(len(mask_BT), 1)
    tokens_BM[:, nodes == 0] = prompts.last
    depths_M = torch.as_tensor(trie.depths[nodes], device=device)
    positions_BM = mask_BT.sum(1, keepdim=True) + depths_M
    tree_MM = torch.as_tensor(trie.visible(nodes), device=device)
    logits: Tensor = prompts.inner(
        input_ids=tokens_BM,
        attention_mask=_masks(prompts.inner, mask_BT, tree_MM, positions_BM),
        **prompts.placed(positions_BM),
        past_key_values=cache,
        use_cache=True,
    ).logits
    return logits


def _masks(inner: Any, mask_BT: Tensor, tree_MM: Tensor, positions_BM: Tensor) -> Any:
    """Additive masks [B, 1, M, T + M]; one per kind of layer where some have a window."""
    rows, nodes = positions_BM.shape
    prompt_BMT = mask_BT.bool()[:, None].expand(-1, nodes, -1)
    allowed = torch.cat([prompt_BMT, tree_MM.expand(rows, -1, -1)], dim=2)
    config = inner.config.get_text_config()
    window: int | None = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window is None or (kinds and "sliding_attention" not in kinds):
        return _additive(allowed, inner.dtype)
    near = _additive(allowed & _near(mask_BT, positions_BM, window), inner.dtype)
    if not kinds:
        return near
    return {"full_attention": _additive(allowed, inner.dtype), "sliding_attention": near}


def _near(mask_BT: Tensor, positions_BM: Tensor, window: int) -> Tensor:
    keys_BT = torch.cat([mask_BT.cumsum(1) - 1, positions_BM], dim=1)
    return keys_BT[:, None] > positions_BM[:, :, None] - window


def _decoded(
    prompts: EncodedPrompts, candidates: Sequence[Sequence[int]], rows_per_pass: int
) -> Tensor:
    """Return log-probabilities [B, C] by a decoder that reads each candidate on its own."""
    mask_BT, states_BTD, count = prompts.mask, prompts.states, len(prompts.ids)
    size = max(1, rows_per_pass // (count * max(map(len, candidates))))
    parts = []
    for start in range(0, len(candidates), size):
        part = candidates[start : start + size]
        labels_CL, _ = pad_with_mask(part, IGNORED, left=False, device=mask_BT.device)
        labels_RL = labels_CL.repeat(count, 1)
        logits_RLV = prompts.inner(
            encoder_outputs=(states_BTD.repeat_interleave(len(part), 0),),
            attention_mask=mask_BT.repeat_interleave(len(part), 0),
            labels=labels_RL,
        ).logits
        values_N = target_log_probs(logits_RLV.flatten(0, 1), labels_RL.flatten())
        parts.append(values_N.view(count, len(part), -1).double().sum(-1).cpu())
    return torch.cat(parts, dim=1)


def _additive(allowed_BMK: Tensor, dtype: torch.dtype) -> Tensor:
    mask = torch.zeros(allowed_BMK.shape, dtype=dtype, device=allowed_BMK.device)
    return mask.masked_fill(~allowed_BMK, torch.finfo(dtype).min)[:, None]


def _fill_edges(
    edges_BM: Tensor, log_probs_BMV: Tensor, trie: Trie, nodes: NDArray[np.int64]
) -> None:
    """Write the log-probability of every child of ``nodes`` into ``edges``."""
    children = np.flatnonzero(np.isin(trie.parents, nodes) & (trie.depths > 0))
    device = log_probs_BMV.device
    rows = torch.as_tensor(np.searchsorted(nodes, trie.parents[children]), device=device)
    tokens = torch.as_tensor(trie.tokens[children], device=device)
    values = log_probs_BMV[:, rows, tokens]
    edges_BM[:, torch.as_tensor(children)] = values.double().cpu()


def _path_sums(edges_BM: Tensor, trie: Trie) -> Tensor:
    """Add up the edges from the root to the end of every candidate."""
    totals_BM = edges_BM.clone()
    for depth in range(2, int(trie.depths.max()) + 1):
        level = torch.as_tensor(np.flatnonzero(trie.depths == depth))
        totals_BM[:, level] += totals_BM[:, torch.as_tensor(trie.parents[level.numpy()])]
    return totals_BM[:, torch.as_tensor(trie.ends)]
