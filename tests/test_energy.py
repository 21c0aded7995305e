from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from sizewise.energy import EnergyMeter, gpu_uuids


def _package(root, name, joules, wraps_at=1000.0):
    folder = root / name
    folder.mkdir(exist_ok=True)
    (folder / "energy_uj").write_text(str(int(joules * 1e6)))
    (folder / "max_energy_range_uj").write_text(str(int(wraps_at * 1e6)))


def test_energy_is_the_difference_of_the_package_counters(tmp_path):
    meter = EnergyMeter(powercap=tmp_path)
    _package(tmp_path, "intel-rapl:0", 10.0)
    _package(tmp_path, "intel-rapl:1", 990.0)
    _package(tmp_path, "intel-rapl:0:0", 1.0)
    _package(tmp_path, "intel-rapl:2", 1.0)
    (tmp_path / "intel-rapl:2" / "name").write_text("psys\n")
    meter.start()
    _package(tmp_path, "intel-rapl:0", 12.5)
    _package(tmp_path, "intel-rapl:1", 5.0)
    _package(tmp_path, "intel-rapl:0:0", 900.0)
    _package(tmp_path, "intel-rapl:2", 900.0)
    assert meter.stop() == 2.5 + 15.0


def test_what_is_done_in_a_pause_does_not_count(tmp_path):
    meter = EnergyMeter(powercap=tmp_path)
    _package(tmp_path, "intel-rapl:0", 990.0)
    meter.start()
    _package(tmp_path, "intel-rapl:0", 995.0)
    with meter.paused():
        _package(tmp_path, "intel-rapl:0", 20.0)
    _package(tmp_path, "intel-rapl:0", 21.0)
    assert meter.stop() == 6.0


def test_without_counters_energy_is_not_measured(tmp_path):
    meter = EnergyMeter(powercap=tmp_path / "none")
    meter.start()
    assert meter.stop() is None


class Nvml(SimpleNamespace):
    """NVML with two GPUs whose counters stand still unless told; MIG slices have none."""

    class NVMLError(Exception):
        pass

    def __init__(self):
        super().__init__(millijoules={"GPU-aa": 1000, "GPU-bb": 5000}, nvmlInit=lambda: None)

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        if handle not in self.millijoules:
            raise self.NVMLError
        return self.millijoules[handle]


def test_only_the_gpus_of_the_job_count(tmp_path, monkeypatch):
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    meters = [EnergyMeter(gpus, tmp_path) for gpus in (["GPU-bb"], ["GPU-aa", "GPU-bb"], [])]
    for meter in meters:
        meter.start()
    nvml.millijoules = {"GPU-aa": 4000, "GPU-bb": 5500}
    assert [meter.stop() for meter in meters] == [0.5, 3.5, None]


@pytest.mark.parametrize("gone", ["package", "gpu"])
def test_a_gpu_that_cannot_be_read_leaves_the_whole_unmeasured(tmp_path, monkeypatch, caplog, gone):
    caplog.set_level("INFO")
    monkeypatch.setitem(sys.modules, "pynvml", None if gone == "package" else Nvml())
    _package(tmp_path, "intel-rapl:0", 1.0)
    meter = EnergyMeter(["GPU-aa" if gone == "package" else "GPU-mig"], tmp_path)
    meter.start()
    assert meter.stop() is None
    assert "pip install 'sizewise[gpu]'" in caplog.text


def test_gpus_are_known_by_what_cuda_shows_to_this_process(monkeypatch):
    """Place 0 of CUDA_VISIBLE_DEVICES=3, or of one UUID, is not NVML's device 0."""
    shown = ["d3", "d1"]
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda place: SimpleNamespace(uuid=shown[place])
    )
    assert gpu_uuids(torch.device("cuda", 1)) == ("GPU-d1",)
    assert gpu_uuids(torch.device("cuda", 0), devices=2) == ("GPU-d3", "GPU-d1")
    assert gpu_uuids(torch.device("cpu"), devices=2) == ()
