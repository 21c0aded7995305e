"""A conversation with one or two models: what each was told, and what no model may see."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sizewise.app.crisis.detector import CrisisDetector, Finding
from sizewise.data.example import Message
from sizewise.files import write_atomically

TRANSCRIPTS = "transcripts"


@dataclass
class Turn:
    """One message and what the models answered.

    Attributes:
        prompt: what the models read.
        opening: what a model reads instead where no earlier message is part of its talk (the text
            in the wording of training).
        finding: why no model may answer; None: they may.
        answers: speaker → answer; one that was stopped is as far as it got.
        seconds: speaker → how long it took to write.
        concern: why help lines stand under the answers: phrases of a crisis where the detector is
            off, or a finding that was not meant.
        trouble: why it could not be answered.
        stopped: no further model is to answer.
        tries: how often it was to be answered anew.
    """

    text: str
    prompt: str
    opening: str
    finding: Finding | None
    answers: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    concern: Finding | None = None
    trouble: str = ""
    stopped: bool = False
    tries: int = 0

    @property
    def open(self) -> bool:
        """Whether models may answer it."""
        return self.finding is None and not self.trouble and not self.stopped


class ChatSession:
    """A conversation with several speakers, each with a history of its own.

    A message that the detector takes for a crisis is in no speaker's history, unless whoever
    wrote it says that it was not meant so. ``phrases`` only watch: where they fire, the models
    answer, and help lines are shown as well.
    """

    def __init__(
        self,
        speakers: Sequence[str],
        system: str = "",
        detector: CrisisDetector | None = None,
        phrases: CrisisDetector | None = None,
    ) -> None:
        self.speakers = tuple(speakers)
        self.system = system
        self.detector = detector
        self.phrases = phrases
        self.turns: list[Turn] = []

    def say(self, text: str, prompt: str | None = None, opening: str | None = None) -> Turn:
        """Add a message; the models may answer it unless its ``finding`` is set.

        The detector reads ``text``, the models ``prompt`` if there is one, or ``opening`` where it
        turns out to be the first that they read: messages before it may yet fail, or be stopped.
        """
        before = self._before()
        finding = self.detector.check(text, before) if self.detector is not None else None
        concern = self.phrases.check(text, before) if self.phrases is not None else None
        prompt = text if prompt is None else prompt
        opening = prompt if opening is None else opening
        turn = Turn(text, prompt, opening, finding, concern=concern)
        self.turns.append(turn)
        return turn

    def not_meant(self) -> None:
        """Let the models answer the last message although the detector fired; help lines stay."""
        turn = self.turns[-1]
        turn.concern, turn.finding = turn.finding or turn.concern, None

    def messages(self, speaker: str, until: Turn | None = None) -> list[Message]:
        """Return the conversation as ``speaker`` knows it, up to the message to answer next.

        ``until``: that message; None: the last one that may be answered.
        """
        turns = [t for t in self.turns if t.finding is None]
        if until is not None:
            turns = turns[: next(i for i, turn in enumerate(turns) if turn is until) + 1]
        found = [Message("system", self.system)] if self.system.strip() else []
        read = [turn for turn in turns[:-1] if speaker in turn.answers] + turns[-1:]
        for place, turn in enumerate(read):
            found.append(Message("user", turn.prompt if place else turn.opening))
            if turn is not turns[-1]:
                found.append(Message("assistant", turn.answers[speaker]))
        return found

    def waiting(self) -> list[str]:
        """Return who has not answered the last message yet."""
        if not self.turns or not self.turns[-1].open:
            return []
        return [name for name in self.speakers if name not in self.turns[-1].answers]

    def next(self) -> tuple[Turn, str] | None:
        """Return the first message that waits for an answer, and whose; None: nothing waits."""
        for turn in list(self.turns):
            for speaker in self.speakers if turn.open else ():
                if speaker not in turn.answers:
                    return turn, speaker
        return None

    def stop(self) -> None:
        """Let no further model answer what waits now."""
        for turn in list(self.turns):
            if turn.open and any(name not in turn.answers for name in self.speakers):
                turn.stopped = True

    def again(self) -> None:
        """Forget the answers to the last message, so that it is answered anew."""
        turn = self.turns[-1]
        turn.answers, turn.seconds, turn.trouble, turn.stopped = {}, {}, "", False
        turn.tries += 1

    def withdraw(self) -> Turn:
        """Take back the last message and the answers to it."""
        return self.turns.pop()

    def reset(self) -> None:
        self.turns.clear()

    def transcript(self, about: dict[str, Any]) -> dict[str, Any]:
        """Return the conversation as plain values, with ``about`` (models, decoding) on top."""
        return {**about, "system": self.system, "turns": [asdict(turn) for turn in self.turns]}

    def save(self, directory: Path, about: dict[str, Any]) -> Path:
        """Write the transcript below ``directory``; nothing is written unless this is called."""
        folder = directory / TRANSCRIPTS
        folder.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S-%f")
        path = folder / f"{stamp}.json"
        record = {"time": stamp, **self.transcript(about)}
        write_atomically(path, json.dumps(record, indent=2, ensure_ascii=False))
        return path

    def _before(self) -> str:
        """The last message that fired nothing: a sentence may be sent in two parts."""
        passed = [t.text for t in self.turns if t.finding is None and t.concern is None]
        return passed[-1] if passed else ""
