"""Tiny models, data and fits for tests of the training path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, Qwen2Config, Qwen3Config

from sizewise.config import OptimizerConfig, SchedulerConfig, TrainerConfig
from sizewise.data.batches.collate import collate_training
from sizewise.data.batches.datamodule import SizewiseDataModule
from sizewise.data.example import Example, Message
from sizewise.data.tokens.encode import EncodedSplit
from sizewise.data.tokens.table import Encoded
from sizewise.record.fit import FitResult
from sizewise.training.fit import fit_job
from sizewise.training.module import CausalModule
from sizewise.training.optimizer import make_optimizer_factory, make_scheduler_factory

VOCABULARY = 64
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
CONFIGS = {
    "qwen2": lambda **k: Qwen2Config(**SIZES, **k),
    "qwen3": lambda **k: Qwen3Config(**SIZES, head_dim=8, **k),
    "llama": lambda **k: LlamaConfig(**SIZES, **k),
    "gemma2": lambda **k: Gemma2Config(
        **SIZES, head_dim=8, query_pre_attn_scalar=8, sliding_window=8,
        final_logit_softcapping=5.0, **k
    ),
}  # fmt: skip
TARGETS = ["q_proj", "v_proj", "down_proj"]


def tiny_base(architecture: str = "qwen2", **overrides: Any) -> nn.Module:
    """A random, frozen base in eval mode, as ``from_pretrained`` returns it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[architecture](**overrides))
    return model.eval().requires_grad_(False)


def quantised_base(bits: str, folder: Path, storage: torch.dtype = torch.uint8) -> nn.Module:
    """A tiny base loaded in NF4 (packed into ``storage``) or int8."""
    from transformers import BitsAndBytesConfig

    base = tiny_base("qwen2")
    base.save_pretrained(folder)
    config = (
        BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_quant_storage=storage
        )
        if bits == "nf4"
        else BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    )
    loaded = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=config, device_map={"": "cpu"}, dtype=torch.float32
    )
    from sizewise.models.base import switch_off_cpu_repacking

    switch_off_cpu_repacking(loaded)
    return loaded.requires_grad_(False)


def adapted(base: nn.Module, dropout: float = 0.1, seed: int = 0) -> nn.Module:
    """Attach LoRA; its B matrices are not zero, so that every gradient says something."""
    torch.manual_seed(seed)
    model = get_peft_model(
        base,
        LoraConfig(r=2, lora_alpha=4, lora_dropout=dropout, target_modules=TARGETS,
                   task_type="CAUSAL_LM"),
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
    return model


def make_examples(count: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """Prompts and answers of random lengths; answers repeat the prompt's first tokens."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        length = int(torch.randint(4, 20, (1,), generator=generator))
        prompt = torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()
        made.append((prompt, [*prompt[: int(torch.randint(1, 4, (1,), generator=generator))], 2]))
    return made


def collate(examples: list[tuple[list[int], list[int]]], step_tokens: int) -> dict[str, Any]:
    """Right-padded batch with an answer-only mask."""
    return collate_training([Encoded(*pair) for pair in examples], 0, step_tokens)


def split(pairs: list[tuple[list[int], list[int]]]) -> EncodedSplit:
    """Encoded examples without texts."""
    examples = [
        Example((Message("user", str(p)),), str(a), str(n)) for n, (p, a) in enumerate(pairs)
    ]
    return EncodedSplit(tuple(Encoded(*pair) for pair in pairs), tuple(examples))


def toy_data(
    train: int = 22, validation: int = 6, batch_size: int = 2, accumulate: int = 2
) -> SizewiseDataModule:
    """Training and validation batches; the last step of an epoch is not full."""
    return SizewiseDataModule(
        split(make_examples(train, 1)), split(make_examples(validation, 2)),
        batch_size=batch_size, accumulate=accumulate, eval_batch_size=4, seed=7,
    )  # fmt: skip


def make_module(
    model: nn.Module, lr: float = 0.02, kind: type[CausalModule] = CausalModule, **kwargs: Any
) -> CausalModule:
    """A causal module with AdamW and a cosine schedule."""
    optimizer = make_optimizer_factory(OptimizerConfig(target="torch.optim.AdamW", lr=lr))
    return kind(model, optimizer, make_scheduler_factory(SchedulerConfig()), **kwargs)


def trainer_config(**overrides: Any) -> TrainerConfig:
    """Two accumulated micro-batches of two; a validation every four steps."""
    values: dict[str, Any] = {
        "max_epochs": 2, "batch_size": 2, "accumulate": 2, "validate_every": 4,
        "checkpoint_every": 3, "log_every": 1, "accelerator": "cpu", "progress_bar": False,
    } | overrides  # fmt: skip
    return TrainerConfig(**values)


def fit_toy(
    run_dir: Path,
    module: CausalModule | None = None,
    data: SizewiseDataModule | None = None,
    callbacks: Any = (),
    seed: int = 3,
    lr: float = 0.02,
    stop_at: float | None = None,
    **overrides: Any,
) -> tuple[CausalModule, FitResult]:
    """Fit a tiny adapter and return module and result."""
    module = module or make_module(adapted(tiny_base()), lr=lr)
    config = trainer_config(**overrides)
    data = data or toy_data(batch_size=config.batch_size, accumulate=config.accumulate)
    return module, fit_job(module, data, config, callbacks, [], run_dir, seed, stop_at)


def weights(module: CausalModule) -> dict[str, Tensor]:
    """Copies of the trainable weights."""
    return {n: p.detach().clone() for n, p in module.model.named_parameters() if p.requires_grad}


class KilledError(Exception):
    """Stands for the end of the process."""


class KillAt(pl.Callback):
    """Ends a fit when a hook is called for the n-th time."""

    def __init__(self, hook: str, count: int) -> None:
        self.remaining = count
        setattr(self, hook, self._kill)

    def _kill(self, *args: Any, **kwargs: Any) -> None:
        self.remaining -= 1
        if self.remaining == 0:
            raise KilledError
