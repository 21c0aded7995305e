"""General text for pretraining: questions and answers about the catalogue, and dialogues.

Dialogues end in a diagnosis in words, never in a code; codes are learnt from questions about
the catalogue and about single complaints. No dialogue and no instruction of the task occurs
here, no scenario of its validation or test split, and one detail in every second condition
is kept back altogether.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import simple_icd_10_cm as catalogue

from sizewise.embedded import pretraining_wording as frames
from sizewise.embedded.conditions import Condition, chapter_title, load_conditions
from sizewise.embedded.dialogues import Scenario, generate_dialogues, held_out_scenarios
from sizewise.embedded.wording import DURATIONS, sentence

NEIGHBOURS_PER_CATEGORY = 2
LAY_CODE_SHARE = 0.6


class Exchange(NamedTuple):
    """One question of a user and the assistant's answer."""

    question: str
    answer: str


class PretrainingText:
    """Endless seeded stream of exchanges.

    `weights` are the shares of dialogues, lay complaints and questions about the catalogue.
    """

    def __init__(self, seed: int = 7, weights: tuple[float, ...] = (0.35, 0.45, 0.2)) -> None:
        self._rng = random.Random(seed)
        self._weights = weights
        self._scenarios = allowed_scenarios()
        self._codes = catalogue_codes()
        self._conditions = sorted(self._scenarios)

    def __iter__(self) -> Iterator[Exchange]:
        writers = (self._dialogue, self._lay_words, self._catalogue)
        while True:
            yield self._rng.choices(writers, self._weights)[0]()

    def _scenario(self) -> Scenario:
        """Conditions are equally frequent here: the task's frequencies are not given away."""
        return self._rng.choice(self._scenarios[self._rng.choice(self._conditions)])

    def _dialogue(self) -> Exchange:
        rng, scenario = self._rng, self._scenario()
        asking, telling = rng.choice(frames.SPEAKERS)
        complaint, detail = _phrases(scenario, rng)
        turns = [(asking, rng.choice(frames.OPENERS)), (telling, sentence(complaint))]
        turns += [(asking, rng.choice(frames.QUESTIONS)), (telling, sentence(detail))]
        if rng.random() < 0.4:
            aside = (asking, rng.choice(frames.ASIDE_QUESTIONS)), (telling, self._aside())
            at = rng.choice((2, 4))
            turns[at:at] = aside
        if rng.random() < 0.3:
            turns[1] = (telling, f"{self._aside()} {turns[1][1]}")
        text = "\n".join(f"{speaker}: {said}" for speaker, said in turns)
        question = f"{text}\n\n{rng.choice(frames.DIAGNOSIS_QUESTIONS)}"
        return Exchange(question, self._named(scenario.condition))

    def _lay_words(self) -> Exchange:
        rng, scenario = self._rng, self._scenario()
        parts = [sentence(part) for part in _phrases(scenario, rng)]
        if rng.random() < 0.3:
            parts.append(self._aside())
        rng.shuffle(parts)
        frame, words = rng.choice(frames.LAY_FRAMES), " ".join(parts)
        if rng.random() < LAY_CODE_SHARE:
            question = frame.format(words=words, question=rng.choice(frames.LAY_CODE_QUESTIONS))
            return Exchange(question, _coded(scenario.condition.code))
        question = frame.format(words=words, question=rng.choice(frames.LAY_QUESTIONS))
        return Exchange(question, self._named(scenario.condition))

    def _catalogue(self) -> Exchange:
        rng = self._rng
        code = rng.choice(self._codes)
        kind = rng.choices(("code", "meaning", "chapter", "category"), (0.55, 0.25, 0.1, 0.1))[0]
        values = {"code": code, "description": str(catalogue.get_description(code))}
        if kind == "code":
            return Exchange(rng.choice(frames.CODE_QUESTIONS).format(**values), _coded(code))
        if kind == "meaning":
            question = rng.choice(frames.MEANING_QUESTIONS).format(**values)
            return Exchange(question, rng.choice(frames.MEANINGS).format(**values))
        if kind == "chapter":
            question = rng.choice(frames.CHAPTER_QUESTIONS).format(**values)
            return Exchange(question, sentence(chapter_title(code)))
        category = code.split(".")[0]
        title = catalogue.get_description(category)
        question = rng.choice(frames.CATEGORY_QUESTIONS).format(**values)
        return Exchange(question, f"{title}, category {category}.")

    def _named(self, condition: Condition) -> str:
        return self._rng.choice(frames.NAMED).format(description=condition.description)

    def _aside(self) -> str:
        side = self._rng.choice(("right", "left"))
        return self._rng.choice(frames.ASIDES).format(side=side)


def allowed_scenarios() -> dict[str, list[Scenario]]:
    """Scenarios by code that neither the validation nor the test split holds."""
    forbidden = held_out_scenarios(generate_dialogues())
    allowed: dict[str, list[Scenario]] = {}
    for number, condition in enumerate(load_conditions()):
        details = len(condition.details) - number % 2
        scenarios = [
            Scenario(condition, complaint, detail)
            for complaint in range(len(condition.complaints))
            for detail in range(details)
        ]
        kept = [scenario for scenario in scenarios if scenario.key not in forbidden]
        if kept:
            allowed[condition.code] = kept
    return allowed


def catalogue_codes() -> list[str]:
    """The task's codes, and for each category a few neighbours that the task does not use."""
    own = [condition.code for condition in load_conditions()]
    found = dict.fromkeys(own)
    for category in dict.fromkeys(code.split(".")[0] for code in own):
        leaves = [c for c in catalogue.get_descendants(category) if catalogue.is_leaf(c)]
        others = [leaf for leaf in leaves if leaf not in found and len(leaf) < 8]
        found.update(dict.fromkeys(others[:NEIGHBOURS_PER_CATEGORY]))
    return list(found)


def _coded(code: str) -> str:
    return frames.CODED.format(description=catalogue.get_description(code), code=code)


def _phrases(scenario: Scenario, rng: random.Random) -> tuple[str, str]:
    """Complaint, sometimes with a duration, and detail of a scenario."""
    condition = scenario.condition
    complaint = condition.complaints[scenario.complaint]
    if rng.random() < 0.4:
        complaint += " " + rng.choice(DURATIONS[condition.course])
    return complaint, condition.details[scenario.detail]
