"""Candidates to leak-safe splits: drawn by groups, or the source's own with its leaks counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from sizewise.config.data import EITHER, SPLITS, SYNONYMS, DatasetConfig, SplitConfig
from sizewise.data.example import DataReport, DataSplits, Example, Examples, as_examples
from sizewise.data.rows.columns import placeholders
from sizewise.data.rows.examples import Candidates
from sizewise.data.splits.groups import (
    group_codes,
    group_sizes,
    leaking_rows,
    rank,
    row_split_leak,
    shared_groups,
)
from sizewise.errors import DataError
from sizewise.words import first_of

Parts = dict[str, Examples]


def split_examples(candidates: Candidates, cfg: DatasetConfig) -> DataSplits:
    """Divide examples into train, validation and test, limit their sizes and report.

    Order within a split is drawn by ``cfg.split.seed`` from ids alone, so that it depends neither
    on the order of rows nor on the wording of the prompt, and the first n of a larger training set
    are the smaller one.

    Raises:
        DataError: a split that should have examples has none, or the source's own split leaks
            and ``on_leak`` is ``error``.
    """
    split = cfg.own_split
    filtered, noted = Counter(candidates.filtered), Counter(candidates.noted)
    examples, given = as_examples(candidates.examples), numbered(candidates.splits)
    examples, given = _limit(examples, given, cfg)
    sizes = group_sizes(examples)
    kept = _distinct(examples, given)
    duplicates = len(examples) - len(kept)
    values = Counter(value or "" for value in candidates.splits)
    parts = _divide(examples.select(kept), given.select(kept), values, split, filtered, noted)
    leaks = leaking_rows(parts)
    parts = _mind_leaks(parts, leaks, split.on_leak, filtered)
    fraction = len(parts["train"]) / max(1, sum(map(len, parts.values())))
    limits = limited(parts, cfg)
    report = DataReport(
        rows=candidates.rows,
        filtered=dict(filtered),
        duplicates=duplicates,
        shared_groups=shared_groups(limits),
        leaking_rows=leaks,
        row_split_leak=row_split_leak(sizes, round(fraction * sum(sizes))),
        noted=dict(noted),
    )
    _require(limits, report, cfg)
    return DataSplits(limits["train"], limits["validation"], limits["test"], report)


@dataclass(frozen=True)
class Given:
    """What the source's own column says of each example: numbers into ``values``."""

    values: tuple[str | None, ...]
    codes: NDArray[np.int64]

    def select(self, rows: NDArray[np.int64]) -> Given:
        return Given(self.values, self.codes[rows])


def numbered(splits: Sequence[str | None]) -> Given:
    numbers: dict[str | None, int] = {}
    codes = (numbers.setdefault(value, len(numbers)) for value in splits)
    found = np.fromiter(codes, dtype=np.int64, count=len(splits))
    return Given(tuple(numbers), found)


def draw(examples: Examples, fractions: Mapping[str, float], rest: str, seed: int) -> Parts:
    """Draw whole groups into the given fractions; what remains goes to ``rest``.

    Groups are taken in an order drawn by ``seed`` (groups larger than a fraction's rows last);
    each fraction takes groups while that brings it nearer to its size, and at least one.
    """
    order, sizes = _group_order(examples, fractions, seed)
    ends = np.cumsum(sizes)
    wanted = _wanted(sizes, len(examples), fractions)
    full = sum(fractions.values()) >= 1 - 1e-9
    spare = len(wanted) - full
    taken = begin = 0
    bounds: dict[str, tuple[int, int]] = {}
    for name, size in wanted.items():
        have = 0
        while len(sizes) - taken > spare and _nearer(have, int(sizes[taken]), size):
            have += int(sizes[taken])
            taken += 1
        bounds[name] = (begin, int(ends[taken - 1]) if taken else 0)
        begin = bounds[name][1]
        spare -= 1
    last = list(wanted)[-1] if full and wanted else rest
    bounds[last] = (bounds.get(last, (begin, begin))[0], len(examples))
    return {
        name: examples.select(order[slice(*bounds.get(name, (0, 0)))])
        for name in (*fractions, rest)
    }


def _cap(total: int, fractions: Mapping[str, float]) -> float:
    """Rows of the smallest fraction: larger groups are taken last."""
    return max(
        1.0, min((share * total for share in fractions.values() if share > 0), default=total)
    )


def _group_order(
    examples: Examples, fractions: Mapping[str, float], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the examples by groups in the order that is drawn, and the groups' sizes in it."""
    codes = group_codes({"all": examples})["all"]
    _, first, own, sizes = np.unique(
        codes, return_index=True, return_inverse=True, return_counts=True
    )
    ranks = ranked(seed, examples.select(first).groups(), len(first))
    order = np.lexsort((ranks, sizes > _cap(len(examples), fractions)))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return np.argsort(place[own], kind="stable"), sizes[order]


def ranked(seed: int, names: Iterable[str], count: int) -> NDArray[np.uint64]:
    """Return the first 64 bits of the ``rank`` of each name, which put them in its order."""
    ranks = (int(rank(seed, name)[:16], 16) for name in names)
    return np.fromiter(ranks, dtype=np.uint64, count=count)


def _wanted(
    sizes: NDArray[np.int64], total: int, fractions: Mapping[str, float]
) -> dict[str, float]:
    """Rows of each fraction; less, in proportion, where only giant groups could fill them."""
    wanted = {name: share * total for name, share in fractions.items() if share > 0}
    if sum(fractions.values()) >= 1 - 1e-9 or not wanted:
        return wanted
    small = int(sizes[sizes <= _cap(total, fractions)].sum())
    factor = min(1.0, small / sum(wanted.values())) if small else 1.0
    return {name: size * factor for name, size in wanted.items()}


def _nearer(have: int, more: int, wanted: float) -> bool:
    return have == 0 or have + more / 2 <= wanted


def _divide(
    examples: Examples,
    given: Given,
    values: Counter[str],
    cfg: SplitConfig,
    filtered: Counter[str],
    noted: Counter[str],
) -> Parts:
    """Divide by the source's column, drawing from training what it lacks, or by groups alone."""
    fractions = {"test": cfg.test, "validation": cfg.validation}
    if cfg.column is None:
        return draw(examples, fractions, "train", cfg.seed)
    parts = divide_by_column(examples, given, values, cfg, filtered, noted)
    missing = {n: fractions[n] for n in fractions if not parts[n] and fractions[n] > 0}
    drawn = draw(parts["train"], missing, "train", cfg.seed) if missing else {}
    for name in missing:
        noted[f"{name} examples drawn from training"] += len(drawn[name])
    return {**parts, **drawn}


def _mind_leaks(parts: Parts, leaks: int, on_leak: str, filtered: Counter[str]) -> Parts:
    if on_leak == "error" and shared_groups(parts):
        raise DataError(
            f"The source's own split leaks: {leaks} evaluation rows share a question, a "
            f"conversation or a declared group with training ({shared_groups(parts)} groups are in "
            "more than one split). Set dataset.split.on_leak=drop to leave those training rows "
            "out, =report to go on, or dataset.split.column=null to draw a split by groups."
        )
    if on_leak != "drop":
        return parts
    kept = drop_leaks(parts)
    lost = sum(map(len, parts.values())) - sum(map(len, kept.values()))
    if lost:
        filtered["leaking"] += lost
    return kept


def _limit(examples: Examples, given: Given, cfg: DatasetConfig) -> tuple[Examples, Given]:
    if cfg.max_samples is None or cfg.max_samples >= len(examples):
        return examples, given
    names = (f"sample:{own}" for own in examples.ids())
    ranks = ranked(cfg.split.seed, names, len(examples))
    chosen = np.lexsort((_contents(examples), ranks))[: cfg.max_samples]
    return examples.select(chosen), given.select(chosen)


def _contents(examples: Examples) -> NDArray[np.uint64]:
    """Return the content ids as numbers in their order."""
    ids = (int(own, 16) for own in examples.content_ids())
    return np.fromiter(ids, dtype=np.uint64, count=len(examples))


def _distinct(examples: Examples, given: Given) -> NDArray[np.int64]:
    """Return the places of examples, of equal ones within a split of the source one of them.

    Which one follows from its row's values and meta data, not from the order of rows.
    """
    pairs = np.stack([_contents(examples), given.codes.astype(np.uint64)])
    order = np.lexsort(pairs)
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (np.diff(pairs[:, order], axis=1) != 0).any(axis=0)
    starts = np.flatnonzero(new)
    first, chosen = order[starts], order[starts]

    def place(row: int) -> tuple[str, list[tuple[str, str]]]:
        example = examples[row]
        return example.id, sorted(example.meta.items())

    counts = np.diff(np.append(starts, len(order)))
    for run in np.flatnonzero(counts > 1).tolist():
        rows = order[starts[run] : starts[run] + counts[run]].tolist()
        chosen[run] = min(rows, key=place)
    found: NDArray[np.int64] = chosen[np.argsort(first)]
    return found


def limited(parts: Mapping[str, Sequence[Example]], cfg: DatasetConfig) -> Parts:
    """Order each split as the split seed draws it, and keep as many as ``max_*`` says."""
    limits = {"train": cfg.max_train, "validation": cfg.max_validation, "test": cfg.max_test}

    def ordered(examples: Examples, most: int | None) -> Examples:
        ranks = ranked(cfg.split.seed, examples.ids(), len(examples))
        return examples.select(np.lexsort((_contents(examples), ranks))[:most])

    return {name: ordered(as_examples(parts[name]), limits[name]) for name in SPLITS}


def _require(
    parts: Mapping[str, Sequence[Example]], report: DataReport, cfg: DatasetConfig
) -> None:
    fractions = {"validation": cfg.own_split.validation, "test": cfg.own_split.test}
    needed = {"train": fractions["validation"] + fractions["test"] < 1 - 1e-9}
    needed |= {name: fraction > 0 for name, fraction in fractions.items()}
    empty = [name for name in SPLITS if needed[name] and not parts[name]]
    if not empty:
        return
    causes = ", ".join(f"{count} {reason}" for reason, count in report.filtered.items())
    counts = ", ".join(f"{name} {len(parts[name])}" for name in SPLITS)
    if not placeholders(cfg.prompt) and not (cfg.conversation or cfg.history):
        raise DataError(
            f"dataset.prompt={cfg.prompt!r} names no column, so that all {report.rows} rows ask "
            f"the same and cannot be divided ({counts}). Put the columns in braces, such as "
            "'dataset.prompt=\"{question}\"'."
        )
    noted = f" Noted: {report.notes}." if any(report.noted.values()) else ""
    if cfg.group:
        noted += f" Rows that share a value of dataset.group={cfg.group} stay together."
    raise DataError(
        f"The {' and '.join(empty)} split of dataset {cfg.name!r} is empty ({counts}). "
        f"Of {report.rows} rows, left out: {causes or 'none'}; {report.duplicates} duplicates."
        f"{noted} "
        "Loosen dataset.filter, raise dataset.max_samples, change the fractions of dataset.split, "
        "or check dataset.split.column and its names."
    )


def divide_by_column(
    examples: Examples,
    given: Given,
    values: Counter[str],
    cfg: SplitConfig,
    filtered: Counter[str],
    noted: Counter[str],
) -> Parts:
    """Sort examples by the values that ``cfg.names`` gives to each split, or by known synonyms.

    Examples of other values are counted in ``filtered`` as ``other_split``, and synonyms in
    ``noted``. ``values``: how often the column holds each value, examples beyond a limit included.

    Raises:
        DataError: values fit no split although a wanted split has none.
    """
    wanted = {
        "train": 1 - cfg.validation - cfg.test,
        "validation": cfg.validation,
        "test": cfg.test,
    }
    split_of = read_names(values, cfg.names, [n for n in SPLITS if wanted[n] > 1e-9])
    empty = [n for n in SPLITS if wanted[n] > 1e-9 and n not in split_of.values()]
    unread = {value: n for value, n in values.items() if value not in split_of}
    if unread and empty:
        _refuse_values(unread, empty, cfg)
    for value, name in split_of.items():
        if value != cfg.names.get(name):
            noted[f"examples of the split {value!r} read as {name}"] += values[value]
    names = [split_of.get(value or "", "") for value in given.values]
    parts: Parts = {
        name: examples.where(
            np.isin(given.codes, [n for n, own in enumerate(names) if own == name])
        )
        for name in SPLITS
    }
    if other := len(examples) - sum(map(len, parts.values())):
        filtered["other_split"] += other
    return parts


def read_names(
    values: Iterable[str], names: Mapping[str, str], wanted: Sequence[str] = SPLITS
) -> dict[str, str]:
    """Say which split each value of the source's column means; values that fit none are absent.

    The configured ``names`` (split → value) come first, as they stand or in another case; a name
    that is no split says that a value is left out. A split that they do not fill takes a synonym,
    if there is only one; so do test and validation with ``eval``, which is the test split unless
    there is one or only validation is ``wanted``. An empty cell is a value too.
    """
    values = list(dict.fromkeys(values))
    found = {v: name for name, value in names.items() for v in values if v == value}
    folded = {value.casefold(): name for name, value in names.items() if value}
    found |= {v: folded[v.casefold()] for v in values if v not in found and v.casefold() in folded}
    for name in SPLITS:
        if name not in found.values():
            found |= _only([v for v in values if v not in found], SYNONYMS[name], name)
    free = [name for name in ("test", "validation") if name not in found.values()]
    if free:
        rest = [value for value in values if value not in found]
        found |= _only(rest, EITHER, next((n for n in free if n in wanted), free[0]))
    return found


def _only(values: Sequence[str], synonyms: Sequence[str], name: str) -> dict[str, str]:
    """Give a split the values of one synonym, in any case; none where several compete."""
    fitting = [value for value in values if value.casefold() in synonyms]
    same = len({value.casefold() for value in fitting}) == 1
    return dict.fromkeys(fitting, name) if same else {}


def _refuse_values(unread: Mapping[str, int], empty: Sequence[str], cfg: SplitConfig) -> NoReturn:
    found = first_of([f"{value!r} ({unread[value]})" for value in sorted(unread)], 10)
    first = min(unread)
    raise DataError(
        f"dataset.split.names={dict(cfg.names)} fits no value of the column {cfg.column!r} for "
        f"{' and '.join(empty)}, and these values fit no split: {found} (examples in "
        f"brackets). Say what they are: 'dataset.split.names.{empty[-1]}=\"{first}\"', or leave "
        f"them out: '+dataset.split.names.unused=\"{first}\"'."
    )


def drop_leaks(parts: Parts) -> Parts:
    """Leave out training rows that share a group with evaluation, and validation with test."""
    codes = group_codes(parts)
    apart = ~np.isin(codes["validation"], codes["test"])
    held_out = np.concatenate([codes["test"], codes["validation"][apart]])
    return {
        "train": parts["train"].where(~np.isin(codes["train"], held_out)),
        "validation": parts["validation"].where(apart),
        "test": parts["test"],
    }
