"""Energy of a stretch of work, read from the counters that the machine offers.

NVIDIA devices count millijoules since the driver was loaded (NVML's total energy, Volta and newer);
Linux exposes the processor packages' microjoules under ``powercap`` where it may be read. Where
neither answers the result is None: not measured, never guessed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Joules used between ``start`` and ``stop`` by all readable counters."""

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._powercap = powercap
        self._begin: Mapping[str, float] = {}

    def start(self) -> None:
        """Read all counters."""
        self._begin = self._read()

    def stop(self) -> float | None:
        """Return joules since ``start``, or None where no counter could be read twice."""
        end = self._read()
        used = [
            _difference(self._begin[name], value, self._range(name))
            for name, value in end.items()
            if name in self._begin
        ]
        return sum(used) if used else None

    def _read(self) -> dict[str, float]:
        return {**_read_packages(self._powercap), **_read_nvml()}

    def _range(self, name: str) -> float | None:
        limit = self._powercap / name / "max_energy_range_uj"
        return _number(limit, 1e-6)


def _difference(begin: float, end: float, wraps_at: float | None) -> float:
    """Joules from ``begin`` to ``end`` of a counter that may have wrapped around once."""
    return end - begin if end >= begin or wraps_at is None else end - begin + wraps_at


def _read_packages(root: Path) -> dict[str, float]:
    readings = {}
    for folder in sorted(root.glob("*-rapl:[0-9]*")):
        if folder.name.count(":") == 1:
            joules = _number(folder / "energy_uj", 1e-6)
            if joules is not None:
                readings[folder.name] = joules
    return readings


def _number(path: Path, unit: float) -> float | None:
    try:
        return float(path.read_text()) * unit
    except (OSError, ValueError):
        return None


def _read_nvml() -> dict[str, float]:
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # no package, no driver or no device: nothing to read
        return {}
    readings = {}
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        try:
            readings[f"nvml:{index}"] = nvml.nvmlDeviceGetTotalEnergyConsumption(handle) * 1e-3
        except nvml.NVMLError:
            continue
    return readings
