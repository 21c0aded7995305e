"""LoRA adapters: attached, checked, switched off, saved and loaded strictly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from sizewise.config.model import LoraConfig, ModelConfig
from sizewise.config.training import TrainerConfig
from sizewise.errors import ModelError
from sizewise.models import dtypes
from sizewise.models.adapter import full
from sizewise.models.adapter.fast_lora import speed_up
from sizewise.models.adapter.targets import (
    adaptable_linears,
    exclude_pattern,
    matching,
    resolve_targets,
)
from sizewise.models.adapter.wrapping import adapted_modules, base_of, base_only, is_adapted
from sizewise.models.size import is_adapter_weight
from sizewise.models.sources import find_source
from sizewise.runtime import quiet_libraries, seeded

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


__all__ = [
    "adapted_modules", "attach_adapter", "base_of", "base_only", "enable_checkpointing",
    "is_adapted", "load_adapter", "save_adapter",
]  # fmt: skip
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def attach_adapter(
    base: PreTrainedModel, lora: LoraConfig, model: ModelConfig, seed: int
) -> PeftModel | PreTrainedModel:
    """Make ``base`` trainable as ``lora`` says.

    ``none`` returns the base as it is and ``full`` frees its language model. What is trained is
    fp32 (a fully trained base in ``model.dtype`` where that is given): bf16 would lose most
    updates of a small learning rate. Adapters are drawn from ``lora.init_seed`` (else ``seed``):
    the same seed gives the same ``lora_A``. The model is left in training mode, so that dropout
    is active.

    Raises:
        ModelError: a target matches nothing, or the base cannot be trained this way.
    """
    quiet_libraries()
    if lora.method == "none":
        return base
    if lora.method == "full":
        trained = full.make_trainable(base)
        return trained.float() if model.dtype == "auto" else trained
    from peft import get_peft_model

    targets = resolve_targets(base, lora.target, model.lora_targets)
    exclude = exclude_pattern(base, model.lora_targets.exclude)
    expected = matching(adaptable_linears(base, model.lora_targets.exclude), targets)
    config = peft_config(lora, targets, exclude, model.family)
    with seeded(seed if lora.init_seed is None else lora.init_seed):
        adapted = get_peft_model(base, config)
    wrapped = set(adapted_modules(adapted))
    if wrapped != expected:
        odd = ", ".join(sorted(wrapped ^ expected)[:5])
        raise ModelError(f"lora.target={lora.target!r} wrapped other modules than asked: {odd}.")
    if lora.fast:
        speed_up(adapted)
    adapted.train()
    return cast("PeftModel", adapted)


def peft_config(lora: LoraConfig, targets: list[str], exclude: str | None, family: str) -> Any:
    """Build PEFT's own config; ``alpha`` is the one in effect (it follows r by default)."""
    from peft import LoraConfig as PeftLoraConfig
    from peft import TaskType

    return PeftLoraConfig(
        r=lora.r,
        lora_alpha=lora.effective_alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        exclude_modules=exclude,
        use_dora=lora.method == "dora",
        use_rslora=lora.method == "rslora",
        bias="none",
        task_type=TaskType.SEQ_2_SEQ_LM if family == "seq2seq" else TaskType.CAUSAL_LM,
    )


def enable_checkpointing(model: nn.Module) -> None:
    """Recompute activations in the backward pass, with inputs that carry gradients.

    Without input gradients the recomputed blocks of a frozen base are cut off from the loss and
    the adapters inside them never learn.
    """
    base = base_of(model)
    base.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    base.enable_input_require_grads()


def save_adapter(model: nn.Module, folder: Path | str) -> Path:
    """Write the trained weights (the adapter, or all of a fully trained model) as safetensors.

    Raises:
        ModelError: there is nothing trained to save.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if full.is_full(model):
        return full.save(model, folder)
    if not is_adapted(model):
        raise ModelError("This model has no adapter to save (lora=none trains nothing).")
    # "auto" would ask the hub whether the embeddings were resized; they never are.
    wrapper: Any = model
    wrapper.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def load_adapter(
    base: PreTrainedModel, source: Path | str, trainable: bool = False
) -> PeftModel | PreTrainedModel:
    """Load what ``save_adapter`` wrote (or any PEFT adapter, also by hub id) onto ``base``.

    Raises:
        ModelError: a weight is missing, left over or of another shape, or nothing is there.
    """
    quiet_libraries()
    folder = adapter_folder(source)
    if full.is_full_checkpoint(folder):
        return full.load(base, folder, trainable)
    from peft import get_peft_model, set_peft_model_state_dict

    config, weights = read_adapter(folder)
    config.inference_mode = not trainable
    with seeded(0):
        model = get_peft_model(base, config)
    _check_weights(model, weights, folder)
    set_peft_model_state_dict(model, weights)
    speed_up(model)
    model.train(trainable)
    return cast("PeftModel", model)


def read_adapter(folder: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """Read PEFT's configuration and the weights of an adapter.

    Raises:
        ModelError: one of the two files is damaged.
    """
    from peft import PeftConfig
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return PeftConfig.from_pretrained(str(folder)), load_file(str(folder / WEIGHTS))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
        raise ModelError(
            f"The adapter in {str(folder)!r} cannot be read ({type(error).__name__}: {error}). "
            "Copy it again, or train it again."
        ) from error


def cast_adapter(model: nn.Module, trainer: TrainerConfig, name: str = "") -> None:
    """Put adapter weights into the dtype in which ``trainer`` trained and scored them.

    Args:
        model: with one or more adapters; a fully trained model has none and stays as it is.
        trainer: what trained them.
        name: of the only adapter that is meant; empty: all of them.
    """
    within = f".{name}." if name else ""
    named = model.named_parameters()
    dtypes.cast((p for n, p in named if is_adapter_weight(n) and within in n), trainer)


def adapter_folder(source: Path | str) -> Path:
    """Return the local folder of an adapter, fetching its two files if it is a hub id."""
    folder = Path(source).expanduser()
    if folder.is_dir() and full.is_full_checkpoint(folder):
        return folder
    found = find_source(str(source), marker=CONFIG, weights=False, key="adapter")
    if found.folder is None:
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(str(source), allow_patterns=[CONFIG, WEIGHTS]))
    if not (folder / WEIGHTS).is_file():
        raise ModelError(
            f"adapter={str(source)!r} holds no {WEIGHTS} (pickled weights are refused)."
        )
    return folder


def _check_weights(model: nn.Module, weights: dict[str, torch.Tensor], folder: Path) -> None:
    from peft import get_peft_model_state_dict

    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    missing, extra = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    shapes = {k for k in expected.keys() & weights.keys() if expected[k].shape != weights[k].shape}
    for what, names in (("missing", missing), ("unexpected", extra), ("of another shape", shapes)):
        if names:
            raise ModelError(
                f"The adapter in {str(folder)!r} does not fit this base: {len(names)} weights are "
                f"{what} (for example {min(names)}). Load it on the base it was trained on."
            )
