"""Which models of a run can be talked to, and the engines that several of them share."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sizewise.app.chat.engine import Engine, Reply
from sizewise.composition.inputs import names_hub
from sizewise.config import WITHOUT_WEIGHTS, GenerationConfig, RunConfig
from sizewise.config.targets import recorded_config
from sizewise.data.example import Message
from sizewise.errors import ModelError
from sizewise.job.bases import storage_of
from sizewise.models.adapter import full
from sizewise.record.directories import RunDir
from sizewise.record.fit import check_adapter
from sizewise.report.comparison.runs import Run
from sizewise.runtime import prepare_environment, quiet, resolve_device


@dataclass(frozen=True)
class Speaker:
    """A model to talk to.

    Attributes:
        name: stable name, ``<run id>/base`` or ``<run id>/tuned``.
        label: what people call it.
        adapter: folder of its trained weights; None: the base alone.
    """

    name: str
    label: str
    config: RunConfig
    adapter: Path | None

    @property
    def engine_key(self) -> str:
        """What must be equal for two speakers to share a base in memory."""
        recorded = [repr(part) for part in storage_of(self.config)]
        own = str(self.adapter) if self.adapter and full.is_full_checkpoint(self.adapter) else ""
        return json.dumps([*recorded, own])


def speakers_of(run: Run) -> list[Speaker]:
    """Return the tuned model and the base of a run; none for one without weights of its own.

    A tuned model whose adapter was not kept is left out.
    """
    outcome = run.outcome
    if outcome.model.family in WITHOUT_WEIGHTS:
        return []
    config = recorded_config(outcome.config)
    name = run.directory.name
    base = Speaker(f"{outcome.run_id}/base", f"{name} · base", config, None)
    place = RunDir(run.directory).adapter
    given = config.adapter if config.stage == "evaluate" else None
    adapter = place if place.is_dir() else Path(given) if given else None
    if outcome.tuned is None or adapter is None:
        return [base]
    return [Speaker(f"{outcome.run_id}/tuned", f"{name} · tuned", config, adapter), base]


class Choir:
    """All engines in memory; speakers with the same base share one."""

    def __init__(self) -> None:
        self._engines: dict[str, Engine] = {}
        self._loading = threading.Lock()

    @property
    def loaded(self) -> int:
        return len(self._engines)

    def prepare(self, speakers: Sequence[Speaker]) -> None:
        """Load what ``speakers`` need and let go of other bases; SizewiseError if that fails."""
        prepare_environment(hub=any(names_hub(speaker.config) for speaker in speakers))
        quiet()
        with self._loading:  # one page of the app at a time
            self._load(speakers)

    def _load(self, speakers: Sequence[Speaker]) -> None:
        for speaker in speakers:
            if speaker.adapter is not None:
                check_adapter(speaker.adapter)
        wanted = {speaker.engine_key for speaker in speakers}
        self._engines = {key: e for key, e in self._engines.items() if key in wanted}
        for speaker in speakers:
            if speaker.engine_key not in self._engines:
                config = speaker.config
                device = resolve_device(config.trainer)
                engine = Engine(*storage_of(config), device)
                self._engines[speaker.engine_key] = engine
            if speaker.adapter is not None:
                self._engines[speaker.engine_key].add(speaker.adapter, speaker.config.trainer)

    def reply(
        self, speaker: Speaker, messages: Sequence[Message], generation: GenerationConfig
    ) -> Reply:
        """Let a prepared speaker answer; raises ModelError for one that is not prepared."""
        engine = self._engines.get(speaker.engine_key)
        if engine is None:
            raise ModelError(f"{speaker.label} is not loaded. Choose the models again.")
        return engine.reply(speaker.adapter, messages, generation)

    def answer(
        self, speaker: Speaker, messages: Sequence[Message], generation: GenerationConfig
    ) -> str:
        return deque(self.reply(speaker, messages, generation).pieces, maxlen=1).pop()
