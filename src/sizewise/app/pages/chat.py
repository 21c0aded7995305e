"""A conversation with base and tuned model, or with two runs, side by side."""

from __future__ import annotations

import time
from html import escape

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from sizewise.app.chat.session import ChatSession, Turn
from sizewise.app.chat.speakers import Choir, Speaker, all_speakers, base_of, questions_of
from sizewise.app.chat.writer import Writer, Writing
from sizewise.app.pages import common
from sizewise.app.pages.settings import Settings, settings_of
from sizewise.release.generate import as_in_training
from sizewise.words import cut

NOBODY = "nobody"
Place = tuple[Turn, DeltaGenerator]
REDRAW_SECONDS = 0.1


@st.cache_resource
def choir() -> Choir:
    """The models in memory, shared by all browsers."""
    return Choir()


def page() -> None:
    common.head("Chat", "The same message to two models: the base, and what training made of it.")
    with common.said_plainly():
        speakers = all_speakers(common.library().runs)
    if not speakers:
        common.nothing_here()
        return
    chosen = _choose(speakers)
    settings = settings_of(chosen[0])
    writer = _writer(chosen, settings)
    session = writer.session
    session.system, st.session_state["chat_settings"] = settings.system, settings
    st.chat_input("Write a message", key="chat_message", on_submit=_say)
    writer.start(settings.generation)
    if session.detector is None:
        st.warning(
            "The crisis detector is off for these models: they answer everything. Help lines are "
            "shown under an answer where a message holds phrases of a crisis."
        )
    _examples(session, chosen[0], writer.busy)
    busy = writer.busy
    place = _conversation(writer, chosen)
    _actions(writer, chosen, settings)
    if busy:
        _watch(writer, place, chosen)


def _conversation(writer: Writer, chosen: list[Speaker]) -> Place | None:
    """Draw every message with its answers; return where the one on its way is drawn."""
    now, place = writer.now, None
    for turn in writer.session.turns:
        writing = now is not None and now.turn is turn
        _turn(turn, chosen, turn is writer.session.turns[-1], writing)
        if writing:
            place = turn, st.empty()
            st.button("Stop", icon=":material/stop_circle:", key="chat_stop", on_click=writer.stop)
    return place


def _choose(speakers: dict[str, Speaker]) -> list[Speaker]:
    def label(name: str) -> str:
        return "–" if name == NOBODY else speakers[name].label

    names = list(speakers)
    left, right = st.columns(2)
    first = names.index(common.kept("chat_first", names[0], names))
    one = left.selectbox("First model", names, first, format_func=label, key="chat_first")
    others = [NOBODY, *(name for name in names if name != one)]
    own_base, key = base_of(speakers[one], speakers), f"chat_second_{one}"
    own_base = own_base if own_base in others else NOBODY
    second = others.index(common.kept(key, own_base, others))
    two = right.selectbox("Second model", others, second, format_func=label, key=key)
    return [speakers[name] for name in (one, two) if name != NOBODY]


def _writer(chosen: list[Speaker], settings: Settings) -> Writer:
    """The conversation with these models and who writes its answers; others begin a new one."""
    key = tuple(speaker.name for speaker in chosen)
    if st.session_state.get("chat_key") != key:
        _leave()
        crisis = common.crisis_settings()
        with common.said_plainly():
            on = crisis.needed((s.config.model.name, s.config.dataset.name) for s in chosen)
            detector = common.crisis_detector() if on else None
        phrases = None if on else common.crisis_phrases()
        session = ChatSession(key, settings.system, detector, phrases)
        st.session_state["chat"] = Writer(choir(), session, {s.name: s for s in chosen})
        st.session_state["chat_key"] = key
    writer: Writer = st.session_state["chat"]
    return writer


def _leave() -> None:
    """Forget the conversation; what is being written for it is ended."""
    if "chat" in st.session_state:
        st.session_state.pop("chat").stop()
    st.session_state.pop("chat_key", None)


def _say() -> None:
    """Take a message before the page is drawn: one that comes while it is drawn is not lost."""
    writer: Writer | None = st.session_state.get("chat")
    text = st.session_state.get("chat_message")
    if writer is not None and text:
        writer.session.say(text, opening=_opening(st.session_state["chat_settings"], text))


def _opening(settings: Settings, text: str) -> str | None:
    """The message in the words of training, where these are wanted."""
    return as_in_training(settings.in_training, text) if settings.in_training else None


def _examples(session: ChatSession, speaker: Speaker, busy: bool) -> None:
    """Questions of the test set, to be sent as the model reads them in an evaluation."""
    if session.turns:
        return
    with common.said_plainly():
        questions = _questions(str(speaker.answers), speaker)
    if not questions:
        return
    with st.expander("Ask a question of the test set"):
        place = st.selectbox(
            "Question",
            range(len(questions)),
            format_func=lambda i: _short(questions[i][0]),
            key=f"example_{speaker.name}",
        )
        text, prompt, reference = questions[place]
        st.html(common.panel("Question", text))
        st.html(common.panel("Reference answer", reference))
        if st.button("Send this question", icon=":material/send:", disabled=busy):
            session.say(text, prompt)
            st.rerun()


@st.cache_data(max_entries=16, show_spinner=False)
def _questions(answers: str, _speaker: Speaker) -> list[tuple[str, str, str]]:
    return questions_of(_speaker)


def _short(text: str) -> str:
    return cut(" ".join(text.split()), 90)


def _turn(turn: Turn, chosen: list[Speaker], last: bool, writing: bool) -> None:
    st.html(common.text_block(turn.text, "said"))
    if turn.finding is not None:
        _help(turn, last)
        return
    if turn.trouble:
        st.error(common.escaped_markdown(turn.trouble))
    if writing:
        return
    _answers(turn, chosen)
    if turn.concern is not None:
        _help_lines(common.crisis_settings().aside)


def _answers(turn: Turn, chosen: list[Speaker], now: Writing | None = None) -> None:
    if not turn.answers and now is None:
        if turn.open:
            st.caption("Waits for its answer.")
        elif turn.stopped:
            st.caption("Stopped.")
        return
    for column, speaker in zip(st.columns(len(chosen)), chosen, strict=True):
        if speaker.name in turn.answers:
            column.html(common.panel(speaker.label, turn.answers[speaker.name] or "(no words)"))
            said = f"{turn.seconds[speaker.name]:.1f} s"
            column.caption(said + (", stopped" if turn.stopped else ""))
        elif now is not None and now.speaker == speaker.name:
            who = f'<p class="who">{escape(speaker.label)}</p>'
            text = "Loading the model …" if now.loading else now.text
            column.html(who + common.text_block(text, "panel writing"))
            if now.left_out:
                column.caption(f"The oldest {now.left_out} messages do not fit: left out.")


def _watch(writer: Writer, place: Place | None, chosen: list[Speaker]) -> None:
    """Draw the answer on its way until it is there; then the page is drawn anew.

    The page waits here, and no fragment runs again and again: Streamlit collects garbage after
    every run, which would take more time than the answer.
    """
    while writer.busy:
        now = writer.now
        if now is not None:
            if place is None or place[0] is not now.turn:
                break
            with place[1].container():
                _answers(now.turn, chosen, now)
        time.sleep(REDRAW_SECONDS)
    st.rerun()


def _help(turn: Turn, last: bool) -> None:
    """Help lines in place of an answer; where it was not meant so, the talk can go on."""
    _help_lines(common.crisis_settings().message)
    with st.expander("Lines in other countries"):
        for country, entries in common.crisis_settings().lines.items():
            if country:
                said = " · ".join(f"{line.name} {line.contact}" for line in entries)
                st.markdown(f"**{country}** {common.escaped_markdown(said)}")
    if last and st.button("That was not meant so: let the models answer", key="not_meant"):
        st.session_state["chat"].session.not_meant()
        st.rerun()


def _help_lines(message: str) -> None:
    lines = "".join(
        f"<li><strong>{escape(line.contact)}</strong> {escape(line.name)}"
        f"{escape(f' ({line.hours})') if line.hours else ''}</li>"
        for line in common.crisis_settings().help_lines()
    )
    st.html(f'<div class="crisis" role="alert">{escape(message)}<ul>{lines}</ul></div>')


def _actions(writer: Writer, chosen: list[Speaker], settings: Settings) -> None:
    session, busy = writer.session, writer.busy
    if not session.turns:
        st.caption("Nothing is stored unless you save it.")
        return
    with st.container(horizontal=True):
        blocked = busy or session.turns[-1].finding is not None
        if st.button("Retry", icon=":material/replay:", disabled=blocked, help=RETRY):
            session.again()
            st.rerun()
        with st.popover("Edit", icon=":material/edit:", disabled=busy):
            _edit(session, settings)
        if st.button("Start over", icon=":material/refresh:"):
            _leave()
            st.rerun()
        if st.button("Save transcript", icon=":material/save:", disabled=busy):
            about = {
                "models": {s.name: s.label for s in chosen},
                "generation": vars(settings.generation),
            }
            path = session.save(common.arguments().directory, about)
            st.caption(common.escaped_markdown(f"Saved to {path}"))


RETRY = "Answer the last message again; with a temperature of 0 the answer is the same."


def _edit(session: ChatSession, settings: Settings) -> None:
    """Put another message in the place of the last one."""
    last = session.turns[-1]
    key = f"edit_{len(session.turns)}_{last.tries}"
    text = st.text_area("Last message", last.text, key=key)
    if st.button("Send in its place", key=f"send_{key}") and text.strip():
        session.withdraw()
        session.say(text, opening=_opening(settings, text))
        st.rerun()
