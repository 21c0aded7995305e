"""Which weights a local directory holds, by content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sizewise.errors import ModelError

WHOLE_FILE_BYTES = 256 * 2**20
BLOCK_BYTES = 64 * 2**10
BLOCKS = 1024
_NAMES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def weights_fingerprint(path: str, revision: str | None = None, commit: str | None = None) -> str:
    """Identify a base's weights (16 hex digits of content, or the hub's id and commit).

    Args:
        path: a local directory, or a hub id.
        revision: the revision asked of the hub.
        commit: the commit the hub resolved it to (``config._commit_hash``), where known.

    Raises:
        ModelError: a local directory holds no safetensors file.
    """
    folder = Path(path)
    if not folder.is_dir():
        return f"{path}@{commit or revision or 'main'}"
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(f"{path} holds no *.safetensors file, the only weight format read here.")
    digest = hashlib.sha256()
    for file in [*(folder / name for name in _NAMES if (folder / name).exists()), *weights]:
        digest.update(f"{file.name}:{file.stat().st_size}:{file_fingerprint(file)}\n".encode())
    return digest.hexdigest()[:16]


def file_fingerprint(path: Path) -> str:
    """Hash a file: whole up to 256 MiB, else 1,024 evenly spaced blocks of 64 KiB.

    Sampling keeps the hash of a 16 GB base below a second; two fine-tuned versions of a model
    differ nearly everywhere, so that no block in a thousand would be equal by chance.
    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        if size <= WHOLE_FILE_BYTES:
            return hashlib.file_digest(handle, "sha256").hexdigest()
        digest = hashlib.sha256()
        for i in range(BLOCKS):
            handle.seek((size - BLOCK_BYTES) * i // (BLOCKS - 1))
            digest.update(handle.read(BLOCK_BYTES))
        return digest.hexdigest()
