"""``sizewise explore``: what a data set looks like to a model, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sizewise.composition.compose import compose_run
from sizewise.composition.inputs import names_hub
from sizewise.config import ModelConfig
from sizewise.data.build import build_splits
from sizewise.data.explore import Exploration, TokenLengths, draw_lengths, explore
from sizewise.errors import ConfigError
from sizewise.files import write_atomically
from sizewise.models.tokenizer import load_template
from sizewise.report.words import literal
from sizewise.runtime import prepare_environment, quiet

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
    prepare_environment(hub=names_hub(cfg))
    quiet()
    template = load_template(cfg.model)
    found = explore(build_splits(cfg.dataset), template, samples, cfg.seed)
    show(found, f"{cfg.dataset.name}, tokens of {cfg.model.name}", Console(emoji=False))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / "exploration.json", json.dumps(asdict(found), indent=2))
        draw_lengths(found, out / "token_lengths.png")


def show(found: Exploration, title: str, console: Console) -> None:
    console.print(_sizes(found, title))
    report = found.report
    console.print(
        f"{report.rows} rows read; filtered: {literal(report.reasons)}; "
        f"{report.duplicates} exact repetitions removed."
    )
    if any(report.noted.values()):
        console.print(f"To be noted: {report.notes}.", markup=False)
    console.print(
        f"Groups in more than one split: {report.shared_groups}. A random split of rows would "
        f"have put {report.row_split_leak:.1%} of the test rows' questions into training. "
        f"Answers shared by training and test: {found.shared_answers}."
    )
    for split, labels in found.labels.items():
        if labels.counts:
            common = ", ".join(f"{name} {count}" for name, count in labels.counts[:SHOWN_LABELS])
            console.print(
                f"{split}: {len(labels.counts)} labels ({literal(common)} …), "
                f"{len(labels.unseen)} never seen in training."
            )
    for example in found.samples:
        console.rule()
        console.print(literal(_cut(example.prompt_text)))
        console.print(f"→ {literal(_cut(example.answer))}", style="bold")


def _sizes(found: Exploration, title: str) -> Table:
    columns = (
        "split",
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


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]} …"


def check_language_model(model: ModelConfig, what: str) -> None:
    """Raise ConfigError for a baseline or an endpoint: neither tokens nor weights are here."""
    if not model.has_weights:
        raise ConfigError(
            f"model={model.name} has no weights on this machine: there is nothing to {what}. "
            "Choose another model."
        )
