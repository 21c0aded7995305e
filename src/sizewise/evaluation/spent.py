"""What the predictions of a file cost, summed over the processes that made them."""

from __future__ import annotations

import json
import os
import time
from dataclasses import astuple, dataclass
from pathlib import Path

from sizewise.atomic import write_atomically
from sizewise.evaluation.device import PeakMemory


@dataclass(frozen=True)
class Spent:
    """What the first ``predictions`` of a file cost: seconds of wall time, peak bytes of memory."""

    predictions: int
    seconds: float
    peak_bytes: int | None


class Bill:
    """Adds up what a split costs, batch by batch, in a side-car ``<name>.spent``.

    A line of it is written before the predictions that it counts. After a kill between the two it
    counts more predictions than there are, and is passed over.

    Args:
        predictions: the file of predictions.
        held: how many of them there are already.
        peak: the memory of this process.
    """

    def __init__(self, predictions: Path, held: int, peak: PeakMemory) -> None:
        self.path = predictions.with_name(f"{predictions.name}.spent")
        self._held, self._peak = held, peak
        self._lines = self._read()
        none = None if held else Spent(0, 0.0, None)
        self._before = self._lines[-1] if self._lines else none
        self._now = self._before
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float | None:
        """Seconds that all predictions took; None where an earlier process did not note its own."""
        return None if self._now is None else self._now.seconds

    @property
    def peak_bytes(self) -> int | None:
        """The highest peak; where nobody noted it, that of this process."""
        return self._peak.read() if self._now is None else self._now.peak_bytes

    def begin(self) -> None:
        """Leave out the warm-up of a resumed evaluation: an undisturbed one has a single one."""
        if self._held:
            self._started = time.perf_counter()

    def note(self, new: int) -> None:
        """Count a batch of ``new`` predictions that is about to be stored."""
        if self._before is None:
            return
        seconds = self._before.seconds + time.perf_counter() - self._started
        peaks = [p for p in (self._before.peak_bytes, self._peak.read()) if p is not None]
        if self._now is self._before:
            self._write_anew()
        self._held += new
        self._now = Spent(self._held, seconds, max(peaks, default=None))
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(_line(self._now))
            handle.flush()
            os.fsync(handle.fileno())

    def _write_anew(self) -> None:
        """Drop what is about predictions that are not there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, "".join(map(_line, self._lines)))

    def _read(self) -> list[Spent]:
        if not self.path.is_file():
            return []
        whole = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        lines = [Spent(*json.loads(line)) for line in whole]
        return [spent for spent in lines if spent.predictions <= self._held]


def _line(spent: Spent) -> str:
    return json.dumps(astuple(spent)) + "\n"
