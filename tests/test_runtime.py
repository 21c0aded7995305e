"""Environment, devices and seeds of the process."""

from __future__ import annotations

import random
import subprocess
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from sizewise import devices, runtime
from sizewise.config import TrainerConfig
from sizewise.devices import BatchSize, PeakMemory, halve_on_oom
from sizewise.errors import ConfigError, OutOfMemoryError
from sizewise.models.dtypes import resolve_precision
from sizewise.training.trainer import RENDEZVOUS, build_trainer


def test_nothing_imports_torch() -> None:
    """Telemetry is off and the hub is offline, before torch has been imported."""
    code = (
        "import os, sys\n"
        "from sizewise import runtime\n"
        "runtime.prepare_environment(hub=False); runtime.quiet()\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "print(os.environ['HF_HUB_DISABLE_TELEMETRY'], os.environ['HF_HUB_OFFLINE'],"
        " os.environ['DO_NOT_TRACK'], os.environ['WANDB_ERROR_REPORTING'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={}
    )
    assert done.stdout.split() == ["1", "1", "1", "false"]


def test_freed_tensors_leave_no_holes_in_the_memory() -> None:
    """Large blocks between small ones that stay are given back; glibc alone keeps them."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from sizewise.runtime import map_large_blocks\n"
        "assert len(sys.argv) == 1 or map_large_blocks()\n"
        "first = bytearray(b'x') * (31 << 20); del first\n"
        "large, small = [], []\n"
        "for _ in range(40):\n"
        "    large.append(bytearray(b'x') * (8 << 20)); small.append(bytearray(1000))\n"
        "del large\n"
        "print(int(Path('/proc/self/statm').read_text().split()[1]) * 4096 >> 20)\n"
    )
    command = [sys.executable, "-c", code]
    alone, ours = (
        int(subprocess.run(c, capture_output=True, text=True, check=True, env={}).stdout)
        for c in (command, [*command, "ours"])
    )
    assert ours < 100 < 300 < alone


def test_threads_of_one_job_are_not_those_of_the_next() -> None:
    before = torch.get_num_threads()

    def job() -> None:
        with runtime.use_threads(before + 1):
            assert torch.get_num_threads() == before + 1
            raise ValueError("the job failed")

    with pytest.raises(ValueError, match="job failed"):
        job()
    assert torch.get_num_threads() == before
    with runtime.use_threads(None):
        assert torch.get_num_threads() == before


def test_environment_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    runtime.prepare_environment(hub=True)
    import os

    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    assert "HF_HUB_OFFLINE" not in os.environ


def test_seed_covers_every_source() -> None:
    draws = []
    for _ in range(2):
        runtime.seed_everything(5)
        draws.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
    assert draws[0] == draws[1]


@pytest.mark.parametrize(
    ("ranks", "child"),
    [
        ({}, False),
        ({"LOCAL_RANK": "0"}, False),
        ({"LOCAL_RANK": "1"}, True),
        ({"LOCAL_RANK": "0", "SLURM_PROCID": "0"}, False),
        ({"LOCAL_RANK": "0", "SLURM_PROCID": "4"}, True),  # the first process of another node
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, True),
    ],
)
def test_further_ranks(monkeypatch: pytest.MonkeyPatch, ranks: dict[str, str], child: bool) -> None:
    for name in runtime.RANKS:
        monkeypatch.delenv(name, raising=False)
    for name, rank in ranks.items():
        monkeypatch.setenv(name, rank)
    assert runtime.is_ddp_child() is child


def test_device_and_precision() -> None:
    assert runtime.resolve_device(TrainerConfig(accelerator="cpu")) == torch.device("cpu")
    assert resolve_precision(TrainerConfig(), torch.device("cpu")) == "32-true"
    chosen = TrainerConfig(precision="bf16-mixed")
    assert resolve_precision(chosen, torch.device("cpu")) == "bf16-mixed"
    with pytest.raises(ConfigError, match="precision"):
        TrainerConfig(precision="8")


@pytest.mark.parametrize("strategy", ["ddp", "auto"])
def test_ranks_wait_longer_than_half_an_hour_for_the_first(tmp_path: Path, strategy: str) -> None:
    config = TrainerConfig(accelerator="cpu", devices=2, strategy=strategy)
    assert build_trainer(config, 1, 1, [], [], tmp_path).strategy._timeout == RENDEZVOUS


def test_what_does_not_fit_is_halved_and_its_tensors_are_let_go() -> None:
    """Likelihoods, validation and evaluation share this: nothing of a failed batch stays alive."""
    held: list[weakref.ref[torch.Tensor]] = []

    def work(rows: Sequence[int]) -> int:
        assert all(tensor() is None for tensor in held)
        tensor = torch.zeros(len(rows))
        if len(rows) > 2:
            held.append(weakref.ref(tensor))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return len(tensor)

    sizes = BatchSize(8)
    found = list(halve_on_oom([range(8), range(8, 11)], sizes, work))
    assert [row for rows, _ in found for row in rows] == list(range(11))
    assert [count for _, count in found] == [2, 2, 2, 2, 2, 1]
    assert (sizes.size, sizes.failed, len(held)) == (2, [8, 4], 2)


def test_a_single_example_that_does_not_fit_says_what_to_lower() -> None:
    def work(rows: Sequence[int]) -> None:
        raise MemoryError

    sizes = BatchSize(2, "one single answer was read", "dataset.max_length")
    with pytest.raises(OutOfMemoryError, match=r"while one single answer was read. Lower dataset"):
        list(halve_on_oom([range(2)], sizes, work))

    def broken(rows: Sequence[int]) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        list(halve_on_oom([range(2)], BatchSize(2), broken))


def test_a_peak_is_seen_by_whoever_measures_also_where_another_begins_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the jobs of a pack do: what begins a new peak of the process ends nobody's own."""
    peak = [0]
    monkeypatch.setattr(devices, "resident_peak", lambda status: peak[0])
    monkeypatch.setattr(devices, "_cuda_in_use", lambda: None)
    cpu = torch.device("cpu")
    one = PeakMemory(cpu, less=5)
    peak[0] = 100
    other = PeakMemory(cpu)
    peak[0] = 40
    assert (one.read(), other.read()) == (95, 40)
    peak[0] = 120
    assert (one.read(), other.read()) == (115, 120)


@pytest.mark.parametrize(("grows", "waited"), [(4.0, 7.0), (0.0, 3.0), (1e9, 60.0)])
def test_memory_of_processes_that_end_is_waited_for(
    grows: float, waited: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Free memory grows for some seconds; it is waited for until it has not for three."""
    clock = [100.0]
    monkeypatch.setattr(devices.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(devices.time, "sleep", lambda s: clock.__setitem__(0, clock[0] + s))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda card: (1 + min(clock[0] - 100, grows) * card, 9)
    )
    devices.wait_for_memory(2)
    assert clock[0] - 100 == pytest.approx(waited, abs=0.5)


def test_a_card_that_another_process_has_for_itself_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]

    def told(card: int) -> tuple[int, int]:
        if clock[0] < 8:
            raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")
        return 5, 9

    monkeypatch.setattr(devices.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(devices.time, "sleep", lambda s: clock.__setitem__(0, clock[0] + s))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", told)
    devices.wait_for_memory(4)
    assert clock[0] == pytest.approx(11, abs=0.5)


def test_what_is_held_unmeasured_is_nobodys_peak() -> None:
    peak = PeakMemory(torch.device("cpu"))
    before = peak.read()
    assert before is not None
    with devices.unmeasured():
        held = torch.ones(2**26)
        held.add_(1)
        del held
    after = peak.read()
    assert after is not None
    assert after - before < 2**27, "a quarter of a gigabyte was held"
