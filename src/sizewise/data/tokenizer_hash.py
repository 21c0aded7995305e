"""Hashes of what decides about token ids."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def hash_parts(*parts: Any) -> str:
    """Hash JSON-like values (16 hex digits)."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash a tokenizer's rules and vocabulary (16 hex digits).

    Padding and truncation, which every call sets anew, are switched off before and do not count.
    """
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return hash_parts(type(tokenizer).__name__, tokenizer.get_vocab(), special)
    backend.no_truncation()
    backend.no_padding()
    rules = hashlib.sha256(backend.to_str().encode()).hexdigest()
    return hash_parts(rules, special)
