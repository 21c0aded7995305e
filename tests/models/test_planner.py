"""The memory planner: against measured peaks on the CPU, and its advice."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from sizewise.composition.compose import compose_run
from sizewise.config.model import (
    ArchitectureConfig,
    LoraConfig,
    ModelConfig,
    QuantizationConfig,
)
from sizewise.config.training import OptimizerConfig
from sizewise.errors import ModelError
from sizewise.job.bases import memory_key, plan_job
from sizewise.models import head
from sizewise.models.adapter.attach import attach_adapter, enable_checkpointing
from sizewise.models.architecture import model_config
from sizewise.models.base import load_base
from sizewise.models.dtypes import dtype_name
from sizewise.models.head import answer_losses
from sizewise.models.plan import planner, trace
from sizewise.models.plan.planner import GB, MemoryPlan, Workload, plan_memory, smaller_batches
from sizewise.models.plan.trace import Shape, trace_generation, trace_training, with_layers
from sizewise.models.plan.weights import (
    cast_bytes,
    largest_linear_bytes,
    optimizer_bytes,
    weight_bytes,
)
from sizewise.models.size import model_sizes
from sizewise.models.tiny import tiny_figures
from sizewise.training.module import answer_loss

ADAMW = OptimizerConfig(target="torch.optim.AdamW")
WORK = Workload(batch_size=4, prompt_tokens=96, answer_tokens=32, new_tokens=8, eval_batch_size=4)
LORA = LoraConfig(r=4, dropout=0.0)
ROOM = 100_000  # bytes that do not matter: position tables, masks, scalars


def peak_of(work: Callable[[], Any]) -> int:
    """Most bytes that the CPU allocator had handed out at once while ``work`` ran.

    What earlier models left in reference cycles is freed first: freed later, it would be
    subtracted.
    """
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    live = peak = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


def wide(model_type: str, layers: int = 3, vocabulary: int = 512) -> ModelConfig:
    """A model that is small, but whose activations outweigh its scalars."""
    figures = tiny_figures(model_type, vocabulary)
    extra = dict(figures.extra) | {"pad_token_id": 0}
    if "layer_types" in extra:
        extra["layer_types"] = ["full_attention"] * layers
    figures = replace(
        figures, hidden_size=64, intermediate_size=160, num_layers=layers, extra=extra,
        decoder_layers=layers if model_type == "t5" else None,
    )  # fmt: skip
    family = "seq2seq" if model_type == "t5" else "causal"
    return ModelConfig(
        name="x", path="none", init="random", family=family, architecture=figures,
        attn_implementation="eager" if model_type in ("gemma2", "t5") else "sdpa",
    )  # fmt: skip


def planned(model: ModelConfig, work: Workload = WORK, lora: LoraConfig = LORA) -> MemoryPlan:
    return plan_memory(model, QuantizationConfig(), lora, ADAMW, work, device_type="cpu")


def training_batch(model: ModelConfig, work: Workload) -> dict[str, torch.Tensor]:
    seq2seq = model.family == "seq2seq"
    length = work.prompt_tokens + (0 if seq2seq else work.answer_tokens)
    ids = torch.randint(3, 512, (work.batch_size, length))
    labels = torch.full((work.batch_size, length), -100)
    labels[:, -work.answer_tokens :] = ids[:, -work.answer_tokens :]
    labels = labels[:, -work.answer_tokens :] if seq2seq else labels
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


@pytest.mark.parametrize("checkpointed", [False, "selective", True])
@pytest.mark.parametrize("model_type", ["llama", "phi3", "gemma2", "gemma3"])
def test_training_peak_in_mixed_precision_is_the_measured_one(
    model_type: str, checkpointed: bool | str
) -> None:
    """A base in bf16 under an adapter in fp32, with autocast: what a fit on a GPU has."""
    check_training_peak(model_type, checkpointed, mixed=True)


@pytest.mark.parametrize("checkpointed", [False, "selective", True])
def test_training_peak_over_nf4_is_the_measured_one(checkpointed: bool | str) -> None:
    """With the largest layer, which is unpacked for its product."""
    check_training_peak("llama", checkpointed, mixed=True, method="nf4")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each training step that is planned was traced in mixed precision."""
    found: list[bool] = []
    real = planner.trace_training
    monkeypatch.setattr(
        planner, "trace_training",
        lambda *args, mixed, **named: found.append(mixed) or real(*args, mixed=mixed, **named),
    )  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("precision", "dtype", "mixed"),
    [
        ("auto", "auto", True), ("bf16-mixed", "bfloat16", True), ("bf16-true", "bfloat16", True),
        ("16-mixed", "auto", False), ("16-mixed", "float16", True), ("32-true", "auto", False),
        ("auto", "float32", False),
    ],
)  # fmt: skip
def test_a_gpu_casts_the_adapter_alone_where_precision_and_base_agree(
    precision: str, dtype: str, mixed: bool, asked: list[bool]
) -> None:
    """Elsewhere PEFT casts what goes in, or autocast the base, and more is alive."""
    model = replace(wide("llama"), dtype=dtype)
    work = replace(WORK, precision=precision)
    plan_memory(model, QuantizationConfig(), LORA, ADAMW, work, "cuda", advise=False)
    assert asked == [mixed]


def test_a_gpu_that_is_here_without_bf16_is_planned_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``auto`` is fp32 weights in fp16 arithmetic there; a base in fp16 has its adapter cast."""
    plain, half = wide("llama"), replace(wide("llama"), dtype="float16")

    def gpu(model: ModelConfig) -> dict[str, int]:
        return dict(
            plan_memory(model, QuantizationConfig(), LORA, ADAMW, WORK, advise=False).training
        )

    recent, in_bf16 = gpu(plain), gpu(half)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    old, in_fp16 = gpu(plain), gpu(half)
    assert old["weights"] == 2 * recent["weights"]
    assert old["activations"] > 1.5 * recent["activations"]
    assert in_fp16["activations"] == recent["activations"] < in_bf16["activations"]


@pytest.mark.parametrize("recomputes", [False, True])
def test_copies_that_autocast_makes_of_a_base_are_planned(
    recomputes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An fp32 base under 16-bit autocast: each product keeps its weight's copy for its gradient."""
    model = wide("llama", layers=6)
    config = model_config(model)
    planned_bytes = cast_bytes(config, torch.bfloat16, recomputes)
    base = load_base(model)
    weights = {m.weight.shape for m in base.modules() if isinstance(m, nn.Linear)}
    adapted = attach_adapter(base, LORA, model, 0).train()
    inputs = torch.randint(3, 512, (1, 4))
    alive: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        shapes = {tensor.shape, tensor.t().shape} if tensor.dim() == 2 else set()
        if tensor.dtype == torch.bfloat16 and shapes & weights:
            alive[tensor.untyped_storage()._cdata] = tensor.nbytes
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
        torch.autocast("cpu", torch.bfloat16, cache_enabled=False),
    ):
        logits = adapted(inputs, use_cache=False).logits
    assert logits.requires_grad
    if recomputes:
        assert planned_bytes < cast_bytes(config, torch.bfloat16, False) / 2
    else:
        assert sum(alive.values()) == pytest.approx(planned_bytes, rel=0.05)
    old = replace(WORK, precision="16-mixed", gradient_checkpointing=recomputes)
    whole = replace(old, precision="32-true")
    plans = [
        plan_memory(
            replace(model, dtype="float32"), QuantizationConfig(), LORA, ADAMW, work, advise=False
        )
        for work in (old, whole)
    ]
    assert plans[0].training["weight_copies"] == planned_bytes
    assert plans[1].training["weight_copies"] == 0


def test_a_job_is_planned_in_its_own_precision() -> None:
    auto, whole = (
        plan_job(compose_run(["model=nano", f"trainer.precision={precision}"]), advise=False)
        for precision in ("auto", "32-true")
    )
    assert whole.training["activations"] > 1.2 * auto.training["activations"]


def test_a_plan_for_a_gpu_is_one_in_mixed_precision(asked: list[bool]) -> None:
    for device in ("cuda", "cpu"):
        plan_memory(wide("llama"), QuantizationConfig(), LORA, ADAMW, WORK, device, advise=False)
    assert asked == [True, False]


@pytest.mark.parametrize("checkpointed", [False, "selective", True])
@pytest.mark.parametrize("model_type", ["llama", "phi3", "gemma2", "gemma3", "t5"])
def test_training_peak_is_the_measured_one(model_type: str, checkpointed: bool | str) -> None:
    check_training_peak(model_type, checkpointed)


@pytest.mark.parametrize("lora", [LORA, LoraConfig(method="full")], ids=["lora", "full"])
@pytest.mark.parametrize("model_type", ["llama", "gemma2", "t5"])
def test_training_peak_with_logits_in_parts_is_the_measured_one(
    model_type: str, lora: LoraConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = replace(WORK, prompt_tokens=120, answer_tokens=120)
    whole = check_training_peak(model_type, True, lora, work, 8192)
    monkeypatch.setattr(head, "MOST_LOGITS", 32 * 8192)
    monkeypatch.setattr(head, "LEAST_ROWS", 1)
    parts = check_training_peak(model_type, True, lora, work, 8192)
    assert parts["logits"] < 0.2 * whole["logits"]
    assert sum(parts.values()) < 0.6 * sum(whole.values())


def check_training_peak(
    model_type: str,
    checkpointed: bool | str,
    lora: LoraConfig = LORA,
    work: Workload = WORK,
    vocabulary: int = 512,
    mixed: bool = False,
    method: str = "none",
) -> dict[str, int]:
    dtype = torch.bfloat16 if mixed else torch.float32
    model = replace(wide(model_type, vocabulary=vocabulary), dtype=dtype_name(dtype))
    stored = QuantizationConfig(method=method, compute_dtype=dtype_name(dtype))
    adapted = attach_adapter(load_base(model, stored), lora, model, 0)
    if checkpointed:
        enable_checkpointing(adapted, checkpointed == "selective")
    batch = training_batch(model, work)

    def step() -> None:
        adapted.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype, enabled=mixed):
            loss = answer_losses(adapted.train(), batch, partial(answer_loss, step_tokens=9))[0]
        loss.backward()

    step()
    adapted.zero_grad(set_to_none=True)
    measured = peak_of(step)
    shape = Shape(work.batch_size, work.prompt_tokens, work.answer_tokens)
    parts = trace_training(
        model_config(model), model, lora, dtype, shape, checkpointed, mixed=mixed
    )
    assert set(parts) == {"gradients", "activations", "logits"}
    unpacked = largest_linear_bytes(model_config(model), stored, dtype)
    assert sum(parts.values()) + unpacked == pytest.approx(measured, rel=0.10, abs=ROOM)
    return parts


def test_each_way_to_compute_again_needs_less() -> None:
    shape = Shape(WORK.batch_size, WORK.prompt_tokens, WORK.answer_tokens)
    # Of few layers the last, which is computed at answer positions where nothing is again, counts.
    model = wide("llama", layers=8)
    ways = [
        trace_training(model_config(model), model, LORA, torch.float32, shape, way)["activations"]
        for way in (False, "selective", True)
    ]
    assert ways[1] < 0.9 * ways[0]
    assert ways[2] < 0.7 * ways[1]


@pytest.mark.parametrize("model_type", ["llama", "gemma3"])
def test_generation_peak_is_the_measured_one(model_type: str) -> None:
    model = wide(model_type)
    base = load_base(model)
    ids = torch.randint(3, 512, (WORK.eval_batch_size, WORK.prompt_tokens))

    def write() -> None:
        with torch.no_grad():
            base.generate(ids, max_new_tokens=8, min_new_tokens=8, do_sample=False)

    write()
    plan = planned(model, lora=LoraConfig(method="none"))
    computed = plan.generation["kv_cache"] + plan.generation["activations"]
    assert computed == pytest.approx(peak_of(write), rel=0.10, abs=ROOM)
    figures = model.architecture
    assert figures is not None
    length = WORK.prompt_tokens + WORK.new_tokens - 1
    cache = 2 * 4 * figures.num_layers * WORK.eval_batch_size * length * 2 * 16
    assert plan.generation["kv_cache"] == pytest.approx(cache, rel=0.05)


@pytest.mark.parametrize("method", ["none", "int8", "nf4"])
@pytest.mark.parametrize("model_type", ["llama", "gemma3", "phi3", "t5"])
def test_weights_are_those_of_the_loaded_model(model_type: str, method: str, tiny: Any) -> None:
    model, quantization = tiny(model_type), QuantizationConfig(method=method)
    planned_bytes = weight_bytes(model_config(model), quantization, torch.float32)
    loaded = model_sizes(load_base(model, quantization)).memory_bytes
    assert planned_bytes == pytest.approx(loaded, rel=0.02, abs=2_000)


def test_layers_that_stay_fp32_in_an_fp16_model_are_counted_so(tiny: Any) -> None:
    for method in ("none", "nf4"):
        quantization = QuantizationConfig(method=method, compute_dtype="float16")
        for model_type in ("t5", "llama"):
            model = replace(tiny(model_type), dtype="float16")
            planned_bytes = weight_bytes(model_config(model), quantization, torch.float16)
            loaded = model_sizes(load_base(model, quantization)).memory_bytes
            assert planned_bytes == pytest.approx(loaded, rel=0.02, abs=2_000)


def test_counts_are_those_of_the_loaded_model(tiny: Any) -> None:
    plan = planned(tiny("gemma3"))
    sizes = model_sizes(attach_adapter(load_base(tiny("gemma3")), LORA, tiny("gemma3"), 0))
    assert (plan.total, plan.trainable) == (sizes.total, sizes.trainable)
    assert plan.training["adapters"] == sizes.adapter_bytes


def test_many_layers_continue_the_line_of_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    model, shape = wide("llama", layers=7), Shape(4, 96, 32)

    def traced() -> dict[str, int]:
        return trace_training(model_config(model), model, LORA, torch.float32, shape, False)

    continued = traced()
    monkeypatch.setattr(trace, "MORE", 7)
    assert sum(continued.values()) == pytest.approx(sum(traced().values()), rel=0.02)


@pytest.mark.parametrize("model_type", ["llama", "gemma3", "t5"])
def test_what_is_made_like_an_earlier_result_is_counted_as_one(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def traced() -> list[dict[str, int]]:
        model, shape = wide(model_type, layers=2), Shape(2, 24, 8)
        common = (model_config(model), model, LoraConfig(r=4, dropout=0.1), torch.bfloat16, shape)
        return [trace_training(*common, "selective"), trace_generation(*common)]

    looked_up = traced()
    monkeypatch.setattr(trace, "_made", lambda func, args, kwargs: func(*args, **kwargs))
    assert traced() == looked_up


def test_numbers_of_other_kinds_are_other_arguments() -> None:
    with torch.device("meta"), trace.LiveBytes():
        whole = torch.ones(3, dtype=torch.long)
        dtypes = [(whole * factor).dtype for factor in (1, 1.0, 1, 1.0)]
    assert dtypes == [torch.long, torch.float32] * 2


def test_a_config_with_fewer_layers() -> None:
    config = with_layers(model_config(wide("gemma3")), 2)
    assert config.text_config.num_hidden_layers == len(config.text_config.layer_types) == 2


def test_no_training_needs_no_training_memory() -> None:
    plan = planned(wide("llama"), lora=LoraConfig(method="none"))
    assert plan.trainable == plan.training_peak == sum(plan.training.values()) == 0
    assert plan.generation_peak > 0


@pytest.mark.parametrize(
    ("target", "kwargs", "expected"),
    [
        ("torch.optim.AdamW", {}, 8000),
        ("bitsandbytes.optim.PagedAdamW8bit", {}, 2031),
        ("torch.optim.Adafactor", {}, 0),
        ("torch.optim.SGD", {}, 0),
        ("torch.optim.SGD", {"momentum": 0.9}, 4000),
    ],
)
def test_optimizer_states(target: str, kwargs: dict[str, float], expected: int) -> None:
    optimizer = OptimizerConfig(target=target, kwargs=kwargs)
    assert optimizer_bytes(optimizer, 1000, 4) == expected


def test_a_base_trained_in_full_is_fp32_meanwhile() -> None:
    full = LoraConfig(method="full")
    auto, half = (
        plan_memory(replace(wide("llama"), dtype=dtype), QuantizationConfig(), full, ADAMW, WORK)
        for dtype in ("auto", "bfloat16")
    )
    assert auto.training["weights"] == 2 * auto.generation["weights"] == 4 * auto.total
    assert half.training["weights"] == half.generation["weights"] == 2 * half.total
    assert auto.training["optimizer"] == 2 * half.training["optimizer"]
    assert auto.generation == half.generation


def test_advice_is_followed_by_a_fit() -> None:
    figures = ArchitectureConfig(
        model_type="llama", hidden_size=3072, intermediate_size=8192, num_layers=4, num_heads=24,
        num_kv_heads=8, head_dim=128, vocab_size=128256, max_positions=131072,
    )  # fmt: skip
    model = ModelConfig(name="x", path="none", init="random", architecture=figures)
    big = Workload(batch_size=64, prompt_tokens=1984, answer_tokens=64, eval_batch_size=8)
    quantization = QuantizationConfig()
    plan = plan_memory(model, quantization, LoraConfig(), ADAMW, big)
    assert not plan.fits[8]
    advice = plan.advice[8]
    assert advice is not None
    assert advice.startswith("trainer.gradient_checkpointing=")
    sizes = [part.split("=")[1] for part in advice.split() if part.startswith("trainer.batch")]
    size = int(sizes[0]) if sizes else 64
    method = "nf4" if "nf4" in advice else "int8" if "int8" in advice else "none"
    changed = replace(
        big,
        gradient_checkpointing="true" in advice or "selective",
        batch_size=size,
        eval_batch_size=min(8, size),
    )
    again = plan_memory(model, QuantizationConfig(method=method), LoraConfig(), ADAMW, changed)
    assert again.fits[8]
    assert again.training_peak < 8 * GB
    assert all(plan.fits[card] or card in plan.advice for card in plan.fits)


def test_advice_lowers_an_evaluation_batch_by_its_own_name() -> None:
    """Where it is set it is not the trainer's, and a smaller trainer.batch_size does nothing."""
    job = ["model=gemma4b", "lora=none", "trainer.batch_size=1", "dataset.max_length=1024"]
    plan = plan_job(compose_run([*job, "evaluation.batch_size=64"]))
    assert not plan.fits[16]
    advice = plan.advice[16]
    assert advice is not None
    assert "trainer." not in advice
    assert plan_job(compose_run([*job, *advice.split()]), advise=False).fits[16]


def test_batches_are_halved_by_the_settings_that_make_them_so() -> None:
    names = [name for name, _ in smaller_batches(Workload(batch_size=4, eval_batch_size=4), True)]
    assert names == [
        "trainer.batch_size=2 trainer.accumulate=×2",
        "trainer.batch_size=1 trainer.accumulate=×4",
    ]
    own = Workload(batch_size=2, eval_batch_size=8, own_eval_batch=True)
    *_, (name, last) = smaller_batches(own, True)
    assert name == "trainer.batch_size=1 trainer.accumulate=×2 evaluation.batch_size=1"
    assert (last.batch_size, last.eval_batch_size) == (1, 1)


def test_bf16_true_stores_all_weights_in_bf16() -> None:
    job = ["model=nano", "lora=full"]
    whole, half = (
        plan_job(compose_run([*job, f"trainer.precision={precision}"]), advise=False)
        for precision in ("auto", "bf16-true")
    )
    for part in ("weights", "gradients", "optimizer"):
        assert whole.training[part] == 2 * half.training[part]


def test_jobs_that_need_other_memory_are_not_planned_as_one() -> None:
    usual = ["model=nano"]
    for more in ("trainer.precision=bf16-true", "lora.dropout=0.1", "optimizer=sgd"):
        assert memory_key(compose_run([*usual, more])) != memory_key(compose_run(usual)), more
    momentum = [["optimizer=sgd", f"optimizer.kwargs.momentum={value}"] for value in (0, 0.9)]
    keys = {memory_key(compose_run([*usual, *more])) for more in momentum}
    assert len(keys) == 2


def test_a_mixture_of_experts_is_no_traceback(tmp_path: Path) -> None:
    """Its layers ask for values; the plan says so in one message."""
    from transformers import MixtralConfig

    MixtralConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1,
    ).save_pretrained(tmp_path)  # fmt: skip
    mixture = ModelConfig(name="m", path=str(tmp_path), init="tiny_random")
    adamw = OptimizerConfig(target="torch.optim.AdamW")
    with pytest.raises(ModelError, match="mixtral cannot be planned"):
        plan_memory(mixture, QuantizationConfig(), LoraConfig(r=2), adamw, Workload(2, 8, 4, 4, 2))
