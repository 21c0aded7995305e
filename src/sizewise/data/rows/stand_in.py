"""Synthetic rows with the columns that a configuration names, where the real ones are out of reach.

They exist for dry runs only: whatever is computed from them says nothing about the task.
"""

from __future__ import annotations

import random
import re
from typing import Any

from sizewise.config.data import DatasetConfig

ROWS = 64
MARK = "(synthetic)"
CODES = ("J45.909", "E11.9", "I10", "M54.50", "N39.0", "F41.1", "K21.9", "R05.9")
SUBJECTS = ("The neighbour", "My sister", "A colleague", "The doctor", "Our teacher", "A friend")
VERBS = ("noticed", "described", "forgot", "explained", "expected", "mentioned")
OBJECTS = ("a long walk", "the old garden", "a quiet evening", "this letter", "some bad news")
ENDINGS = ("last week", "before breakfast", "with some worry", "for no reason", "once again")
_FIELD = re.compile(r"(?<!\{)\{([^{}]+)\}")


def stand_in_rows(cfg: DatasetConfig, count: int = ROWS, seed: int = 0) -> list[dict[str, Any]]:
    """Make ``count`` rows with every column that ``cfg`` names; the same for the same arguments.

    Texts begin with a mark; the label column holds ICD-10-CM codes, of which some are rare.
    """
    return [_row(cfg, number, random.Random(f"{seed}/{number}")) for number in range(count)]


def text_columns(cfg: DatasetConfig) -> list[str]:
    """Return the columns of system, prompt and answer texts and the rejected one, in order."""
    texts = (cfg.system or "", cfg.prompt, cfg.answer)
    names = [name for text in texts for name in _FIELD.findall(text)]
    return list(dict.fromkeys([*names, *([cfg.rejected] if cfg.rejected else [])]))


def _row(cfg: DatasetConfig, number: int, draw: random.Random) -> dict[str, Any]:
    row: dict[str, Any] = {name: _text(name, draw) for name in text_columns(cfg)}
    for name in cfg.strata:
        row[name] = draw.choice(("first", "second", "third"))
    row |= {name: f"{number // 2}" for name in cfg.group}
    if cfg.conversation:
        row[cfg.conversation] = _dialogue(draw, turns=4)
    if cfg.history:
        row[cfg.history] = [turn["content"] for turn in _dialogue(draw, turns=draw.choice((1, 3)))]
    if cfg.label:
        row[cfg.label] = CODES[min(int(draw.expovariate(0.6)), len(CODES) - 1)]
    if cfg.split.column:
        shares = cfg.split.names
        part = ("train", "validation", "test", "train", "train")[(number // 2) % 5]
        row[cfg.split.column] = shares.get(part, part)
    return row


def _dialogue(draw: random.Random, turns: int) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [
        {"role": roles[turn % 2], "content": f"{MARK} {_sentences(draw)}"} for turn in range(turns)
    ]


def _text(column: str, draw: random.Random) -> str:
    return f"{MARK} {column.strip()}: {_sentences(draw)}"


def _sentences(draw: random.Random) -> str:
    made = (
        " ".join(draw.choice(words) for words in (SUBJECTS, VERBS, OBJECTS, ENDINGS))
        for _ in range(draw.randint(1, 4))
    )
    return ". ".join(made) + "."
