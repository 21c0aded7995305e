"""Which jobs of a sweep share the passes over their base, and how many at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from sizewise.composition.others import others_of
from sizewise.files import hash_text, key_text
from sizewise.job.submit import DEFAULT_FUNCTION, Job
from sizewise.record.identity import trains
from sizewise.training.group_size import evenly, shared_pace

MOST = 8
# Of the trainer: what two jobs that share passes may differ in.
FREE = (
    "max_epochs", "max_steps", "accumulate", "validate_every", "validate_at_start",
    "checkpoint_every", "gradient_clip", "label_smoothing", "length_grouping", "log_every",
    "progress_bar", "keep_last_checkpoint",
)  # fmt: skip
ON_CPU = (
    "sweep.packing is off: on a processor whose cores are busy, jobs that share passes gain little "
    "(docs/sweeps.md); sweep.packing=4 packs all the same."
)


@dataclass(frozen=True)
class Packing:
    """How many jobs a worker takes at most, and why.

    ``measured``: how many of them share a pass is found out, and kept under ``paths.cache``.
    """

    most: int = 1
    why: str = ""
    measured: bool = False

    def kept(self, job: Job) -> Path | None:
        """Where it is kept how many jobs like ``job`` should share a pass; None: all do."""
        if not self.measured:
            return None
        cache = Path(str((job.config.get("paths") or {}).get("cache", ".")))
        return cache / "packing" / f"{hash_text(str(pack_key(job)), 16)}.json"

    def paces(self, jobs: Sequence[Job], workers: int = 1) -> dict[str, float]:
        """Return by identity what a step takes beside others, as a share of what it takes alone.

        No worker takes more of them than leaves some for every other one. Only jobs are in it that
        share passes and of whose like that was measured.
        """
        found: dict[str, float] = {}
        for group in _alike(jobs).values():
            kept, together = self.kept(group[0]), self._together(group, workers)
            if kept is not None and (pace := shared_pace(kept, together)) is not None:
                found |= {job.identity.hash: pace for job in group}
        return found

    def packs(self, jobs: Sequence[Job], workers: int) -> list[Sequence[Job]]:
        """Cut jobs into those that a worker takes at once, in the order of the first of each."""
        alone: list[Sequence[Job]] = [[job] for job in jobs if pack_key(job) is None]
        groups = _alike(jobs).values()
        cut = (evenly(group, self._together(group, workers)) for group in groups)
        place = {job.identity.hash: number for number, job in enumerate(jobs)}
        return sorted(chain(alone, *cut), key=lambda pack: place[pack[0].identity.hash])

    def _together(self, group: Sequence[Job], workers: int) -> int:
        """How many of like jobs one worker takes at most, which leaves some for every other one."""
        return min(-(-len(group) // workers), self.most)


def _alike(jobs: Sequence[Job]) -> dict[str, list[Job]]:
    """Gather the jobs that can share passes."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        if (key := pack_key(job)) is not None:
            groups.setdefault(key, []).append(job)
    return groups


ALONE = Packing()


def choose_packing(asked: Any, jobs: Sequence[Job], gpus: bool) -> Packing:
    """Decide for a call of the launcher; ``asked`` is ``sweep.packing``.

    ``auto`` packs on GPUs, up to ``MOST`` jobs: how many of them share a pass is then measured.
    """
    keys = [key for key in map(pack_key, jobs) if key is not None]
    if asked in ("off", False, 1) or len(set(keys)) == len(keys):
        return ALONE
    if asked != "auto":
        return Packing(int(asked), f"Up to {asked} jobs on one base share their passes.")
    if gpus and not all((j.config.get("trainer") or {}).get("accelerator") == "cpu" for j in jobs):
        why = f"Up to {MOST} jobs on one base share their passes, as many as pay (measured)."
        return Packing(MOST, why, measured=True)
    return Packing(1, ON_CPU)


def may_pack(asked: Any, gpus: bool) -> bool:
    """Whether any jobs are packed at all; ``asked`` is ``sweep.packing``."""
    return gpus if asked == "auto" else asked not in ("off", False, 1)


def pack_key(job: Job) -> str | None:
    """Name what jobs that share passes have in common; None for one that is trained alone.

    That is what a pass depends on: base, storage, data, examples of a micro-batch, precision. Rank,
    rate, seed, alpha, dropout, schedule and whatever else is the adapter's own may differ.
    """
    config = job.config
    model, lora, trainer = (config.get(group) or {} for group in ("model", "lora", "trainer"))
    evaluation = config.get("evaluation") or {}
    shared = (
        job.function == DEFAULT_FUNCTION
        and trains(config)
        and not (config.get("run") or config.get("dry_run"))
        and model.get("family", "causal") == "causal"
        and not (model.get("added_tokens") or model.get("device_map"))
        and lora.get("method") in ("lora", "rslora")
        and not lora.get("modules_to_save")
        and (config.get("quantization") or {}).get("method") != "int8"
        and trainer.get("devices", 1) == trainer.get("num_nodes", 1) == 1
        and not (trainer.get("gradient_checkpointing") and lora.get("dropout"))
        and evaluation.get("engine") is None
        and not any(others_of(config))  # a judge or a teacher is not shared
    )
    if not shared:
        return None
    kept = {key: value for key, value in trainer.items() if key not in FREE}
    lean = lora.get("fast", True)
    parts = (model, config.get("quantization"), config.get("dataset"), kept, lean)
    return key_text(parts)
