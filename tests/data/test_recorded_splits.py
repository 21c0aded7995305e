"""Splits, ids, groups and reports of planted and real rows, as recorded when examples were objects.

How examples are kept must never change what they are: a run that was made before names its data by
these fingerprints.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sizewise.config.data import DatasetConfig, FilterConfig, SourceConfig, SplitConfig
from sizewise.data.build import build_splits
from sizewise.data.example import DataSplits
from sizewise.errors import DataError
from sizewise.files import hash_text

from .toys import config

WORDS = [
    "Ärger",
    "sleep",
    "Straße",
    "ﬁne",
    "pain",
    "",
    "knee",
    "worry",
    "Walk",
    "walk",
    "rest",
    "I",
]


def planted(count: int = 400) -> list[dict[str, Any]]:
    """Rows with questions that recur in other case, whole duplicates, gaps and shared groups."""
    draw = random.Random(7)
    rows = []
    for number in range(count):
        question = " ".join(draw.choices(WORDS, k=draw.randint(1, 4)))
        answer = draw.choice(
            ["", "<think>so</think>", "yes", f"no {number}", "Rest.\r\n\n\n\nNow."]
        )
        rows.append(
            {
                "question": question,
                "answer": answer,
                "topic": draw.choice(["a", "b", " a "]),
                "patient": draw.choice(["", str(draw.randint(1, 90)), f"p{number}"]),
                "code": draw.choice(["", "1.0", "2.0"]),
                "part": draw.choice(["train", "train", "train", "Train", "dev", "test", "spare"]),
                "wish": draw.choice(["", "perhaps", f"never {number}"]),
            }
        )
    return rows + rows[::20]


def talks(count: int = 120) -> list[dict[str, Any]]:
    """Conversations, some with a system turn, a tool, a weight or the question of another."""
    draw = random.Random(11)
    rows = []
    for number in range(count):
        turns: list[dict[str, Any]] = []
        for turn in range(draw.randint(1, 4)):
            said = draw.choice(["hello", "Hello", f"question {draw.randint(0, 60)}"])
            turns.append({"role": "user", "content": said})
            turns.append({"role": "assistant", "content": f"answer {number % 50} {turn}"})
        if draw.random() < 0.3:
            turns.insert(0, {"role": "system", "content": draw.choice(["Be kind.", "Be short."])})
        if draw.random() < 0.2:
            turns[-1]["weight"] = 0
        if draw.random() < 0.2:
            turns[-1]["reasoning_content"] = "thought"
        if draw.random() < 0.2:
            call = {"function": {"name": "look", "arguments": json.dumps({"at": number})}}
            turns[-1:] = [
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": "seen", "name": "look"},
                turns[-1],
            ]
        rows.append({"messages": turns, "ward": draw.choice([None, number % 30])})
    return rows


def write_csv(path: Path) -> SourceConfig:
    rows = planted()
    with path.open("w", newline="", encoding="utf-8") as handle:
        table = csv.DictWriter(handle, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return SourceConfig("csv", path.name)


def write_json(path: Path) -> SourceConfig:
    rows = [dict(row) for row in planted()]
    for row in rows[::3]:
        row |= {"topic": None, "question": [row["question"], "and more"], "code": 3.0}
    for row in rows[1::7]:
        del row["wish"], row["code"]
    path.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return SourceConfig("json", path.name)


def write_talks(path: Path) -> SourceConfig:
    path.write_text("\r\n".join(json.dumps(row) for row in talks()), encoding="utf-8")
    return SourceConfig("json", path.name)


def write_parquet(path: Path) -> SourceConfig:
    pd.DataFrame(planted()).assign(seen=[1.0, None] * 210).to_parquet(path)
    return SourceConfig("parquet", path.name)


PLAIN: dict[str, Any] = {"prompt": "{question}", "answer": "{answer}"}
WORDED = PLAIN | {"prompt": "Topic: {topic}\n\n{question}\n\nSay it.", "system": "Talk of {code}."}
OWN = {"train": "train", "validation": "dev", "test": "test"}
Write = Callable[[Path], SourceConfig]
CASES: dict[str, tuple[Write, dict[str, Any]]] = {
    "csv": (write_csv, PLAIN),
    "csv groups": (write_csv, WORDED | {"group": ["patient"], "strata": ["topic"]}),
    "csv limits": (
        write_csv,
        PLAIN | {"max_samples": 200, "max_train": 40, "max_test": 9, "label": "code"},
    ),
    "csv own split": (
        write_csv,
        WORDED | {"split": SplitConfig(column="part", names=OWN), "rejected": "wish"},
    ),
    "csv own split, leaks dropped": (
        write_csv,
        PLAIN | {"split": SplitConfig(column="part", on_leak="drop"), "clean_whitespace": True},
    ),
    "csv leaks refused": (
        write_csv,
        PLAIN | {"split": SplitConfig(column="part", on_leak="error")},
    ),
    "csv few-shot": (write_csv, WORDED | {"few_shot": 2, "max_train": 50}),
    "csv few-shot text": (write_csv, PLAIN | {"few_shot": 3, "few_shot_style": "text"}),
    "csv all tested": (write_csv, PLAIN | {"split": SplitConfig(validation=0.0, test=1.0)}),
    "csv filtered": (write_csv, PLAIN | {"filter": FilterConfig(min_prompt_chars=9)}),
    "csv nothing left": (write_csv, PLAIN | {"filter": FilterConfig(max_answer_chars=0)}),
    "csv no column": (write_csv, PLAIN | {"answer": "{reply}"}),
    "json": (write_json, WORDED | {"group": ["patient", "topic"], "rejected": "wish"}),
    "json seed": (write_json, PLAIN | {"split": SplitConfig(seed=3, test=0.3), "label": "code"}),
    "talks": (write_talks, {"conversation": "auto", "prompt": "", "answer": "", "group": ["ward"]}),
    "talks, last": (
        write_talks,
        {"conversation": "messages", "prompt": "", "answer": "", "train_on": "last", "system": "S"},
    ),
    "parquet": (write_parquet, WORDED | {"group": ["patient"], "label": "seen"}),
}  # fmt: skip


def mixed(cfg: DatasetConfig, other: DatasetConfig) -> DatasetConfig:
    parts = {n: asdict(c) | {"primary": "x"} for n, c in (("one", cfg), ("two", other))}
    return config(source=SourceConfig("mixture", ""), parts=parts, max_train=150)


def told(cfg: DatasetConfig) -> str:
    """Return the hash of all that a data set is, or its error's text."""
    try:
        splits = build_splits(cfg)
    except DataError as error:
        return f"{error}"
    return hash_text(json.dumps([asdict(splits.report), everything(splits)]), 16)


def everything(splits: DataSplits) -> list[Any]:
    found: list[Any] = []
    for name in ("train", "validation", "test"):
        found += [splits.fingerprint(name), splits.question_fingerprint(name)]
        found += [
            [e.id, e.content_id, e.group, e.answer, e.origin, dict(e.meta), list(e.keys)]
            + [[m.role, m.content, dict(m.extra), m.weight] for m in e.messages]
            for e in getattr(splits, name)
        ]
    return found


def made(name: str, folder: Path) -> DatasetConfig:
    write, settings = CASES[name]
    suffix = {"csv": "csv", "json": "jsonl", "talk": "jsonl", "parq": "parquet"}[name[:4].strip()]
    return config(source=write(folder / f"rows.{suffix}"), **settings)


RECORDED: dict[str, str] = json.loads(
    Path(__file__).with_name("recorded_splits.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", [*CASES, "mixture"])
def test_planted_rows_are_divided_as_they_were(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "mixture":
        cfg = mixed(made("csv groups", tmp_path), made("talks", tmp_path))
    else:
        cfg = made(name, tmp_path)
    assert told(cfg) == RECORDED[name]


REAL: dict[str, tuple[str, str, dict[str, Any]]] = {
    "counsel chat": (
        "csv",
        "counsel_chat/20200325_counsel_chat.csv",
        {"prompt": "{questionTitle}\n\n{questionText}", "answer": "{answerText}",
         "group": ["questionID"], "strata": ["topic"]},
    ),
    "counsel chat, own split": (
        "csv",
        "counsel_chat/20200325_counsel_chat.csv",
        {"prompt": "{questionTitle}", "answer": "{answerText}",
         "split": SplitConfig(column="split", on_leak="drop")},
    ),
    "empathetic dialogues": (
        "json",
        "empathetic_dialogues/ed_valid.jsonl",
        {"prompt": "", "answer": "{response}", "history": "context", "group": ["conv"],
         "strata": ["emotion"], "clean_whitespace": True},
    ),
    "psychology": (
        "json",
        "psychology/psychology_pairs_2000_reordered.jsonl",
        {"prompt": "{question}", "answer": "{response_j}", "rejected": "response_k"},
    ),
}  # fmt: skip


@pytest.mark.shared
@pytest.mark.parametrize("name", REAL)
def test_real_rows_are_divided_as_they_were(name: str, shared_dir: Path) -> None:
    kind, path, settings = REAL[name]
    cfg = config(source=SourceConfig(kind, str(shared_dir / "data" / path)), **settings)
    assert told(cfg) == RECORDED[name]
