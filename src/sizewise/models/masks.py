"""What transformers reads of a batch before it makes a mask, told from the host.

To read a value is to wait for the device, in every pass. Whoever put the batch together knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class _Known:
    """What is known; of what is None transformers looks for itself."""

    packed: bool | None = None
    padded: bool | None = None
    decoder_padded: bool | None = None


_NOTHING = _Known()
_known: ContextVar[_Known] = ContextVar("known", default=_NOTHING)


@contextmanager
def known(
    packed: bool | None = None, padded: bool | None = None, decoder_padded: bool | None = None
) -> Iterator[None]:
    """Let models not look within the block, where SDPA or eager attention makes their masks.

    Args:
        packed: False: no row holds several sequences. None: as it was outside of the block.
        padded: whether an encoder's rows may be padded; where they are not, it needs no mask,
            whatever ``attention_mask`` says.
        decoder_padded: False: no row of a decoder is, even where it makes itself a mask.
    """
    _ask_first()
    packed = _known.get().packed if packed is None else packed
    before = _known.set(_Known(packed, padded, decoder_padded))
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
    """Put our answers before transformers' searches, for good: several threads may be inside.

    Where a version has none of that name, it looks for itself.
    """
    from transformers import masking_utils

    for name, before in SEARCHES.items():
        if (search := getattr(masking_utils, name, None)) is not None:
            setattr(masking_utils, name, before(search))


def _packed(search: Callable[..., Any]) -> Callable[..., Any]:
    def found(*given: Any, **named: Any) -> Any:
        return None if _known.get().packed is False else search(*given, **named)

    return found


def _bidirectional(needs_no_mask: Callable[..., bool]) -> Callable[..., bool]:
    def found(padding_mask: Tensor | None, *sizes: Any, **named: Any) -> bool:
        padded = _known.get().padded
        if padded and padding_mask is not None:
            return False
        return needs_no_mask(None if padded is False else padding_mask, *sizes, **named)

    return found


def _causal(needs_no_mask: Callable[..., bool]) -> Callable[..., bool]:
    def found(padding_mask: Tensor | None, *sizes: Any, **named: Any) -> bool:
        padded = _known.get().decoder_padded
        return needs_no_mask(None if padded is False else padding_mask, *sizes, **named)

    return found


SEARCHES = {
    "find_packed_sequence_indices": _packed,
    "_ignore_bidirectional_mask_sdpa": _bidirectional,
    "_ignore_causal_mask_sdpa": _causal,
}
"""What ``transformers.masking_utils`` calls these, and what is put before each."""
