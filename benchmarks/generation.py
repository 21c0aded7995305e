"""Times answers and candidate scores against the usual ways, side by side on the CPU.

All ways take turns in every repeat, so that a busy machine slows all of them; printed are medians
of CPU seconds and the median of the paired ratios:

    python benchmarks/generation.py --model mini --repeats 5

`ours, as evaluated` also has the likelihood of every reference, as a job's predictions do; the
others have texts alone. All but the pipeline form the same batches.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import pipeline

from sizewise.config.evaluation import GenerationConfig
from sizewise.config.model import ModelConfig
from sizewise.data.example import Example, Message
from sizewise.data.tokens.table import Encoded
from sizewise.data.tokens.template import ChatTemplate
from sizewise.embedded.dialogues import PROMPT, generate_dialogues
from sizewise.evaluation.answer import Measurer
from sizewise.evaluation.beginning import Beginning
from sizewise.evaluation.candidates import build_trie, candidate_log_probs
from sizewise.evaluation.generate import generate_batch
from sizewise.evaluation.prompts import open_prompts
from sizewise.models.base import load_base
from sizewise.models.likelihood import answer_log_probs, plan_batches
from sizewise.models.tokenizer import load_tokenizer

Way = Callable[[], Any]


class Bench:
    def __init__(self, name: str, prompts: int, batch: int, new_tokens: int) -> None:
        config = ModelConfig(name=name, path=f"embedded:{name}", dtype="float32")
        self.model, self.tokenizer = load_base(config), load_tokenizer(config)
        self.template = ChatTemplate(self.tokenizer)
        self.batch = batch
        self.decoding = GenerationConfig(max_new_tokens=new_tokens)
        rows = [row for row in generate_dialogues() if row["split"] == "test"]
        random.Random(0).shuffle(rows)
        self.codes = sorted({row["code"] for row in rows})
        self.turns = [(Message("user", PROMPT.format(**row)),) for row in rows[:prompts]]
        self.ids = [self.template.prompt_ids(turn) for turn in self.turns]
        self.examples = [
            Example(turn, row["code"], str(n), origin=f"{n:016x}")
            for n, (turn, row) in enumerate(zip(self.turns, rows, strict=False))
        ]
        self.encoded = [
            Encoded(ids, self.template.answer_ids(example.messages, example.answer))
            for ids, example in zip(self.ids, self.examples, strict=True)
        ]

    def in_batches(self, answer: Callable[[list[int]], Sequence[str]]) -> list[str]:
        """Texts of all prompts, in their order."""
        texts = [""] * len(self.ids)
        for batch in plan_batches([len(ids) for ids in self.ids], self.batch):
            for i, text in zip(batch, answer(batch), strict=True):
                texts[i] = text
        return texts

    def ours(self) -> list[str]:
        """Answers with their confidences."""

        def answer(batch: list[int]) -> list[str]:
            chosen = [self.ids[i] for i in batch]
            answers = generate_batch(self.model, chosen, self.template, self.decoding)
            return [answer.text for answer in answers]

        return self.in_batches(answer)

    def evaluated(self) -> list[str]:
        """The same and the references' likelihoods."""
        beginning = Beginning.of(self.model, self.ids)
        measure = Measurer(self.model, self.template, self.decoding, None, beginning)

        def answer(batch: list[int]) -> list[str]:
            rows = measure([self.examples[i] for i in batch], [self.encoded[i] for i in batch])
            return [row.text for row in rows]

        return self.in_batches(answer)

    def plain_generate(self) -> list[str]:
        def answer(batch: list[int]) -> list[str]:
            rows = {"input_ids": [self.ids[i] for i in batch]}
            inputs = self.tokenizer.pad(rows, padding_side="left", return_tensors="pt")
            with torch.no_grad():
                tokens = self.model.generate(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    max_new_tokens=self.decoding.max_new_tokens,
                    do_sample=False,
                    eos_token_id=self.template.stop_ids,
                    pad_token_id=self.tokenizer.pad_token_id,
                )
            new = tokens[:, inputs["input_ids"].shape[1] :]
            found = self.tokenizer.batch_decode(new, skip_special_tokens=True)
            return [text.strip() for text in found]

        return self.in_batches(answer)

    def one_by_one(self) -> list[str]:
        pipe = pipeline("text-generation", model=self.model, tokenizer=self.tokenizer)
        rendered = [self.template.prompt(turn) for turn in self.turns]
        found = pipe(
            rendered,
            batch_size=1,
            max_new_tokens=self.decoding.max_new_tokens,
            do_sample=False,
            return_full_text=False,
            eos_token_id=self.template.stop_ids,
            add_special_tokens=False,
        )
        return [row[0]["generated_text"].strip() for row in found]


class Candidates:
    def __init__(self, bench: Bench, prompts: int) -> None:
        self.bench = bench
        self.prompts = bench.ids[:prompts]
        turn = bench.turns[0]
        self.ids = [bench.template.answer_ids(turn, code) for code in bench.codes]
        self.trie = build_trie(self.ids)

    def tree(self) -> torch.Tensor:
        return candidate_log_probs(open_prompts(self.bench.model, self.prompts, 0), self.trie)

    def alone(self, batch: int = 1) -> torch.Tensor:
        pairs = [Encoded(prompt, ids) for prompt in self.prompts for ids in self.ids]
        values = answer_log_probs(self.bench.model, pairs, batch)
        return torch.tensor(values, dtype=torch.float64).view(len(self.prompts), -1)

    def alone_in_batches(self) -> torch.Tensor:
        return self.alone(self.bench.batch)


def timed(way: Way) -> tuple[float, Any]:
    started = time.process_time()
    result = way()
    return time.process_time() - started, result


def compare(ways: dict[str, Way], repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds of each way, and the median of its paired ratio to the first."""
    first = next(iter(ways))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(repeats + 1):
        for name, way in ways.items():
            spent, _ = timed(way)
            if i > 0:  # the first round warms up
                seconds[name].append(spent)
    table = {}
    for name, spent in seconds.items():
        ratios = [a / b for a, b in zip(spent, seconds[first], strict=True)]
        table[name] = {
            "median_seconds": statistics.median(spent),
            f"times_{first}": statistics.median(ratios),
        }
    return table


def show(title: str, table: dict[str, dict[str, float]]) -> None:
    print(f"\n{title}")
    for name, row in table.items():
        seconds, ratio = row.values()
        print(f"  {name:<28} {seconds:8.3f} s   {ratio:6.2f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--candidate-prompts", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    bench = Bench(options.model, options.prompts, options.batch, options.new_tokens)

    texts = bench.ours()
    same = {
        "as evaluated": sum(a == b for a, b in zip(texts, bench.evaluated(), strict=True)),
        "generate": sum(a == b for a, b in zip(texts, bench.plain_generate(), strict=True)),
        "pipeline": sum(a == b for a, b in zip(texts, bench.one_by_one(), strict=True)),
    }
    print(f"{len(texts)} answers; the same texts: {same}")
    ways: dict[str, Way] = {
        "ours": bench.ours,
        "ours, as evaluated": bench.evaluated,
        "generate, same batch": bench.plain_generate,
        "pipeline, batch 1": bench.one_by_one,
    }
    answers = compare(ways, options.repeats)
    show(f"answers: {options.model}, batch {options.batch}", answers)

    scored = Candidates(bench, options.candidate_prompts)
    gap = float((scored.tree() - scored.alone(options.batch)).abs().max())
    inner = len(scored.trie.inner)
    print(f"\n{len(scored.ids)} candidates, {inner} inner nodes; largest difference {gap:.1e}")
    ways = {
        "tree": scored.tree,
        "each alone": scored.alone,
        "each alone, in batches": scored.alone_in_batches,
    }
    candidates = compare(ways, min(options.repeats, 3))
    show(f"candidates: {options.candidate_prompts} prompts", candidates)
    if options.out is not None:
        result = {"answers": answers, "candidates": candidates, "largest_difference": gap}
        options.out.write_text(json.dumps(result | {"options": str(options)}, indent=2))


if __name__ == "__main__":
    main()
