"""General text: questions and answers about the catalogue, and dialogues, none of the task.

Half of the dialogues and lay complaints tell a second finding that is not the asker's, so that
pretraining teaches to heed who says what of whom, in other words than the task's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import simple_icd_10_cm as catalogue

from sizewise.embedded.contrasts import RELATIVES, Frame, Scenario, scenarios_of
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
CONTRAST_SHARE = 0.5
KIN_SHARE = 0.6


class Exchange(NamedTuple):
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
        self._families: dict[str, list[str]] = {}
        for code in self._conditions:
            family = self._scenarios[code][0].condition.family
            self._families.setdefault(family, []).append(code)

    def __iter__(self) -> Iterator[Exchange]:
        writers = (self._dialogue, self._lay_words, self._catalogue)
        while True:
            yield self._rng.choices(writers, self._weights)[0]()

    def _scenario(self) -> Scenario:
        """Conditions are equally frequent here: the task's frequencies are not given away."""
        return self._rng.choice(self._scenarios[self._rng.choice(self._conditions)])

    def _dialogue(self) -> Exchange:
        rng, scenario = self._rng, self._scenario()
        asking, telling = rng.choice(SPEAKERS)
        turns = [(asking, rng.choice(OPENERS)), *self._telling(scenario, asking, telling)]
        if rng.random() < 0.3:
            turns += [(asking, rng.choice(ASIDE_QUESTIONS)), (telling, self._aside())]
        text = "\n".join(f"{speaker}: {said}" for speaker, said in turns)
        question = f"{text}\n\n{rng.choice(DIAGNOSIS_QUESTIONS)}"
        return Exchange(question, self._named(scenario.condition))

    def _telling(self, scenario: Scenario, asking: str, telling: str) -> list[tuple[str, str]]:
        """Turns in which the scenario is told, alone or beside another one."""
        rng = self._rng
        if rng.random() < CONTRAST_SHARE:
            text = self._contrast(scenario, asking, telling)
            return [(line.split(": ", 1)[0], line.split(": ", 1)[1]) for line in text.split("\n")]
        complaint, detail = _phrases(scenario, rng)
        turns = [(telling, sentence(complaint))]
        return [*turns, (asking, rng.choice(QUESTIONS)), (telling, sentence(detail))]

    def _contrast(self, scenario: Scenario, asking: str, telling: str) -> str:
        """Turns that tell the scenario and another one, of which it is the meant one."""
        rng = self._rng
        other = self._other(scenario)
        same = other.condition.family == scenario.condition.family
        meant, beside = (self._finding(s, brief=same) for s in (scenario, other))
        frame = rng.choice(GENERAL_FRAMES)
        a, b = (meant, beside) if frame.meant == "a" else (beside, meant)
        told = frame.text.format(a=a, b=b, who=rng.choice(RELATIVES), q=asking, p=telling)
        if not same:
            return told
        complaint = sentence(scenario.condition.complaints[scenario.complaint])
        return f"{telling}: {complaint}\n{told}"

    def _other(self, scenario: Scenario) -> Scenario:
        """A scenario of another code, often of the same family."""
        rng, family = self._rng, scenario.condition.family
        codes = self._conditions
        if rng.random() < KIN_SHARE:
            codes = self._families[family]
        others = [code for code in codes if code != scenario.condition.code]
        return rng.choice(self._scenarios[rng.choice(others or self._conditions)])

    def _finding(self, scenario: Scenario, brief: bool) -> str:
        if brief:
            return sentence(scenario.condition.details[scenario.detail])
        return " ".join(sentence(part) for part in _phrases(scenario, self._rng))

    def _lay_words(self) -> Exchange:
        rng, scenario = self._rng, self._scenario()
        frame = rng.choice(LAY_FRAMES)
        if rng.random() < CONTRAST_SHARE:
            words = self._contrast(scenario, *rng.choice(SPEAKERS))
            frame = "{words}\n{question}"
        else:
            words = self._lay_phrases(scenario)
        question, answer = self._asked(scenario.condition)
        return Exchange(frame.format(words=words, question=question), answer)

    def _asked(self, condition: Condition) -> tuple[str, str]:
        """What is asked about a condition, name or code or both, and the answer."""
        rng = self._rng
        if rng.random() >= LAY_CODE_SHARE:
            return rng.choice(LAY_QUESTIONS), self._named(condition)
        if rng.random() < BARE_CODE_SHARE:
            return rng.choice(BARE_CODE_QUESTIONS), f"{condition.code}."
        return rng.choice(LAY_CODE_QUESTIONS), _coded(condition.code)

    def _lay_phrases(self, scenario: Scenario) -> str:
        parts = [sentence(part) for part in _phrases(scenario, self._rng)]
        if self._rng.random() < 0.3:
            parts.append(self._aside())
        self._rng.shuffle(parts)
        return " ".join(parts)

    def _catalogue(self) -> Exchange:
        rng = self._rng
        code = rng.choice(self._codes)
        kind = rng.choices(("code", "meaning", "chapter", "category"), (0.55, 0.25, 0.1, 0.1))[0]
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

GENERAL_FRAMES = (
    Frame("person", "b", "{q}: How is your {who}?\n{p}: {a}\n{q}: How are you yourself?\n{p}: {b}"),
    Frame("person", "a", "{q}: How are you yourself?\n{p}: {a}\n{q}: How is your {who}?\n{p}: {b}"),
    Frame("person", "b", "{p}: {a} So it is for my {who}. For me it is like this. {b}"),
    Frame("person", "a", "{p}: {a} So it is for me. For my {who} it is like this. {b}"),
    Frame(
        "time",
        "b",
        "{q}: What was wrong years ago?\n{p}: {a}\n{q}: What is wrong now?\n{p}: {b}",
    ),
    Frame(
        "time",
        "a",
        "{q}: What is wrong now?\n{p}: {a}\n{q}: What was wrong years ago?\n{p}: {b}",
    ),
    Frame("time", "b", "{p}: {a} It was so once and is over. Today it is different. {b}"),
    Frame("time", "a", "{p}: {a} It is so today. Once it was different, that is over. {b}"),
    Frame(
        "negation",
        "a",
        "{q}: Do you have this? {a}\n{p}: Yes, I do.\n{q}: Or this? {b}\n{p}: No, I do not.",
    ),
    Frame(
        "negation",
        "b",
        "{q}: Do you have this? {a}\n{p}: No, I do not.\n{q}: Or this? {b}\n{p}: Yes, I do.",
    ),
    Frame("negation", "b", "{p}: {a} They wrote that, but it is not true. True is this. {b}"),
    Frame("negation", "a", "{p}: {a} That is true. They wrote this, but it is not true. {b}"),
    Frame("change of mind", "b", "{p}: {a} Sorry, I said that wrong. {b}"),
    Frame(
        "change of mind",
        "a",
        "{q}: Maybe it is this. {a} Or maybe this. {b}\n{p}: It is what you said before.",
    ),
    Frame(
        "change of mind",
        "b",
        "{q}: We suspected this. {a} The result is against it and points to this. {b}",
    ),
    Frame(
        "change of mind",
        "a",
        "{q}: The result points to this. {a} We suspected this. {b} The result is against it.",
    ),
    Frame(
        "order",
        "a",
        "{p}: This is one. {a} This is two. {b}\n{q}: Which?\n{p}: I have the first.",
    ),
    Frame(
        "order",
        "b",
        "{p}: This is one. {a} This is two. {b}\n{q}: Which?\n{p}: I have the second.",
    ),
    Frame("order", "a", "{p}: {a} {b} Forget the last thing."),
    Frame("order", "b", "{p}: {a} {b} Forget the first thing."),
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
