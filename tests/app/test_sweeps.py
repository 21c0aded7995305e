"""A sweep that is started, watched and ended in the app, as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from tests.app.opening import opened

from sizewise.app import sweeps
from sizewise.app.launch import TOKEN
from sizewise.app.pages.explore import TABLE
from sizewise.errors import ConfigError, SweepError
from sizewise.record.claims import machine_id, process_start
from sizewise.record.directories import SweepDir
from sizewise.runtime import command_line
from sizewise.sweep.board import read_board

pytestmark = pytest.mark.usefixtures("fresh")
PATIENCE = 180
FAST = (
    "logger=none callbacks=none sweep.estimate=false trainer.accelerator=cpu dataset.max_train=8 "
    "dataset.max_validation=8 dataset.max_test=8 generation.max_new_tokens=2"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Somebody's folder with two sweeps of their own; what was started there is ended."""
    own = tmp_path / "sweeps" / "sweep"
    own.mkdir(parents=True)
    short = "baselines: false\narms:\n  base: [model=nano, lora=none]\n"
    long = "baselines: false\narms:\n  one: [model=nano, trainer.max_steps=1000000]\n"
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
        time.sleep(0.25)
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


@pytest.mark.e2e
@pytest.mark.slow
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
    until(lambda: sweeps.started_of(place).process is None, page)  # type: ignore[union-attr]
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
