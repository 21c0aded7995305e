"""The base of a job: its storage, its memory, kept between jobs; and adapters from elsewhere."""

from __future__ import annotations

import gc
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sizewise.config import ModelConfig, QuantizationConfig, RunConfig
from sizewise.devices import free_memory
from sizewise.errors import ConfigError, ModelError
from sizewise.files import file_hash, read_json
from sizewise.models.adapter.attach import (
    CONFIG,
    adapter_folder,
    cast_adapter,
    fitting_adapter,
    load_adapter,
)
from sizewise.models.adapter.full import is_full
from sizewise.models.adapter.wrapping import is_adapted
from sizewise.models.architecture import meta_model, model_config
from sizewise.models.base import load_base
from sizewise.models.dtypes import weights_dtype
from sizewise.models.plan.planner import MemoryPlan, Workload
from sizewise.models.sources import HUB_ID, find_source, weight_files

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


loaded_bases: dict[str, PreTrainedModel] = {}


def storage_of(cfg: RunConfig) -> tuple[ModelConfig, QuantizationConfig]:
    """Return how the base of a job is stored, from the first score to the last.

    ``trainer.precision=bf16-true`` trains on bf16 weights, so the base is loaded as such: cast
    later, the base and its tuned self would be scored in different precisions.
    """
    dtype, quantization = weights_dtype(cfg.trainer), cfg.quantization
    if dtype is None:
        return cfg.model, quantization
    if quantization.method != "none" and quantization.compute_dtype == "auto":
        quantization = replace(quantization, compute_dtype=dtype)
    return replace(cfg.model, dtype=dtype), quantization


def take_base(
    model: ModelConfig, quantization: QuantizationConfig, device: torch.device
) -> PreTrainedModel:
    """Return the frozen base: the one kept from the last job if it is the same, else a fresh one.

    The caller owns it until ``give_back``; a job that fails simply does not give it back.
    """
    key = _key(model, quantization, device)
    found = loaded_bases.pop(key, None)
    if found is not None:
        return found
    loaded_bases.clear()
    gc.unfreeze()  # workers freeze what outlives a job, the base among it
    free_memory()
    return load_base(model, quantization, device)


def give_back(
    model: PreTrainedModel | PeftModel,
    config: ModelConfig,
    quantization: QuantizationConfig,
    device: torch.device,
) -> None:
    """Keep the base of ``model`` for the next job, without its adapter.

    A base whose own weights were trained, or that recomputes activations, is let go.
    """
    base = model.unload() if is_adapted(model) else model
    if any(p.requires_grad for p in base.parameters()) or is_full(base) or _recomputes(base):
        return
    loaded_bases[_key(config, quantization, device)] = base.eval()


def _recomputes(base: PreTrainedModel) -> bool:
    return bool(getattr(base, "is_gradient_checkpointing", False))


def _key(model: ModelConfig, quantization: QuantizationConfig, device: torch.device) -> str:
    return json.dumps([asdict(model), asdict(quantization), str(device)], default=str)


ANSWER_SHARE = 16
GB = 1_000_000_000


def plan_job(cfg: RunConfig, device_type: str = "cuda", advise: bool = True) -> MemoryPlan:
    """Plan a job at the longest rows that ``dataset.max_length`` admits.

    ``advise``: also look for changes that would make it fit where it does not.

    Raises:
        ModelError: the architecture is not known here and its config cannot be read.
    """
    from sizewise.models.plan.planner import plan_memory

    length, new = cfg.dataset.max_length, cfg.generation.max_new_tokens
    answer = max(1, min(new, length // ANSWER_SHARE))
    work = Workload(
        batch_size=cfg.trainer.batch_size,
        prompt_tokens=length - answer,
        answer_tokens=answer,
        new_tokens=new,
        eval_batch_size=cfg.evaluation.batch_size or cfg.trainer.batch_size,
        gradient_checkpointing=cfg.trainer.gradient_checkpointing,
        own_eval_batch=cfg.evaluation.batch_size is not None,
    )
    storage = storage_of(cfg)
    return plan_memory(*storage, cfg.lora, cfg.optimizer, work, device_type, advise)


def peak_bytes(cfg: RunConfig) -> int:
    """Return the larger of the training and generation peaks in bytes."""
    plan = plan_job(cfg, advise=False)
    trained = plan.training_peak if cfg.lora.trains else 0
    return max(trained, plan.generation_peak)


def memory_key(cfg: RunConfig) -> str:
    """Name what the plan of a job depends on, so that like jobs of a sweep are planned once."""
    parts = (
        asdict(cfg.model),
        asdict(cfg.quantization),
        {**asdict(cfg.lora), "dropout": cfg.lora.dropout > 0, "alpha": None},
        (cfg.optimizer.target, bool(cfg.optimizer.kwargs.get("momentum"))),
        cfg.trainer.precision,
        (cfg.trainer.batch_size, cfg.trainer.gradient_checkpointing, cfg.evaluation.batch_size),
        (cfg.dataset.max_length, cfg.generation.max_new_tokens),
    )
    return json.dumps(parts, default=str)


def check_adapter(cfg: RunConfig) -> tuple[str, ...]:
    """Refuse an adapter that is not evaluated, or that belongs to another base.

    The base is only outlined. Returns what a reader of the scores has to know.

    Raises:
        ConfigError: the job trains.
        ModelError: the adapter names another base, does not fit it, or is not there.
    """
    if cfg.adapter is None:
        return ()
    if cfg.stage != "evaluate":
        raise ConfigError(
            f"adapter={cfg.adapter!r} is only evaluated, and stage={cfg.stage} would leave it out. "
            "Set stage=evaluate (evaluate.py does), or leave adapter out."
        )
    if cfg.model.init != "pretrained":
        return ()
    path = adapter_folder(cfg.adapter) / CONFIG
    if not path.is_file():  # a fully trained model brings all weights
        return ()
    settings = read_json(path)
    if settings is None:
        raise ModelError(f"{path} cannot be read: it is no JSON record. Copy the adapter again.")
    recorded = settings.get("base_model_name_or_path")
    warning = compare_bases(recorded, cfg.model, cfg.adapter) if recorded else None
    outline = meta_model(model_config(cfg.model))
    outline.name_or_path = str(recorded)  # PEFT warns of another one
    fitting_adapter(outline, path.parent)
    return (warning,) if warning else ()


def compare_bases(recorded: str, model: ModelConfig, adapter: str) -> str | None:
    """Compare the base that an adapter names with the one that it is asked for on.

    Two hub ids are compared by name, two folders by their weights. A folder that is not here may
    have been moved, or be a copy of a hub's: that is said, unless it has the same name.

    Raises:
        ModelError: they are two different bases.
    """
    used = find_source(model.path, model.revision)
    if recorded.casefold() in (used.path.casefold(), model.path.casefold()):
        return None
    folder = Path(recorded).expanduser()
    both = folder.is_dir() and used.folder is not None
    if used.folder is not None and folder.is_dir():
        other = _weights(folder) != _weights(used.folder)
    else:
        other = bool(used.folder is None and HUB_ID.match(recorded))
    if other:
        raise ModelError(
            f"adapter={adapter!r} was trained on {recorded}, and model.path={model.path!r} is "
            "another base. Choose its own; if the two are one and the same, correct "
            f"base_model_name_or_path in its {CONFIG}."
        )
    if both or folder.name == Path(used.path).name:
        return None
    return (
        f"The adapter {adapter} names the base {recorded}; whether that is {model.path} could not "
        "be checked."
    )


def load_evaluated(base: PreTrainedModel, cfg: RunConfig) -> PreTrainedModel | PeftModel:
    """Load ``cfg.adapter`` onto ``base``, in the precision that the job asks for."""
    model = load_adapter(base, str(cfg.adapter))
    cast_adapter(model, cfg.trainer)
    return model


def _weights(folder: Path) -> list[str]:
    return [file_hash(file, sampled=True) for file in weight_files(folder)]
