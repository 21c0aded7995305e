"""What a fit does, apart from resuming: best weights, dropout, memory, signals, bad numbers."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from tests.training.toys import (
    adapted,
    collate,
    fit_toy,
    make_examples,
    make_module,
    quantised_base,
    split,
    tiny_base,
    toy_data,
    trainer_config,
    weights,
)
from torch import nn

from sizewise.data.batches.plan import fit_plan
from sizewise.errors import ConfigError, ModelError, OutOfMemoryError, TrainingError
from sizewise.models.head import answer_logits, answer_targets
from sizewise.training.module import CausalModule


def validation_loss(model: nn.Module) -> float:
    """Mean over all answer tokens of the validation split, by hand."""
    pairs = [(e.prompt_ids, e.answer_ids) for e in toy_data().validation.encoded]
    batch = collate(pairs, 1)
    with torch.no_grad():
        logits_NV = answer_logits(model.eval(), batch)
    return float(nn.functional.cross_entropy(logits_NV, answer_targets(batch)))


def test_best_weights_are_left_loaded_and_saved(tmp_path: Path) -> None:
    from sizewise.models.adapter.attach import load_adapter

    module, result = fit_toy(tmp_path, lr=20.0, validate_every=1)
    assert result.best_step < result.steps
    assert validation_loss(module.model) == pytest.approx(result.best_val_loss, rel=1e-5)
    assert not module.model.training
    reloaded = load_adapter(tiny_base(), tmp_path / "adapter")
    assert validation_loss(reloaded) == pytest.approx(result.best_val_loss, rel=1e-5)


def test_never_worse_than_the_untrained_adapter(tmp_path: Path) -> None:
    """Validation answers are the base's own, so that any training makes it worse."""
    base = tiny_base(initializer_range=0.5)
    own = []
    for prompt, _ in make_examples(4, 2):
        with torch.no_grad():
            own.append((prompt, [int(base(torch.tensor([prompt])).logits[0, -1].argmax())]))
    data = toy_data()
    data.validation = split(own)
    model = adapted(base)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.zeros_(parameter)
    _, result = fit_toy(tmp_path, make_module(model, lr=1.0), data, validate_every=1)
    assert result.best_step == 0
    assert all(not p.any() for n, p in model.named_parameters() if "lora_B" in n)


def test_without_validation_the_last_weights_are_kept(tmp_path: Path) -> None:
    data = toy_data(validation=0)
    _, result = fit_toy(tmp_path, data=data, max_epochs=1)
    assert (result.best_step, result.best_val_loss) == (6, None)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


class SpyDropout(pl.Callback):
    """Notes which modules are in eval mode while a batch is trained on, after a validation."""

    def __init__(self) -> None:
        self.asleep: list[str] = []
        self.batches = 0

    def on_before_backward(self, trainer: pl.Trainer, pl_module: Any, loss: Any) -> None:
        self.batches += 1
        self.asleep += [n for n, m in pl_module.model.named_modules() if not m.training]


def test_dropout_is_active_in_training(tmp_path: Path) -> None:
    spy = SpyDropout()
    base = tiny_base(attention_dropout=0.5)
    assert not base.training
    fit_toy(tmp_path, make_module(adapted(base).eval()), callbacks=[spy])
    assert (spy.batches, spy.asleep) == (22, [])


def test_only_trainable_parameters_are_optimised(tmp_path: Path) -> None:
    before = {n: p.clone() for n, p in tiny_base().named_parameters()}
    module, _ = fit_toy(tmp_path, max_steps=2)
    for name, parameter in module.model.get_base_model().named_parameters():
        if "lora_" not in name:
            assert torch.equal(parameter, before[name.replace(".base_layer", "")])
    with pytest.raises(TrainingError, match="no trainable parameters"):
        fit_toy(tmp_path / "none", make_module(tiny_base()))


def test_metrics_are_recorded(tmp_path: Path) -> None:
    _, result = fit_toy(tmp_path, log_every=3)
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    trained = [x["step"] for x in lines if "train_loss" in x["values"]]
    validated = {x["step"]: x["values"]["val_loss"] for x in lines if "val_loss" in x["values"]}
    assert trained == [3, 6, 9, 12]
    assert list(validated) == [0, 4, 8, 12]
    assert result.best_val_loss == min(validated.values())
    encoded = toy_data().train.encoded
    assert result.tokens == 2 * sum(e.length for e in encoded)
    assert result.answer_tokens == 2 * sum(len(e.answer_ids) for e in encoded)
    assert result.peak_bytes > 0
    assert result.seconds > 0


class SmallMemory(pl.Callback):
    """Raises as CUDA does for batches of more than ``limit`` examples, from step ``since`` on."""

    def __init__(self, limit: int, since: int = 0) -> None:
        self.limit, self.since = limit, since

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if len(batch["labels"]) > self.limit and trainer.global_step >= self.since:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")


def test_out_of_memory_goes_on_with_smaller_batches(tmp_path: Path) -> None:
    """From the start: exactly the run that had begun with the small batch."""
    smaller, expected = fit_toy(
        tmp_path / "a", make_module(adapted(tiny_base(), 0.0)), toy_data(22, 6, 4, 1),
        [SmallMemory(2)], batch_size=4, accumulate=1,
    )  # fmt: skip
    assert (expected.batch_size, expected.accumulate) == (2, 2)
    assert expected.out_of_memory == [{"batch_size": 4, "accumulate": 1}]
    whole, plain = fit_toy(
        tmp_path / "b", make_module(adapted(tiny_base(), 0.0)), toy_data(22, 6, 4, 1),
        batch_size=4, accumulate=1,
    )  # fmt: skip
    assert plain.out_of_memory == []
    assert (plain.steps, plain.tokens) == (expected.steps, expected.tokens)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(smaller)[name], tensor, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("since", [2, 5, 6, 8])
def test_out_of_memory_in_the_midst(tmp_path: Path, since: int) -> None:
    """From the last checkpoint, mid-epoch and at its end; every step is made and logged once."""
    whole, plain = fit_toy(
        tmp_path / "whole", make_module(adapted(tiny_base(), 0.0)), toy_data(22, 6, 4, 1),
        batch_size=4, accumulate=1,
    )  # fmt: skip
    module, result = fit_toy(
        tmp_path / "short", make_module(adapted(tiny_base(), 0.0)), toy_data(22, 6, 4, 1),
        [SmallMemory(1, since)], batch_size=4, accumulate=1,
    )  # fmt: skip
    assert [shape["batch_size"] for shape in result.out_of_memory] == [4, 2]
    assert (result.steps, result.tokens) == (plain.steps, plain.tokens)
    lines = [json.loads(x) for x in (tmp_path / "short/metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if "train_loss" in x["values"]] == list(range(1, 13))
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(module)[name], tensor, atol=2e-5, rtol=1e-3)


class MemoryGoneAfter(pl.Callback):
    """Memory that runs out once a micro-batch of more than ``limit`` examples was computed."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if len(batch["labels"]) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")


def test_out_of_memory_before_the_first_checkpoint_begins_all_anew(tmp_path: Path) -> None:
    """The untrained adapter, validated a second time, is no validation without improvement."""
    found = []
    for name, memory in (("plain", []), ("short", [MemoryGoneAfter(1)])):
        stop = EarlyStopping("val_loss", patience=1)
        _, result = fit_toy(
            tmp_path / name, make_module(adapted(tiny_base(), 0.0)), callbacks=[stop, *memory],
            validate_every=2, max_steps=6,
        )  # fmt: skip
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses = [json.loads(line)["values"].get("train_loss") for line in lines]
        first = next(loss for loss in losses if loss is not None)
        found.append((result.steps, result.best_step, stop.wait_count, pytest.approx(first, 1e-4)))
    assert result.out_of_memory == [{"batch_size": 2, "accumulate": 2}]
    assert result.best_step > 0
    assert found[0] == found[1], "steps, best step, early stopping, first training loss"


def test_out_of_memory_gives_up_with_what_was_tried(tmp_path: Path) -> None:
    with pytest.raises(OutOfMemoryError, match=r"tried: 2, 1 .*gradient_checkpointing"):
        fit_toy(tmp_path, callbacks=[SmallMemory(0)])


class SmallEvaluationMemory(CausalModule):
    """Raises as CUDA does where more than ``limit`` examples are validated together."""

    limit = 1

    def answer_losses(self, batch: Any, loss: Any) -> Any:
        if not torch.is_grad_enabled() and len(batch["labels"]) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return super().answer_losses(batch, loss)


def test_out_of_memory_in_validation_leaves_training_as_it_is(tmp_path: Path) -> None:
    _, plain = fit_toy(tmp_path / "plain")
    module = make_module(adapted(tiny_base()), kind=SmallEvaluationMemory)
    _, result = fit_toy(tmp_path / "short", module)
    assert (result.batch_size, result.out_of_memory) == (plain.batch_size, [])
    assert result.best_step == plain.best_step
    assert result.best_val_loss == pytest.approx(plain.best_val_loss, rel=1e-5)


def test_out_of_memory_of_one_validation_example_says_so(tmp_path: Path) -> None:
    module = make_module(adapted(tiny_base()), kind=SmallEvaluationMemory)
    module.limit = 0
    with pytest.raises(OutOfMemoryError, match="single validation example"):
        fit_toy(tmp_path, module)


class BadNumber(pl.Callback):
    """Poisons a weight before a step."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 4:
            next(iter(weights_of(pl_module).values())).fill_(float("nan"))


def weights_of(module: Any) -> dict[str, Any]:
    return {n: p.data for n, p in module.model.named_parameters() if p.requires_grad}


def test_loss_that_is_not_finite_stops_the_fit(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"training loss is nan at optimiser step 5.*lr"):
        fit_toy(tmp_path, callbacks=[BadNumber()])
    assert not (tmp_path / "fit.json").exists()


class SignalAt(pl.Callback):
    """Sends this process a signal before the n-th batch."""

    def __init__(self, number: int, batch: int) -> None:
        self.number, self.remaining = number, batch

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.remaining -= 1
        if self.remaining == 0:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_signal_saves_the_step_and_leaves(
    tmp_path: Path, number: int, raised: type[BaseException]
) -> None:
    """Sent in the midst of the second step's accumulation; no other checkpoint would be there."""
    before = signal.getsignal(number)
    with pytest.raises(raised) as caught:
        fit_toy(tmp_path, callbacks=[SignalAt(number, 4)], checkpoint_every=None)
    if raised is SystemExit:
        assert caught.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(number) == before
    stored = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert stored["global_step"] == 2
    assert not (tmp_path / "fit.json").exists()
    resumed, result = fit_toy(tmp_path, checkpoint_every=None)
    whole, expected = fit_toy(tmp_path / "whole", checkpoint_every=None)
    assert result.steps == expected.steps
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name])


def test_outer_handler_decides_what_a_signal_means(tmp_path: Path) -> None:
    received = []

    def handler(number: int, frame: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit_toy(tmp_path, callbacks=[SignalAt(signal.SIGTERM, 3)])
        assert received == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [((3, -1), (30, 3)), ((3, 12), (12, 2)), ((-1, 25), (25, 3)), ((1, 99), (10, 1))],
)
def test_limits(limits: tuple[int, int], expected: tuple[int, int]) -> None:
    config = trainer_config(max_epochs=limits[0], max_steps=limits[1])
    assert fit_plan(10, config) == expected


def test_same_seed_same_fit_and_other_seed_another(tmp_path: Path) -> None:
    one = weights(fit_toy(tmp_path / "1", max_steps=2)[0])
    two = weights(fit_toy(tmp_path / "2", max_steps=2)[0])
    three = weights(fit_toy(tmp_path / "3", max_steps=2, seed=4)[0])
    assert all(torch.equal(one[n], two[n]) for n in one)
    assert any(not torch.equal(one[n], three[n]) for n in one)


def test_process_settings_do_not_outlive_a_fit(tmp_path: Path) -> None:
    fit_toy(tmp_path, max_steps=1, deterministic=True)
    assert not torch.are_deterministic_algorithms_enabled()


def test_accelerator_that_is_not_there(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.fail("this test is about machines without CUDA; mark it gpu there")
    with pytest.raises(ConfigError, match="not available on this machine"):
        fit_toy(tmp_path, accelerator="gpu")


def test_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: Any) -> None:
    """Nothing of other libraries reaches the terminal, and nothing else is written."""
    fit_toy(tmp_path, max_steps=2, progress_bar=True)
    assert capfd.readouterr().err == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "fit.json", "metrics.jsonl"]
    assert [str(w.message) for w in recwarn if "Lightning" in str(w.message)] == []


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("bits", ["none", "nf4", "int8"])
def test_precisions_on_every_base(tmp_path: Path, precision: str, bits: str) -> None:
    """A quantised base keeps its packed weights; with bf16-true its adapter is cast."""
    base = tiny_base() if bits == "none" else quantised_base(bits, tmp_path / "base")
    kinds = {name: p.dtype for name, p in base.named_parameters()}
    module, result = fit_toy(tmp_path / "run", make_module(adapted(base)), precision=precision)
    assert result.best_step > 0
    dtypes = {tensor.dtype for tensor in weights(module).values()}
    assert dtypes == {torch.bfloat16 if precision == "bf16-true" else torch.float32}
    if bits != "none":
        after = module.model.get_base_model().named_parameters()
        packed = {n.replace(".base_layer", ""): p.dtype for n, p in after if "lora_" not in n}
        assert packed == kinds


def test_quantised_model_is_not_moved(tmp_path: Path) -> None:
    module = make_module(adapted(quantised_base("nf4", tmp_path / "base")))
    assert module.to("cpu") is module
    with pytest.raises(ModelError, match="cannot be moved to meta"):
        module.to("meta")
