"""The sweep that one would write oneself: Hydra's basic launcher, HF Trainer, PEFT, ``generate``.

    python benchmarks/sweep_peer.py -m base=nano,micro rank=4,8,16 lr=0.001,0.003

Every job loads its base, trains an adapter, validates it and answers the test split; its figures
are in ``result.json`` of its directory.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig

HERE = Path(__file__).resolve().parent


@dataclass
class Peer:
    """One job. ``rows``, ``validation`` and ``test`` count examples of each split.

    ``length_groups`` false: batches in random order, which is the default of HF Trainer.
    """

    base: str = "nano"
    rank: int = 8
    lr: float = 1e-3
    seed: int = 1
    rows: int = 1200
    validation: int = 200
    test: int = 200
    batch: int = 16
    epochs: int = 2
    room: int = 48
    length_groups: bool = True


ConfigStore.instance().store(name="peer", node=Peer)


@hydra.main(version_base=None, config_name="peer")
def main(cfg: Any) -> None:
    sys.path.insert(0, str(HERE))
    import embedded_ladder as ladder
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sizewise.embedded.dialogues import generate_dialogues
    from sizewise.models.sources import models_folder

    torch.manual_seed(cfg.seed)
    folder = models_folder() / cfg.base
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    lora = LoraConfig(r=cfg.rank, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, lora)
    rows = generate_dialogues()
    parts = {
        name: [row for row in rows if row["split"] == name][:count]
        for name, count in (
            ("train", cfg.rows), ("validation", cfg.validation), ("test", cfg.test)
        )
    }  # fmt: skip
    loss = fit(cfg, model, tokenizer, parts)
    texts = ladder.answers(model, tokenizer, parts["test"], cfg.room, 64)
    right = [ladder.first_code(t) == r["code"] for t, r in zip(texts, parts["test"], strict=True)]
    record = {"val_loss": loss, "exact_match": sum(right) / len(right)}
    asked = asdict(Peer(**cfg))
    out = Path(HydraConfig.get().runtime.output_dir) / "result.json"
    out.write_text(json.dumps(record | asked))


def fit(cfg: Any, model: Any, tokenizer: Any, parts: dict[str, list[Any]]) -> float:
    """Train with HF Trainer, and return the validation loss per answer token."""
    import embedded_ladder as ladder
    from datasets import Dataset
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    def encoded(rows: list[Any]) -> Dataset:
        made = []
        for row in rows:
            prompt = ladder.prompt_ids(row, tokenizer)
            answer = [*tokenizer(row["code"]).input_ids, tokenizer.eos_token_id]
            made.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
        return Dataset.from_list(made)

    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir="checkpoints", per_device_train_batch_size=cfg.batch,
            per_device_eval_batch_size=64, num_train_epochs=cfg.epochs, learning_rate=cfg.lr,
            lr_scheduler_type="cosine", warmup_steps=2, max_grad_norm=1.0, weight_decay=0.0,
            train_sampling_strategy="group_by_length" if cfg.length_groups else "random",
            save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True, seed=cfg.seed,
        ),
        train_dataset=encoded(parts["train"]),
        eval_dataset=encoded(parts["validation"]),
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
    )  # fmt: skip
    trainer.train()
    return float(trainer.evaluate()["eval_loss"])


if __name__ == "__main__":
    main()
