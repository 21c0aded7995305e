"""From the configuration of a data set to its three splits, or to stand-in rows of a dry run."""

from __future__ import annotations

import json
import logging
import random
import re
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from sizewise.config.data import DatasetConfig
from sizewise.data.example import DataSplits
from sizewise.data.rows.examples import make_examples
from sizewise.data.rows.read import check_content, plain_content_hash, sources_of, stream_rows
from sizewise.data.rows.stream import Rows
from sizewise.data.splits.draw import split_examples
from sizewise.data.splits.few_shot import add_demonstrations
from sizewise.data.splits.mixture import build_mixture
from sizewise.errors import DataError

log = logging.getLogger(__name__)

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
    row: dict[str, Any] = {
        name: f"{MARK} {name.strip()}: {_sentences(draw)}" for name in text_columns(cfg)
    }
    for name in cfg.strata:
        row[name] = draw.choice(("first", "second", "third"))
    row |= {name: f"{number // 2}" for name in cfg.group}
    if cfg.conversation:
        row[cfg.conversation] = _dialogue(draw, turns=4)
    if cfg.history:
        row[cfg.history] = [turn["content"] for turn in _dialogue(draw, turns=draw.choice((1, 3)))]
    if cfg.label:
        row[cfg.label] = CODES[min(int(draw.expovariate(0.6)), len(CODES) - 1)]
    if cfg.own_split.column:
        shares = cfg.own_split.names
        part = ("train", "validation", "test", "train", "train")[(number // 2) % 5]
        row[cfg.own_split.column] = shares.get(part, part)
    return row


def _dialogue(draw: random.Random, turns: int) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [
        {"role": roles[turn % 2], "content": f"{MARK} {_sentences(draw)}"} for turn in range(turns)
    ]


def _sentences(draw: random.Random) -> str:
    made = (
        " ".join(draw.choice(words) for words in (SUBJECTS, VERBS, OBJECTS, ENDINGS))
        for _ in range(draw.randint(1, 4))
    )
    return ". ".join(made) + "."


def build_splits(cfg: DatasetConfig, stand_in: bool = False) -> DataSplits:
    """Read, map, filter, split and limit a data set.

    Deterministic: the same rows in any order and the same configuration give the same splits.
    ``stand_in``: use synthetic rows with the same columns where the hub is out of reach.

    Raises:
        DataError: the source cannot be read, a column does not exist, or a split is empty.
    """
    # Demonstrations are chosen before training is limited, and limit it themselves.
    whole = replace(cfg, max_train=None) if cfg.few_shot else cfg
    if cfg.source.kind == "mixture":
        splits = build_mixture(whole, lambda part: build_splits(part, stand_in))
    else:
        check_content(cfg.source)
        _say_where_no_line_ends(cfg)
        rows = rows_or_stand_in(cfg) if stand_in else stream_rows(cfg.source)
        splits = split_examples(make_examples(rows, cfg), whole)
    return add_demonstrations(splits, cfg.few_shot, cfg.few_shot_style, cfg.max_train)


def _say_where_no_line_ends(cfg: DatasetConfig) -> None:
    for key in ("system", "prompt", "answer"):
        if "\\n" in (getattr(cfg, key) or ""):
            log.warning(
                "dataset.%s holds a backslash and an n, which the model reads as they are. If a "
                "new line is meant, quote it for the shell as $'dataset.%s=\"…\"'.",
                key,
                key,
            )


def rows_or_stand_in(cfg: DatasetConfig) -> Rows:
    """Read the rows; of a hub data set that neither the line nor the cache gives, synthetic ones.

    Raises:
        DataError: the hub answers, but the data set does not exist or is gated.
    """
    from sizewise.data.rows.hub import go_offline, reachable

    source = cfg.source
    if source.kind != "hub" or source.by_split()[0][0] or Path(source.path).expanduser().exists():
        return stream_rows(source)
    there = reachable(source.path)
    if not there:
        go_offline()
    try:
        return stream_rows(cfg.source)
    except DataError as error:
        if there:
            raise
        log.warning("%s Synthetic rows with the same columns stand in for it.", error)
        return Rows.of(stand_in_rows(cfg))


KEPT = 4


@dataclass(frozen=True)
class _Request:
    """What is asked for. Two requests are equal if their keys are."""

    key: str
    cfg: DatasetConfig = field(compare=False)
    stand_in: bool = field(compare=False)


def kept_splits(cfg: DatasetConfig, stand_in: bool = False) -> DataSplits:
    """Return what ``build_splits`` gives, from memory where nothing changed since.

    A local file counts as changed when its content is another one.

    Raises:
        DataError: as ``build_splits``.
    """
    settings = asdict(cfg)
    parts = [settings, stand_in, [plain_content_hash(source) for source in sources_of(settings)]]
    return _build(_Request(json.dumps(parts, default=str), cfg, stand_in))


@lru_cache(maxsize=KEPT)
def _build(request: _Request) -> DataSplits:
    return build_splits(request.cfg, request.stand_in)
