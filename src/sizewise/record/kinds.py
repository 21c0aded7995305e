"""Are the values of a record of the kinds that its class declares?"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

WORDS = {str: "text", int: "whole number", float: "number", bool: "truth value"}
# Python calls True a number, a record does not; whole numbers are numbers.
KINDS: dict[type, tuple[type, ...]] = {float: (float, int)}
NOTHING = type(None)

Fault = Callable[[Any], str | None]


def check_kinds(record: Any, kind: Any, where: str = "") -> None:
    """Raise TypeError, with the dotted name of the field, where a record is not of its kind.

    Args:
        record: a value as JSON gives it.
        kind: a dataclass, a TypedDict (whose keys may be absent) or any hint of a field of them.
            Whether a record has fields besides is left to who builds the class.
        where: the name of the record itself.
    """
    fault = fault_of(kind)(record)
    if fault is not None:
        raise TypeError((where + fault).removeprefix("."))


@cache
def fault_of(kind: Any) -> Fault:
    """Return what says how a value differs from ``kind`` (after its dotted name); None if not."""
    origin = get_origin(kind)
    if kind is Any or kind is object:
        return lambda _: None
    if origin in (Union, types.UnionType):
        return _optional(*(part for part in get_args(kind) if part is not NOTHING))
    if is_dataclass(kind) or typing.is_typeddict(kind):
        return _fields(kind)
    if origin is list:
        return _items(*get_args(kind))
    if origin is not None:
        return _values(get_args(kind)[1])
    return _plain(kind)


def _plain(kind: type) -> Fault:
    kinds = KINDS.get(kind, (kind,))
    return lambda v: None if type(v) in kinds else f" is no {WORDS[kind]} but {v!r}"


def _optional(kind: Any) -> Fault:
    inner = fault_of(kind)
    return lambda value: None if value is None else inner(value)


def _items(kind: Any) -> Fault:
    inner = fault_of(kind)

    def fault(value: Any) -> str | None:
        if not isinstance(value, list):
            return f" is no list but {value!r}"
        faults = ((i, inner(item)) for i, item in enumerate(value))
        return next((f".{i}{said}" for i, said in faults if said is not None), None)

    return fault


def _values(kind: Any) -> Fault:
    inner = fault_of(kind)

    def fault(value: Any) -> str | None:
        if not isinstance(value, Mapping):
            return f" is no mapping but {value!r}"
        for name, item in value.items():
            if (said := inner(item)) is not None:
                return f".{name}{said}"
        return None

    return fault


def _fields(kind: Any) -> Fault:
    inner = {name: fault_of(hint) for name, hint in get_type_hints(kind).items()}
    needed = _needed(kind)

    def fault(value: Any) -> str | None:
        if not isinstance(value, Mapping):
            return f" is no mapping but {value!r}"
        for name, check in inner.items():
            if name not in value:
                if name in needed:
                    return f".{name} is missing"
            elif (said := check(value[name])) is not None:
                return f".{name}{said}"
        return None

    return fault


def _needed(kind: Any) -> frozenset[str]:
    if not is_dataclass(kind):
        return frozenset()
    without = (f for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING)
    return frozenset(f.name for f in without)
