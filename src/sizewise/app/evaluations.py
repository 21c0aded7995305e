"""Evaluations of finished runs as processes of their own, watched through their files."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sizewise.composition.compose import compose_config, quoted
from sizewise.composition.inputs import pinned
from sizewise.config import to_run_config
from sizewise.config.targets import check_own
from sizewise.errors import ConfigError, DataError
from sizewise.files import read_json, tail
from sizewise.record.directories import RunDir
from sizewise.record.identity import run_identity
from sizewise.report.comparison.runs import Run
from sizewise.runtime import command_line

LOG = "app.log"
STOP_SECONDS = 30.0
SETTINGS = ("metric", "eval_dataset", "evaluation")
# What makes more of a value than a value: a class, code of a base, an interpolation.
REFUSED = ("_target_", "trust_remote_code", "${")
# What starts a program, sends texts somewhere, or names other places and further overrides.
TYPED_ONLY = re.compile(
    r"evaluation\.(engine|server)\b|\b(base_url|api_key_env)\b|sweep\.(arms|dir|dry_run)\b"
)
State = Literal["running", "done", "failed", "stopped"]


@dataclass(frozen=True)
class EvaluationPlan:
    """A command and where its results will be.

    Attributes:
        run_dir: directory of the evaluation, named by its configuration: the same evaluation
            goes on where it stopped, or is found done.
        total: answers that will be written; None where further test sets were asked for.
        title: what people call it.
    """

    command: tuple[str, ...]
    run_dir: Path
    total: int | None
    title: str = ""


@dataclass(frozen=True)
class Progress:
    """How far an evaluation is: answers on disk, of how many, and how it stands."""

    done: int
    total: int | None
    state: State
    message: str = ""

    @property
    def share(self) -> float:
        """Part that is done, 0 to 1 (0 while the total is unknown)."""
        if self.state == "done":
            return 1.0
        return min(1.0, self.done / self.total) if self.total else 0.0


def check_named(overrides: Sequence[str], groups: Sequence[str]) -> None:
    """Raise ConfigError for all but options of ``groups`` by name, and values below them.

    A server that answers is neither: it may be a command.
    """
    option = rf"({'|'.join(groups)})=\[?[\w, -]*\]?"
    value = rf"({'|'.join(groups)})(\.[\w-]+)+=.*"
    for text in overrides:
        named = re.fullmatch(option, text) or re.fullmatch(value, text, re.DOTALL)
        odd = any(word in text for word in REFUSED) or TYPED_ONLY.search(text)
        if not named or odd:
            raise ConfigError(
                f"{text}: here only options of {', '.join(groups)} can be given, by their names, "
                "and plain values of them. Use the command line for everything else."
            )


def check_plain(texts: Sequence[str]) -> None:
    """Raise DataError where a text out of somebody's file would be read as an interpolation.

    Escaped it would not stay one: a configuration is resolved more than once on its way.
    """
    for text in texts:
        if "${" in text:
            raise DataError(
                f"{text!r} holds '${{', which configurations read as a reference. Name that column "
                "or label otherwise in the file."
            )


def plan_evaluation(
    run: Run, outputs: Path, overrides: Sequence[str] = (), trust: bool = False
) -> EvaluationPlan:
    """Plan the evaluation of a finished run.

    Args:
        outputs: parent of the new directory.
        overrides: further settings as for ``evaluate.py`` (``eval_dataset=[counsel_chat]`` …):
            named options of ``SETTINGS`` and their values.
        trust: let it call metrics that the run names and that are not sizewise's.

    Raises:
        ConfigError: an override is wrong.
    """
    check_named(overrides, SETTINGS)
    chosen = [f"run={quoted(run.directory)}", "logger=none"]
    chosen.append(f"paths.outputs={quoted(outputs.resolve())}")
    cache = (run.outcome.config.get("paths") or {}).get("cache")
    if cache:
        chosen.append(f"paths.cache={quoted(cache)}")
    chosen += ["trust=true"] if trust else []
    chosen += list(overrides)
    plain = compose_config(chosen, "evaluate")
    to_run_config(plain, check_types=False)
    check_own(plain.get("metric"), "metric")
    known = run.outcome.tuned or run.outcome.base
    models = 1 if run.outcome.tuned is None else 2
    total = models * sum(e.examples for e in known.values())
    more = bool(plain.get("eval_dataset"))
    return EvaluationPlan(
        command=(*command_line("evaluate"), *chosen),
        run_dir=outputs.resolve() / run_identity(pinned(plain)).slug,
        total=None if more or not total else total,
        title=" ".join((run.directory.name, *overrides)),
    )


class RunningEvaluation:
    def __init__(self, plan: EvaluationPlan) -> None:
        self.plan = plan
        self._stopped = False
        plan.run_dir.mkdir(parents=True, exist_ok=True)
        with (plan.run_dir / LOG).open("wb") as log:
            self._process = subprocess.Popen(
                plan.command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )

    def progress(self) -> Progress:
        progress = read_progress(self.plan, self._process.poll())
        stopped = self._stopped and progress.state == "failed"
        return replace(progress, state="stopped", message="") if stopped else progress

    def stop(self) -> None:
        """End the process; the same evaluation goes on from what is on the disk."""
        if self._process.poll() is None:
            self._stopped = True
            end(self._process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and end it where it does not."""
    process.terminate()
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def read_progress(plan: EvaluationPlan, exit_code: int | None) -> Progress:
    """Tell the state from the files of an evaluation and its process's exit code (None: alive)."""
    done = sum(_lines(path) for path in RunDir(plan.run_dir).all_predictions.glob("*.jsonl"))
    if exit_code is None:
        return Progress(done, plan.total, "running")
    if exit_code == 0 and RunDir(plan.run_dir).outcome.is_file():
        return Progress(done, plan.total, "done")
    failure = read_json(RunDir(plan.run_dir).failure) or {}
    said = failure.get("reason") or " ".join(tail(plan.run_dir / LOG, 3))
    return Progress(done, plan.total, "failed", str(said or f"exit code {exit_code}"))


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0
