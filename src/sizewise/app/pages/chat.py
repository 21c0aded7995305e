"""A conversation with base and tuned model, or with two runs, side by side."""

from __future__ import annotations

import time
from dataclasses import replace
from html import escape
from typing import Any

import streamlit as st

from sizewise.app.chat.session import ChatSession, Turn
from sizewise.app.chat.speakers import Choir, Speaker, speakers_of
from sizewise.app.pages import common
from sizewise.config import GenerationConfig
from sizewise.errors import SizewiseError
from sizewise.release.generate import as_in_training

NOBODY = "nobody"
REDRAW_SECONDS = 0.06


@st.cache_resource
def choir() -> Choir:
    """The models in memory, shared by all browsers."""
    return Choir()


def page() -> None:
    common.head("Chat", "The same message to two models: the base, and what training made of it.")
    with common.said_plainly():
        speakers = {s.name: s for run in common.library().runs for s in speakers_of(run)}
    if not speakers:
        common.nothing_here()
        return
    chosen = _choose(speakers)
    generation, in_training = _settings(chosen)
    session = _session(chosen)
    if session.detector is None:
        st.warning("The crisis detector is off for these models.")
    _say(session, in_training)  # first: a message that is sent while a model writes is not lost
    for turn in session.turns:
        _turn(turn, chosen)
    if session.waiting():
        _try_to_answer(session, chosen, generation)
    _actions(session, chosen, generation)


def _choose(speakers: dict[str, Speaker]) -> list[Speaker]:
    def label(name: str) -> str:
        return "–" if name == NOBODY else speakers[name].label

    names = list(speakers)
    tuned = next((i for i, name in enumerate(names) if speakers[name].adapter), 0)
    left, right = st.columns(2)
    one = left.selectbox("First model", names, tuned, format_func=label)
    others = [NOBODY, *(name for name in names if name != one)]
    own_base = f"{one.rpartition('/')[0]}/base"
    second = others.index(own_base) if own_base in others else 0
    two = right.selectbox("Second model", others, second, format_func=label)
    return [speakers[name] for name in (one, two) if name != NOBODY]


def _settings(chosen: list[Speaker]) -> tuple[GenerationConfig, str | None]:
    base = chosen[0].config.generation
    prompt = chosen[0].config.dataset.prompt or ""
    wraps = as_in_training(prompt, "x") is not None
    with st.popover("Settings", icon=":material/tune:"):
        tokens = st.slider("Longest answer (tokens)", 8, 512, min(512, max(8, base.max_new_tokens)))
        warm = st.slider("Temperature (0: always the likeliest word)", 0.0, 1.5, 0.0, 0.1)
        wrap = wraps and st.toggle("Write the first message as in training", True)
    generation = GenerationConfig(
        max_new_tokens=tokens,
        do_sample=warm > 0,
        temperature=warm or 1.0,
        top_p=base.top_p,
        top_k=base.top_k,
        repetition_penalty=base.repetition_penalty,
    )
    return generation, prompt if wrap else None


def _session(chosen: list[Speaker]) -> ChatSession:
    key = tuple(speaker.name for speaker in chosen)
    if st.session_state.get("chat_key") != key:
        settings = common.crisis_settings()
        with common.said_plainly():
            wanted = settings.needed((s.config.model.name, s.config.dataset.name) for s in chosen)
            detector = common.crisis_detector() if wanted else None
        system = chosen[0].config.dataset.system or ""
        st.session_state["chat"] = ChatSession(key, system, detector)
        st.session_state["chat_key"] = key
    session: ChatSession = st.session_state["chat"]
    return session


def _turn(turn: Turn, chosen: list[Speaker]) -> None:
    st.html(common.text_block(turn.text, "said"))
    if turn.finding is not None:
        _help()
        return
    if not turn.answers:
        return
    for column, speaker in zip(st.columns(len(chosen)), chosen, strict=True):
        if speaker.name in turn.answers:
            column.html(common.panel(speaker.label, turn.answers[speaker.name] or "(no words)"))


def _help() -> None:
    settings = common.crisis_settings()
    lines = "".join(
        f"<li><strong>{escape(line.contact)}</strong> {escape(line.name)}"
        f"{escape(f' ({line.hours})') if line.hours else ''}</li>"
        for line in settings.help_lines()
    )
    st.html(f'<div class="crisis" role="alert">{escape(settings.message)}<ul>{lines}</ul></div>')
    with st.expander("Lines in other countries"):
        for country, entries in settings.lines.items():
            if country:
                said = " · ".join(f"{line.name} {line.contact}" for line in entries)
                st.markdown(f"**{country}** {common.escaped_markdown(said)}")


def _try_to_answer(
    session: ChatSession, chosen: list[Speaker], generation: GenerationConfig
) -> None:
    """A message that cannot be answered is taken back, so that the talk can go on without it."""
    try:
        _answer(session, chosen, generation)
    except SizewiseError as error:
        session.withdraw()
        st.error(common.escaped_markdown(str(error)))
    except Exception:
        session.withdraw()
        raise


def _answer(session: ChatSession, chosen: list[Speaker], generation: GenerationConfig) -> None:
    turn = session.turns[-1]
    generation = replace(generation, seed=len(session.turns))
    columns = st.columns(len(chosen))
    with st.spinner("Loading the models …"):
        choir().prepare(chosen)
    for column, speaker in zip(columns, chosen, strict=True):
        if speaker.name in turn.answers:
            continue
        turn.answers[speaker.name] = _stream(column, speaker, session, generation)
    st.rerun()


def _stream(
    column: Any, speaker: Speaker, session: ChatSession, generation: GenerationConfig
) -> str:
    reply = choir().reply(speaker, session.messages(speaker.name), generation)
    if reply.left_out:
        column.caption(f"The oldest {reply.left_out} messages no longer fit and are left out.")
    place = column.empty()
    text, drawn = "", 0.0
    for text in reply.pieces:
        if time.monotonic() - drawn > REDRAW_SECONDS:
            who = f'<p class="who">{escape(speaker.label)}</p>'
            place.html(who + common.text_block(text, "panel writing"))
            drawn = time.monotonic()
    place.html(common.panel(speaker.label, text or "(no words)"))
    return text


def _say(session: ChatSession, in_training: str | None) -> None:
    text = st.chat_input("Write a message")
    if not text:
        return
    first = not any(turn.finding is None for turn in session.turns)
    prompt = as_in_training(in_training, text) if in_training and first else None
    session.say(text, prompt)
    st.rerun()


def _actions(session: ChatSession, chosen: list[Speaker], generation: GenerationConfig) -> None:
    if not session.turns:
        st.caption("Nothing is stored unless you save it.")
        return
    with st.container(horizontal=True):
        if st.button("Start over", icon=":material/refresh:"):
            session.reset()
            st.rerun()
        if st.button("Save transcript", icon=":material/save:"):
            about = {"models": {s.name: s.label for s in chosen}, "generation": vars(generation)}
            path = session.save(common.arguments().directory, about)
            st.caption(common.escaped_markdown(f"Saved to {path}"))
