"""What `job.preflight` asks of a model: base, storage, adapter and tokenizer, before weights."""

from __future__ import annotations

from copy import deepcopy
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from sizewise.config.model import LoraConfig, ModelConfig, QuantizationConfig
from sizewise.config.training import TrainerConfig
from sizewise.errors import ModelError
from sizewise.models.adapter.attach import whole_modules
from sizewise.models.adapter.targets import check_ranks, choose_targets, matching
from sizewise.models.architecture import check_family, check_vocabulary, meta_model, model_config
from sizewise.models.base import compute_dtype
from sizewise.models.dtypes import computes_in_bf16, resolve_dtype, resolve_precision
from sizewise.models.encoder import around_head
from sizewise.models.plan.weights import quantizable
from sizewise.models.sources import check_place
from sizewise.runtime import quiet_libraries, resolve_device

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

T5_FAMILY = ("t5", "mt5", "umt5", "longt5", "switch_transformers")
SHARDED = ("fsdp", "deepspeed", "model_parallel")


def check_model(
    model: ModelConfig,
    quantization: QuantizationConfig,
    lora: LoraConfig,
    trainer: TrainerConfig,
) -> None:
    """Refuse what cannot work: place, dtype, quantisation, device, strategy, vocabulary, adapter.

    Nothing is downloaded but config and tokenizer of a hub id that is not cached.

    Raises:
        ModelError: the message says which keys contradict what, and what to choose.
    """
    device = resolve_device(trainer)
    check_dtypes(model, quantization, device)
    check_quantization(quantization, lora, trainer, device)
    check_place(model)
    config = model_config(model)
    check_family(config, model)
    check_vocabulary(config, model)
    check_attention(config, model)
    if lora.trains:
        check_precision(config, model, quantization, resolve_precision(trainer, device))
    if lora.is_adapter:
        check_adapter(meta_model(config), model, quantization, lora)


def check_adapter(
    base: PreTrainedModel, model: ModelConfig, quantization: QuantizationConfig, lora: LoraConfig
) -> None:
    """Raise if targets, ranks or ``modules_to_save`` do not suit ``base`` (on the meta device)."""
    lora, model = around_head(base, lora, model)
    targets = choose_targets(base, lora, model.lora_targets)
    check_ranks(base, lora, targets)
    whole = whole_modules(base, lora.modules_to_save)
    packed = matching(quantizable(base), whole) if quantization.method != "none" else None
    if packed:
        raise ModelError(
            f"lora.modules_to_save={list(whole)} with quantization={quantization.method}: "
            f"{min(packed)} is quantised, so it cannot be trained whole. Drop one of them."
        )


def check_attention(config: PretrainedConfig, model: ModelConfig) -> None:
    """Raise if there is no such attention here. A kernel of the hub is fetched with the weights."""
    wanted = model.attn_implementation
    if wanted in ("sdpa", "eager") or "/" in wanted:
        return
    try:
        meta_model(deepcopy(config), attn_implementation=wanted)
    except (ValueError, ImportError) as error:
        raise ModelError(
            f"model.attn_implementation={wanted!r} cannot be used: {' '.join(str(error).split())} "
            "Choose sdpa or eager."
        ) from error


def check_dtypes(
    model: ModelConfig, quantization: QuantizationConfig, device: torch.device
) -> None:
    """Raise if a dtype is unknown or the GPU does not compute in it."""
    chosen = {
        "model.dtype": resolve_dtype(model.dtype, device),
        "quantization.compute_dtype": compute_dtype(quantization, device),
    }
    for key, dtype in chosen.items():
        if device.type == "cuda" and dtype == torch.bfloat16 and not computes_in_bf16(device):
            raise ModelError(f"{key}=bfloat16: this GPU has no bf16. Choose float16 or float32.")


def check_quantization(
    quantization: QuantizationConfig,
    lora: LoraConfig,
    trainer: TrainerConfig,
    device: torch.device,
) -> None:
    """Raise if bitsandbytes, the device, the strategy or the method rules quantisation out."""
    if quantization.method == "none":
        return
    key = f"quantization={quantization.method}"
    if find_spec("bitsandbytes") is None:
        raise ModelError(f"{key} needs bitsandbytes: pip install bitsandbytes.")
    if lora.method == "full":
        raise ModelError(f"{key} with lora=full: quantised weights cannot be trained. Drop one.")
    divides = quantization.method == "nf4" and trainer.shards
    if any(name in trainer.strategy for name in SHARDED) and not divides:
        raise ModelError(
            f"{key} with trainer.strategy={trainer.strategy}: of quantised weights only NF4's are "
            "divided among processes, by trainer.strategy=fsdp. Choose quantization=nf4 and fsdp, "
            "trainer.strategy=auto or ddp, or quantization=none."
        )
    supported = supported_devices()
    if device.type not in supported:
        raise ModelError(
            f"{key} cannot run on {device.type}: bitsandbytes supports {', '.join(supported)} "
            "here. Choose quantization=none, or another trainer.accelerator."
        )


def supported_devices() -> tuple[str, ...]:
    quiet_libraries()
    import bitsandbytes

    return tuple(sorted({"cpu", "cuda"} & set(bitsandbytes.supported_torch_devices)))


def check_precision(
    config: PretrainedConfig,
    model: ModelConfig,
    quantization: QuantizationConfig,
    precision: str,
) -> None:
    """Raise if a T5 would be trained in fp16, where its activations overflow to NaN.

    ``precision`` is Lightning's name of it: ``auto`` is fp16 on a GPU without bf16.
    """
    if config.model_type not in T5_FAMILY:
        return
    quantized = quantization.method != "none"
    half = {
        f"trainer.precision={precision}": precision.startswith("16"),
        "model.dtype=float16": model.dtype == "float16",
        "quantization.compute_dtype=float16": quantized and quantization.compute_dtype == "float16",
    }
    for key, used in half.items():
        if used:
            raise ModelError(f"{key}: the T5 family overflows to NaN in fp16. Choose bf16 or fp32.")
