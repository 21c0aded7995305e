"""What W&B's users work with, read back from the offline log with W&B's own tool."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.job.runs import SMALL
from tests.report.factory import PRIMARY, Spec, Task, make_run
from tests.tracking.tracking_helpers import inspect_records, inspect_summary, offline_folders

from sizewise.composition.compose import compose_run
from sizewise.config import LoraConfig
from sizewise.config.evaluation import LoggerConfig
from sizewise.job.run import tracking_tags
from sizewise.record.outcome import read_outcome
from sizewise.tracking import finish_loggers, make_loggers
from sizewise.tracking.answers import gain_interval, scored_rows
from sizewise.tracking.summary import tracked_config

TARGET = "sizewise.tracking.wandb_backend.WandbBackend"
TASK = Task(examples=40, groups=20)


def log_run(run_dir: Path, spec: Spec, run_id: str = "abc", **options: Any) -> Path:
    """Send a run that is on the disk to W&B, offline; return the folder of its log."""
    if not run_dir.exists():
        make_run(run_dir, spec)
    outcome = read_outcome(run_dir)
    node = {"_target_": TARGET, "mode": "offline", **options}
    loggers = make_loggers(
        LoggerConfig(False, {"wandb": node}),
        run_dir,
        run_id,
        "my_sweep",
        tags=["nano", "tuned", "r=8"],
        config=outcome.config,
        facts={"arm": "tuned", "device": "cpu"},
    )
    for step, loss in enumerate((3.0, 1.0, 2.0)):
        loggers[0].log_metrics({"val_loss": loss}, step=step)
        loggers[1].log_metrics({"val_loss": loss}, step=step)
    finish_loggers(loggers, outcome, error=False)
    (folder,) = offline_folders(run_dir)
    return folder


def artifacts(folder: Path) -> list[dict[str, Any]]:
    """Artifacts in the log but for the files of tables, which W&B keeps as such too."""
    found = [r["artifact"] for r in inspect_records(folder) if r["type"] == "artifact"]
    return [artifact for artifact in found if artifact["type"] != "run_table"]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return log_run(tmp_path_factory.mktemp("w") / "job", Spec(task=TASK))


@pytest.fixture(scope="module")
def found(tuned: Path) -> dict[str, Any]:
    return inspect_summary(tuned)


def test_settings_are_flat_and_carry_sizes_revision_and_versions(found: dict[str, Any]) -> None:
    config = found["config"]
    assert config["lora.r"] == 8
    assert config["optimizer.lr"] == 2e-4
    assert config["model.name"] == "nano"
    assert (config["model.params_total"], config["model.params_trainable"]) == (308_000, 8_000)
    assert len(config["git.commit"]) == 40
    assert config["versions.torch"].startswith("2.")
    assert config["arm"] == "tuned"
    assert not any(isinstance(value, dict) for key, value in config.items() if key != "_wandb")
    assert not any(key.startswith(("paths", "logger")) for key in config)
    assert found["tags"] == ["nano", "tuned", "r=8"]


def test_an_untouched_base_carries_no_settings_of_an_adapter() -> None:
    config: dict[str, Any] = {
        "seed": 1,
        "lora": {**asdict(LoraConfig()), "method": "none", "r": 8},
        "optimizer": {"lr": 3e-3},
        "model": {"name": "mini"},
        "trainer": {"max_epochs": 3, "batch_size": 8},
    }
    told = tracked_config(config)
    assert {k: v for k, v in told.items() if k.startswith(("lora", "opt"))} == {
        "lora.method": "none"
    }
    assert "trainer.max_epochs" not in told
    trained = tracked_config({**config, "lora": {**config["lora"], "method": "lora"}})
    assert (trained["lora.r"], trained["optimizer.lr"]) == (8, 3e-3)


def test_tags_say_arm_method_rank_and_storage() -> None:
    def tags(specialises: bool, *overrides: str) -> tuple[str, ...]:
        cfg = compose_run([*SMALL, *overrides])
        json.dumps(tracked_config(asdict(cfg)))  # plain values only
        job: Any = SimpleNamespace(cfg=cfg, specialises=specialises)
        name, _, *rest = tracking_tags(job)
        assert name == "nano"
        return tuple(rest)

    assert tags(True, "quantization=nf4") == ("tuned", "lora", "r=4", "nf4")
    assert tags(False, "lora=none") == ("zero-shot",)
    assert tags(True, "lora=full") == ("tuned", "full")


def test_the_summary_has_the_lowest_loss_and_the_interval_of_the_gain(
    found: dict[str, Any],
) -> None:
    summary = found["summary"]
    assert summary["val_loss"] == {"min": 1.0}
    low, high = summary["quality/gain_low"], summary["quality/gain_high"]
    assert summary["quality/gain"] == pytest.approx(0.4)
    assert 0 < low < 0.4 < high < 0.7


def test_a_score_that_is_no_mean_of_examples_gets_no_interval(tmp_path: Path) -> None:
    run = make_run(tmp_path / "job", Spec(task=TASK))
    outcome = read_outcome(run)
    assert gain_interval(outcome, run) is not None
    outcome.tuned["icd10_dialogues"].scores[PRIMARY] = 0.9  # type: ignore[index]
    assert gain_interval(outcome, run) is None
    untouched = make_run(tmp_path / "base", Spec(task=TASK, tuned=None))
    assert gain_interval(read_outcome(untouched), untouched) is None


def test_every_run_has_a_table_of_examples_without_any_text(tuned: Path) -> None:
    (path,) = tuned.rglob("per_example*.table.json")
    table = json.loads(path.read_text())
    columns, rows = table["columns"], table["data"]
    assert columns[:2] == ["id", "group"]
    assert {"stratum/language", "latency", PRIMARY, f"zero_shot/{PRIMARY}"} <= set(columns)
    assert len(rows) == 40
    place = columns.index(PRIMARY)
    assert sum(row[place] for row in rows) == pytest.approx(0.6 * 40)
    assert not any(b"it hurts" in f.read_bytes() for f in tuned.rglob("*") if f.is_file())


def test_tables_of_runs_on_the_same_data_join_by_id_and_long_strata_are_hashed(
    tmp_path: Path,
) -> None:
    runs = [make_run(tmp_path / str(s), Spec(task=TASK, seed=s)) for s in (1, 2)]
    tables = [scored_rows(read_outcome(run), run) for run in runs]
    assert tables[0][0] == tables[1][0]
    assert [row[0] for row in tables[0][1]] == [row[0] for row in tables[1][1]]
    path = next((runs[0] / "predictions").glob("tuned*"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["strata"]["language"] = "the patient says " * 4
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    columns, rows = scored_rows(read_outcome(runs[0]), runs[0])
    assert len(str(rows[0][columns.index("stratum/language")])) == 12


def test_data_base_adapter_and_answers_are_artifacts_with_lineage(tuned: Path) -> None:
    logged = {a["name"]: a for a in artifacts(tuned)}
    inputs = {name for name, a in logged.items() if a.get("use_after_commit")}
    assert inputs == {"data-icd10_dialogues", "base-nano"}
    adapter, answers = logged["adapter-my_sweep"], logged["answers-my_sweep"]
    assert (adapter["type"], answers["type"]) == ("model", "predictions")
    assert set(adapter["aliases"]) == {"latest", "job"}
    outcome = read_outcome(tuned.parents[1])
    (entry,) = adapter["manifest"]["contents"]
    assert entry["digest"] == outcome.files["adapter"].sha256
    digests = {e["digest"] for e in answers["manifest"]["contents"]}
    assert digests == {
        e.predictions.sha256 for e in (*outcome.base.values(), *(outcome.tuned or {}).values())
    }


def test_artifacts_are_references_until_files_may_be_sent(tmp_path: Path, tuned: Path) -> None:
    for artifact in artifacts(tuned):
        assert all(e["ref"].startswith("sizewise://") for e in artifact["manifest"]["contents"])
    sent = log_run(tmp_path / "job", Spec(task=TASK), upload_adapters=True)
    (adapter,) = [a for a in artifacts(sent) if a["name"].startswith("adapter")]
    (entry,) = adapter["manifest"]["contents"]
    assert "ref" not in entry
    assert Path(entry["local_path"]).read_bytes() == Spec(task=TASK).name.encode()
    (answers,) = [a for a in artifacts(sent) if a["type"] == "predictions"]
    assert all("ref" in e for e in answers["manifest"]["contents"])


def test_the_same_content_is_the_same_version(tmp_path: Path, tuned: Path) -> None:
    again = log_run(tmp_path / "job", Spec(task=TASK), "other")
    before = {a["name"]: a["digest"] for a in artifacts(tuned)}
    assert {a["name"]: a["digest"] for a in artifacts(again)} == before


def test_the_use_of_a_gpu_is_recorded_on_gpu_jobs_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    from sizewise.tracking.summary import RunContext
    from sizewise.tracking.wandb_run import open_run

    opened: list[Any] = []
    monkeypatch.setattr(wandb, "init", lambda **given: opened.append(given["settings"]))
    for device, asked in (("cuda", None), ("cpu", None), ("cpu", True), ("cuda", False)):
        context = RunContext(tmp_path, "a", config={"device": device})
        open_run(context, "offline", "p", None, asked)
    assert [not s.x_disable_stats for s in opened] == [True, False, True, False]
    assert [not s.x_disable_machine_info for s in opened] == [False, False, True, False]


def test_the_address_of_a_run_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    from sizewise.tracking.summary import RunContext
    from sizewise.tracking.wandb_run import open_run

    class Opened:
        url = "https://wandb.example/runs/a"

    monkeypatch.setattr(wandb, "init", lambda **given: Opened())
    caplog.set_level("INFO")
    open_run(RunContext(tmp_path, "a"), "online", "p", None, False)
    assert "W&B: https://wandb.example/runs/a" in caplog.text
