"""A sweep that is started, watched and ended in the app, as a process of its own."""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from tests.app.opening import opened
from tests.e2e.commands import begin

from sizewise.app import evaluations, sweeps
from sizewise.app.exploring import explore_table
from sizewise.app.launch import TOKEN
from sizewise.app.pages.explore import TABLE
from sizewise.errors import ConfigError, DataError, SizewiseError, SweepError
from sizewise.record.claims import machine_id, process_start
from sizewise.record.directories import SweepDir
from sizewise.runtime import command_line
from sizewise.sweep.board import read_board

pytestmark = pytest.mark.usefixtures("fresh")
PATIENCE = 180
FAST = (
    "logger=none callbacks=none sweep.estimate=false trainer.accelerator=cpu dataset.max_train=8 "
    "dataset.max_validation=8 dataset.max_test=8 generation.max_new_tokens=2 "
    "evaluation.timed_answers=0"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Somebody's folder with two sweeps of their own; what was started there is ended."""
    own = tmp_path / "sweeps" / "sweep"
    own.mkdir(parents=True)
    short = "baselines: false\narms:\n  base: [model=nano, lora=none]\n"
    long = "baselines: false\narms:\n  one: [model=nano, trainer.max_epochs=1000000]\n"
    (own / "tiny.yaml").write_text(f"description: the smallest base as it is\n{short}")
    (own / "endless.yaml").write_text(f"description: never done\n{long}")
    (tmp_path / "multirun").mkdir()
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "multirun"
    for path in (tmp_path / "multirun").iterdir():
        started = sweeps.started_of(path)
        if started is not None and started.process is not None:
            started.process.kill()
            started.process.wait()


def until(condition: Callable[[], Any], page: AppTest | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.25 if page is None else 1.0)
        if page is not None:
            page.run()
    assert condition()


def button(page: AppTest, label: str) -> Any:
    return next(each for each in page.button if each.label == label)


def labels(page: AppTest) -> list[str]:
    return [each.label for each in page.button]


def planned(page: AppTest, name: str, more: str = FAST) -> AppTest:
    page.selectbox(key="sweep_named").select(name).run()
    page.text_input(key="sweep_more").set_value(more).run()
    button(page, "Show the plan").click().run()
    if not page.error:
        until(lambda: page.error or "Start" in labels(page), page)
    assert not page.exception
    return page


@pytest.fixture
def forked_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans come from processes that need not import everything first; sweeps as ever."""
    begun = sweeps._begun

    def begun_cheaply(command: Sequence[str], output: Any, alone: bool) -> Any:
        if alone:
            return begun(command, output, alone)
        process = begin(command[1:], Path.cwd(), {}, Path(output.name))
        process.poll = lambda: process.exitcode
        return process

    monkeypatch.setattr(sweeps, "_begun", begun_cheaply)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.usefixtures("forked_plans")
def test_a_sweep_is_planned_started_and_followed_until_it_is_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = planned(opened(folder, monkeypatch, "jobs"), "tiny")
    assert [error.value for error in page.error] == []
    assert list(folder.iterdir()) == [], "a plan leaves nothing behind"
    assert any("1 jobs; 0 done, 1 to do" in text.value for text in page.markdown)
    assert "nano_icd10-dialogues_base" in page.code[0].value
    assert "0 done" not in page.code[0].value
    button(page, "Start").click().run()
    (place,) = folder.iterdir()
    started = sweeps.started_of(place)
    assert started is not None
    assert started.process is not None
    assert os.getsid(started.pid) == started.pid, "it is no child of the app's terminal"
    assert TOKEN not in started.process.environ()
    assert "Stop" in labels(page)
    until(lambda: sweeps.started_of(place).process is None)  # type: ignore[union-attr]
    page.run()
    assert "1 of 1 job ended (1 done)" in page.markdown[0].value.replace("\\", "")
    assert "Stop" not in labels(page)
    assert SweepDir(place).summary.is_file()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("lora.rank=8", "lora.r"),
        ("model=qwen3", "qwen3"),
        ("lora.r=0 sweep.estimate=false", "lora.r"),
        ("dataset.prompt='", "Close the quote"),
        ("callbacks.mine._target_=os.system", "command line"),
        ("model=endpoint model.base_url=http://127.0.0.1:9/v1", "command line"),
    ],
)
def test_a_wrong_override_is_one_message_and_starts_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, more: str, said: str
) -> None:
    page = planned(opened(folder, monkeypatch, "jobs"), "tiny", more)
    (error,) = page.error
    assert said in error.value.replace("\\", "")
    assert "Traceback" not in error.value
    assert "Start" not in labels(page)
    assert list(folder.iterdir()) == []


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.usefixtures("forked_plans")
def test_a_sweep_is_started_once_and_stopped_where_it_was_started(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = planned(opened(folder, monkeypatch, "jobs"), "endless")
    button(page, "Start").click().run()
    (place,) = folder.iterdir()
    until(lambda: SweepDir(place).plan.is_file() and read_board(place).running)
    other = planned(opened(folder, monkeypatch, "jobs"), "endless")
    button(other, "Start").click().run()
    assert "was started here and runs" in other.error[0].value.replace("\\", "")
    started = sweeps.started_of(place)
    assert started is not None
    assert started.process is not None
    button(page.run(), "Stop").click().run()
    until(lambda: sweeps.started_of(place).process is None)  # type: ignore[union-attr]
    assert not read_board(place).running
    assert "The same command continues" in sweeps.last_words(place)
    again = button(other, "Start").click().run()
    assert not again.error
    until(lambda: read_board(place).running)


def test_a_sweep_that_runs_elsewhere_is_not_started_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sizewise.files import write_json
    from sizewise.record.claims import try_claim

    asked = sweeps.asked_for(["sweep=tiny"], [], folder)
    write_json(asked.sweep_dir / "job_0" / "job.json", {})
    write_json(SweepDir(asked.sweep_dir).plan, {"jobs": ["job_0"]})
    claim = try_claim(asked.sweep_dir / "job_0")
    assert claim is not None
    with pytest.raises(SweepError, match="runs already, started elsewhere"):
        sweeps.start(asked)
    claim.release("done")


def test_only_the_process_that_was_started_is_ended(tmp_path: Path) -> None:
    """Neither a foreign process that a record names, nor one that has got the number since."""
    foreign = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    ours = [*command_line("train"), "sweep=tiny"]
    record = {
        "pid": foreign.pid,
        "began": process_start(foreign.pid),
        "machine": machine_id(),
        "command": ours,
    }
    try:
        for changed in (
            {},
            {"command": [sys.executable, "-c", "import time; time.sleep(60)"]},
            {"began": "1"},
            {"machine": "another"},
            {"command": " ".join(ours)},
            {"pid": "1"},
        ):
            SweepDir(tmp_path).started.write_text(json.dumps({**record, **changed}))
            with pytest.raises(SweepError, match="Nothing that was started in the app"):
                sweeps.stop(tmp_path)
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


@pytest.mark.parametrize(
    "text",
    [
        "sweep.dir=/elsewhere", "sweep.arms.x=[a]", "sweep={arms: {x: [a]}}", "paths.cache=/x",
        "hydra/launcher=slurm", "dataset.teacher={option: endpoint, base_url: http://x/v1}",
        "model.trust_remote_code=true", "evaluation.engine=server", "seed=${oc.env:HOME}",
    ],
)  # fmt: skip
def test_what_belongs_on_the_command_line_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="Use the command line"):
        sweeps.asked_for(["sweep=my_question"], [text], tmp_path)


@pytest.mark.parametrize("name", ["/elsewhere", "../../x", "..", ".", "deep/er"])
def test_the_name_of_a_sweep_leaves_its_folder_nowhere(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"sweep\.name"):
        sweeps.asked_for(["sweep=tiny"], [f"sweep.name={name}"], folder)
    asked = sweeps.asked_for(["sweep=tiny"], ["sweep.name='of mine'"], folder)
    assert asked.sweep_dir == folder / "of mine"


def test_two_apps_start_a_sweep_once(folder: Path) -> None:
    """The other one has looked, and has not yet written what it began."""
    from sizewise.record.claims import try_claim

    asked = sweeps.asked_for(["sweep=tiny"], [], folder)
    claim = try_claim(asked.sweep_dir, alone=False)
    assert claim is not None
    with pytest.raises(SweepError, match=rf"process {os.getpid()} .* is starting or finishing"):
        sweeps.start(asked)
    claim.release("started")
    assert not SweepDir(asked.sweep_dir).started.exists()


STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('deaf', flush=True); time.sleep(60)"
)
SLEEPING = "import time; print('here', flush=True); time.sleep(60)"


def planning_that(code: str, monkeypatch: pytest.MonkeyPatch) -> sweeps.Planning:
    """A planning whose process does something else, which it has begun to."""
    begun = sweeps._begun

    def other(command: object, output: Any, alone: bool) -> subprocess.Popen[bytes]:
        return begun([sys.executable, "-c", code], output, alone)

    monkeypatch.setattr(sweeps, "_begun", other)
    planning = sweeps.Planning(sweeps.Asked(("sweep=tiny",), Path("tiny")))
    until(lambda: planning.text)
    return planning


def test_a_planning_that_does_not_end_when_asked_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluations, "STOP_SECONDS", 0.2)
    planning = planning_that(STUBBORN, monkeypatch)
    planning.stop()
    assert planning.exit_code == -9


def test_the_planning_of_a_closed_tab_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    planning = planning_that(SLEEPING, monkeypatch)
    process = planning._process
    del planning
    gc.collect()
    assert process.wait(timeout=20) == -15


def table(tmp_path: Path, name: str = "mine.csv", text: str = "question,code\nwhy,a\n") -> Any:
    path = tmp_path / "uploaded.csv"
    path.write_text(text, encoding="utf-8")
    columns = text.splitlines()[0].split(",")
    return sweeps.Table(path, name, columns[0], columns[-1])


def test_a_name_in_an_uploaded_file_is_no_interpolation(folder: Path, tmp_path: Path) -> None:
    words = "".join(f"why {i},{{}} {i % 2}\n" for i in range(40))
    column = table(tmp_path, text="question,${oc.env:HOME}\n" + words.format(*["a"] * 40))
    with pytest.raises(DataError, match="read as a reference"):
        sweeps.table_overrides(column, folder)
    with pytest.raises(DataError, match="read as a reference"):
        explore_table(column.path, column.prompt, column.answer)
    label = table(tmp_path, text="question,code\n" + words.format(*["${oc.env:HOME}"] * 40))
    with pytest.raises(DataError, match="read as a reference"):
        sweeps.table_overrides(label, folder)


@pytest.mark.parametrize("letter", ["x", "字"])
def test_an_uploaded_file_may_have_a_long_name(folder: Path, tmp_path: Path, letter: str) -> None:
    sweeps.table_overrides(table(tmp_path, f"{letter * 250}.csv"), folder)
    (kept,) = folder.rglob("*.csv")
    assert len(kept.name.encode()) <= 84


def test_a_full_disk_is_one_message(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(SizewiseError, match=r"No space left on device\. Make room"):
        sweeps.table_overrides(table(tmp_path), folder)
    monkeypatch.setattr(sweeps, "TemporaryDirectory", full)
    page = planned(opened(folder, monkeypatch, "jobs"), "tiny")
    assert "No space left on device" in page.error[0].value


def test_the_log_of_somebody_else_is_one_message(folder: Path) -> None:
    asked = sweeps.Asked(("sweep=tiny",), folder / "tiny")
    SweepDir(asked.sweep_dir).app_log.mkdir(parents=True)  # as little to be written as theirs
    with pytest.raises(SweepError, match=r"app\.log: .*may write"):
        sweeps.start(asked)
    assert "cannot be read" in sweeps.last_words(asked.sweep_dir)


def test_a_sweep_that_cannot_be_recorded_does_not_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = []
    begun = sweeps._begun

    def other(command: object, output: Any, alone: bool) -> subprocess.Popen[bytes]:
        processes.append(begun([sys.executable, "-c", SLEEPING], output, alone))
        return processes[-1]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sweeps, "_begun", other)
    monkeypatch.setattr(sweeps, "write_json", full)
    with pytest.raises(SweepError, match="No space left"):
        sweeps.start(sweeps.Asked(("sweep=tiny",), folder / "tiny"))
    assert processes[0].poll() == -15


def test_a_new_sweep_goes_beside_the_one_that_is_looked_at(folder: Path) -> None:
    assert sweeps.sweeps_folder(folder) == folder
    (folder / "mine").mkdir()
    SweepDir(folder / "mine").plan.write_text("{}")
    assert sweeps.sweeps_folder(folder / "mine") == folder
    asked = sweeps.asked_for(["sweep=tiny"], ["seed=1,2"], folder)
    assert asked.sweep_dir.parent == folder


def test_sweeps_and_data_of_the_working_directory_can_be_chosen(folder: Path) -> None:
    found = sweeps.shipped_sweeps()
    assert found["tiny"] == "the smallest base as it is"
    assert "my_question" in found
    assert "none" not in found
    (Path("conf") / "dataset").mkdir(parents=True)
    (Path("conf") / "dataset" / "visits.yaml").write_text("name: visits\n")
    assert {"visits", "icd10_dialogues"} <= set(sweeps.data_options())


def test_a_file_uploaded_on_explore_is_the_data_of_a_sweep_and_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened(folder, monkeypatch, "explore")
    rows = "".join(f"Where does it hurt {i}?,code {i % 4}\n" for i in range(40))
    page.selectbox[0].select("a CSV file of mine …").run()
    page.get("file_uploader")[0].upload(
        "My file.csv", f"question,code\n{rows}".encode(), "text/csv"
    )
    page.run()
    words = sweeps.table_overrides(page.session_state[TABLE], folder)
    (kept,) = folder.rglob("*.csv")
    assert kept.name == "my_file.csv"
    assert "dataset.task=classification" in words
    asked = sweeps.asked_for(["sweep=my_question", *words], [], folder)
    assert "dataset.primary=label/exact_match" in asked.words
    assert any("Answer with one of: code 0, code 1" in word for word in asked.words)
