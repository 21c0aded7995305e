"""``sizewise train`` and ``sizewise evaluate`` (and ``train.py``, ``evaluate.py``) under Hydra."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from sizewise import __version__
from sizewise.composition.alone import check_alone
from sizewise.composition.resolvers import exit_on_error, make_directory, register_resolvers
from sizewise.composition.shorthand import spelt_out
from sizewise.config import RunConfig, conf_dir, register_schema
from sizewise.config.register import explained
from sizewise.config.suggest import all_keys, nearest_key
from sizewise.errors import ConfigError
from sizewise.job.execute import JobResult, execute, require
from sizewise.job.run import sweep_name
from sizewise.job.submit import DEFAULT_FUNCTION, load_job, make_job, submit
from sizewise.record.directories import RunDir
from sizewise.record.identity import plain_config
from sizewise.record.state import JobState, finished

log = logging.getLogger(__name__)
FULL_ERROR = "HYDRA_FULL_ERROR"


def prepare() -> None:
    """Register schema and resolvers; to be called before Hydra's main function."""
    register_schema()
    register_resolvers()
    warnings.filterwarnings("ignore", category=UserWarning, module=r"hydra\.")


def run_command(main: Callable[[], object]) -> None:
    """Call a Hydra main function; a command that cannot be composed ends with one line."""
    if FULL_ERROR in os.environ:
        main()
        return
    os.environ[FULL_ERROR] = "1"  # Hydra raises what it otherwise prints, with advice that misleads
    try:
        with exit_on_error(), explained(sys.argv[1:]):
            main()
    finally:
        del os.environ[FULL_ERROR]  # a later command of this process is explained, too


def hydra_command(name: str, arguments: Sequence[str] | None = None) -> None:
    """Run the command whose primary configuration is ``name``: ``train`` or ``evaluate``.

    ``arguments`` are overrides and Hydra's own flags; None: those of this process.
    """
    prepare()
    if arguments is not None:
        sys.argv = [f"sizewise {name}", *arguments]
    if "--version" in sys.argv[1:]:  # Hydra would print its own
        sys.stdout.write(f"sizewise {__version__}\n")
        return
    with exit_on_error():
        check_flags(sys.argv[1:])
        sys.argv[1:] = flags_first(spelt_out(sys.argv[1:]))
        # Hydra makes it a moment later, with a traceback where that fails
        for text in sys.argv[1:]:
            if text.startswith("hydra.run.dir=") and "${" not in text:
                make_directory(Path(text.partition("=")[2].strip("'\"")))
    main = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=name)
    run_command(main(run_task))


# Hydra's own flags; those that take a value.
FLAGS = {
    "--help", "-h", "--hydra-help", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r",
    "--multirun", "-m", "--shell-completion", "-sc", "--config-path", "-cp", "--config-name", "-cn",
    "--config-dir", "-cd", "--experimental-rerun", "--info", "-i", "--version",
}  # fmt: skip
WITH_VALUE = {
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn",
    "--config-dir", "-cd", "--experimental-rerun",
}  # fmt: skip
MAY_HAVE_VALUE = {"--info", "-i"}


def flags_first(words: Sequence[str]) -> list[str]:
    """Put Hydra's flags before the overrides: it takes none of those behind a flag in their midst.

    The value of a flag stays behind it. A flag that may have one, and has none, goes to the end,
    where it takes no override for its value.
    """
    flags: list[str] = []
    overrides: list[str] = []
    last: list[str] = []
    for before, word, after in zip(["", *words], words, [*words[1:], "="], strict=False):
        if before in WITH_VALUE or (before in MAY_HAVE_VALUE and "=" not in word):
            flags.append(word)
        elif word in MAY_HAVE_VALUE and "=" in after:
            last.append(word)
        else:
            (flags if word.startswith("-") else overrides).append(word)
    return [*flags, *overrides, *last]


def check_flags(words: Sequence[str]) -> None:
    """Refuse a flag that there is not: options are KEY=VALUE here.

    Raises:
        ConfigError: the message spells the flag as an override.
    """
    if {"-m", "--multirun"} & set(words) and {"-c", "--cfg", "--info", "-i"} & set(words):
        raise ConfigError(
            "--cfg and --info show one job. Leave out -m; for the plan of many: sweep.dry_run=true."
        )
    for place, word in enumerate(words):
        flag, _, value = word.partition("=")
        if not flag.startswith("-") or flag in FLAGS or not flag.lstrip("-")[:1].isalpha():
            continue
        if not flag.startswith("--") and flag[:2] in FLAGS:  # such as -cjob
            continue
        following = next((text for text in words[place + 1 :] if text[:1] != "-"), "")
        value = value or ("" if "=" in following else following) or "VALUE"
        name = flag.lstrip("-")
        key = name if name in {*TOP, *all_keys()} else nearest_key(name)
        meant = f"{key}={value}" if key and "=" not in key else key
        raise ConfigError(
            f"{flag}: options have no dashes here, they are KEY=VALUE."
            + (f" Did you mean {meant}?" if meant else " --help shows examples.")
        )


TOP = {item.name for item in fields(RunConfig)}


def run_task(cfg: DictConfig) -> float | None:
    """Run the composed job in its directory and return its objective.

    A job that is done returns its stored objective at once. On its own, a failed job ends the
    process with one message and exit code 1, an interrupted one with 130; as part of a sweep in
    this process the error is raised, so that the next job runs.
    """
    command = HydraConfig.get()
    alone = command.mode != RunMode.MULTIRUN
    run_dir = Path(command.runtime.output_dir)
    with exit_on_error() if alone else nullcontext():
        if alone:  # the default directory has asked already, one of one's own has not
            check_alone(cfg, list(command.overrides.task), str(command.job.config_name))
        if alone or not RunDir(run_dir).job.exists():
            # A sweep has already written the job as it was when it was planned.
            submit(make_job(plain_config(cfg), run_dir, tuple(command.overrides.task), _function()))
        result = _execute(run_dir, alone)
        objective = _report(result)
        if alone and result.fresh:
            finish_alone(load_job(run_dir)[0], run_dir)
    return objective


def _execute(run_dir: Path, alone: bool) -> JobResult:
    try:
        return execute(run_dir)
    except KeyboardInterrupt:
        sys.stderr.write(f"Stopped. The same command continues the run in {run_dir}.\n")
        if alone:
            raise SystemExit(130) from None
        raise


def _report(result: JobResult) -> float | None:
    where = require(result).run_dir
    if result.state == JobState.DONE and not result.fresh:
        outcome = finished(where)
        said = outcome.objective_text if outcome else ""
        log.info("Already done: %s%s", where, f" ({said})" if said else "")
    return result.objective


def finish_alone(cfg: RunConfig, run_dir: Path) -> None:
    """Report on a run that belongs to no sweep; rehearse the release of a dry run."""
    if not cfg.report or sweep_name(cfg, run_dir) is not None:
        return
    from sizewise.release.export import rehearse_export

    write_own_report(run_dir)
    rehearse_export(cfg, run_dir)


def write_own_report(run_dir: Path) -> None:
    from sizewise.report.comparison.compare import compare_loaded
    from sizewise.report.comparison.runs import load_runs
    from sizewise.report.page.write import write_report

    comparison = compare_loaded(load_runs([run_dir]))
    paths = write_report(comparison, RunDir(run_dir).report, (), run_dir.name)
    log.info("Report: %s", paths["report"])


def _function() -> str:
    # Tests and other programs may put another function in the place of a job.
    command: Any = HydraConfig.get()
    return OmegaConf.select(command, "sweeper.job") or DEFAULT_FUNCTION
