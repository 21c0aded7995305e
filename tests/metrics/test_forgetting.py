from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.tiny_models import build_tiny
from transformers import PreTrainedTokenizerFast

from sizewise.errors import ConfigError
from sizewise.metrics.forgetting import Forgetting, Passage, general_bits_per_byte, read_passages


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_ = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=bytes_)


PASSAGES = [Passage("The sky", " is blue today."), Passage("One two", " three four five")]


def test_bits_per_byte_of_second_halves(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build_tiny("llama", 256)
    nll, n_bytes = 0.0, 0
    for first, second in PASSAGES:
        start, rest = tokenizer(first).input_ids, tokenizer(second).input_ids
        with torch.no_grad():
            logits = model(torch.tensor([start + rest])).logits[0, len(start) - 1 : -1]
        nll -= float(logits.log_softmax(-1)[torch.arange(len(rest)), rest].sum())
        n_bytes += len(second.encode())
    expected = nll / math.log(2) / n_bytes
    assert general_bits_per_byte(model, tokenizer, PASSAGES) == pytest.approx(expected, rel=1e-5)
    assert 6 < expected < 10, "a random model of 256 tokens spends about 8 bits on a byte"


def test_a_changed_model_shows(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    path = tmp_path / "general.txt"
    path.write_text("A first paragraph of text.\n\nword\n\nA second one,\nover two lines.\n")
    metric = Forgetting(str(path), count=10)
    assert metric.passages[1] == Passage("A second one,", " over two lines.")
    assert len(metric.passages) == 2
    template = SimpleNamespace(tokenizer=tokenizer)
    values = [metric.observe(build_tiny("llama", 256, seed=s), template) for s in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    assert metric.observation != Forgetting(str(path), count=1).observation


def test_the_embedded_text_is_the_same_every_time() -> None:
    metric = Forgetting(count=5)
    assert len({passage.first + passage.second for passage in metric.passages}) == 5
    assert metric.observation == Forgetting(count=5).observation


def test_a_file_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_passages(tmp_path / "none.txt", 3)
    (tmp_path / "empty.txt").write_text("word\n\n")
    with pytest.raises(ConfigError, match="no paragraph"):
        read_passages(tmp_path / "empty.txt", 3)
