"""The transformers config of a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sizewise.config.model import ModelConfig
from sizewise.errors import ModelError
from sizewise.models.sources import Source

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def load_config(source: Source, model: ModelConfig) -> PretrainedConfig:
    """Read the transformers config of a source.

    Raises:
        ModelError: it is unreadable, of an unknown architecture, or of the other family.
    """
    from transformers import AutoConfig

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            source.path,
            revision=source.revision,
            local_files_only=source.local_only,
            trust_remote_code=model.trust_remote_code,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"The config of {source.path!r} cannot be read: {error}") from error
    check_family(config, model)
    return config


def check_family(config: PretrainedConfig, model: ModelConfig) -> None:
    """Raise ModelError if the architecture is not of ``model.family``."""
    actual = "seq2seq" if config.is_encoder_decoder else "causal"
    if actual != model.family:
        raise ModelError(
            f"model.family={model.family} but {model.path!r} ({config.model_type}) is {actual}. "
            f"Set model.family={actual}."
        )
