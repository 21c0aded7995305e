"""``--by``: pairs that differ in the named keys alone, and who is in none of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from sizewise.errors import ConfigError
from sizewise.files import key_text
from sizewise.record.identity import flatten
from sizewise.report.comparison.arms import CLASSICAL, DATA, ENCODER, TUNED, ZERO_SHOT, Arm, TestSet
from sizewise.report.comparison.pair import Pair, Wanted
from sizewise.report.comparison.selection import CHOSEN, UNCHANGING, chosen_by_validation
from sizewise.words import first_of

BY = "by "
MOST_NAMED = 4


def named(key: str, by: Sequence[str]) -> bool:
    """Whether a flat key is one of ``by`` or belongs to such a group."""
    return any(key == name or key.startswith(f"{name.rstrip('.')}.") for name in by)


def pairs_along(test: TestSet, by: Sequence[str]) -> Iterator[Wanted]:
    """Pairs that differ in these keys only, settings of the training chosen by validation."""
    _check_keys(test, by)
    for kind in (TUNED, ENCODER, ZERO_SHOT, CLASSICAL):
        for cells in _cells(test, kind, by):
            for a, b in combinations(cells, 2):
                yield BY + ", ".join(by), a, b


def _cells(test: TestSet, kind: str, by: Sequence[str]) -> Iterator[list[Arm]]:
    """Arms that are equal but for ``by`` and for what is chosen, the best of each value of it."""
    chosen = (*CHOSEN, *UNCHANGING) if kind in (TUNED, ENCODER) else UNCHANGING
    if named("model.name", by):
        chosen = (*chosen, DATA)
    groups: dict[str, dict[str, list[Arm]]] = {}
    for arm in test.scored:
        if arm.kind == kind:
            flat = flatten(arm.config)
            value = key_text({k: v for k, v in flat.items() if named(k, by)})
            ignored = chosen if not any(n.startswith("dataset") for n in by) else (*chosen, DATA)
            alike = {
                k: v for k, v in flat.items() if not k.startswith(ignored) and not named(k, by)
            }
            key = key_text(alike)
            groups.setdefault(key, {}).setdefault(value, []).append(arm)
    for values in groups.values():
        yield [chosen_by_validation(test, arms) for arms in values.values()]


def _check_keys(test: TestSet, by: Sequence[str]) -> None:
    flats = [flatten(arm.config) for arm in test.arms]
    known = sorted({key for flat in flats for key in flat if not key.startswith(DATA)})
    for name in by:
        if any(named(key, [name]) for key in known):
            continue
        differing = ", ".join(_several_values(flats, known)) or "no key that all of them have"
        why = "names no key of these runs"
        if name == "seed":
            why = "cannot pair: a configuration stands for all its seeds, and they are averaged"
        raise ConfigError(
            f"--by {name} {why}; nothing was compared and {len(test.arms)} configurations were "
            f"left out. They differ in: {differing}."
        )


def _several_values(flats: Sequence[Mapping[str, Any]], known: Sequence[str]) -> list[str]:
    """Keys of which there are two values or more, of many in one group the group alone.

    A key that only some have is none: what was not trained has no settings of a training.
    """
    groups: dict[str, list[str]] = {}
    for key in known:
        if len({repr(flat[key]) for flat in flats if key in flat}) > 1:
            groups.setdefault(key.partition(".")[0], []).append(key)
    short = [keys if len(keys) < MOST_NAMED else [group] for group, keys in groups.items()]
    return [key for keys in short for key in keys]


def left_out(test: TestSet, by: Sequence[str], pairs: Sequence[Pair]) -> list[str]:
    """With ``by``: which arms stand in no pair, and why, each a sentence."""
    if not by:
        return []
    paired = {id(arm) for pair in pairs for arm in (pair.a, pair.b)}
    others = [arm for arm in test.arms if id(arm) not in paired]
    reasons: dict[str, list[str]] = {}
    for arm in others:
        reasons.setdefault(_reason(test, arm, by, paired), []).append(arm.label)
    return [
        f"Left out: {first_of(labels, MOST_NAMED)}: {reason}." for reason, labels in reasons.items()
    ]


def _reason(test: TestSet, arm: Arm, by: Sequence[str], paired: set[int]) -> str:
    if arm.scores is None:
        return f"no {test.primary} per example"
    same = [other for other in test.scored if other.kind == arm.kind and other is not arm]
    if not same:
        return f"the only {arm.kind} model"
    away = {id(other): _distance(arm, other, by) for other in same}
    if any(id(other) in paired and not away[id(other)] for other in same):
        return "a setting of the training that was worse on validation"
    nearest = min(away.values(), key=len)
    if not nearest:
        return f"nothing differs from it in {', '.join(by)}"
    return f"nothing differs from it in {', '.join(by)} alone (also in {', '.join(nearest)})"


def _distance(arm: Arm, other: Arm, by: Sequence[str]) -> list[str]:
    """Keys in which two arms differ, less those of ``by`` and those that are chosen."""
    one, two = flatten(arm.config), flatten(other.config)
    ignored = (*CHOSEN, *UNCHANGING, DATA) if arm.has_seeds else (*UNCHANGING, DATA)
    keys = sorted(k for k in one.keys() | two.keys() if repr(one.get(k)) != repr(two.get(k)))
    return [k for k in keys if not k.startswith(ignored) and not named(k, by)]
