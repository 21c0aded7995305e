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
        prompt: what the models read (the text, or the text in the data set's wording).
        finding: why no model may answer; None: they may.
        answers: speaker → answer, complete ones only.
    """

    text: str
    prompt: str
    finding: Finding | None
    answers: dict[str, str] = field(default_factory=dict)


class ChatSession:
    """A conversation with several speakers, each with a history of its own.

    A message that the detector takes for a crisis is in no speaker's history.
    """

    def __init__(
        self, speakers: Sequence[str], system: str = "", detector: CrisisDetector | None = None
    ) -> None:
        self.speakers = tuple(speakers)
        self.system = system
        self.detector = detector
        self.turns: list[Turn] = []

    def say(self, text: str, prompt: str | None = None) -> Turn:
        """Add a message; the models may answer it unless its ``finding`` is set.

        The detector reads ``text``, the models ``prompt`` if there is one.
        """
        finding = None
        if self.detector is not None:
            finding = self.detector.check(text, before=self._before())
        turn = Turn(text, text if prompt is None else prompt, finding)
        self.turns.append(turn)
        return turn

    def messages(self, speaker: str) -> list[Message]:
        """Return the conversation as ``speaker`` knows it, up to the message to answer next."""
        found = [Message("system", self.system)] if self.system.strip() else []
        open_turns = [t for t in self.turns if t.finding is None]
        for turn in open_turns[:-1]:
            if speaker in turn.answers:
                found.append(Message("user", turn.prompt))
                found.append(Message("assistant", turn.answers[speaker]))
        return [*found, *(Message("user", turn.prompt) for turn in open_turns[-1:])]

    def waiting(self) -> list[str]:
        if not self.turns or self.turns[-1].finding is not None:
            return []
        return [name for name in self.speakers if name not in self.turns[-1].answers]

    def withdraw(self) -> Turn:
        """Take back the last message: a model could not answer it."""
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
        """The last message that was let through: a sentence may be sent in two parts."""
        passed = [turn.text for turn in self.turns if turn.finding is None]
        return passed[-1] if passed else ""
