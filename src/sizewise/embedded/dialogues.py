"""The task of the offline default: doctor-patient dialogues labelled with ICD-10-CM codes.

Rows are a pure function of the seed. Codes follow a Zipf-Mandelbrot law (few frequent, many
rare), some rare codes occur in the test split only, a scenario (code, complaint and detail)
never straddles two splits, and some dialogues are vague on purpose: their code can not be
told from the text, as in real notes, so no model reaches 100 %.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from sizewise.embedded import phrasing
from sizewise.embedded.phrasing import Condition, load_conditions

COLUMNS = ("dialogue", "code", "description", "chapter", "split", "group")
SPLITS = ("train", "validation", "test")
INSTRUCTION = "Which ICD-10-CM code fits this visit? Words are welcome too."
PROMPT = "{dialogue}\n\n" + INSTRUCTION

TOTAL_ROWS = 3500
SHARES = {"train": 0.72, "validation": 0.13, "test": 0.15}
UNSEEN_CODES = 6
ROWS_OF_UNSEEN_CODE = 3
ZIPF_EXPONENT, ZIPF_OFFSET = 1.5, 15.0
VAGUE_RATE, TYPO_RATE = 0.05, 0.04


@dataclass(frozen=True)
class Scenario:
    """What a dialogue is about: one condition told with one complaint and one detail."""

    condition: Condition
    complaint: int
    detail: int

    @property
    def key(self) -> str:
        """Name of the group of rows that must stay in one split."""
        return f"{self.condition.code}/{self.complaint}/{self.detail}"


def scenarios_of(condition: Condition, details: int) -> list[Scenario]:
    """All complaints with each of the first ``details`` details."""
    complaints = range(len(condition.complaints))
    return [Scenario(condition, told, detail) for told in complaints for detail in range(details)]


def generate_dialogues(seed: int = 42) -> list[dict[str, str]]:
    """Rows with the keys of `COLUMNS`, in an order shuffled by the seed."""
    rng = random.Random(seed)
    ranked = list(load_conditions())
    rng.shuffle(ranked)
    rows: list[dict[str, str]] = []
    texts: set[str] = set()
    counts = dict.fromkeys(SPLITS, 0)
    for condition, size in zip(ranked, _sizes(len(ranked)), strict=True):
        unseen = size == 0
        by_scenario = _draw_scenarios(condition, size or ROWS_OF_UNSEEN_CODE, rng)
        for position, (scenario, repeats) in enumerate(by_scenario):
            split = "test" if unseen else _next_split(counts, first=position == 0)
            counts[split] += repeats
            for _ in range(repeats):
                rows.append(_row(scenario, split, _new_text(scenario, texts, rng)))
    rng.shuffle(rows)
    return rows


def fingerprint(rows: list[dict[str, str]]) -> str:
    """SHA-256 over all cells in order: equal fingerprints mean equal data."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update("\x1f".join(row[column] for column in COLUMNS).encode())
        digest.update(b"\x1e")
    return digest.hexdigest()


def held_out_scenarios(rows: list[dict[str, str]]) -> set[str]:
    """Groups of the validation and test rows, which pretraining text must avoid."""
    return {row["group"] for row in rows if row["split"] != "train"}


def _sizes(codes: int) -> list[int]:
    """Rows per code by rank; the last `UNSEEN_CODES` get 0, which means test only."""
    seen = codes - UNSEEN_CODES
    weights = [(rank + ZIPF_OFFSET) ** -ZIPF_EXPONENT for rank in range(1, seen + 1)]
    scale = TOTAL_ROWS / sum(weights)
    return [max(2, round(weight * scale)) for weight in weights] + [0] * UNSEEN_CODES


def _draw_scenarios(
    condition: Condition, size: int, rng: random.Random
) -> list[tuple[Scenario, int]]:
    """Scenarios of a code in random order with their numbers of rows, as even as possible."""
    scenarios = scenarios_of(condition, len(condition.details))
    rng.shuffle(scenarios)
    whole, rest = divmod(size, len(scenarios))
    drawn = [(scenario, whole + (i < rest)) for i, scenario in enumerate(scenarios)]
    return [(scenario, repeats) for scenario, repeats in drawn if repeats]


def _next_split(counts: dict[str, int], first: bool) -> str:
    """The split that lacks most rows; a code's first scenario always goes to training."""
    if first:
        return "train"
    total = sum(counts.values())
    return max(SPLITS, key=lambda split: SHARES[split] * total - counts[split])


def _row(scenario: Scenario, split: str, text: str) -> dict[str, str]:
    condition = scenario.condition
    cells = (
        text, condition.code, condition.description, condition.chapter, split, scenario.key
    )  # fmt: skip
    return dict(zip(COLUMNS, cells, strict=True))


def _new_text(scenario: Scenario, texts: set[str], rng: random.Random) -> str:
    while (text := _dialogue(scenario, rng)) in texts:
        continue
    texts.add(text)
    return text


def _dialogue(scenario: Scenario, rng: random.Random) -> str:
    first = [rng.choice(phrasing.GREETINGS), _complaint(scenario, rng)]
    second = [_detail(scenario, rng)]
    extras = [rng.choice(phrasing.SEVERITIES), rng.choice(phrasing.NEGATIONS)]
    second += rng.sample(extras, rng.choice((0, 0, 1, 2)))
    turns = [
        ("Doctor", rng.choice(phrasing.TASK_OPENERS)),
        ("Patient", _told(first, rng)),
        ("Doctor", rng.choice(phrasing.TASK_QUESTIONS)),
        ("Patient", _told(second, rng)),
    ]
    if rng.random() < 0.4:
        turns.append(("Doctor", rng.choice(phrasing.TASK_FOLLOW_UPS)))
        turns.append(("Patient", _told([_distractor(scenario.condition, rng)], rng)))
    if rng.random() < 0.15:
        turns.append(("Doctor", rng.choice(phrasing.TASK_CLOSERS)))
    return "\n".join(f"{speaker}: {text}" for speaker, text in turns)


def _told(parts: list[str], rng: random.Random) -> str:
    return phrasing.with_typos(" ".join(part for part in parts if part), TYPO_RATE, rng)


def _complaint(scenario: Scenario, rng: random.Random) -> str:
    condition = scenario.condition
    text = condition.complaints[scenario.complaint]
    if rng.random() < 0.5:
        text += ", " + rng.choice(phrasing.DURATIONS[condition.course])
    return phrasing.sentence(text)


def _detail(scenario: Scenario, rng: random.Random) -> str:
    if rng.random() < VAGUE_RATE:
        return rng.choice(phrasing.VAGUE)
    return phrasing.sentence(scenario.condition.details[scenario.detail])


def _distractor(condition: Condition, rng: random.Random) -> str:
    if condition.side and rng.random() < 0.5:
        return rng.choice(phrasing.SIDE_DISTRACTORS).format(other=condition.other_side)
    return rng.choice(phrasing.DISTRACTORS)
