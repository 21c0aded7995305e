"""Which floating-point type a device computes in."""

from __future__ import annotations

import torch

from sizewise.errors import ModelError

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def resolve_dtype(name: str, device: torch.device, key: str = "model.dtype") -> torch.dtype:
    """Turn ``name`` into a dtype; ``auto``: bf16 on GPUs that compute in it, else fp32.

    Raises:
        ModelError: the name is not known.
    """
    if name == "auto":
        bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if bf16 else torch.float32
    if name not in DTYPES:
        raise ModelError(f"{key}={name!r} is not known. Choose one of: auto, {', '.join(DTYPES)}.")
    return DTYPES[name]
