"""Placeholders, missing values and names with spaces."""

from __future__ import annotations

import json

import pytest

from sizewise.data.rows.columns import TextTemplate, as_text, resolve_column, tidy
from sizewise.errors import DataError


def test_a_paragraph_with_only_empty_placeholders_is_left_out() -> None:
    template = TextTemplate(
        "{instruction}\n\nInput: {input}\n\nAnswer:", ["instruction", "input"], "k"
    )
    assert template.render({"instruction": "Add", "input": "1 2"}) == "Add\n\nInput: 1 2\n\nAnswer:"
    assert template.render({"instruction": "Sing", "input": None}) == "Sing\n\nAnswer:"
    assert template.render({"instruction": "Sing", "input": float("nan")}) == "Sing\n\nAnswer:"


def test_values_are_not_taken_for_templates() -> None:
    template = TextTemplate('{{"json": "{a}"}} {b}', ["a", "b"], "k")
    assert template.render({"a": "{b}\n\n{a}", "b": "x"}) == '{"json": "{b}\n\n{a}"} x'


def test_missing_values_are_empty_and_numbers_are_text() -> None:
    assert [as_text(v) for v in (None, float("nan"), 7, 1.5, ["a", "b"])] == [
        "",
        "",
        "7",
        "1.5",
        "a b",
    ]


def test_leading_space_in_a_column_name_is_tolerated() -> None:
    assert resolve_column("Note", [" Note", "ICD10"], "dataset.prompt") == " Note"
    assert resolve_column(" Note", ["Note"], "dataset.prompt") == "Note"
    assert TextTemplate("{Note}", [" Note"], "k").render({" Note": "x"}) == "x"


def test_ambiguous_spaces_are_not_guessed() -> None:
    with pytest.raises(DataError):
        resolve_column("Note", [" Note", "Note "], "dataset.prompt")


def test_unknown_column_names_key_columns_and_the_closest() -> None:
    with pytest.raises(DataError) as caught:
        resolve_column("questionTitel", ["questionTitle", "answerText"], "dataset.prompt")
    message = str(caught.value)
    assert "dataset.prompt" in message
    assert "Did you mean 'questionTitle'" in message
    assert "'answerText'" in message


def test_tidy_keeps_paragraphs() -> None:
    assert tidy("  a \t b\u00a0c \r\n\n\n\n  d ") == "a b c\n\nd"


def test_structured_answers_keep_their_keys() -> None:
    span = {"type": "text", "text": "Ann", "start": 3}
    for answer in (span, [{"type": "text", "text": "Bob", "label": "PER"}]):
        assert json.loads(as_text(answer, structured=True)) == answer
        assert json.loads(as_text(answer)) == answer
    parts = [
        {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
        {"type": "output_text", "text": "b", "annotations": [], "image_url": None},
    ]
    assert as_text(parts, structured=True) == as_text(parts) == "ab"
