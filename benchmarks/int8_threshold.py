"""Measures what `quantization.int8_threshold` costs, by the unquantised model and by other batches.

For each threshold: the mean KL divergence (nats per token) of the int8 model's next tokens from
the unquantised one's, over prompts read one by one; and how many greedy answers differ between
batches of 1 and of 8. `python benchmarks/int8_threshold.py --model mini`, or a folder that
save_pretrained wrote.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import kl_div

from sizewise.config.evaluation import GenerationConfig
from sizewise.config.model import ModelConfig, QuantizationConfig
from sizewise.data.example import Message
from sizewise.data.tokens.template import ChatTemplate
from sizewise.embedded.dialogues import PROMPT, generate_dialogues
from sizewise.evaluation.generate import generate_batch
from sizewise.models.base import load_base
from sizewise.models.likelihood import split
from sizewise.models.tokenizer import load_tokenizer

THRESHOLDS = (0.0, 3.0, 6.0, 9.0)


@torch.no_grad()
def log_probs(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """Return the log-probabilities (T, V) of every next token of one prompt."""
    return model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)


def divergence(model: Any, ids: Sequence[Sequence[int]], whole: Sequence[torch.Tensor]) -> float:
    """Return the mean KL divergence from the whole model, in nats per token."""
    parts = [
        kl_div(log_probs(model, row), target, log_target=True, reduction="none").sum(-1)
        for row, target in zip(ids, whole, strict=True)
    ]
    return float(torch.cat(parts).mean())


def texts(model: Any, ids: Sequence[list[int]], template: Any, batch: int, new: int) -> list[str]:
    """Return greedy answers in batches of ``batch``."""
    decoding = GenerationConfig(max_new_tokens=new)
    return [
        answer.text
        for rows in split(range(len(ids)), batch)
        for answer in generate_batch(model, [ids[i] for i in rows], template, decoding)
    ]


def main() -> None:
    """Print one line per threshold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini", help="an embedded model, or a folder")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--new", type=int, default=24, help="tokens of an answer")
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = args.model if Path(args.model).is_dir() else f"embedded:{args.model}"
    config = ModelConfig(name=args.model, path=path, dtype="float32")
    template = ChatTemplate(load_tokenizer(config))
    rows = [row for row in generate_dialogues() if row["split"] == "test"][: args.prompts]
    ids = [template.prompt_ids((Message("user", PROMPT.format(**row)),)) for row in rows]
    base = load_base(config)
    whole = [log_probs(base, row) for row in ids]
    for threshold in (None, *THRESHOLDS):
        name = "float32"
        if threshold is not None:
            bits = QuantizationConfig(method="int8", int8_threshold=threshold)
            base, name = load_base(config, bits), f"int8_threshold={threshold:g}"
        one, eight = (texts(base, ids, template, batch, args.new) for batch in (1, 8))
        differing = sum(a != b for a, b in zip(one, eight, strict=True))
        nats = divergence(base, ids, whole)
        print(f"{name:>18}: KL {nats:.4f} nats per token, {differing} of {len(ids)} texts differ")


if __name__ == "__main__":
    main()
