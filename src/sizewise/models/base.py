"""Loading of the frozen base."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from sizewise.config.model import ModelConfig, QuantizationConfig
from sizewise.errors import ModelError
from sizewise.models.configs import load_config
from sizewise.models.dtypes import resolve_dtype
from sizewise.models.quantization import bnb_config, compute_dtype, switch_off_cpu_repacking
from sizewise.models.quiet import quiet_libraries
from sizewise.models.sources import Source, find_source
from sizewise.models.tiny import random_checkpoint

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

log = logging.getLogger(__name__)
CPU = torch.device("cpu")


def load_base(
    model: ModelConfig,
    quantization: QuantizationConfig | None = None,
    device: torch.device = CPU,
) -> PreTrainedModel:
    """Load the base: frozen, in eval mode, on ``device``, with no generation defaults of its own.

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
        base = _from_pretrained(source, model, quantization, device)
    else:
        with random_checkpoint(model) as folder:
            base = _from_pretrained(Source(str(folder)), model, quantization, device)
    return _freeze(base)


def _from_pretrained(
    source: Source, model: ModelConfig, quantization: QuantizationConfig, device: torch.device
) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = load_config(source, model)
    bits = bnb_config(quantization, device, config)
    dtype = compute_dtype(quantization, device) if bits else resolve_dtype(model.dtype, device)
    auto: Any = AutoModelForSeq2SeqLM if model.family == "seq2seq" else AutoModelForCausalLM
    options = {"quantization_config": bits} if bits else {}
    try:
        base, report = auto.from_pretrained(
            source.path,
            config=config,
            revision=source.revision,
            local_files_only=source.local_only,
            trust_remote_code=model.trust_remote_code,
            use_safetensors=True,
            dtype=dtype,
            attn_implementation=_attention(auto, config, model.attn_implementation),
            device_map={"": str(device)},
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise ModelError(f"{source.path!r} could not be loaded: {error}") from error
    _check_report(source.path, report)
    loaded: PreTrainedModel = base
    return loaded


def _attention(auto: Any, config: PretrainedConfig, wanted: str) -> str:
    """Fall back from SDPA to eager attention for a class that has no SDPA (Gemma 2's caps)."""
    kind = auto._model_mapping.get(type(config), None)
    if wanted == "sdpa" and kind is not None and not getattr(kind, "_supports_sdpa", True):
        log.info("%s has no SDPA attention: eager attention is used.", config.model_type)
        return "eager"
    return wanted


def _check_report(path: str, report: dict[str, Any]) -> None:
    """Raise if a weight was made up, left over, or of another shape."""
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        names = sorted(str(name) for name in report.get(key) or ())
        if names:
            shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
            raise ModelError(
                f"{path!r}: {len(names)} {key.replace('_', ' ')} while loading ({shown}). "
                "The weights do not belong to the architecture that config.json names."
            )


def _freeze(base: PreTrainedModel) -> PreTrainedModel:
    from transformers import GenerationConfig

    switch_off_cpu_repacking(base)
    base.requires_grad_(False)
    base.eval()
    tokens = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    kept = {name: getattr(base.generation_config, name, None) for name in tokens}
    base.generation_config = GenerationConfig(**kept)
    return base
