"""The files at the end of a sweep, for sweeps of every kind."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from rich.console import Console
from tests.report.factory import Spec, Task, make_run, make_sweep
from typer.testing import CliRunner

from sizewise import palette
from sizewise.commands.main import app
from sizewise.errors import OutcomeError
from sizewise.record.outcome import read_outcome, write_outcome
from sizewise.report.comparison.compare import Comparison, compare
from sizewise.report.page.page import embedded, render_page
from sizewise.report.page.paper import latex_tables, latex_text, markdown_tables
from sizewise.report.page.results import results_text
from sizewise.report.page.terminal import show
from sizewise.report.page.write import write_report
from sizewise.report.summary import finish_sweep
from sizewise.report.views.pictures import save
from sizewise.report.wandb import sweep_summary
from sizewise.statistics.scaling import ABOVE

EVIL = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
NO_TRACKER = {"logger": {"backends": {}}}


@dataclass
class Failure:
    run_dir: str = "job_7"
    reason: str = "DataError: column <b>x</b> [is] missing"
    log: str = "job_7/job.log"


def finish(root: Path, specs: list[Spec]) -> tuple[str, Comparison]:
    dirs = make_sweep(root / "jobs", [replace(s, extra=NO_TRACKER) for s in specs])
    console = Console(file=io.StringIO(), width=100)
    comparison = finish_sweep(root, dirs, [Failure()], console)
    return console.file.getvalue(), comparison  # type: ignore[attr-defined]


@dataclass
class Finished:
    """A sweep whose report is written, and what was printed."""

    root: Path
    said: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("finished")
    specs = [Spec(m, r=r) for m in ("nano", "micro") for r in (4, 8)]
    said, _ = finish(root, [*specs, Spec("mini", 0.4, None)])
    return Finished(root, said)


@pytest.fixture
def svg_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every picture is drawn, in one of its three formats."""

    def save_svg(figure: Figure, path: Path) -> None:
        if path.suffix == ".svg":
            save(figure, path)
        else:
            path.write_bytes(b"")

    monkeypatch.setattr("sizewise.report.page.write.save", save_svg)


def test_everything_is_written_and_shown(finished: Finished) -> None:
    root, text = finished.root, finished.said
    for name in ("comparison.csv", "runs.csv", "results.json", "size_vs_quality.png"):
        assert (root / name).stat().st_size > 100
    assert (root / "report.html").stat().st_size < 8_000_000
    assert (root / "size_vs_quality.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (root / "figures" / "paired_differences.svg").read_text()
    assert "\\toprule" in (root / "tables" / "comparison.tex").read_text()
    for part in ("Specialisation beats size", "report.html", "1 job failed", "job_7/job.log"):
        assert part in text
    assert "column <b>x</b> [is] missing" in text
    with (root / "comparison.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 7
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    tuned = [row for row in rows if row["kind"] == "tuned"]
    for row in tuned:
        assert float(row["gain_low"]) < float(row["gain"]) < float(row["gain_high"])
    with (root / "runs.csv").open() as handle:
        assert len(list(csv.DictReader(handle))) == 5


def test_what_was_printed_is_kept_for_the_next_start(finished: Finished) -> None:
    assert (finished.root / "summary.txt").read_text() == finished.said


@pytest.mark.usefixtures("svg_alone")
def test_break_even_in_money_is_printed_and_stored(tmp_path: Path) -> None:
    make_sweep(tmp_path, [Spec("nano"), Spec("mini", 0.4, None)])
    options = ["--device-per-hour", "3.6", "--api-per-1000-tokens", "0.02"]
    without = CliRunner().invoke(app, ["compare", str(tmp_path)])
    result = CliRunner().invoke(app, ["compare", str(tmp_path), "--out", str(tmp_path), *options])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "Against mini zero-shot, in device seconds: after" in said
    assert "Against mini zero-shot over an API, in currency: after" in said
    assert "over an API" not in " ".join(without.output.split())
    (found,) = json.loads((tmp_path / "results.json").read_text())["test_sets"]
    assert [entry["unit"] for entry in found["paid_back"]] == ["device seconds", "currency"]
    assert found["prices"] == {"device_per_hour": 3.6, "api_per_1000_tokens": 0.02}
    assert "over an API, in currency" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("width", [60, 80, 140])
def test_table_fits_the_terminal(tmp_path: Path, width: int) -> None:
    make_sweep(tmp_path, [Spec(seed=s) for s in (1, 2)])
    console = Console(file=io.StringIO(), width=width)
    show(compare([tmp_path]), console=console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line) for line in text.splitlines()) <= width
    assert "+40.0 (" in text or width == 60


@pytest.mark.usefixtures("svg_alone")
def test_a_file_or_a_pipe_gets_all_columns_and_whole_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    specs = [Spec(seed=s, lr=lr, extra=NO_TRACKER) for s in (1, 2) for lr in (1e-4, 2e-4)]
    comparison = finish_sweep(tmp_path, make_sweep(tmp_path / "jobs", specs))
    said = capsys.readouterr().out
    label = f"{comparison.sets[0].table['label'].iloc[0]} (2 seeds)"
    assert len(label) > 30
    (row,) = (line for line in said.splitlines() if line.strip().startswith(label))
    assert "+40.0 (" in row
    assert "training" in said
    assert (tmp_path / "summary.txt").read_text() == said


def test_sweep_without_a_finished_run(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=100)
    comparison = finish_sweep(tmp_path, [tmp_path / "never_started"], [Failure()], console)
    assert comparison.sets == []
    assert "No run has finished" in console.file.getvalue()  # type: ignore[attr-defined]
    page = (tmp_path / "report.html").read_text()
    assert "No finished run" in page
    assert "column &lt;b&gt;x&lt;/b&gt;" in page
    assert json.loads((tmp_path / "results.json").read_text())["test_sets"] == []


@pytest.mark.usefixtures("svg_alone")
def test_one_run_mixed_data_sets_and_missing_figures(tmp_path: Path) -> None:
    finish(tmp_path / "one", [Spec()])
    _, mixed = finish(tmp_path / "mixed", [Spec(task=Task("a/b")), Spec(task=Task("c", seed=1))])
    assert len(mixed.sets) == 2
    pictures = sorted(p.name for p in (tmp_path / "mixed" / "figures").glob("size*.png"))
    assert len(pictures) == 2
    page = (tmp_path / "mixed" / "report.html").read_text()
    assert page.count('class="set"') == 2


@pytest.mark.usefixtures("svg_alone")
def test_nan_aggregate_and_run_without_test_scores(tmp_path: Path) -> None:
    first, second = make_sweep(tmp_path / "jobs", [Spec("nano"), Spec("micro")])
    outcome = read_outcome(first)
    ((name, evaluation),) = (outcome.tuned or {}).items()
    scores = {key: float("nan") for key in evaluation.scores}
    write_outcome(replace(outcome, tuned={name: replace(evaluation, scores=scores)}), first)
    outcome = read_outcome(second)
    write_outcome(replace(outcome, base={}, tuned=None), second)
    paths = write_report(compare([tmp_path]), tmp_path / "out")
    record = json.loads(paths["results"].read_text())
    assert record["runs"] == 2
    assert None in [row["score"] for row in record["test_sets"][0]["configurations"]]


class Tags(HTMLParser):
    """Collects what a browser would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0
        self.loads: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            inside = (value or "").startswith(("#", "data:image/svg+xml;base64,"))
            if name in ("src", "href", "data", "action") and not inside:
                self.loads.append(f"{tag} {name}={value}")
            if name.startswith("on"):
                self.handlers.append(f"{tag} {name}")


def test_page_loads_nothing_and_runs_no_text_of_data_or_models(tmp_path: Path) -> None:
    spec = Spec(task=Task(EVIL, answer=EVIL))
    make_run(tmp_path / "run", spec)
    outcome = read_outcome(tmp_path / "run")
    model = replace(outcome.model, name=EVIL)
    write_outcome(replace(outcome, model=model, warnings=[EVIL]), tmp_path / "run")
    comparison = compare([tmp_path])
    page = render_page(comparison, EVIL, [Failure(reason=EVIL)])
    tags = Tags()
    tags.feed(page)
    assert tags.scripts == 3
    assert tags.loads == []
    assert tags.handlers == []
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert data is not None
    sample = json.loads(data.group(1))[0]["sample"]
    assert sample["rows"][0]["answers"][0] == EVIL


def test_embedded_json_cannot_end_its_script() -> None:
    text = embedded({"a": "</script><!--\u2028&", "b": [float("nan"), 1.5]})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!--\u2028&", "b": [None, 1.5]}


def test_results_are_strict_json(tmp_path: Path) -> None:
    make_sweep(tmp_path, [Spec(), Spec("mini", 0.4, None)])
    text = results_text(compare([tmp_path]))
    record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in results.json"))
    pair = record["test_sets"][0]["pairs"][0]
    assert pair["interval_95"][0] < pair["gain"] < pair["interval_95"][1]
    pairs = record["test_sets"][0]["pairs"]
    assert sorted(p["interval_level"] for p in pairs) == pytest.approx([0.95, 0.99])
    assert [p["interval"][0] < p["interval_95"][0] for p in pairs] == [
        p["interval_level"] > 0.951 for p in pairs
    ]
    assert [p["primary"] for p in pairs] == [True, False]
    assert pair["p_corrected"] >= pair["p_value"]
    assert pair["interval_95_given_seeds"][0] < pair["gain"] < pair["interval_95_given_seeds"][1]


def test_results_hold_everything_that_the_page_draws(tmp_path: Path) -> None:
    sizes = ((100, 0.2), (200, 0.3), (400, 0.6))
    specs = [Spec("nano", 0.1, rate, max_train=n) for n, rate in sizes]
    specs += [Spec("nano", 0.1, 0.5, r=16, max_train=400)]
    zero = [Spec("micro", 0.3, None), Spec("mini", 0.4, None)]
    make_sweep(tmp_path, [*specs, *zero])
    compared = compare([tmp_path]).sets[0]
    (found,) = json.loads(results_text(compare([tmp_path])))["test_sets"]
    front = {entry["cost"]: entry for entry in found["pareto_fronts"]}["params"]
    assert front["configurations"] == list(compared.fronts[0].labels)
    assert 0 < front["hypervolume_share"] == compared.fronts[0].share <= 1
    labels = {row["label"] for row in found["configurations"]}
    assert {point["configuration"] for point in found["points"]} <= labels
    assert set(found["views_are_about"].values()) <= labels
    curve = compared.views.hybrid
    assert curve is not None
    assert found["hybrid"]["scores"] == pytest.approx(curve.scores)
    assert found["hybrid"]["oracle"] == pytest.approx(curve.oracle)
    assert found["hybrid"]["best"]["score"] == pytest.approx(curve.best_score)
    (learning,) = found["learning_curves"]
    assert [point["x"] for point in learning["points"]] == [100, 200, 400]
    assert 200 < learning["overtaking"]["examples_needed"] < 400
    assert [len(ranks["points"]) for ranks in found["rank_curves"]] == [2]
    assert found["scaling"]["status"] == ABOVE
    assert found["scaling"]["interval_95"] == [None, None]
    assert found["scaling"]["fit"]["slope"] > 0
    (language,) = [s for s in found["strata"] if s["name"] == "language"]
    assert sum(level["examples"] for level in language["levels"]) == 200
    assert sum(map(sum, found["confusion"][0]["counts"])) == 200


def test_results_of_a_lone_run_say_what_there_is_not(tmp_path: Path) -> None:
    make_sweep(tmp_path, [Spec(tuned=None)])
    (found,) = json.loads(results_text(compare([tmp_path])))["test_sets"]
    absent = ("views_are_about", "hybrid", "scaling")
    assert [found[name] for name in absent] == [None] * 3
    assert found["learning_curves"] == found["strata"] == found["pareto_fronts"] == []


def test_tables_for_a_paper_escape_what_they_must(tmp_path: Path) -> None:
    make_sweep(tmp_path, [Spec(task=Task("50%_of|it")), Spec("mini", 0.4, None)])
    result = compare([tmp_path]).sets[0]
    latex, markdown = latex_tables(result), markdown_tables(result)
    assert "50\\%\\_of|it" in latex
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") == 2
    assert "50%\\_of\\|it" in markdown
    assert latex_text("a\\b{c}$") == r"a\textbackslash{}b\{c\}\$"


@pytest.mark.usefixtures("svg_alone")
def test_summary_for_trackers_holds_every_configuration(tmp_path: Path) -> None:
    specs = [Spec(r=r) for r in (4, 8)] + [Spec(m, 0.4, None) for m in ("micro", "mini")]
    make_sweep(tmp_path, specs)
    comparison = compare([tmp_path])
    paths = write_report(comparison, tmp_path / "out")
    summary = sweep_summary(comparison, paths)
    assert len(summary.rows) == 5
    assert summary.rows[-1][0] == "nano zero-shot"
    verdict = comparison.verdict
    assert summary.values["verdict"] == f"{verdict.headline}. {verdict.sentence}"
    pictures = {"report/quality-params", "report/forest", "report/scaling", "report/hybrid"}
    assert set(summary.figures) >= {"parallel_coordinates", *pictures}
    assert list(summary.images) == ["size_vs_quality"]
    assert summary.fingerprint == sweep_summary(compare([tmp_path]), paths).fingerprint


def test_a_report_that_cannot_be_written_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "run", Spec(task=Task(examples=6)))
    (tmp_path / "afile").write_text("")
    asked = ["compare", str(tmp_path / "run"), "--out", str(tmp_path / "afile")]
    found = CliRunner().invoke(app, asked)
    assert isinstance(found.exception, OutcomeError)
    assert re.search(r"cannot be written into .*afile: File exists", str(found.exception))
    monkeypatch.setattr("sizewise.report.page.write.os.access", lambda *_: False)
    with pytest.raises(OutcomeError, match="no permission to write"):
        write_report(compare([tmp_path / "run"]), tmp_path / "out")


def test_a_full_disk_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sizewise.report.page.write.write_atomically", full)
    with pytest.raises(OutcomeError, match="No space left on device"):
        write_report(compare([make_run(tmp_path / "run", Spec())]), tmp_path / "out")


def test_every_colour_of_the_palette_has_its_relative_on_a_dark_ground() -> None:
    script = (resources.files("sizewise.report") / "templates" / "report.js").read_text()
    known = re.search(r"const dark = \{(.*?)\};", script, re.DOTALL)
    assert known is not None
    for colour in {palette.ZERO, palette.TUNED, palette.LARGE, palette.MUTED, *palette.SERIES}:
        assert f'"{colour}":' in known[1]


def test_colours_stand_in_the_palette_only() -> None:
    """Pictures of any package take theirs from there; pages of the app hold their own markup."""
    root = resources.files("sizewise")
    files = [*Path(str(root)).rglob("*.py")]
    assert len(files) > 100
    typed = [f.name for f in files if re.search(r'"#[0-9A-Fa-f]{6}"', f.read_text())]
    assert sorted(typed) == ["charts.py", "palette.py"]  # white


def test_whole_numbers_stay_whole_beside_bases_that_only_came_along(tmp_path: Path) -> None:
    make_sweep(tmp_path, [Spec("nano", r=8), Spec("micro", r=16)])
    table = compare([tmp_path]).table
    assert sorted(table.to_csv(index=False, columns=["r"]).split()) == ['""', '""', "16", "8", "r"]


def test_point_2_the_page_says_what_of_the_rows_did_not_become_examples(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", Spec(task=Task(examples=30)))
    outcome = read_outcome(run)
    report = {
        **outcome.data.report, "rows": 1234, "filtered": {"too_long": 7, "empty_answer": 0},
        "duplicates": 2, "noted": {"turns with <b>unknown</b> keys": 5},
        "shortened": {"test": 4},
    }  # fmt: skip
    dropped = {"test/no_room_to_answer": 3, "train/answer_cut": 1}
    data = replace(outcome.data, report=report, dropped=dropped)
    write_outcome(replace(outcome, data=data), run)
    page = render_page(compare([tmp_path]))
    assert (
        "1,234 rows. Left out: 7 too long, 2 duplicates, 3 of test (prompt too long, no room for "
        "an answer), 1 of train (prompt and answer too long, the answer would be cut). "
        "Prompts cut: 4 test. Noted: turns with &lt;b&gt;unknown&lt;/b&gt; keys (5)."
    ) in page
    clean = make_run(tmp_path / "clean" / "run", Spec(task=Task(examples=30)))
    assert "What was left out of the data" not in render_page(compare([clean.parent]))


def test_point_2_a_further_test_set_has_its_own_words_on_the_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", Spec(task=Task(examples=30)))
    outcome = read_outcome(run)
    further = {outcome.data.name: {"rows": 77, "filtered": {"too_long": 6}, "dropped": {}}}
    data = replace(outcome.data, name="elsewhere", report={"rows": 9, "further": further})
    write_outcome(replace(outcome, data=data), run)
    page = render_page(compare([tmp_path]))
    assert f"{outcome.data.name}, 77 rows. Left out: 6 too long." in page
    assert "elsewhere, 9 rows" not in page
