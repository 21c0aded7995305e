"""Fixtures of the app's tests: the factory of synthetic runs that the report's tests use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from tests.report.factory import Spec, Task, make_sweep

from sizewise.app.launch import TOKEN


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep of three synthetic runs: nano tuned twice, mini zero-shot."""
    task = Task("counselling", examples=60)
    specs = [Spec("nano", r=4, task=task), Spec("nano", r=8, task=task)]
    specs += [Spec("mini", 0.4, None, task=task)]
    make_sweep(tmp_path / "sweep", specs)
    return tmp_path / "sweep"


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The token of a start, and nothing that an earlier app has kept."""
    monkeypatch.setenv(TOKEN, "right")
    st.cache_resource.clear()
    st.cache_data.clear()
    yield
    st.cache_resource.clear()
