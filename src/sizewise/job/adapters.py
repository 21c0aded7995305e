"""An adapter that was trained elsewhere: whether it is asked for rightly, and on its own base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sizewise.config import ModelConfig, RunConfig
from sizewise.errors import ConfigError, ModelError
from sizewise.files import file_hash
from sizewise.models.adapter.attach import CONFIG, adapter_folder, cast_adapter, load_adapter
from sizewise.models.sources import HUB_ID, find_source, weight_files


def check_adapter(cfg: RunConfig) -> tuple[str, ...]:
    """Refuse an adapter that is not evaluated, or that belongs to another base.

    Only its configuration is read. Returns what a reader of the scores has to know.

    Raises:
        ConfigError: the job trains.
        ModelError: the adapter names another base, or is not there.
    """
    if cfg.adapter is None:
        return ()
    if cfg.stage != "evaluate":
        raise ConfigError(
            f"adapter={cfg.adapter!r} is only evaluated, and stage={cfg.stage} would leave it out. "
            "Set stage=evaluate (evaluate.py does), or leave adapter out."
        )
    if cfg.model.init != "pretrained":
        return ()
    path = adapter_folder(cfg.adapter) / CONFIG
    if not path.is_file():  # a fully trained model brings all weights
        return ()
    recorded = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    warning = compare_bases(recorded, cfg.model, cfg.adapter) if recorded else None
    return (warning,) if warning else ()


def compare_bases(recorded: str, model: ModelConfig, adapter: str) -> str | None:
    """Compare the base that an adapter names with the one that it is asked for on.

    Two hub ids are compared by name, two folders by their weights. A folder that is not here may
    have been moved, or be a copy of a hub's: that is said, unless it has the same name.

    Raises:
        ModelError: they are two different bases.
    """
    used = find_source(model.path, model.revision)
    if recorded.casefold() in (used.path.casefold(), model.path.casefold()):
        return None
    folder = Path(recorded).expanduser()
    both = folder.is_dir() and used.folder is not None
    if used.folder is not None and folder.is_dir():
        other = _weights(folder) != _weights(used.folder)
    else:
        other = bool(used.folder is None and HUB_ID.match(recorded))
    if other:
        raise ModelError(
            f"adapter={adapter!r} was trained on {recorded}, and model.path={model.path!r} is "
            "another base. Choose its own; if the two are one and the same, correct "
            f"base_model_name_or_path in its {CONFIG}."
        )
    if both or folder.name == Path(used.path).name:
        return None
    return (
        f"The adapter {adapter} names the base {recorded}; whether that is {model.path} could not "
        "be checked."
    )


def load_evaluated(base: Any, cfg: RunConfig) -> Any:
    """Load ``cfg.adapter`` onto ``base``, in the precision that the job asks for."""
    model = load_adapter(base, str(cfg.adapter))
    cast_adapter(model, cfg.trainer)
    return model


def _weights(folder: Path) -> list[str]:
    return [file_hash(file, sampled=True) for file in weight_files(folder)]
