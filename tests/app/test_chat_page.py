"""The page of the chat as Streamlit runs it, and the answers that are written beside it."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.app.opening import PATIENCE, opened, texts

from sizewise.app.chat.engine import Reply
from sizewise.app.chat.session import ChatSession, Turn
from sizewise.app.chat.speakers import Choir, Speaker, all_speakers, base_of, questions_of
from sizewise.app.chat.writer import Writer
from sizewise.composition.compose import compose_run
from sizewise.config import GenerationConfig
from sizewise.data.example import Message
from sizewise.errors import EvaluationError
from sizewise.job.run import run_job
from sizewise.record.outcome import read_outcome, write_outcome
from sizewise.report.comparison.runs import load_runs

pytestmark = pytest.mark.usefixtures("fresh")


class Voice(Choir):
    """A choir that says a few words, slowly where gates are given; it notes what it read."""

    def __init__(
        self, gate: threading.Event | None = None, load: threading.Event | None = None
    ) -> None:
        super().__init__()
        self.gate, self.load = gate, load
        self.read: list[list[str]] = []
        self.seeds: list[int] = []

    def prepare(self, speakers: Sequence[Speaker]) -> Any:
        if self.load is not None:
            assert self.load.wait(PATIENCE)
        return self

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


def test_a_message_after_stop_is_answered_although_the_model_was_being_loaded() -> None:
    load = threading.Event()
    writer = writer_of(Voice(load=load), "tuned", "base")
    writer.session.say("one")
    writer.start(GenerationConfig())
    until(lambda: writer.now is not None)
    writer.stop()
    writer.session.say("two")
    writer.start(GenerationConfig())
    load.set()
    until(lambda: not writer.busy)
    first, second = writer.session.turns
    assert (first.stopped, first.answers) == (True, {})
    assert not second.stopped
    assert list(second.answers) == ["tuned", "base"]


class Drawn(dict[str, str]):
    """Answers that are drawn the moment they are there."""

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self.turn, self.seconds = turn, 0.0

    def __setitem__(self, name: str, text: str) -> None:
        super().__setitem__(name, text)
        self.seconds = self.turn.seconds[name]


def test_an_answer_is_never_there_without_its_time() -> None:
    writer = writer_of(Voice(), "tuned")
    turn = writer.session.say("one")
    turn.answers = Drawn(turn)
    writer.start(GenerationConfig())
    until(lambda: not writer.busy)
    assert (turn.trouble, list(turn.answers)) == ("", ["tuned"])


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


@pytest.mark.parametrize("queued", [False, True])
def test_the_message_after_one_that_failed_is_in_the_words_of_training(
    coded: Path, monkeypatch: pytest.MonkeyPatch, queued: bool
) -> None:
    """Also one that was written before the first had failed, and waited for its turn."""
    load = threading.Event()
    voice = Voice(load=load)
    monkeypatch.setattr("sizewise.app.pages.chat.choir", lambda: voice)
    monkeypatch.setattr("sizewise.app.pages.chat._watch", lambda *given: None)
    page = opened(coded, monkeypatch, "chat")
    if not queued:
        load.set()
    for message in ("far too long", "My knee hurts.", "And my back."):
        page.chat_input[0].set_value(message).run()
        until(lambda: queued or not page.session_state["chat"].busy)
    assert page.session_state["chat"].busy is queued
    load.set()
    until(lambda: not page.session_state["chat"].busy)
    assert page.session_state["chat"].session.turns[0].trouble
    tuned, base = voice.read[-2:]
    assert tuned == base
    first, answer, second = tuned
    assert first.startswith("My knee hurts.\n")
    assert answer == f"an answer to {first}"
    assert second == "And my back."


def test_another_page_and_a_run_that_ends_leave_a_conversation_as_it_was(
    coded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice, sweep = Voice(), shutil.copytree(coded, tmp_path / "sweep")
    monkeypatch.setattr("sizewise.app.pages.chat.choir", lambda: voice)
    page = opened(sweep, monkeypatch, "chat")
    page.selectbox(key="chat_first").select_index(1).run()
    (system,) = [area for area in page.text_area if area.label == "System text"]
    system.set_value("Be brief.").run()
    (warm,) = [slider for slider in page.slider if slider.label.startswith("Temperature")]
    warm.set_value(0.7).run()
    page.chat_input[0].set_value("My knee hurts.").run()
    writer = page.session_state["chat"]
    until(lambda: not writer.busy)
    page.session_state["page"] = "jobs"
    page.run()
    first = shutil.copytree(sweep / "nano_r4", sweep / "a_first")  # the base is now of this run
    write_outcome(replace(read_outcome(first), run_id="a" * 16, identity="a" * 16), first)
    page.session_state["page"] = "chat"
    page.run()
    assert not page.exception
    assert len(page.selectbox(key="chat_first").options) == 3
    assert page.session_state["chat"] is writer
    assert page.selectbox(key="chat_first").value == writer.session.speakers[0]
    assert any("an answer to My knee hurts." in text for text in texts(page))
    (system,) = [area for area in page.text_area if area.label == "System text"]
    (warm,) = [slider for slider in page.slider if slider.label.startswith("Temperature")]
    assert (system.value, warm.value) == ("Be brief.", 0.7)
