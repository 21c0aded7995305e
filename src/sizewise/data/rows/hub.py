"""Rows of a data set on the Hugging Face hub (or of a local copy of one)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sizewise.config.data import SPLIT_COLUMN, SourceConfig
from sizewise.errors import DataError, UnreachableError, causes

log = logging.getLogger(__name__)

TIMEOUT = 10.0
"""Seconds to wait for the hub's first answer."""
SAVED = ("dataset_dict.json", "state.json")
"""What marks a folder that ``save_to_disk`` wrote: of several splits, or of one."""


def open_rows(source: SourceConfig) -> Callable[[], Iterator[dict[str, Any]]]:
    """Load the chosen split, or all of them, and return what reads the rows one by one.

    Each row's split is kept in ``__split__``.

    Raises:
        DataError: the data set cannot be reached, is gated, does not exist or has no such split.
    """
    import datasets

    if not Path(source.path).exists() and not reachable(source.path):
        go_offline()
    try:
        loaded = (
            load_saved(source)
            if is_saved(source.path)
            else datasets.load_dataset(
                source.path, name=source.subset, revision=source.revision, split=source.hub_split
            )
        )
    except DataError:
        raise
    except Exception as error:
        raise explained(source, error) from error
    parts = loaded.items() if source.hub_split is None else [(source.hub_split, loaded)]
    return lambda: ({**row, SPLIT_COLUMN: str(name)} for name, rows in parts for row in rows)


def is_saved(path: str) -> bool:
    """Whether a path is a folder that ``save_to_disk`` of the library wrote."""
    return any((Path(path).expanduser() / name).is_file() for name in SAVED)


def load_saved(source: SourceConfig) -> Any:
    """Load a folder of ``save_to_disk``: all its splits by name, or the chosen one.

    Raises:
        DataError: there is no such split.
    """
    import datasets

    loaded = datasets.load_from_disk(str(Path(source.path).expanduser()))
    if not isinstance(loaded, dict):
        return loaded if source.hub_split else {"train": loaded}
    if source.hub_split is None:
        return loaded
    if source.hub_split not in loaded:
        raise DataError(
            f"{source.path} has no split {source.hub_split!r}. There is: {', '.join(loaded)}."
        )
    return loaded[source.hub_split]


def reachable(path: str) -> bool:
    """Ask the hub once, without the minute of retries that loading would spend on a dead line."""
    import huggingface_hub

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    try:
        huggingface_hub.HfApi().dataset_info(path, timeout=TIMEOUT)
    except huggingface_hub.errors.HfHubHTTPError:
        return True
    except Exception as error:
        log.warning("The hub cannot be reached (%s): looking in the cache.", type(error).__name__)
        return False
    return True


def go_offline() -> None:
    """Use the cache alone for the rest of this process."""
    import datasets
    import huggingface_hub

    datasets.config.HF_HUB_OFFLINE = True
    huggingface_hub.constants.HF_HUB_OFFLINE = True


def explained(source: SourceConfig, error: BaseException) -> DataError:
    """The error that says what went wrong and what to do, from the chain of causes of ``error``."""
    names = {type(link).__name__ for link in causes(error)}
    text = " ".join(str(link) for link in causes(error))
    what = f"The data set {source.path!r} of the hub cannot be loaded: "
    if "GatedRepoError" in names or "gated" in text.lower():
        return DataError(
            f"{what}it is gated. Accept its terms on its page, then log in with `hf auth login`."
        )
    offline = ("ConnectionError", "OfflineModeIsEnabled", "ConnectTimeout", "ConnectError")
    if names.intersection(offline) or "Couldn't reach" in text:
        return UnreachableError(
            f"{what}the hub cannot be reached and there is no copy in the cache. Connect once, or "
            "point dataset.source.kind and dataset.source.path at a local csv, json, parquet or "
            "sqlite file with the same columns."
        )
    if names.intersection({"DatasetNotFoundError", "RepositoryNotFoundError"}):
        return DataError(
            f"{what}it does not exist or is private. Check dataset.source.path and "
            "dataset.source.revision; for a private one log in with `hf auth login`."
        )
    return DataError(
        f"{what}{type(error).__name__}: {(str(error).splitlines() or ['no details'])[0]}. "
        "Check dataset.source.subset, dataset.source.hub_split and dataset.source.revision."
    )
