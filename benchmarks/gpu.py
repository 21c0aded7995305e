"""What a GPU makes of it, in one table: our step, memory plan, NF4 and answers beside their peers.

    python benchmarks/gpu.py           some minutes on one GPU; nothing is downloaded
    python benchmarks/gpu.py --tiny    the same way in a minute on the CPU

The base is a Llama of 1.2 B random weights in the figures of Llama 3.2 1B: seconds and bytes do not
ask what weights say. All ways of a section take turns; ratios are medians of pairs.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from packing import Adapters, Answers, Steps, compare, difference
from peer_trainers import TRL_MISSING, hf_fit, trl_available, trl_fit
from training_setup import answer_step, make_pairs, our_fit

from sizewise.composition.compose import compose_run
from sizewise.config import (
    ArchitectureConfig,
    GenerationConfig,
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
    QuantizationConfig,
)
from sizewise.data.example import Example, Message
from sizewise.data.tokens.encode import EncodedSplit, encode_examples
from sizewise.devices import device_name, free_memory, synchronize
from sizewise.evaluation.predict import predict
from sizewise.models.adapter.attach import attach_adapter, enable_checkpointing
from sizewise.models.base import load_base
from sizewise.models.plan.planner import Workload, plan_memory
from sizewise.models.tiny import random_checkpoint
from sizewise.models.tokenizer import load_template
from sizewise.record.predictions import PredictionStore

GB = 1e9
ADAMW = OptimizerConfig(target="torch.optim.AdamW")


@dataclass(frozen=True)
class Size:
    """What is measured: the base's figures, and how much of everything.

    ``weights``: the same base, where its weights lie.
    """

    model: ModelConfig
    weights: ModelConfig
    examples: int
    batch: int
    tokens: int
    prompts: int
    repeats: int


def sizes(tiny: bool) -> Size:
    figures = ArchitectureConfig(
        model_type="llama", hidden_size=64 if tiny else 2048,
        intermediate_size=160 if tiny else 8192, num_layers=2 if tiny else 16,
        num_heads=4 if tiny else 32, num_kv_heads=2 if tiny else 8, head_dim=16 if tiny else 64,
        vocab_size=8192 if tiny else 128256, max_positions=4096,
    )  # fmt: skip
    model = ModelConfig(name="llama-1b-random", path="none", init="random", architecture=figures)
    return Size(model, model, 16, 4, 64, 8, 1) if tiny else Size(model, model, 256, 8, 1024, 64, 3)


@dataclass(frozen=True)
class Line:
    """One line of the table; ``ratio``: how many times as good ours is."""

    what: str
    ours: str
    peer: str
    ratio: str


def synchronised(device: torch.device, work: Callable[[], Any]) -> float:
    """Seconds of ``work``, the device's included."""
    synchronize(device)
    begun = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - begun


def in_turns(ways: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every way in every repeat, after one round that warms up."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            free_memory()
            seconds = way()
            print(f"{name}: {seconds:.2f} s", file=sys.stderr)
            if repeat:
                found[name].append(seconds)
    return found


def training(size: Size, device: torch.device) -> Iterator[Line]:
    """Tokens a second of an epoch: ours, HF Trainer + PEFT with length groups, TRL packing."""
    base, pairs = load_base(size.weights, device=device), make_pairs(size.examples, "6M")
    tokens = sum(len(p) + len(a) for p, a in pairs)
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    ways: dict[str, Callable[[], float]] = {
        "sizewise": lambda: our_fit(base, pairs, size.batch, accelerator=accelerator)[0].wall,
        "HF Trainer + PEFT, length-grouped": lambda: (
            hf_fit(base, pairs, size.batch, grouping=True)[0].wall
        ),
    }
    if trl_available():
        kernel = "flash attention" if importlib.util.find_spec("flash_attn") else "SDPA"
        ways[f"TRL packing, {kernel}"] = lambda: (
            trl_fit(base, pairs, size.batch, packing=True)[0].wall
        )
    else:
        print(TRL_MISSING, file=sys.stderr)
    seconds = in_turns(ways, size.repeats)
    ours = seconds.pop("sizewise")
    for name, theirs in seconds.items():
        ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        yield Line(
            f"training, against {name}",
            f"{tokens / statistics.median(ours):,.0f} tokens/s",
            f"{tokens / statistics.median(theirs):,.0f} tokens/s",
            f"{ratio:.2f}",
        )


def one_step(size: Size, model: Any) -> None:
    """Forward and backward pass of a full batch, its answers a sixteenth of the tokens."""
    answer_step(model, size.batch, size.tokens, max(1, size.tokens // 16), 1000)


def memory(size: Size, device: torch.device) -> Iterator[Line]:
    """The planner's peak of a training step against the real one, and what recomputing costs."""
    first = 0.0
    for method in ("none", "nf4"):
        for way in (False, "selective", True) if method == "none" else (False, True):
            free_memory()
            stored = QuantizationConfig(method=method)
            base, lora = load_base(size.weights, stored, device), LoraConfig(r=8, dropout=0.0)
            model = attach_adapter(base, lora, size.model, 0).to(device).train()
            if way:
                enable_checkpointing(model, way == "selective")
            one_step(size, model)
            seconds = synchronised(device, lambda m=model: one_step(size, m))
            first = first or seconds
            model.zero_grad(set_to_none=True)
            real = _peak(device, lambda m=model: one_step(size, m))
            answer = max(1, size.tokens // 16)
            work = Workload(
                batch_size=size.batch, prompt_tokens=size.tokens - answer, answer_tokens=answer,
                gradient_checkpointing=way,
            )  # fmt: skip
            plan = plan_memory(size.model, stored, lora, ADAMW, work, device.type)
            planned = plan.training_peak - plan.training["optimizer"] - plan.overhead
            said = f"{real / GB:.3f} GB" if real else "not measured here"
            yield Line(
                f"memory of a step, base {method}, gradient_checkpointing={str(way).lower()}",
                f"{said}, {seconds / first:.2f} × the time",
                f"planned {planned / GB:.3f} GB",
                f"{real / planned:.2f}" if real else "–",
            )
            del base, model


def _peak(device: torch.device, work: Callable[[], Any]) -> int:
    """Most bytes that were allocated on a GPU while ``work`` ran; 0 elsewhere."""
    if device.type != "cuda":
        work()
        return 0
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated()


def answers(size: Size, device: torch.device) -> Iterator[Line]:
    """Answers with their likelihoods: ``predict`` against ``generate`` and a second pass."""
    from sizewise.embedded.dialogues import generate_dialogues

    base = load_base(size.weights, device=device)
    template = load_template(compose_run(["model=mini"]).model)
    rows = [dict(row) for row in generate_dialogues()][: size.prompts]
    examples = [
        Example((Message("user", row["dialogue"]),), row["code"], str(n), origin=f"{n:016x}")
        for n, row in enumerate(rows)
    ]
    split = encode_examples(examples, template, 1024)
    room = GenerationConfig(max_new_tokens=8 if size.prompts < 16 else 32)

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            store = PredictionStore(Path(folder) / "p.jsonl", "key")
            call = lambda: predict(base, split, template, room, store, size.batch)  # noqa: E731
            return synchronised(device, call)

    seconds = in_turns(
        {
            "sizewise": ours,
            "generate": lambda: synchronised(
                device, lambda: plain_answers(base, split, room.max_new_tokens, size.batch)
            ),
        },
        size.repeats,
    )
    ours_s, theirs_s = seconds["sizewise"], seconds["generate"]
    yield Line(
        f"answers and likelihoods, batch {size.batch}, against generate and a pass for likelihoods",
        f"{len(split) / statistics.median(ours_s):.1f} a second",
        f"{len(split) / statistics.median(theirs_s):.1f} a second",
        f"{statistics.median(b / a for a, b in zip(ours_s, theirs_s, strict=True)):.2f}",
    )


@torch.no_grad()
def plain_answers(base: Any, split: EncodedSplit, new: int, batch: int) -> None:
    """What one's own script does: left-padded ``generate``, then the references' likelihood."""
    order = sorted(range(len(split)), key=lambda i: -len(split.encoded[i].prompt_ids))
    for start in range(0, len(order), batch):
        items = [split.encoded[i] for i in order[start : start + batch]]
        prompts = [item.prompt_ids for item in items]
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=base.device)
        mask = torch.tensor(
            [[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=base.device
        )
        base.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=new, do_sample=False, pad_token_id=0
        )
        whole = [item.prompt_ids + item.answer_ids for item in items]
        width = max(map(len, whole))
        rows = torch.tensor([w + [0] * (width - len(w)) for w in whole], device=base.device)
        base(input_ids=rows).logits.log_softmax(-1)


def packs(size: Size, device: torch.device) -> Iterator[Line]:
    """Steps and answers of K adapters in one pass against K passes, in small batches."""
    for count, rows in ((2, 1),) if size.prompts < 16 else ((4, 1), (8, 1), (8, 4)):
        free_memory()
        steps = Steps(Adapters(size.weights, count, device), rows, size.tokens // 4, device)
        # In bf16, in which a GPU computes, products of other shapes round otherwise.
        differ = difference(steps)
        ratio, alone, packed = compare(steps, 4 * size.repeats, lambda w: synchronised(device, w))
        yield Line(
            f"{count} adapters in one pass, {rows} examples each, against {count} passes "
            f"(gradients differ by {differ:.0e} of their norm)",
            f"{packed * 1000:.0f} ms",
            f"{alone * 1000:.0f} ms",
            f"{ratio:.2f}",
        )
        del steps
    template = load_template(compose_run(["model=nano"]).model)
    for count, rows in ((2, 2),) if size.prompts < 16 else ((4, 8), (8, 8), (4, 64)):
        free_memory()
        adapters = Adapters(size.weights, count, device)
        found = Answers(adapters, template, rows, size.tokens // 4, size.tokens // 16)
        ratio, alone, packed = compare(found, size.repeats, lambda w: synchronised(device, w))
        yield Line(
            f"answers of {count} adapters at once, {rows} prompts, against one after the other",
            f"{packed * 1000:.0f} ms",
            f"{alone * 1000:.0f} ms",
            f"{ratio:.2f}",
        )
        del adapters, found


SECTIONS = {"training": training, "memory": memory, "answers": answers, "packs": packs}


def main() -> None:
    """Measure on the GPU, or the same way in tiny sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="small sizes, on the CPU")
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    given = parser.parse_args()
    if not given.tiny and not torch.cuda.is_available():
        raise SystemExit("There is no GPU here. Try the way with --tiny.")
    device = torch.device("cpu" if given.tiny else "cuda")
    size = sizes(given.tiny)
    with random_checkpoint(size.model) as place:  # made once: that takes longer than some sections
        weights = replace(size.model, path=str(place), init="pretrained")
        measure(replace(size, weights=weights), device, given.only)


def measure(size: Size, device: torch.device, sections: Sequence[str]) -> None:
    today = datetime.datetime.now(datetime.UTC).date()
    print(f"{device_name(device)}, torch {torch.__version__}, {today}")
    print("| what | sizewise | peer | ratio |")
    print("|---|---:|---:|---:|")
    for name in sections:
        for line in SECTIONS[name](size, device):
            print(f"| {line.what} | {line.ours} | {line.peer} | {line.ratio} |", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
