"""The lean LoRA passes equal PEFT's, and step aside where they do not apply."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftLora
from peft import get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from sizewise.composition.compose import compose_run
from sizewise.config.model import LoraConfig, QuantizationConfig
from sizewise.data.batches.collate import collate_training
from sizewise.data.tokens.table import Encoded
from sizewise.models.adapter.attach import attach_adapter, enable_checkpointing
from sizewise.models.adapter.fast_lora import (
    LoraLinear,
    Rows,
    adapter_dropout,
    drawn_for_all,
    is_plain,
    speed_up,
)
from sizewise.models.base import load_base
from sizewise.models.head import answer_logits
from sizewise.models.plan.trace import Fp32Norms


def adapted(base: Any, tiny: Any, method: str, fast: bool, model_type: str = "qwen2") -> Any:
    lora = LoraConfig(method=method, r=4, dropout=0.0, fast=fast)
    model = attach_adapter(base, lora, tiny(model_type), 1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return model


def step(model: Any, batch: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(0)  # T5's own dropout
    loss = answer_logits(model, batch).logsumexp(-1).mean()
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("checkpointed", [False, "selective", True])
@pytest.mark.parametrize("method", ["lora", "rslora"])
@pytest.mark.parametrize(
    ("model_type", "dtype"),
    [("qwen2", torch.float32), ("qwen2", torch.float64), ("t5", torch.float64)],
)
def test_equal_loss_and_gradients(
    model_type: str, dtype: torch.dtype, method: str, checkpointed: bool | str, base_of_type: Any,
    tiny: Any, batch: Any,
) -> None:  # fmt: skip
    """In single precision the gradients of T5 scatter by 2e-5, whoever computes them."""
    single = dtype == torch.float32
    results = []
    for fast in (False, True):
        model = adapted(base_of_type(model_type), tiny, method, fast, model_type).to(dtype)
        if checkpointed:
            enable_checkpointing(model, checkpointed == "selective")
        results.append(step(model, batch))
    (slow_loss, slow), (fast_loss, lean) = results
    torch.testing.assert_close(fast_loss, slow_loss, atol=1e-5 if single else 1e-9, rtol=0)
    assert len(slow) == len(lean) > 0
    for ours, theirs in zip(lean, slow, strict=True):
        atol, rtol = (1e-6, 1e-4) if single else (1e-9, 1e-6)
        torch.testing.assert_close(ours, theirs, atol=atol, rtol=rtol)


def test_gradient_by_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    x, w, a, b = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((2, 3, 5), (4, 5), (2, 5), (4, 2))
    )
    for tensor in (x, a, b):
        tensor.requires_grad_()
    dropped = (x.detach() * 1.5).requires_grad_()
    for other in (None, dropped):
        assert torch.autograd.gradcheck(
            lambda x, a, b, other=other: LoraLinear.apply(x, other, w, None, a, b, 0.7), (x, a, b)
        )
    assert torch.autograd.gradcheck(
        lambda d: LoraLinear.apply(x, d, w, None, a, b, 0.7), (dropped,)
    )


def test_switching_off_and_merging_still_work(base_of_type: Any, tiny: Any, batch: Any) -> None:
    base = base_of_type("qwen2")
    with torch.no_grad():
        untouched = answer_logits(base, batch)
        model = adapted(base, tiny, "lora", fast=True).eval()
        tuned = answer_logits(model, batch)
        with model.disable_adapter():
            assert torch.equal(answer_logits(model, batch), untouched)
        model.merge_adapter()
        torch.testing.assert_close(answer_logits(model, batch), tuned, atol=1e-5, rtol=1e-4)
        model.unmerge_adapter()
        torch.testing.assert_close(answer_logits(model, batch), tuned, atol=1e-5, rtol=1e-4)
    assert (tuned - untouched).abs().max() > 1e-3


def test_copies_do_not_share_weights(base_of_type: Any, tiny: Any, batch: Any) -> None:
    model = adapted(base_of_type("qwen2"), tiny, "lora", fast=True).eval()
    with torch.no_grad():
        before = answer_logits(model, batch)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            for parameter in other.parameters():
                parameter.zero_()
        assert torch.equal(answer_logits(model, batch), before)


def test_what_it_does_not_cover_is_left_to_peft(tiny: Any) -> None:
    for method, quantization, expected in (
        ("lora", "none", 14), ("dora", "none", 0), ("lora", "int8", 0), ("lora", "nf4", 14),
    ):  # fmt: skip
        base = load_base(tiny("qwen2"), QuantizationConfig(method=quantization))
        assert speed_up(adapted(base, tiny, method, fast=False)) == expected


def mixed_step(model: Any, batch: Any, monkeypatch: Any) -> tuple[Any, list[Any], int]:
    """Loss and gradients of a step under bf16 autocast, and how many layers took the lean pass."""
    calls, apply = [], LoraLinear.apply
    with monkeypatch.context() as patched, torch.autocast("cpu", dtype=torch.bfloat16):
        patched.setattr(LoraLinear, "apply", lambda *args: calls.append(1) or apply(*args))
        loss = answer_logits(model, batch).float().logsumexp(-1).mean()
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters() if p.grad is not None], len(calls)


@pytest.mark.parametrize("method", ["none", "nf4"])
def test_an_adapter_of_another_kind_beside_the_first_is_left_to_peft(
    method: str, tiny: Any, batch: Any
) -> None:
    """Layers were sped up for LoRA; DoRA comes second and is active."""
    stored = QuantizationConfig(method=method, compute_dtype="float32")
    found = []
    for fast in (True, False):
        model = adapted(load_base(tiny("qwen2"), stored), tiny, "lora", fast).eval()
        torch.manual_seed(1)
        model.add_adapter("second", PeftLora(r=4, use_dora=True, target_modules="all-linear"))
        model.set_adapter("second")
        generator = torch.Generator().manual_seed(3)
        for name, parameter in model.named_parameters():
            if "lora_magnitude" in name or "lora_B.second" in name:
                torch.nn.init.normal_(parameter, std=0.3, generator=generator)
        with torch.no_grad():
            found.append(answer_logits(model, batch))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", [{"lora_bias": True}, {"bias": "lora_only"}])
@pytest.mark.parametrize("method", ["none", "nf4"])
def test_biases_that_are_trained_get_their_gradients(
    method: str, options: dict[str, Any], tiny: Any, batch: Any
) -> None:
    stored, found = QuantizationConfig(method=method, compute_dtype="float32"), []
    targets = ["q_proj", "v_proj"]
    for fast in (True, False):
        torch.manual_seed(0)
        model = get_peft_model(
            load_base(tiny("qwen2"), stored),
            PeftLora(r=4, target_modules=targets, init_lora_weights=False, **options),
        )
        if fast:
            assert speed_up(model) == 4
        found.append(
            (step(model, batch), [n for n, p in model.named_parameters() if p.requires_grad])
        )
    ((loss, grads), names), ((expected, its), _) = found
    assert len(grads) == len(names)
    assert any(name.endswith("bias") for name in names)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)
    for one, other in zip(grads, its, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_a_base_that_autocast_casts_is_left_to_peft(
    base_of_type: Any, tiny: Any, batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (slow, _, _), (fast, _, leant) = (
        mixed_step(adapted(base_of_type("qwen2"), tiny, "lora", lean), batch, monkeypatch)
        for lean in (False, True)
    )
    assert leant == 0
    assert torch.equal(slow, fast)


def in_halves(model: Any) -> Any:
    """Half-precision base, fp32 adapter: what a fit on a GPU has."""
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.bfloat16()
    return model


@pytest.mark.parametrize(
    ("model_type", "method"),
    [("llama", "none"), ("llama", "nf4"), ("qwen3", "none"), ("gemma2", "none")],
)
def test_mixed_precision_is_as_exact_as_pefts(
    model_type: str, method: str, tiny: Any, batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors against single precision over the same stored weights, of both ways."""
    stored = [QuantizationConfig(method=method, compute_dtype=d) for d in ("bfloat16", "float32")]
    halves = [
        in_halves(adapted(load_base(tiny(model_type), stored[0]), tiny, "lora", lean, model_type))
        for lean in (False, True)
    ]
    single = adapted(load_base(tiny(model_type), stored[1]), tiny, "lora", False, model_type)
    if method == "none":
        single = copy.deepcopy(halves[0]).float()
    exact, true = step(single, batch)
    errors = []
    for model, layers in zip(halves, (0, 14), strict=True):
        loss, grads, leant = mixed_step(model, batch, monkeypatch)
        assert leant == layers
        assert {grad.dtype for grad in grads} == {torch.float32}
        squared = sum(float((g - t).square().sum()) for g, t in zip(grads, true, strict=True))
        norm = sum(float(t.square().sum()) for t in true)
        errors.append(((squared / norm) ** 0.5, abs(float(loss - exact))))
    (slow, slow_loss), (lean, lean_loss) = errors
    assert lean < max(0.1, 1.5 * slow)
    assert lean_loss < max(0.02, 1.5 * slow_loss)


def test_dropout_keeps_mean_and_rate() -> None:
    torch.manual_seed(0)
    ones = torch.ones(333, 301)
    out = adapter_dropout(ones, 0.05)
    assert (out == 0).float().mean().item() == pytest.approx(0.05, abs=0.003)
    assert out.mean().item() == pytest.approx(1.0, abs=0.003)
    assert (out == 0).float().mean(0).std() < 0.03, "no column is dropped more than others"
    torch.manual_seed(0)
    assert torch.equal(adapter_dropout(ones, 0.05), out)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_dropped_elements_are_independent_and_pass_no_gradient(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(50, 2, requires_grad=True)
    dropped = torch.zeros(2000, 50, 2)
    for row in dropped:
        out = adapter_dropout(x, p)
        (gradient,) = torch.autograd.grad(out.sum(), x)
        assert torch.equal(gradient, out)
        row.copy_(out == 0)
    assert set(out.unique().tolist()) <= {0.0, out.max().item()}
    assert out.max().item() == pytest.approx(1 / (1 - p))
    assert dropped.mean().item() == pytest.approx(p, abs=0.005)
    counts = dropped.sum((1, 2))
    assert counts.var().item() == pytest.approx(100 * p * (1 - p), rel=0.15), "as a binomial's"
    first, second = dropped.flatten(1)[:, :-1].flatten(), dropped.flatten(1)[:, 1:].flatten()
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1].item()) < 0.01


@pytest.mark.parametrize("p", [0.05, 0.3, 0.6])
def test_some_rows_are_dropped_as_among_all(p: float) -> None:
    x, chosen = torch.randn(30, 7), torch.tensor([4, 5, 11, 28])
    torch.manual_seed(3)
    whole = adapter_dropout(x, p)
    after = torch.rand(1)
    torch.manual_seed(3)
    with drawn_for_all(Rows(chosen, 30)):
        some = adapter_dropout(x[chosen][None], p)
    assert torch.equal(some[0], whole[chosen])
    assert torch.equal(torch.rand(1), after)
    assert not torch.equal(adapter_dropout(x[chosen], p), whole[chosen])


@pytest.mark.parametrize(
    "model_type", ["gpt_oss", "granitemoehybrid", "lfm2", "gemma4", "phi3", "gemma2", "mistral"]
)
def test_recomputing_selectively_is_exact_where_models_add_in_place(
    model_type: str, base_of_type: Any, tiny: Any, batch: Any
) -> None:
    """Biases of experts are added in place to products: what is kept has to stay as it was."""
    results = []
    for selective in (False, True):
        base = base_of_type(model_type)
        generator = torch.Generator().manual_seed(3)
        for name, parameter in base.named_parameters():
            if name.endswith("bias"):
                parameter.data.normal_(0, 0.5, generator=generator)
        model = adapted(base, tiny, "lora", True, model_type)
        if selective:
            enable_checkpointing(model, selective=True)
        results.append(step(model, batch))
    (plain_loss, plain), (loss, again) = results
    torch.testing.assert_close(loss, plain_loss)
    assert len(plain) == len(again) > 0
    for one, other in zip(again, plain, strict=True):
        torch.testing.assert_close(one, other)


class Counted(TorchDispatchMode):
    """Counts the operations that are made, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.made: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.made[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("fast", [True, False])
def test_products_with_4_bit_weights_are_kept_and_not_made_again(fast: bool) -> None:
    cfg = compose_run(["model=nano", "quantization=nf4", f"lora.fast={fast}"])
    ids = torch.randint(3, 800, (2, 16), generator=torch.Generator().manual_seed(0))
    gradients, made = [], []
    for selective in (False, True):
        base = load_base(cfg.model, cfg.quantization, torch.device("cpu"))
        model = attach_adapter(base, cfg.lora, cfg.model, 0).train()
        if selective:
            enable_checkpointing(model, selective=True)
        with Counted() as counted:
            model(input_ids=ids, labels=ids).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        made.append(counted.made["lora_linear" if fast else "gemm_4bit"])
    assert made[0] == made[1] > 0
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("checkpointed", [False, "selective", True])
@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_over_nf4_the_same_as_pefts(
    compute_dtype: str, checkpointed: bool | str, base_of_type: Any, tiny: Any, batch: Any
) -> None:
    """In bf16 the adapter is fp32, and without autocast PEFT's code runs for both."""
    stored = QuantizationConfig(method="nf4", compute_dtype=compute_dtype)
    results = []
    for fast in (False, True):
        model = adapted(load_base(tiny("qwen2"), stored), tiny, "lora", fast)
        if checkpointed:
            enable_checkpointing(model, checkpointed == "selective")
        results.append(step(model, batch))
    (slow_loss, slow), (fast_loss, lean) = results
    torch.testing.assert_close(fast_loss, slow_loss, atol=1e-5, rtol=0)
    assert len(slow) == len(lean) > 0
    for ours, theirs in zip(lean, slow, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_an_adapter_over_nf4_can_be_switched_off_and_on(tiny: Any, batch: Any) -> None:
    base = load_base(tiny("qwen2"), QuantizationConfig(method="nf4", compute_dtype="float32"))
    with torch.no_grad():
        untouched = answer_logits(base, batch)
        model = adapted(base, tiny, "lora", fast=True).eval()
        tuned = answer_logits(model, batch)
        with model.disable_adapter():
            assert torch.equal(answer_logits(model, batch), untouched)
        assert torch.equal(answer_logits(model, batch), tuned)
    assert (tuned - untouched).abs().max() > 1e-3


def test_over_nf4_what_comes_back_has_the_dtype_that_went_in(tiny: Any) -> None:
    """As bitsandbytes' own layers do; autocast lets layer norms give fp32 on a GPU."""
    base = load_base(tiny("qwen2"), QuantizationConfig(method="nf4", compute_dtype="bfloat16"))
    model = adapted(base, tiny, "lora", fast=True)
    layer: Any = next(m for m in model.modules() if hasattr(m, "lora_A"))
    x = torch.randn(2, 3, layer.in_features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for given in (x, x.bfloat16()):
            assert is_plain(given, layer)
            assert layer(given).dtype == layer._peft_forward(given).dtype == given.dtype
            torch.testing.assert_close(
                layer(given).float(), layer._peft_forward(given).float(), atol=0.05, rtol=0.05
            )


def test_layer_norms_that_autocast_returns_in_fp32_are_read_in_half_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a GPU: all layers take the lean passes, and what they give is half precision."""
    config = GPTNeoXConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        vocab_size=64, max_position_embeddings=64, attention_dropout=0.0, hidden_dropout=0.0,
    )  # fmt: skip
    names = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
    losses, leant = [], []
    for fast in (True, False):
        torch.manual_seed(0)
        base = GPTNeoXForCausalLM(config).requires_grad_(False)
        model = get_peft_model(base, PeftLora(r=2, target_modules=names, init_lora_weights=False))
        model = in_halves(model)
        if fast:
            assert speed_up(model) == 8
        batch = collate_training([Encoded([*range(3, 20)], [4, 5, 6])], 0, 3)
        with Fp32Norms():
            loss, grads, count = mixed_step(model, batch, monkeypatch)
        losses.append(float(loss))
        leant.append(count)
        assert len(grads) == 16
    assert leant == [8, 0]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
