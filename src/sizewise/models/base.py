"""Loading of the frozen base, whole or in 4 or 8 bits (bitsandbytes)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sizewise.config.model import ModelConfig, QuantizationConfig
from sizewise.errors import ModelError, SizewiseError
from sizewise.models.architecture import auto_class, load_config, name_classes
from sizewise.models.dtypes import dtype_name, resolve_dtype
from sizewise.models.sources import Source, find_source, unusable
from sizewise.models.tiny import random_checkpoint
from sizewise.models.tokenizer import load_tokenizer
from sizewise.runtime import quiet_libraries
from sizewise.words import first_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel

log = logging.getLogger(__name__)
CPU = torch.device("cpu")


def load_base(
    model: ModelConfig,
    quantization: QuantizationConfig | None = None,
    device: torch.device = CPU,
    classes: Sequence[str] = (),
    packs: bool = False,
) -> PreTrainedModel:
    """Load the base: frozen, in eval mode, on ``device``, with no generation defaults of its own.

    With ``model.device_map`` a base on a GPU is spread over all that are visible. ``packs``: 4-bit
    weights lie in tensors of the dtype that is computed in, like the weights that stay whole, so
    that FSDP gathers them together (bitsandbytes' ``quant_storage``); the numbers are the same.

    ``classes``: the answers that the head of an encoder tells apart; it may be drawn at random.

    ``model.init``: ``pretrained`` weights, ``random`` ones of the real size, or ``tiny_random``
    (the same architecture, a few thousand weights). A multimodal base comes as its own class;
    only its language model is ever adapted.

    Raises:
        ModelError: weights are missing, left over, not safetensors, or cannot be reached.
    """
    quiet_libraries()
    quantization = quantization or QuantizationConfig()
    if model.init == "pretrained":
        source = find_source(model.path, model.revision)
        with checkpoint_of(source, model, device) as place:
            base = _from_pretrained(place, model, quantization, device, classes, packs)
        base.name_or_path = source.place
    else:
        with random_checkpoint(model) as folder:
            source = Source(str(folder))
            base = _from_pretrained(source, model, quantization, device, classes, packs)
    if model.added_tokens:
        grow_embeddings(base, len(load_tokenizer(model)))
    return _freeze(base)


def transformer_blocks(base: PreTrainedModel) -> list[nn.Module]:
    """Return the repeated blocks of layers that transformers itself never splits over devices."""
    names = {name for m in base.modules() for name in getattr(m, "_no_split_modules", None) or ()}
    return [module for module in base.modules() if type(module).__name__ in names]


@contextmanager
def checkpoint_of(source: Source, model: ModelConfig, device: torch.device) -> Iterator[Source]:
    """Give a place of safetensors: the source itself, or what is unpacked of a GGUF file meanwhile.

    A base from a GGUF file then takes the same way as any other, bitsandbytes and merging included.
    transformers unpacks its blocks to ``model.dtype``; its weights go into a fresh model, since the
    one that was read refuses to be saved.

    Raises:
        ModelError: the file is of an architecture that transformers cannot read, or incomplete.
    """
    if source.gguf is None:
        yield source
        return
    config, dtype = load_config(source, model), resolve_dtype(model.dtype, device)
    auto = auto_class(config)
    try:
        read, report = auto.from_pretrained(
            source.path, **source.options, dtype=dtype, output_loading_info=True
        )
    except Exception as error:  # a file of another form fails anywhere in the library
        raise unusable(source, f"{source.place!r} could not be read", error) from error
    _check_report(source.place, report)
    with TemporaryDirectory(prefix="sizewise-gguf-") as folder:
        fresh = auto.from_config(read.config, dtype=dtype)
        fresh.load_state_dict(read.state_dict(), assign=True)
        if hasattr(fresh.config, "quantization_config"):  # that of the file
            del fresh.config.quantization_config
        fresh.save_pretrained(folder)
        del read, fresh
        yield Source(folder)


def grow_embeddings(base: PreTrainedModel, size: int) -> None:
    """Add rows for new tokens to embedding and head: the mean of the others, always the same."""
    before = base.get_input_embeddings().num_embeddings
    if size <= before:
        return
    base.resize_token_embeddings(size, mean_resizing=False)
    modules = (base.get_input_embeddings(), base.get_output_embeddings())
    for weight in {id(m.weight): m.weight.data for m in modules if m is not None}.values():
        weight[before:] = weight[:before].mean(0)


def _from_pretrained(
    source: Source,
    model: ModelConfig,
    quantization: QuantizationConfig,
    device: torch.device,
    classes: Sequence[str],
    packs: bool,
) -> PreTrainedModel:
    config = load_config(source, model)
    if classes:
        name_classes(config, classes)
    bits = bnb_config(quantization, device, config, packs)
    dtype = compute_dtype(quantization, device) if bits else resolve_dtype(model.dtype, device)
    auto = auto_class(config)
    stored = unpacked(config, source.path, bits)
    options: dict[str, Any] = {"quantization_config": stored} if stored else {}
    if classes:  # a head over other classes, as some checkpoints have, is drawn anew
        options["ignore_mismatched_sizes"] = True
    try:
        base, report = auto.from_pretrained(
            source.path,
            config=config,
            revision=source.revision,
            local_files_only=source.local_only,
            adapter_kwargs={"local_files_only": source.local_only},
            trust_remote_code=model.trust_remote_code,
            use_safetensors=True,
            dtype=dtype,
            attn_implementation=_attention(auto, config, model.attn_implementation),
            device_map=placement(model, device),
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise unusable(source, f"{source.path!r} could not be loaded", error) from error
    _check_report(source.path, _of_body(report, base) if classes else report)
    if is_offloaded(base):
        log.warning(
            "%s does not fit on the devices: some of it lies in host memory or on disk, from where "
            "every step reads it. More GPUs, or quantization=nf4, would be much faster.", model.name
        )  # fmt: skip
    loaded: PreTrainedModel = base
    return loaded


def placement(model: ModelConfig, device: torch.device) -> Any:
    """Return where layers go: all to ``device``, or as accelerate divides them among the GPUs."""
    spreads = model.device_map is not None and device.type == "cuda"
    return model.device_map if spreads else {"": str(device)}


def is_offloaded(base: nn.Module) -> bool:
    """Whether some of a base that was spread over devices lies on none of them."""
    return hasattr(base, "hf_device_map") and any(p.is_meta for p in base.parameters())


def _attention(auto: Any, config: PretrainedConfig, wanted: str) -> str | dict[str, str]:
    """Fall back from SDPA to eager attention for a class that has no SDPA (Gemma 2's caps).

    What hears (Gemma 4) has none either, and is never used here.
    """
    kind = auto._model_mapping.get(type(config), None)
    if wanted == "sdpa" and kind is not None and not getattr(kind, "_supports_sdpa", True):
        log.info("%s has no SDPA attention: eager attention is used.", config.model_type)
        return "eager"
    hears = getattr(config, "audio_config", None) is not None
    return {"": wanted, "audio_config": "eager"} if hears else wanted


def _of_body(report: dict[str, Any], base: PreTrainedModel) -> dict[str, Any]:
    """Leave out of a loading report what is no weight of an encoder's body.

    A masked language model's head is left over, and that of the classes may be missing.
    """
    body = f"{base.base_model_prefix}."

    def inside(name: str) -> bool:
        return name.startswith(body) and not name.startswith(f"{body}pooler.")

    keys = ("missing_keys", "unexpected_keys", "mismatched_keys")
    kept = {
        key: [n for n in report.get(key) or () if inside(str(n[0] if isinstance(n, tuple) else n))]
        for key in keys
    }
    return {**report, **kept}


def _check_report(path: str, report: dict[str, Any]) -> None:
    """Raise if a weight was made up, left over, or of another shape."""
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        names = sorted(str(name) for name in report.get(key) or ())
        if names:
            shown = first_of(names, 5)
            raise ModelError(
                f"{path!r}: {len(names)} {key.replace('_', ' ')} while loading ({shown}). "
                "The weights do not belong to the architecture that config.json names."
            )


def fit_weights(
    own: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    where: str,
    advice: str,
    error: type[SizewiseError] = ModelError,
) -> None:
    """Raise ``error`` unless a file's weights are exactly the model's own, by names and shapes.

    ``where`` is what the message calls the file, ``advice`` its last sentence.
    """
    both = own.keys() & found.keys()
    shapes = {name for name in both if own[name].shape != found[name].shape}
    odd = {
        "missing": own.keys() - both, "unexpected": found.keys() - both,
        "of another shape": shapes,
    }  # fmt: skip
    for what, names in odd.items():
        if names:
            name = min(names)
            sizes = (
                f", {list(found[name].shape)} for {list(own[name].shape)}" if name in both else ""
            )
            raise error(
                f"{where} does not fit this model: {len(names)} weights are {what} (for example "
                f"{name}{sizes}). {advice}"
            )


def _freeze(base: PreTrainedModel) -> PreTrainedModel:
    from transformers import GenerationConfig

    switch_off_cpu_repacking(base)
    base.requires_grad_(False)
    base.eval()
    if getattr(base, "generation_config", None) is None:  # an encoder generates nothing
        return base
    tokens = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    kept = {name: getattr(base.generation_config, name, None) for name in tokens}
    base.generation_config = GenerationConfig(**kept)
    return base


VISION_MODULES = (
    "vision_tower", "multi_modal_projector", "embed_vision", "audio_tower", "embed_audio",
)  # fmt: skip


def bnb_config(
    quantization: QuantizationConfig,
    device: torch.device,
    config: PretrainedConfig,
    packs: bool = False,
) -> BitsAndBytesConfig | None:
    """Build the settings for ``from_pretrained``; None for an unquantised base.

    A vision tower and its projector keep their precision: they are never used here, and
    quantising them only costs time.
    """
    if quantization.method == "none":
        return None
    from transformers import BitsAndBytesConfig

    settings: dict[str, Any] = {"llm_int8_skip_modules": _skipped(config)}
    if quantization.method == "int8":
        settings |= {"load_in_8bit": True, "llm_int8_threshold": quantization.int8_threshold}
    else:
        settings |= {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": quantization.double_quant,
            "bnb_4bit_compute_dtype": compute_dtype(quantization, device),
            "bnb_4bit_quant_storage": compute_dtype(quantization, device) if packs else torch.uint8,
        }
    return BitsAndBytesConfig(**settings)


def unpacked(config: PretrainedConfig, path: str, bits: BitsAndBytesConfig | None) -> Any:
    """Return the settings of bitsandbytes, or those that unpack a base published in MXFP4.

    Packed experts (gpt-oss) can be neither adapted nor compared with other storages.

    Raises:
        ModelError: the base is published quantised, and transformers would silently keep it so.
    """
    published = getattr(config, "quantization_config", None)
    if not published:
        return bits
    method = dict(published).get("quant_method")
    if bits is not None:
        raise ModelError(
            f"{path!r} is published in {method}, and cannot be quantised again. Choose "
            "quantization=none, or a copy of it in bf16."
        )
    if method != "mxfp4":
        return None
    from transformers import Mxfp4Config

    return Mxfp4Config(dequantize=True)


def for_device(
    model: ModelConfig, quantization: QuantizationConfig, device: torch.device
) -> tuple[ModelConfig, QuantizationConfig]:
    """Return the same with the dtypes of ``device``, for a base that is loaded elsewhere first."""
    own, computing = resolve_dtype(model.dtype, device), compute_dtype(quantization, device)
    return (
        replace(model, dtype=dtype_name(own)),
        replace(quantization, compute_dtype=dtype_name(computing)),
    )


def compute_dtype(quantization: QuantizationConfig, device: torch.device) -> torch.dtype:
    """The dtype that quantised layers compute in and that the other weights are stored in."""
    return resolve_dtype(quantization.compute_dtype, device, "quantization.compute_dtype")


def _skipped(config: PretrainedConfig) -> list[str] | None:
    if getattr(config, "vision_config", None) is None:
        return None
    return ["lm_head", *(f".*{name}" for name in VISION_MODULES)]


def quantized_linears(model: nn.Module) -> dict[str, nn.Module]:
    bnb = sys.modules.get("bitsandbytes")
    if bnb is None:  # never imported, so nothing was made of its layers
        return {}
    kinds = (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def is_quantized(model: nn.Module) -> bool:
    """Whether any weight of ``model`` is stored in 4 or 8 bits."""
    return any(type(p).__name__ in ("Params4bit", "Int8Params") for p in model.parameters())


def has_int8(model: nn.Module) -> bool:
    """Whether there are int8 weights, whose products depend on which rows are read together."""
    return any(type(p).__name__ == "Int8Params" for p in model.parameters())


def switch_off_cpu_repacking(model: nn.Module) -> int:
    """Stop bitsandbytes from repacking 4-bit weights in inference on AVX512-BF16 CPUs.

    bitsandbytes 0.50.2 repacks each ``Linear4bit`` in the first forward pass in eval mode without
    input gradients and never unpacks it, after which LoRA gradients are silently wrong. Returns
    the number of layers.
    """
    layers = [m for m in quantized_linears(model).values() if type(m).__name__ == "Linear4bit"]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return len(layers)
