"""Token ids on disk: plain arrays, one file per key, and the hashes in those keys."""

from __future__ import annotations

import json
import logging
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sizewise.data.tokens.table import Part, TokenTable, flat_part
from sizewise.files import hash_text, written_whole, zip_damage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

# Larger tables stay on the disk: a file that another machine deletes meanwhile takes no small one.
MOST_IN_MEMORY = 2**28
IDS, ENDS, SHORTENED = "ids", "ends.npy", "shortened.npy"


class TokenCache:
    """A folder of ``KEY.npz`` files; a damaged file counts as absent, a full disk as no cache.

    The key has to hold everything that decides about the ids (tokenizer, template and its
    arguments, contents, bounds): see ``encode_examples``. A file is an archive of the arrays of a
    ``TokenTable``, uncompressed, with checksums; ``ids`` are bare int32.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def load(self, key: str, count: int) -> TokenTable | None:
        """Return the table of ``count`` examples, or None."""
        if self._folder is None:
            return None
        path = self._folder / f"{key}.npz"
        try:
            if not path.is_file():
                return None
            if (why := zip_damage(path)) is not None:
                raise ValueError(why)
            table = _read(path)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            log.warning("The token cache %s is damaged (%s): encoding again.", path, error)
            return None
        if len(table) != count:
            log.warning("The token cache %s has another number of rows: encoding again.", path)
            return None
        return table

    def save(self, key: str, parts: Iterable[Part]) -> TokenTable | None:
        """Write one entry part by part and return it; readers see all of it or nothing.

        Returns None where nothing is kept, or the disk takes no more.
        """
        if self._folder is None:
            return None
        path = self._folder / f"{key}.npz"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as temporary:
                _write(temporary, parts)
            return _read(path)
        except OSError as error:
            log.warning("The token cache %s cannot be written (%s): going on without.", path, error)
            return None


def _write(path: Path, parts: Iterable[Part]) -> None:
    ends: list[NDArray[np.int64]] = [np.empty((0, 2), np.int64)]
    shortened: list[NDArray[np.bool_]] = [np.empty(0, np.bool_)]
    total = 0
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open(IDS, "w", force_zip64=True) as handle:
            for part in parts:
                ids, places, cut = flat_part(part)
                handle.write(ids.astype("<i4").tobytes())
                ends.append(places + total)
                shortened.append(cut)
                total += len(ids)
        for name, arrays in ((ENDS, ends), (SHORTENED, shortened)):
            with archive.open(name, "w", force_zip64=True) as handle:
                np.lib.format.write_array(handle, np.concatenate(arrays), allow_pickle=False)


def _read(path: Path) -> TokenTable:
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(IDS)
        small: dict[str, NDArray[Any]] = {}
        for name in (ENDS, SHORTENED):
            with archive.open(name) as handle:
                small[name] = np.lib.format.read_array(handle, allow_pickle=False)
    begin, count = _begin(path, member), member.file_size // 4
    ids = (
        np.fromfile(path, "<i4", count, offset=begin)
        if member.file_size <= MOST_IN_MEMORY
        else np.memmap(path, "<i4", "r", begin, count)
    )
    ends, shortened = small[ENDS], small[SHORTENED]
    fits = ends.ndim == 2 and ends.shape == (len(shortened), 2) and ends.dtype == np.int64
    if not fits or int(ends[-1, 1] if len(ends) else 0) != len(ids):
        raise ValueError("row ends do not fit the ids")
    return TokenTable(ids, ends, shortened.astype(np.bool_))


def _begin(path: Path, member: zipfile.ZipInfo) -> int:
    """Return where the bytes of an uncompressed member begin: behind its own header."""
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"its part {member.filename} is compressed")
    with path.open("rb") as handle:
        handle.seek(member.header_offset + 26)
        name, extra = struct.unpack("<HH", handle.read(4))
    return int(member.header_offset + 30 + name + extra)


_PLAIN = json.JSONEncoder(ensure_ascii=False, sort_keys=True, default=str)


def hash_parts(*parts: Any) -> str:
    """Hash JSON-like values (16 hex digits)."""
    return hash_text(_PLAIN.encode(parts), 16)


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
