"""Pages of the app as Streamlit runs them, without a browser."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from sizewise.app.launch import SCRIPT

PATIENCE = 120


def opened(
    directory: Path, monkeypatch: pytest.MonkeyPatch, page: str = "results", *more: str
) -> AppTest:
    monkeypatch.setattr(sys, "argv", ["main.py", str(directory), *more])
    found = AppTest.from_file(str(SCRIPT), default_timeout=PATIENCE)
    found.query_params["token"] = "right"
    found.session_state["page"] = page
    found.run()
    assert not found.exception
    return found


def texts(page: AppTest) -> list[str]:
    """The pieces of HTML of a page in their order, without its style."""
    found = [element.proto.body for element in page.get("html")]
    return [text for text in found if not text.startswith("<style>")]
