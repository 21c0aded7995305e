"""Tiny fits as processes of their own, forked from a server that has imported everything once."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from tests.training.toys import (
    adapted,
    fit_toy,
    make_module,
    quantised_base,
    tiny_base,
    toy_data,
    weights,
)

from sizewise.models.adapter.fast_lora import LoraLinear, speed_up
from sizewise.training.sharding import is_sharded

ROOT = Path(__file__).resolve().parents[2]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.preloaded"])


class KillSelf(pl.Callback):
    """Sends this process a signal (SIGKILL unless told) when a hook is called the n-th time."""

    def __init__(self, hook: str, count: int, number: int = signal.SIGKILL) -> None:
        self.remaining, self.number = count, number
        setattr(self, hook, self._count)

    def _count(self, *args: Any, **kwargs: Any) -> None:
        self.remaining -= 1
        if self.remaining == 0:
            os.kill(os.getpid(), self.number)


def fit(
    run_dir: Path,
    kill: tuple[Any, ...],
    dropout: float,
    environment: dict[str, str],
    **options: Any,
) -> None:
    """Fit, and write what it came to beside the run."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    data = toy_data(
        validation=options.pop("validation", 6),
        batch_size=options.get("batch_size", 2), accumulate=options.get("accumulate", 2),
    )  # fmt: skip
    base = stored_base(options.pop("storage", "fp32"), run_dir)
    model = adapted(base, dropout)
    assert speed_up(model)
    leant, apply = [], LoraLinear.apply
    LoraLinear.apply = lambda *args: leant.append(1) or apply(*args)  # type: ignore[method-assign]
    module, result = fit_toy(
        run_dir, make_module(model), data,
        [KillSelf(*kill)] if kill else [], **options,
    )  # fmt: skip
    assert leant, "no layer took the lean passes"
    assert not torch.distributed.is_initialized(), "the next fit of a process forms its own group"
    if os.environ.get("LOCAL_RANK", "0") == "0":
        if not is_sharded(module.model):
            torch.save(weights(module), run_dir / "weights.pt")
        (run_dir / "result.json").write_text(json.dumps(vars(result)))


def stored_base(storage: str, run_dir: Path) -> torch.nn.Module:
    """Load the tiny base in fp32, bf16, or NF4 packed into fp32 (which is its compute dtype)."""
    if storage == "nf4":
        folder = run_dir / f"base{os.environ.get('LOCAL_RANK', '0')}"
        return quantised_base("nf4", folder, torch.float32)
    return tiny_base().to(torch.bfloat16 if storage == "bf16" else torch.float32)


def start(
    run_dir: Path, kill: tuple[Any, ...] = (), dropout: float = 0.1,
    environment: dict[str, str] | None = None, **options: Any,
) -> Any:  # fmt: skip
    """Start a fit in a process of its own."""
    run_dir.mkdir(exist_ok=True)
    return forked(fit, run_dir, kill, dropout, environment or {}, **options)


def forked(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Start a function in a process of its own."""
    process = SERVER.Process(target=function, args=arguments, kwargs=options)
    with chdir(ROOT):  # elsewhere the server would not find what to import, and not say so
        process.start()
    return process


def exit_code(process: Any) -> int:
    """Wait for a process; it is stopped after five minutes."""
    process.join(300)
    if process.is_alive():
        process.kill()
        process.join()
        raise TimeoutError("the fit did not end")
    return int(process.exitcode)


def rank_environments(world: int) -> list[dict[str, str]]:
    """What a launcher such as torchrun sets for the processes of one job on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world),
              "NODE_RANK": "0", "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
    return [common | {"LOCAL_RANK": str(rank)} for rank in range(world)]


def read(run_dir: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the record (without times) and the weights of a finished fit."""
    record = json.loads((run_dir / "result.json").read_text())
    for name in ("seconds", "peak_bytes"):
        del record[name]
    return record, torch.load(run_dir / "weights.pt", weights_only=True)
