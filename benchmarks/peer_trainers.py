"""HF Trainer + PEFT and TRL's SFTTrainer on the benchmarks' data."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar as disable_progress_bars
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from training_setup import ALPHA, RANK, RATE, TARGETS, VOCABULARY, Seconds
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging as transformers_logging

disable_progress_bars()
transformers_logging.set_verbosity_error()
TRL_MISSING = "TRL is not measured: it is not installed (pip install trl)."


class Clock(TrainerCallback):
    """Time from the start to the end of training."""

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.begin = Seconds.now()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds = Seconds.now() - self.begin


def trl_available() -> bool:
    """Whether TRL can be imported."""
    return importlib.util.find_spec("trl") is not None


def peft_model(base: nn.Module) -> Any:
    """Plain PEFT on a copy of ``base``."""
    torch.manual_seed(0)
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM"
    )
    return get_peft_model(copy.deepcopy(base), config)


def tokenizer() -> PreTrainedTokenizerFast:
    """A stand-in; the data is token ids already."""
    words = {"<pad>": 0, "<bos>": 1, "<eos>": 2} | {f"w{i}": i for i in range(3, VOCABULARY)}
    built = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    built.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=built, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )


def settings(batch: int, folder: str, base: nn.Module) -> dict[str, Any]:
    """What both take: the same optimiser, precision and schedule as ours, and no reporting."""
    on_cpu = next(base.parameters()).device.type == "cpu"
    return {
        "output_dir": folder, "per_device_train_batch_size": batch, "num_train_epochs": 1,
        "learning_rate": RATE, "lr_scheduler_type": "constant", "max_grad_norm": 1.0,
        "weight_decay": 0.0, "save_strategy": "no", "report_to": [], "disable_tqdm": True,
        "logging_steps": 10, "use_cpu": on_cpu, "seed": 0, "bf16": not on_cpu,
    }  # fmt: skip


class AnswerLogitsTrainer(Trainer):
    """HF Trainer whose head runs from the first answer position of a left-padded batch on."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        labels_BT = inputs["labels"]
        first = int((labels_BT != -100).any(0).nonzero().min())
        keep = labels_BT.shape[1] - first + 1  # the position before it predicts the first token
        answers = {"labels": labels_BT[:, -keep:], "logits_to_keep": keep}
        return super().compute_loss(model, {**inputs, **answers}, *args, **kwargs)


def hf_fit(
    base: nn.Module,
    pairs: Sequence[Any],
    batch: int,
    grouping: bool = False,
    answer_logits: bool = False,
) -> tuple[Seconds, nn.Module]:
    """HF Trainer with its own collator.

    Args:
        grouping: its length-grouped sampler, which sorts windows of 50 batches.
        answer_logits: what its users write themselves to spare the head at the prompt.
    """
    words = tokenizer()
    words.padding_side = "left" if answer_logits else "right"
    rows = [{"input_ids": p + a, "labels": [-100] * len(p) + a} for p, a in pairs]
    strategy = {"train_sampling_strategy": "group_by_length"} if grouping else {}
    clock, model = Clock(), peft_model(base)
    with tempfile.TemporaryDirectory() as folder:
        trainer = (AnswerLogitsTrainer if answer_logits else Trainer)(
            model=model,
            args=TrainingArguments(**settings(batch, folder, base), **strategy),
            train_dataset=Dataset.from_list(rows),
            data_collator=DataCollatorForSeq2Seq(words, padding=True),
            callbacks=[clock],
        )
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train()
    return clock.seconds, model


def trl_fit(
    base: nn.Module, pairs: Sequence[Any], batch: int, **options: Any
) -> tuple[Seconds, nn.Module]:
    """TRL's SFTTrainer on token ids with a completion mask."""
    from trl import SFTConfig, SFTTrainer

    rows = [{"input_ids": p + a, "completion_mask": [0] * len(p) + [1] * len(a)} for p, a in pairs]
    clock, model = Clock(), peft_model(base)
    chosen = {
        "gradient_checkpointing": False,
        "max_length": 512,
        "completion_only_loss": True,
    } | options
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(**settings(batch, folder, base), **chosen),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer(),
            callbacks=[clock],
        )
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train()
    return clock.seconds, model
