"""Manners of the process: environment before torch, quiet libraries, seeds, memory, device.

Nothing here imports torch at module top, so that ``prepare_environment`` can run before it.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sizewise.errors import ConfigError
from sizewise.late_imports import leave_until_used

if TYPE_CHECKING:
    import torch

    from sizewise.config.training import TrainerConfig


_DEFAULTS = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
}
# M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD of <malloc.h>: bytes.
_MALLOPT = {-3: 4 << 20, -1: 256 << 20, -2: 64 << 20}
# Of the collector of garbage: new objects until it looks at them, and looks until a longer one.
COLLECTIONS = (20_000, 20, 50)
# The first process of a further node has local rank 0 as well.
RANKS = ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")

# Said on every run by other libraries and of no use to who started it.
_NOISE = (
    r".*does not have many workers.*",
    r".*Paged optimizers are not supported on CPU.*",
    r".*You have overridden `.*` in `LightningModule`.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*module\(s\) in eval mode at the start of training.*",
    r".*The number of training batches .* is smaller than the logging interval.*",
    r".*LeafSpec.* is deprecated.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*srun.* command is available on your system but is not used.*",
    r".*GPU available but not used.*",
    r".*MatMul8bitLt: inputs will be cast.*",
    r".*'pin_memory' argument is set as true but no accelerator is found.*",
    r".*Trying to infer the `batch_size` from an ambiguous collection.*",
)
_QUIET_LOGGERS = (
    "absl",
    "pytorch_lightning",
    "lightning_fabric",
    "lightning.pytorch",
    "transformers",
    "peft",
    "bitsandbytes",
    "datasets",
    "fontTools",
    "httpx",
    "torch.distributed",
)


def prepare_environment(hub: bool = True) -> None:
    """Set the environment that libraries read when they are imported; what is set already stays.

    Telemetry is off and the CUDA allocator grows its segments. Call it before torch and
    transformers are imported. Unless something on the ``hub`` is named, its client stays offline.
    Large blocks of the CPU's memory are given back as soon as they are free. What libraries import
    without need is left until it is used. What they do import, half a million objects that stay, is
    not looked through for garbage again and again: that is an eighth of the seconds imports take.
    """
    map_large_blocks()
    leave_until_used()
    gc.set_threshold(*COLLECTIONS)
    for key, value in _DEFAULTS.items():
        os.environ.setdefault(key, value)
    if not hub:
        for key in _OFFLINE:
            os.environ.setdefault(key, "1")


def map_large_blocks() -> bool:
    """Let glibc map blocks of 4 MiB and more one by one, so that freed tensors leave no holes.

    Left alone, glibc raises that bound to 32 MiB as such blocks are freed, and the activations of
    a larger model then lie in a heap that small blocks keep from shrinking: half as much memory
    again, and more, in every step (docs/benchmarks.md). The heap of small blocks is trimmed rarely.

    Returns False where another C library is, or where ``MALLOC_*`` says otherwise.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return all([mallopt(option, size) == 1 for option, size in _MALLOPT.items()])


def quiet() -> None:
    """Filter the warnings and information lines that other libraries write on every run."""
    for pattern in _NOISE:
        warnings.filterwarnings("ignore", message=pattern)
    for name in _QUIET_LOGGERS:
        _set_level(logging.getLogger(name), logging.ERROR)


def _set_level(logger: logging.Logger, level: int) -> None:
    """Set a level that is another: to set any makes every logger of the process forget a cache."""
    if logger.level != level:
        logger.setLevel(level)


@contextmanager
def guest() -> Iterator[None]:
    """Leave environment, warnings, levels of loggers, collections and random states as found.

    Inside the block both clients of the hub are told that they may go on-line, unless the
    environment says otherwise: they ask once, and a later block of the process may name the hub.
    """
    environment, path, collections = dict(os.environ), list(sys.path), gc.get_threshold()
    loggers = [logging.getLogger(name) for name in (*_QUIET_LOGGERS, "sizewise")]
    levels = {logger: logger.level for logger in [logging.getLogger(), *loggers, *_known()]}
    for name in _OFFLINE:
        os.environ.setdefault(name, "0")
    try:
        with warnings.catch_warnings(), _random_states():
            yield
    finally:
        for logger, level in levels.items():
            _set_level(logger, level)
        sys.path[:] = path
        gc.set_threshold(*collections)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)


def _known() -> list[logging.Logger]:
    there = list(logging.Logger.manager.loggerDict.values())
    return [logger for logger in there if isinstance(logger, logging.Logger)]


@contextmanager
def _random_states() -> Iterator[None]:
    """Put the states of Python's, NumPy's and torch's generators back, as far as they are used.

    Those of the GPUs as well, where they were in use before.
    """
    numpy, torch = (sys.modules.get(name) for name in ("numpy", "torch"))
    state = random.getstate()
    numpy_state = None if numpy is None else numpy.random.get_state()
    torch_state = None if torch is None else torch.get_rng_state()
    gpus = None if torch is None or not torch.cuda.is_initialized() else torch.cuda
    gpu_states = None if gpus is None else gpus.get_rng_state_all()
    try:
        yield
    finally:
        random.setstate(state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
        if torch is not None:
            torch.set_rng_state(torch_state)
        if gpus is not None:
            gpus.set_rng_state_all(gpu_states)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices); the same call always gives the same state."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def same_random_state() -> None:
    """Begin with the same random state as every other job, in libraries that were loaded."""
    random.seed(0)
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        numpy.random.seed(0)
    if torch is not None:
        torch.manual_seed(0)
        torch.use_deterministic_algorithms(False)
        torch.set_grad_enabled(True)


def is_ddp_child() -> bool:
    """Whether this process is a further rank of one data-parallel job, on this node or another.

    Such a process only trains: it must not plan or launch a multirun, nor write records.
    """
    return any(os.environ.get(name) not in (None, "", "0") for name in RANKS)


def local_rank() -> int:
    """Index of this process among those of the job on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def resolve_device(trainer: TrainerConfig) -> torch.device:
    """Return the device on which this process's model lives.

    Raises:
        ConfigError: the accelerator asked for is not there.
    """
    import torch

    wanted = {"cuda": "gpu"}.get(trainer.accelerator, trainer.accelerator)
    if wanted in ("auto", "gpu") and torch.cuda.is_available():
        return torch.device("cuda", local_rank())
    if wanted in ("auto", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    if wanted in ("auto", "cpu"):
        return torch.device("cpu")
    raise ConfigError(
        f"trainer.accelerator={trainer.accelerator} is not available on this machine. "
        "Choose trainer.accelerator=cpu or auto, or check the driver and CUDA_VISIBLE_DEVICES."
    )


@contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Let torch compute with ``count`` threads inside the block; None leaves its choice.

    Threads are the process's: without the way back the next job of a worker would keep them.
    """
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


SILENCED_LOGGERS = {
    # T5 v1.1 has a head of its own, which transformers notices and handles.
    "transformers.modeling_utils": ("shared.weight to lm_head.weight",),
    "bitsandbytes.autograd._functions": ("inputs will be cast from",),
    "bitsandbytes.nn.modules": ("Input type into Linear4bit",),
    "bitsandbytes.backends.cpu.ops": ("kernels",),
}
SILENCED_WARNINGS = (
    r".*`is_gradient_checkpointing` is deprecated.*",
    r".*`use_cache=True` is incompatible with gradient checkpointing.*",
    r".*`base_model_name_or_path` was renamed from.*",
    r".*Could not find a config file in.*",
)


class _Drop(logging.Filter):
    def __init__(self, phrases: tuple[str, ...]) -> None:
        super().__init__()
        self.phrases = phrases

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(phrase in record.getMessage() for phrase in self.phrases)


_FILTERS = {name: _Drop(phrases) for name, phrases in SILENCED_LOGGERS.items()}


def quiet_libraries() -> None:
    """Silence what is known to be harmless; everything else still comes through (idempotent)."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    downloads_shown = not are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()  # of loading, and those of downloads with it
    if downloads_shown:
        enable_progress_bars()
    for name, drop in _FILTERS.items():
        logging.getLogger(name).addFilter(drop)
    for pattern in SILENCED_WARNINGS:
        warnings.filterwarnings("ignore", message=pattern)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside the block and restore its random state (CPU and CUDA) afterwards."""
    import torch

    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def command_line(name: str) -> tuple[str, ...]:
    """Return how ``sizewise NAME`` is begun as a process of its own, wherever it is installed."""
    return (sys.executable, "-m", "sizewise.commands.main", name)
