"""What a sweep leaves in W&B besides its jobs, read back with W&B's own tools."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.report.factory import Spec, Task, make_sweep
from tests.tracking.tracking_helpers import inspect_records, inspect_summary, offline_folders
from typer.testing import CliRunner

from sizewise.commands.main import app
from sizewise.report.comparison.compare import compare
from sizewise.report.wandb import configuration_runs, record_in_wandb, report_text, winners
from sizewise.tracking.summary_run import _crown, wandb_options
from sizewise.tracking.wandb_backend import WandbBackend
from sizewise.tracking.wandb_report import REPORT_FILE, build_report

TASK = Task(examples=60)
BACKEND = {"wandb": {"_target_": "sizewise.tracking.wandb_backend.WandbBackend", "mode": "offline"}}
OFFLINE = {"logger": {"log_examples": False, "backends": BACKEND}, "sweep": {"name": "sizes"}}
SPECS = [
    *(Spec(r=r, seed=s, task=TASK, extra=OFFLINE, lr=lr) for s in (1, 2) for r, lr in ((8, 1e-3),)),
    Spec(r=4, seed=1, tuned=0.5, task=TASK, extra=OFFLINE, lr=3e-3),
    Spec("mini", 0.4, None, task=TASK, extra=OFFLINE),
]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sweep")
    make_sweep(root, SPECS)
    comparison = compare([root])
    for _ in range(2):  # a finished sweep that is started again adds no run
        record_in_wandb(root, comparison, {"picture": root / "none.png"})
    return root


@pytest.fixture(scope="module")
def runs(sweep: Path) -> dict[str, dict[str, Any]]:
    """Job type and summary of every run of the sweep itself, by shown name."""
    found = {}
    for folder in offline_folders(sweep):
        (record,) = [r["run"] for r in inspect_records(folder) if r["type"] == "run"][:1]
        found[record["display_name"]] = {**inspect_summary(folder), "type": record["job_type"]}
    return found


def test_every_configuration_and_every_base_is_a_run_of_its_own(
    sweep: Path, runs: dict[str, dict[str, Any]]
) -> None:
    kinds = {name: run["type"] for name, run in runs.items()}
    assert kinds == {
        sweep.name: "summary",
        "nano LoRA r=8": "configuration",
        "nano LoRA r=4": "configuration",
        "nano zero-shot": "configuration",
        "mini zero-shot": "configuration",
    }
    drawn = {
        (r["summary"]["size/params"], r["summary"]["quality/score"], r["config"]["arm"])
        for r in runs.values()
        if r["type"] == "configuration"
    }
    assert {(size, arm) for size, _, arm in drawn} == {
        (308_000, "tuned"),
        (304_000, "tuned"),
        (300_000, "zero-shot"),
        (4_000_000, "zero-shot"),
    }


def test_a_configuration_has_the_mean_and_the_interval_over_its_seeds(
    runs: dict[str, dict[str, Any]],
) -> None:
    run = runs["nano LoRA r=8"]
    summary, config = run["summary"], run["config"]
    assert summary["seeds"] == 2
    mean = (summary["seed/1"] + summary["seed/2"]) / 2
    assert summary["quality/score"] == pytest.approx(mean)
    assert summary["quality/score_low"] < mean < summary["quality/score_high"]
    assert summary["quality/gain"] == pytest.approx(mean - summary["quality/zero_shot"])
    assert summary["quality/gain_low"] < summary["quality/gain"] < summary["quality/gain_high"]
    assert (config["lora.r"], config["optimizer.lr"], config["seeds"]) == (8, 1e-3, [1, 2])
    assert {"nano", "tuned", "lora", "r=8"} == set(run["tags"])


def test_an_untouched_base_stands_nowhere_in_an_adapters_settings(
    runs: dict[str, dict[str, Any]],
) -> None:
    for name in ("nano zero-shot", "mini zero-shot"):
        config = runs[name]["config"]
        assert not [k for k in config if k.startswith(("lora.", "optimizer.", "trainer."))]
        assert config["model.params_trainable"] == 0


def test_validation_chooses_the_adapter_that_gets_the_alias(sweep: Path) -> None:
    (folder,) = [f for f in offline_folders(sweep) if "summary-" in f.name]
    logged = [r["artifact"] for r in inspect_records(folder) if r["type"] == "artifact"]
    named = {a for entry in logged for a in entry["aliases"] if entry["name"] == "adapter-sizes"}
    assert named >= {"best-nano", "winner"}
    (winner,) = winners(compare([sweep]).sets[0])
    losses = {run.outcome.objective for run in compare([sweep]).runs if run.outcome.tuned}
    assert winner.outcome.objective == min(loss for loss in losses if loss is not None)


@pytest.mark.parametrize("offline", [True, False])
def test_the_winner_is_linked_to_a_registry_that_is_named_when_online(
    sweep: Path, offline: bool
) -> None:
    run = SimpleNamespace(offline=offline, log_artifact=lambda artifact, aliases: None)
    linked: list[tuple[str, str]] = []
    run.link_artifact = lambda artifact, target: linked.append((artifact.name, target))
    backend = WandbBackend(registry="wandb-registry-model/codes")
    _crown(run, "sizes", winners(compare([sweep]).sets[0]), backend)
    expected = [] if offline else [("adapter-sizes", "wandb-registry-model/codes")]
    assert linked == expected


def test_options_of_other_versions_are_passed_over(sweep: Path) -> None:
    (outcome, *_) = [run.outcome for run in compare([sweep]).runs]
    outcome.config["logger"]["backends"]["wandb"]["not_yet_known"] = 1
    assert wandb_options([outcome]) == {"mode": "offline"}


def blocks(spec: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [block for block in spec["blocks"] if block["type"] == kind]


def test_the_report_is_built_offline_and_validated_by_its_own_library(sweep: Path) -> None:
    from wandb_workspaces.reports.v2 import internal

    comparison = compare([sweep])
    text = (sweep / REPORT_FILE).read_text()
    model = internal.ReportViewspec.model_validate_json(text)
    assert model.display_name.startswith(f"sizes: {comparison.verdict.headline}"[:60])
    spec = json.loads(text)["spec"]
    assert comparison.verdict.sentence in json.dumps(spec, ensure_ascii=False)
    configurations, jobs = (grid["metadata"] for grid in blocks(spec, "panel-grid"))
    panels = configurations["panelBankSectionConfig"]["panels"]
    kinds = {panel["viewType"]: panel["config"] for panel in panels}
    assert set(kinds) == {
        "Scatter Plot",
        "Parameter Importance",
        "Parallel Coordinates Plot",
        "Bar Chart",
        "Run Comparer",
    }
    assert kinds["Scatter Plot"]["xAxis"] == "summary:size/params"
    assert kinds["Scatter Plot"]["yAxis"] == "summary:quality/score"
    axes = [c["accessor"] for c in kinds["Parallel Coordinates Plot"]["columns"]]
    assert {"config:lora.r.value", "config:optimizer.lr.value"} <= set(axes)
    assert axes[-1] == "summary:quality/score"
    grouped = [key["name"] for key in jobs["runSets"][0]["grouping"]]
    assert grouped == ["model.name.value", "lora.r.value"]


def test_panels_name_what_the_runs_carry(runs: dict[str, dict[str, Any]], sweep: Path) -> None:
    text = report_text(compare([sweep]), "sizes")
    model = build_report(text, "p")._to_model().model_dump(by_alias=True)
    accessors = [
        column["accessor"]
        for grid in blocks(model["spec"], "panel-grid")
        for panel in grid["metadata"]["panelBankSectionConfig"]["panels"]
        for column in panel["config"].get("columns") or ()
    ]
    assert accessors
    for accessor in accessors:
        section, key = accessor.split(":", 1)
        name = key.removesuffix(".value")
        assert any(name in run[section] for run in runs.values()), accessor


def test_sizewise_report_wandb_says_where_the_report_is(sweep: Path) -> None:
    (sweep / REPORT_FILE).unlink()
    done = CliRunner().invoke(app, ["report", str(sweep), "--wandb"])
    assert done.exit_code == 0, done.output
    assert (sweep / REPORT_FILE).is_file()
    assert "not saved: nobody is logged in" in done.output.replace("\n", " ")


def test_a_report_is_saved_where_somebody_is_logged_in(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb_workspaces.reports.v2 as wr

    from sizewise.report import wandb as report

    saved: list[Any] = []

    def save(self: Any) -> Any:
        saved.append(self)
        self.id = "x1"
        return self

    monkeypatch.setattr(report, "choose_mode", lambda mode: "online")
    monkeypatch.setattr(report, "import_wandb", lambda: Server)
    monkeypatch.setattr(wr.Report, "save", save)
    monkeypatch.setattr(wr.Report, "url", "https://wandb.example/reports/x1")
    _, address = report.save_wandb_report(sweep, tmp_path)
    assert address == "https://wandb.example/reports/x1"
    assert (saved[0].entity, saved[0].project) == ("me", "sizewise")


class Server:
    """A server to which somebody is logged in."""

    default_entity = "me"

    @classmethod
    def Api(cls) -> type[Server]:  # noqa: N802
        return cls


def test_several_bases_without_a_verdict_between_them_have_no_winner(tmp_path: Path) -> None:
    make_sweep(tmp_path, [Spec(task=TASK), Spec("micro", task=TASK)])
    compared = compare([tmp_path]).sets[0]
    aliases = {name for winner in winners(compared) for name in winner.aliases}
    pair = compared.verdict.pair
    expected = {"best-nano", "best-micro"} | ({"winner"} if pair and pair.a.tuned else set())
    assert aliases == expected
    assert len(configuration_runs(compared)) == 4
