"""SLURM settings that contradict the trainer's, refused before anything is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sizewise.errors import SweepError

GPU_KEYS = ("gpus_per_node", "gpus_per_task", "gres")


def check_resources(slurm: Mapping[str, Any], trainer: Mapping[str, Any], job: str) -> None:
    """Raise if a job's trainer asks for other nodes, tasks or devices than SLURM will give.

    Args:
        slurm: the launcher's settings.
        trainer: the job's ``trainer`` node.
        job: name of the job, for the message.
    """
    devices, nodes = trainer.get("devices") or 1, trainer.get("num_nodes") or 1
    pairs = [("nodes", slurm.get("nodes", 1), "trainer.num_nodes", nodes)]
    pairs.append(("tasks_per_node", slurm.get("tasks_per_node", 1), "trainer.devices", devices))
    on_cpu = trainer.get("accelerator") == "cpu"
    if slurm.get("gpus_per_node") and not on_cpu:
        pairs.append(("gpus_per_node", slurm["gpus_per_node"], "trainer.devices", devices))
    for key, given, wanted_key, wanted in pairs:
        if given != wanted:
            raise SweepError(
                f"{job}: hydra.launcher.{key}={given} contradicts {wanted_key}={wanted}. "
                f"Set hydra.launcher.{key}={wanted}, or {wanted_key}={given}."
            )
    wants_gpu = trainer.get("accelerator") in ("gpu", "cuda")
    if wants_gpu and not any(slurm.get(key) for key in GPU_KEYS):
        raise SweepError(
            f"{job}: trainer.accelerator={trainer['accelerator']}, but no GPU is asked of SLURM. "
            f"Set hydra.launcher.gpus_per_node={devices}."
        )
