"""Schema of the groups ``generation``, ``logger`` and of the node ``evaluation``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sizewise.config.checks import above, at_least, is_seed, one_of, within
from sizewise.config.endpoint import check_base_url, check_variable

CHOICE = "choice"


@dataclass
class GenerationConfig:
    """Decoding. Greedy unless ``do_sample``; nothing of the model's own defaults leaks in."""

    max_new_tokens: int = 64
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        at_least("generation.max_new_tokens", self.max_new_tokens, 1)
        above("generation.temperature", self.temperature, 0)
        within("generation.top_p", self.top_p, 1e-6, 1.0)
        at_least("generation.top_k", self.top_k, 0)
        above("generation.repetition_penalty", self.repetition_penalty, 0)
        is_seed("generation.seed", self.seed)


@dataclass
class ServerConfig:
    """The server that answers with ``evaluation.engine=server``: one that runs, or one to start.

    ``base_url`` is the address of one that holds the base (it ends in ``/v1``). ``command`` starts
    one for the time of the answers: ``{model}`` is the base's folder or hub id, ``{port}`` a free
    port, ``{adapter}`` the adapter's folder, and what stands in square brackets is left out for the
    untouched base: ``vllm serve {model} --port {port} [--enable-lora --lora-modules
    tuned={adapter}]``. ``adapter_name``: what the command calls the adapter. ``start_seconds``: how
    long it may take to come up; ``timeout``: how long one answer may; ``concurrency``: requests
    under way at once. ``api_key_env`` names the environment variable of a key that the server
    wants; null: it is sent none.
    """

    base_url: str | None = None
    command: str | None = None
    api_key_env: str | None = None
    adapter_name: str = "tuned"
    start_seconds: float = 900.0
    timeout: float = 600.0
    concurrency: int = 64

    def __post_init__(self) -> None:
        above("evaluation.server.start_seconds", self.start_seconds, 0)
        above("evaluation.server.timeout", self.timeout, 0)
        at_least("evaluation.server.concurrency", self.concurrency, 1)
        if self.base_url is not None:
            check_base_url(self.base_url, "evaluation.server.base_url")
        if self.api_key_env is not None:
            check_variable(self.api_key_env, "evaluation.server.api_key_env")


@dataclass
class EvaluationConfig:
    """How the test split is scored.

    ``batch_size`` null: the trainer's. ``zero_shot``: also score the untouched base (cached, see
    ``paths.cache``). ``objective``: what ``train.py`` returns, always from the validation split:
    ``val_loss`` (mean loss per answer token) or ``primary`` (the data set's primary score).
    ``answer_validation``: which models answer the validation split too, so that wordings, readings
    and models are chosen there and not on the test split: ``none``, ``base`` (the untouched one),
    ``both``, or ``auto`` (both where the primary score is one of labels or codes, else none; a
    server, which may be paid by the answer, is asked only where ``base`` or ``both`` says so).
    ``candidates``: answers whose likelihoods are compared beside free generation: ``train`` (all
    different training answers), ``labels`` (those of all splits), a text file with one per line,
    null (none), or ``auto`` (``train`` where a metric is one of labels or codes and training has no
    more than 512 different answers, else none). ``candidates_sha256`` is the content of that file
    (16 digits); it is filled in when a job is planned, and another content is refused.
    ``candidates_on`` null: candidates are compared wherever a model answers; ``choice``: only where
    the reading that counts is chosen, by untouched models on the validation split. That costs a
    fraction, and the report says so if another reading would have been better for them.
    ``timed_answers``: test prompts that are answered once more, alone and in a batch, untouched and
    tuned model in turns, to say how fast both are; 0: none, and drafted answers (greedy ones in
    fp32), like those that jobs of a pack gave together, are not timed at all. ``engine`` null:
    transformers, in this process; ``server``: a local vLLM or SGLang (``server``), whose greedy
    answers to 64 examples have to be those of transformers; it gives no likelihoods.
    ``warmup_batches`` are answered before the first where every answer is timed as it is made
    (sampled ones, and those not in fp32).
    """

    batch_size: int | None = None
    zero_shot: bool = True
    objective: str = "val_loss"
    answer_validation: str = "auto"
    candidates: str | None = "auto"
    candidates_sha256: str | None = None
    candidates_on: str | None = None
    warmup_batches: int = 1
    retries: int = 3
    timed_answers: int = 4
    engine: str | None = None
    server: ServerConfig = field(default_factory=ServerConfig)

    def __post_init__(self) -> None:
        if self.engine is not None:
            one_of("evaluation.engine", self.engine, ("server",))
        at_least("evaluation.timed_answers", self.timed_answers, 0)
        at_least("evaluation.batch_size", self.batch_size, 1)
        at_least("evaluation.warmup_batches", self.warmup_batches, 0)
        at_least("evaluation.retries", self.retries, 0)
        one_of("evaluation.objective", self.objective, ("val_loss", "primary"))
        if self.candidates_on is not None:
            one_of("evaluation.candidates_on", self.candidates_on, (CHOICE,))
        allowed = ("auto", "none", "base", "both")
        one_of("evaluation.answer_validation", self.answer_validation, allowed)


@dataclass
class LoggerConfig:
    """Experiment trackers. Texts of examples leave the machine only with ``log_examples``.

    ``backends`` maps a name to a ``_target_`` node; every chosen option adds one.
    """

    log_examples: bool = False
    backends: dict[str, Any] = field(default_factory=dict)
