"""Manners around model code: quiet libraries, and random numbers that touch nobody else's."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

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
    """Drop records whose text holds one of some phrases."""

    def __init__(self, phrases: tuple[str, ...]) -> None:
        super().__init__()
        self.phrases = phrases

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether ``record`` is kept."""
        return not any(phrase in record.getMessage() for phrase in self.phrases)


_FILTERS = {name: _Drop(phrases) for name, phrases in SILENCED_LOGGERS.items()}


def quiet_libraries() -> None:
    """Silence what is known to be harmless; everything else still comes through (idempotent)."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    for name, drop in _FILTERS.items():
        logging.getLogger(name).addFilter(drop)
    for pattern in SILENCED_WARNINGS:
        warnings.filterwarnings("ignore", message=pattern)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside the block and restore its random state (CPU and CUDA) afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
