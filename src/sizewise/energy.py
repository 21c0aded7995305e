"""Energy of a stretch of work, read from the counters that the machine offers.

NVIDIA devices count millijoules since the driver was loaded (NVML's total energy, Volta and newer,
read through the package nvidia-ml-py: the extra ``gpu``); Linux exposes the processor packages'
microjoules under ``powercap`` where it may be read. Where a counter that belongs to the work does
not answer the result is None: not measured, never guessed, and the log says so. Packages count
whatever else runs on them.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
NOT_MEASURED = (
    "Energy was not measured: the counters of the job's GPUs cannot be read. That takes the "
    "package nvidia-ml-py (pip install 'sizewise[gpu]') and whole GPUs, no slices of one."
)
POWERCAP = Path("/sys/class/powercap")
WHOLE_MACHINE = "psys"


class EnergyMeter:
    """Joules used between ``start`` and ``stop`` by the processor packages and the given GPUs.

    ``gpus``: NVML's UUIDs of the GPUs that do the work (``gpu_uuids``); others do not count.
    ``powercap``: where Linux keeps the packages' counters.
    """

    def __init__(self, gpus: Sequence[str] = (), powercap: Path = POWERCAP) -> None:
        self._gpus = tuple(gpus)
        self._powercap = powercap
        self._begin: Mapping[str, float] = {}

    def start(self) -> None:
        self._begin = self._read()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what is done inside."""
        before = self._read()
        yield
        now = self._read()
        self._begin = {
            name: value + _difference(before[name], now[name], self._range(name))
            for name, value in self._begin.items()
            if name in before and name in now
        }

    def stop(self) -> float | None:
        """Return joules since ``start``; None where no counter, or not every GPU's, was read."""
        end = self._read()
        if any(gpu not in self._begin or gpu not in end for gpu in self._gpus):
            log.info(NOT_MEASURED)
            return None
        used = [
            _difference(self._begin[name], value, self._powercap / name / "max_energy_range_uj")
            for name, value in end.items()
            if name in self._begin
        ]
        return sum(used) if used else None

    def _read(self) -> dict[str, float]:
        return {**_read_packages(self._powercap), **_read_nvml(self._gpus)}


def _difference(begin: float, end: float, limit: Path) -> float:
    """Joules from ``begin`` to ``end`` of a counter that may have wrapped around once."""
    wraps_at = _number(limit, 1e-6)
    return end - begin if end >= begin or wraps_at is None else end - begin + wraps_at


def _read_packages(root: Path) -> dict[str, float]:
    readings = {}
    for folder in sorted(root.glob("*-rapl:[0-9]*")):
        if folder.name.count(":") == 1 and _text(folder / "name") != WHOLE_MACHINE:
            joules = _number(folder / "energy_uj", 1e-6)
            if joules is not None:
                readings[folder.name] = joules
    return readings


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _number(path: Path, unit: float) -> float | None:
    try:
        return float(_text(path)) * unit
    except ValueError:
        return None


def _read_nvml(gpus: Sequence[str]) -> dict[str, float]:
    if not gpus:
        return {}
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # no package or no driver: nothing to read
        return {}
    readings = {}
    for gpu in gpus:
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(gpu)
            readings[gpu] = nvml.nvmlDeviceGetTotalEnergyConsumption(handle) * 1e-3
        except nvml.NVMLError:
            continue
    return readings


def gpu_uuids(device: torch.device, devices: int = 1) -> tuple[str, ...]:
    """Return NVML's UUIDs of the GPUs that a job uses on this machine; none for a job without.

    They are asked of CUDA, whose numbers follow CUDA_VISIBLE_DEVICES and an order of its own.
    ``devices``: processes of the job on this machine, one GPU each.
    """
    if device.type != "cuda":
        return ()
    import torch

    places = range(devices) if devices > 1 else (device.index or 0,)
    found = (str(torch.cuda.get_device_properties(place).uuid) for place in places)
    return tuple(f"GPU-{uuid.removeprefix('GPU-')}" for uuid in found)
