"""Schema of the groups ``model``, ``lora`` and ``quantization``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from sizewise.config.checks import above, at_least, one_of, within

FAMILIES = ("causal", "seq2seq", "classical")
INITS = ("pretrained", "random", "tiny_random")
DTYPES = ("auto", "float32", "bfloat16", "float16")
METHODS = ("none", "lora", "dora", "rslora", "full")


@dataclass
class VisionConfig:
    """Figures of a vision tower that comes with a multimodal base; it is never trained here."""

    hidden_size: int = MISSING
    intermediate_size: int = MISSING
    num_layers: int = MISSING
    num_heads: int = MISSING
    image_size: int = MISSING
    patch_size: int = MISSING


@dataclass
class ArchitectureConfig:
    """Figures of the published architecture, so that planning and dry runs need no download."""

    model_type: str = MISSING
    hidden_size: int = MISSING
    intermediate_size: int = MISSING
    num_layers: int = MISSING
    num_heads: int = MISSING
    num_kv_heads: int = MISSING
    head_dim: int = MISSING
    vocab_size: int = MISSING
    max_positions: int = MISSING
    tied_embeddings: bool = True
    attention_bias: bool = False
    decoder_layers: int | None = None
    vision: VisionConfig | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class LoraTargets:
    """Names of the linear modules that adapters may wrap, by architecture."""

    attention: list[str] = field(default_factory=list)
    all_linear: list[str] = field(default_factory=list)
    exclude: str | None = None


@dataclass
class ModelConfig:
    """A base model: where its weights are and how its prompts are written.

    ``path`` is a hub id, a local directory, ``embedded:NAME``, or ``classical:NAME`` (family
    ``classical``: a baseline without a language model, fitted on the training split).
    ``chat_template`` is None (the tokenizer's own), ``plain`` (for bases without one),
    or the path of a jinja file. ``template_kwargs`` reach the template in training and in
    inference alike (``enable_thinking``, ``date_string``). ``suggested_lr`` is the learning rate
    that AdamW takes unless ``optimizer.lr`` says otherwise: models of a few million weights need
    far larger steps than models of billions. ``content`` is a hash of local weights, tokenizer and
    template, filled in when a run is planned: a changed base makes another run.
    """

    name: str = MISSING
    path: str = MISSING
    revision: str | None = None
    family: str = "causal"
    init: str = "pretrained"
    tokenizer: str | None = None
    content: str | None = None
    chat_template: str | None = None
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    dtype: str = "auto"
    attn_implementation: str = "sdpa"
    trust_remote_code: bool = False
    gated: bool = False
    license: str | None = None
    suggested_lr: float = 2e-4
    lora_targets: LoraTargets = field(default_factory=LoraTargets)
    architecture: ArchitectureConfig | None = None

    def __post_init__(self) -> None:
        """Check the values that do not depend on another group."""
        one_of("model.family", self.family, FAMILIES)
        one_of("model.init", self.init, INITS)
        one_of("model.dtype", self.dtype, DTYPES)


@dataclass
class LoraConfig:
    """The adapter. ``alpha`` follows the rank (``alpha_ratio`` × r) unless it is given.

    ``target`` is ``all_linear``, ``attention`` or a comma-separated list of module names.
    ``fast``: lean forward and backward passes for plain adapters on unquantised bases (the same
    result, other random numbers in dropout); false: PEFT's own everywhere.
    """

    method: str = "lora"
    r: int = 8
    alpha: float | None = None
    alpha_ratio: float = 2.0
    dropout: float = 0.05
    target: str = "all_linear"
    init_seed: int | None = None
    fast: bool = True

    def __post_init__(self) -> None:
        """Check rank, scale and dropout."""
        one_of("lora.method", self.method, METHODS)
        at_least("lora.r", self.r, 1)
        above("lora.alpha", self.alpha, 0)
        above("lora.alpha_ratio", self.alpha_ratio, 0)
        within("lora.dropout", self.dropout, 0.0, 0.99)

    @property
    def trains(self) -> bool:
        """Whether a run with this adapter trains anything."""
        return self.method != "none"

    @property
    def is_adapter(self) -> bool:
        """Whether training happens in an adapter (and not in the base's own weights)."""
        return self.method in ("lora", "dora", "rslora")

    @property
    def effective_alpha(self) -> float:
        """The alpha that is used: the given one, else ``alpha_ratio`` × r."""
        return self.alpha if self.alpha is not None else self.alpha_ratio * self.r

    @property
    def scale(self) -> float:
        """Factor on B·A: alpha/r, or alpha/√r for rank-stabilised LoRA (Kalajdzievski 2023)."""
        return self.effective_alpha / (self.r**0.5 if self.method == "rslora" else self.r)


@dataclass
class QuantizationConfig:
    """How the frozen base is stored: ``none``, ``int8`` or ``nf4`` (bitsandbytes)."""

    method: str = "none"
    double_quant: bool = True
    compute_dtype: str = "auto"
    int8_threshold: float = 0.0

    def __post_init__(self) -> None:
        """Check method and dtype."""
        one_of("quantization.method", self.method, ("none", "int8", "nf4"))
        one_of("quantization.compute_dtype", self.compute_dtype, DTYPES)
        at_least("quantization.int8_threshold", self.int8_threshold, 0)
