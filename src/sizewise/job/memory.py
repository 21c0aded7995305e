"""The memory that a configured job will need, before anything is loaded."""

from __future__ import annotations

import json
from dataclasses import asdict

from sizewise.config import RunConfig
from sizewise.models.plan.planner import MemoryPlan, Workload

ANSWER_SHARE = 16
GB = 1_000_000_000


def plan_job(cfg: RunConfig, device_type: str = "cuda", advise: bool = True) -> MemoryPlan:
    """Plan a job at the longest rows that ``dataset.max_length`` admits.

    ``advise``: also look for changes that would make it fit where it does not.

    Raises:
        ModelError: the architecture is not known here and its config cannot be read.
    """
    from sizewise.job.bases import storage_of
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
        (cfg.lora.method, cfg.lora.r, cfg.lora.target, cfg.lora.dropout > 0, cfg.lora.fast),
        (cfg.optimizer.target, bool(cfg.optimizer.kwargs.get("momentum"))),
        cfg.trainer.precision,
        (cfg.trainer.batch_size, cfg.trainer.gradient_checkpointing, cfg.evaluation.batch_size),
        (cfg.dataset.max_length, cfg.generation.max_new_tokens),
    )
    return json.dumps(parts, default=str)
