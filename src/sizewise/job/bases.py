"""The base of a job: its storage, its memory, kept between jobs; and adapters from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sizewise.config import ModelConfig, QuantizationConfig, RunConfig
from sizewise.devices import free_memory
from sizewise.errors import ConfigError, ModelError
from sizewise.evaluation.score import EvaluationResult
from sizewise.files import file_hash, read_json
from sizewise.models.adapter.attach import (
    adapter_folder,
    cast_adapter,
    fitting_adapter,
    lean_parts,
    load_adapter,
)
from sizewise.models.adapter.full import is_full
from sizewise.models.adapter.packed import view_of
from sizewise.models.adapter.wrapping import is_adapted, lora_settings
from sizewise.models.architecture import meta_model, model_config, name_classes
from sizewise.models.base import load_base
from sizewise.models.dtypes import dtype_name, weights_dtype
from sizewise.models.plan.planner import MemoryPlan, Workload
from sizewise.models.size import model_sizes
from sizewise.models.sources import HUB_ID, find_source, weight_files
from sizewise.record.directories import ADAPTER_CONFIG
from sizewise.record.fit import FitResult
from sizewise.record.outcome import CostFacts, ModelFacts
from sizewise.training.seat import current_seat

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

    The caller owns it until ``give_back``; a job that fails simply does not give it back. A job of
    a pack gets a view of it, and it stays where the others find it.
    """
    key, shares = _key(model, quantization, device), current_seat() is not None
    found = loaded_bases.get(key) if shares else loaded_bases.pop(key, None)
    if found is not None:
        return view_of(found) if shares else found
    let_go(*loaded_bases.values())
    loaded_bases.clear()
    base = load_base(model, quantization, device)
    if not shares:
        return base
    loaded_bases[key] = base
    return view_of(base)


def give_back(
    model: PreTrainedModel | PeftModel,
    config: ModelConfig,
    quantization: QuantizationConfig,
    device: torch.device,
) -> None:
    """Keep the base of ``model`` for the next job, without its adapter.

    A base whose own weights were trained, or that recomputes activations, is let go; that of a job
    of a pack is kept already.
    """
    if current_seat() is not None:
        return
    base = model.unload() if is_adapted(model) else model
    if any(p.requires_grad for p in base.parameters()) or is_full(base) or _recomputes(base):
        return
    lean_parts(base, lean=False)
    loaded_bases[_key(config, quantization, device)] = base.eval()


def let_go(*models: PreTrainedModel | PeftModel) -> None:
    """Free the memory of models which somebody still holds, and of what nobody does any more.

    They are of no use afterwards. A base that a worker has frozen is freed in no other way.
    """
    for model in models:
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.new_empty(0)
        for module in [*model.modules()]:
            vars(module).clear()  # int8 has its weights beside the parameters
    free_memory()


def _recomputes(base: PreTrainedModel) -> bool:
    return bool(getattr(base, "is_gradient_checkpointing", False))


def _key(model: ModelConfig, quantization: QuantizationConfig, device: torch.device) -> str:
    return json.dumps([asdict(model), asdict(quantization), str(device)], default=str)


ANSWER_SHARE = 16


def plan_job(cfg: RunConfig, device_type: str = "cuda", advise: bool = True) -> MemoryPlan:
    """Plan a job at the longest rows that ``dataset.max_length`` admits.

    ``advise``: also look for changes that would make it fit where it does not.

    Raises:
        ModelError: the architecture is not known here and its config cannot be read, or the model
            is an encoder.
    """
    if cfg.model.family == "encoder":
        raise ModelError(
            f"{cfg.model.name} is an encoder, whose memory is not planned: fully trained it takes "
            "some 16 bytes per parameter for weights, gradients and Adam's states, and activations."
        )
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
        training_cards=_cards(cfg)[0],
        answering_cards=_cards(cfg)[1],
        precision=cfg.trainer.precision,
    )
    storage = storage_of(cfg)
    return plan_memory(*storage, cfg.lora, cfg.optimizer, work, device_type, advise)


def _cards(cfg: RunConfig) -> tuple[int, int]:
    """Return over how many cards a base lies in training, and to answer."""
    trainer = cfg.trainer
    training = trainer.devices * trainer.num_nodes if trainer.shards else 1
    return training, 1 if cfg.model.device_map is None else trainer.devices


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
        _cards(cfg),
    )
    return json.dumps(parts, default=str)


def check_adapter(cfg: RunConfig, classes: Sequence[str] = ()) -> tuple[str, ...]:
    """Refuse an adapter that is not evaluated, or that belongs to another base.

    The base is only outlined. Returns what a reader of the scores has to know. ``classes``: the
    answers of an encoder's head.

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
    path = adapter_folder(cfg.adapter) / ADAPTER_CONFIG
    if not path.is_file():  # a fully trained model brings all weights
        return ()
    settings = read_json(path)
    if settings is None:
        raise ModelError(f"{path} cannot be read: it is no JSON record. Copy the adapter again.")
    recorded = settings.get("base_model_name_or_path")
    warning = compare_bases(recorded, cfg.model, cfg.adapter) if recorded else None
    config = model_config(cfg.model)
    if classes:
        name_classes(config, classes)
    outline = meta_model(config)
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
    if recorded.casefold() in (used.place.casefold(), model.path.casefold()):
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
            f"base_model_name_or_path in its {ADAPTER_CONFIG}."
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


def model_facts(
    cfg: RunConfig,
    model: PreTrainedModel | PeftModel,
    chat_template: str,
    template_kwargs: Mapping[str, Any],
) -> ModelFacts:
    """Describe a model that was scored; its adapter as the weights have it.

    Args:
        cfg: the job.
        model: with its adapter, where it has one.
        chat_template: fingerprint of how prompts were written.
        template_kwargs: what reached the template.
    """
    sizes, lora = model_sizes(model), lora_settings(model)
    return ModelFacts(
        name=cfg.model.name,
        path=cfg.model.path,
        revision=getattr(model.config, "_commit_hash", None) or cfg.model.revision,
        family=cfg.model.family,
        model_type=str(model.config.model_type),
        params_total=sizes.total,
        params_trainable=sizes.trainable,
        params_base=sizes.base,
        base_bytes=_bytes_on_disk(cfg) or sizes.memory_bytes,
        memory_bytes=sizes.memory_bytes,
        adapter_bytes=sizes.adapter_bytes,
        dtype=dtype_name(model.dtype),
        quantization=cfg.quantization.method,
        lora_method=lora.method,
        lora_r=lora.r,
        lora_alpha=lora.alpha,
        lora_scale=lora.scale,
        chat_template=chat_template,
        template_kwargs=dict(template_kwargs),
    )


def _bytes_on_disk(cfg: RunConfig) -> int:
    """Return the bytes of the files that a base is loaded from; 0 where there are none."""
    if cfg.model.init != "pretrained":
        return 0
    source = find_source(cfg.model.path, cfg.model.revision)
    return sum(file.stat().st_size for file in source.weight_files())


def evaluation_cost(evaluations: Sequence[EvaluationResult], joules: float | None) -> CostFacts:
    """Sum up what answering cost; ``joules`` is the energy of all of it, where it was measured."""
    peaks = [e.peak_bytes for e in evaluations if e.peak_bytes is not None]
    known = [e.seconds for e in evaluations if e.seconds is not None]
    whole = bool(known) and len(known) == len(evaluations)
    return CostFacts(
        eval_seconds=sum(known) if whole else None,
        eval_peak_bytes=max(peaks, default=None),
        energy_joules=joules,
        answered_together=max((e.jobs for e in evaluations if e.jobs > 1), default=None),
    )


def with_fit(cost: CostFacts, fitted: FitResult | None) -> CostFacts:
    """Add what the fit cost, where there was one."""
    if fitted is None:
        return cost
    return replace(
        cost,
        train_seconds=fitted.seconds,
        train_tokens=fitted.tokens,
        train_answer_tokens=fitted.answer_tokens,
        train_steps=fitted.steps,
        train_peak_bytes=fitted.peak_bytes,
        batch_size=fitted.batch_size,
        accumulate=fitted.accumulate,
        out_of_memory=list(fitted.out_of_memory),
        packed=fitted.packed if fitted.packed > 1 else None,
    )
