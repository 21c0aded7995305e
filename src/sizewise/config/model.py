"""Schema of the groups ``model``, ``lora`` and ``quantization``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from sizewise.config.checks import above, at_least, is_regex, is_seed, one_of, within
from sizewise.config.endpoint import EndpointConfig
from sizewise.errors import ConfigError

ENCODER, CLASSICAL = "encoder", "classical"
FAMILIES = ("causal", "seq2seq", ENCODER, CLASSICAL, "endpoint")
# Of these nothing is loaded: a baseline is fitted, and an endpoint is asked.
WITHOUT_WEIGHTS = (CLASSICAL, "endpoint")
# Of these no likelihood of a text is known; an encoder chooses a class.
WITHOUT_LIKELIHOODS = (*WITHOUT_WEIGHTS, ENCODER)
INITS = ("pretrained", "random", "tiny_random")
DTYPES = ("auto", "float32", "bfloat16", "float16")
METHODS = ("none", "lora", "dora", "rslora", "full")
ALPHA = 32.0


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

    def __post_init__(self) -> None:
        """Check the expression."""
        is_regex("model.lora_targets.exclude", self.exclude)


@dataclass
class ModelConfig:
    """A base model: where its weights are and how its prompts are written.

    ``path`` is a hub id, a local directory, a GGUF file, ``embedded:NAME``, ``package:NAME/FOLDER``
    (a folder of an installed Python package), or ``classical:NAME`` (family ``classical``: a
    baseline without a language model, fitted on the training split). Family ``encoder``: a head
    over the different training answers is put on the base and trained with it (``lora=full``, or an
    adapter).
    ``chat_template`` is None (the tokenizer's own), ``plain`` (for bases without one),
    or the path of a jinja file. ``template_kwargs`` reach the template in training and in
    inference alike (``enable_thinking``, ``date_string``). ``suggested_lr`` is the learning rate
    that AdamW takes unless ``optimizer.lr`` says otherwise; null: by the rule of
    ``config.training.default_learning_rate``. ``content`` is a hash of local weights, tokenizer and
    template, filled in when a run is planned: a changed base makes another run. ``added_tokens``
    are put into the vocabulary where it lacks them; the embedding grows with it, and an adapter
    trains and keeps their rows. ``device_map``: null (one device), or ``auto``, which spreads the
    base over all GPUs that the job sees, to answer.

    Of a model behind a server (family ``endpoint``) ``path`` is its name there and ``base_url`` the
    server's address; ``budget`` is money that one run never passes, restarts included, and
    ``parameters`` its size where that is known.
    """

    name: str = MISSING
    path: str = MISSING
    revision: str | None = None
    family: str = "causal"
    init: str = "pretrained"
    tokenizer: str | None = None
    added_tokens: list[str] = field(default_factory=list)
    content: str | None = None
    chat_template: str | None = None
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    dtype: str = "auto"
    attn_implementation: str = "sdpa"
    trust_remote_code: bool = False
    device_map: str | None = None
    gated: bool = False
    license: str | None = None
    suggested_lr: float | None = None
    lora_targets: LoraTargets = field(default_factory=LoraTargets)
    architecture: ArchitectureConfig | None = None
    base_url: str | None = None
    budget: float | None = None
    parameters: int | None = None
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)

    def __post_init__(self) -> None:
        above("model.budget", self.budget, 0)
        at_least("model.parameters", self.parameters, 1)
        one_of("model.family", self.family, FAMILIES)
        one_of("model.init", self.init, INITS)
        one_of("model.dtype", self.dtype, DTYPES)
        if self.device_map is not None:
            one_of("model.device_map", self.device_map, ("auto",))
        if not all(token.strip() for token in self.added_tokens):
            raise ConfigError("model.added_tokens holds an empty token. Leave it out.")

    @property
    def has_weights(self) -> bool:
        """Whether there are weights to load on this machine."""
        return self.family not in WITHOUT_WEIGHTS


@dataclass
class LoraConfig:
    """The adapter. ``alpha`` is 32 unless it is given, so that all ranks share a learning rate:
    the update is scaled by alpha/r, and the best rate then hardly moves with the rank (Schulman
    et al., "LoRA Without Regret", 2025; arXiv 2602.06204). With ``alpha_ratio`` it is
    ``alpha_ratio`` × r instead, and another rank is another step size.

    ``target`` is ``all_linear``, ``attention``, a list of module names (``[q_proj,v_proj]``) or
    ``regex:PATTERN``, which has to match whole names (``regex:.*layers\\.[0-3]\\..*_proj``). In a
    mixture of experts ``all_linear`` covers the stacked weights of the experts too, which take no
    dropout (and no DoRA, with which they are left out). ``layers_to_transform`` are the numbers of
    the only layers to adapt. ``rank_pattern`` and ``alpha_pattern`` give modules another rank or
    alpha by the ends of their names, as regular expressions (``+lora.rank_pattern={down_proj:4}``);
    alpha_ratio counts for such a rank as for ``r``. ``modules_to_save`` are trained whole and
    stored with the adapter, such as ``[embed_tokens,lm_head]``.
    ``fast``: lean forward and backward passes for plain adapters, also over NF4 (the same result,
    other random numbers in dropout); false: PEFT's own everywhere.
    """

    method: str = "lora"
    r: int = 8
    alpha: float | None = None
    alpha_ratio: float | None = None
    dropout: float = 0.0
    target: Any = "all_linear"
    init_seed: int | None = None
    fast: bool = True
    layers_to_transform: list[int] | None = None
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    modules_to_save: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check rank, scale and dropout; a list of targets becomes the text that means the same."""
        if isinstance(self.target, (list, tuple)):
            self.target = ",".join(map(str, self.target))
        if not isinstance(self.target, str) or not self.target:
            raise ConfigError(
                f"lora.target={self.target!r} names no modules. Give all_linear, attention, names "
                "such as 'lora.target=[q_proj,v_proj]', or regex:PATTERN."
            )
        if self.layers_to_transform == []:
            raise ConfigError(
                "lora.layers_to_transform=[] adapts no layer. Give their numbers, or null for all."
            )
        if not all(name.strip() for name in self.modules_to_save):
            raise ConfigError("lora.modules_to_save holds an empty name. Leave it out.")
        for key in ("rank_pattern", "alpha_pattern"):
            for name, value in getattr(self, key).items():
                is_regex(f"lora.{key}", name)
                above(f"lora.{key}.{name}", value, 0)
        is_seed("lora.init_seed", self.init_seed)
        one_of("lora.method", self.method, METHODS)
        at_least("lora.r", self.r, 1)
        above("lora.alpha", self.alpha, 0)
        above("lora.alpha_ratio", self.alpha_ratio, 0)
        within("lora.dropout", self.dropout, 0.0, 0.99)

    @property
    def trains(self) -> bool:
        return self.method != "none"

    @property
    def is_adapter(self) -> bool:
        """Whether training happens in an adapter (and not in the base's own weights)."""
        return self.method in ("lora", "dora", "rslora")

    @property
    def effective_alpha(self) -> float:
        if self.alpha is not None:
            return self.alpha
        return ALPHA if self.alpha_ratio is None else self.alpha_ratio * self.r

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
        one_of("quantization.method", self.method, ("none", "int8", "nf4"))
        one_of("quantization.compute_dtype", self.compute_dtype, DTYPES)
        at_least("quantization.int8_threshold", self.int8_threshold, 0)
