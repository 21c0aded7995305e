"""Text that is not ours, where it is printed, pasted, opened in a spreadsheet or published."""

from __future__ import annotations

import io
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from tests.report.factory import PARAMS, Spec, Task, make_run, make_sweep

from sizewise.commands.explore import explore_command
from sizewise.commands.plan import plan_command
from sizewise.commands.provenance import compare_command, reproduce_command
from sizewise.composition.compose import compose_config
from sizewise.config import PricesConfig
from sizewise.errors import ConfigError, OutcomeError
from sizewise.job.submit import make_sweep_job
from sizewise.record.outcome import Outcome, read_outcome, write_outcome
from sizewise.record.state import JobState
from sizewise.report.page.tables import csv_text
from sizewise.sweep.plan import Plan, print_plan, print_table
from sizewise.verify.reproduce import quoted, reproduction
from sizewise.words import literal, visible

MARKUP = (
    "[INST] {text} [/INST]", "[/b]", "[bold]x", "a\\[/b]", "metric=[label],[label,perplexity]",
    "[link=http://192.0.2.1]x[/link]", "end\\", "[@click=app.quit]x[/]", ":smile: and :x:", "[/]",
)  # fmt: skip


@pytest.mark.parametrize("text", MARKUP)
def test_text_with_brackets_is_printed_as_it_is(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_table(text, ("column", text), [("one", text)])
    said = capsys.readouterr().out
    assert said.count(text) == 3
    console = Console(file=io.StringIO(), width=200, emoji=False)
    console.print(f"[bold]{literal(text)}[/] after")
    assert console.file.getvalue() == f"{text} after\n"  # type: ignore[attr-defined]


def test_what_a_terminal_would_obey_is_shown_as_a_code() -> None:
    assert visible("\x1b]0;title\x07\r\x9b31m\u202ea\tb\n") == (
        "\\u001b]0;title\\u0007\\u000d\\u009b31m\\u202ea\tb\n"
    )
    assert visible("café 漢字 👩‍🔬 עברית") == "café 漢字 👩‍🔬 עברית"


def test_a_name_with_brackets_is_planned_and_explored(
    shared_markup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["model=nano", "model.name='a [/b] name'"]
    plan_command(given)
    assert "a [/b] name, none base" in capsys.readouterr().out
    data = ["dataset=csv", f"dataset.source.path={shared_markup}", "dataset.name='[/i] rows'"]
    data += ["dataset.prompt='[INST] {text} [/INST]'", "dataset.answer='{label}'"]
    explore_command([*given, *data, "dataset.label=label"], None, 4)
    said = capsys.readouterr().out
    assert "[/i] rows, tokens of a [/b] name" in said
    assert "[INST]" in said
    assert "[A]" in said
    assert "[/B]" in said


def test_the_plan_of_a_sweep_shows_prompts_and_metrics_as_they_were_typed(
    shared_markup: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ("dataset.prompt='[INST] {text} [/INST]'", "metric=[label,perplexity]")
    more = ("dataset=csv", f"dataset.source.path={shared_markup}", "dataset.answer='{label}'")
    config = compose_config([*typed, *more, "dataset.primary=label/exact_match"])
    job = make_sweep_job(config, tmp_path, typed)
    plan = Plan(tmp_path, "[/b]", [job], {job.identity.slug: JobState.WAITING}, 1)
    print_plan(plan, details=True)
    said = capsys.readouterr().out
    assert "[/b] (dry run)" in said
    assert " ".join(typed) in said


@pytest.fixture
def shared_markup(tmp_path: Path) -> Path:
    """Rows whose texts and labels look like markup."""
    rows = ["text,label"]
    for number in range(30):
        text = ("[URGENT] parcel", "a [/b] lone", "[b]bold[/b]", "[link=3]x[/link]")[number % 4]
        rows.append(f"{text} {number},{'[A]' if number % 2 else '[/B]'}")
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def recorded(outcome: Outcome, **facts: Any) -> Outcome:
    return replace(outcome, provenance={**outcome.provenance, **facts})


def test_lines_to_paste_hold_nothing_but_what_they_say(tmp_path: Path) -> None:
    """The lines are given to a real shell, with the programs that they name made harmless."""
    outcome = read_outcome(make_run(tmp_path / "run", Spec(task=Task(examples=4))))
    struck = tmp_path / "struck"
    facts = {
        "overrides": [
            f"dataset.prompt=it's $(touch {struck}) `touch {struck}`", f"seed=1\n touch {struck}",
            "model.name=\x1b[201~x\r", "hydra.job_logging.x=1", "--config-dir=x",
            "sweep.arms={a: [x]}", f"; touch {struck}",
        ],
        "code": {"commit": f"main; touch {struck}"},
        "packages": {"torch": f"1; touch {struck}", "--find-links": "http", "numpy": "2.0+cpu"},
        "python": f"3\ntouch {struck}",
        "hardware": {"cpu": f"x\ntouch {struck}"},
    }  # fmt: skip
    found = reproduction(recorded(outcome, **facts), check=False)
    assert found.commit is None
    assert found.requirements == ("numpy==2.0",)
    assert [word.partition("=")[0] for word in found.command] == [
        "python", "train.py", "dataset.prompt", "seed", "model.name",
    ]  # fmt: skip
    assert any("Left out" in note and "--config-dir" in note for note in found.notes)
    show = 'show() { printf \'<%s>\' "$@"; }; pip() { show pip "$@"; }; python() { show "$@"; };'
    done = subprocess.run(
        ["bash", "-c", f"{show} git() {{ :; }}\n{found.script}"], capture_output=True, check=True
    )
    assert done.stdout.decode() == (
        "<pip><install><numpy==2.0>" + "".join(f"<{word}>" for word in found.command[1:])
    )
    assert done.stderr == b""
    assert not struck.exists()


@pytest.mark.parametrize("word", ["a b", "it's", "\x1b[201~\rls\n", "back\\slash\x07", "é $x", ""])
def test_a_quoted_word_is_the_word(word: str) -> None:
    done = subprocess.run(["bash", "-c", f"printf %s {quoted(word)}"], capture_output=True)
    assert done.stdout.decode() == word
    assert not any(c in quoted(word) for c in "\x1b\r\x07")


def test_a_foreign_command_is_run_only_where_trust_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = make_run(tmp_path / "run", Spec(task=Task(examples=4)))
    outcome = read_outcome(directory)
    write_outcome(recorded(outcome, overrides=["+metric.own._target_=mine.Metric"]), directory)
    started: list[list[str]] = []

    def run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
        started.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr("sizewise.commands.provenance.subprocess.run", run)
    with pytest.raises(ConfigError, match=r"metric\.own\._target_=mine\.Metric.*--trust"):
        reproduce_command(directory, run=True)
    assert "This runs what is not sizewise's own" in capsys.readouterr().out
    assert not started
    assert reproduce_command(directory, run=True, trust=True) == 1
    assert started


def test_a_cell_of_a_spreadsheet_is_no_formula() -> None:
    frame = pd.DataFrame(
        {"=cmd|' /C calc'!A0": ["=1+1", "+1", "-x", "@SUM(A1)", "a=b"], "gain": [-0.5, 1, 2, 3, 4]}
    )
    assert csv_text(frame).splitlines() == [
        "'=cmd|' /C calc'!A0,gain", "'=1+1,-0.5", "'+1,1.0", "'-x,2.0", "'@SUM(A1),3.0", "a=b,4.0",
    ]  # fmt: skip


def test_the_tables_of_a_report_are_written_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("=HYPERLINK(1)", "+mini"):
        monkeypatch.setitem(PARAMS, name, 1_000_000)
    task = Task(examples=20)
    specs = [Spec("=HYPERLINK(1)", r=4, task=task), Spec("+mini", 0.4, None, task=task)]
    make_sweep(tmp_path / "sweep", specs)
    compare_command([tmp_path / "sweep"], (), tmp_path / "out", PricesConfig())
    for name, rows in (("comparison.csv", 3), ("runs.csv", 2)):
        frame = pd.read_csv(tmp_path / "out" / name, dtype=str)
        assert len(frame) == rows
        texts = [str(cell) for cell in frame.to_numpy().ravel()]
        assert any(text.startswith("'=HYPERLINK") for text in texts)
        assert not any(text.startswith(("=", "@")) for text in texts)


def test_a_comparison_of_no_runs_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(OutcomeError, match="nothing to compare"):
        compare_command([tmp_path / "empty"], (), None, PricesConfig())
    broken = make_run(tmp_path / "broken", Spec(task=Task(examples=4)))
    (broken / "outcome.json").write_text("{")
    with pytest.raises(OutcomeError, match="truncated or damaged"):
        compare_command([broken], (), tmp_path / "out", PricesConfig())
