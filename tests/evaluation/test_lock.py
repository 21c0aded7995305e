"""Two processes that both find a lock stale."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sizewise.evaluation import lock as locks

DEAD = {"token": "dead", "host": "elsewhere", "pid": 1}
NEW = {"token": "new", "host": "here", "pid": 2}


def hold(path: Path, owner: dict[str, object]) -> None:
    path.mkdir()
    (path / "owner.json").write_text(json.dumps(owner))


def test_a_lock_that_changed_hands_meanwhile_is_put_back(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    hold(lock, NEW)
    locks._break(lock, dict(DEAD))
    assert locks._owner(lock) == NEW
    locks._break(lock, dict(NEW))
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_taken_away_at_its_birth_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, mkdir = tmp_path / "a.lock", Path.mkdir

    def short_lived(path: Path) -> None:
        mkdir(path)
        shutil.rmtree(path)

    monkeypatch.setattr(Path, "mkdir", short_lived)
    assert not locks._try(lock, "mine")
