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


def resolve_device(accelerator: str) -> torch.device:
    """Turn ``trainer.accelerator`` into a device; ``auto``: a GPU if there is one, else the CPU.

    Raises:
        ModelError: the device that was asked for is not there.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if accelerator == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    kinds = ("cuda", "mps") if accelerator == "gpu" else (accelerator,)
    for kind in kinds:
        if available.get(kind):
            return torch.device(kind)
    raise ModelError(
        f"trainer.accelerator={accelerator} but there is no such device here. "
        "Choose trainer.accelerator=auto or cpu."
    )
