"""Candidates to leak-safe splits: drawn by groups, or the source's own with its leaks counted."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

from sizewise.config.data import EITHER, SPLITS, SYNONYMS, DatasetConfig, SplitConfig
from sizewise.data.example import DataReport, DataSplits, Example
from sizewise.data.rows.columns import placeholders
from sizewise.data.rows.examples import Candidates
from sizewise.data.splits.groups import leaking_rows, rank, row_split_leak, shared_groups
from sizewise.errors import DataError


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
    pairs = _limit(list(zip(candidates.examples, candidates.splits, strict=True)), cfg)
    sizes = Counter(example.group for example, _ in pairs)
    pairs, duplicates = _distinct(pairs)
    values = Counter(value or "" for value in candidates.splits)
    parts = _divide(pairs, values, split, filtered, noted)
    leaks = leaking_rows(parts)
    parts = _mind_leaks(parts, leaks, split.on_leak, filtered)
    fraction = len(parts["train"]) / max(1, sum(map(len, parts.values())))
    kept = limited(parts, cfg)
    report = DataReport(
        rows=candidates.rows,
        filtered=dict(filtered),
        duplicates=duplicates,
        shared_groups=shared_groups(kept),
        leaking_rows=leaks,
        row_split_leak=row_split_leak(list(sizes.values()), round(fraction * sizes.total())),
        noted=dict(noted),
    )
    _require(kept, report, cfg)
    return DataSplits(kept["train"], kept["validation"], kept["test"], report)


def draw(
    examples: Sequence[Example], fractions: Mapping[str, float], rest: str, seed: int
) -> Parts:
    """Draw whole groups into the given fractions; what remains goes to ``rest``.

    Groups are taken in an order drawn by ``seed`` (groups larger than a fraction's rows last);
    each fraction takes groups while that brings it nearer to its size, and at least one.
    """
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.group, []).append(example)
    order = deque(_order(groups, len(examples), fractions, seed))
    wanted = _wanted(groups, len(examples), fractions)
    parts: Parts = {name: [] for name in (*fractions, rest)}
    full = sum(fractions.values()) >= 1 - 1e-9
    spare = len(wanted) - full
    for name, size in wanted.items():
        while len(order) > spare and _nearer(len(parts[name]), len(groups[order[0]]), size):
            parts[name] += groups[order.popleft()]
        spare -= 1
    last = list(wanted)[-1] if full and wanted else rest
    for group in order:
        parts[last] += groups[group]
    return parts


def _cap(total: int, fractions: Mapping[str, float]) -> float:
    """Rows of the smallest fraction: larger groups are taken last."""
    return max(
        1.0, min((share * total for share in fractions.values() if share > 0), default=total)
    )


def _order(
    groups: Mapping[str, Sequence[Example]], total: int, fractions: Mapping[str, float], seed: int
) -> list[str]:
    cap = _cap(total, fractions)
    return sorted(groups, key=lambda name: (len(groups[name]) > cap, rank(seed, name)))


def _wanted(
    groups: Mapping[str, Sequence[Example]], total: int, fractions: Mapping[str, float]
) -> dict[str, float]:
    """Rows of each fraction; less, in proportion, where only giant groups could fill them."""
    wanted = {name: share * total for name, share in fractions.items() if share > 0}
    if sum(fractions.values()) >= 1 - 1e-9 or not wanted:
        return wanted
    cap = _cap(total, fractions)
    small = sum(len(rows) for rows in groups.values() if len(rows) <= cap)
    factor = min(1.0, small / sum(wanted.values())) if small else 1.0
    return {name: size * factor for name, size in wanted.items()}


def _nearer(have: int, more: int, wanted: float) -> bool:
    return have == 0 or have + more / 2 <= wanted


def _divide(
    pairs: Sequence[tuple[Example, str | None]],
    values: Counter[str],
    cfg: SplitConfig,
    filtered: Counter[str],
    noted: Counter[str],
) -> Parts:
    """Divide by the source's column, drawing from training what it lacks, or by groups alone."""
    fractions = {"test": cfg.test, "validation": cfg.validation}
    if cfg.column is None:
        return draw([example for example, _ in pairs], fractions, "train", cfg.seed)
    parts = divide_by_column(pairs, values, cfg, filtered, noted)
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


def _limit(
    pairs: list[tuple[Example, str | None]], cfg: DatasetConfig
) -> list[tuple[Example, str | None]]:
    if cfg.max_samples is None or cfg.max_samples >= len(pairs):
        return pairs
    seed = cfg.split.seed
    order = sorted(pairs, key=lambda p: (rank(seed, f"sample:{p[0].id}"), p[0].content_id))
    return order[: cfg.max_samples]


def _distinct(
    pairs: Sequence[tuple[Example, str | None]],
) -> tuple[list[tuple[Example, str | None]], int]:
    """Keep one of equal examples within a split of the source; return how many went.

    Which one follows from its row's values and meta data, not from the order of rows.
    """
    kept: dict[tuple[str, str | None], tuple[Example, str | None]] = {}
    for example, split in pairs:
        key = (example.content_id, split)
        other = kept.setdefault(key, (example, split))[0]
        if (example.id, sorted(example.meta.items())) < (other.id, sorted(other.meta.items())):
            kept[key] = (example, split)
    return list(kept.values()), len(pairs) - len(kept)


def limited(parts: Parts, cfg: DatasetConfig) -> dict[str, tuple[Example, ...]]:
    """Order each split as the split seed draws it, and keep as many as ``max_*`` says."""
    limits = {"train": cfg.max_train, "validation": cfg.max_validation, "test": cfg.max_test}

    def place(example: Example) -> tuple[str, str]:
        return rank(cfg.split.seed, example.id), example.content_id

    return {name: tuple(sorted(parts[name], key=place)[: limits[name]]) for name in SPLITS}


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


Parts = dict[str, list[Example]]


def divide_by_column(
    pairs: Sequence[tuple[Example, str | None]],
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
    parts: Parts = {"train": [], "validation": [], "test": []}
    for example, given in pairs:
        own = split_of.get(given or "", "")
        if own in parts:
            parts[own].append(example)
        else:
            filtered["other_split"] += 1
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
    found = ", ".join(f"{value!r} ({unread[value]})" for value in sorted(unread)[:10])
    more = f" and {len(unread) - 10} more" if len(unread) > 10 else ""
    first = min(unread)
    raise DataError(
        f"dataset.split.names={dict(cfg.names)} fits no value of the column {cfg.column!r} for "
        f"{' and '.join(empty)}, and these values fit no split: {found}{more} (examples in "
        f"brackets). Say what they are: 'dataset.split.names.{empty[-1]}=\"{first}\"', or leave "
        f"them out: '+dataset.split.names.unused=\"{first}\"'."
    )


def drop_leaks(parts: Parts) -> Parts:
    """Leave out training rows that share a group with evaluation, and validation with test."""
    test = {example.group for example in parts["test"]}
    validation = [example for example in parts["validation"] if example.group not in test]
    held_out = test | {example.group for example in validation}
    train = [example for example in parts["train"] if example.group not in held_out]
    return {"train": train, "validation": validation, "test": parts["test"]}
