"""Splits kept in memory: the same object while nothing changes, built anew when something does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sizewise.data.build import KEPT, kept_splits
from sizewise.errors import DataError

from .test_build import from_csv, mixture, part
from .toys import rows


def test_the_same_data_set_is_built_once(tmp_path: Path) -> None:
    cfg = from_csv(tmp_path / "a.csv", rows(60))
    assert kept_splits(cfg) is kept_splits(replace(cfg))
    assert len(kept_splits(replace(cfg, max_train=10)).train) == 10


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    cfg = from_csv(tmp_path / "a.csv", rows(60))
    before = kept_splits(cfg)
    from_csv(tmp_path / "a.csv", rows(90))
    after = kept_splits(cfg)
    assert (before.report.rows, after.report.rows) == (60, 90)


def test_a_changed_part_of_a_mixture_is_read_again(tmp_path: Path) -> None:
    cfg = mixture(one=part(tmp_path / "one.csv", rows(50)), two=part(tmp_path / "b.csv", rows(40)))
    before = kept_splits(cfg)
    part(tmp_path / "b.csv", rows(80))
    assert kept_splits(cfg).report.rows == before.report.rows + 40


def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    from sizewise.data.build import _build

    for number in range(KEPT + 3):
        kept_splits(from_csv(tmp_path / f"{number}.csv", rows(30)))
    assert _build.cache_info().currsize == KEPT


def test_a_missing_file_is_said_every_time(tmp_path: Path) -> None:
    cfg = from_csv(tmp_path / "a.csv", rows(30))
    (tmp_path / "a.csv").unlink()
    for _ in range(2):
        with pytest.raises(DataError, match="no such file"):
            kept_splits(cfg)
