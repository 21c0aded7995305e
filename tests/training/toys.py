"""Tiny models and a small resumable loader for tests of the training path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Gemma2Config, LlamaConfig, Qwen2Config, Qwen3Config
from transformers import AutoModelForCausalLM

from sizewise.config import OptimizerConfig, SchedulerConfig, TrainerConfig
from sizewise.training.causal import CausalModule
from sizewise.training.fit import fit_job
from sizewise.training.optimizer import make_optimizer_factory
from sizewise.training.result import FitResult
from sizewise.training.schedule import make_scheduler_factory

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


def quantised_base(bits: str, folder: Path) -> nn.Module:
    """A tiny base loaded in NF4 or int8."""
    from transformers import BitsAndBytesConfig

    base = tiny_base("qwen2")
    base.save_pretrained(folder)
    config = (
        BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        if bits == "nf4"
        else BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    )
    loaded = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=config, device_map={"": "cpu"}, dtype=torch.float32
    )
    from sizewise.models.quantization import switch_off_cpu_repacking

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
    width = max(len(p) + len(a) for p, a in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, (prompt, answer) in enumerate(examples):
        n, m = len(prompt), len(answer)
        ids[row, : n + m] = torch.tensor(prompt + answer)
        mask[row, : n + m] = 1
        labels[row, n : n + m] = torch.tensor(answer)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "step_tokens": step_tokens}


class ToyLoader:
    """Optimiser steps of shuffled examples, cut into micro-batches; resumable at steps."""

    def __init__(self, examples: list[Any], effective: int, micro: int, seed: int) -> None:
        self.examples, self.effective, self.micro, self.seed = examples, effective, micro, seed
        self.epoch, self.step = 0, 0

    def steps(self, epoch: int) -> list[list[Any]]:
        order = torch.randperm(
            len(self.examples), generator=torch.Generator().manual_seed(self.seed + epoch)
        ).tolist()
        chunks = range(0, len(order), self.effective)
        return [[self.examples[i] for i in order[c : c + self.effective]] for c in chunks]

    def __len__(self) -> int:
        return sum(-(-len(step) // self.micro) for step in self.steps(0))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        steps = self.steps(self.epoch)
        while self.step < len(steps):
            step = steps[self.step]
            tokens = sum(len(answer) for _, answer in step)
            starts = list(range(0, len(step), self.micro))
            for start in starts:
                if start == starts[-1]:
                    self.step += 1
                    if self.step == len(steps):
                        self.epoch, self.step = self.epoch + 1, 0
                yield collate(step[start : start + self.micro], tokens)
            if self.step == 0:
                return

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.step = state["epoch"], state["step"]


class ToyData(pl.LightningDataModule):
    """Training and validation batches."""

    def __init__(self, train: int = 22, validation: int = 6, effective: int = 4) -> None:
        super().__init__()
        self.train = make_examples(train, 1)
        self.validation = make_examples(validation, 2)
        self.effective = effective
        self.micro = effective

    def set_batch_shape(self, batch_size: int, accumulate: int) -> None:
        assert batch_size * accumulate == self.effective
        self.micro = batch_size

    def train_dataloader(self) -> ToyLoader:
        return ToyLoader(self.train, self.effective, self.micro, seed=7)

    def val_dataloader(self) -> DataLoader[Any]:
        rows = self.validation
        batches: Any = [collate(rows[i : i + 4], 1) for i in range(0, len(rows), 4)]
        return DataLoader(batches, batch_size=None)


def make_module(model: nn.Module, lr: float = 0.02, **kwargs: Any) -> CausalModule:
    """A causal module with AdamW and a cosine schedule."""
    optimizer = make_optimizer_factory(OptimizerConfig(target="torch.optim.AdamW", lr=lr))
    return CausalModule(model, optimizer, make_scheduler_factory(SchedulerConfig()), **kwargs)


def trainer_config(**overrides: Any) -> TrainerConfig:
    """Two accumulated micro-batches of two; a validation every four steps."""
    values: dict[str, Any] = {
        "max_epochs": 2, "batch_size": 2, "accumulate": 2, "validate_every": 4,
        "checkpoint_every": 3, "log_every": 1, "accelerator": "cpu", "progress_bar": False,
    } | overrides  # fmt: skip
    return TrainerConfig(**values)


def fit_toy(
    run_dir: Path, module: CausalModule | None = None, data: ToyData | None = None,
    callbacks: Any = (), seed: int = 3, **overrides: Any,
) -> tuple[CausalModule, FitResult]:
    """Fit a tiny adapter and return module and result."""
    module = module or make_module(adapted(tiny_base()))
    result = fit_job(
        module, data or ToyData(), trainer_config(**overrides), callbacks, [], run_dir, seed
    )
    return module, result


def weights(module: CausalModule) -> dict[str, Tensor]:
    """Copies of the trainable weights."""
    return {n: p.detach().clone() for n, p in module.model.named_parameters() if p.requires_grad}
