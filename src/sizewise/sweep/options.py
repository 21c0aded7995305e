"""Options of the sweepers and launchers, registered with Hydra when its plugins are discovered.

They stand here and not in the plugin modules because Hydra executes those without registering
them in ``sys.modules``, which dataclasses with postponed annotations need.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore


@dataclass
class GridSweeperConf:
    """Runs a grid or a named sweep. ``job`` and ``finish`` are import paths, ``module:function``.

    ``finish`` (null: nothing) is called with the sweep's directory, its finished run directories,
    its failures, and ``prices=`` (``sweep.prices``).
    """

    _target_: str = "hydra_plugins.sizewise_sweepers.GridSweeper"
    job: str = "sizewise.job.run:run_job"
    finish: str | None = "sizewise.report.summary:finish_sweep"


@dataclass
class SearchSweeperConf:
    """Searches with Optuna. Values to search over are given as choice(), range() or interval().

    ``objectives`` lists figures of the outcome as ``minimize:NAME`` or ``maximize:NAME`` (names:
    ``objective``, ``validation/…``, ``model/params_total``, ``model/memory_bytes``,
    ``cost/train_seconds``, ``efficiency/…``); two or more make a Pareto search. ``sampler`` is
    ``tpe``, ``random`` or ``nsga2``; ``pruner`` ``none``, ``median`` or ``asha`` (one objective
    only). ``parallel`` trials are started together (null: as many as there are workers).
    """

    _target_: str = "hydra_plugins.sizewise_sweepers.SearchSweeper"
    job: str = "sizewise.job.run:run_job"
    finish: str | None = "sizewise.report.summary:finish_sweep"
    objectives: list[str] = field(default_factory=lambda: ["minimize:objective"])
    n_trials: int = 20
    sampler: str = "tpe"
    pruner: str = "none"
    seed: int = 0
    parallel: int | None = None


@dataclass
class LocalLauncherConf:
    """A pool of worker processes on this machine.

    ``n_jobs`` null: one per GPU (or per ``trainer.devices`` GPUs); without GPUs one per core where
    all models are small, else 1 that has all threads; -1: one per core.
    ``gpus`` null: all that CUDA_VISIBLE_DEVICES or the driver names; a list of their names; or []
    for none. ``threads`` null: the cores of this process, shared out. ``progress`` null: a live
    view on a terminal, lines elsewhere.
    """

    _target_: str = "hydra_plugins.sizewise_launchers.LocalLauncher"
    n_jobs: int | None = None
    gpus: list[str] | None = None
    threads: int | None = None
    progress: bool | None = None


@dataclass
class SlurmLauncherConf:
    """One SLURM job array. Names are those of hydra-submitit-launcher.

    ``max_num_timeout``: how often a job past its time limit is requeued and goes on;
    ``signal_delay_s``: how long before the limit it is told. ``wait`` false: submit and return;
    the same command later collects the results.
    """

    _target_: str = "hydra_plugins.sizewise_launchers.SlurmLauncher"
    submitit_folder: str | None = None
    timeout_min: int = 60
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    tasks_per_node: int = 1
    mem_gb: int | None = None
    nodes: int = 1
    name: str | None = None
    partition: str | None = None
    qos: str | None = None
    comment: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    gres: str | None = None
    cpus_per_gpu: int | None = None
    gpus_per_task: int | None = None
    mem_per_gpu: str | None = None
    mem_per_cpu: str | None = None
    account: str | None = None
    signal_delay_s: int = 120
    max_num_timeout: int = 3
    additional_parameters: dict[str, Any] = field(default_factory=dict)
    array_parallelism: int = 256
    setup: list[str] | None = None
    wait: bool = True
    poll_seconds: float = 5.0


@dataclass
class RayLauncherConf:
    """One Ray task per job, in a process of its own.

    ``address`` null: a cluster on this machine. ``num_cpus`` and ``num_gpus`` are what one job
    takes; ``num_gpus`` may be a fraction.
    """

    _target_: str = "hydra_plugins.sizewise_launchers.RayLauncher"
    address: str | None = None
    num_cpus: float = 1
    num_gpus: float = 0
    runtime_env: dict[str, Any] = field(default_factory=dict)
    init: dict[str, Any] = field(default_factory=dict)


def register_options() -> None:
    """Put the options into Hydra's config store (idempotent)."""
    store = ConfigStore.instance()
    for group, name, node in (
        ("hydra/sweeper", "sizewise", GridSweeperConf),
        ("hydra/sweeper", "search", SearchSweeperConf),
        ("hydra/launcher", "local", LocalLauncherConf),
        ("hydra/launcher", "slurm", SlurmLauncherConf),
        ("hydra/launcher", "ray", RayLauncherConf),
    ):
        store.store(name, node, group=group, provider="sizewise")
