"""Jobs that do nothing slow: they write an outcome, or end in the way their seed asks for."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import time
from dataclasses import asdict
from pathlib import Path

from sizewise.config import PricesConfig, RunConfig
from sizewise.errors import DivergedError
from sizewise.job.submit import submitted_stop
from sizewise.record.identity import run_identity
from sizewise.record.outcome import CostFacts, DataFacts, ModelFacts, Outcome, write_outcome
from sizewise.record.stops import FitStopped, Stop

RAISES, EXITS, KILLED, NAN = 901, 902, 903, 906


def job(cfg: RunConfig, run_dir: Path) -> Outcome:
    note(run_dir, "begin", {"cuda": os.environ.get("CUDA_VISIBLE_DEVICES"), "pid": os.getpid()})
    print(f"job {run_dir.name}")
    if cfg.seed == RAISES and not repaired(run_dir):
        raise ValueError("this job was made to fail")
    if cfg.seed == EXITS and not repaired(run_dir):
        os._exit(3)
    if cfg.seed == KILLED and not repaired(run_dir):
        os.kill(os.getpid(), signal.SIGKILL)
    first = sum(entry["what"] == "begin" for entry in trace(run_dir)) == 1
    if first or "FAKE_SLOW_ONCE" not in os.environ:
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
    wait_at_gate(run_dir.parent)
    objective = float(cfg.seed) + cfg.lora.r / 100
    outcome = make_outcome(cfg, float("nan") if cfg.seed == NAN else objective)
    write_outcome(outcome, run_dir)
    note(run_dir, "end", {})
    return outcome


def tuned(cfg: RunConfig, run_dir: Path) -> Outcome:
    """A fit of 100 steps that stops where it is asked to.

    Its loss is lowest at a rate of 0.01 for rank 4, else at 0.001, and no number above 1. Rank 13
    fails at 0.001 unless the sweep was repaired.
    """
    share, lr = submitted_stop(run_dir), cfg.optimizer.lr
    note(run_dir, "begin", {"stop": share})
    if cfg.lora.r == 13 and lr == 1e-3 and not repaired(run_dir):
        raise ValueError("this job was made to fail")
    if lr > 1:
        stop = Stop(3, None, share, 100, 0.1, 1, reason="The training loss is nan")
        raise DivergedError(stop.reason) if share is None else FitStopped(stop)
    best = 1e-2 if cfg.lora.r == 4 else 1e-3
    loss = 1 + abs(math.log10(lr / best)) + cfg.seed / 100
    if share is not None and share < 1:
        raise FitStopped(Stop(round(100 * share), 2 * loss, share, 100, 2.0, 10))
    outcome = make_outcome(cfg, loss)
    write_outcome(outcome, run_dir)
    return outcome


def held(cfg: RunConfig, run_dir: Path) -> Outcome:
    """A job that begins and waits, for a minute at most, until the sweep has a file ``go``."""
    note(run_dir, "begin", {})
    until = time.monotonic() + 60
    while not (run_dir.parent / "go").exists():
        if time.monotonic() > until:
            raise TimeoutError("nobody let it go on")
        time.sleep(0.02)
    return job(cfg, run_dir)


def stumbling(cfg: RunConfig, run_dir: Path) -> Outcome:
    """A fit that stops at a rung, fails when it goes on from there, and ends when it is retried."""
    begun = sum(entry["what"] == "begin" for entry in trace(run_dir))
    if begun < 2:
        note(run_dir, "begin", {})
    if begun == 0:
        raise FitStopped(Stop(50, 1.0, 0.5, 100, 2.0, 10))
    if begun == 1:
        raise ValueError("this job was made to stumble")
    return job(cfg, run_dir)


def opening(cfg: RunConfig, run_dir: Path) -> Outcome:
    """A job that lets those that are held go on."""
    (run_dir.parent / "go").touch()
    return job(cfg, run_dir)


def full_disk(cfg: RunConfig, run_dir: Path) -> Outcome:
    """From here on no file may grow in this process, unless the sweep was repaired."""
    if not repaired(run_dir):
        no_file_grows()
    return job(cfg, run_dir)


def no_file_grows() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def finish(
    sweep_dir: Path,
    run_dirs: list[Path],
    failures: list[object],
    *,
    prices: PricesConfig,
    margin: float | None,
) -> None:
    with (sweep_dir / "summaries.jsonl").open("a") as handle:
        handle.write(json.dumps({"done": len(run_dirs), "failed": len(failures)}) + "\n")


def wait_at_gate(sweep_dir: Path) -> None:
    """Wait for the file FAKE_GATE; the first FAKE_GATE_AFTER jobs of a sweep pass."""
    gate, passing = os.environ.get("FAKE_GATE"), int(os.environ.get("FAKE_GATE_AFTER", "0"))
    if gate and len(list(sweep_dir.glob("*/outcome.json"))) >= passing:
        while not Path(gate).exists():
            time.sleep(0.05)


def repaired(run_dir: Path) -> bool:
    return (run_dir.parent / "repaired").exists()


def note(run_dir: Path, what: str, values: dict[str, object]) -> None:
    with (run_dir / "trace.jsonl").open("a") as handle:
        handle.write(json.dumps({"what": what, **values}) + "\n")


def trace(run_dir: Path) -> list[dict[str, object]]:
    path = run_dir / "trace.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def make_outcome(cfg: RunConfig, objective: float | None) -> Outcome:
    identity = run_identity(cfg)
    return Outcome(
        run_id=identity.slug,
        identity=identity.hash,
        config=asdict(cfg),
        model=ModelFacts(
            name=cfg.model.name,
            path=cfg.model.path,
            revision=None,
            family="causal",
            model_type="fake",
            params_total=1000 * cfg.lora.r,
            params_trainable=cfg.lora.r,
            params_base=1000,
            base_bytes=1,
            memory_bytes=1,
            adapter_bytes=1,
            dtype="float32",
            quantization="none",
            lora_method=cfg.lora.method,
            lora_r=cfg.lora.r,
            lora_alpha=None,
            lora_scale=None,
            chat_template="none",
        ),
        data=DataFacts(
            name=cfg.dataset.name,
            sizes={},
            fingerprints={},
            dropped={},
            report={},
            prompt_fingerprint="",
        ),
        cost=CostFacts(),
        primary="icd10/exact",
        direction="max",
        base={},
        tuned=None,
        validation={"val_loss": objective or 0.0},
        objective=objective,
        seed=cfg.seed,
        provenance={},
    )
