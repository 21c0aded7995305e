"""The real rows beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from sizewise.config.data import SourceConfig, SplitConfig
from sizewise.data.build import build_splits

from .toys import config

pytestmark = pytest.mark.shared
COUNSEL = "data/counsel_chat/20200325_counsel_chat.csv"


def counsel(shared_dir: Path, **kwargs: object) -> object:
    return config(
        source=SourceConfig("csv", str(shared_dir / COUNSEL)),
        prompt="{questionTitle}\n\n{questionText}", answer="{answerText}",
        **({"group": ["questionID"], "split": SplitConfig(validation=0.1, test=0.1)} | kwargs),
    )  # fmt: skip


def test_counsel_chat_shares_no_question_and_says_what_a_row_split_leaks(shared_dir: Path) -> None:
    splits = build_splits(counsel(shared_dir))
    assert splits.report.rows == 2129
    assert splits.report.row_split_leak == pytest.approx(0.755, abs=0.002)
    assert splits.report.shared_groups == 0
    asked = [
        {" ".join(e.messages[-1].content.lower().split()) for e in part}
        for part in (splits.train, splits.validation, splits.test)
    ]
    assert not asked[0] & (asked[1] | asked[2])
    assert not asked[1] & asked[2]
    total = sum(map(len, (splits.train, splits.validation, splits.test)))
    assert len(splits.test) / total == pytest.approx(0.1, abs=0.005)


def test_the_own_split_of_counsel_chat_is_checked(shared_dir: Path) -> None:
    names = {"train": "train", "validation": "val", "test": "test"}
    own = SplitConfig(column="split", names=names)
    report = build_splits(counsel(shared_dir, split=own)).report
    dropped = SplitConfig(column="split", names=names, on_leak="drop")
    assert build_splits(counsel(shared_dir, split=dropped)).report.shared_groups == 0
    assert report.leaking_rows >= 0
    assert report.rows == 2129


def test_empathetic_dialogues_by_history(shared_dir: Path) -> None:
    path = shared_dir / "data/empathetic_dialogues/ed_valid.jsonl"
    cfg = config(
        source=SourceConfig("json", str(path)), prompt="", answer="{response}",
        history="context", group=["conv"], strata=["emotion"], clean_whitespace=True,
    )  # fmt: skip
    splits = build_splits(cfg)
    assert splits.report.filtered == {"empty_answer": 2762}
    assert splits.report.shared_groups == 0
    assert all(e.messages[-1].role == "user" for e in splits.test)


def test_psychology_pairs_never_train_on_the_rejected_answer(shared_dir: Path) -> None:
    path = shared_dir / "data/psychology/psychology_pairs_2000_reordered.jsonl"
    cfg = config(
        source=SourceConfig("json", str(path)), prompt="{question}",
        answer="{response_j}", rejected="response_k",
    )  # fmt: skip
    splits = build_splits(cfg)
    assert splits.report.rows == 2000
    assert all(e.meta["rejected"] != e.answer for e in splits.test)
    assert splits.report.row_split_leak > 0.3


def test_medsynth_notes_hardly_recur(shared_dir: Path) -> None:
    path = shared_dir / "data/medsynth_notes/medsynth_notes_500.jsonl"
    cfg = config(source=SourceConfig("json", str(path)), prompt="{ Note}", answer="{ICD10}")
    splits = build_splits(cfg)
    assert sum(map(len, (splits.train, splits.validation, splits.test))) == 500
    assert splits.report.row_split_leak < 0.01
