"""The pages of the app as Streamlit runs them, without a browser."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from tests.app.opening import opened, texts
from tests.report.factory import Spec, Task, make_sweep
from tests.report.written import write_results

from sizewise import palette
from sizewise.app.answers import answer_of, read_written
from sizewise.app.launch import SCRIPT, app_command
from sizewise.app.pages import figures
from sizewise.report.comparison.arms import run_names
from sizewise.report.comparison.compare import compare
from sizewise.report.comparison.runs import load_runs
from sizewise.report.page.page import charts_of
from sizewise.report.page.write import write_report

pytestmark = pytest.mark.usefixtures("fresh")


def test_the_results_show_the_objections_of_the_report(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objections = compare([sweep]).sets[0].warnings
    assert any("One seed only" in line for line in objections)
    page = opened(sweep, monkeypatch)
    assert "What a reviewer would object to" in [header.value for header in page.header]
    (shown,) = [text for text in texts(page) if 'class="objections"' in text]
    assert re.findall("<li>(.*?)</li>", shown) == [escape(line) for line in objections]


def test_results_are_read_from_the_file_of_the_report_until_a_run_is_newer(sweep: Path) -> None:
    assert read_written(sweep) is None
    comparison = compare([sweep], margin=3.0)
    write_report(comparison, sweep)
    written = read_written(sweep)
    assert written is not None
    assert written.margin == 3.0
    assert list(written.answers) == [answer_of(compared) for compared in comparison.sets]
    record = json.loads((sweep / "results.json").read_text())
    (sweep / "results.json").write_text(json.dumps({**record, "test_sets": [{"dataset": "x"}]}))
    assert read_written(sweep) is None
    write_results(comparison, sweep)
    make_sweep(sweep, [Spec("micro", task=Task("counselling", examples=60))])
    assert read_written(sweep) is None


def test_the_answer_stands_there_before_anything_is_compared(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = compare([sweep])
    headline = comparison.sets[0].verdict.headline
    write_results(comparison, sweep)
    order: list[str] = []
    html = st.html

    def compared(*args: Any, **kwargs: Any) -> Any:
        order.append("compared")
        return comparison

    def drawn(text: str, **kwargs: Any) -> Any:
        order.append("answer" if headline in text else "")
        return html(text, **kwargs)

    monkeypatch.setattr("sizewise.report.comparison.compare.compare_loaded", compared)
    monkeypatch.setattr("sizewise.app.pages.results.st.html", drawn)
    opened(sweep, monkeypatch)
    assert [step for step in order if step][:2] == ["answer", "compared"]


def test_a_run_that_comes_later_is_seen(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(sweep, monkeypatch, "evaluate")
    before = page.selectbox[0].options
    make_sweep(sweep, [Spec("micro", r=32, task=Task("counselling", examples=60))])
    page.run()
    assert set(page.selectbox[0].options) - set(before) == {"micro LoRA r=32, seed 42"}


def test_runs_have_readable_names_with_their_seeds(tmp_path: Path) -> None:
    specs = [Spec("nano", seed=1), Spec("nano", seed=2), Spec("nano", r=4, seed=1)]
    make_sweep(tmp_path, [*specs, Spec("mini", 0.4, None)])
    labels = sorted(label for _, label in run_names(load_runs([tmp_path]).runs))
    assert labels == [
        "mini zero-shot", "nano LoRA r=4, seed 1", "nano LoRA r=8, seed 1", "nano LoRA r=8, seed 2",
    ]  # fmt: skip


def test_the_charts_of_the_report_have_their_names_at_the_width_of_a_phone(sweep: Path) -> None:
    compared = compare([sweep]).sets[0]
    charts = charts_of(compared)
    chart = charts["quality-params"]
    narrow = figures.fitted(chart, figures.NARROW)
    wanted = chart.layout.meta["widths"][figures.NARROW]
    assert [a.text for a in narrow.layout.annotations] == [a["text"] for a in wanted["annotations"]]
    assert narrow.layout.height == wanted["height"]
    forest = figures.fitted(charts["forest"], figures.WIDE)
    headings = [f"<b>{text}</b>" for _, text in forest.layout.meta["headings"]]
    assert [a.text for a in forest.layout.annotations] == headings


def test_colours_on_a_dark_ground_are_those_of_the_report() -> None:
    script = (Path(palette.__file__).parent / "report" / "templates" / "report.js").read_text()
    pairs = dict(re.findall(r'"(#\w{6})": "(#\w{6})"', script.partition("function")[2]))
    assert len(palette.DARK) > 5
    assert {key: pairs[key] for key in palette.DARK} == palette.DARK


def test_what_the_report_wrote_can_be_downloaded(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened(sweep, monkeypatch)
    labels = [button.proto.label for button in page.get("download_button")]
    assert labels == ["Report (HTML)", "Results (JSON)", "Table (CSV)", "Runs (CSV)"]


def test_a_csv_file_can_be_uploaded_and_explored(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened(sweep, monkeypatch, "explore")
    rows = "".join(f"Where does it hurt {i}?,code {i % 4}\n" for i in range(40))
    page.selectbox[0].select("a CSV file of mine …").run()
    page.get("file_uploader")[0].upload("mine.csv", f"question,code\n{rows}".encode(), "text/csv")
    page.run()
    assert not page.exception
    assert not page.error
    assert [box.label for box in page.selectbox][1:3] == [
        "Column of the question", "Column of the answer",
    ]  # fmt: skip
    assert "Token lengths" in [header.value for header in page.header]


GROUNDS = {"light": "#ffffff", "dark": "#171614"}  # Streamlit's


@pytest.mark.parametrize("theme", GROUNDS)
def test_the_page_that_is_open_and_its_button_can_be_read_on_either_ground(
    sweep: Path, theme: str
) -> None:
    command, ground = app_command(sweep, 8599), GROUNDS[theme]
    primary = command[command.index(f"--theme.{theme}.primaryColor") + 1]
    assert contrast(primary, mixed(primary, ground, 0.1)) >= 4.5  # as Streamlit marks a choice
    written = re.search(r"primary.*light-dark\((#\w{6}), (#\w{6})\)", SCRIPT.read_text())
    assert written is not None
    assert contrast(written[1 + (theme == "dark")], primary) >= 4.5


def channels(colour: str) -> list[float]:
    return [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]


def mixed(above: str, below: str, share: float) -> str:
    pairs = zip(channels(above), channels(below), strict=True)
    return "#" + "".join(f"{round(255 * (share * a + (1 - share) * b)):02x}" for a, b in pairs)


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.2."""
    linear = [
        [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels(colour)]
        for colour in (one, other)
    ]
    dark, light = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in linear)
    return (light + 0.05) / (dark + 0.05)
