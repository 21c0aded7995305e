from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from tests.job.runs import run

from sizewise.evaluation.predict import evaluation_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_evaluation_shows_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    run(tmp_path, "zero", "lora=none", "trainer.progress_bar=true", "evaluation.batch_size=4")
    assert "base.icd10_dialogues" in terminal.getvalue()
    assert "4/8" in terminal.getvalue()
    assert "8/8" in terminal.getvalue()


def test_there_is_no_bar_in_a_file_or_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, wanted in ((io.StringIO(), True), (Terminal(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with evaluation_bar("x", wanted=wanted) as tell:
            tell(1, 2)
        assert stream.getvalue() == ""


@pytest.mark.parametrize("name", ["base.[/b] {x} data", "base.[INST] a", "{"])
def test_a_name_of_a_data_set_with_brackets_is_shown_as_it_is(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with evaluation_bar(name, wanted=True) as tell:
        tell(1, 2)
    assert name in terminal.getvalue()
    assert "1/2" in terminal.getvalue()
