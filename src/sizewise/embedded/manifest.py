"""The manifest of the shipped models: what they are, and hashes to check them against."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sizewise.errors import ModelError

MANIFEST = "manifest.json"


def file_hashes(folder: Path) -> dict[str, dict[str, Any]]:
    """SHA-256 and size in bytes of each file below `folder`, without the manifest itself."""
    return {
        path.relative_to(folder).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> Path:
    """Writes `facts` and the hashes of all files in `folder`."""
    target = folder / MANIFEST
    content = {**facts, "files": file_hashes(folder)}
    target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return target


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of models; raises ModelError when it is missing or broken."""
    target = folder / MANIFEST
    try:
        content: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{target} is missing: rebuild the embedded models.") from error
    except ValueError as error:
        raise ModelError(f"{target} is not JSON ({error}): rebuild the embedded models.") from error
    return content


def differences(folder: Path, data_fingerprint: str) -> list[str]:
    """Sentences on what differs from the manifest; empty when all is as it was built."""
    manifest = read_manifest(folder)
    found = []
    if manifest.get("data_fingerprint") != data_fingerprint:
        found.append(
            f"The dialogues have the fingerprint {data_fingerprint}, "
            f"the manifest says {manifest.get('data_fingerprint')}."
        )
    expected, present = manifest.get("files", {}), file_hashes(folder)
    found += [f"{name} is missing." for name in expected if name not in present]
    found += [f"{name} is not in the manifest." for name in present if name not in expected]
    found += [
        f"{name} has another content than the manifest says."
        for name, facts in expected.items()
        if name in present and present[name] != facts
    ]
    return found
