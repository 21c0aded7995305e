"""What all prompts of a split begin with is read once (servers call it prefix caching).

The same instruction or the same examples before every question are most of what a model reads. A
causal model sees nothing of what follows, so that keys and values of the common first tokens are
those of every prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from sizewise.models.adapter.wrapping import base_of
from sizewise.models.architecture import positions_depend_on_length
from sizewise.models.base import has_int8
from sizewise.models.head import takes

WORTH = 1 / 8
"""Share of all tokens that a common beginning has to be: padding behind it wants masks, and
reading it takes a pass. Chosen on a CPU."""
# Not among the layers with a window that the cache knows of.
WINDOWS = ("gpt_neo",)


@dataclass
class Beginning:
    """The first tokens of all prompts, and what one model has read of them.

    Attributes:
        ids: the tokens; every prompt has at least one more.
        cache: their keys and values in one row; empty until they are read.
    """

    ids: tuple[int, ...] = ()
    cache: DynamicCache = field(default_factory=DynamicCache)

    @classmethod
    def of(cls, model: Any, prompts: Iterable[Sequence[int]]) -> Beginning:
        """Find it; empty where the model cannot share it or it is not worth it.

        It depends on the prompts alone, not on which of them were read before: an evaluation that
        is resumed reads as one that was not interrupted.
        """
        if not may_share(base_of(model)):
            return cls()
        first: list[int] | None = None
        tokens = count = 0
        for prompt in prompts:
            first = list(prompt) if first is None else first[: _alike(first, prompt)]
            first = first[: len(prompt) - 1]
            tokens, count = tokens + len(prompt), count + 1
            if not first:
                return cls()
        common = tuple(first or ())
        return cls(common) if len(common) * (count - 1) >= WORTH * tokens else cls()

    def __bool__(self) -> bool:
        return bool(self.ids)

    def fits(self, prompts: Sequence[Sequence[int]]) -> bool:
        """Whether all of these prompts begin so, and go on."""
        size = len(self.ids)
        return all(len(p) > size and tuple(p[:size]) == self.ids for p in prompts)

    def rows(self, count: int) -> DynamicCache:
        """Return what was read, for a number of prompts; nothing is copied for each."""
        cache = DynamicCache([layer[:2] for layer in self.cache])
        for layer in cache.layers:
            if layer.get_seq_length():  # some layers of some models keep nothing
                layer.keys = layer.keys.expand(count, -1, -1, -1)
                layer.values = layer.values.expand(count, -1, -1, -1)
        return cache


def may_share(inner: Any) -> bool:
    """Whether a beginning may be read apart, and padding may stand behind it.

    Windows, and positions that are no input, count columns, padding included; longer prompts change
    some kinds of positions, and other rows int8 products; kernels other than torch's own want
    padding at one end. Of classes outside transformers none of that is known.
    """
    return (
        type(inner).__module__.startswith("transformers.")
        and not inner.config.is_encoder_decoder
        and kinds_of_layers(inner) == {DynamicLayer}
        and inner.config.get_text_config(decoder=True).model_type not in WINDOWS
        and takes(inner, "position_ids")
        and inner.config._attn_implementation in ("sdpa", "eager")
        and not positions_depend_on_length(inner)
        and not has_int8(inner)
    )


def kinds_of_layers(inner: Any) -> set[type]:
    """Return how a model's layers keep what they have read."""
    return set(map(type, DynamicCache(config=inner.config.get_text_config(decoder=True)).layers))


def _alike(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
