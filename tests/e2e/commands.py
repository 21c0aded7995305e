"""Commands as processes of their own, forked from the server that has imported everything once."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.e2e.workers import fork_workers
from tests.training.jobs import ROOT, exit_code, forked

PRINTED = ("stdout.txt", "stderr.txt")


def train(said: Path, *arguments: str, kill: tuple[str, int] = ("", 0)) -> int:
    """Run train.py and return its exit code; what it prints goes to the file ``said``.

    ``kill``: the process ends itself by SIGKILL when it is about to write the checkpoint or the
    predictions of that name for the n-th time.
    """
    return exit_code(forked(_train, said, arguments, *kill))


def begin(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], said: Path | None = None
) -> Any:
    """Start a script, or ``-m`` and a module, in ``folder`` and a session of its own.

    Fake jobs are found. What it says goes to the file ``said``, or to those of ``printed``.
    """
    files = [said, said] if said else [folder / name for name in PRINTED]
    for file in files:
        file.write_text("")
    return forked(_run, list(command), {**os.environ, **environment}, folder, files)


def printed(folder: Path) -> tuple[str, str]:
    """What a script that began in ``folder`` has said: standard output and error."""
    said, errors = (folder / name for name in PRINTED)
    return said.read_text(), errors.read_text()


def _run(
    command: list[str], environment: dict[str, str], folder: Path, files: Sequence[Path]
) -> None:
    os.setsid()
    fork_workers()
    for number, file in enumerate(files, 1):
        with file.open("a") as output:
            os.dup2(output.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[:0] = [str(Path(command[0]).parent), str(ROOT / "tests")]
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")


def _train(said: Path, arguments: tuple[str, ...], name: str, times: int) -> None:
    from sizewise.record.predictions import PredictionStore
    from sizewise.training import checkpoint

    fork_workers()
    written: list[str] = []

    def killing(function: Callable[..., Any], path: Callable[..., Path]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            written.append(path(*given).name)
            if name and written.count(name) == times:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*given)

        return call

    checkpoint.write_checkpoint = killing(checkpoint.write_checkpoint, lambda _, path: path)
    PredictionStore.append = killing(PredictionStore.append, lambda store, _: store.path)  # type: ignore[method-assign]
    with said.open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.chdir(ROOT)
    sys.argv = [str(ROOT / "train.py"), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")
