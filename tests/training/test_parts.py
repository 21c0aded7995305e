"""Loss, schedule, optimisers, batch shapes and seq2seq, each by itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from tests.training.toys import adapted, fit_toy, make_module, tiny_base, toy_data
from torch import nn

from sizewise.composition.compose import compose_run
from sizewise.config import OptimizerConfig, SchedulerConfig, conf_dir
from sizewise.errors import ConfigError, TrainingError
from sizewise.training.checkpoint import BatchShape
from sizewise.training.module import answer_loss
from sizewise.training.optimizer import (
    lr_scale,
    make_optimizer_factory,
    make_scheduler_factory,
    warmup_steps,
)


def test_loss_is_a_share_of_the_step() -> None:
    torch.manual_seed(0)
    logits_NV, targets_N = torch.randn(10, 7), torch.randint(0, 7, (10,))
    whole, summed = answer_loss(logits_NV, targets_N, 10)
    parts = [answer_loss(logits_NV[a:b], targets_N[a:b], 10)[0] for a, b in ((0, 3), (3, 10))]
    assert float(whole) == pytest.approx(float(nn.functional.cross_entropy(logits_NV, targets_N)))
    assert float(sum(parts)) == pytest.approx(float(whole))
    assert float(summed) == pytest.approx(10 * float(whole))


def test_label_smoothing_changes_the_loss_and_not_the_likelihood() -> None:
    torch.manual_seed(0)
    logits_NV, targets_N = torch.randn(6, 5), torch.randint(0, 5, (6,))
    loss, summed = answer_loss(logits_NV, targets_N, 6, label_smoothing=0.2)
    expected = nn.functional.cross_entropy(logits_NV, targets_N, label_smoothing=0.2)
    assert float(loss) == pytest.approx(float(expected))
    assert float(summed) == pytest.approx(
        float(nn.functional.cross_entropy(logits_NV, targets_N)) * 6
    )


def test_bf16_logits_are_summed_in_fp32() -> None:
    logits_NV = torch.randn(4000, 3, dtype=torch.bfloat16)
    loss, _ = answer_loss(logits_NV, torch.zeros(4000, dtype=torch.long), 4000)
    assert loss.dtype == torch.float32


@pytest.mark.parametrize(("warmup", "expected"), [(0.03, 3), (0, 0), (10, 10), (500, 100)])
def test_warmup_is_a_share_or_a_number(warmup: float, expected: int) -> None:
    assert warmup_steps(warmup, 100) == expected


@pytest.mark.parametrize("name", ["cosine", "linear", "constant"])
def test_schedules(name: str) -> None:
    scales = [lr_scale(name, step, 10, 110, 0.1) for step in range(110)]
    assert scales[0] == pytest.approx(1 / 11)
    assert scales[:10] == sorted(scales[:10])
    assert scales[10] == 1.0
    assert scales[10:] == sorted(scales[10:], reverse=True)
    end, middle = lr_scale(name, 110, 10, 110, 0.1), lr_scale(name, 60, 10, 110, 0.1)
    assert end == pytest.approx(1.0 if name == "constant" else 0.1)
    assert middle == pytest.approx(1.0 if name == "constant" else 0.55)


def test_schedule_of_a_fit_counts_optimiser_steps(tmp_path: Path) -> None:
    import json

    fit_toy(tmp_path, lr=0.02)
    lines = [json.loads(x)["values"] for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [v["lr"] for v in lines if "lr" in v]
    assert rates == pytest.approx([0.02 * lr_scale("cosine", s, 1, 12, 0.0) for s in range(12)])


def options(group: str) -> list[Path]:
    found = sorted((conf_dir() / group).glob("*.yaml"))
    assert found
    return found


def optimizer_option(path: Path) -> OptimizerConfig:
    """The option as it is composed; a learning rate by the rule is filled in."""
    return compose_run([f"optimizer={path.stem}", "model.suggested_lr=1e-3"]).optimizer


@pytest.mark.parametrize("path", options("optimizer"), ids=lambda p: p.stem)
def test_every_optimiser_option_lowers_a_loss(path: Path) -> None:
    config = optimizer_option(path)
    config.weight_decay = 0.01
    torch.manual_seed(0)
    matrix, vector = nn.Parameter(torch.randn(80, 80)), nn.Parameter(torch.randn(80))
    optimizer = make_optimizer_factory(config)([matrix, vector])
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.01, 0.0]
    before = float(((matrix**2).mean() + (vector**2).mean()).detach())
    for _ in range(5):
        optimizer.zero_grad()
        loss = (matrix**2).mean() + (vector**2).mean()
        loss.backward()
        optimizer.step()
    assert float(loss) < before


@pytest.mark.parametrize("path", options("scheduler"), ids=lambda p: p.stem)
def test_every_scheduler_option_builds(path: Path) -> None:
    config = SchedulerConfig(**OmegaConf.to_container(OmegaConf.load(path)))
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = make_scheduler_factory(config)(optimizer, 100)
    assert scheduler.get_last_lr() == [pytest.approx(1 / 4)]


def test_fused_where_there_is_one() -> None:
    parameters = [nn.Parameter(torch.ones(2, 2))]
    adamw = OptimizerConfig(target="torch.optim.AdamW")
    assert make_optimizer_factory(adamw)(parameters).defaults["fused"] is True
    assert make_optimizer_factory(adamw, allow_fused=False)(parameters).defaults["fused"] is None
    plain = OptimizerConfig(target="torch.optim.AdamW", kwargs={"foreach": False, "fused": False})
    assert make_optimizer_factory(plain)(parameters).defaults["fused"] is False


@pytest.mark.parametrize(
    ("target", "message"),
    [("torch.optim.AdamV", "cannot be imported"), ("torch.nn.Linear", "not a torch.optim")],
)
def test_unknown_optimiser(target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_optimizer_factory(OptimizerConfig(target=target))


def test_options_that_do_not_suit_the_optimiser() -> None:
    factory = make_optimizer_factory(OptimizerConfig(target="torch.optim.SGD", kwargs={"beta": 1}))
    with pytest.raises(ConfigError, match="beta"):
        factory([nn.Parameter(torch.ones(2, 2))])


@pytest.mark.parametrize("name", ["adamw8bit", "adafactor"])
def test_optimiser_states_resume(tmp_path: Path, name: str) -> None:
    """States that are no plain fp32 tensors come back as they were."""
    from tests.training.toys import KillAt, KilledError, weights

    config = optimizer_option(conf_dir() / "optimizer" / f"{name}.yaml")

    def module() -> Any:
        made = make_module(adapted(tiny_base()))
        made.optimizer_factory = make_optimizer_factory(config)
        return made

    whole = weights(fit_toy(tmp_path / "whole", module(), max_steps=5)[0])
    with pytest.raises(KilledError):
        fit_toy(
            tmp_path / "cut", module(), callbacks=[KillAt("on_train_batch_start", 8)], max_steps=5
        )
    resumed = weights(fit_toy(tmp_path / "cut", module(), max_steps=5)[0])
    assert all(torch.equal(resumed[key], tensor) for key, tensor in whole.items())


def test_smaller_shapes_keep_the_effective_batch() -> None:
    shape: BatchShape | None = BatchShape(12, 3)
    seen = []
    while shape is not None:
        seen.append((shape.batch_size, shape.accumulate))
        assert shape.batch_size * shape.accumulate == 36
        shape = shape.smaller()
    assert seen == [(12, 3), (6, 6), (3, 12), (1, 36)]


def tiny_t5() -> nn.Module:
    from peft import LoraConfig, get_peft_model
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    base = T5ForConditionalGeneration(T5Config(
        vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.1,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=2,
    )).eval().requires_grad_(False)  # fmt: skip
    return get_peft_model(
        base, LoraConfig(r=2, target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM")
    )


def seq2seq_module() -> Any:
    from sizewise.training.module import Seq2SeqModule

    adamw = make_optimizer_factory(OptimizerConfig(target="torch.optim.AdamW", lr=0.1))
    return Seq2SeqModule(tiny_t5(), adamw, make_scheduler_factory(SchedulerConfig()))


def test_seq2seq_learns_and_equals_transformers_own_loss(tmp_path: Path) -> None:
    from sizewise.data.batches.collate import collate_seq2seq

    data = toy_data()
    data._collate = collate_seq2seq
    module, result = fit_toy(tmp_path, seq2seq_module(), data)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert '"val_loss"' in lines[0]
    assert result.best_step > 0
    assert result.tokens == 2 * sum(item.length for item in data.train.encoded)
    batch = collate_seq2seq(data.validation.encoded, 0, 1)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "labels")}
    with torch.no_grad():
        plain = float(module.model(**inputs).loss)
    assert plain == pytest.approx(result.best_val_loss, rel=1e-5)
    assert math.isfinite(plain)


def test_seq2seq_refuses_fp16(tmp_path: Path) -> None:
    module = seq2seq_module()

    class Trainer:
        precision = "16-mixed"

    module._trainer = Trainer()
    with pytest.raises(TrainingError, match="bf16-mixed"):
        module.on_fit_start()
