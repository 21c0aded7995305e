"""Resolvers: directories by identity, the default learning rate. Nothing heavy is imported."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sizewise.composition.alone import check_alone
from sizewise.composition.inputs import pinned
from sizewise.config import conf_dir
from sizewise.config.register import explain, to_run_config
from sizewise.config.training import default_learning_rate
from sizewise.errors import ConfigError, SizewiseError, SweepError
from sizewise.files import hash_text, key_text, parse_json
from sizewise.models.sources import PACKAGE, package_folder
from sizewise.record.identity import Identity, plain_config, run_identity

# Overrides of these keys do not change which jobs a command means.
_NOT_THE_GRID = ("hydra", "sweep.", "logger", "paths.")


def register_resolvers() -> None:
    """Register the resolvers that ``conf/hydra/layout`` uses (idempotent)."""
    folder = str(conf_dir().parent)
    if folder not in sys.path:  # for pkg://sweeps, whatever folder of that name the user has
        sys.path.append(folder)
    for name, function in (
        ("sizewise.mode", _mode),
        ("sizewise.slug", _slug),
        ("sizewise.run_dir", _run_dir),
        ("sizewise.sweep_dir", sweep_dir),
        ("sizewise.learning_rate", _learning_rate),
        ("sizewise.listed", _listed),
    ):
        OmegaConf.register_new_resolver(name, function, replace=True)


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_RAISING = ContextVar("raising", default=False)


@contextmanager
def errors_raised() -> Iterator[None]:
    """Let a program inside the block get the errors that end a command."""
    token = _RAISING.set(True)
    try:
        yield
    finally:
        _RAISING.reset(token)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn an error that sizewise raises on purpose, or a full disk, into one message and exit.

    Inside of ``errors_raised`` it is raised, a full disk as SweepError.
    """
    try:
        yield
    except SizewiseError as error:
        if _RAISING.get():
            raise
        sys.stderr.write(f"sizewise: {error}\n")
        raise SystemExit(1) from error
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        said = f"{error}. Nothing is lost: make room, then start it again."
        if _RAISING.get():
            raise SweepError(said) from error
        sys.stderr.write(f"sizewise: {said}\n")
        raise SystemExit(1) from error


def sweep_dir(*, _root_: DictConfig) -> str:
    """Return the directory of a multirun: the given one, else named by the command itself."""
    given = _root_.sweep.dir
    if given:
        return str(given)
    name = _root_.sweep.name or _choice(_root_) or "sweep"
    # Hydra's own sweepers ask again in every job, which no longer knows the whole command.
    ours = "sizewise" in str(OmegaConf.select(_root_, "hydra.sweeper._target_"))
    if ours and not _root_.sweep.name:
        name = f"{name}-{_command_hash(_root_)}"
    return str(Path(_root_.paths.sweeps) / name)


def make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK)
    except OSError as error:
        writable, reason = False, error.strerror or str(error)
    else:
        reason = "no permission to write"
    if not writable:
        raise SweepError(
            f"{path} cannot be written: {reason}. "
            "Set paths.outputs or hydra.run.dir (one run), or paths.sweeps or sweep.dir (several), "
            "to a folder you can write to."
        )


def _mode(*, _root_: DictConfig) -> str | None:
    return "MULTIRUN" if _root_.sweep.arms else None


def _listed(values: Any) -> str:
    """Return one value, or several, as an override writes them."""
    several = isinstance(values, list | ListConfig)
    return ",".join(str(value) for value in (values if several else [values]))


def _learning_rate(*, _root_: DictConfig) -> float:
    """Return the base's own suggestion, else what the rule says of width, method and batch."""
    given = _root_.model.get("suggested_lr")
    if given is not None:
        return float(given)
    trainer = _root_.trainer
    batch = trainer.batch_size * trainer.accumulate * trainer.devices * trainer.num_nodes
    adapter, encoder = _root_.lora.method != "full", _root_.model.family == "encoder"
    # A batch of 0 is refused where it is declared, and not as a rate of 0.
    return default_learning_rate(_width(_root_.model), adapter, max(batch, 1), encoder)


def _width(model: DictConfig) -> int | None:
    """Return the hidden size that the option names or a local folder says; None for others."""
    if model.get("architecture") is not None:
        return int(model.architecture.hidden_size)
    if OmegaConf.is_missing(model, "path"):
        return None
    place = str(model.path)
    folder = package_folder(place) if place.startswith(PACKAGE) else Path(place)
    path = folder / "config.json" if folder is not None else None
    if path is None or not path.is_file():
        return None
    try:
        said = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # refused with the file's name when the model is checked
    nodes = [said, said.get("text_config") or {}] if isinstance(said, dict) else []
    found = [node.get(key) for key in WIDTHS for node in nodes]
    return next((value for value in found if isinstance(value, int) and value > 0), None)


# How the config.json of a model calls it.
WIDTHS = ("hidden_size", "d_model", "n_embd")


def _slug(*, _root_: DictConfig) -> str:
    return _identity(_root_).slug


def _run_dir(*, _root_: DictConfig) -> str:
    path = Path(_root_.paths.outputs) / _identity(_root_).slug
    with exit_on_error():
        check_alone(_root_, list(_root_.hydra.overrides.task), str(_root_.hydra.job.config_name))
        # Hydra makes it a moment later, with a traceback where that fails.
        make_directory(path)
    return str(path)


def _identity(root: DictConfig) -> Identity:
    # Hydra asks before it makes the directory, so a wrong value leaves nothing behind.
    with exit_on_error():
        try:
            config = pinned(plain_config(root))
        except OmegaConfBaseException as error:
            raise ConfigError(explain(error)) from error
        to_run_config(config, check_types=False)
        return run_identity(config)


def _choice(root: DictConfig) -> str | None:
    choice = OmegaConf.select(root, "hydra.runtime.choices.sweep")
    return str(choice) if choice and choice != "null" else None


def _command_hash(root: DictConfig) -> str:
    config: dict[str, Any] = {
        "name": root.hydra.job.config_name,
        "arms": OmegaConf.to_container(root.sweep.arms, resolve=True),
        "overrides": sorted(
            text for text in root.hydra.overrides.task if not text.startswith(_NOT_THE_GRID)
        ),
    }
    tuning: Any = OmegaConf.to_container(root.sweep.tuning, resolve=True)
    if tuning["lr_factors"]:  # which learning rates there are is part of the grid
        config["tuning"] = {key: tuning[key] for key in ("lr_factors", "screen", "rung")}
    halving: Any = OmegaConf.to_container(root.sweep.halving, resolve=True)
    if halving["rungs"]:
        keys = ["rungs", "keep", "keep_each", *(["margin"] if halving["margin"] else [])]
        config["halving"] = {key: halving[key] for key in keys}
    return hash_text(key_text(config), 8)
