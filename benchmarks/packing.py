"""K adapters in one pass, beside K passes alone: the ratio of their seconds.

    python benchmarks/packing.py          some minutes of CPU: nano, steps and answers
    python benchmarks/packing.py --tiny   the same way in seconds

A step is a forward and a backward pass; adapters have unequal ranks, batches unequal lengths.
Answers are those to one batch of prompts, over a base in NF4, each token decoded (jobs share that
where nothing is drafted and no adapter merged). Both ways take turns; the ratio is the median of
pairs of CPU seconds. Each pair of ways has the same gradients, or the same answers, or it says so
and ends.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from training_setup import as_fits, random_batch

from sizewise.composition.compose import compose_run
from sizewise.config import GenerationConfig, LoraConfig, ModelConfig, QuantizationConfig
from sizewise.data.tokens.template import Template
from sizewise.evaluation.generate import Generated, generate_batch
from sizewise.evaluation.prompts import open_prompts
from sizewise.evaluation.text import pad_id
from sizewise.evaluation.together import Batch
from sizewise.models.adapter.attach import attach_adapter
from sizewise.models.adapter.packed import PackedBase, Part, lora_layers, view_of, weights_of
from sizewise.models.base import load_base
from sizewise.models.head import answer_logits, answer_targets
from sizewise.models.tokenizer import load_template
from sizewise.training.module import answer_loss

RANKS = (2, 4, 8, 16)
CASES = ((8, 1), (4, 4), (4, 16))
ANSWERED = ((8, 1), (4, 4), (4, 16), (4, 64))
TOKENS, ANSWER = 160, 12
LARGEST_DIFFERENCE = 1e-5


class Adapters:
    """K adapters of unequal ranks, each on a view of one base, and all of them on one more.

    They have some weight, so that no gradient is zero and each answers something else.
    """

    def __init__(
        self, model: ModelConfig, count: int, device: torch.device, stored: str = "none"
    ) -> None:
        base = load_base(model, QuantizationConfig(method=stored), device)
        self.vocabulary = base.config.get_text_config().vocab_size
        self.models = [
            attach_adapter(view_of(base), LoraConfig(r=RANKS[n % len(RANKS)]), model, n).to(device)
            for n in range(count)
        ]
        for number, each in enumerate(self.models):
            for layer in lora_layers(each).values():
                a_RI, b_OR = weights_of(layer)
                torch.nn.init.normal_(b_OR, std=0.02 * (number + 1) * float(a_RI.detach().std()))
        self.packed = PackedBase(self.models[0])
        for number, each in enumerate(self.models):
            self.packed.add(number, each)


class Ways(Protocol):
    """The same work in two ways."""

    def alone(self) -> object:
        """One adapter after the other."""

    def packed(self) -> object:
        """All at once."""

    def forget(self) -> None:
        """Let go of what the last work left."""


class Steps:
    """The same step of K adapters in both ways.

    Args:
        adapters: the models.
        rows: examples of a micro-batch.
        tokens: of the longest; those of the others are up to a fifth shorter.
        device: where.
    """

    def __init__(self, adapters: Adapters, rows: int, tokens: int, device: torch.device) -> None:
        self.models, self._packed = adapters.models, adapters.packed
        self.batches = [
            random_batch(
                rows, tokens - n % 4 * tokens // 16, ANSWER, adapters.vocabulary, device, n
            )
            for n in range(len(self.models))
        ]
        self._parts = [Part(n, batch, nullcontext) for n, batch in enumerate(self.batches)]
        self._precision = as_fits(device)

    def alone(self) -> None:
        """Make a pass for each."""
        for model, batch in zip(self.models, self.batches, strict=True):
            with self._precision:
                loss = _loss(answer_logits(model, batch), batch)
            loss.backward()

    def packed(self) -> None:
        """Make one pass for all."""
        with self._precision:
            logits = self._packed.answer_logits(self._parts)
            losses = [_loss(own, batch) for own, batch in zip(logits, self.batches, strict=True)]
        torch.autograd.backward(losses)

    def gradients(self, step: Callable[[], None]) -> list[torch.Tensor]:
        """Gradients of all adapters after one step; they are let go of in the models."""
        step()
        found = [p.grad for m in self.models for p in m.parameters() if p.grad is not None]
        self.forget()
        return found

    def forget(self) -> None:
        """Let go of gradients."""
        for model in self.models:
            model.zero_grad(set_to_none=True)


class Answers:
    """The same answers of K adapters in both ways.

    Args:
        adapters: the models.
        template: as whose tokenizer prompts are padded.
        rows: prompts.
        tokens: of each.
        new: of an answer at most.
    """

    def __init__(
        self, adapters: Adapters, template: Template, rows: int, tokens: int, new: int
    ) -> None:
        self.models, self._packed, self._template = adapters.models, adapters.packed, template
        self._generation = GenerationConfig(max_new_tokens=new)
        generator = torch.Generator().manual_seed(0)
        shape = (rows, tokens)
        self._prompts = torch.randint(3, adapters.vocabulary, shape, generator=generator).tolist()

    def alone(self) -> list[list[str]]:
        """Answer with one after the other."""
        return [
            _texts(generate_batch(model, self._prompts, self._template, self._generation))
            for model in self.models
        ]

    def packed(self) -> list[list[str]]:
        """Answer with all at once."""
        names = tuple(map(str, range(len(self._prompts))))
        asked = {
            number: Batch(
                open_prompts(model, self._prompts, pad_id(self._template)), self._template,
                self._generation, names, 0,
            )
            for number, model in enumerate(self.models)
        }  # fmt: skip
        return [_texts(rows) for rows in asked[0].answer(self._packed, asked)]

    def forget(self) -> None:
        """There is nothing."""


def _texts(answers: Sequence[Generated]) -> list[str]:
    return [answer.text for answer in answers]


def _loss(logits_NV: torch.Tensor, batch: Any) -> torch.Tensor:
    targets_N = answer_targets(batch)
    return answer_loss(logits_NV, targets_N, targets_N.numel())[0]


def difference(steps: Steps) -> float:
    """Return by how much the gradients of the two ways differ at most, as a share of their norm."""
    pairs = zip(steps.gradients(steps.alone), steps.gradients(steps.packed), strict=True)
    return max(float((a - b).norm() / a.norm()) for a, b in pairs)


def check(steps: Steps) -> None:
    """End where they differ by more than rounding in fp32 does."""
    worst = difference(steps)
    if worst > LARGEST_DIFFERENCE:
        raise SystemExit(f"the two ways differ: gradients by {worst:.1e} of their norm")


def check_answers(answers: Answers) -> None:
    """End where an answer of the two ways differs."""
    alone, packed = answers.alone(), answers.packed()
    if alone != packed:
        raise SystemExit("the two ways differ: other answers")
    if len(set(map(tuple, alone))) == 1:
        raise SystemExit("all adapters answer the same: nothing is compared")


def compare(
    ways: Ways, repeats: int, seconds: Callable[[Callable[[], object]], float]
) -> tuple[float, float, float]:
    """Return the median of alone / packed over pairs that take turns, and both medians."""
    pairs = []
    for _ in range(repeats + 1):
        pairs.append((seconds(ways.alone), seconds(ways.packed)))
        ways.forget()
    alone, packed = zip(*pairs[1:], strict=True)  # the first pair warms up
    ratio = statistics.median(a / b for a, b in pairs[1:])
    return ratio, statistics.median(alone), statistics.median(packed)


def cpu_seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def measure_steps(
    model: ModelConfig, cases: Sequence[tuple[int, int]], tokens: int, repeats: int
) -> None:
    print("| K | examples of a micro-batch | K steps alone | one for all | times as fast |")
    print("|---:|---:|---:|---:|---:|")
    for count, rows in cases:
        device = torch.device("cpu")
        steps = Steps(Adapters(model, count, device), rows, tokens, device)
        check(steps)
        print_line(count, rows, *compare(steps, repeats, cpu_seconds))


def measure_answers(
    model: ModelConfig, cases: Sequence[tuple[int, int]], tokens: int, repeats: int
) -> None:
    print("| K | prompts of a batch | K batches alone | one for all | times as fast |")
    print("|---:|---:|---:|---:|---:|")
    template = load_template(model)
    for count, rows in cases:
        adapters = Adapters(model, count, torch.device("cpu"), "nf4")
        answers = Answers(adapters, template, rows, tokens, ANSWER)
        check_answers(answers)
        print_line(count, rows, *compare(answers, repeats, cpu_seconds))


def print_line(count: int, rows: int, ratio: float, alone: float, packed: float) -> None:
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
        measure_steps(model, ((2, 1),), 24, 1)
        measure_answers(model, ((2, 2),), 24, 1)
    else:
        measure_steps(model, CASES, TOKENS, given.repeats)
        measure_answers(model, ANSWERED, TOKENS, given.repeats)


if __name__ == "__main__":
    main()
