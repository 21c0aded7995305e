"""Classical baselines that a sweep runs by itself wherever answers come from a closed set."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from sizewise.config.model import CLASSICAL
from sizewise.config.targets import find_class
from sizewise.errors import ConfigError
from sizewise.files import key_text
from sizewise.job.submit import Job
from sizewise.metrics import CLOSED_ANSWERS
from sizewise.record.identity import trains

log = logging.getLogger(__name__)

BASELINES = ("majority", "tfidf_logreg")
AS_THEY_ARE = ("lora=none", "quantization=none", "dataset.few_shot=0")
# What a baseline has no use for; how many devices there are is left, which launchers look at.
NOT_THEIRS = (
    "model", "lora", "quantization", "optimizer", "scheduler", "callbacks", "generation", "seed",
    "trainer.batch_size", "evaluation.batch_size", "dataset.few_shot", "dataset.few_shot_style",
)  # fmt: skip
# How the question is put, which a bag of words does not care about.
WORDING = (
    "system", "prompt", "few_shot", "few_shot_style", "max_length", "truncate_prompt",
    "clean_whitespace", "teacher", "answers_from", "teaching",
)  # fmt: skip


def baseline_overrides(jobs: Sequence[Job]) -> list[tuple[str, ...]]:
    """Return the overrides of the baselines that the jobs of a sweep leave out.

    There is one of each for every data set that is trained on (where nothing is, that is asked),
    whatever the wording of its prompts, if a metric says that its answers come from a closed set.
    """
    asked = [job for job in jobs if _may_have_one(job)]
    trained = [job for job in asked if trains(job.config)]
    there = {(_model(job), _data(job)) for job in jobs if _family(job) == CLASSICAL}
    first = {_data(job): job for job in reversed(trained or asked)}
    return [
        (*_own(first[data].overrides), f"model={name}", *AS_THEY_ARE)
        for data in reversed(first)
        for name in BASELINES
        if (f"{CLASSICAL}:{name}", data) not in there
    ]


def _may_have_one(job: Job) -> bool:
    config = job.config
    alone = not config.get("run") and not config.get("adapter") and config.get("stage") != "train"
    return alone and _family(job) != CLASSICAL and is_closed(config.get("metric") or {})


def is_closed(metrics: Mapping[str, Any]) -> bool:
    """Whether a metric is about answers of a closed set (labels, codes), as its class declares."""
    return any(
        _is_closed(str(node.get("_target_")))
        for node in metrics.values()
        if isinstance(node, Mapping)
    )


def _is_closed(target: str) -> bool:
    if target.startswith("sizewise."):
        return target in CLOSED_ANSWERS  # known without the libraries that metrics need
    try:
        return bool(getattr(find_class(target, "metric"), "closed", False))
    except ConfigError as error:  # whatever somebody's module does; the job itself will say so
        log.warning("No baselines: %s", error)
        return False


def _own(overrides: Sequence[str]) -> list[str]:
    return [text for text in overrides if not _is(text.lstrip("+~").partition("=")[0])]


def _is(key: str) -> bool:
    return any(key == name or key.startswith((f"{name}.", f"{name}@")) for name in NOT_THEIRS)


def _family(job: Job) -> str:
    return str((job.config.get("model") or {}).get("family"))


def _model(job: Job) -> str:
    return str((job.config.get("model") or {}).get("path"))


def _data(job: Job) -> str:
    """Name what a baseline is fitted and tested on."""
    dataset = {k: v for k, v in (job.config.get("dataset") or {}).items() if k not in WORDING}
    return key_text([dataset, job.config.get("eval_dataset")])
