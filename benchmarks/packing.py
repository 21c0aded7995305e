"""K adapters in one forward and backward pass, beside K passes alone: the ratio of their seconds.

    python benchmarks/packing.py          a minute of CPU: nano, in three shapes
    python benchmarks/packing.py --tiny   the same way in seconds

Adapters have unequal ranks, batches unequal lengths. Both ways take turns; the ratio is the median
of pairs of CPU seconds. Each pair of ways has the same gradients, or it says so and ends.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from sizewise.composition.compose import compose_run
from sizewise.config import LoraConfig, ModelConfig
from sizewise.data.batches.collate import IGNORED
from sizewise.models.adapter.attach import attach_adapter
from sizewise.models.adapter.packed import PackedBase, Part, view_of
from sizewise.models.base import load_base
from sizewise.models.head import answer_logits, answer_targets
from sizewise.training.module import answer_loss

RANKS = (2, 4, 8, 16)
CASES = ((8, 1), (4, 4), (4, 16))
TOKENS, ANSWER = 160, 12
LARGEST_DIFFERENCE = 1e-5


class Steps:
    """The same step of K adapters in both ways.

    Args:
        model: the base.
        count: adapters.
        rows: examples of a micro-batch.
        tokens: of the longest; those of the others are up to a fifth shorter.
        device: where.
    """

    def __init__(
        self, model: ModelConfig, count: int, rows: int, tokens: int, device: torch.device
    ) -> None:
        base = load_base(model, device=device)
        ranks = [RANKS[n % len(RANKS)] for n in range(count)]
        self.models = [
            attach_adapter(view_of(base), LoraConfig(r=rank), model, n).to(device)
            for n, rank in enumerate(ranks)
        ]
        vocabulary = base.config.get_text_config().vocab_size
        self.batches = [
            _batch(rows, tokens - n % 4 * tokens // 16, vocabulary, n, device) for n in range(count)
        ]
        self._packed = PackedBase(self.models[0])
        for number, each in enumerate(self.models):
            self._packed.add(number, each)
        self._parts = [Part(n, batch, nullcontext) for n, batch in enumerate(self.batches)]

    def alone(self) -> None:
        for model, batch in zip(self.models, self.batches, strict=True):
            _loss(answer_logits(model, batch), batch).backward()

    def packed(self) -> None:
        logits = self._packed.answer_logits(self._parts)
        torch.autograd.backward(
            [_loss(own, batch) for own, batch in zip(logits, self.batches, strict=True)]
        )

    def gradients(self, step: Callable[[], None]) -> list[torch.Tensor]:
        """Gradients of all adapters after one step; they are let go of in the models."""
        step()
        found = [p.grad for m in self.models for p in m.parameters() if p.grad is not None]
        self.forget()
        return found

    def forget(self) -> None:
        for model in self.models:
            model.zero_grad(set_to_none=True)


def _batch(rows: int, tokens: int, vocabulary: int, seed: int, device: torch.device) -> Any:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, vocabulary, (rows, tokens), generator=generator)
    labels = ids.clone()
    labels[:, : max(1, tokens - ANSWER)] = IGNORED
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    return {key: value.to(device) for key, value in batch.items()}


def _loss(logits_NV: torch.Tensor, batch: Any) -> torch.Tensor:
    targets_N = answer_targets(batch)
    return answer_loss(logits_NV, targets_N, targets_N.numel())[0]


def check(steps: Steps, largest: float = LARGEST_DIFFERENCE) -> None:
    """End where the gradients of the two ways differ by more than ``largest`` of their norm."""
    pairs = zip(steps.gradients(steps.alone), steps.gradients(steps.packed), strict=True)
    worst = max(float((a - b).norm() / a.norm().clamp_min(1e-12)) for a, b in pairs if a.any())
    if worst > largest:
        raise SystemExit(f"the two ways differ: gradients by {worst:.1e} of their norm")


def compare(
    steps: Steps, repeats: int, seconds: Callable[[Callable[[], None]], float]
) -> tuple[float, float, float]:
    """Return the median of alone / packed over pairs that take turns, and both medians."""
    pairs = []
    for _ in range(repeats + 1):
        pairs.append((seconds(steps.alone), seconds(steps.packed)))
        steps.forget()
    alone, packed = zip(*pairs[1:], strict=True)  # the first pair warms up
    ratio = statistics.median(a / b for a, b in pairs[1:])
    return ratio, statistics.median(alone), statistics.median(packed)


def cpu_seconds(work: Callable[[], None]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def measure(
    model: ModelConfig, cases: Sequence[tuple[int, int]], tokens: int, repeats: int
) -> None:
    print("| K | examples of a micro-batch | K steps alone | one for all | times as fast |")
    print("|---:|---:|---:|---:|---:|")
    for count, rows in cases:
        steps = Steps(model, count, rows, tokens, torch.device("cpu"))
        check(steps)
        ratio, alone, packed = compare(steps, repeats, cpu_seconds)
        print(
            f"| {count} | {rows} | {alone * 1000:.0f} ms | {packed * 1000:.0f} ms | {ratio:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="one small shape, in seconds")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = compose_run([f"model={given.model}"]).model
    if given.tiny:
        measure(model, ((2, 1),), 24, 1)
    else:
        measure(model, CASES, TOKENS, given.repeats)


if __name__ == "__main__":
    main()
