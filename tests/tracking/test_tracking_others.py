"""TensorBoard, CSV and the errors of what is not installed or no logger."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf
from tests.report.factory import Spec, Task, make_run
from tests.tracking.tracking_helpers import fit

from sizewise.config.evaluation import LoggerConfig
from sizewise.config.register import conf_dir
from sizewise.errors import ConfigError
from sizewise.record.outcome import read_outcome
from sizewise.tracking import finish_loggers, make_loggers

CSV = {"_target_": "sizewise.tracking.local.CsvBackend"}
MLFLOW = {"_target_": "sizewise.tracking.mlflow.MlflowBackend"}
TENSORBOARD = {"_target_": "sizewise.tracking.local.TensorBoardBackend"}


def csv_rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "csv" / "metrics.csv").open() as handle:
        return list(csv.DictReader(handle))


def scalars(run_dir: Path) -> dict[str, list[int]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    return {tag: [e.step for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_a_restarted_run_is_one_csv_and_one_event_history(tmp_path: Path) -> None:
    make_run(tmp_path, Spec(task=Task(examples=4)))
    logger = LoggerConfig(False, {"csv": CSV, "tensorboard": TENSORBOARD})
    with pytest.raises(RuntimeError, match="planned"):
        fit(tmp_path, make_loggers(logger, tmp_path, "a"), [], die_at=10)
    loggers = make_loggers(logger, tmp_path, "a")
    fit(tmp_path, loggers, [])
    finish_loggers(loggers, read_outcome(tmp_path), error=False)
    steps = [int(row["step"]) for row in csv_rows(tmp_path) if row["train/loss"]]
    assert steps == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23]
    found = scalars(tmp_path)
    assert found["train/loss"] == steps
    assert found["summary/quality/gain"] == [23]
    assert csv_rows(tmp_path)[-1]["summary/quality/tuned"] != ""


def test_options_combine() -> None:
    files = {path.stem: OmegaConf.load(path) for path in (conf_dir() / "logger").glob("*.yaml")}
    assert set(files) == {"wandb", "tensorboard", "csv", "mlflow", "trackio", "none"}
    assert files.pop("none") == {"backends": {}}
    merged = OmegaConf.merge(OmegaConf.structured(LoggerConfig), *files.values())
    assert set(merged.backends) == set(files)
    for node in merged.backends.values():
        assert callable(get_class(node["_target_"]).start)


def test_a_lightning_logger_of_the_users_own_is_taken_as_it_is(tmp_path: Path) -> None:
    node = {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": str(tmp_path / "own")}
    loggers = make_loggers(LoggerConfig(False, {"own": OmegaConf.create(node)}), tmp_path, "a")
    fit(tmp_path, loggers, [])
    finish_loggers(loggers, None, error=False)
    assert list((tmp_path / "own").rglob("metrics.csv"))


def test_what_is_no_logger_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"logger\.backends\.odd \(pathlib\.Path\) is no Logger"):
        make_loggers(LoggerConfig(False, {"odd": {"_target_": "pathlib.Path"}}), tmp_path, "a")


def test_a_restarted_run_is_one_mlflow_run_with_one_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    address = f"sqlite:///{tmp_path / 'runs.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    make_run(tmp_path, Spec(task=Task(examples=4)))
    logger = LoggerConfig(False, {"mlflow": MLFLOW})
    config = {"lora": {"r": 8}, "eval_dataset": {"été (1)@x": {"primary": "y"}}}
    with pytest.raises(RuntimeError, match="planned"):
        fit(tmp_path, make_loggers(logger, tmp_path, "a", config=config), [], die_at=10)
    loggers = make_loggers(logger, tmp_path, "a", config=config)
    fit(tmp_path, loggers, [])
    finish_loggers(loggers, read_outcome(tmp_path), error=False)
    client = MlflowClient(address)
    (run,) = client.search_runs([client.get_experiment_by_name("sizewise").experiment_id])
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [entry.step for entry in history] == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23]
    assert run.data.params["lora.r"] == "8"
    assert "y" in run.data.params.values()
    assert "summary/quality/gain" in run.data.metrics


def test_two_jobs_that_begin_an_experiment_at_once_share_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    from sizewise.tracking.mlflow import experiment_id

    client = MlflowClient(f"sqlite:///{tmp_path / 'runs.db'}")
    find, answers = client.get_experiment_by_name, iter([None])
    theirs = client.create_experiment("sizewise")
    monkeypatch.setattr(
        client, "get_experiment_by_name", lambda name: next(answers, find) and find(name)
    )
    assert experiment_id(client, "sizewise") == theirs


def test_missing_mlflow_or_address_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sizewise.tracking import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    logger = LoggerConfig(False, {"mlflow": MLFLOW})
    monkeypatch.setattr(mlflow, "find_spec", lambda name: None)
    with pytest.raises(Exception, match=r"sizewise\[mlflow\]"):
        make_loggers(logger, tmp_path, "a")
    monkeypatch.setattr(mlflow, "find_spec", lambda name: object())
    for address in (None, "runs", "file:///runs"):
        if address is not None:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(Exception, match=r"MLFLOW_TRACKING_URI .*no longer takes folders"):
            make_loggers(logger, tmp_path, "a")
