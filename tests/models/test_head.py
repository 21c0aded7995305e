"""The answer-only head equals the full logits at answer positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, masking_utils

from sizewise.config.model import LoraConfig
from sizewise.data.batches.collate import collate_seq2seq, collate_training, on_device
from sizewise.data.tokens.table import Encoded
from sizewise.errors import ModelError
from sizewise.models.adapter.attach import attach_adapter, enable_checkpointing
from sizewise.models.architecture import BUILDERS, ENCODERS
from sizewise.models.head import answer_logits, answer_losses, answer_targets, answers_of
from sizewise.models.masks import SEARCHES, known


@torch.no_grad()
def full_logits(model: Any, batch: dict[str, torch.Tensor], seq2seq: bool) -> torch.Tensor:
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    labels = {"labels": batch["labels"]} if seq2seq else {}
    return model(**inputs, **labels).logits


@pytest.mark.parametrize("model_type", sorted(BUILDERS.keys() - ENCODERS))
def test_equals_the_full_forward(model_type: str, base_of_type: Any, batch: Any) -> None:
    base, seq2seq = base_of_type(model_type), model_type == "t5"
    reference = full_logits(base, batch, seq2seq).flatten(0, 1)[answers_of(batch, seq2seq)[0]]
    with torch.no_grad():
        logits_NV = answer_logits(base, batch)
    torch.testing.assert_close(logits_NV, reference, atol=1e-5, rtol=0)
    assert len(logits_NV) == len(answer_targets(batch, seq2seq)) == 36
    assert full_logits(base, batch, seq2seq).dim() == 3, "the head sees every row again"


def test_rows_predict_the_next_token(batch: Any) -> None:
    rows, targets = answers_of(batch)
    assert torch.equal(batch["labels"].flatten()[rows + 1], targets)
    assert (rows % batch["labels"].shape[1] < batch["labels"].shape[1] - 1).all()


def test_gemma2_keeps_its_soft_cap(base_of_type: Any, batch: Any) -> None:
    base = base_of_type("gemma2")
    with torch.no_grad():
        base.get_output_embeddings().weight.mul_(1e4)
        logits_NV = answer_logits(base, batch)
    cap = base.config.final_logit_softcapping
    assert cap == 30.0
    assert logits_NV.abs().max() <= cap
    assert logits_NV.abs().max() > 0.9 * cap


def test_the_head_runs_on_answer_rows_only(base_of_type: Any, batch: Any) -> None:
    base, seen = base_of_type("llama"), []
    handle = base.get_output_embeddings().register_forward_hook(
        lambda module, inputs, output: seen.append(tuple(inputs[0].shape))
    )
    with torch.no_grad():
        answer_logits(base, batch)
    handle.remove()
    assert seen == [(36, 32)]


def test_left_padding_gives_the_same_logits(base_of_type: Any, batch: Any) -> None:
    base = base_of_type("qwen3")
    left = {key: value.clone() for key, value in batch.items()}
    for key in left:
        left[key][1] = left[key][1].roll(6)
    with torch.no_grad():
        torch.testing.assert_close(
            answer_logits(base, left), answer_logits(base, batch), atol=1e-5, rtol=0
        )


def test_gemma3_takes_token_type_ids(base_of_type: Any, batch: Any) -> None:
    base = base_of_type("gemma3")
    typed = batch | {"token_type_ids": torch.zeros_like(batch["input_ids"])}
    with torch.no_grad():
        torch.testing.assert_close(
            answer_logits(base, typed), answer_logits(base, batch), atol=1e-5, rtol=0
        )
        answer_logits(base_of_type("llama"), typed)


def test_checkpointing_gives_the_same_gradients(
    base_of_type: Any, tiny: Any, batch: Any, plain_lora: Any
) -> None:
    grads = []
    for checkpointed in (False, True):
        model = attach_adapter(base_of_type("llama"), plain_lora, tiny("llama"), seed=1)
        if checkpointed:
            enable_checkpointing(model)
        model.train()
        answer_logits(model, batch).logsumexp(-1).sum().backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(grads[0]) == len(grads[1]) > 0
    for plain, recomputed in zip(*grads, strict=True):
        torch.testing.assert_close(recomputed, plain, atol=1e-5, rtol=1e-5)


def test_a_batch_without_answers_raises(base_of_type: Any, batch: Any) -> None:
    empty = batch | {"labels": torch.full_like(batch["labels"], -100)}
    with pytest.raises(ModelError, match="no answer token"):
        answer_logits(base_of_type("llama"), empty)


ITEMS = [Encoded([*range(3, 20)], [4, 5, 6]), Encoded([*range(3, 9)], [4, 2])]
FILLED = [Encoded([*range(3, 19)], [4, 5, 6]), Encoded([*range(3, 19)], [4, 2, 7])]
CHOOSING = {"gpt_oss"}  # which experts take which tokens has to be read


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("model_type", sorted(BUILDERS.keys() - ENCODERS - CHOOSING))
def test_a_pass_never_waits_for_values(
    model_type: str, dropout: float, base_of_type: Any, tiny: Any
) -> None:
    """The meta device has none: whatever reads one raises. On a GPU it would wait for it."""
    lora = LoraConfig(r=4, dropout=dropout)
    model = attach_adapter(base_of_type(model_type), lora, tiny(model_type), 0).train().to("meta")
    collate = collate_seq2seq if model_type == "t5" else collate_training
    batch = on_device(collate(ITEMS, 0, 5), "meta")
    loss, _, count = answer_losses(model, batch, summed)
    loss.backward()
    assert count == 5
    assert len(answer_logits(model, batch)) == 5
    for left_out in {"answer_rows", "padded"} & batch.keys():
        with pytest.raises((RuntimeError, NotImplementedError)):
            answer_losses(model, {k: v for k, v in batch.items() if k != left_out}, summed)


@pytest.mark.parametrize("items", [ITEMS, FILLED], ids=["padded", "filled"])
@pytest.mark.parametrize("model_type", ["t5", "bart", "marian"])
def test_an_encoder_and_a_decoder_never_wait_for_values(
    model_type: str, items: list[Encoded]
) -> None:
    """Some decoders make themselves a mask of ones, which is not looked at either."""
    sizes = dict.fromkeys(("d_model", "encoder_ffn_dim", "decoder_ffn_dim"), 16)
    sizes |= {"encoder_layers": 1, "decoder_layers": 1}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    if model_type == "t5":
        sizes = {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "num_heads": 2}
    config = AutoConfig.for_model(
        model_type, vocab_size=40, pad_token_id=0, decoder_start_token_id=0, **sizes
    )
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    batch = collate_seq2seq(items, 0, 5)
    assert batch["padded"] == (items is ITEMS)
    loss, _, _ = answer_losses(model, batch, summed)
    untold = {key: value for key, value in batch.items() if key != "padded"}
    torch.testing.assert_close(answer_losses(model, untold, summed)[0], loss)
    answer_losses(model.to("meta"), on_device(batch, "meta"), summed)[0].backward()


def test_what_is_told_is_asked_for_by_this_version_of_transformers() -> None:
    with known(packed=False):
        assert all(hasattr(masking_utils, name) for name in SEARCHES)


def summed(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    loss = torch.nn.functional.cross_entropy(logits_NV, targets_N, reduction="sum")
    return loss, loss.detach()


@pytest.mark.parametrize(
    "model_type",
    [
        "llama",
        "qwen2",
        "qwen3",
        "mistral",
        "gemma2",
        "gemma3",
        "gemma4",
        "phi3",
        "smollm3",
        "gpt_oss",
        "granitemoehybrid",
        "lfm2",
    ],
)
def test_what_the_last_layer_leaves_out_changes_neither_loss_nor_gradients(
    model_type: str, base_of_type: Any, tiny: Any, batch: Any
) -> None:
    config = LoraConfig(r=4, dropout=0.0)
    found = []
    for lean in (True, False):
        torch.manual_seed(0)
        model = attach_adapter(base_of_type(model_type), config, tiny(model_type), 0)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
        if lean:
            loss, _, _ = answer_losses(model, batch, summed)
        else:
            loss, _ = summed(answer_logits(model, batch), answer_targets(batch))
        loss.backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        found.append((loss.item(), grads))
    (loss, lean_grads), (reference, grads) = found
    assert loss == pytest.approx(reference, rel=1e-5)
    assert len(grads) > 4
    for name, expected in grads.items():
        torch.testing.assert_close(lean_grads[name], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "checkpointing", "rows"),
    [
        ({}, False, 36),
        ({"dropout": 0.1}, False, 36),
        ({"dropout": 0.1, "fast": False}, False, None),
        ({}, True, None),
    ],
)
def test_the_last_mlp_sees_answer_positions_where_that_is_exact(
    options: dict[str, Any], checkpointing: bool, rows: int | None, base_of_type: Any, tiny: Any,
    batch: Any,
) -> None:  # fmt: skip
    model = attach_adapter(base_of_type("llama"), LoraConfig(r=4, **options), tiny("llama"), 0)
    if checkpointing:
        enable_checkpointing(model)
    model.train()
    layers, seen = model.get_base_model().model.layers, []
    for layer in (layers[0], layers[-1]):
        down = layer.mlp.down_proj
        down.register_forward_hook(lambda m, args, out: seen.append(args[0].shape[:-1].numel()))
    before = vars(layers[-1].mlp).get("forward")
    loss, _, _ = answer_losses(model, batch, summed)
    loss.backward()
    every = batch["input_ids"].numel()
    assert seen[:2] == [every, rows or every]
    assert vars(layers[-1].mlp).get("forward") is before, "as it was"


def test_a_convolution_over_positions_needs_all_of_them(base_of_type: Any, batch: Any) -> None:
    base, seen = base_of_type("llama"), []
    last = base.model.layers[-1]
    last.mixing = torch.nn.Conv1d(4, 4, 3)
    last.mlp.register_forward_hook(lambda m, args, out: seen.append(args[0].shape[:-1].numel()))
    answer_losses(base, batch, summed)
    del last.mixing
    assert seen == [batch["input_ids"].numel()]
