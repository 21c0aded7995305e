"""What transformers reads of a batch before it makes a mask, told from the host.

To read a value is to wait for the device, in every pass. Whoever put the batch together knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class _Known:
    """None: transformers looks for itself."""

    packed: bool | None = None
    padded: bool | None = None


_NOTHING = _Known()
_known: ContextVar[_Known] = ContextVar("known", default=_NOTHING)


@contextmanager
def known(packed: bool | None = None, padded: bool | None = None) -> Iterator[None]:
    """Let models not look within the block; what is None is as it was outside of it.

    ``packed`` False: no row holds several sequences. ``padded``: whether an encoder's rows may be
    padded; where they are not, it needs no mask, whatever ``attention_mask`` says.
    """
    _ask_first()
    told = {k: v for k, v in (("packed", packed), ("padded", padded)) if v is not None}
    before = _known.set(replace(_known.get(), **told))
    try:
        yield
    finally:
        _known.reset(before)


def padding_of(batch: Mapping[str, Any]) -> bool | None:
    """Return whether a batch's inputs may be padded, as far as its collator says so."""
    padded: bool | None = batch.get("padded")
    return padded


@cache
def _ask_first() -> None:
    """Put our answers before transformers' searches, for good: several threads may be inside."""
    from transformers import masking_utils

    asked: Any = masking_utils
    find_packed, needs_no_mask = (
        asked.find_packed_sequence_indices,
        asked._ignore_bidirectional_mask_sdpa,
    )

    def packed(position_ids: Tensor) -> Tensor | None:
        return None if _known.get().packed is False else find_packed(position_ids)

    def unpadded(padding_mask: Tensor | None, *sizes: Any, **named: Any) -> bool:
        padded = _known.get().padded
        if padded and padding_mask is not None:
            return False
        return needs_no_mask(None if padded is False else padding_mask, *sizes, **named)

    asked.find_packed_sequence_indices = packed
    asked._ignore_bidirectional_mask_sdpa = unpadded
