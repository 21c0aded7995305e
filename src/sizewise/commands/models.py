"""What a command needs of a model."""

from __future__ import annotations

from sizewise.config import ModelConfig
from sizewise.errors import ConfigError

CLASSICAL = "classical"


def check_language_model(model: ModelConfig, what: str) -> None:
    """Raise ConfigError for a baseline, which has neither tokens nor weights."""
    if model.family == CLASSICAL:
        raise ConfigError(
            f"{model.name} is a baseline without a language model: there is nothing to {what}. "
            "Choose another model."
        )
