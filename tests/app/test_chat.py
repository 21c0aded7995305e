"""Chats: the same words as an evaluation, adapters switched, histories, the detector in front."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sizewise.app.chat.engine import Engine, whole_characters
from sizewise.app.chat.session import ChatSession
from sizewise.app.chat.speakers import Choir, Speaker, Voices
from sizewise.app.crisis.detector import CrisisDetector
from sizewise.app.crisis.settings import read_settings
from sizewise.composition.compose import compose_run
from sizewise.config import GenerationConfig, LoraConfig, RunConfig
from sizewise.data.example import Message
from sizewise.errors import EvaluationError, ModelError
from sizewise.evaluation.generate import generate_batch
from sizewise.models.adapter.attach import attach_adapter, load_adapter, save_adapter
from sizewise.models.adapter.wrapping import base_of
from sizewise.models.base import load_base
from sizewise.release.generate import as_in_training, fit_history

SHORT = GenerationConfig(max_new_tokens=12)
ASK = [Message("user", "Doctor, my throat hurts. What is it?")]


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return compose_run(["model=nano", "logger=none"])


def make_adapter(config: RunConfig, folder: Path, seed: int, **lora: Any) -> Path:
    """Save an adapter with weights large enough to change every answer."""
    model = attach_adapter(load_base(config.model), LoraConfig(**lora), config.model, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return save_adapter(model, folder)


@pytest.fixture(scope="module")
def adapters(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("adapters")
    first = make_adapter(config, root / "a", 1, r=4)
    return [first, make_adapter(config, root / "b", 2, r=2, target="attention")]


@pytest.fixture(scope="module")
def engine(config: RunConfig, adapters: list[Path]) -> Engine:
    made = Engine(config.model, config.quantization)
    for folder in adapters:
        made.add(folder)
    return made


def said(engine: Engine, adapter: Path | None, messages: Sequence[Message] = ASK) -> str:
    return list(engine.reply(adapter, messages, SHORT).pieces)[-1]


def spoken(voices: Voices, speaker: Speaker) -> str:
    return list(voices.reply(speaker, ASK, SHORT).pieces)[-1]


def expected(config: RunConfig, adapter: Path | None, engine: Engine) -> str:
    """The answer of a freshly loaded model in an ordinary evaluation."""
    model: Any = load_base(config.model)
    if adapter is not None:
        model = load_adapter(model, adapter)
    ids = engine.template.encode_prompts([ASK])
    return generate_batch(model, ids, engine.template, SHORT)[0].text


def test_every_voice_says_what_an_evaluation_would(
    config: RunConfig, engine: Engine, adapters: list[Path]
) -> None:
    wanted = [expected(config, adapter, engine) for adapter in (*adapters, None)]
    assert len(set(wanted)) == 3
    for _ in range(2):  # switching back and forth leaves no trace
        assert [said(engine, adapter) for adapter in (*adapters, None)] == wanted


def test_the_base_is_loaded_once(
    config: RunConfig, adapters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []

    def counted(*args: Any) -> Any:
        loads.append("base")
        return load_base(*args)

    monkeypatch.setattr("sizewise.app.chat.engine.load_base", counted)
    speakers = [Speaker(str(i), str(i), config, a) for i, a in enumerate([*adapters, None])]
    choir = Choir()
    choir.prepare(speakers[:2])
    voices = choir.prepare([speakers[2], speakers[0]])
    assert (choir.loaded, loads) == (1, ["base"])
    answers = {spoken(voices, s) for s in speakers}
    assert len(answers) == 3


def test_another_base_replaces_the_one_in_memory_but_not_for_who_waits_to_speak(
    config: RunConfig,
) -> None:
    other = replace(config, model=replace(config.model, dtype="bfloat16"))
    one, two = Speaker("1", "1", config, None), Speaker("2", "2", other, None)
    choir = Choir()
    first = choir.prepare([one])
    second = choir.prepare([two])  # another page, between the two steps of the first
    assert choir.loaded == 1
    assert spoken(first, one)
    with pytest.raises(ModelError, match="not loaded"):
        spoken(second, one)


def test_a_run_in_bf16_speaks_with_the_weights_that_were_scored(
    config: RunConfig, adapters: list[Path]
) -> None:
    trainer = replace(config.trainer, precision="bf16-true")
    half = replace(config, trainer=trainer)
    choir = Choir()
    speakers = [Speaker("h", "h", half, adapters[0]), Speaker("w", "w", config, adapters[0])]
    choir.prepare(speakers)
    dtypes = [
        {p.dtype for p in choir._engines[speaker.engine_key].model.parameters()}
        for speaker in speakers
    ]
    assert dtypes == [{torch.bfloat16}, {torch.float32}]


def test_answers_grow_and_end_as_a_whole(engine: Engine, adapters: list[Path]) -> None:
    pieces = list(engine.reply(adapters[0], ASK, SHORT).pieces)
    assert len(pieces) > 2
    assert len({len(p) for p in pieces}) > 2
    assert pieces[-1].startswith(pieces[len(pieces) // 2].rstrip())


def test_a_reader_who_leaves_ends_the_answer(engine: Engine, adapters: list[Path]) -> None:
    long = GenerationConfig(max_new_tokens=400)
    pieces = engine.reply(adapters[0], ASK, long).pieces
    next(pieces)
    pieces.close()
    assert said(engine, None)  # the lock is free again


def test_who_waits_behind_another_answer_can_be_stopped(
    engine: Engine, adapters: list[Path]
) -> None:
    ended = threading.Event()

    def wait() -> None:
        engine.add(adapters[0])  # it is there
        pieces = engine.reply(adapters[0], ASK, SHORT).pieces
        assert next(pieces) == ""
        pieces.close()
        ended.set()

    with engine._lock:  # an answer in another tab
        threading.Thread(target=wait, daemon=True).start()
        assert ended.wait(20)
    assert said(engine, None)


def test_an_error_of_the_model_reaches_the_reader(engine: Engine) -> None:
    pieces = engine.reply(Path("never added"), ASK, SHORT).pieces
    with pytest.raises(KeyError):
        list(pieces)
    assert said(engine, None)


def test_an_adapter_of_another_shape_is_refused(
    config: RunConfig, engine: Engine, tmp_path: Path, adapters: list[Path]
) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_adapter(config, tmp_path / "c", 3, r=4)
    weights = load_file(str(folder / "adapter_model.safetensors"))
    weights.pop(min(weights))
    save_file(weights, str(folder / "adapter_model.safetensors"))
    before = said(engine, adapters[1])
    with pytest.raises(ModelError, match="does not fit"):
        engine.add(folder)
    assert said(engine, adapters[1]) == before


def test_a_full_model_has_an_engine_of_its_own(config: RunConfig, tmp_path: Path) -> None:
    trained: Any = attach_adapter(load_base(config.model), LoraConfig("full"), config.model, 0)
    with torch.no_grad():
        base_of(trained).get_input_embeddings().weight.mul_(3.0)
    folder = save_adapter(trained, tmp_path / "full")
    speakers = [Speaker("t", "t", config, folder), Speaker("b", "b", config, None)]
    choir = Choir()
    voices = choir.prepare(speakers)
    assert choir.loaded == 2
    assert spoken(voices, speakers[0]) != spoken(voices, speakers[1])


@dataclass
class WordCounter:
    """Counts one token per word."""

    def encode_prompts(self, prompts: Sequence[Sequence[Message]]) -> list[list[int]]:
        return [[0] * sum(len(m.content.split()) for m in prompt) for prompt in prompts]


TALK = [
    Message("system", "be kind"),
    Message("user", "one two three"),
    Message("assistant", "four five"),
    Message("user", "six"),
]


@pytest.mark.parametrize(("limit", "kept", "dropped"), [(None, 8, 0), (8, 8, 0), (7, 3, 2)])
def test_oldest_exchanges_make_room(limit: int | None, kept: int, dropped: int) -> None:
    ids, left_out = fit_history(TALK, WordCounter(), limit)
    assert (len(ids), left_out) == (kept, dropped)


def test_a_message_that_cannot_fit_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="3 tokens"):
        fit_history(TALK, WordCounter(), 2)


def test_a_message_in_the_wording_of_training() -> None:
    assert as_in_training("{dialogue}\n\nWhich code?", "It {hurts}") == "It {hurts}\n\nWhich code?"
    assert as_in_training("{dialogue}", "It hurts") is None
    assert as_in_training("{title}\n\n{text}", "It hurts") is None
    assert as_in_training("No column", "It hurts") is None


def test_half_a_character_waits() -> None:
    assert whole_characters("gr\ufffd") == "gr"


def test_each_speaker_has_a_history_of_its_own() -> None:
    session = ChatSession(("tuned", "base"), "be kind")
    for number in (1, 2):
        turn = session.say(f"question {number}")
        assert session.waiting() == ["tuned", "base"]
        turn.answers["tuned"] = f"tuned {number}"
        assert session.waiting() == ["base"]
        turn.answers["base"] = f"base {number}"
    session.say("question 3", prompt="question 3, please")
    assert [m.content for m in session.messages("base")] == [
        "be kind", "question 1", "base 1", "question 2", "base 2", "question 3, please",
    ]  # fmt: skip
    session.reset()
    assert session.messages("base") == [Message("system", "be kind")]
    assert session.waiting() == []


def test_only_the_first_message_that_a_model_reads_is_in_the_words_of_training() -> None:
    session = ChatSession(("tuned", "base"))
    session.say("one", opening="one, which code?").answers["base"] = "B"
    session.turns[-1].trouble = "The tuned model failed."
    session.say("two", opening="two, which code?")
    assert [m.content for m in session.messages("tuned")] == ["two, which code?"]
    assert [m.content for m in session.messages("base")] == ["one, which code?", "B", "two"]
    session.turns[-1].answers["tuned"] = "T"
    session.say("three", opening="three, which code?")
    assert [m.content for m in session.messages("tuned")] == ["two, which code?", "T", "three"]


def test_an_answer_that_was_broken_off_leaves_no_hole() -> None:
    session = ChatSession(("tuned",))
    session.say("question 1")
    session.say("question 2").answers["tuned"] = "answer 2"
    session.say("question 3")
    roles = [m.role for m in session.messages("tuned")]
    assert roles == ["user", "assistant", "user"]


def test_a_message_that_cannot_be_answered_is_taken_back() -> None:
    session = ChatSession(("tuned",))
    session.say("question 1").answers["tuned"] = "answer 1"
    session.say("far too long")
    assert session.withdraw().text == "far too long"
    assert session.waiting() == []
    session.say("question 2")
    assert [m.content for m in session.messages("tuned")][-2:] == ["answer 1", "question 2"]


def test_no_model_ever_sees_a_crisis() -> None:
    session = ChatSession(("tuned",), detector=CrisisDetector(read_settings().phrases))
    session.say("I feel sad").answers["tuned"] = "Tell me more."
    crisis = session.say("I want to kill myself")
    assert crisis.finding is not None
    assert session.waiting() == []
    session.say("Thank you, I called.").answers["tuned"] = "Good."
    session.say("What now?")
    assert all("kill" not in m.content for m in session.messages("tuned"))
    assert [m.role for m in session.messages("tuned")][-1] == "user"


def test_the_detector_reads_what_was_typed_not_the_wording() -> None:
    session = ChatSession(("tuned",), detector=CrisisDetector(read_settings().phrases))
    assert session.say("My code is F32", prompt="suicide F32").finding is None


def test_nothing_is_written_unless_asked(tmp_path: Path) -> None:
    session = ChatSession(("tuned",))
    session.say("hello").answers["tuned"] = "hi ☺"
    assert list(tmp_path.iterdir()) == []
    path = session.save(tmp_path, {"models": {"tuned": "r8"}})
    record = json.loads(path.read_text())
    assert record["turns"][0]["answers"] == {"tuned": "hi ☺"}
    assert record["models"] == {"tuned": "r8"}
    assert session.save(tmp_path, {}) != path
