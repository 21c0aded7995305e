"""LoRA adapters: attached, checked, switched off, saved and loaded strictly."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from sizewise.config.model import LoraConfig, ModelConfig
from sizewise.config.training import TrainerConfig
from sizewise.errors import ModelError
from sizewise.late_imports import without_bitsandbytes
from sizewise.models import dtypes
from sizewise.models.adapter import full
from sizewise.models.adapter.fast_gate import lean_gates
from sizewise.models.adapter.fast_lora import LORA_LINEAR, speed_up
from sizewise.models.adapter.fast_norm import lean_norms
from sizewise.models.adapter.packed_lora import PACKED_LINEARS
from sizewise.models.adapter.targets import Targets, choose_targets, exclude_pattern, matching
from sizewise.models.adapter.wrapping import adapted_modules, base_of, base_only, is_adapted
from sizewise.models.base import fit_weights, is_offloaded, is_quantized
from sizewise.models.encoder import around_head
from sizewise.models.size import is_adapter_weight
from sizewise.models.sources import check_weights, find_source, unusable
from sizewise.models.tokenizer import load_tokenizer
from sizewise.record.directories import ADAPTER_CONFIG
from sizewise.runtime import quiet_libraries, seeded
from sizewise.words import first_of

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


__all__ = [
    "adapted_modules", "attach_adapter", "base_of", "base_only", "enable_checkpointing",
    "is_adapted", "load_adapter", "save_adapter",
]  # fmt: skip
log = logging.getLogger(__name__)
MUCH = 0.05
WEIGHTS = "adapter_model.safetensors"


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
    lora, model = around_head(base, lora, model)
    targets = choose_targets(base, lora, model.lora_targets)
    if base.device.type != "meta":  # a plan of the memory, or a check
        _say_left_out(lora, targets)
    with seeded(seed if lora.init_seed is None else lora.init_seed):
        adapted = _wrap(base, peft_config(base, lora, model, targets), lora.fast)
    if targets.experts:
        set_dropout(adapted, lora.dropout)
    odd = set(adapted_modules(adapted)) ^ (targets.linears | set(targets.experts))
    if odd:
        raise ModelError(
            f"lora.target={lora.target!r} wrapped other modules than asked: "
            f"{first_of(sorted(odd), 5)}."
        )
    return adapted.train()


def peft_config(
    base: PreTrainedModel, lora: LoraConfig, model: ModelConfig, targets: Targets
) -> Any:
    """Build PEFT's own config; ``alpha`` is the one in effect.

    Raises:
        ModelError: ``lora.modules_to_save`` names what is not there or cannot be trained.
    """
    from peft import LoraConfig as PeftLoraConfig
    from peft import TaskType

    whole = whole_modules(base, lora.modules_to_save)
    ratio = lora.alpha_ratio if lora.alpha is None else None
    follows = {} if ratio is None else {k: ratio * r for k, r in lora.rank_pattern.items()}
    options = {
        "target_parameters": targets.experts,
        "rank_pattern": dict(lora.rank_pattern),
        "alpha_pattern": follows | lora.alpha_pattern,
        "modules_to_save": whole,
        "trainable_token_indices": _token_rows(base, model, whole),
        "ensure_weight_tying": bool(whole) and _ties(base),
    }
    tasks = {"seq2seq": TaskType.SEQ_2_SEQ_LM, "encoder": TaskType.SEQ_CLS}
    return PeftLoraConfig(
        r=lora.r,
        lora_alpha=lora.effective_alpha,
        lora_dropout=0.0 if targets.experts else lora.dropout,
        target_modules=targets.names,
        exclude_modules=exclude_pattern(base, model.lora_targets.exclude),
        use_dora=lora.method == "dora",
        use_rslora=lora.method == "rslora",
        bias="none",
        task_type=tasks.get(model.family, TaskType.CAUSAL_LM),
        **{key: value for key, value in options.items() if value},
    )


def _ties(base: PreTrainedModel) -> bool:
    tied = bool(getattr(base.config.get_text_config(), "tie_word_embeddings", False))
    return tied and base.get_output_embeddings() is not None


def _wrap(base: PreTrainedModel, config: Any, fast: bool = True) -> PeftModel:
    """Put an adapter with fp32 weights around ``base``."""
    from peft import get_peft_model
    from peft.utils.other import ModulesToSaveWrapper

    with without_bitsandbytes():
        adapted = get_peft_model(base, config)
    for module in adapted.modules():
        if isinstance(module, ModulesToSaveWrapper):
            _train_in_fp32(module)
    if fast:
        speed_up(adapted)
    lean_parts(adapted, fast)
    return cast("PeftModel", adapted)


def lean_parts(model: nn.Module, lean: bool) -> None:
    """Give norms and gated MLPs their lean passes, or transformers' own back."""
    lean_norms(model, lean)
    lean_gates(model, lean)


def _train_in_fp32(wrapper: Any) -> None:
    """Keep the trained copy of a 16-bit module in fp32; what goes in and out keeps its dtype.

    PEFT's ``unload`` would leave the trained copy in the base: it takes the module itself again.
    """
    copy = wrapper.modules_to_save[wrapper.active_adapters[0]]
    dtype = next(wrapper.original_module.parameters()).dtype
    copy.float()
    hooks = (
        copy.register_forward_pre_hook(_as_its_weights),
        copy.register_forward_hook(lambda _, inputs, output: output.to(dtype)),
    )

    def unload(merge: bool, safe_merge: bool, adapter_names: Any) -> nn.Module:
        for hook in hooks:
            hook.remove()
        module: nn.Module = copy.to(dtype) if merge else wrapper.original_module
        return module

    wrapper.unload_and_optionally_merge_module = unload


def _as_its_weights(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    dtype = next(module.parameters()).dtype
    return tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)


def set_dropout(model: nn.Module, rate: float) -> None:
    """Give every adapted linear layer dropout; PEFT refuses it where experts are adapted too."""
    for module in model.modules():
        if hasattr(module, "lora_dropout") and not hasattr(module, "parameter_name"):
            for name in module.lora_dropout:
                module.lora_dropout[name] = nn.Dropout(rate) if rate else nn.Identity()


def _say_left_out(lora: LoraConfig, targets: Targets) -> None:
    level = logging.INFO
    if lora.target == "all_linear" and targets.left_out > MUCH and not lora.layers_to_transform:
        level = logging.WARNING
    log.log(
        level,
        "lora.target=%s leaves %.1f %% of the weights without an adapter (embeddings and output "
        "head aside): %d linear layers and %d stacks of experts have one.",
        lora.target, 100 * targets.left_out, len(targets.linears), len(targets.experts),
    )  # fmt: skip


def whole_modules(base: PreTrainedModel, names: Sequence[str]) -> list[str]:
    """Check ``lora.modules_to_save``: each name ends that of a module with weights of its own."""
    found = dict(base.named_modules())
    for name in names:
        modules = [found[key] for key in matching(found, [name])]
        if not modules or not any(True for m in modules for _ in m.parameters()):
            kinds = sorted(
                {key.rsplit(".", 1)[-1] for key, m in found.items() if len(m._parameters)}
            )
            raise ModelError(
                f"lora.modules_to_save: no module with weights is called {name!r} in "
                f"{type(base).__name__}. It has: {', '.join(kinds)}."
            )
        if any(is_quantized(module) for module in modules):
            raise ModelError(
                f"lora.modules_to_save: {name!r} is quantised, so it cannot be trained whole. "
                "Leave it out, or set quantization=none."
            )
    return list(names)


def _token_rows(
    base: PreTrainedModel, model: ModelConfig, whole: Sequence[str]
) -> dict[str, list[int]]:
    """Return the rows of ``model.added_tokens`` by embedding (and head, where it has its own)."""
    if not model.added_tokens:
        return {}
    ids = load_tokenizer(model).convert_tokens_to_ids(list(model.added_tokens))
    inside, outside = base.get_input_embeddings(), base.get_output_embeddings()
    modules = [inside] if outside is None or outside.weight is inside.weight else [inside, outside]
    names = [name for name, module in base.named_modules() if any(module is m for m in modules)]
    return {name: ids for name in names if not matching([name], whole)}


# Results that are kept: products with weights, and fused attention. Eager attention's products grow
# with the square of the length; those of experts have their bias added in place by transformers,
# so that what was kept would not be what is made again (torch raises where it sees that).
KEPT_RESULTS = frozenset(
    {LORA_LINEAR, *PACKED_LINEARS, "mm", "addmm", "gemm_4bit",
     "_scaled_dot_product_flash_attention",
     "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention",
     "_scaled_dot_product_cudnn_attention"}
)  # fmt: skip


def enable_checkpointing(model: nn.Module, selective: bool = False) -> None:
    """Recompute activations in the backward pass, with inputs that carry gradients.

    Without input gradients the recomputed blocks of a frozen base are cut off from the loss and
    the adapters inside them never learn.

    Args:
        selective: keep the results of ``KEPT_RESULTS`` (``torch.utils.checkpoint``'s selective
            activation checkpointing) and recompute the rest, which is cheap.
    """
    base = base_of(model)
    settings: dict[str, Any] = {"use_reentrant": False}
    if selective:
        settings["context_fn"] = partial(create_selective_checkpoint_contexts, _keeps)
    base.activation_checkpointing_enable(activation_checkpointing_kwargs=settings)
    base.enable_input_require_grads()


def _keeps(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    kept = operation.overloadpacket.__name__ in KEPT_RESULTS
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def save_adapter(
    model: nn.Module, folder: Path | str, weights: Mapping[str, Tensor] | None = None
) -> Path:
    """Write the trained weights (the adapter, or all of a fully trained model) as safetensors.

    ``weights``: the trained parameters of an adapted model by name, where they are not whole in
    the model itself.

    Raises:
        ModelError: there is nothing trained to save.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if full.is_full(model):
        return full.save(model, folder)
    if not is_adapted(model):
        raise ModelError("This model has no adapter to save (lora=none trains nothing).")
    # "auto" would ask the hub whether the embeddings were resized; rows that were added are saved
    # as the adapter's own.
    wrapper: Any = model
    wrapper.save_pretrained(str(folder), save_embedding_layers=False, state_dict=weights)
    return folder


def load_adapter(
    base: PreTrainedModel, source: Path | str, trainable: bool = False
) -> PeftModel | PreTrainedModel:
    """Load what ``save_adapter`` wrote (or any PEFT adapter, also by hub id) onto ``base``.

    Raises:
        ModelError: a weight is missing, left over or of another shape, nothing is there, or some of
            the base lies on no device.
    """
    quiet_libraries()
    if is_offloaded(base):  # PEFT would leave the adapter's weights out, and only warn
        raise ModelError(
            "This base does not fit on the GPUs (model.device_map left some of it in host memory "
            "or on disk), and no adapter can be put on such weights. Give the job more GPUs, or "
            "quantization=nf4."
        )
    folder = adapter_folder(source)
    if full.is_full_checkpoint(folder):
        return full.load(base, folder, trainable)
    from peft import set_peft_model_state_dict

    model, weights = fitting_adapter(base, folder, trainable)
    set_peft_model_state_dict(model, weights)
    return model.train(trainable)


def fitting_adapter(
    base: PreTrainedModel, folder: Path, trainable: bool = False
) -> tuple[PeftModel, dict[str, Tensor]]:
    """Wrap ``base`` (on the meta device for a check alone) for an adapter; return its weights too.

    Raises:
        ModelError: the adapter is damaged, or made for another model.
    """
    config, weights = read_adapter(folder)
    config.inference_mode = not trainable
    where = f"The adapter in {str(folder)!r}"
    try:
        with seeded(0):
            model = _wrap(base, config)
    except ValueError as error:  # PEFT finds no module of such names
        said = " ".join(str(error).split())
        raise ModelError(f"{where} does not fit this model: {said} {_advice(config)}") from error
    fit_weights(adapter_weights(model), weights, where, _advice(config))
    return model, weights


def adapter_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return what of ``model`` belongs to its adapter, under the names of the adapter's file."""
    from peft import get_peft_model_state_dict

    weights: dict[str, Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return weights


def _advice(config: Any) -> str:
    return (
        "Load it on the base it was trained on; if this is the one, the file was changed after "
        f"training or belongs to another {ADAPTER_CONFIG} "
        f"(this one says r={getattr(config, 'r', None)})."
    )


def read_adapter(folder: Path) -> tuple[Any, dict[str, Tensor]]:
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
    """Put adapter weights (of one ``name``, or all) into the dtype ``trainer`` trained them in.

    A fully trained model has none and stays as it is.
    """
    within = f".{name}." if name else ""
    named = model.named_parameters()
    dtypes.cast((p for n, p in named if is_adapter_weight(n) and within in n), trainer)


def adapter_folder(source: Path | str) -> Path:
    """Return the local folder of an adapter, fetching its two files if it is a hub id."""
    folder = Path(source).expanduser()
    if folder.is_dir() and full.is_full_checkpoint(folder):
        check_weights(folder / full.WEIGHTS)
        return folder
    found = find_source(str(source), marker=ADAPTER_CONFIG, weights=False, key="adapter")
    if found.folder is None:
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(str(source), allow_patterns=[ADAPTER_CONFIG, WEIGHTS]))
        except Exception as error:  # the client's own kinds, by how the connection failed
            raise unusable(found, f"adapter={str(source)!r} cannot be fetched", error) from error
    if not (folder / WEIGHTS).is_file():
        raise ModelError(
            f"adapter={str(source)!r} holds no {WEIGHTS} (pickled weights are refused)."
        )
    check_weights(folder / WEIGHTS)
    return folder
