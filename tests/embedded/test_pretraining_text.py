"""Pretraining never shows the task: no dialogue, no instruction, no held-out scenario."""

from __future__ import annotations

import re
from itertools import islice, pairwise

import pytest
import simple_icd_10_cm as catalogue
from tools.embedded_models.pretraining import contrasts, single_findings

from sizewise.embedded import general_text as frames
from sizewise.embedded import phrasing
from sizewise.embedded.contrasts import LABELS
from sizewise.embedded.dialogues import (
    INSTRUCTION,
    generate_dialogues,
    held_out_scenarios,
)
from sizewise.embedded.general_text import (
    Exchange,
    PretrainingText,
    allowed_scenarios,
    catalogue_codes,
)
from sizewise.embedded.phrasing import load_conditions

SAMPLE = 20_000
CODE = re.compile(r"\b[A-Z]\d[0-9A-Z](?:\.[0-9A-Z]+)?\b")


@pytest.fixture(scope="module")
def exchanges() -> list[Exchange]:
    return list(islice(single_findings(), SAMPLE))


@pytest.fixture(scope="module")
def second() -> list[Exchange]:
    return list(islice(contrasts(), SAMPLE))


def test_stream_is_a_function_of_its_seed(exchanges: list[Exchange]) -> None:
    assert list(islice(PretrainingText(), 200)) == exchanges[:200]
    assert list(islice(PretrainingText(seed=8), 200)) != exchanges[:200]


def test_neither_dialogues_nor_instruction_of_the_task_occur(
    exchanges: list[Exchange], second: list[Exchange]
) -> None:
    text = "\n".join(f"{question}\n{answer}" for question, answer in exchanges + second)
    assert INSTRUCTION not in text
    for row in generate_dialogues():
        assert row["dialogue"] not in text


def test_what_is_said_around_the_findings_is_not_the_tasks() -> None:
    """The labels of the findings are the same: the models are to know what they mean."""
    assert not {*phrasing.TASK_OPENERS} & {*frames.OPENERS, *frames.QUESTIONS}
    questions = {*frames.LAY_CODE_QUESTIONS, *frames.BARE_CODE_QUESTIONS, *frames.CODE_QUESTIONS}
    assert INSTRUCTION not in questions


def test_no_scenario_of_validation_or_test_is_told() -> None:
    told = {scenario.key for options in allowed_scenarios().values() for scenario in options}
    assert not told & held_out_scenarios(generate_dialogues())


def test_the_second_phase_tells_two_findings_and_each_exchange_has_its_twin(
    second: list[Exchange],
) -> None:
    twins = [
        (one, other)
        for one, other in pairwise(second)
        if sorted(one.question.split()) == sorted(other.question.split())
        and one.question != other.question
    ]
    assert len(twins) > 0.35 * len(second)
    assert sum(one.answer != other.answer for one, other in twins) > 0.98 * len(twins)


def test_the_first_phase_tells_one_finding_at_a_time(exchanges: list[Exchange]) -> None:
    labels = {label for _, *pair in LABELS for label in pair if "{" not in label}
    assert len(labels) > 10
    assert not [e for e in exchanges if any(f"\n{label}: " in e.question for label in labels)]


def test_every_second_condition_keeps_one_detail_back(
    exchanges: list[Exchange], second: list[Exchange]
) -> None:
    text = "\n".join(question for question, _ in exchanges + second)
    own = [d for condition in load_conditions() for d in condition.details]
    kept_back = [
        condition.details[-1]
        for condition in load_conditions()[1::2]
        if own.count(condition.details[-1]) == 1
    ]
    assert len(kept_back) > 80
    assert not [d for d in kept_back if phrasing.sentence(d) in text]


def test_dialogues_end_in_words_and_not_in_a_code(exchanges: list[Exchange]) -> None:
    openers = tuple(f": {opener}\n" for opener in frames.OPENERS)
    dialogues = [e for e in exchanges if any(opener in e.question for opener in openers)]
    assert len(dialogues) > SAMPLE / 4
    known = {condition.description for condition in load_conditions()}
    for _, answer in dialogues:
        assert not [c for c in CODE.findall(answer) if catalogue.is_valid_item(c)]
        assert any(description in answer for description in known)


def test_catalogue_goes_beyond_the_task() -> None:
    own = {condition.code for condition in load_conditions()}
    codes = catalogue_codes()
    assert own < set(codes)
    assert len(codes) > 1.5 * len(own)
    assert len(codes) == len(set(codes))
