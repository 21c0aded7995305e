"""An adapter answers merged, and leaves the base's weights as they were."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftLora
from peft import get_peft_model

from sizewise.config.model import LoraConfig
from sizewise.models.adapter import merged as merged_module
from sizewise.models.adapter.attach import attach_adapter
from sizewise.models.adapter.merged import merged
from sizewise.models.adapter.wrapping import base_only


def adapted(base: Any, tiny: Any, method: str) -> Any:
    model = attach_adapter(base, LoraConfig(method=method, r=4), tiny("qwen2"), 1).eval()
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return model


def logits_of(model: Any, batch: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=batch["input_ids"]).logits
    return found


@pytest.mark.parametrize("method", ["lora", "rslora", "dora"])
def test_merged_answers_are_the_same_and_the_weights_come_back_bit_for_bit(
    method: str, base_of_type: Any, tiny: Any, batch: Any
) -> None:
    model = adapted(base_of_type("qwen2"), tiny, method)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    plain = logits_of(model, batch)
    with base_only(model):
        untouched = logits_of(model, batch)
    with merged(model) as kept:
        assert kept > 0
        inside = logits_of(model, batch)
        changed = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
        assert changed
        assert all("base_layer" in name for name in changed)
    torch.testing.assert_close(inside, plain, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(untouched, plain, atol=1e-3)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert torch.equal(logits_of(model, batch), plain)
    with base_only(model):
        assert torch.equal(logits_of(model, batch), untouched)


def test_weights_come_back_after_an_error(base_of_type: Any, tiny: Any, batch: Any) -> None:
    model = adapted(base_of_type("qwen2"), tiny, "lora")
    plain = logits_of(model, batch)
    with pytest.raises(MemoryError), merged(model):
        raise MemoryError
    assert torch.equal(logits_of(model, batch), plain)


def test_without_memory_for_it_nothing_is_merged(
    base_of_type: Any, tiny: Any, batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.lora.layer import Linear

    model = adapted(base_of_type("qwen2"), tiny, "lora")
    plain, merge, left = logits_of(model, batch), Linear.merge, [3]

    def short(self: Any, **options: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        merge(self, **options)

    monkeypatch.setattr(Linear, "merge", short)
    with merged(model) as kept:
        assert kept == 0
        assert torch.equal(logits_of(model, batch), plain)
    assert torch.equal(logits_of(model, batch), plain)


def test_nothing_is_merged_where_more_than_rounding_would_change(
    base_of_type: Any, tiny: Any
) -> None:
    half = adapted(base_of_type("qwen2").to(torch.bfloat16), tiny, "lora")
    quantised = adapted(base_of_type("qwen2", "nf4"), tiny, "lora")
    for model in (half, quantised, base_of_type("qwen2")):
        with merged(model) as kept:
            assert kept == 0


def test_speed_is_measured_with_weights_merged_in_half_precision(
    base_of_type: Any, tiny: Any, batch: Any
) -> None:
    """As they would be served; they come back bit for bit."""
    model = adapted(base_of_type("qwen2").to(torch.bfloat16), tiny, "lora")
    layers = [m for m in model.modules() if hasattr(m, "lora_A")]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    plain = logits_of(model, batch)
    with merged(model, exact=False) as kept:
        assert kept == sum(layer.base_layer.weight.nbytes for layer in layers)
        assert all(layer.merged for layer in layers)
        assert (logits_of(model, batch) - plain).abs().max() < 0.05 * plain.abs().max()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    with merged(adapted(base_of_type("qwen2", "nf4"), tiny, "lora"), exact=False) as kept:
        assert kept == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_cannot_be_merged_fails_nothing(
    dtype: torch.dtype, base_of_type: Any, tiny: Any, batch: Any
) -> None:
    """An adapter whose bias has no place in the base, and merged weights that overflow."""
    base = base_of_type("llama").to(dtype)
    biased = get_peft_model(base, PeftLora(r=2, lora_bias=True, target_modules=["v_proj"]))
    with merged(biased, exact=False) as kept:
        assert kept == 0
    model = adapted(base_of_type("qwen2").to(dtype), tiny, "lora")
    layer = next(m for m in model.modules() if hasattr(m, "lora_A"))
    layer.lora_B["default"].weight.data.fill_(1e38 if dtype == torch.float32 else 60000)
    layer.lora_A["default"].weight.data.fill_(1e38 if dtype == torch.float32 else 60000)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with merged(model, exact=False) as kept:
        assert kept == 0
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_signal_while_weights_are_put_back_leaves_none_merged(
    base_of_type: Any, tiny: Any, batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs of the same process train on that base."""
    model = adapted(base_of_type("qwen2"), tiny, "lora")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    put_back = merged_module._put_back

    class Kept(dict[str, torch.Tensor]):
        def __getitem__(self, name: str) -> torch.Tensor:
            signal.raise_signal(signal.SIGINT)
            return super().__getitem__(name)

    def interrupted(layers: list[Any], kept: list[dict[str, torch.Tensor]]) -> None:
        put_back(layers, [Kept(each) for each in kept])

    monkeypatch.setattr(merged_module, "_put_back", interrupted)
    with pytest.raises(KeyboardInterrupt), merged(model):
        pass
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert not any(getattr(module, "merged", False) for module in model.modules())


def test_weights_come_back_without_memory_to_subtract_the_adapter(
    base_of_type: Any, tiny: Any, batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.lora.layer import Linear

    model = adapted(base_of_type("qwen2"), tiny, "lora")
    plain = logits_of(model, batch)

    def short(self: Any, name: str) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with merged(model):
        monkeypatch.setattr(Linear, "get_delta_weight", short)
    assert torch.equal(logits_of(model, batch), plain)
