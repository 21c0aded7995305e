"""Which floating-point type a device computes in."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from sizewise.config.training import TrainerConfig
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
        return torch.bfloat16 if computes_in_bf16(device) else torch.float32
    if name not in DTYPES:
        raise ModelError(f"{key}={name!r} is not known. Choose one of: auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name that ``resolve_dtype`` takes."""
    return str(dtype).removeprefix("torch.")


def resolve_precision(trainer: TrainerConfig, device: torch.device) -> str:
    """Turn ``trainer.precision`` into Lightning's name.

    ``auto``: bf16 arithmetic over fp32 adapters on GPUs that compute in it (bf16 weights alone
    would lose most updates of a small learning rate), fp16 with loss scaling on older GPUs, fp32
    elsewhere.
    """
    return named_precision(trainer.precision, device.type, lambda: computes_in_bf16(device))


def named_precision(precision: str, device_type: str, in_bf16: Callable[[], bool]) -> str:
    """Do the same for a kind of device, of which ``in_bf16`` says whether it computes in bf16."""
    if precision != "auto":
        return precision
    if device_type != "cuda":
        return "32-true"
    return "bf16-mixed" if in_bf16() else "16-mixed"


def lightning_precision(precision: str) -> str:
    """Return what Lightning is told of a resolved precision.

    With ``bf16-true`` the weights are bf16 before a Trainer sees them (``cast``). Lightning's own
    would cast the frozen base too, rotary frequencies included, for whoever uses it next.
    """
    return "32-true" if precision == "bf16-true" else precision


def weights_dtype(trainer: TrainerConfig) -> str | None:
    """Return the dtype that ``trainer.precision`` gives all weights; None: the model's own."""
    return "bfloat16" if trainer.precision == "bf16-true" else None


def cast(parameters: Iterable[nn.Parameter], trainer: TrainerConfig) -> None:
    """Put weights into the dtype that ``trainer.precision`` gives them, in place."""
    name = weights_dtype(trainer)
    if name is not None:
        for parameter in parameters:
            parameter.data = parameter.data.to(DTYPES[name])


def computes_in_bf16(device: torch.device) -> bool:
    """Whether ``device`` is a GPU with bf16 arithmetic of its own."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def planned_gpu_computes_in_bf16() -> bool:
    """Whether a GPU that is planned for does: the one that is here, or else a recent one."""
    return not torch.cuda.is_available() or computes_in_bf16(torch.device("cuda"))
