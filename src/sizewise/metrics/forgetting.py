"""How well a model still predicts general text that has nothing to do with the task."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sizewise.data.tokens.table import Encoded
from sizewise.errors import ConfigError
from sizewise.files import hash_text
from sizewise.metrics.base import ExampleMetric
from sizewise.metrics.perplexity import bits_per_byte

if TYPE_CHECKING:
    from sizewise.record.predictions import Prediction

HELD_OUT_SEED = 90_001


class Passage(NamedTuple):
    """General text whose second part is predicted from its first."""

    first: str
    second: str


def read_passages(path: Path, count: int) -> list[Passage]:
    """Take paragraphs (parted by empty lines) of a UTF-8 text file and cut each in the middle.

    Raises:
        ConfigError: the file is missing or holds no paragraph of at least two words.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"metric.forgetting.path={str(path)!r} cannot be read: {error}"
        ) from error
    paragraphs = [part.split() for part in text.split("\n\n")]
    halves = [_cut(words) for words in paragraphs if len(words) > 1][:count]
    if not halves:
        raise ConfigError(f"metric.forgetting.path={str(path)!r} holds no paragraph of two words.")
    return halves


def embedded_passages(count: int) -> list[Passage]:
    """General questions and answers of the embedded generator, from a seed of their own."""
    from sizewise.embedded.general_text import PretrainingText

    exchanges = islice(iter(PretrainingText(seed=HELD_OUT_SEED)), count)
    return [Passage(exchange.question, f" {exchange.answer}") for exchange in exchanges]


def general_bits_per_byte(
    model: Any, tokenizer: Any, passages: Sequence[Passage], batch_size: int = 8
) -> float:
    """Bits per byte of the second parts given the first ones, as plain text without a template."""
    from sizewise.models.likelihood import answer_log_probs

    encoded = [
        Encoded(tokenizer(first).input_ids, tokenizer(second, add_special_tokens=False).input_ids)
        for first, second in passages
    ]
    padding = tokenizer.pad_token_id or 0
    nll = -sum(answer_log_probs(model, encoded, batch_size, padding))
    return bits_per_byte(nll, sum(len(passage.second.encode()) for passage in passages))


class Forgetting(ExampleMetric):
    """Bits per byte on general text; training has forgotten what tuned exceeds base by.

    ``path``: a text file with paragraphs; null: the embedded generator's general text, of which
    ``count`` passages are taken.
    """

    name = "forgetting"
    needs_likelihood = True
    higher_is_better = False

    def __init__(self, path: str | None = None, count: int = 64, batch_size: int = 8) -> None:
        super().__init__()
        self.path = path
        self.count = count
        self.batch_size = batch_size

    def check_settings(self) -> None:
        if self.path is not None:
            read_passages(Path(self.path), self.count)

    @cached_property
    def passages(self) -> list[Passage]:
        if self.path is None:
            return embedded_passages(self.count)
        return read_passages(Path(self.path), self.count)

    @property
    def observation(self) -> str:
        return hash_text(repr(self.passages), 16)

    def observe(self, model: Any, template: Any) -> dict[str, float]:
        tokenizer = template.tokenizer
        value = general_bits_per_byte(model, tokenizer, self.passages, self.batch_size)
        return {"bits_per_byte": value}

    def score(self, prediction: Prediction) -> dict[str, float]:
        return {}


def _cut(words: Sequence[str]) -> Passage:
    middle = len(words) // 2
    return Passage(" ".join(words[:middle]), " " + " ".join(words[middle:]))
