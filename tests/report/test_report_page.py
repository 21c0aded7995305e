"""The page as people read it: answer, evidence, objections, wins and losses, how it was made."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.report.factory import Spec, Task, make_sweep, plant, share

from sizewise.record.directories import RunDir
from sizewise.record.history import Line, rewrite
from sizewise.record.outcome import read_outcome, write_outcome
from sizewise.report.comparison.compare import Comparison, compare
from sizewise.report.page.page import render_page
from sizewise.report.page.paper import latex_tables
from sizewise.report.page.prose import plain_answer
from sizewise.report.page.results import results_text
from sizewise.report.page.setup import setup_of
from sizewise.report.page.tables import pair_table, training_table
from sizewise.report.page.terminal import show
from sizewise.report.page.write import write_report
from sizewise.report.views.training import training_chart, training_curve, training_curves

TASK = Task(examples=120)
SPECS = [
    *(Spec("nano", 0.2, 0.7, seed=seed, task=TASK) for seed in (1, 2)),
    Spec("micro", 0.3, 0.75, task=TASK),
    Spec("mini", 0.4, None, task=TASK),
]
CODE = {"commit": "0123456789abcdef", "dirty": True}
PROVENANCE = {
    "sizewise": "0.1.0", "code": CODE, "python": "3.11.7", "platform": "Linux",
    "packages": {"torch": "2.13.0"}, "finished_at": "2026-11-29T10:00:12+00:00",
    "hardware": {"cpu": "x86_64", "cores": 2, "threads": 1, "devices": []},
}  # fmt: skip
DATASET = {
    "name": TASK.name, "system": "Answer briefly.", "prompt": "{note} <code>?", "answer": "{code}",
    "few_shot": 0, "max_length": 512,
    "split": {"column": None, "seed": 7, "validation": 0.1, "test": 0.2},
}  # fmt: skip


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sweep")
    for directory in make_sweep(root, SPECS):
        outcome = read_outcome(directory)
        dataset = {**outcome.config["dataset"], **DATASET}
        config = {**outcome.config, "dataset": dataset}
        write_outcome(replace(outcome, config=config, provenance=PROVENANCE), directory)
        if outcome.tuned:
            history(directory, outcome.seed)
    return root


def history(directory: Path, seed: int) -> None:
    lines = [Line(0, 0.0, {"val_loss": 5.0})]
    lines += [Line(step, step, {"train_loss": 4.0 / step, "lr": 1e-3}) for step in range(1, 601)]
    rewrite(RunDir(directory).history, [*lines, Line(600, 600.0, {"val_loss": 0.5 + seed / 100})])


@pytest.fixture(scope="module")
def comparison(sweep: Path) -> Comparison:
    return compare([sweep])


@pytest.fixture(scope="module")
def page(comparison: Comparison) -> str:
    return render_page(comparison, "a sweep")


def data_of(page: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    result: list[dict[str, Any]] = json.loads(found.group(1))
    return result


def test_the_answer_goes_first_then_evidence_objections_and_where_it_wins(page: str) -> None:
    order = [
        page.index(f'id="{name}-0"')
        for name in ("answer", "evidence", "objections", "strata-of", "pairs", "all", "setup")
    ]
    assert order == sorted(order)


def test_the_answer_has_both_scores_the_margin_and_the_cost(comparison: Comparison) -> None:
    said = plain_answer(comparison.sets[0])
    assert said[0] == (
        "nano LoRA r=8 (0.31 M) scores 70.0 %, mini zero-shot (4 M) 40.0 %: 30.0 points better."
    )
    assert "of weights instead of 16 MB" in said[1]
    assert "an answer instead of" in said[1]
    assert "of training for each seed" in said[1]
    assert said[2] == "It is not shown which are within 2.0 points of the best of all."
    assert said[3].startswith("The pair named in advance, micro LoRA r=8 against mini zero-shot, ")
    assert len(said) == 4


def test_an_undecided_answer_says_what_is_so_at_the_margin(tmp_path: Path) -> None:
    make_sweep(tmp_path, [Spec("nano", 0.2, 0.44, task=TASK), Spec("mini", 0.4, None, task=TASK)])
    said = plain_answer(compare([tmp_path]).sets[0])
    assert said[0].endswith("+4.2 points, which is not shown to be a difference.")
    assert said[1].startswith("If 2.0 points may be lost, the small one is ")


def test_without_two_sides_the_answer_is_the_verdict(tmp_path: Path) -> None:
    make_sweep(tmp_path, [Spec("nano", task=TASK)])
    (compared,) = compare([tmp_path]).sets
    assert plain_answer(compared) == [compared.verdict.sentence]


def test_the_evidence_is_the_verdict_in_its_parts(comparison: Comparison, page: str) -> None:
    verdict = comparison.sets[0].verdict
    assert " ".join(verdict.parts) == verdict.sentence
    assert len(verdict.parts) > 1
    for part in verdict.parts:
        assert f"<li>{part}</li>" in unescape(page)


def test_setup_says_how_it_was_made(comparison: Comparison, page: str) -> None:
    facts = {
        fact.name: " ".join(fact.lines)
        for part in setup_of(comparison.sets[0].test)
        for fact in part.facts
    }
    for name, said in {
        "Data set": "icd10_dialogues, 1,300 rows",
        "Test": "120 examples",
        "Training": "1,000 examples, 100 for validation",
        "Splits": "drawn by whole groups with seed 7",
        "Leaks": "no group is in more than one split",
        "System prompt": "Answer briefly.",
        "Prompt": "{note} <code>?",
        "Limit of prompt and answer (tokens)": "512",
        "Decoding": "greedy, at most 16 new tokens",
        "Score": "icd10/exact_match, more is better",
        "Adapters": "lora r=8, alpha 16",
        "Optimiser": "AdamW",
        "Learning rates": "0.0002",
        "Epochs": "3",
        "Seeds": "1, 2, 42",
        "Device": "x86_64 processor, 1 of 2 cores",
        "Software": "sizewise 0.1.0, Python 3.11.7, torch 2.13.0",
        "Code": "commit 0123456789ab, with changes",
        "Finished": "2026-11-29 10:00 UTC",
    }.items():
        assert said in facts[name], (name, facts[name])
    assert "{note} &lt;code&gt;?" in page
    table = training_table(comparison.sets[0])
    assert table is not None
    assert [cell.text for cell in table.rows[0]][:4] == ["nano LoRA r=8", "0.0002", "3", "100"]


def test_setup_of_an_old_record_leaves_out_what_it_does_not_know(tmp_path: Path) -> None:
    for directory in make_sweep(tmp_path, [Spec("nano", task=TASK)]):
        outcome = read_outcome(directory)
        bare = {"dataset": {"name": TASK.name}, "trainer": None, "lora": None}
        write_outcome(replace(outcome, config=bare, provenance={}), directory)
    (compared,) = compare([tmp_path]).sets
    parts = setup_of(compared.test)
    assert "Machine and code" not in {part.title for part in parts}
    assert all(line for part in parts for fact in part.facts for line in fact.lines)
    assert "None" not in str(parts)


def test_training_curves_come_from_what_the_runs_logged(comparison: Comparison, page: str) -> None:
    curves = training_curves(comparison.sets[0].test)
    assert sorted((c.label, c.seed) for c in curves) == [
        ("micro LoRA r=8", 42), ("nano LoRA r=8", 1), ("nano LoRA r=8", 2),
    ]  # fmt: skip
    nano = next(c for c in curves if c.seed == 2)
    assert nano.courses["val_loss"].steps == (0, 600)
    assert nano.courses["val_loss"].values == (5.0, 0.52)
    loss = nano.courses["train_loss"]
    assert (loss.steps[0], loss.steps[-1]) == (1, 600)
    assert 100 < len(loss.steps) <= 201
    figure = training_chart(curves, "val_loss")
    assert [trace.showlegend for trace in figure.data] == [True, True, False]
    charts = data_of(page)[0]["charts"]
    assert {"training-val_loss", "training-train_loss", "training-lr"} <= set(charts)
    assert "training-grad_norm" not in charts


def test_the_curve_of_a_run_that_is_under_way_can_be_read(tmp_path: Path) -> None:
    assert training_curve(tmp_path).courses == {}
    history(tmp_path, 3)
    assert training_curve(tmp_path, "nano").courses["val_loss"].values[-1] == 0.53


def test_the_kind_that_changes_most_is_on_top_and_bars_have_intervals(tmp_path: Path) -> None:
    name = "icd10/exact_match"
    tuned, large = ({name: share(rate, 120, offset)} for rate, offset in ((0.6, 1), (0.4, 2)))
    kinds = {
        "planted": ["won" if score else "lost" for score in tuned[name]],
        "language": ["en", "de"] * 60,
    }
    small = {name: share(0.2, 120)}
    plant(tmp_path / "small", Spec("nano", task=TASK), small, tuned, strata=kinds)
    plant(tmp_path / "large", Spec("mini", 0.4, None, task=TASK), large, strata=kinds)
    compared = compare([tmp_path]).sets[0]
    first, *others = compared.views.strata
    assert first.name == "planted"
    assert first.change > max(stratum.change for stratum in others)
    for stratum in (first, *others):
        for level in stratum.levels:
            for label, (low, high) in level.intervals.items():
                assert low <= level.means[label] <= high
    assert all(len(level.intervals) == 3 for level in first.levels)
    (found,) = json.loads(results_text(compare([tmp_path])))["test_sets"]
    assert (
        found["strata"][0]["levels"][0]["scores_interval_95"].keys() == first.levels[0].means.keys()
    )


def test_page_terminal_and_csv_have_the_same_rows(
    comparison: Comparison, page: str, tmp_path: Path
) -> None:
    names = ["micro LoRA r=8", "nano LoRA r=8", "mini zero-shot", "micro zero-shot"]
    names.append("nano zero-shot")
    table = page[page.index('<caption class="hidden">All configurations') :]
    table = table[: table.index("</table>")]
    assert re.findall(r'<th scope="row"[^>]*>([^<]*)</th>', table) == names
    console = Console(file=io.StringIO(), width=140)
    show(comparison, console=console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    starts = [line.strip() for line in printed.splitlines()]
    assert [n for line in starts for n in names if line.startswith((f"{n} ", f"{n}("))][:5] == names
    paths = write_report(comparison, tmp_path)
    with paths["table"].open() as handle:
        assert [row["label"] for row in csv.DictReader(handle)] == names
    wanted = {
        f"{name}{suffix}"
        for name in ("size_vs_quality", "paired_differences")
        for suffix in (".png", ".svg", ".pdf", "_column.svg", "_column.pdf")
    }
    assert {path.name for path in (tmp_path / "figures").iterdir()} == wanted


class Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.targets: set[str] = set()
        self.inputs = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag == "a" and (found.get("href") or "").startswith("#"):
            self.targets.add(str(found["href"])[1:])


def test_every_section_can_be_linked_to(page: str) -> None:
    anchors = Anchors()
    anchors.feed(page[: page.index('<script type="application/json"')])
    assert len(anchors.ids) == len(set(anchors.ids))
    assert anchors.targets <= set(anchors.ids)
    assert {"evidence-0", "strata-of-0", "setup-0", "training-0", "all-runs"} <= anchors.targets


def test_without_scripts_the_pictures_stand_still(page: str) -> None:
    stills = re.findall(
        r'<noscript><img class="still" src="data:image/svg\+xml;base64,([^"]+)"', page
    )
    assert len(stills) == 2
    first, second = (base64.b64decode(still).decode() for still in stills)
    assert "nano LoRA r=8" in first
    assert "nano LoRA r=8 − mini zero-shot" in second


def test_p_values_of_tables_have_no_equals_sign(comparison: Comparison) -> None:
    compared = comparison.sets[0]
    cells = [row[8].text for row in pair_table(compared).rows]
    assert cells
    assert all(re.fullmatch(r"(< |≤ )?[01](\.\d+)?", text) for text in cells), cells
    latex = latex_tables(compared)
    assert "$<$ 0.001" in latex
    assert not re.search(r"& *(=|\\textless)", latex)
    assert "≤" not in latex


@pytest.fixture(scope="module")
def forty(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    root = tmp_path_factory.mktemp("forty")
    specs = [
        Spec(model, tuned=0.3 + 0.01 * n, r=2 + n, task=Task(examples=60))
        for model in ("nano", "micro")
        for n in range(20)
    ]
    make_sweep(root, [*specs, Spec("mini", 0.4, None, task=Task(examples=60))])
    return compare([root])


def test_a_report_with_forty_configurations_stays_readable(forty: Comparison) -> None:
    page = render_page(forty)
    (data,) = data_of(page)
    assert len(data["charts"]["quality-params"]["layout"]["annotations"]) <= 14
    assert "38 of the points have no name here" in page
    rows = data["charts"]["forest"]["layout"]["meta"]["labels"]
    assert len(rows) == 40
    assert page.count('<th scope="row"') > 43
    assert len(page) < 9_000_000
