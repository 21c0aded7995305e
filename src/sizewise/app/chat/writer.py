"""Answers written beside the page, so that it stays free for the next message, or to stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace

from sizewise.app.chat.session import ChatSession, Turn
from sizewise.app.chat.speakers import Choir, Speaker
from sizewise.config import GenerationConfig
from sizewise.errors import SizewiseError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Writing:
    """An answer on its way: what it answers, who writes, and how far it is.

    ``left_out`` messages of the conversation did not fit; ``loading``: the model is not there yet.
    """

    turn: Turn
    speaker: str
    text: str = ""
    left_out: int = 0
    loading: bool = True


class Writer:
    """Answers what waits in a session, in the order of the messages, in a thread of its own.

    ``now`` is the answer on its way. An error is the ``trouble`` of the message it concerns.
    """

    def __init__(self, choir: Choir, session: ChatSession, speakers: Mapping[str, Speaker]) -> None:
        self.session = session
        self.now: Writing | None = None
        self.speakers = speakers
        self._choir = choir
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        return self._thread is not None

    def start(self, generation: GenerationConfig) -> None:
        """Answer all that waits; nothing is done where that is under way."""
        with self._lock:
            if self._thread is not None or self.session.next() is None:
                return
            self._thread = threading.Thread(
                target=self._work, args=(generation,), name="chat", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """End the answer on its way, and leave out what else waits now; what is there stays."""
        self.session.stop()

    def _work(self, generation: GenerationConfig) -> None:
        while True:
            with self._lock:
                waiting = self.session.next()
                if waiting is None:
                    self.now = self._thread = None
                    return
            turn, speaker = waiting
            self.now = Writing(turn, speaker)
            try:
                self._answer(turn, self.speakers[speaker], generation)
            except SizewiseError as error:
                turn.trouble = str(error)
            except Exception as error:
                log.exception("A message could not be answered")
                turn.trouble = f"{type(error).__name__}: {error}"

    def _answer(self, turn: Turn, speaker: Speaker, generation: GenerationConfig) -> None:
        voices = self._choir.prepare(list(self.speakers.values()))
        if not turn.open:  # it was stopped while the models were loaded
            return
        number = self.session.turns.index(turn)
        # As far apart as no two messages of a talk: the same seed gives the same talk again.
        generation = replace(generation, seed=generation.seed + number + 1 + 1000 * turn.tries)
        started = time.monotonic()
        messages = self.session.messages(speaker.name, turn)
        reply = voices.reply(speaker, messages, generation)
        text = ""
        with closing(reply.pieces) as pieces:
            for text in pieces:
                self.now = Writing(turn, speaker.name, text, reply.left_out, loading=False)
                if turn.stopped:
                    break
        if turn.stopped and not text:
            return
        # A page that is drawn now shows the seconds of every answer that is there.
        turn.seconds[speaker.name] = time.monotonic() - started
        turn.answers[speaker.name] = text
