"""Trying again after failures that may pass by themselves, and only after those."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from sizewise.evaluation.device import is_out_of_memory

Result = TypeVar("Result")
log = logging.getLogger(__name__)

_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_PASSING = (
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUBLAS_STATUS_INTERNAL_ERROR",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "CUDA driver error",
    "CUDA error: unknown error",
    "NCCL",
)


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed a moment later (I/O, network, a driver's hiccup).

    Running out of memory is not: that is answered by a smaller batch.
    """
    if is_out_of_memory(error) or isinstance(error, _LASTING):
        return False
    if isinstance(error, OSError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _PASSING)


def with_retries(
    call: Callable[[], Result],
    retries: int,
    pause: Callable[[float], None] | None = None,
) -> Result:
    """Return ``call()``; after a transient failure wait 1, 2, 4, … seconds and try again."""
    for attempt in range(retries):
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("Attempt %d of %d failed: %s", attempt + 1, retries + 1, error)
            (pause or time.sleep)(2.0**attempt)
    return call()
