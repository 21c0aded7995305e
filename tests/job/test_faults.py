"""Files of a run and of the caches, damaged at random: the same outcome, or one clear message."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from tests.job.comparing import answers, comparable

from sizewise.app.chat.speakers import Choir, speakers_of
from sizewise.composition.compose import compose_run
from sizewise.config import RunConfig
from sizewise.errors import ConfigError
from sizewise.job import fitting, run
from sizewise.job.execute import Interrupts, JobResult, execute
from sizewise.job.finished import of_finished_run
from sizewise.job.submit import make_job, submit
from sizewise.record.directories import RunDir
from sizewise.record.identity import plain_config
from sizewise.record.outcome import read_outcome
from sizewise.record.predictions import PredictionStore
from sizewise.record.state import JobState
from sizewise.release.export import export_run
from sizewise.release.generate import load_run_model, open_run
from sizewise.report.comparison.runs import Run
from sizewise.verify import FAILED, OK
from sizewise.verify.verify import verify_run

SHORT, LONG = 40, 300
SMALLEST = (
    "model=nano", "lora.r=2", "logger=none", "callbacks=none", "report=false",
    "dataset.max_train=4", "dataset.max_validation=2", "dataset.max_test=4", "metric=[icd10]",
    "trainer.max_steps=3", "trainer.batch_size=2", "trainer.validate_every=1",
    "trainer.checkpoint_every=1", "trainer.progress_bar=false", "optimizer.lr=3e-3",
    "generation.max_new_tokens=2", "evaluation.warmup_batches=0", "evaluation.timed_answers=0",
)  # fmt: skip
# What nobody reads again, and what only says that somebody works here.
NOT_READ = ("job.log",)


class KilledError(Exception):
    """Stands for the end of the process."""


def killed(*_: Any, **__: Any) -> Any:
    raise KilledError


@pytest.fixture(scope="module")
def job() -> RunConfig:
    return compose_run(list(SMALLEST))


def start(job: RunConfig, root: Path) -> JobResult:
    """What the command does: submit the job, and run it in its directory."""
    job = replace(job, paths=replace(job.paths, cache=str(root / "cache")))
    submit(make_job(plain_config(job), root / "run"))
    return execute(root / "run", Interrupts(enabled=False))


def in_the_fit(patch: pytest.MonkeyPatch) -> None:
    class Kill(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == 2:
                raise KilledError

    patch.setattr(fitting, "callbacks", lambda *_: [Kill()])


def after_the_fit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(run, "score_tuned", killed)


def between_two_answers(patch: pytest.MonkeyPatch) -> None:
    append = PredictionStore.append

    def once(store: PredictionStore, rows: Any) -> None:
        if store.path.exists() and store.path.name.startswith("tuned"):
            raise KilledError
        append(store, rows)

    patch.setattr(PredictionStore, "append", once)


def before_the_record(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("sizewise.job.run.write_outcome", killed)


def never(patch: pytest.MonkeyPatch) -> None:
    """Let the job end."""


STATES = (in_the_fit, after_the_fit, between_two_answers, before_the_record, never)


@pytest.fixture(scope="module")
def states(job: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The job as it lies on disk after it was killed at each of these moments."""
    found: dict[str, Path] = {}
    for kill in STATES:
        root = tmp_path_factory.mktemp(kill.__name__)
        with pytest.MonkeyPatch.context() as patch:
            kill(patch)
            ended = JobState.DONE if kill is never else JobState.FAILED
            assert start(job, root).state == ended
        for claim in root.rglob(".claims/*.json"):
            # The process that was killed is not this one.
            claim.write_text(json.dumps({**json.loads(claim.read_text()), "started": "1"}))
            os.utime(claim, (0, 0))
        found[kill.__name__] = root
    found["caches_alone"] = tmp_path_factory.mktemp("caches_alone")
    shutil.copytree(found["never"] / "cache", found["caches_alone"] / "cache")
    return found


def empty(content: bytearray, draw: random.Random) -> bytes:
    return b""


def truncate(content: bytearray, draw: random.Random) -> bytes:
    return bytes(content[: draw.randrange(len(content))])


def flip(content: bytearray, draw: random.Random) -> bytes:
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(content)


DAMAGES: tuple[Callable[[bytearray, random.Random], bytes], ...] = (empty, truncate, flip, flip)


def damage(root: Path, draw: random.Random) -> None:
    """Damage one file of a run or of the caches."""
    files = [p for p in sorted(root.rglob("*")) if p.is_file() and p.stat().st_size]
    path = draw.choice([p for p in files if p.name not in NOT_READ])
    way, stat = draw.choice(DAMAGES), path.stat()
    path.write_bytes(way(bytearray(path.read_bytes()), draw))
    print(f"{way.__name__} {path.relative_to(root)}")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # a disk that forgets leaves no trace


def follow(message: str) -> None:
    """Do what a message says: remove the file that it names, or only start again."""
    assert not re.match(r"\w*(Error|Exception)\b", message), message
    assert "Traceback" not in message
    if re.search(r"\b([Rr]emove|[Dd]elete)\b", message):
        (path,) = {
            Path(p) for p in re.findall(r"(/\S+?)[,.:]?(?=\s|$)", message) if Path(p).is_file()
        }
        path.unlink()


def check_fault(job: RunConfig, states: dict[str, Path], root: Path, seed: int) -> None:
    draw = random.Random(seed)
    name = draw.choice(sorted(states))
    shutil.copytree(states[name], root, dirs_exist_ok=True)
    damage(root, draw)
    result = start(job, root)
    if result.state == JobState.FAILED:
        assert result.message is not None
        follow(result.message)
        result = start(job, root)
    assert result.state == JobState.DONE, result
    # Nothing reads the answers of a job that is done but a report, and `sizewise verify`.
    read = name != "never"
    assert whole(root / "run", read) == whole(states["never"] / "run", read)


def whole(run_dir: Path, read: bool = True) -> tuple[dict[str, Any], Any, list[Any]]:
    """Everything but times and memory: the record, what it took, and every answer that is read."""
    cost = json.loads(RunDir(run_dir).outcome.read_text())["cost"]
    counted = {name: cost[name] for name in ("train_steps", "train_tokens", "batch_size")}
    files = sorted(RunDir(run_dir).all_predictions.glob("*.jsonl")) if read else []
    return comparable(run_dir), counted, [answers(path) for path in files]


@pytest.mark.parametrize("seed", range(SHORT))
def test_a_file_damaged_at_random_gives_the_same_outcome_or_one_clear_message(
    job: RunConfig, states: dict[str, Path], tmp_path: Path, seed: int
) -> None:
    check_fault(job, states, tmp_path, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(SHORT, SHORT + LONG))
def test_hundreds_of_files_damaged_at_random_never_give_another_number(
    job: RunConfig, states: dict[str, Path], tmp_path: Path, seed: int
) -> None:
    check_fault(job, states, tmp_path, seed)


def test_a_damaged_adapter_of_a_finished_run_is_not_scored_again(
    job: RunConfig, states: dict[str, Path], tmp_path: Path
) -> None:
    run_dir = shutil.copytree(states["never"] / "run", tmp_path / "run")
    again = replace(job, run=str(run_dir))
    assert of_finished_run(again).adapter == str(RunDir(run_dir).adapter)
    path = RunDir(run_dir).adapter / "adapter_model.safetensors"
    path.write_bytes(flip(bytearray(path.read_bytes()), random.Random(0)))
    with pytest.raises(ConfigError, match=r"is damaged: adapter/.* is not what the training wrote"):
        of_finished_run(again)


@pytest.mark.parametrize("use", ["generate", "export", "chat"])
def test_a_damaged_adapter_is_neither_exported_nor_asked(
    states: dict[str, Path], tmp_path: Path, use: str
) -> None:
    run_dir = shutil.copytree(states["never"] / "run", tmp_path / "run")
    use_of = {
        "generate": lambda: load_run_model(open_run(run_dir)),
        "export": lambda: export_run(run_dir, tmp_path / "out", examples=0),
        "chat": lambda: Choir().prepare(speakers_of(Run(run_dir, read_outcome(run_dir)))),
    }
    path = RunDir(run_dir).adapter / "adapter_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(flip(bytearray(whole), random.Random(0)))
    with pytest.raises(ConfigError, match=r"is damaged: adapter/.* is not what the training wrote"):
        use_of[use]()
    assert not (tmp_path / "out").exists()
    path.write_bytes(whole)
    use_of[use]()


def test_verify_finds_every_damaged_file_that_a_finished_run_reports(
    states: dict[str, Path], tmp_path: Path
) -> None:
    run_dir = shutil.copytree(states["never"] / "run", tmp_path / "run")
    checks = {check.name: check.status for check in verify_run(run_dir, data=False).checks}
    assert FAILED not in checks.values()
    assert checks["training figures"] == checks["other sizes of the model"] == OK
    outcome = read_outcome(run_dir)
    refs = [*outcome.files.values(), *(e.predictions for e in outcome.base.values())]
    refs += [e.predictions for e in (outcome.tuned or {}).values()]
    paths = [run_dir / ref.path for ref in refs] + [RunDir(run_dir).outcome]
    assert len(paths) >= 7
    draw = random.Random(0)
    for path in paths:
        whole = path.read_bytes()
        for way in (flip, truncate, empty):
            path.write_bytes(way(bytearray(whole), draw))
            assert not verify_run(run_dir, data=False).ok, (way, path)
        path.write_bytes(whole)


def test_the_states_of_a_killed_job_hold_what_a_fault_may_hit(states: dict[str, Path]) -> None:
    run = {name: RunDir(root / "run") for name, root in states.items()}
    assert run["in_the_fit"].last_checkpoint.is_file()
    assert run["in_the_fit"].best_weights.is_file()
    assert run["after_the_fit"].fit.is_file()
    half = run["between_two_answers"].all_predictions.glob("tuned.*.jsonl")
    assert [len(path.read_text().splitlines()) for path in half] == [2]
    assert not run["before_the_record"].outcome.exists()
    assert run["never"].outcome.is_file()
    cache = states["caches_alone"] / "cache"
    assert {path.suffix for path in cache.rglob("*") if path.is_file()} >= {".npz", ".jsonl"}
