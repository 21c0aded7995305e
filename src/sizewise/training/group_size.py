"""How many jobs of a pack share a pass: timed on their own first steps, kept by content."""

from __future__ import annotations

import logging
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sizewise.devices import device_name
from sizewise.files import read_json, sealed, unsealed, write_json

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
TIMED = 3
# A smaller group needs less memory: it is taken where a larger one gains no more than this.
WORTH = 1.03


T = TypeVar("T")


def evenly(jobs: Sequence[T], most: int) -> list[Sequence[T]]:
    """Cut a list into as few parts of at most ``most`` as can be, of about the same length."""
    size = -(-len(jobs) // -(-len(jobs) // most))
    return [jobs[i : i + size] for i in range(0, len(jobs), size)]


class GroupSize:
    """The number of jobs that share a pass.

    Args:
        most: at most so many; without ``kept`` it is always that.
        kept: the file of what was measured for this base, data and micro-batch, by whichever job
            did it first on such a device. Where there is none yet, all halves of ``most`` are tried
            in turn, the first time to warm up, on steps that count as any others do.
    """

    def __init__(self, most: int, kept: Path | None = None) -> None:
        self.most = most
        self._kept = kept
        self._seconds: dict[int, list[float]] = defaultdict(list)
        self._chosen = most if kept is None else None
        self._device = ""

    @property
    def measuring(self) -> bool:
        return self._chosen is None

    def now(self, device: torch.device, jobs: int) -> int:
        """Return how many of ``jobs`` that wait go through the next pass."""
        import torch

        if self._chosen is None:
            self._device = self._device or f"{device_name(device)}, torch {torch.__version__}"
            self._recall(min(self.most, jobs))
        if self._chosen is None:
            sizes = [n for n in _halves(self.most) if n <= jobs]
            due = [n for n in sizes if len(self._seconds[n]) <= TIMED]
            return due[0] if due else self._decide(sizes)
        return self._chosen

    def note(self, jobs: int, tokens: int, seconds: float) -> None:
        """Take down what a forward and a backward pass of ``tokens`` took."""
        if self.measuring:
            self._seconds[jobs].append(seconds / tokens)

    def limit(self, most: int) -> None:
        """Memory suffices for no more than ``most``."""
        self.most = max(1, most)
        if self._chosen is not None:
            self._chosen = min(self._chosen, self.most)

    def _decide(self, sizes: Sequence[int]) -> int:
        found = {n: statistics.median(self._seconds[n][1:]) for n in sizes}
        best = min(found.values())
        self._chosen = min(n for n, seconds in found.items() if seconds <= best * WORTH)
        assert self._kept is not None
        seconds = {str(n): found[n] for n in sorted(found)}
        record = {"device": self._device, "jobs": self._chosen, "seconds_per_token": seconds}
        try:
            write_json(self._kept, sealed(record))
        except OSError as error:  # the disk is full, or gone
            log.warning("The next pack measures again: %s cannot be written: %s", self._kept, error)
        return self._chosen

    def _recall(self, jobs: int) -> None:
        """Take over what another pack has measured with at least as many jobs."""
        if self._seconds or self._kept is None:
            return
        self.most = jobs
        try:
            record = unsealed(read_json(self._kept) or {})
            measured = max((int(n) for n in dict(record.get("seconds_per_token", {}))), default=0)
            chosen = int(record.get("jobs", 0))
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s is damaged, and measured again: %s", self._kept, error)
            return
        if record.get("device") == self._device and measured >= jobs and chosen >= 1:
            self._chosen = min(chosen, jobs)


def shared_pace(kept: Path, jobs: int) -> float | None:
    """Return seconds of a token where ``jobs`` share passes, as a share of those of one alone.

    None where that was not measured. That it was on another device than the jobs will have is not
    seen here.
    """
    try:
        record = unsealed(read_json(kept) or {})
        seconds = {int(n): float(s) for n, s in dict(record.get("seconds_per_token", {})).items()}
        chosen = min(int(record.get("jobs", 0)), jobs)
    except (OSError, ValueError, TypeError):  # damaged: the next pack says so, and measures again
        return None
    sizes = [n for n in seconds if n <= chosen]
    if 1 not in seconds or not sizes or seconds[1] <= 0:
        return None
    return seconds[max(sizes)] / seconds[1]


def _halves(most: int) -> list[int]:
    """``most``, a half of it, and so on down to 1."""
    found = [most]
    while found[-1] > 1:
        found.append(found[-1] // 2)
    return found
