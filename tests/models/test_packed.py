"""Adapters that share a pass have the losses and gradients that each would have alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from tests.tiny_models import build_tiny

from sizewise.config.model import LoraConfig, ModelConfig, QuantizationConfig
from sizewise.data.batches.collate import IGNORED, collate_training
from sizewise.data.tokens.table import Encoded
from sizewise.models.adapter import packed
from sizewise.models.adapter.attach import attach_adapter, enable_checkpointing
from sizewise.models.adapter.packed import (
    PackedBase,
    Part,
    view_of,
    why_alone,
)
from sizewise.models.adapter.packed_lora import LoopedLoraLinear, PackedLoraLinear
from sizewise.models.base import load_base
from sizewise.models.head import answer_logits, answer_targets

LORAS = (
    LoraConfig(r=2, dropout=0.2),
    LoraConfig(r=4, method="rslora", target="attention"),
    LoraConfig(r=8, dropout=0.1, alpha=8.0),
    LoraConfig(r=2, fast=False, target="down_proj"),
)
SHAPES = ((2, 11), (2, 7), (1, 16), (2, 9))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_scales_are_those_of_each_alone_in_any_precision(dtype: torch.dtype) -> None:
    """In bf16 32/12 would be 2.67, and alone it is a number of Python."""
    base = build_tiny("llama", 64)
    model = attach_adapter(base, LoraConfig(r=12, alpha=32), ModelConfig("tiny", "none"), 0)
    shared = PackedBase(model.to(dtype))
    shared.add(0, model)
    with shared.answering([0], 1):
        layer = next(m for m in shared.base.modules() if isinstance(m, packed.PackedLinear))
        scale = layer._scale(layer._of_pass)
    assert float(scale) == pytest.approx(32 / 12, rel=1e-7)


def batches(vocabulary: int) -> list[dict[str, Any]]:
    """Batches of unequal rows and lengths, padded on the right."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for rows, tokens in SHAPES:
        ids = torch.randint(3, vocabulary, (rows, tokens), generator=generator)
        mask, labels = torch.ones_like(ids), ids.clone()
        labels[:, : tokens // 2] = IGNORED
        mask[-1, -2:], labels[-1, -2:] = 0, IGNORED
        found.append({"input_ids": ids, "attention_mask": mask, "labels": labels})
    return found


def members(base: Any, config: Any, loras: Sequence[LoraConfig]) -> list[Any]:
    found = [attach_adapter(view_of(base), lora, config, n) for n, lora in enumerate(loras)]
    if base.dtype == torch.float64:
        found = [model.double() for model in found]
    generator = torch.Generator().manual_seed(2)
    for model in found:
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02, generator=generator)
    return found


def test_a_shared_pass_never_waits_for_values() -> None:
    """The meta device has none: whatever reads one raises. On a GPU it would wait for it."""
    base, config = build_tiny("llama", 64), ModelConfig("tiny", "none")
    models = [model.to("meta") for model in members(base, config, LORAS)]
    shared = PackedBase(models[0])
    for number, model in enumerate(models):
        shared.add(number, model)
    items = [Encoded([*range(3, 20)], [4, 5, 6]), Encoded([*range(3, 9)], [4, 2])]
    asked = [collate_training(items[: 1 + n % 2], 0, 5) for n in range(len(models))]
    parts = [
        Part(n, {k: v.to("meta") for k, v in b.items() if isinstance(v, torch.Tensor)}, nullcontext)
        for n, b in enumerate(asked)
    ]
    logits = shared.answer_logits(parts)
    assert [len(own) for own in logits] == [3, 5, 3, 5]
    torch.autograd.backward([own.sum() for own in logits])


class Stream:
    """Random numbers of one member."""

    def __init__(self, seed: int) -> None:
        self.state = torch.Generator().manual_seed(seed).get_state()

    @contextmanager
    def own(self) -> Iterator[None]:
        others = torch.get_rng_state()
        torch.set_rng_state(self.state)
        yield
        self.state = torch.get_rng_state()
        torch.set_rng_state(others)


def loss_of(logits: torch.Tensor, batch: Any) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, answer_targets(batch), reduction="sum") / 7


def gradients(models: Sequence[Any]) -> list[dict[str, torch.Tensor]]:
    found = []
    for model in models:
        named = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        assert all(grad is not None for grad in named.values())
        found.append(named)
        model.zero_grad()
    return found


def compare(
    base: Any,
    config: Any,
    loras: Sequence[LoraConfig],
    tolerance: float,
    recompute: bool | str = False,
) -> None:
    models = members(base, config, loras)
    for model in models if recompute else ():
        enable_checkpointing(model, recompute == "selective")
    asked = batches(base.config.get_text_config().vocab_size)[: len(models)]
    alone, streams = [], [Stream(10 + n) for n in range(len(models))]
    for model, batch, stream in zip(models, asked, streams, strict=True):
        with stream.own():
            loss = loss_of(answer_logits(model, batch), batch)
        loss.backward()
        alone.append(loss.detach())
    expected, ends = gradients(models), [stream.state for stream in streams]

    streams = [Stream(10 + n) for n in range(len(models))]
    shared = PackedBase(models[0])
    for number, model in enumerate(models):
        assert why_alone(model) == ""
        shared.add(number, model)
    parts = [Part(n, b, s.own) for n, (b, s) in enumerate(zip(asked, streams, strict=True))]
    losses = [loss_of(x, b) for x, b in zip(shared.answer_logits(parts), asked, strict=True)]
    torch.autograd.backward(losses)
    for ours, theirs in zip(losses, alone, strict=True):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)
    for ours, theirs in zip(gradients(models), expected, strict=True):
        for name, gradient in theirs.items():
            largest = max(1.0, float(gradient.abs().max()))
            torch.testing.assert_close(ours[name], gradient, atol=tolerance * largest, rtol=0)
    for stream, end in zip(streams, ends, strict=True):
        assert torch.equal(stream.state, end)


@pytest.mark.parametrize(
    ("model_type", "dtype", "tolerance"),
    [
        ("qwen2", torch.float32, 1e-6),
        ("llama", torch.float32, 1e-6),
        ("gemma3", torch.float64, 1e-12),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_unequal_ranks_methods_targets_dropout_and_lengths(
    model_type: str,
    dtype: torch.dtype,
    tolerance: float,
    device: str,
    base_of_type: Any,
    tiny: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a CPU, product after product, and as on a GPU, in batched ones."""
    monkeypatch.setattr(packed, "_one_by_one", lambda x: device == "cpu")
    compare(base_of_type(model_type).to(dtype), tiny(model_type), LORAS, tolerance)


def test_nf4(tiny: Any) -> None:
    config = tiny("qwen2")
    stored = QuantizationConfig(method="nf4", compute_dtype="float32")
    compare(load_base(config, stored), config, LORAS[:3], 2e-6)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("recompute", ["selective", True])
def test_recomputed_activations(
    recompute: bool | str,
    device: str,
    base_of_type: Any,
    tiny: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packed, "_one_by_one", lambda x: device == "cpu")
    without_dropout = [replace(lora, dropout=0.0) for lora in LORAS]
    compare(base_of_type("qwen2"), tiny("qwen2"), without_dropout, 1e-6, recompute)


def test_who_left_is_seen_no_more_and_others_are_as_alone(base_of_type: Any, tiny: Any) -> None:
    models = members(base_of_type("qwen2"), tiny("qwen2"), LORAS[1:3])
    asked = batches(models[0].config.get_text_config().vocab_size)
    shared = PackedBase(models[0])
    for number, model in enumerate(models):
        shared.add(number, model)
    part = partial(Part, random=nullcontext)
    shared.answer_logits([part(0, asked[0]), part(1, asked[1])])
    shared.remove(0)
    models[0].get_base_model().model.layers[0].self_attn.q_proj.lora_A.default.weight.data.fill_(
        float("nan")
    )
    torch.manual_seed(0)
    (ours,) = shared.answer_logits([part(1, asked[1])])
    torch.manual_seed(0)
    torch.testing.assert_close(ours, answer_logits(models[1], asked[1]))


def test_a_member_that_diverges_spoils_nobody_else(base_of_type: Any, tiny: Any) -> None:
    models = members(base_of_type("qwen2"), tiny("qwen2"), (LORAS[1], LoraConfig(r=2)))
    asked = batches(models[0].config.get_text_config().vocab_size)[:2]
    for parameter in models[0].parameters():
        if parameter.requires_grad:
            parameter.data.fill_(float("inf"))
    shared = PackedBase(models[0])
    for number, model in enumerate(models):
        shared.add(number, model)
    logits = shared.answer_logits([Part(n, b, nullcontext) for n, b in enumerate(asked)])
    losses = [loss_of(x, b) for x, b in zip(logits, asked, strict=True)]
    torch.autograd.backward(losses)
    assert not losses[0].isfinite()
    assert losses[1].isfinite()
    trained = [p for p in models[1].parameters() if p.requires_grad]
    assert trained
    assert all(p.grad.isfinite().all() for p in trained)


def test_views_share_weights_and_nothing_else(base_of_type: Any, tiny: Any) -> None:
    base = base_of_type("qwen2")
    before = [name for name, _ in base.named_modules()]
    one, other = members(base, tiny("qwen2"), LORAS[:2])
    assert [name for name, _ in base.named_modules()] == before
    weight = base.model.embed_tokens.weight
    assert one.get_base_model().model.embed_tokens.weight is weight
    assert other.get_base_model().model.embed_tokens.weight is weight
    own = {id(p) for p in one.parameters()} - {id(p) for p in base.parameters()}
    assert own
    assert not own & {id(p) for p in other.parameters()}


@pytest.mark.parametrize(
    ("lora", "model_type", "reason"),
    [
        (LoraConfig(r=2, method="dora"), "qwen2", "only LoRA"),
        (LoraConfig(r=2, modules_to_save=["embed_tokens"]), "qwen2", "only LoRA"),
        (LoraConfig(r=2), "t5", "encoder-decoder"),
        (LoraConfig(method="full"), "qwen2", "no base with an adapter"),
    ],
)
def test_who_is_trained_alone(
    lora: LoraConfig, model_type: str, reason: str, base_of_type: Any, tiny: Any
) -> None:
    model = attach_adapter(base_of_type(model_type), lora, tiny(model_type), 0)
    assert reason in why_alone(model)


def test_recomputed_dropout_and_a_base_with_dropout_are_trained_alone(
    base_of_type: Any, tiny: Any
) -> None:
    model = attach_adapter(base_of_type("qwen2"), LORAS[0], tiny("qwen2"), 0)
    assert why_alone(model) == ""
    enable_checkpointing(model)
    assert "recomputed" in why_alone(model)
    model = attach_adapter(base_of_type("qwen2"), LORAS[1], tiny("qwen2"), 0)
    model.config.attention_dropout = 0.1
    assert "dropout" in why_alone(model)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("router_jitter_noise", "of its own"), ("longrope", "length"), ("dynamic", "length")],
)
def test_a_base_whose_rows_are_not_independent_is_trained_alone(
    name: str, reason: str, base_of_type: Any, tiny: Any
) -> None:
    """Random numbers of the base's own, or positions that go by the longest row."""
    model = attach_adapter(base_of_type("qwen2"), LORAS[1], tiny("qwen2"), 0)
    assert why_alone(model) == ""
    if "jitter" in name:
        setattr(model.config, name, 0.01)
    else:
        model.get_base_model().model.rotary_emb.rope_type = name
    assert reason in why_alone(model)
    if "jitter" not in name:
        model.get_base_model().model.rotary_emb.rope_type = {"full_attention": name}
        assert reason in why_alone(model)


@pytest.mark.parametrize("recompute", ["selective", True])
def test_who_leaves_between_the_passes_spoils_no_recomputation(
    recompute: bool | str, base_of_type: Any, tiny: Any
) -> None:
    loras = (LoraConfig(r=2, target="q_proj"), LORAS[1], LoraConfig(r=8, target="down_proj"))
    models = members(base_of_type("qwen2"), tiny("qwen2"), loras)
    asked = batches(models[0].config.get_text_config().vocab_size)[:3]
    for model in models:
        enable_checkpointing(model, recompute == "selective")
    loss_of(answer_logits(models[1], asked[1]), asked[1]).backward()
    (expected,) = gradients(models[1:2])
    shared = PackedBase(models[0])
    for number, model in enumerate(models):
        shared.add(number, model)
    logits = shared.answer_logits([Part(n, b, nullcontext) for n, b in enumerate(asked)])
    loss = loss_of(logits[1], asked[1])
    shared.remove(0)
    shared.remove(2)
    loss.backward()
    (found,) = gradients(models[1:2])
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-6)


def test_gradient_by_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    x, w, a, b, scale = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((4, 3, 5), (4, 5), (2, 2, 5), (2, 4, 2), (2, 1, 1))
    )
    for tensor in (x, a, b):
        tensor.requires_grad_()
    dropped = (x.detach() * 1.5).requires_grad_()

    def batched(x: Any, d: Any, a: Any, b: Any) -> Any:
        return PackedLoraLinear.apply(x, d, w, None, a, b, scale)

    def looped(x: Any, d: Any, a: Any, b: Any) -> Any:
        weights = (a[0], b[0], a[1], b[1])
        return LoopedLoraLinear.apply(x, d, w, None, scale.flatten().tolist(), *weights)

    torch.testing.assert_close(batched(x, None, a, b), looped(x, None, a, b))
    for way in (batched, looped):
        for other in (None, dropped):
            assert torch.autograd.gradcheck(
                lambda x, a, b, other=other, way=way: way(x, other, a, b), (x, a, b)
            )
        assert torch.autograd.gradcheck(lambda d, way=way: way(x, d, a, b), (dropped,))
