"""The pages of the app as Streamlit runs them, without a browser."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from tests.report.factory import Spec, Task, make_sweep

from sizewise import palette
from sizewise.app.answers import answer_of, read_written
from sizewise.app.chat.engine import Reply
from sizewise.app.chat.session import ChatSession
from sizewise.app.chat.speakers import Choir, Speaker, all_speakers, base_of, questions_of
from sizewise.app.chat.writer import Writer
from sizewise.app.launch import SCRIPT, TOKEN
from sizewise.app.pages import figures
from sizewise.composition.compose import compose_run
from sizewise.config import GenerationConfig
from sizewise.data.example import Message
from sizewise.errors import EvaluationError
from sizewise.job.run import run_job
from sizewise.report.comparison.arms import run_names
from sizewise.report.comparison.compare import compare
from sizewise.report.comparison.runs import load_runs
from sizewise.report.page.page import charts_of
from sizewise.report.page.write import write_report

PATIENCE = 120


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The token of a start, and nothing that an earlier app has kept."""
    monkeypatch.setenv(TOKEN, "right")
    st.cache_resource.clear()
    st.cache_data.clear()
    yield
    st.cache_resource.clear()


def opened(
    directory: Path, monkeypatch: pytest.MonkeyPatch, page: str = "results", *more: str
) -> AppTest:
    monkeypatch.setattr(sys, "argv", ["main.py", str(directory), *more])
    found = AppTest.from_file(str(SCRIPT), default_timeout=PATIENCE)
    found.query_params["token"] = "right"
    found.session_state["page"] = page
    found.run()
    assert not found.exception
    return found


def texts(page: AppTest) -> list[str]:
    """The pieces of HTML of a page in their order, without its style."""
    found = [element.proto.body for element in page.get("html")]
    return [text for text in found if not text.startswith("<style>")]


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
    write_report(comparison, sweep)
    make_sweep(sweep, [Spec("micro", task=Task("counselling", examples=60))])
    assert read_written(sweep) is None


def test_the_answer_stands_there_before_anything_is_compared(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = compare([sweep])
    headline = comparison.sets[0].verdict.headline
    write_report(comparison, sweep)
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


class Voice(Choir):
    """A choir that says a few words, slowly where a gate is given; it notes what it read."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        super().__init__()
        self.gate = gate
        self.read: list[list[str]] = []
        self.seeds: list[int] = []

    def prepare(self, speakers: Sequence[Speaker]) -> None:
        pass

    def reply(
        self, speaker: Speaker, messages: Sequence[Message], generation: GenerationConfig
    ) -> Reply:
        self.read.append([message.content for message in messages])
        self.seeds.append(generation.seed)
        if "far too long" in messages[-1].content:
            raise EvaluationError("This message needs 9 tokens.")
        return Reply(self._pieces(messages[-1].content), 0)

    def _pieces(self, text: str) -> Generator[str, None, None]:
        yield "an"
        if self.gate is not None:
            assert self.gate.wait(PATIENCE)
        yield f"an answer to {text}"


def writer_of(voice: Voice, *names: str) -> Writer:
    session = ChatSession(names)
    config = compose_run(["model=nano", "logger=none"])
    return Writer(voice, session, {name: Speaker(name, name, config, None) for name in names})


def until(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def test_a_message_is_taken_while_another_is_being_answered() -> None:
    gate = threading.Event()
    writer = writer_of(Voice(gate), "tuned", "base")
    writer.session.say("one")
    writer.start(GenerationConfig())
    until(lambda: writer.now is not None and writer.now.text == "an")
    writer.session.say("two")
    writer.start(GenerationConfig())
    assert writer.busy
    gate.set()
    until(lambda: not writer.busy)
    assert [turn.answers for turn in writer.session.turns] == [
        {"tuned": f"an answer to {text}", "base": f"an answer to {text}"} for text in ("one", "two")
    ]
    assert all(set(turn.seconds) == {"tuned", "base"} for turn in writer.session.turns)
    voice: Any = writer._choir
    assert voice.read[-1] == ["one", "an answer to one", "two"]


def test_an_answer_can_be_stopped_and_what_is_there_stays() -> None:
    gate = threading.Event()
    writer = writer_of(Voice(gate), "tuned", "base")
    writer.session.say("one")
    writer.start(GenerationConfig())
    until(lambda: writer.now is not None and writer.now.text == "an")
    writer.session.say("two")
    writer.stop()
    gate.set()
    until(lambda: not writer.busy)
    first, second = writer.session.turns
    assert first.stopped
    assert second.stopped
    assert list(first.answers) == ["tuned"]
    assert second.answers == {}


def test_retry_answers_again_with_another_seed_and_edit_replaces_the_message() -> None:
    voice = Voice()
    writer = writer_of(voice, "tuned")
    session = writer.session
    session.say("one")
    writer.start(GenerationConfig(seed=7))
    until(lambda: not writer.busy)
    session.again()
    writer.start(GenerationConfig(seed=7))
    until(lambda: not writer.busy)
    assert len(set(voice.seeds)) == 2
    assert session.withdraw().text == "one"
    session.say("another")
    writer.start(GenerationConfig(seed=7))
    until(lambda: not writer.busy)
    assert voice.read[-1] == ["another"]


def test_a_message_that_is_too_long_says_so_and_the_talk_goes_on() -> None:
    voice = Voice()
    writer = writer_of(voice, "tuned")
    writer.session.say("far too long")
    writer.session.say("two")
    writer.start(GenerationConfig())
    until(lambda: not writer.busy)
    first, second = writer.session.turns
    assert first.trouble == "This message needs 9 tokens."
    assert second.answers == {"tuned": "an answer to two"}
    assert voice.read[-1] == ["two"]


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on medical coding, for which the detector is off."""
    root = tmp_path_factory.mktemp("coded")
    small = [f"dataset.max_{part}=8" for part in ("train", "validation", "test")]
    words = ["model=nano", "lora.r=4", "logger=none", "callbacks=none", "trainer.max_steps=1"]
    words += ["generation.max_new_tokens=4", f"paths.cache='{root / 'cache'}'", *small]
    run_job(compose_run(words), root / "sweep" / "nano_r4")
    return root / "sweep"


def test_a_chat_of_coding_models_shows_help_lines_under_the_answer_to_a_crisis(
    coded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened(coded, monkeypatch, "chat")
    assert page.selectbox(key="chat_first").options == [
        "nano LoRA r=4, seed 42 – tuned", "nano – untouched",
    ]  # fmt: skip
    assert "detector is off" in page.warning[0].value
    for message in ("I want to kill myself", "My knee hurts."):
        page.chat_input[0].set_value(message).run()
        until(lambda: not page.session_state["chat"].busy)
    page.run()
    html = texts(page)
    said = [place for place, text in enumerate(html) if 'class="said' in text]
    first, second = html[said[0] : said[1]], html[said[1] :]
    assert sum('class="who"' in text for text in first) == 2
    assert "findahelpline.com" in first[-1]
    assert "must not answer" not in first[-1]
    assert sum('class="who"' in text for text in second) == 2
    assert "findahelpline" not in "".join(second)
    assert sum(re.fullmatch(r"\d+\.\d s", c.value) is not None for c in page.caption) == 4


def test_questions_of_the_test_set_are_sent_as_the_model_reads_them(
    coded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speakers = all_speakers(load_runs([coded]).runs)
    tuned = next(iter(speakers.values()))
    assert base_of(tuned, speakers) == list(speakers)[1]
    questions = questions_of(tuned)
    assert len(questions) == 8
    for text, prompt, reference in questions:
        assert prompt.startswith(text)
        assert len(prompt) > len(text)
        assert reference
    page = opened(coded, monkeypatch, "chat")
    (send,) = [button for button in page.button if button.label == "Send this question"]
    send.click().run()
    session = page.session_state["chat"].session
    assert [(turn.text, turn.prompt) for turn in session.turns] == [questions[0][:2]]
    until(lambda: not page.session_state["chat"].busy)


def test_the_settings_of_a_chat_reach_the_model(
    coded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = Voice()
    monkeypatch.setattr("sizewise.app.pages.chat.choir", lambda: voice)
    page = opened(coded, monkeypatch, "chat")
    (system,) = [area for area in page.text_area if area.label == "System text"]
    system.set_value("Be brief.").run()
    (seed,) = [number for number in page.number_input if number.label == "Seed"]
    seed.set_value(5).run()
    page.chat_input[0].set_value("hello").run()
    until(lambda: not page.session_state["chat"].busy)
    assert voice.read[0][0] == "Be brief."
    assert set(voice.seeds) == {6}
    labels = {slider.label.split(" (")[0] for slider in page.slider}
    assert {"Temperature", "Top-p", "Longest answer"} <= labels


def test_what_was_not_meant_as_a_crisis_is_answered_and_help_lines_stay(
    coded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = Voice()
    monkeypatch.setattr("sizewise.app.pages.chat.choir", lambda: voice)
    on = tmp_path / "crisis.yaml"
    on.write_text("off_for_datasets: []\nclassifier: null\n")
    page = opened(coded, monkeypatch, "chat", "--crisis", str(on))
    page.chat_input[0].set_value("I have scars on my body from the operation.").run()
    assert voice.read == []
    (button,) = [b for b in page.button if b.label.startswith("That was not meant so")]
    button.click().run()
    until(lambda: not page.session_state["chat"].busy)
    page.run()
    assert len(voice.read) == 2
    html = texts(page)
    assert any("an answer to" in text for text in html)
    assert "findahelpline.com" in html[-1]
