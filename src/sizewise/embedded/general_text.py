"""General text: questions and answers about the catalogue, and dialogues, none of the task.

The second phase of pretraining reads dialogues and complaints with a second finding that is not
the asker's, each followed by its twin (see `contrasts`), and so learns to heed which of the two
is meant. The labels of the findings are the task's; what is said around them is not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import simple_icd_10_cm as catalogue

from sizewise.embedded.contrasts import FRAMES, RELATIVES, Scenario, scenarios_of
from sizewise.embedded.dialogues import generate_dialogues, held_out_scenarios
from sizewise.embedded.phrasing import (
    DURATIONS,
    Condition,
    chapter_title,
    load_conditions,
    sentence,
)

NEIGHBOURS_PER_CATEGORY = 2
LAY_CODE_SHARE, BARE_CODE_SHARE = 0.6, 0.2
KIN_SHARE = 0.6


class Exchange(NamedTuple):
    question: str
    answer: str


class PretrainingText:
    """Endless seeded stream of exchanges.

    `weights` are the shares of dialogues, lay complaints and questions about the catalogue;
    `contrasts` is the share of dialogues and complaints that tell a second finding.
    """

    def __init__(
        self,
        seed: int = 7,
        weights: tuple[float, ...] = (0.35, 0.45, 0.2),
        contrasts: float = 0.0,
    ) -> None:
        self._rng = random.Random(seed)
        self._weights = weights
        self._contrasts = contrasts
        self._scenarios = allowed_scenarios()
        self._codes = catalogue_codes()
        self._conditions = sorted(self._scenarios)
        self._families: dict[str, list[str]] = {}
        for code in self._conditions:
            family = self._scenarios[code][0].condition.family
            self._families.setdefault(family, []).append(code)

    def __iter__(self) -> Iterator[Exchange]:
        writers = (self._dialogue, self._lay_words, self._catalogue)
        while True:
            yield from self._rng.choices(writers, self._weights)[0]()

    def _scenario(self) -> Scenario:
        """Conditions are equally frequent here: the task's frequencies are not given away."""
        return self._rng.choice(self._scenarios[self._rng.choice(self._conditions)])

    def _dialogue(self) -> list[Exchange]:
        rng, scenario = self._rng, self._scenario()
        asking, telling = rng.choice(SPEAKERS)
        opening = f"{asking}: {rng.choice(OPENERS)}\n"
        closing = "\n\n" + rng.choice(DIAGNOSIS_QUESTIONS)
        if rng.random() < 0.3:
            aside = f"\n{asking}: {rng.choice(ASIDE_QUESTIONS)}\n{telling}: {self._aside()}"
            closing = aside + closing
        if rng.random() < self._contrasts:
            told = self._contrast(scenario, telling)
        else:
            complaint, detail = (sentence(part) for part in _phrases(scenario, rng))
            more = rng.choice(QUESTIONS)
            turns = f"{telling}: {complaint}\n{asking}: {more}\n{telling}: {detail}"
            told = [(turns, scenario.condition)]
        return [
            Exchange(f"{opening}{text}{closing}", self._named(condition))
            for text, condition in told
        ]

    def _contrast(self, scenario: Scenario, telling: str) -> list[tuple[str, Condition]]:
        """Two texts that tell the scenario and another one, and which of them each means."""
        rng, other = self._rng, self._other(scenario)
        frame, who = rng.choice(FRAMES), rng.choice(RELATIVES)
        shared = other.condition.family == scenario.condition.family
        start = ""
        if shared:
            start = f"{telling}: {sentence(_phrases(scenario, rng)[0])}\n"
        findings = [self._finding(s, brief=shared) for s in (scenario, other)]
        meant = (scenario, other) if frame.meant == "a" else (other, scenario)
        return [
            (start + frame.text.format(a=a, b=b, p=telling, who=who), own.condition)
            for (a, b), own in zip((findings, findings[::-1]), meant, strict=True)
        ]

    def _other(self, scenario: Scenario) -> Scenario:
        """A scenario of another code, often of the same family."""
        rng, codes = self._rng, self._conditions
        if rng.random() < KIN_SHARE:
            codes = self._families[scenario.condition.family]
        others = [code for code in codes if code != scenario.condition.code]
        return rng.choice(self._scenarios[rng.choice(others or self._conditions)])

    def _finding(self, scenario: Scenario, brief: bool) -> str:
        complaint, detail = (sentence(part) for part in _phrases(scenario, self._rng))
        return detail if brief else f"{complaint} {detail}"

    def _lay_words(self) -> list[Exchange]:
        rng, scenario = self._rng, self._scenario()
        if rng.random() < self._contrasts:
            told = self._contrast(scenario, rng.choice(SPEAKERS)[1])
            frame = "{words}\n{question}"
        else:
            told = [(self._lay_phrases(scenario), scenario.condition)]
            frame = rng.choice(LAY_FRAMES)
        questions, answer = self._asked()
        asked = rng.choice(questions)
        return [
            Exchange(frame.format(words=text, question=asked), answer(condition))
            for text, condition in told
        ]

    def _asked(self) -> tuple[tuple[str, ...], Callable[[Condition], str]]:
        """Questions for the name of a condition, its code or both, and how they are answered."""
        rng = self._rng
        if rng.random() >= LAY_CODE_SHARE:
            return LAY_QUESTIONS, self._named
        if rng.random() < BARE_CODE_SHARE:
            return BARE_CODE_QUESTIONS, lambda condition: f"{condition.code}."
        return LAY_CODE_QUESTIONS, lambda condition: _coded(condition.code)

    def _lay_phrases(self, scenario: Scenario) -> str:
        parts = [sentence(part) for part in _phrases(scenario, self._rng)]
        if self._rng.random() < 0.3:
            parts.append(self._aside())
        self._rng.shuffle(parts)
        return " ".join(parts)

    def _catalogue(self) -> list[Exchange]:
        rng = self._rng
        code = rng.choice(self._codes)
        kind = rng.choices(("code", "meaning", "chapter", "category"), (0.55, 0.25, 0.1, 0.1))[0]
        return [self._entry(kind, code)]

    def _entry(self, kind: str, code: str) -> Exchange:
        """A question about one entry of the catalogue."""
        rng = self._rng
        values = {"code": code, "description": str(catalogue.get_description(code))}
        if kind == "code":
            return Exchange(rng.choice(CODE_QUESTIONS).format(**values), _coded(code))
        if kind == "meaning":
            question = rng.choice(MEANING_QUESTIONS).format(**values)
            return Exchange(question, rng.choice(MEANINGS).format(**values))
        if kind == "chapter":
            question = rng.choice(CHAPTER_QUESTIONS).format(**values)
            return Exchange(question, sentence(chapter_title(code)))
        category = code.split(".")[0]
        title = catalogue.get_description(category)
        question = rng.choice(CATEGORY_QUESTIONS).format(**values)
        return Exchange(question, f"{title}, category {category}.")

    def _named(self, condition: Condition) -> str:
        return self._rng.choice(NAMED).format(description=condition.description)

    def _aside(self) -> str:
        side = self._rng.choice(("right", "left"))
        return self._rng.choice(ASIDES).format(side=side)


def allowed_scenarios() -> dict[str, list[Scenario]]:
    """Scenarios by code that neither the validation nor the test split holds."""
    forbidden = held_out_scenarios(generate_dialogues())
    allowed: dict[str, list[Scenario]] = {}
    for number, condition in enumerate(load_conditions()):
        scenarios = scenarios_of(condition, len(condition.details) - number % 2)
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
    return CODED.format(description=catalogue.get_description(code), code=code)


def _phrases(scenario: Scenario, rng: random.Random) -> tuple[str, str]:
    """Complaint, sometimes with a duration, and detail of a scenario."""
    condition = scenario.condition
    complaint = condition.complaints[scenario.complaint]
    if rng.random() < 0.4:
        complaint += " " + rng.choice(DURATIONS[condition.course])
    return complaint, condition.details[scenario.detail]


SPEAKERS = (("Doctor", "Patient"), ("Nurse", "Caller"), ("Clinic", "Visitor"))
OPENERS = (
    "Next please. What is wrong?",
    "Tell me about your complaint.",
    "Welcome to the clinic, how do you feel?",
    "Why did you book this slot?",
    "What worries you?",
)
QUESTIONS = (
    "What does it feel like?",
    "Did you notice anything special?",
    "Is that all there is to it?",
    "Please explain a bit further.",
    "What makes it different?",
)
ASIDES = (
    "I am otherwise healthy.",
    "I take no medicine.",
    "I have two children.",
    "My brother has high blood pressure.",
    "I had the flu in winter.",
    "I am allergic to penicillin.",
    "My father has sugar.",
    "I never smoked.",
    "My {side} arm was in plaster once.",
    "Long ago I had an operation on the {side} leg.",
)
ASIDE_QUESTIONS = (
    "Past illnesses?",
    "Do you take anything?",
    "How is your health apart from that?",
)

DIAGNOSIS_QUESTIONS = (
    "What does this person have?",
    "Which illness is described here?",
    "Put the diagnosis into words.",
    "Name the finding in words.",
    "What is the matter with this patient?",
    "Which condition explains this?",
)
NAMED = ("{description}.", "This is {description}.", "It looks like {description}.")

LAY_FRAMES = (
    "{words} {question}",
    "{question} {words}",
    "{words}\n\n{question}",
    "Patient: {words}\n\n{question}",
    "Caller: {words}\n\n{question}",
    "Note of a call: {words}\n{question}",
)
LAY_QUESTIONS = ("What is that called?", "Which condition is it?", *DIAGNOSIS_QUESTIONS)
LAY_CODE_QUESTIONS = (
    "Which ICD-10-CM code is that?",
    "Which ICD-10-CM code covers this complaint?",
    "Say what it is first, then its ICD-10-CM code.",
    "Give the name and the code.",
    "What is the ICD-10-CM code here?",
    "Find the ICD-10-CM code, words may come first.",
    "How is this complaint coded in ICD-10-CM?",
)
BARE_CODE_QUESTIONS = ("Only the ICD-10-CM code, please.", "Say nothing but the ICD-10-CM code.")
CODED = "{description}, code {code}."

CODE_QUESTIONS = (
    "Which ICD-10-CM code stands for {description}?",
    "What is the code of {description}?",
    "How is {description} coded?",
    "Code for: {description}",
)
MEANING_QUESTIONS = (
    "What does {code} stand for?",
    "Which condition has the ICD-10-CM code {code}?",
    "Read out the entry {code}.",
)
MEANINGS = ("{description}.", "{code} stands for {description}.")
CHAPTER_QUESTIONS = ("Which chapter holds {code}?", "In what chapter is {description} listed?")
CATEGORY_QUESTIONS = ("To which category does {code} belong?", "What is the category of {code}?")
