"""``sizewise explore``: what does not fit, and what the answers are."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from sizewise.commands.explore import explore_command
from sizewise.composition.compose import compose_run

SUBJECTS = ("cat", "dog", "fish", "bird")


@pytest.fixture
def table(tmp_path: Path) -> list[str]:
    """200 questions with two labels; one of them is far longer than the context of nano."""
    rows = [
        f"is a {SUBJECTS[i % 4]} of {i} pounds heavy,{'yes' if i % 4 else 'no'}" for i in range(199)
    ]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["q,a", *rows, f"is this long {'very ' * 2000},yes"]) + "\n")
    return [
        "dataset=csv",
        f"dataset.source.path={path}",
        "dataset.prompt='{q}'",
        "dataset.answer='{a}'",
    ]


def explored(capsys: pytest.CaptureFixture[str], overrides: list[str]) -> str:
    explore_command(overrides, None, 0)
    return " ".join(capsys.readouterr().out.split())


def test_a_prompt_that_is_too_long_is_said_to_be_left_out(
    table: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = explored(capsys, table)
    assert "1 longer than the model reads or dataset.max_length=1024" in said
    assert "for their length: 1 of " in said
    assert "dataset.truncate_prompt=true" in said
    short = explored(capsys, [*table, "dataset.max_length=8"])
    assert "Raise dataset.max_length to at least" in short


def test_prompts_without_room_for_an_answer_are_told_apart(
    table: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    # 1,024 positions: a few prompts of 300 tokens leave no room for 900 more.
    path = Path(table[1].partition("=")[2])
    long = [f"heavy {i} {'very ' * 180},yes" for i in range(40)]
    path.write_text(path.read_text() + "\n".join(long) + "\n")
    said = explored(capsys, [*table, "dataset.split.test=0.3", "generation.max_new_tokens=900"])
    assert "no room for generation.max_new_tokens=900 after it" in said


def test_labels_are_recognised_with_what_to_add(
    table: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = explored(capsys, table)
    assert "looks like 2 labels in 200 examples" in said
    assert "The commonest, yes, is 75.0% of them" in said
    assert "Add: dataset.task=classification" in said
    assert "dataset.primary=label/exact_match dataset.direction=max" in said
    assert "The prompt names none of them" in said


def test_what_it_says_to_add_can_be_typed_and_is_then_enough(
    table: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    explore_command(table, None, 0)
    lines = capsys.readouterr().out.splitlines()
    typed = next(line.strip() for line in lines if line.strip().startswith("$'dataset.prompt="))
    word = subprocess.run(
        ["bash", "-c", f"printf %s {typed}"], capture_output=True, text=True, check=True
    ).stdout
    own = [text for text in table if not text.startswith("dataset.prompt")]
    added = [*own, word, "dataset.task=classification"]
    assert compose_run(added).dataset.prompt == "{q}\n\nAnswer with one of: no, yes."
    said = explored(capsys, added)
    assert "Add:" not in said
    assert "Answers: 2 labels" in said
    assert shlex.split(typed)


def test_free_texts_get_no_advice_on_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("q,a\n" + "".join(f"why {i},because of {i}\n" for i in range(60)))
    said = explored(
        capsys,
        [
            "dataset=csv",
            f"dataset.source.path={path}",
            "dataset.prompt='{q}'",
            "dataset.answer='{a}'",
        ],
    )
    assert "labels" not in said
    assert "Answers: free texts" in said
    assert "Add: dataset.task=text" in said
    assert "Left out" not in said


def test_the_group_column_is_named_as_what_leaks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.csv"
    rows = [f"why {i},because of {i},c{i % 12}" for i in range(60)]
    path.write_text("\n".join(["q,a,customer", *rows]) + "\n")
    columns = ["dataset.prompt='{q}'", "dataset.answer='{a}'", "dataset.group=[customer]"]
    said = explored(capsys, ["dataset=csv", f"dataset.source.path={path}", *columns])
    assert "a row of the same question or group (customer) in training" in said
    assert "questions into training" not in said


def test_both_lists_of_labels_count_by_the_same_rule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ("Quality 1", "quality  1", "Late", "late.", "other")
    rows = [f"what is {i},{kinds[i % 5]}" for i in range(100)] + ["WHAT is 2,other"]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["q,a", *rows]) + "\n")
    columns = ["dataset.prompt='{q}'", "dataset.answer='{a}'", "dataset.label=a"]
    task = "dataset.task=classification"
    said = explored(capsys, ["dataset=csv", f"dataset.source.path={path}", *columns, task])
    assert "train: 3 labels (" in said
    assert "Answers: 3 labels in 101 examples" in said
    assert "train: 2 labels in several spellings: " in said
    assert "Questions with different answers: 1." in said
