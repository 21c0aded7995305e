"""Sentences around the complaint: openers, questions, durations, distractors, noise.

The task's dialogues and the pretraining text draw their frames from different lists, so
that a model has never read the frames of the task before it is adapted to them.
"""

from __future__ import annotations

import random

DURATIONS = {
    "acute": ("since yesterday", "for two days", "for three days now", "since last weekend"),
    "chronic": ("for years", "for more than a year", "for many months", "as long as I can think"),
    "any": ("for a while", "lately", "these days", "again"),
}

TASK_OPENERS = (
    "Good morning, what brings you in?",
    "Hello, how can I help you today?",
    "Please sit down. What is the trouble?",
    "What made you come to see me?",
    "Hi, tell me what is going on.",
    "So, what can I do for you?",
)
TASK_QUESTIONS = (
    "Can you tell me more about it?",
    "What exactly do you notice?",
    "I see. Anything particular about it?",
    "Go on, how would you describe it?",
    "What else should I know?",
    "Okay. And what did you find out so far?",
)
TASK_FOLLOW_UPS = (
    "Any other illnesses or medicines?",
    "Is there anything in the family?",
    "Anything else on your list?",
    "Did you have other problems before?",
)
TASK_CLOSERS = (
    "Thank you, let me examine you.",
    "All right, I will have a look.",
    "Fine, we will take care of that.",
)
GREETINGS = ("Hi doctor.", "Well,", "Thanks for seeing me.", "Good morning.", "Honestly,", "")
VAGUE = (
    "I can not describe it any better.",
    "Hard to say, you are the expert.",
    "It is all in my letter, please read it.",
)
SEVERITIES = (
    "It is about a six out of ten.",
    "It is bearable.",
    "It is really bad today.",
    "It gets in the way at work.",
)
NEGATIONS = ("No fever.", "No chest pain.", "No rash.", "I have not travelled.", "No accident.")
DISTRACTORS = (
    "My sister has asthma.",
    "I take a pill for blood pressure.",
    "I broke my left wrist as a child.",
    "My mother has diabetes.",
    "Last year I had shingles, that is over.",
    "I had my appendix out at twelve.",
    "My husband has gout in the right foot.",
    "I used to smoke, I stopped long ago.",
    "My father had a bad heart.",
    "I had a kidney stone once, years ago.",
    "The thyroid was checked and is fine.",
    "My knee was operated on, it healed well.",
    "My son brought home a cold.",
    "I had migraine as a teenager, not any more.",
)
SIDE_DISTRACTORS = (
    "Nothing on the {other} side.",
    "The {other} side had it years ago, that healed.",
    "I lie on the {other} side to sleep.",
    "My wife has it on the {other}.",
)


def sentence(text: str) -> str:
    """Text with a capital first letter and a full stop."""
    text = text.strip()
    closed = text if text[-1] in ".?!" else text + "."
    return closed[0].upper() + closed[1:]


def with_typos(text: str, rate: float, rng: random.Random) -> str:
    """Swaps two neighbouring letters inside a longer word with probability `rate` per word."""
    return " ".join(_swap(word, rng) if rng.random() < rate else word for word in text.split(" "))


def _swap(word: str, rng: random.Random) -> str:
    if len(word) < 5 or not word.isalpha():
        return word
    at = rng.randrange(1, len(word) - 2)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
