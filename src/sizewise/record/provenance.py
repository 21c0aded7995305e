"""What ran where: code, packages and hardware, as plain values for the outcome."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

import psutil

import sizewise

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "pytorch-lightning",
    "bitsandbytes",
    "datasets",
    "hydra-core",
    "omegaconf",
    "torchmetrics",
    "wandb",
    "numpy",
    "tokenizers",
    "simple-icd-10-cm",
)


class Code(TypedDict, total=False):
    commit: str | None
    dirty: bool | None


class Hardware(TypedDict, total=False):
    cpu: str | None
    devices: list[Mapping[str, Any]] | None


class Provenance(TypedDict, total=False):
    """What is read of a provenance; earlier records lack some of it."""

    sizewise: str | None
    code: Code | None
    packages: Mapping[str, str | None] | None
    hardware: Hardware | None
    python: str | None
    platform: str | None
    overrides: list[str] | None
    finished_at: str | None


def collect_provenance(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return code state, package versions, hardware, overrides and time (UTC, ISO 8601)."""
    return {
        "sizewise": sizewise.__version__,
        "code": code_state(Path(__file__).parent),
        "packages": package_versions(),
        "hardware": hardware(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "overrides": list(overrides),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def package_versions() -> dict[str, str]:
    return dict(_package_versions())


@cache
def _package_versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def code_state(folder: Path) -> dict[str, Any]:
    """Return the commit of the checkout that holds ``folder`` and whether it was changed."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changed)}


def hardware() -> dict[str, Any]:
    """Return processor, memory (bytes) and, where there are any, CUDA devices."""
    import torch

    devices = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            devices.append({"name": properties.name, "bytes": properties.total_memory})
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "devices": devices,
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
