"""Read back with W&B's own tool: one run per job, one folder, one whole history."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from tests.e2e.commands import begin, printed
from tests.report.factory import Spec, Task, make_run
from tests.tracking.tracking_helpers import (
    fit,
    history,
    inspect_records,
    inspect_summary,
    offline_folders,
    wandb_tool,
)
from tests.training.jobs import exit_code

from sizewise.config.evaluation import LoggerConfig
from sizewise.record.outcome import read_outcome
from sizewise.tracking import finish_loggers, make_loggers
from sizewise.tracking.summary_run import SweepSummary, write_summary_run
from sizewise.tracking.wandb_run import choose_mode

WANDB = {"wandb": {"_target_": "sizewise.tracking.wandb_backend.WandbBackend"}}
SMALL = Task(examples=10)


def config(log_examples: bool = False) -> LoggerConfig:
    return LoggerConfig(log_examples, WANDB)


def one_run(run_dir: Path, run_id: str = "abc", **options: Any) -> Path:
    make_run(run_dir, Spec(task=SMALL))
    cfg = OmegaConf.create({"lora": {"r": 8, "alpha": "${lora.r}"}, "names": ["x"]})
    loggers = make_loggers(config(**options), run_dir, run_id, "my_sweep", "train", ["nano"], cfg)
    fit(run_dir, loggers, [])
    finish_loggers(loggers, read_outcome(run_dir), error=False)
    (folder,) = offline_folders(run_dir)
    return folder


def test_offline_run_reads_back_whole(tmp_path: Path) -> None:
    folder = one_run(tmp_path / "job")
    text = wandb_tool("leet", "inspect", "--summary", str(folder))
    assert "finished (exit code 0)" in text
    found = inspect_summary(folder)
    assert found["run_id"] == "abc"
    assert found["tags"] == ["nano"]
    config = found["config"]
    assert (config["lora.r"], config["lora.alpha"], config["names"]) == (8, 8, ["x"])
    summary = found["summary"]
    assert summary["quality/zero_shot"] == pytest.approx(0.2)
    assert summary["quality/tuned"] == pytest.approx(0.6)
    assert summary["quality/gain"] == pytest.approx(0.4)
    assert summary["size/params"] == 308_000
    assert summary["cost/train_seconds"] == 60
    assert found["console"] == []
    (run,) = [r["run"] for r in inspect_records(folder) if r["type"] == "run"][:1]
    assert run["run_group"] == "my_sweep"
    assert run["job_type"] == "train"
    items = history(folder)
    assert [item["_step"] for item in items] == list(range(len(items)))
    assert items[-1]["trainer/global_step"] == 23


def test_texts_of_examples_stay_here_unless_asked(tmp_path: Path) -> None:
    silent = one_run(tmp_path / "silent")
    asked = one_run(tmp_path / "asked", log_examples=True)
    assert not any(b"Patient 1" in f.read_bytes() for f in silent.rglob("*") if f.is_file())
    (table,) = asked.rglob("examples*.table.json")
    rows = json.loads(table.read_text())
    assert rows["columns"] == ["id", "prompt", "reference", "base", "tuned"]
    assert len(rows["data"]) == 10


def test_several_jobs_of_one_process_are_several_runs(tmp_path: Path) -> None:
    folders = [one_run(tmp_path / f"job{n}", f"id{n}") for n in range(3)]
    assert [inspect_summary(f)["run_id"] for f in folders] == ["id0", "id1", "id2"]


def test_a_long_name_of_a_model_does_not_keep_a_run_from_opening(tmp_path: Path) -> None:
    loggers = make_loggers(config(), tmp_path, "abc", tags=["m" * 70, "", "data"])
    loggers[0].log_metrics({"train/loss": 1.0}, step=1)
    loggers[1].log_metrics({"train/loss": 1.0}, step=1)
    finish_loggers(loggers, None, error=False)
    (folder,) = offline_folders(tmp_path)
    assert inspect_summary(folder)["tags"] == ["m" * 64, "data"]


def test_failed_job_is_closed_as_failed(tmp_path: Path) -> None:
    loggers = make_loggers(config(), tmp_path, "abc")
    with pytest.raises(RuntimeError, match="planned"):
        fit(tmp_path, loggers, [], die_at=6)
    finish_loggers(loggers, None, error=True)
    (folder,) = offline_folders(tmp_path)
    assert inspect_summary(folder)["exit_code"] == 1


DIES = """
import os, signal, sys
from pathlib import Path
from tests.tracking.tracking_helpers import TinyModule, fit
import pytorch_lightning as pl
from sizewise.config.evaluation import LoggerConfig
from sizewise.tracking import make_loggers

class Kill(pl.Callback):
    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == 13:
            os.kill(os.getpid(), signal.SIGKILL)

run = Path(sys.argv[1])
backends = {"wandb": {"_target_": "sizewise.tracking.wandb_backend.WandbBackend"}}
save = pl.callbacks.ModelCheckpoint(run / "ckpt", filename="x", every_n_train_steps=5)
loggers = make_loggers(LoggerConfig(False, backends), run, "abc")
fit(run, loggers, [save, Kill()])
"""


def test_killed_run_goes_on_as_one_run_with_one_history(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = history(one_run(whole))
    script = tmp_path / "dies.py"
    script.write_text(DIES)
    done = exit_code(begin([str(script), str(killed)], tmp_path, {}))
    assert done == -signal.SIGKILL, printed(tmp_path)
    (before,) = offline_folders(killed)
    time.sleep(1.1)  # W&B names folders by the second

    loggers = make_loggers(config(), killed, "abc")
    checkpoint = next((killed / "ckpt").glob("*.ckpt"))
    fit(killed, loggers, [], checkpoint=checkpoint)
    finish_loggers(loggers, None, error=False)
    (after,) = offline_folders(killed)
    assert after != before
    assert history(after) == expected


def test_requeued_job_keeps_its_id_and_foreign_folders_stay(tmp_path: Path) -> None:
    other = tmp_path / "wandb" / "offline-run-20200101_000000-other"
    other.mkdir(parents=True)
    for _ in range(2):
        loggers = make_loggers(config(), tmp_path, "abc")
        fit(tmp_path, loggers, [])
        finish_loggers(loggers, None, error=False)
    ids = [folder.name.split("-")[-1] for folder in offline_folders(tmp_path)]
    assert sorted(ids) == ["abc", "other"]


def test_nobody_logged_in_means_offline_without_a_prompt(caplog: pytest.LogCaptureFixture) -> None:
    from sizewise.tracking import wandb_run

    wandb_run._said.clear()
    caplog.set_level("INFO")
    assert [choose_mode(mode) for mode in ("auto", "online", "offline")] == ["offline"] * 3
    assert sum("nobody is logged in" in r.message for r in caplog.records) == 1


def test_credentials_mean_online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine api.wandb.ai login user password 0123\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert choose_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert choose_mode("auto") == "offline"
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert choose_mode("auto") == "online"


def test_server_that_does_not_answer_gives_an_offline_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from sizewise.tracking import wandb_run

    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_run, "CONNECT_SECONDS", 2.0)
    monkeypatch.setattr(wandb_run, "_unreachable", set())
    loggers = make_loggers(config(), tmp_path, "abc")
    fit(tmp_path, loggers, [])
    finish_loggers(loggers, None, error=False)
    assert len(offline_folders(tmp_path)) == 1
    assert choose_mode("auto") == "offline"


def test_error_reporting_of_wandb_is_off() -> None:
    from sizewise.tracking.wandb_run import import_wandb

    import_wandb()
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"


def test_finished_sweep_has_one_summary_run_however_often(tmp_path: Path) -> None:
    summary = SweepSummary(["run", "score"], [["a", 0.5], ["b", float("nan")]], {"best": 0.5})
    assert write_summary_run(tmp_path, "my_sweep", {}, summary)
    assert not write_summary_run(tmp_path, "my_sweep", {}, summary)
    (first,) = offline_folders(tmp_path)
    found = inspect_summary(first)
    assert found["summary"]["best"] == 0.5
    assert found["summary"]["runs"]["nrows"] == 2
    more = SweepSummary(["run", "score"], [["a", 0.5], ["b", 0.7]], {"best": 0.7})
    assert write_summary_run(tmp_path, "my_sweep", {}, more)
    (second,) = offline_folders(tmp_path)
    assert inspect_summary(second)["run_id"] == found["run_id"]
