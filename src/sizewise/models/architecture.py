"""The transformers config of a base without weights: from published figures or config.json."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sizewise.config.model import ArchitectureConfig, ModelConfig, VisionConfig
from sizewise.errors import ModelError
from sizewise.models.sources import Source, find_source, unusable
from sizewise.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


# Classes whose config takes `attention_bias`; Qwen2's biases on q, k and v are built in.
BIAS_OPTION = ("llama", "gemma", "gemma2", "qwen3", "gpt_oss")
# transformers' own mark of a base that classifies texts; here every base of family ``encoder``.
CLASSIFIES = "single_label_classification"


def to_transformers_config(figures: ArchitectureConfig) -> PretrainedConfig:
    """Build the config object; ``figures.extra`` reaches its constructor as it is.

    Raises:
        ModelError: the architecture is not among those whose figures we know how to read.
    """
    builder = BUILDERS.get(figures.model_type)
    if builder is None:
        raise ModelError(
            f"model.architecture.model_type={figures.model_type!r} has no figures reader. "
            f"Known: {', '.join(BUILDERS)}. Leave model.architecture out for any other model: "
            "its own config.json is read then."
        )
    return builder(figures)


def _decoder_values(figures: ArchitectureConfig) -> dict[str, Any]:
    values = {
        "vocab_size": figures.vocab_size,
        "hidden_size": figures.hidden_size,
        "intermediate_size": figures.intermediate_size,
        "num_hidden_layers": figures.num_layers,
        "num_attention_heads": figures.num_heads,
        "num_key_value_heads": figures.num_kv_heads,
        "head_dim": figures.head_dim,
        "max_position_embeddings": figures.max_positions,
        "tie_word_embeddings": figures.tied_embeddings,
    }
    if figures.model_type in BIAS_OPTION:
        values["attention_bias"] = figures.attention_bias
    return values | figures.extra


def _decoder(figures: ArchitectureConfig) -> PretrainedConfig:
    from transformers import CONFIG_MAPPING

    config: PretrainedConfig = CONFIG_MAPPING[figures.model_type](**_decoder_values(figures))
    return config


def _gemma3(figures: ArchitectureConfig) -> PretrainedConfig:
    from transformers import Gemma3Config

    if figures.vision is None:
        raise ModelError(
            "model.architecture.vision is missing: gemma3 is multimodal. "
            "Give its figures, or set model.architecture.model_type=gemma3_text."
        )
    extra = dict(figures.extra)
    image = {key: extra.pop(key) for key in ("mm_tokens_per_image",) if key in extra}
    text = _decoder_values(figures) | {"model_type": "gemma3_text"}
    text = {key: value for key, value in text.items() if key not in image}
    vision = _vision_values(figures.vision)
    return Gemma3Config(text_config=text, vision_config=vision, **image)


def _gemma4(figures: ArchitectureConfig) -> PretrainedConfig:
    """Build a small Gemma 4: text, pictures and sound, whose figures are ``extra.audio``."""
    from transformers import Gemma4AudioConfig, Gemma4Config, Gemma4VisionConfig

    vision = figures.vision
    if vision is None:
        raise ModelError(
            "model.architecture.vision is missing: gemma4 is multimodal. Give its figures."
        )
    text = _decoder_values(figures) | {"model_type": "gemma4_text"}
    audio = text.pop("audio", None)
    pictures = {
        "hidden_size": vision.hidden_size,
        "intermediate_size": vision.intermediate_size,
        "num_hidden_layers": vision.num_layers,
        "num_attention_heads": vision.num_heads,
        "num_key_value_heads": vision.num_heads,
        "head_dim": vision.hidden_size // vision.num_heads,
        "patch_size": vision.patch_size,
        "position_embedding_size": vision.image_size // vision.patch_size,
        "use_clipped_linears": True,
    }
    sound = Gemma4AudioConfig(**audio) if audio is not None else None
    return Gemma4Config(
        text_config=text, vision_config=Gemma4VisionConfig(**pictures), audio_config=sound
    )


def _vision_values(vision: VisionConfig) -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model",
        "vision_use_head": False,
        "hidden_size": vision.hidden_size,
        "intermediate_size": vision.intermediate_size,
        "num_hidden_layers": vision.num_layers,
        "num_attention_heads": vision.num_heads,
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
    }


def _encoder(figures: ArchitectureConfig) -> PretrainedConfig:
    from transformers import CONFIG_MAPPING

    values = {
        "vocab_size": figures.vocab_size,
        "hidden_size": figures.hidden_size,
        "intermediate_size": figures.intermediate_size,
        "num_hidden_layers": figures.num_layers,
        "num_attention_heads": figures.num_heads,
        "max_position_embeddings": figures.max_positions,
        "problem_type": CLASSIFIES,
    }
    config: PretrainedConfig = CONFIG_MAPPING[figures.model_type](**(values | figures.extra))
    return config


def _t5(figures: ArchitectureConfig) -> PretrainedConfig:
    from transformers import T5Config

    return T5Config(
        vocab_size=figures.vocab_size,
        d_model=figures.hidden_size,
        d_kv=figures.head_dim,
        d_ff=figures.intermediate_size,
        num_layers=figures.num_layers,
        num_decoder_layers=figures.decoder_layers or figures.num_layers,
        num_heads=figures.num_heads,
        n_positions=figures.max_positions,
        tie_word_embeddings=figures.tied_embeddings,
        **({"decoder_start_token_id": 0} | figures.extra),
    )


def untie_t5_head(model: PreTrainedModel) -> None:
    """Give a newly built T5 v1.1 (FLAN-T5) its own output head.

    transformers ties the head of every T5 it builds; published v1.1 weights have one of their own.
    These are the ones whose decoder output is not scaled.
    """
    config = model.config
    if config.model_type == "t5" and not config.scale_decoder_outputs:
        shared = model.get_input_embeddings().weight
        head = torch.empty_like(shared)
        if not head.is_meta:
            head.normal_(std=config.d_model**-0.5)
        model.get_output_embeddings().weight = torch.nn.Parameter(head)


ENCODERS = ("bert", "roberta", "deberta-v2", "modernbert")
# fmt: off
BUILDERS: dict[str, Callable[[ArchitectureConfig], PretrainedConfig]] = {
    **dict.fromkeys(
        (
            "llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma2", "gemma3_text",
            "smollm3", "gpt_oss", "lfm2", "granitemoehybrid",
        ),
        _decoder,
    ),
    **dict.fromkeys(ENCODERS, _encoder),
    "gemma3": _gemma3,
    "gemma4": _gemma4,
    "t5": _t5,
}
# fmt: on


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
            **source.options,
        )
    except Exception as error:  # a file of another form fails anywhere in the library
        raise unusable(source, f"The config of {source.place!r} cannot be read", error) from error
    check_family(config, model)
    config.problem_type = CLASSIFIES if model.family == "encoder" else None
    return config


def check_family(config: PretrainedConfig, model: ModelConfig) -> None:
    """Raise ModelError if the architecture is not of ``model.family``."""
    actual = family_of(config)
    if actual == model.family:
        return
    said = f"model.family={model.family} but {model.path!r} ({config.model_type}) is {actual}. "
    if actual == "encoder":
        said = (
            f"{model.path!r} ({config.model_type}) is an encoder, which reads answers in both "
            "directions and cannot write them. Choose a causal or encoder-decoder model; or, for "
            "answers that are classes, "
        )
        raise ModelError(f"{said}set model.family=encoder (model=encoder model.path=…).")
    raise ModelError(f"{said}Set model.family={actual}.")


def family_of(config: PretrainedConfig) -> str:
    """Return ``causal``, ``seq2seq`` or ``encoder``."""
    if config.is_encoder_decoder:
        return "seq2seq"
    decoder = getattr(config, "is_decoder", False)
    return "encoder" if reads_both_ways(config) and not decoder else "causal"


def reads_both_ways(config: PretrainedConfig) -> bool:
    """Whether the architecture is one of masked language models."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def positions_depend_on_length(model: nn.Module) -> bool:
    """Whether a row is read otherwise beside a longer one (RoPE scaled by the length)."""
    kinds = (getattr(module, "rope_type", "") for module in model.modules())
    return any("longrope" in str(kind) or "dynamic" in str(kind) for kind in kinds)


def model_config(model: ModelConfig) -> PretrainedConfig:
    """Return the config of the real-sized base; no weights and, with figures, no network.

    With ``model.added_tokens`` its vocabulary is as large as the tokenizer's.
    """
    if model.architecture is not None:
        config = to_transformers_config(model.architecture)
    else:
        config = load_config(find_source(model.path, model.revision, weights=False), model)
    if model.added_tokens:
        text = config.get_text_config()
        text.vocab_size = max(text.vocab_size, len(load_tokenizer(model)))
    return config


def check_vocabulary(config: PretrainedConfig, model: ModelConfig) -> None:
    """Raise ModelError if the tokenizer writes ids for which the embedding has no row.

    Special tokens that no template writes may lie beyond it (Gemma 3's image token does), and
    random models of a tiny size are made for their tokenizer.
    """
    if model.init == "tiny_random":
        return
    rows, tokenizer = config.get_text_config().vocab_size, load_tokenizer(model)
    beyond = {token: i for token, i in tokenizer.get_vocab().items() if i >= rows}
    written = str(tokenizer.chat_template)
    named = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token}
    for added in tokenizer.added_tokens_decoder.values():
        if added.special and added.content not in named and added.content not in written:
            beyond.pop(added.content, None)
    if beyond:
        token, last = max(beyond.items(), key=lambda item: item[1])
        raise ModelError(
            f"The tokenizer of {model.name} has the id {last} ({token!r}), and the embedding of "
            f"{model.path} has {rows} rows. Choose the model's own tokenizer; or name new tokens, "
            f"whose rows are then trained, in model.added_tokens=[{token!r},…]."
        )


def auto_class(config: PretrainedConfig) -> Any:
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoModelForSequenceClassification,
    )

    if config.problem_type == CLASSIFIES:
        return AutoModelForSequenceClassification
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def name_classes(config: PretrainedConfig, classes: Sequence[str]) -> None:
    """Write the answers of an encoder's head, one row each, into its config."""
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: number for number, name in enumerate(classes)}


def meta_model(config: PretrainedConfig, **options: Any) -> PreTrainedModel:
    """Build the model on the meta device: names and shapes, no memory."""
    with torch.device("meta"):
        model: PreTrainedModel = auto_class(config).from_config(config, **options)
    untie_t5_head(model)
    return model


def context_length(model: ModelConfig) -> int | None:
    """Return how many tokens the base has positions for; None for relative positions (T5)."""
    config = model_config(model)
    if config.is_encoder_decoder:
        return None
    positions: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return positions
