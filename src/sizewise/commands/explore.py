"""``sizewise explore``: what a data set looks like to a model, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Column, Table

from sizewise.composition.compose import compose_run
from sizewise.composition.inputs import check_places, names_hub
from sizewise.composition.shorthand import shell_text
from sizewise.config import ModelConfig, RunConfig
from sizewise.config.data import SPLITS, TASKS
from sizewise.data.build import build_splits
from sizewise.data.example import DataSplits
from sizewise.errors import ConfigError
from sizewise.files import write_atomically
from sizewise.metrics import PERPLEXITY_PREFIX
from sizewise.runtime import prepare_environment, quiet
from sizewise.words import cut, first_of, literal, plural

if TYPE_CHECKING:
    from sizewise.data.explore import Exploration, Room, TokenLengths

SHOWN_LABELS = 10
SHOWN_CHARS = 600


def explore_command(overrides: Sequence[str], out: Path | None, samples: int) -> None:
    """Print sizes, token lengths, repetitions, leaks, labels and samples of a data set.

    ``dataset=`` and ``model=`` (its tokenizer) matter of the overrides; ``exploration.json`` and
    ``token_lengths.png`` are also written to ``out``.
    """
    cfg = compose_run(overrides)
    check_language_model(cfg.model, "count tokens with")
    if samples < 0:
        raise ConfigError(f"--samples={samples} is too small. Give 0 or more.")
    check_places(asdict(cfg))
    splits = build_splits(cfg.dataset)  # what is wrong with the file is said before anything large
    prepare_environment(hub=names_hub(cfg))
    quiet()
    from sizewise.data.explore import draw_lengths, explore, group_columns
    from sizewise.metrics.reading.closed import plain
    from sizewise.models.tokenizer import load_template

    template, groups = load_template(cfg.model), group_columns(cfg.dataset)
    found = explore(splits, template, samples, cfg.seed, room_of(cfg), groups, plain)
    console = Console(emoji=False)
    show(found, f"{cfg.dataset.name}, tokens of {cfg.model.name}", console)
    show_room(found, cfg, console)
    show_answers(splits, cfg, console)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / "exploration.json", json.dumps(asdict(found), indent=2))
        draw_lengths(found, out / "token_lengths.png")


def room_of(cfg: RunConfig) -> Room:
    """Return what the examples of a job with this configuration have to fit into."""
    from sizewise.data.explore import Room
    from sizewise.job.data import answer_room
    from sizewise.models.architecture import context_length

    reserve = {str(name): tokens for name, tokens in answer_room(cfg).items()}
    dataset = cfg.dataset
    context = context_length(cfg.model)
    return Room(dataset.max_length, context, reserve, dataset.truncate_prompt)


def show_room(found: Exploration, cfg: RunConfig, console: Console) -> None:
    """Say how many examples a job would leave out, or cut, for their length."""
    tokens, truncates = cfg.dataset.max_length, cfg.dataset.truncate_prompt
    words = {
        "answer_cut": f"longer than the model reads or dataset.max_length={tokens}",
        "no_room_to_answer": (
            f"no room for generation.max_new_tokens={cfg.generation.max_new_tokens} after it"
        ),
    }
    for split, reasons in found.too_long.items():
        why = "; ".join(f"{count} {words[reason]}" for reason, count in reasons.items())
        what = "Cut in" if truncates else "Left out of"
        total = f"{sum(reasons.values())} of {found.sizes[split]}"
        console.print(literal(f"{what} {split} for their length: {total} ({why})."))
    if found.too_long and not truncates:
        console.print("To cut prompts instead: dataset.truncate_prompt=true.", markup=False)
    for line in found.nothing_fits:
        console.print(literal(line), style="bold")


def show_answers(splits: DataSplits, cfg: RunConfig, console: Console) -> None:
    """Say whether the answers are labels or codes, and what to add to the command then."""
    from sizewise.metrics.reading.answer_sets import recognise

    parts = {name: getattr(splits, name) for name in SPLITS}
    found = recognise([e.answer for examples in parts.values() for e in examples])
    if found is None:
        _show_texts(cfg, console)
        return
    kind = "labels" if found.task == "classification" else "ICD-10 codes"
    task = TASKS[found.task]
    known = cfg.dataset.primary.partition("/")[0] == task.primary.partition("/")[0]
    console.print(
        literal(
            f"Answers: {'' if known else 'looks like '}{len(found.labels)} {kind} in "
            f"{plural(found.rows, 'example')}. The commonest, {found.labels[0][0]}, is "
            f"{found.majority:.1%} of them: a model has to beat that."
        )
    )
    if not known:
        stands_for = " ".join(f"{key}={value}" for key, value in task.overrides().items())
        console.print(f"Add: dataset.task={found.task}", style="bold", markup=False)
        console.print(literal(f"  It stands for: {stands_for}"))
    wording = f"{cfg.dataset.system or ''}\n{cfg.dataset.prompt}"
    unnamed = found.unnamed(wording) if found.task == "classification" else []
    if not unnamed:
        return
    named = "none of them" if len(unnamed) == len(found.labels) else f"{len(unnamed)} of them not"
    console.print(
        literal(f"The prompt names {named}: an untouched model can hardly hit what it is not told.")
    )
    if found.listed is not None:
        prompt = f"{cfg.dataset.prompt}\n\n{found.listed.replace('{', '{{').replace('}', '}}')}"
        console.print("Add:", style="bold")
        console.print(literal(f"  {shell_text('dataset.prompt', prompt)}"), soft_wrap=True)


def _show_texts(cfg: RunConfig, console: Console) -> None:
    """Say of free texts that their likelihood decides nothing, where that is the chosen score."""
    if not cfg.dataset.primary.startswith(PERPLEXITY_PREFIX):
        return
    task = TASKS["text"]
    console.print(
        literal(
            f"Answers: free texts. {cfg.dataset.primary} says how likely a model finds them, which "
            "training lowers whatever the answers are worth: no decision rests on it."
        )
    )
    console.print("Add: dataset.task=text", style="bold", markup=False)
    console.print(f"  It scores answers against the reference ({task.primary}).", markup=False)


def show(found: Exploration, title: str, console: Console) -> None:
    console.print(_sizes(found, title))
    for sentence in found.sentences:
        console.print(literal(sentence))
    for split, labels in found.labels.items():
        if labels.counts:
            common = first_of([f"{name} {n}" for name, n in labels.counts], SHOWN_LABELS)
            console.print(
                f"{split}: {plural(len(labels.counts), 'label')} ({literal(common)}), "
                f"{len(labels.unseen)} never seen in training."
            )
        if labels.spellings:
            spelt = first_of(["/".join(kinds) for kinds in labels.spellings], SHOWN_LABELS)
            number = plural(len(labels.spellings), "label")
            console.print(f"{split}: {number} in several spellings: {literal(spelt)}.")
    for example in found.samples:
        console.rule()
        console.print(literal(cut(example.prompt_text, SHOWN_CHARS)))
        console.print(f"→ {literal(cut(example.answer, SHOWN_CHARS))}", style="bold")


def _sizes(found: Exploration, title: str) -> Table:
    columns = (
        Column("split", no_wrap=True),
        "examples",
        "groups",
        "prompt p50",
        "p95",
        "max",
        "answer p50",
        "p95",
        "max",
    )
    table = Table(*columns, title=literal(title))
    for split, lengths in found.lengths.items():
        cells = [found.sizes[split], found.repetition[split].groups, *_cells(lengths)]
        table.add_row(split, *map(str, cells))
    return table


def _cells(lengths: TokenLengths) -> list[int]:
    parts = (lengths.prompt, lengths.answer)
    return [round(value) for part in parts for value in (part.p50, part.p95, part.max)]


def check_language_model(model: ModelConfig, what: str) -> None:
    """Raise ConfigError for an encoder, a baseline or an endpoint: no language model is here."""
    if model.family == "encoder":
        raise ConfigError(
            f"model={model.name} is an encoder, which only chooses one of its classes: there is "
            f"nothing to {what}. Choose a language model."
        )
    if not model.has_weights:
        raise ConfigError(
            f"model={model.name} has no weights on this machine: there is nothing to {what}. "
            "Choose another model."
        )
