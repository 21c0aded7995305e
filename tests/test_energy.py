from __future__ import annotations

from sizewise.energy import EnergyMeter


def _package(root, name, joules, wraps_at=1000.0):
    folder = root / name
    folder.mkdir(exist_ok=True)
    (folder / "energy_uj").write_text(str(int(joules * 1e6)))
    (folder / "max_energy_range_uj").write_text(str(int(wraps_at * 1e6)))


def test_energy_is_the_difference_of_the_package_counters(tmp_path):
    meter = EnergyMeter(tmp_path)
    _package(tmp_path, "intel-rapl:0", 10.0)
    _package(tmp_path, "intel-rapl:1", 990.0)
    _package(tmp_path, "intel-rapl:0:0", 1.0)
    meter.start()
    _package(tmp_path, "intel-rapl:0", 12.5)
    _package(tmp_path, "intel-rapl:1", 5.0)
    _package(tmp_path, "intel-rapl:0:0", 900.0)
    assert meter.stop() == 2.5 + 15.0


def test_without_counters_energy_is_not_measured(tmp_path):
    meter = EnergyMeter(tmp_path / "none")
    meter.start()
    assert meter.stop() is None
