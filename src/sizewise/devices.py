"""The device: its memory (peaks, what is free, what does not fit), waiting, evaluation mode.

torch is imported where it is needed only, so that a process without it can use the rest.
"""

from __future__ import annotations

import gc
import logging
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from weakref import WeakSet

from sizewise.errors import OutOfMemoryError

if TYPE_CHECKING:
    import torch
    from torch import nn

log = logging.getLogger(__name__)
_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def synchronize(device: torch.device) -> None:
    """Wait until all work queued on ``device`` is done."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the device or the machine has no memory left."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def free_memory() -> None:
    """Return what is no longer referenced to the device."""
    gc.collect()
    if cuda := _cuda_in_use():
        cuda.empty_cache()


def device_works() -> bool:
    """Whether this process's GPUs still answer; an illegal access or an ECC error ends that for it.

    Every later call of CUDA fails too, so that only another process can go on. True without a GPU;
    cards that this process has not used are not asked, which would take memory on them.
    """
    cuda = _cuda_in_use()
    if cuda is None:
        return True
    try:
        own = cuda.current_device()
        for card in range(cuda.device_count()):
            if card == own or cuda.memory_reserved(card):
                cuda.synchronize(card)
    except RuntimeError as error:
        return is_out_of_memory(error)
    return True


def wait_for_memory(cards: int, quiet: float = 3.0, most: float = 60.0) -> None:
    """Wait until the free memory of the first GPUs grows no more: processes end late.

    It has stayed as it is for ``quiet`` seconds then, or ``most`` have passed.
    """
    import torch

    if not torch.cuda.is_available():
        return
    cards = min(cards, torch.cuda.device_count())
    free, since, started = 0, time.monotonic(), time.monotonic()
    while (now := time.monotonic()) - since < quiet and now - started < most:
        try:
            found = sum(torch.cuda.mem_get_info(card)[0] for card in range(cards))
        except RuntimeError:  # a card that another process has for itself still
            found, since = 0, now
        if found > free:
            free, since = found, now
        time.sleep(0.2)


def reset_peaks() -> None:
    """Begin new peaks of memory: CUDA's, on every device, and the process's.

    Whoever still measures its own remembers what it has seen.
    """
    for peak in list(PeakMemory.measuring):
        peak.note()
    _forget_peaks()


@contextmanager
def unmeasured() -> Iterator[None]:
    """Let what is held inside be part of nobody's peak."""
    reset_peaks()
    try:
        yield
    finally:
        _forget_peaks()


def _forget_peaks() -> None:
    if cuda := _cuda_in_use():
        for number in range(cuda.device_count()):
            cuda.reset_peak_memory_stats(number)
    with suppress(OSError):  # not every kernel allows it: the process's own peak remains
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _cuda_in_use() -> Any:
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    return cuda if cuda is not None and cuda.is_available() and cuda.is_initialized() else None


Result = TypeVar("Result")


@dataclass
class BatchSize:
    """How many examples go at once, halved whenever memory runs out.

    Attributes:
        size: examples that fitted, or are to be tried.
        single: what is done with one, for the message where that did not fit.
        lower: settings that would need less, for the same message.
        failed: numbers of examples that did not fit.
    """

    size: int
    single: str = "one single example was evaluated"
    lower: str = "dataset.max_length"
    failed: list[int] = field(default_factory=list)

    def halve(self, attempted: int) -> None:
        """Remember that ``attempted`` examples did not fit and take half as many.

        Raises:
            OutOfMemoryError: a single example did not fit.
        """
        self.failed.append(attempted)
        if attempted <= 1:
            raise OutOfMemoryError(
                f"Memory ran out while {self.single}. Lower {self.lower}, or use quantization=nf4."
            )
        self.size = attempted // 2
        log.warning("Out of memory with %d examples; going on with %d.", attempted, self.size)


def halve_on_oom(
    batches: Iterable[Sequence[int]], sizes: BatchSize, call: Callable[[Sequence[int]], Result]
) -> Iterator[tuple[Sequence[int], Result]]:
    """Yield each batch of positions with ``call(batch)``; where memory runs out go on with halves.

    Raises:
        OutOfMemoryError: a single example did not fit.
    """
    pending = [list(batch) for batch in batches]
    while pending:
        batch = pending.pop(0)
        if len(batch) > sizes.size:
            pending[:0] = split(batch, sizes.size)
            continue
        try:
            result = call(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            yield batch, result
            continue
        # Outside of `except`: the error's traceback would keep the batch's tensors alive.
        free_memory()
        sizes.halve(len(batch))
        pending.insert(0, batch)


def split(batch: Sequence[int], size: int) -> list[list[int]]:
    """Cut a batch into consecutive parts of at most ``size``."""
    return [list(batch[i : i + size]) for i in range(0, len(batch), size)]


def conditions(device: torch.device, batch_size: int) -> dict[str, str | int]:
    """Return what latencies depend on beside the model: batch, device and, on a CPU, threads."""
    import torch

    found: dict[str, str | int] = {"batch_size": batch_size, "device": device_name(device)}
    if device.type == "cpu":
        found["threads"] = torch.get_num_threads()
    return found


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or of the processor where Linux tells it."""
    if device.type == "cuda":
        import torch

        return str(torch.cuda.get_device_name(device))
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; each module's mode is restored afterwards.

    ``no_grad`` and not ``inference_mode``: buffers that are made inside must stay usable in a
    later training step.
    """
    import torch

    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


class PeakMemory:
    """Peak memory in bytes since construction: CUDA's allocator, else the process's resident set.

    That of a model which is spread over several GPUs is the sum of theirs.

    On Linux the resident peak is reset at the start, so that one job's peak is not the next one's.
    Several may measure at once, as the jobs of a pack do: each has the peak since its own start.
    ``less``: bytes held all the while that are no part of what is measured.
    """

    measuring: ClassVar[WeakSet[PeakMemory]] = WeakSet()

    def __init__(self, device: torch.device, less: int = 0) -> None:
        self.device, self._less = device, less
        self._seen: int | None = None
        reset_peaks()
        self.measuring.add(self)

    def read(self) -> int | None:
        """Return the peak so far, or None where the system does not tell."""
        return max((p for p in (self._seen, self._now()) if p is not None), default=None)

    def note(self) -> None:
        """Remember the peak so far: the system is about to forget it."""
        self._seen = self.read()

    def _now(self) -> int | None:
        if self.device.type == "cuda":
            import torch

            cards = range(torch.cuda.device_count())
            return sum(int(torch.cuda.max_memory_allocated(card)) for card in cards) - self._less
        peak = resident_peak(Path("/proc/self/status"))
        return None if peak is None else peak - self._less


def resident_peak(status: Path) -> int | None:
    """Read the peak resident set (VmHWM, in bytes) from a Linux status file."""
    if not status.exists():
        return None
    for line in status.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
