"""Building: packing, the optimiser, and two short builds that end in the same bytes."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from tests.training.jobs import SERVER
from tools.embedded_models import build as building
from tools.embedded_models.architecture import RUNGS, new_model
from tools.embedded_models.build import build, file_hashes, read_manifest
from tools.embedded_models.pretraining import (
    ROW_LENGTH,
    Muon,
    encode,
    orthogonalise,
    packed_batches,
    weighted_loss,
)
from tools.embedded_models.tokenizer import load_tokenizer
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from sizewise.embedded.general_text import PretrainingText
from sizewise.models.sources import embedded_model_path


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return load_tokenizer(embedded_model_path("nano"))


def test_two_short_builds_are_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in a fork, the other in a new interpreter, where texts have other hashes."""
    monkeypatch.setattr(building, "TOKENIZER_EXCHANGES", 800)
    tiny = {"hidden": 16, "intermediate": 32, "layers": 1, "heads": 2}
    rungs = {"nano": replace(RUNGS["nano"], **tiny, steps=3, contrast_steps=2)}
    first, second = tmp_path / "first", tmp_path / "second"
    with monkeypatch.context() as patched:
        patched.setattr(multiprocessing, "get_context", lambda _: SERVER)
        build(first, rungs, jobs=1)
    build(second, rungs, jobs=1)
    assert file_hashes(first) == file_hashes(second)
    record = read_manifest(first)["models"]["nano"]
    assert record == read_manifest(second)["models"]["nano"]
    assert record["steps"] == 3
    assert record["final_loss_nats"] > 0
    assert record["contrast_steps"] == 2
    assert [step for step, _ in record["loss_curve"]] == [3, 5]
    assert record["tokens_seen"] == (3 + 2) * 16 * ROW_LENGTH


def test_encoding_is_that_of_the_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    for exchange in islice(PretrainingText(), 20):
        turns = [
            {"role": "user", "content": exchange.question},
            {"role": "assistant", "content": exchange.answer},
        ]
        rendered = tokenizer.apply_chat_template(turns, tokenize=False)
        ids, prompt = encode(exchange, tokenizer)
        assert tokenizer.decode(ids) == rendered
        assert tokenizer.decode(ids[prompt:]) == exchange.answer + tokenizer.eos_token


def test_batches_are_almost_full(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = next(packed_batches(iter(PretrainingText()), tokenizer, 8, 0.1))
    assert batch.tokens.shape == (8, ROW_LENGTH)
    assert (batch.weights > 0).float().mean() > 0.9


@torch.no_grad()
def test_packed_loss_is_that_of_the_single_exchanges(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    model = new_model(RUNGS["nano"], tokenizer.pad_token_id, tokenizer.eos_token_id).eval()
    exchanges = list(islice(PretrainingText(), 200))
    batch = next(packed_batches(iter(exchanges), tokenizer, 1, 0.5))
    total = weight = 0.0
    starts = (batch.positions[0] == 0) & (batch.tokens[0] != tokenizer.pad_token_id)
    found = starts.nonzero().flatten().tolist()
    assert len(found) > 1
    encoded = {tuple(ids): prompt for ids, prompt in (encode(e, tokenizer) for e in exchanges)}
    for ids, prompt in encoded.items():
        if not any(batch.tokens[0, s : s + len(ids)].tolist() == list(ids) for s in found):
            continue
        tokens = torch.tensor([ids])
        losses = functional.cross_entropy(
            model(tokens).logits[0, :-1], tokens[0, 1:], reduction="none"
        )
        weights = torch.full_like(losses, 0.5)
        weights[prompt - 1 :] = 1.0
        total += float((losses * weights).sum())
        weight += float(weights.sum())
    assert weight == pytest.approx(float(batch.weights.sum()))
    assert float(weighted_loss(model, batch)) == pytest.approx(total / weight, abs=1e-5)


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_orthogonalise_evens_out_the_singular_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_muon_fits_a_matrix() -> None:
    torch.manual_seed(0)
    target = torch.randn(8, 8)
    matrix = torch.nn.Parameter(torch.zeros(8, 8))
    optimizer = Muon([matrix], lr=0.05)
    first = float((matrix.detach() - target).square().mean())
    for _ in range(200):
        optimizer.zero_grad()
        (matrix - target).square().mean().backward()
        optimizer.step()
    assert float((matrix - target).square().mean()) < 0.05 * first
