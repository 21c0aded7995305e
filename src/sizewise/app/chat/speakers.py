"""Which models of a run can be talked to, and the engines that several of them share."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sizewise.app.chat.engine import Engine, Reply
from sizewise.composition.inputs import names_hub
from sizewise.config import WITHOUT_LIKELIHOODS, GenerationConfig, RunConfig
from sizewise.config.targets import recorded_config
from sizewise.data.example import Message
from sizewise.errors import ModelError
from sizewise.files import hash_text
from sizewise.job.bases import storage_of
from sizewise.models.adapter import full
from sizewise.record.directories import RunDir
from sizewise.record.fit import check_adapter
from sizewise.record.outcome import Evaluation
from sizewise.record.predictions import read_predictions
from sizewise.release.generate import out_of_training
from sizewise.report.comparison.arms import run_names
from sizewise.report.comparison.runs import Run
from sizewise.runtime import prepare_environment, quiet, resolve_device


@dataclass(frozen=True)
class Speaker:
    """A model to talk to.

    Attributes:
        name: stable name: ``<run id>/tuned``, or ``base/<hash>``, whichever run the base is of.
        label: what people call it.
        adapter: folder of its trained weights; None: the base alone.
        answers: its stored answers to the test set, where they are still there.
    """

    name: str
    label: str
    config: RunConfig
    adapter: Path | None
    answers: Path | None = None

    @property
    def engine_key(self) -> str:
        """What must be equal for two speakers to share a base in memory."""
        recorded = [repr(part) for part in storage_of(self.config)]
        own = str(self.adapter) if self.adapter and full.is_full_checkpoint(self.adapter) else ""
        return json.dumps([*recorded, own])

    @property
    def asked(self) -> str:
        """What must be equal for two untouched models to be the same to talk to."""
        dataset = self.config.dataset
        return json.dumps([self.engine_key, dataset.prompt, dataset.system])


def speakers_of(run: Run, label: str = "") -> list[Speaker]:
    """Return the tuned model and the base of a run; none for one that writes no text here.

    ``label``: what people call the run. A tuned model whose adapter was not kept is left out.
    """
    outcome = run.outcome
    if outcome.model.family in WITHOUT_LIKELIHOODS:
        return []
    config = recorded_config(outcome.config)
    name, label = outcome.run_id, label or run.directory.name
    given = _answers(run, outcome.base)
    base = Speaker("", f"{outcome.model.name} – untouched", config, None, given)
    base = replace(base, name=f"base/{hash_text(base.asked, 12)}")
    place = RunDir(run.directory).adapter
    named = config.adapter if config.stage == "evaluate" else None
    adapter = place if place.is_dir() else Path(named) if named else None
    if outcome.tuned is None or adapter is None:
        return [base]
    answers = _answers(run, outcome.tuned)
    return [Speaker(f"{name}/tuned", f"{label} – tuned", config, adapter, answers), base]


def all_speakers(runs: Sequence[Run]) -> dict[str, Speaker]:
    """Return everyone there is to talk to by name, tuned models first, each base once."""
    found = [s for run, label in run_names(runs) for s in speakers_of(run, label)]
    tuned = {s.name: s for s in found if s.adapter is not None}
    bases = {s.asked: s for s in reversed(found) if s.adapter is None}
    labels = Counter(s.label for s in bases.values())
    alone = [s if labels[s.label] == 1 else _with_prompt(s) for s in reversed(bases.values())]
    return tuned | {s.name: s for s in alone}


def base_of(speaker: Speaker, speakers: Mapping[str, Speaker]) -> str | None:
    """Return the name of the untouched model that a tuned one was made from."""
    own = [s.name for s in speakers.values() if s.adapter is None and s.asked == speaker.asked]
    return own[0] if own and speaker.adapter is not None else None


def _with_prompt(speaker: Speaker) -> Speaker:
    """Tell apart untouched models that are asked in other words."""
    words = " ".join((speaker.config.dataset.prompt or "").split())
    return replace(speaker, label=f"{speaker.label}, asked “{words[-40:]}”")


def _answers(run: Run, evaluations: Mapping[str, Evaluation]) -> Path | None:
    evaluation = evaluations.get(run.outcome.data.name)
    path = None if evaluation is None else run.directory / evaluation.predictions.path
    return path if path is not None and path.is_file() else None


def questions_of(speaker: Speaker, most: int = 20) -> list[tuple[str, str, str]]:
    """The first questions of the test set: as a person would ask, as the model reads, reference."""
    if speaker.answers is None:
        return []
    dataset = speaker.config.dataset
    system = f"{dataset.system}\n\n" if dataset.system else ""
    found = []
    for answer in read_predictions(speaker.answers)[:most]:
        prompt = answer.prompt.removeprefix(system)
        found.append((out_of_training(dataset.prompt or "", prompt), prompt, answer.reference))
    return found


@dataclass(frozen=True)
class Voices:
    """The engines of speakers that were prepared together, by their keys."""

    engines: Mapping[str, Engine]

    def reply(
        self, speaker: Speaker, messages: Sequence[Message], generation: GenerationConfig
    ) -> Reply:
        """Let a prepared speaker answer; raises ModelError for one that is not prepared."""
        engine = self.engines.get(speaker.engine_key)
        if engine is None:
            raise ModelError(f"{speaker.label} is not loaded. Choose the models again.")
        return engine.reply(speaker.adapter, messages, generation)


class Choir:
    """All engines in memory; speakers with the same base share one."""

    def __init__(self) -> None:
        self._engines: dict[str, Engine] = {}
        self._loading = threading.Lock()

    @property
    def loaded(self) -> int:
        return len(self._engines)

    def prepare(self, speakers: Sequence[Speaker]) -> Voices:
        """Load what ``speakers`` need and let go of other bases; SizewiseError if that fails.

        What is returned stays in memory while it is held, whatever another page loads meanwhile.
        """
        prepare_environment(hub=any(names_hub(speaker.config) for speaker in speakers))
        quiet()
        with self._loading:  # one page of the app at a time
            self._load(speakers)
            return Voices(self._engines)

    def _load(self, speakers: Sequence[Speaker]) -> None:
        for speaker in speakers:
            if speaker.adapter is not None:
                check_adapter(speaker.adapter)
        wanted = {speaker.engine_key for speaker in speakers}
        # A new dict each time: those who hold the one before keep what is in it.
        self._engines = {key: e for key, e in self._engines.items() if key in wanted}
        for speaker in speakers:
            if speaker.engine_key not in self._engines:
                config = speaker.config
                device = resolve_device(config.trainer)
                engine = Engine(*storage_of(config), device)
                self._engines[speaker.engine_key] = engine
            if speaker.adapter is not None:
                self._engines[speaker.engine_key].add(speaker.adapter, speaker.config.trainer)
