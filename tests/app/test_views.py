"""What the pages show, without a browser: pictures, examples, data sets, progress, the command."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tests.report.factory import Spec, make_sweep
from typer.testing import CliRunner

from sizewise.app.evaluations import (
    EvaluationPlan,
    RunningEvaluation,
    plan_evaluation,
    read_progress,
)
from sizewise.app.exploring import explore_overrides, size_rows
from sizewise.app.launch import app_command
from sizewise.app.pages.common import datasets, run_named, split_settings, stamp
from sizewise.app.views import (
    KINDS,
    clicked,
    example_rows,
    metric_names,
    metric_values,
    select,
)
from sizewise.commands.main import app
from sizewise.composition.compose import compose_config
from sizewise.data.explore import Exploration
from sizewise.errors import ConfigError, OutcomeError
from sizewise.files import write_json
from sizewise.report.comparison.compare import SetComparison, compare
from sizewise.report.comparison.runs import load_runs
from sizewise.report.page.page import charts_of
from sizewise.report.views.distributions import histogram_chart, length_chart


@pytest.fixture
def compared(sweep: Path) -> SetComparison:
    return compare([sweep]).sets[0]


def test_a_click_leads_to_the_run(compared: SetComparison) -> None:
    figure = charts_of(compared)["quality-params"]
    places: dict[int, float] = {}
    for trace in figure.data:
        if trace.customdata is None:  # the lines
            continue
        for place, y in zip(trace.customdata, trace.y, strict=True):
            event = {"selection": {"points": [{"customdata": place}]}}
            assert clicked(event) == place
            places[place] = y
    assert sorted(places) == list(range(len(compared.test.arms)))
    for place, y in places.items():
        arm = compared.test.arms[place]
        assert y == pytest.approx(100 * arm.score(compared.test.primary))


@pytest.mark.parametrize("event", [None, {}, {"selection": {"points": []}}, {"selection": None}])
def test_no_click_is_none(event: object) -> None:
    assert clicked(event) is None


def test_a_click_may_come_as_a_list() -> None:
    assert clicked({"selection": {"points": [{"customdata": [2]}]}}) == 2


def test_every_metric_has_a_histogram(compared: SetComparison) -> None:
    test = compared.test
    names = metric_names(test)
    assert names[0] == test.primary
    for name in names:
        values = {c.label: metric_values(test, c, name) for c in test.arms}
        figure = histogram_chart(values, name)
        assert len(figure.data) == len(values)
        for trace in figure.data:
            assert sum(trace.y) == pytest.approx(100.0)


def test_bins_are_shared_and_nothing_gives_an_empty_picture() -> None:
    figure = histogram_chart({"a": np.array([0.0, 1.0, 1.0]), "b": np.array([0.0])}, "x")
    assert [list(trace.y) for trace in figure.data] == [
        [pytest.approx(100 / 3), pytest.approx(200 / 3)],
        [100.0, 0.0],
    ]
    wide = histogram_chart({"a": np.linspace(0, 9, 50), "b": np.array([9.0])}, "x", bins=9)
    assert len(wide.data[0].y) == 9
    assert wide.data[1].y[-1] == 100.0
    assert len(histogram_chart({"a": np.empty(0)}, "x").data) == 0


def test_names_from_data_are_escaped_in_pictures() -> None:
    figure = histogram_chart({"<img src=x>": np.array([1.0])}, "<b>")
    assert "<img" not in figure.to_json()
    assert "<b>" not in figure.to_json()


def test_examples_are_filtered_by_who_was_right(compared: SetComparison) -> None:
    test = compared.test
    tuned = next(c for c in test.arms if c.tuned)
    rows = example_rows(test, tuned)
    assert len(rows) == len(test.ids)
    counts = {kind: len(select(rows, test, kind)) for kind in KINDS}
    assert counts["all"] == sum(counts.values()) - counts["all"]
    assert counts["tuned better than base"] > 0
    for row in select(rows, test, "tuned better than base"):
        assert row.base is not None
        assert row.own.scores[test.primary] > row.base.scores[test.primary]
    assert [r.own.prompt[:10] for r in select(rows, test, "all", "PATIENT 7:")] == ["Patient 7:"]
    zero = next(c for c in test.arms if not c.tuned)
    assert all(row.base is None for row in example_rows(test, zero))


def test_a_data_set_is_read_as_a_language_model_reads_it_where_there_is_one(
    tmp_path: Path,
) -> None:
    specs = [Spec("micro", 0.1, None, family="classical"), Spec("nano")]
    make_sweep(tmp_path, specs)
    loaded = load_runs([tmp_path])
    assert loaded.runs[0].outcome.model.name == "micro"
    (run,) = datasets(loaded).values()
    assert run.outcome.model.name == "nano"


def test_the_library_notices_changes(sweep: Path) -> None:
    before = stamp(sweep)
    assert stamp(sweep) == before
    loaded = load_runs([sweep])
    assert list(datasets(loaded)) == ["counselling"]
    name = loaded.runs[0].directory.name
    assert run_named(loaded, name) is loaded.runs[0]
    with pytest.raises(OutcomeError, match="other"):
        run_named(loaded, "other")
    os.utime(loaded.runs[0].directory / "outcome.json", ns=(1, 1))
    assert stamp(sweep) != before
    assert load_runs([sweep.parent / "sweep" / name / "predictions"]).runs == ()


@pytest.fixture(scope="module")
def exploration() -> Exploration:
    return explore_overrides(["dataset=icd10_dialogues", "dataset.max_samples=300", "model=nano"])


def test_a_data_set_is_described(exploration: Exploration) -> None:
    rows = size_rows(exploration)
    assert [row["split"] for row in rows] == ["train", "validation", "test"]
    assert all(row["examples"] == exploration.sizes[str(row["split"])] for row in rows)
    figure = length_chart(exploration, "prompt")
    assert [trace.name for trace in figure.data] == ["train", "validation", "test"]
    for trace in figure.data:
        assert sum(trace.y) / 2 == pytest.approx(100.0)
    sentences = exploration.sentences
    assert any("same question or group (group) in training" in line for line in sentences)
    assert f"of {exploration.sizes['test']:,} test answers" in " ".join(sentences)


def test_a_wrong_data_set_is_an_error() -> None:
    with pytest.raises(ConfigError):
        explore_overrides(["dataset=nothing"])


def plan_of(tmp_path: Path, *command: str, total: int | None = 4) -> EvaluationPlan:
    return EvaluationPlan((sys.executable, "-c", *command), tmp_path / "run", total)


def wait(running: RunningEvaluation) -> None:
    deadline = time.monotonic() + 60
    while running.progress().state == "running" and time.monotonic() < deadline:
        time.sleep(0.05)


def test_progress_is_read_from_the_predictions(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "")
    folder = plan.run_dir / "predictions"
    assert read_progress(plan, None).share == 0.0
    folder.mkdir(parents=True)
    (folder / "base.x.jsonl").write_text("{}\n{}\n{torn")
    (folder / "tuned.x.jsonl").write_text("{}\n")
    progress = read_progress(plan, None)
    assert (progress.done, progress.share, progress.state) == (3, 0.75, "running")
    assert read_progress(plan, 0).state == "failed"  # no record was written
    (plan.run_dir / "outcome.json").write_text("{}")
    assert read_progress(plan, 0).state == "done"
    assert read_progress(plan, 0).share == 1.0


def test_a_failure_says_why(tmp_path: Path) -> None:
    running = RunningEvaluation(plan_of(tmp_path, "raise SystemExit('no such model')"))
    wait(running)
    assert running.progress().state == "failed"
    assert running.progress().message == "no such model"
    write_json(running.plan.run_dir / "failed.json", {"reason": "data is missing"})
    assert running.progress().message == "data is missing"


def test_an_evaluation_can_be_stopped(tmp_path: Path) -> None:
    running = RunningEvaluation(plan_of(tmp_path, "import time; time.sleep(600)"))
    assert running.progress().state == "running"
    running.stop()
    assert running.progress().state == "stopped"
    running.stop()


def test_an_evaluation_is_named_by_what_it_is(sweep: Path, tmp_path: Path) -> None:
    run = next(r for r in load_runs([sweep]).runs if r.outcome.tuned)
    plan = plan_evaluation(run, tmp_path / "outputs")
    assert plan == plan_evaluation(run, tmp_path / "outputs")
    assert (plan.total, plan.title) == (120, run.directory.name)
    assert plan.run_dir.parent == tmp_path / "outputs"
    assert plan.command[1:4] == ("-m", "sizewise.commands.main", "evaluate")
    assert f"run='{run.directory}'" in plan.command
    more = plan_evaluation(run, tmp_path / "outputs", ["metric=[rouge]"])
    assert more.run_dir != plan.run_dir
    with pytest.raises(ConfigError):
        plan_evaluation(run, tmp_path, ["nothing=1"])


def test_a_run_below_a_folder_with_an_apostrophe_is_evaluated(sweep: Path, tmp_path: Path) -> None:
    place = tmp_path / "it's mine"
    shutil.copytree(sweep, place)
    run = load_runs([place]).runs[0]
    plan = plan_evaluation(run, place / "outputs")
    assert plan.run_dir.parent == place / "outputs"
    composed = compose_config(list(plan.command[4:]), "evaluate")
    assert composed["run"] == str(run.directory)


def test_a_quote_without_an_end_is_an_error() -> None:
    assert split_settings("a='b c' d") == ["a=b c", "d"]
    with pytest.raises(ConfigError, match="Close the quote"):
        split_settings("metric='[rouge]")


def test_the_app_listens_here_only_and_sends_nothing(sweep: Path) -> None:
    command = app_command(sweep, 8599)
    flags = dict(itertools.pairwise(command))
    assert flags["--server.address"] == "127.0.0.1"
    assert flags["--server.port"] == "8599"
    assert flags["--browser.gatherUsageStats"] == "false"
    assert flags["--server.fileWatcherType"] == "none"
    assert flags["--server.headless"] == "true"
    assert "--theme.primaryColor" not in flags  # it would be a theme of its own, always light
    assert command[command.index("--") + 1] == str(sweep.resolve())
    assert Path(command[4]).is_file()


def test_the_app_says_what_is_missing(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="no directory"):
        app_command(tmp_path / "nothing", 8599)
    with pytest.raises(ConfigError, match="no file"):
        app_command(sweep, 8599, crisis=tmp_path / "nothing.yaml")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("contry: GB")
    with pytest.raises(ConfigError, match="contry"):
        app_command(sweep, 8599, crisis=wrong)
    nothing = SimpleNamespace(find_spec=lambda name: None)
    monkeypatch.setattr("sizewise.app.launch.importlib", SimpleNamespace(util=nothing))
    with pytest.raises(ConfigError, match=r"pip install 'sizewise\[app\]'"):
        app_command(sweep, 8599)


def test_the_command_line_has_it() -> None:
    result = CliRunner().invoke(app, ["app", "--help"])
    assert result.exit_code == 0
    assert "--crisis" in result.output


def test_nothing_heavy_is_imported_by_the_command_line() -> None:
    heavy = "{'torch', 'streamlit', 'sklearn'}"
    code = f"import sys, sizewise.commands.main; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
