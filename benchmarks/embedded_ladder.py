"""Measures the embedded ladder with plain transformers and PEFT, without sizewise's own loops.

Zero-shot exact match of every rung, and of a LoRA adapter on some of them, on the test split:
`python benchmarks/embedded_ladder.py --tune nano micro --rank 4 --epochs 2`.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import simple_icd_10_cm as catalogue
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from sizewise.embedded.dialogues import PROMPT, generate_dialogues
from sizewise.models.sources import EMBEDDED_MODELS, models_folder

Row = dict[str, str]
CODE = re.compile(r"\b[A-Z]\d[0-9A-Z](?:\.[0-9A-Z]{1,4})?\b")


def first_code(text: str) -> str | None:
    return next((c for c in CODE.findall(text) if catalogue.is_valid_item(c)), None)


def prompt_ids(row: Row, tokenizer: Any) -> list[int]:
    turns = [{"role": "user", "content": PROMPT.format(**row)}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False).input_ids


@torch.no_grad()
def answers(model: Any, tokenizer: Any, rows: list[Row], room: int, batch: int) -> list[str]:
    """Greedy answers; batches of similar length, padded on the left."""
    model.eval()
    ids = [prompt_ids(row, tokenizer) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: len(ids[i]))
    texts = [""] * len(rows)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        width = max(len(ids[i]) for i in chosen)
        gaps = [width - len(ids[i]) for i in chosen]
        tokens = torch.tensor(
            [[tokenizer.pad_token_id] * g + ids[i] for i, g in zip(chosen, gaps, strict=True)]
        )
        mask = torch.tensor([[0] * g + [1] * (width - g) for g in gaps])
        out = model.generate(
            input_ids=tokens, attention_mask=mask, max_new_tokens=room, do_sample=False
        )
        for i, text in zip(
            chosen, tokenizer.batch_decode(out[:, width:], skip_special_tokens=True), strict=True
        ):
            texts[i] = text
    return texts


def score(name: str, texts: list[str], rows: list[Row], seconds: float, seen: set[str]) -> None:
    hits = [first_code(text) == row["code"] for text, row in zip(texts, rows, strict=True)]
    family = [
        (first_code(text) or "")[:3] == row["code"][:3]
        for text, row in zip(texts, rows, strict=True)
    ]
    new = [hit for hit, row in zip(hits, rows, strict=True) if row["code"] not in seen]
    unparsed = sum(first_code(text) is None for text in texts)
    print(
        f"{name:18} exact {sum(hits) / len(rows):6.1%}  category {sum(family) / len(rows):6.1%}  "
        f"unparsed {unparsed / len(rows):6.1%}  unseen codes {sum(new)}/{len(new)}  "
        f"n={len(rows)}  {seconds:.0f} CPU s",
        flush=True,
    )


def tune(model: Any, tokenizer: Any, rows: list[Row], options: argparse.Namespace) -> Any:
    """LoRA on all linear layers, loss at the answer only, length-grouped batches."""
    torch.manual_seed(options.seed)
    config = LoraConfig(
        r=options.rank, lora_alpha=32, target_modules="all-linear",
        task_type="CAUSAL_LM",
    )  # fmt: skip
    model = get_peft_model(model, config).train()
    encoded = [
        (prompt_ids(r, tokenizer), [*tokenizer(r["code"]).input_ids, tokenizer.eos_token_id])
        for r in rows
    ]
    steps = options.epochs * -(-len(rows) // options.batch)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=options.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.lr, total_steps=steps, pct_start=0.05, anneal_strategy="cos"
    )
    for _ in range(options.epochs):
        for chosen in grouped(encoded, options.batch):
            loss = answer_loss(model, chosen, tokenizer.pad_token_id)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return model


def grouped(encoded: list[Any], batch: int) -> list[list[Any]]:
    """Random batches of similar length, in random order."""
    shuffled = [encoded[i] for i in torch.randperm(len(encoded)).tolist()]
    ordered = []
    for start in range(0, len(shuffled), batch * 16):
        window = sorted(shuffled[start : start + batch * 16], key=lambda e: len(e[0]) + len(e[1]))
        ordered += [window[i : i + batch] for i in range(0, len(window), batch)]
    return [ordered[i] for i in torch.randperm(len(ordered)).tolist()]


def answer_loss(model: Any, chosen: list[Any], pad: int) -> torch.Tensor:
    width = max(len(p) + len(a) for p, a in chosen)
    tokens = torch.full((len(chosen), width), pad)
    labels = torch.full((len(chosen), width), -100)
    for i, (prompt, answer) in enumerate(chosen):
        end = len(prompt) + len(answer)
        tokens[i, :end] = torch.tensor(prompt + answer)
        labels[i, len(prompt) : end] = torch.tensor(answer)
    return model(input_ids=tokens, labels=labels).loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=models_folder())
    parser.add_argument("--zero-shot", nargs="*", default=list(EMBEDDED_MODELS))
    parser.add_argument("--tune", nargs="*", default=["nano"])
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--examples", type=int, default=0, help="0: all of the training split")
    parser.add_argument("--limit", type=int, default=0, help="0: all of the test split")
    parser.add_argument("--room", type=int, default=48, help="most new tokens")
    parser.add_argument("--show", type=int, default=0, help="answers to print")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = generate_dialogues()
    train = [r for r in rows if r["split"] == "train"]
    test = [r for r in rows if r["split"] == "test"]
    train, test = train[: options.examples or None], test[: options.limit or None]
    seen = {r["code"] for r in train}
    top = Counter(r["code"] for r in train).most_common(1)[0][0]
    print(f"majority {top}: {sum(r['code'] == top for r in test) / len(test):.1%}, n={len(test)}")
    for name in dict.fromkeys([*options.zero_shot, *options.tune]):
        model = AutoModelForCausalLM.from_pretrained(options.models / name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(options.models / name)
        if name in options.zero_shot:
            start = time.process_time()
            texts = answers(model, tokenizer, test, options.room, 64)
            score(f"{name} zero-shot", texts, test, time.process_time() - start, seen)
            for row, text in list(zip(test, texts, strict=True))[: options.show]:
                print("   ", row["code"], row["description"], "|", text)
        if name in options.tune:
            start = time.process_time()
            tuned = tune(model, tokenizer, train, options)
            trained = time.process_time() - start
            texts = answers(tuned, tokenizer, test, 12, 64)
            score(f"{name} LoRA r={options.rank}", texts, test, trained, seen)


if __name__ == "__main__":
    main()
