"""Python code in forks of one process that has imported what is large, in its own environment.

Cheaper than a process for each: importing takes seconds. The fork server of `tests.training.jobs`
has the environment of the tests instead.
"""

from __future__ import annotations

import gc
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 240


@dataclass(frozen=True)
class Forks:
    """The process that forks."""

    questions: IO[str]
    answers: IO[str]

    def run(
        self, code: str, folder: Path, environment: Mapping[str, str] | None = None
    ) -> CompletedProcess[str]:
        """Run code in ``folder``, with more in its environment."""
        said, errors = folder / "stdout.txt", folder / "stderr.txt"
        status = self.ask(code, folder, (said, errors), environment or {})
        return CompletedProcess(code, status, said.read_text(), errors.read_text())

    def ask(
        self, code: str, folder: Path, output: tuple[Path, Path], environment: Mapping[str, str]
    ) -> int:
        """Run code as ``run`` does, with standard output and error to files."""
        files = [str(path) for path in output]
        print(json.dumps([code, str(folder), files, dict(environment)]), file=self.questions)
        return int(self.answers.readline())


@contextmanager
def forking(modules: Sequence[str], environment: Mapping[str, str]) -> Iterator[Forks]:
    """Forks of a process that has imported ``modules`` in that environment alone."""
    with subprocess.Popen(
        [sys.executable, "-m", __name__, *modules], cwd=ROOT, env=environment, bufsize=1,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        yield Forks(process.stdin, process.stdout)


def _serve(modules: Sequence[str]) -> None:
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    forks = multiprocessing.get_context("fork")
    for question in sys.stdin:
        process = forks.Process(target=_run, args=json.loads(question))
        process.start()
        process.join()
        print(process.exitcode, flush=True)


def _run(code: str, folder: str, output: Sequence[str], environment: dict[str, str]) -> None:
    for number, name in enumerate(output, 1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update(environment)
    os.chdir(folder)
    signal.alarm(PATIENCE)
    exec(code, {"__name__": "__main__"})


if __name__ == "__main__":
    _serve(sys.argv[1:])
