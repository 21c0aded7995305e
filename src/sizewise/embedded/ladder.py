"""The shipped models by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from sizewise.errors import ModelError

EMBEDDED_MODELS = ("nano", "micro", "mini")


def models_folder() -> Path:
    return Path(str(files("sizewise.embedded"))) / "models"


def embedded_model_path(name: str) -> Path:
    """Folder of a shipped model, loadable with `from_pretrained`.

    Raises ModelError for an unknown name, or when the weights are not installed.
    """
    if name not in EMBEDDED_MODELS:
        options = ", ".join(EMBEDDED_MODELS)
        raise ModelError(f"There is no embedded model {name!r}; the options are {options}.")
    folder = models_folder() / name
    if not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"The weights of the embedded model {name!r} are missing in {folder}: reinstall the "
            "package, or rebuild them with `python -m tools.embedded_models.build`."
        )
    return folder
