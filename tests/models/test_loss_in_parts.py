"""The loss of long answers: some logits at a time, with loss and gradients of all at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from sizewise.config.model import LoraConfig
from sizewise.models import head
from sizewise.models.adapter.attach import attach_adapter
from sizewise.models.architecture import BUILDERS, ENCODERS
from sizewise.models.head import answer_logits, answer_losses, answer_targets
from sizewise.training.module import answer_loss

ROWS = 5
Made = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]


def loss_and_gradients(model: nn.Module, batch: Any, smoothing: float = 0.0) -> Made:
    torch.manual_seed(0)
    share = partial(answer_loss, step_tokens=7, label_smoothing=smoothing)
    loss, nll, count = answer_losses(model, batch, share)
    assert count == 36
    model.zero_grad(set_to_none=True)
    (loss * 3).backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), nll, found


@pytest.fixture
def heads_rows(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[int]]:
    """Let logits be made five rows at a time; gives the rows that the head is called with."""

    def watch(model: Any) -> list[int]:
        seen: list[int] = []
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        vocabulary = base.config.get_text_config().vocab_size
        monkeypatch.setattr(head, "MOST_LOGITS", ROWS * vocabulary + 1)
        monkeypatch.setattr(head, "LEAST_ROWS", 1)
        base.get_output_embeddings().register_forward_hook(
            lambda module, inputs, output: seen.append(len(inputs[0]))
        )
        return seen

    return watch


def check_same(model: nn.Module, batch: Any, watch: Any, smoothing: float = 0.0) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # no longer nothing, so that all of the adapter learns
                parameter.normal_(std=0.1)
    whole = loss_and_gradients(model, batch, smoothing)
    seen = watch(model)
    parts = loss_and_gradients(model, batch, smoothing)
    assert seen == [1, *[ROWS] * 7, 1], "one row to see the body through, then all 36 in parts"
    torch.testing.assert_close(parts[:2], whole[:2], atol=0, rtol=1e-6)
    assert parts[2].keys() == whole[2].keys()
    assert sum(bool(gradient.any()) for gradient in whole[2].values()) > 5
    for name, gradient in whole[2].items():
        torch.testing.assert_close(
            parts[2][name], gradient, atol=5e-6 * float(gradient.abs().max()), rtol=1e-6
        )


@pytest.mark.parametrize("model_type", sorted(BUILDERS.keys() - ENCODERS))
def test_loss_and_gradients_are_those_of_all_logits(
    model_type: str, base_of_type: Any, tiny: Any, batch: Any, heads_rows: Any
) -> None:
    lora = LoraConfig(r=4, dropout=0.0)
    model = attach_adapter(base_of_type(model_type), lora, tiny(model_type), seed=1).train()
    check_same(model, batch, heads_rows)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize(
    "lora",
    [LoraConfig(method="full"), LoraConfig(r=2, dropout=0.0, modules_to_save=["lm_head"])],
    ids=["full", "modules_to_save"],
)
def test_trained_heads_have_the_same_gradients(
    lora: LoraConfig, smoothing: float, base_of_type: Any, tiny: Any, batch: Any, heads_rows: Any
) -> None:
    model = attach_adapter(base_of_type("llama"), lora, tiny("llama"), seed=1).train()
    check_same(model, batch, heads_rows, smoothing)


def test_tied_embeddings_that_are_trained_have_the_same_gradients(
    base_of_type: Any, tiny: Any, batch: Any, heads_rows: Any
) -> None:
    base = base_of_type("gemma2")
    assert base.get_output_embeddings().weight is base.get_input_embeddings().weight
    model = attach_adapter(base, LoraConfig(method="full"), tiny("gemma2"), seed=1).train()
    check_same(model, batch, heads_rows)


def test_soft_caps_and_scales_of_logits_are_the_models_own(batch: Any, heads_rows: Any) -> None:
    from transformers import CohereConfig, CohereForCausalLM

    torch.manual_seed(0)
    config = CohereConfig(
        vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, logit_scale=7.0, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    check_same(CohereForCausalLM(config), batch, heads_rows)


def test_what_follows_the_head_sees_the_rows_of_each_part(batch: Any, heads_rows: Any) -> None:
    """A part behind the head that learns, as a soft-cap with weights of its own would."""
    from transformers import LlamaConfig, LlamaForCausalLM

    class Late(LlamaForCausalLM):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.late = nn.Linear(config.vocab_size, config.vocab_size, bias=False)

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            output.logits = self.late(output.logits).tanh()
            return output

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = Late(config)
    check_same(model, batch, heads_rows)
    assert "forward" not in model.late.__dict__


def test_fp16_gradients_wait_for_the_scaled_loss(
    base_of_type: Any, tiny: Any, batch: Any, plain_lora: LoraConfig, heads_rows: Any
) -> None:
    """Differentiated part by part, before the loss is scaled, small ones would become nothing."""
    model = attach_adapter(base_of_type("llama"), plain_lora, tiny("llama"), seed=1).train()
    seen = heads_rows(model)
    with torch.autocast("cpu", torch.float16):
        loss_and_gradients(model, batch)
    assert seen == [36]


def test_without_gradients_only_the_loss_is_computed(
    base_of_type: Any, batch: Any, heads_rows: Any
) -> None:
    base = base_of_type("gemma2")
    heads_rows(base)
    with torch.no_grad():
        base.get_output_embeddings().weight.mul_(1e3)
        loss, nll, _ = answer_losses(base, batch, partial(answer_loss, step_tokens=1))
        wanted = nn.functional.cross_entropy(
            answer_logits(base, batch), answer_targets(batch), reduction="sum"
        )
    assert not loss.requires_grad
    torch.testing.assert_close(loss, wanted, atol=0, rtol=1e-6)
    torch.testing.assert_close(nll, wanted, atol=0, rtol=1e-6)


def test_the_model_is_left_as_it_was(base_of_type: Any, batch: Any, heads_rows: Any) -> None:
    base = base_of_type("llama")
    with torch.no_grad():
        before = answer_logits(base, batch)
        heads_rows(base)
        answer_losses(base, batch, partial(answer_loss, step_tokens=1))
        assert torch.equal(answer_logits(base, batch), before)
    assert "forward" not in base.model.__dict__
    assert not base.get_output_embeddings()._forward_pre_hooks


def test_bf16_under_autocast_stays_as_near(
    base_of_type: Any, tiny: Any, batch: Any, plain_lora: LoraConfig, heads_rows: Any
) -> None:
    model = attach_adapter(base_of_type("llama"), plain_lora, tiny("llama"), seed=1).train()
    with torch.autocast("cpu", torch.bfloat16):
        whole = loss_and_gradients(model, batch)
        heads_rows(model)
        parts = loss_and_gradients(model, batch)
    torch.testing.assert_close(parts[0], whole[0], atol=0, rtol=1e-4)
    for name, gradient in whole[2].items():
        torch.testing.assert_close(
            parts[2][name], gradient, atol=0.02 * float(gradient.abs().max()), rtol=0.02
        )
