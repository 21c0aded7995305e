"""Token sequences that share beginnings, as one tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import EvaluationError


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
