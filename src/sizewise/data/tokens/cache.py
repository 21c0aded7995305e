"""Token ids on disk: plain arrays, one file per key, and the hashes in those keys."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sizewise.files import hash_text, written_whole, zip_damage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

Stored = tuple[list[list[int]], list[list[int]], list[bool]]


class TokenCache:
    """A folder of ``KEY.npz`` files; a damaged file counts as absent, a full disk as no cache.

    The key has to hold everything that decides about the ids (tokenizer, template and its
    arguments, contents, bounds): see ``encode_examples``.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def load(self, key: str, count: int) -> Stored | None:
        """Return prompts, answers and shortened flags of ``count`` examples, or None."""
        if self._folder is None:
            return None
        path = self._folder / f"{key}.npz"
        try:
            if not path.is_file():
                return None
            if (why := zip_damage(path)) is not None:
                raise ValueError(why)
            with np.load(path, allow_pickle=False) as data:
                prompts = _unpack(data["prompt_ids"], data["prompt_ends"])
                answers = _unpack(data["answer_ids"], data["answer_ends"])
                shortened = [bool(flag) for flag in data["shortened"]]
        except (OSError, ValueError, KeyError) as error:
            log.warning("The token cache %s is damaged (%s): encoding again.", path, error)
            return None
        if not len(prompts) == len(answers) == len(shortened) == count:
            log.warning("The token cache %s has another number of rows: encoding again.", path)
            return None
        return prompts, answers, shortened

    def save(
        self,
        key: str,
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        shortened: Sequence[bool],
    ) -> None:
        """Write one entry; readers see all of it or nothing."""
        if self._folder is None:
            return
        path = self._folder / f"{key}.npz"
        prompt_ids, prompt_ends = _pack(prompts)
        answer_ids, answer_ends = _pack(answers)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as temporary, temporary.open("wb") as handle:
                np.savez(
                    handle,
                    prompt_ids=prompt_ids,
                    prompt_ends=prompt_ends,
                    answer_ids=answer_ids,
                    answer_ends=answer_ends,
                    shortened=np.asarray(shortened, dtype=np.bool_),
                )
        except OSError as error:
            log.warning("The token cache %s cannot be written (%s): going on without.", path, error)


def _pack(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return all ids in one array, and where each row ends."""
    flat = np.fromiter((i for row in rows for i in row), dtype=np.int32)
    return flat, np.cumsum([len(row) for row in rows], dtype=np.int64)


def _unpack(flat: NDArray[np.int32], ends: NDArray[np.int64]) -> list[list[int]]:
    bounds = [0, *(int(end) for end in ends)]
    if bounds[-1] != len(flat):
        raise ValueError("row ends do not fit the ids")
    return [flat[start:end].tolist() for start, end in pairwise(bounds)]


def hash_parts(*parts: Any) -> str:
    """Hash JSON-like values (16 hex digits)."""
    return hash_text(json.dumps(parts, ensure_ascii=False, sort_keys=True, default=str), 16)


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
    return hash_parts(hash_text(backend.to_str()), special)
