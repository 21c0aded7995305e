"""Trackio: one run per job, read back with Trackio's own command and its own import."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.report.factory import Spec, Task, make_run
from tests.tracking.tracking_helpers import fit, tools

from sizewise.composition.compose import compose_run
from sizewise.config.evaluation import LoggerConfig
from sizewise.job.preflight import preflight
from sizewise.record.history import Line, rewrite
from sizewise.record.outcome import read_outcome
from sizewise.tracking import finish_loggers, make_loggers

TARGET = "sizewise.tracking.trackio.TrackioBackend"
LOGGER = LoggerConfig(False, {"trackio": {"_target_": TARGET}})
CONFIG = {"lora": {"r": 8}, "model": {"name": "nano"}, "eval_dataset": {"été@x": {"primary": "y"}}}
STEPS = [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Trackio's own for the test: Trackio reads its place when it is imported."""
    import trackio.fragments  # noqa: F401  the last one of those that know the place

    folder = tmp_path / "trackio"
    knowing = [m for name, m in sys.modules.items() if name.split(".")[0] == "trackio"]
    knowing = [module for module in knowing if hasattr(module, "TRACKIO_DIR")]
    assert len(knowing) > 1
    for module in knowing:
        monkeypatch.setattr(module, "TRACKIO_DIR", folder)
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_STORAGE_MODE"):
        monkeypatch.delenv(name, raising=False)
    return folder


def told(store: Path, *arguments: str) -> Any:
    """What the command ``trackio`` says of a project."""
    command = ["trackio", *arguments, "--project", "sizewise", "--json"]
    done = tools().run(
        f"import sys; from trackio.cli import main; sys.argv = {command}; main()", store.parent
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tracked(run_dir: Path, consent: bool = False, die_at: int | None = None) -> None:
    """A fit of three epochs with Trackio, finished with the record of the directory."""
    logger = LoggerConfig(consent, LOGGER.backends)
    loggers = make_loggers(logger, run_dir, "swp-a1", "my_sweep", tags=["r=8"], config=CONFIG)
    fit(run_dir, loggers, [], die_at=die_at)
    finish_loggers(loggers, read_outcome(run_dir), error=False)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return make_run(tmp_path / "micro_1", Spec(task=Task(examples=4)))


def test_a_run_that_was_killed_goes_on_as_the_same_run_of_trackio(
    run_dir: Path, store: Path
) -> None:
    with pytest.raises(RuntimeError, match="planned"):
        tracked(run_dir, die_at=10)
    tracked(run_dir)
    assert told(store, "list", "runs")["runs"] == ["micro_1"]
    losses = told(store, "get", "metric", "--run", "micro_1", "--metric", "train/loss")["values"]
    assert [entry["step"] for entry in losses] == STEPS
    run = told(store, "get", "run", "--run", "micro_1")
    assert run["config"]["lora.r"] == 8
    assert run["config"]["_Group"] == "my_sweep"
    assert run["config"]["tags"] == ["r=8"]
    assert run["config"]["model.params_base"] == read_outcome(run_dir).model.params_base
    (gain,) = told(store, "get", "metric", "--run", "micro_1", "--metric", "summary/quality/gain")[
        "values"
    ]
    assert gain["step"] == 23
    assert gain["value"] == pytest.approx(0.4, abs=0.2)


def test_a_finished_run_that_is_closed_again_adds_nothing(run_dir: Path, store: Path) -> None:
    tracked(run_dir)
    before = told(store, "get", "run", "--run", "micro_1")["num_logs"]
    loggers = make_loggers(LOGGER, run_dir, "swp-a1", "my_sweep", config=CONFIG)
    finish_loggers(loggers, read_outcome(run_dir), error=False)
    assert told(store, "get", "run", "--run", "micro_1")["num_logs"] == before


@pytest.mark.parametrize("consent", [False, True])
def test_trackio_gets_texts_only_where_they_are_allowed(
    run_dir: Path, store: Path, consent: bool
) -> None:
    tracked(run_dir, consent)
    metrics = told(store, "get", "run", "--run", "micro_1")["metrics"]
    assert ("examples" in metrics) is consent
    (table,) = told(store, "get", "metric", "--run", "micro_1", "--metric", "per_example")["values"]
    assert len(table["value"]["_value"]) == 4
    lines = (run_dir / "predictions").glob("*.jsonl")
    texts = {json.loads(line)["prompt"] for path in lines for line in path.open()}
    assert texts
    stored = b"".join(path.read_bytes() for path in store.iterdir()).decode(errors="replace")
    assert any(text in stored for text in texts) is consent


def test_nothing_leaves_the_machine_and_no_key_is_written(
    run_dir: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[object] = []

    def refused(*address: object) -> None:
        asked.append(address)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setenv("HF_TOKEN", "hf_secret_key")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "somebody/space")
    monkeypatch.setenv("TRACKIO_SERVER_URL", "https://elsewhere.example/?write_token=hf_secret_key")
    tracked(run_dir)
    assert asked == []
    assert "trackio" not in capsys.readouterr().out.lower()
    files = [path for path in store.rglob("*") if path.is_file()]
    assert files
    assert not any(b"hf_secret_key" in path.read_bytes() for path in files)


def test_on_the_disk_of_a_network_trackio_takes_the_same_lines_in_later(
    run_dir: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trackio.fragments import import_inbox_dir

    monkeypatch.setenv("TRACKIO_STORAGE_MODE", "jsonl")
    with pytest.raises(RuntimeError, match="planned"):
        tracked(run_dir, die_at=10)
    tracked(run_dir)
    assert not (store / "sizewise.db").exists()
    assert import_inbox_dir() > len(STEPS)
    losses = told(store, "get", "metric", "--run", "micro_1", "--metric", "train/loss")["values"]
    assert [entry["step"] for entry in losses] == STEPS
    assert told(store, "get", "run", "--run", "micro_1")["config"]["model.name"] == "nano"


def test_without_the_package_the_job_says_so_before_data_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sizewise.tracking import trackio

    cfg = compose_run(["model=nano", "logger=trackio"])
    preflight(cfg)
    assert cfg.logger.backends["trackio"]["project"] == "sizewise"
    monkeypatch.setattr(trackio, "find_spec", lambda name: None)
    with pytest.raises(Exception, match=r"logger=trackio needs .* `pip install 'sizewise\[trackio"):
        preflight(cfg)


def test_a_project_that_trackio_refuses_is_named() -> None:
    more = "logger.backends.trackio.project=registry-mine"
    with pytest.raises(Exception, match=r"logger\.backends\.trackio\.project: .*reserved"):
        preflight(compose_run(["model=nano", "logger=trackio", more]))


def test_a_folder_that_cannot_be_written_is_refused_before_data_are_read(store: Path) -> None:
    store.write_text("a file where the folder would be")
    with pytest.raises(Exception, match=r"logger=trackio cannot write to .*Set TRACKIO_DIR"):
        preflight(compose_run(["model=nano", "logger=trackio"]))


def test_a_tracker_that_cannot_be_written_to_ends_no_training_and_is_caught_up(
    run_dir: Path, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loggers = make_loggers(LOGGER, run_dir, "swp-a1", "my_sweep", config=CONFIG)
    store.write_text("a file where the folder would be")
    fit(run_dir, loggers, [])
    assert caplog.text.count("Trackio cannot be written to") == 1
    store.unlink()
    finish_loggers(loggers, read_outcome(run_dir), error=False)
    losses = told(store, "get", "metric", "--run", "micro_1", "--metric", "train/loss")["values"]
    assert [entry["step"] for entry in losses] == STEPS
    assert "Trackio lacks" not in caplog.text


def test_what_trackio_never_took_is_said(
    run_dir: Path, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loggers = make_loggers(LOGGER, run_dir, "swp-a1", "my_sweep", config=CONFIG)
    store.write_text("a file where the folder would be")
    finish_loggers(loggers, read_outcome(run_dir), error=False)
    assert "Trackio lacks" in caplog.text
    assert "could not be closed" not in caplog.text


def test_a_damaged_line_changes_nothing_of_what_trackio_has_and_gets(
    run_dir: Path, store: Path
) -> None:
    def sent(steps: list[int]) -> None:
        lines = [Line(step, 1.8e9, {"train/loss": float(step)}) for step in steps]
        rewrite(run_dir / "metrics.jsonl", lines)
        for logger in make_loggers(LOGGER, run_dir, "swp-a1", "my_sweep"):
            if logger.name == "sizewise":
                logger.log_metrics({})

    sent([0, 1, 2, 3])
    sent([0, 2, 3, 4, 5])
    losses = told(store, "get", "metric", "--run", "micro_1", "--metric", "train/loss")["values"]
    assert [entry["step"] for entry in losses] == [0, 1, 2, 3, 4, 5]
    assert [entry["value"] for entry in losses] == [0, 1, 2, 3, 4, 5]
