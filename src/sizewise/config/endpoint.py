"""Schema of a model behind a server (``model.family=endpoint``)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from sizewise.config.checks import above, at_least, one_of
from sizewise.errors import ConfigError

TOKEN_KEYS = ("max_tokens", "max_completion_tokens")
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass
class TokenPrices:
    """Prices of 1,000 tokens, in one currency; null: not known. ``cached`` null: as ``prompt``."""

    prompt: float | None = None
    cached: float | None = None
    answer: float | None = None

    def __post_init__(self) -> None:
        for key in ("prompt", "cached", "answer"):
            at_least(f"model.endpoint.prices.{key}", getattr(self, key), 0)
        if (self.prompt is None) != (self.answer is None):
            raise ConfigError(
                "model.endpoint.prices.prompt and model.endpoint.prices.answer belong together. "
                "Give both (0 for what costs nothing), or neither."
            )

    @property
    def known(self) -> bool:
        return self.prompt is not None and self.answer is not None

    def cost(self, prompt: int, answer: int, cached: int = 0) -> float:
        """Return what a request costs; ``cached`` of the ``prompt`` tokens were in a cache."""
        if self.prompt is None or self.answer is None:
            raise ConfigError("model.endpoint.prices are not known.")
        saved = self.prompt if self.cached is None else self.cached
        return ((prompt - cached) * self.prompt + cached * saved + answer * self.answer) / 1000


@dataclass
class EndpointConfig:
    """How a server is asked.

    ``api_key_env`` names the environment variable that holds the key; the key itself stands in no
    file. ``timeout``: seconds that one request may take; ``retry_seconds``: how long one example is
    asked again after a time-out, a lost connection, a 429 or a 5xx. ``concurrency`` requests are
    under way at once, the first ``alone`` of a data set one after another: latency is theirs.
    ``max_tokens_key`` is what the server calls the limit of an answer. ``log_probs``: ask for the
    answer's log-probabilities (confidence). ``extra`` is added to the body of every request, such
    as ``{reasoning_effort: low}``.
    """

    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 8
    alone: int = 20
    timeout: float = 120.0
    retry_seconds: float = 600.0
    requests_per_minute: int | None = None
    max_tokens_key: str = "max_tokens"
    log_probs: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    prices: TokenPrices = field(default_factory=TokenPrices)

    def __post_init__(self) -> None:
        for key in ("concurrency", "requests_per_minute"):
            at_least(f"model.endpoint.{key}", getattr(self, key), 1)
        at_least("model.endpoint.alone", self.alone, 0)
        above("model.endpoint.timeout", self.timeout, 0)
        at_least("model.endpoint.retry_seconds", self.retry_seconds, 0)
        one_of("model.endpoint.max_tokens_key", self.max_tokens_key, TOKEN_KEYS)
        check_variable(self.api_key_env, "model.endpoint.api_key_env")


def check_variable(name: str, key: str) -> None:
    """Raise ConfigError unless ``name`` can be that of an environment variable."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        # The value is not repeated: it may be the key itself.
        raise ConfigError(
            f"{key} is no name of an environment variable. Put the key into a variable and give "
            "its name, never the key itself."
        )


def check_base_url(url: str | None, key: str = "model.base_url") -> None:
    """Raise ConfigError unless ``url`` is a server's address that holds no password."""
    parts = urlsplit(url or "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"{key}={url!r} is no address of a server. Give one such as "
            "http://127.0.0.1:8000/v1 or https://api.openai.com/v1."
        )
    if parts.username or parts.password or parts.query:
        # Not repeated either: records and trackers would hold it.
        raise ConfigError(
            f"{key} holds a user, a password or a query. Keep secrets out of the address: "
            "the key is read from the variable that model.endpoint.api_key_env names."
        )


def is_local(url: str) -> bool:
    try:
        return urlsplit(url).hostname in LOCAL_HOSTS
    except ValueError:  # no address at all
        return False
