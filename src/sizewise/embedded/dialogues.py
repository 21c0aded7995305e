"""The task of the offline default: doctor-patient dialogues labelled with ICD-10-CM codes.

Rows are a pure function of the seed. Codes follow a Zipf-Mandelbrot law (few frequent, many
rare), some rare codes occur in the test split only. Every dialogue tells two findings of which
one is the patient's (see `contrasts`), so that the words alone do not give the code away. The
scenarios (code, complaint and detail) of a case never straddle two splits, whether they are the
answer or only mentioned, and some dialogues are vague on purpose: their code can not be told
from the text, as in real notes, so no model reaches 100 %.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

from sizewise.embedded import phrasing
from sizewise.embedded.contrasts import (
    FRAMES,
    RELATIVES,
    Case,
    Frame,
    Scenario,
    Unit,
    pair_up,
    scenarios_of,
)
from sizewise.embedded.phrasing import Condition, load_conditions

COLUMNS = ("dialogue", "code", "description", "chapter", "cue", "split", "group")
INSTRUCTION = "Which ICD-10-CM code fits this visit? Words are welcome too."
PROMPT = "{dialogue}\n\n" + INSTRUCTION

TOTAL_ROWS = 3500
SHARES = {"train": 0.72, "validation": 0.13, "test": 0.15}
UNSEEN_CODES = 6
ROWS_OF_UNSEEN_CODE = 3
ZIPF_EXPONENT, ZIPF_OFFSET = 1.5, 15.0
VAGUE_RATE, TYPO_RATE, CLOSER_RATE = 0.05, 0.04, 0.1


def generate_dialogues(seed: int = 42) -> list[dict[str, str]]:
    """Rows with the keys of `COLUMNS`, in an order shuffled by the seed."""
    rng = random.Random(seed)
    ranked = list(load_conditions())
    rng.shuffle(ranked)
    units: list[Unit] = []
    for condition, size in zip(ranked, _sizes(len(ranked)), strict=True):
        units += _draw_scenarios(condition, size or ROWS_OF_UNSEEN_CODE, rng)
    unseen = {condition.code for condition in ranked[-UNSEEN_CODES:]}
    rows: list[dict[str, str]] = []
    texts: set[str] = set()
    for case, split in _with_splits(pair_up(units, rng), unseen, rng):
        for _ in range(case.twins):
            rows += _new_twins(case, split, texts, rng)
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
    """Scenarios of the validation and test rows, which pretraining text must avoid."""
    held_out = {row["group"] for row in rows if row["split"] != "train"}
    return {key for group in held_out for key in group.split("+")}


def _sizes(codes: int) -> list[int]:
    """Rows per code by rank; the last `UNSEEN_CODES` get 0, which means test only."""
    seen = codes - UNSEEN_CODES
    weights = [(rank + ZIPF_OFFSET) ** -ZIPF_EXPONENT for rank in range(1, seen + 1)]
    scale = TOTAL_ROWS / sum(weights)
    return [max(2, round(weight * scale)) for weight in weights] + [0] * UNSEEN_CODES


def _draw_scenarios(condition: Condition, size: int, rng: random.Random) -> list[Unit]:
    """Scenarios of a code in random order with their numbers of rows, as even as possible."""
    scenarios = scenarios_of(condition, len(condition.details))
    rng.shuffle(scenarios)
    whole, rest = divmod(size, len(scenarios))
    drawn = [(scenario, whole + (i < rest)) for i, scenario in enumerate(scenarios)]
    return [(scenario, repeats) for scenario, repeats in drawn if repeats]


def _with_splits(
    cases: list[Case], unseen: set[str], rng: random.Random
) -> Iterator[tuple[Case, str]]:
    """Cases with their splits: the first of a code trains, then the split that lacks most rows.

    Cases of the codes that training must not see are tested on, and come last, so that
    the other code in them has been in training.
    """
    cases = list(cases)
    rng.shuffle(cases)
    cases.sort(key=lambda case: bool(unseen & {*case.codes}))
    counts = dict.fromkeys(SHARES, 0)
    trained: set[str] = set()
    for case in cases:
        if unseen & {*case.codes}:
            split = "test"
        elif not trained >= {*case.codes}:
            split = "train"
        else:
            split = _next_split(counts)
        if split == "train":
            trained |= {*case.codes}
        counts[split] += 2 * case.twins
        yield case, split


def _next_split(counts: dict[str, int]) -> str:
    """The split that lacks most rows."""
    total = sum(counts.values())
    return max(SHARES, key=lambda split: SHARES[split] * total - counts[split])


def _new_twins(case: Case, split: str, texts: set[str], rng: random.Random) -> list[dict[str, str]]:
    """The rows of a dialogue and its twin, neither of which is there already."""
    while texts & {*(pair := _twins(case, frame := rng.choice(FRAMES), rng))}:
        continue
    texts.update(pair)
    meant = (case.first, case.second) if frame.meant == "a" else (case.second, case.first)
    return [
        _row(scenario.condition, case.key, frame.cue, split, text)
        for scenario, text in zip(meant, pair, strict=True)
    ]


def _row(condition: Condition, group: str, cue: str, split: str, text: str) -> dict[str, str]:
    cells = (text, condition.code, condition.description, condition.chapter, cue, split, group)
    return dict(zip(COLUMNS, cells, strict=True))


def _twins(case: Case, frame: Frame, rng: random.Random) -> tuple[str, str]:
    """Two dialogues of the same words: with the case's first finding told first, and last."""
    opening = [f"Doctor: {rng.choice(phrasing.TASK_OPENERS)}"]
    opening.append(f"Patient: {_greeting(case, rng)}")
    closing = []
    if rng.random() < CLOSER_RATE:
        closing.append(f"Doctor: {rng.choice(phrasing.TASK_CLOSERS)}")
    findings = _findings(case, rng)
    people = {"p": "Patient", "who": rng.choice(RELATIVES)}
    first, second = (
        "\n".join([*opening, frame.text.format(a=a, b=b, **people), *closing])
        for a, b in (findings, findings[::-1])
    )
    return first, second


def _greeting(case: Case, rng: random.Random) -> str:
    """What the patient says first: the complaint, where both findings share it."""
    if not case.share_complaint:
        return rng.choice(phrasing.HELLOS)
    extras = ("", "", *phrasing.SEVERITIES, *phrasing.NEGATIONS)
    said = (rng.choice(phrasing.GREETINGS), _complaint(case, rng), rng.choice(extras))
    return " ".join(part for part in said if part)


def _complaint(case: Case, rng: random.Random) -> str:
    """The shared complaint, sometimes with a duration where that fits both findings."""
    condition = case.first.condition
    text = condition.complaints[case.first.complaint]
    if condition.course == case.second.condition.course and rng.random() < 0.5:
        text += ", " + rng.choice(phrasing.DURATIONS[condition.course])
    return _typed(phrasing.sentence(text), rng)


def _findings(case: Case, rng: random.Random) -> tuple[str, str]:
    """What is told of the first and the second scenario; at most one of them is vague."""
    scenarios = (case.first, case.second)
    vague = rng.choice(scenarios) if rng.random() < 2 * VAGUE_RATE else None
    first, second = (
        _typed(_finding(s, s is vague, case.share_complaint, rng), rng) for s in scenarios
    )
    return first, second


def _finding(scenario: Scenario, vague: bool, introduced: bool, rng: random.Random) -> str:
    condition = scenario.condition
    detail = condition.details[scenario.detail]
    told = rng.choice(phrasing.VAGUE) if vague else phrasing.sentence(detail)
    if introduced:
        return told
    return f"{phrasing.sentence(condition.complaints[scenario.complaint])} {told}"


def _typed(text: str, rng: random.Random) -> str:
    return phrasing.with_typos(text, TYPO_RATE, rng)
