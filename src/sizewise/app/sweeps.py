"""Sweeps that are started in the app: found, checked, run as processes of their own, and ended.

App and sweep know each other through the sweep's directory alone. A sweep outlives the page and
the app; that it is still the same process say its start time, its machine and its command line.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import yaml

from sizewise.app.evaluations import check_named
from sizewise.app.launch import TOKEN
from sizewise.composition.compose import initialized, override_of
from sizewise.composition.jobs import sweeper_of
from sizewise.composition.resolvers import errors_raised, make_directory
from sizewise.composition.shorthand import spelt_out
from sizewise.config import SourceConfig, conf_dir
from sizewise.data.rows.read import read_rows
from sizewise.errors import SweepError
from sizewise.files import file_hash, read_json, tail, write_json, written_whole
from sizewise.metrics.reading.answer_sets import recognise, worded
from sizewise.record.claims import machine_id, process_start
from sizewise.record.directories import JOB_FILE, SweepDir
from sizewise.runtime import command_line
from sizewise.sweep.board import read_board

GROUPS = (
    "sweep", "dataset", "eval_dataset", "model", "lora", "quantization", "metric", "generation",
    "optimizer", "scheduler", "trainer", "callbacks", "evaluation", "logger", "seed",
)  # fmt: skip
UPLOADS = "uploads"
LOG_LINES = 12
BOX = "┏┃┡│└├"  # what the lines of a printed table begin with
_composing = threading.Lock()  # Hydra has one state for the whole process
_starting = threading.Lock()
_children: dict[int, subprocess.Popen[bytes]] = {}


def shipped_sweeps() -> dict[str, str]:
    """Return what every named sweep does, those of the working directory (``sweeps/``) included."""
    places = (conf_dir().parent / "sweeps" / "sweep", Path("sweeps") / "sweep")
    files = {path.stem: path for place in places for path in sorted(place.glob("*.yaml"))}
    return {name: _description(path) for name, path in files.items() if name != "none"}


def _description(path: Path) -> str:
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return ""  # starting it says what is wrong with it
    return str(said.get("description") or "") if isinstance(said, dict) else ""


def data_options() -> list[str]:
    """Return the names of the data set options, those of the working directory included."""
    places = (conf_dir() / "dataset", Path("conf") / "dataset")
    return sorted({path.stem for place in places for path in place.glob("*.yaml")})


@dataclass(frozen=True)
class Table:
    """A CSV file that was uploaded, and which of its columns are question and answer."""

    path: Path
    name: str
    prompt: str
    answer: str


def table_overrides(table: Table, folder: Path) -> list[str]:
    """Return the overrides that make a table the data set of a sweep.

    The file is copied below ``folder``, where it stays. Its kind of task is seen in its answers, as
    by ``sizewise init``.

    Raises:
        SizewiseError: the file cannot be read.
    """
    name = re.sub(r"\W+", "_", Path(table.name).stem.casefold()).strip("_") or "my_table"
    kept = folder.resolve() / UPLOADS / file_hash(table.path)[:16] / f"{name}.csv"
    if not kept.is_file():
        make_directory(kept.parent)
        with written_whole(kept) as temporary:
            shutil.copyfile(table.path, temporary)
    rows = read_rows(SourceConfig(kind="csv", path=str(kept)))
    answers = recognise([str(row.get(table.answer) or "") for row in rows])
    values = {
        "dataset": "csv",
        "dataset.source.path": kept,
        "dataset.name": name,
        "dataset.prompt": worded(f"{{{table.prompt}}}", answers),
        "dataset.answer": f"{{{table.answer}}}",
        "dataset.task": "text" if answers is None else answers.task,
    }
    return [override_of(key, value) for key, value in values.items()]


def sweeps_folder(directory: Path) -> Path:
    """Return where new sweeps go: the app's directory, or beside it where it is a sweep or run."""
    sweep = SweepDir(directory)
    own = (sweep.plan, sweep.started, directory / JOB_FILE)
    return directory.parent if any(path.is_file() for path in own) else directory


@dataclass(frozen=True)
class Asked:
    """A sweep that was asked for: its overrides, which compose, and the directory they name."""

    words: tuple[str, ...]
    sweep_dir: Path

    @property
    def command(self) -> tuple[str, ...]:
        return (*command_line("train"), *self.words)


def asked_for(named: Sequence[str], typed: Sequence[str], folder: Path) -> Asked:
    """Check what was asked for by composing it.

    Args:
        named: overrides that the page made from what was chosen there.
        typed: overrides as somebody wrote them: named options of ``GROUPS`` and plain values.
        folder: where the sweep's directory is made.

    Raises:
        ConfigError: an override is wrong, or belongs on the command line.
    """
    check_named(typed, GROUPS)
    words = spelt_out([*named, *typed, override_of("paths.sweeps", folder.resolve())])
    with _composing, errors_raised(), initialized(words):
        _, config = sweeper_of(words)
        return Asked(tuple(words), Path(str(config.hydra.sweep.dir)))


class Planning:
    """``sweep.dry_run=true`` of what was asked for: the plan and what it is expected to take."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self._folder = TemporaryDirectory(prefix="sizewise-plan-")
        self._output = Path(self._folder.name) / "said"
        with self._output.open("wb") as output:
            command = (*asked.command, "sweep.dry_run=true")
            self._process = _begun(command, output, alone=False)

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    @property
    def text(self) -> str:
        """What it has said so far."""
        return self._output.read_text(encoding="utf-8", errors="replace").strip()

    @property
    def sentences(self) -> list[str]:
        """What it says of the whole, its table left out."""
        lines = [line.strip() for line in self.text.splitlines()]
        return [line for line in lines if line and line[0] not in BOX]

    @property
    def table(self) -> str:
        """The table of the jobs."""
        lines = self.text.splitlines()
        return "\n".join(line.rstrip() for line in lines if line.strip()[:1] in tuple(BOX))

    @property
    def refusal(self) -> str:
        """Why it ended without a plan."""
        _, found, why = self.text.rpartition("sizewise: ")
        return why if found else self.text or f"It ended with exit code {self.exit_code}."

    def stop(self) -> None:
        if self.exit_code is None:
            self._process.terminate()
            self._process.wait()


@dataclass(frozen=True)
class Started:
    """The process that an app began for a sweep, as the sweep's directory names it."""

    pid: int
    began: str
    machine: str
    command: tuple[str, ...]

    @cached_property
    def process(self) -> psutil.Process | None:
        """The process, while it runs and is provably that one."""
        if self.machine != machine_id() or process_start(self.pid) != self.began:
            return None
        try:
            found = psutil.Process(self.pid)
            return found if tuple(found.cmdline()) == self.command else None
        except psutil.Error:
            return None


def started_of(sweep_dir: Path) -> Started | None:
    """Return what an app began for a sweep, running or not; None where none did.

    A record is data: one that names any other command than a sweep of ours is none.
    """
    record = read_json(SweepDir(sweep_dir).started) or {}
    command = record.get("command")
    ours = command_line("train")
    if not isinstance(command, list) or tuple(command[: len(ours)]) != ours:
        return None
    pid, began, machine = (record.get(key) for key in ("pid", "began", "machine"))
    if not isinstance(pid, int) or not isinstance(began, str) or not isinstance(machine, str):
        return None
    if pid in _children:
        _children[pid].poll()  # else it would stay a zombie
    return Started(pid, began, machine, tuple(map(str, command)))


def start(asked: Asked) -> Started:
    """Begin a sweep, or go on with it, as a process that outlives the app.

    Raises:
        SweepError: it runs already, or its directory cannot be written.
    """
    with _starting:
        _check_free(asked.sweep_dir)
        make_directory(asked.sweep_dir)
        sweep = SweepDir(asked.sweep_dir)
        with sweep.app_log.open("wb") as log:
            process = _begun(asked.command, log, alone=True)
        _children[process.pid] = process
        began = process_start(process.pid) or ""
        started = Started(process.pid, began, machine_id(), asked.command)
        write_json(sweep.started, {**vars(started), "command": list(asked.command)})
        return started


def _check_free(sweep_dir: Path) -> None:
    started = started_of(sweep_dir)
    if started is not None and started.process is not None:
        raise SweepError(
            f"{sweep_dir.name} was started here and runs (process {started.pid}). "
            "Stop it first, or wait until it is through."
        )
    if SweepDir(sweep_dir).plan.is_file() and (running := read_board(sweep_dir).running):
        raise SweepError(
            f"{sweep_dir.name} runs already, started elsewhere: {running[0].worker} works on "
            f"{running[0].name}. Wait until it is through, or stop it where it was started."
        )


def _begun(command: Sequence[str], output: Any, alone: bool) -> subprocess.Popen[bytes]:
    """Begin a command without a shell; ``alone``: Ctrl-C in the app's terminal does not reach it.

    The key to the app is not handed on.
    """
    return subprocess.Popen(
        command,
        stdout=output,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=_environment(os.environ),
        start_new_session=alone,
    )


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in given.items() if name != TOKEN}


def stop(sweep_dir: Path) -> None:
    """Ask the process that was started for a sweep to end; its jobs save where they are.

    Asked a second time it ends at once, as by a second Ctrl-C.

    Raises:
        SweepError: nothing that was started in an app runs there.
    """
    started = started_of(sweep_dir)
    process = None if started is None else started.process
    if process is None:
        raise SweepError(f"Nothing that was started in the app works on {sweep_dir.name} now.")
    process.send_signal(signal.SIGTERM)


def last_words(sweep_dir: Path) -> str:
    """The last lines that the process of a sweep wrote."""
    return "\n".join(tail(SweepDir(sweep_dir).app_log, LOG_LINES))
