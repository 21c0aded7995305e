"""``dataset=chat``: conversations in the usual formats, found by their columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sizewise.composition.compose import compose_run
from sizewise.data.build import build_splits
from sizewise.data.example import DataSplits
from sizewise.errors import DataError


def turns(number: int, who: str = "role", what: str = "content") -> list[dict[str, str]]:
    roles = ("user", "assistant") if who == "role" else ("human", "gpt")
    return [{who: roles[0], what: f"hello {number}"}, {who: roles[1], what: f"hi {number}"}]


FORMATS: dict[str, Any] = {
    "messages": lambda i: {"messages": turns(i)},
    "sharegpt": lambda i: {"id": i, "conversations": turns(i, "from", "value")},
    "capital": lambda i: {"Messages": turns(i)},
    "texts": lambda i: {"dialogue": [f"hello {i}", f"hi {i}"]},
    "json_text": lambda i: {"conversation": json.dumps(turns(i))},
    "trl": lambda i: {"prompt": turns(i)[:1], "completion": turns(i)[1:]},
    "plain_pair": lambda i: {"prompt": f"hello {i}", "completion": f"hi {i}"},
    "preferences": lambda i: {
        "prompt": turns(i)[:1], "chosen": turns(i)[1:],
        "rejected": [{"role": "assistant", "content": "go away"}],
    },
    "whole_preferences": lambda i: {"chosen": turns(i), "rejected": turns(i)},
}  # fmt: skip


def splits_of(tmp_path: Path, rows: list[dict[str, Any]], *more: str) -> DataSplits:
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return build_splits(compose_run(["dataset=chat", f"dataset.source.path={path}", *more]).dataset)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_questions_and_answers(tmp_path: Path, name: str) -> None:
    splits = splits_of(tmp_path, [FORMATS[name](i) for i in range(40)])
    every = [*splits.train, *splits.validation, *splits.test]
    assert {(e.messages[-1].content, e.answer) for e in every} == {
        (f"hello {i}", f"hi {i}") for i in range(40)
    }
    if name == "preferences":
        assert {e.meta["rejected"] for e in every} == {"go away"}


def test_the_task_makes_any_source_a_chat(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(json.dumps(FORMATS["sharegpt"](i)) for i in range(40)))
    cfg = compose_run(["dataset=jsonl", "dataset.task=chat", f"dataset.source.path={path}"]).dataset
    assert len(build_splits(cfg).train) == 32


def test_a_column_that_is_named_is_taken(tmp_path: Path) -> None:
    rows = [{"messages": turns(i), "talk": turns(100 + i)} for i in range(40)]
    splits = splits_of(tmp_path, rows, "dataset.conversation=talk")
    assert all(e.answer.startswith("hi 1") for e in splits.train)


def test_a_file_without_conversations_is_refused_with_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"columns are text, messages\..*dataset\.prompt"):
        splits_of(tmp_path, [{"text": "hello", "messages": "hello"}] * 30)


@pytest.mark.shared
def test_the_collected_cases_are_read_as_they_stand(shared_dir: Path) -> None:
    files = sorted((shared_dir / "cases" / "conversations").glob("*.jsonl"))
    assert len(files) > 5
    for file in files:
        cfg = compose_run(["dataset=chat", f"dataset.source.path={file}"]).dataset
        splits = build_splits(cfg)
        assert len(splits.train) >= 32, file.name
        assert all(e.messages[-1].role in ("user", "tool") for e in splits.train), file.name
