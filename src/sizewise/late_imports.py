"""Two imports that a job mostly does without, left out until something uses them.

PEFT imports bitsandbytes, and with it torch's compiler, in case a layer is quantised; torchmetrics
imports ``scipy.signal`` to give it a name that one of its audio metrics misses. Together they are a
quarter of what a job imports.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def leave_until_used() -> None:
    """Import PEFT and torchmetrics, whoever does it first, without what they need only at times."""
    if not any(isinstance(finder, _Sparing) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Sparing())


@contextmanager
def without_bitsandbytes() -> Iterator[None]:
    """Let PEFT believe that bitsandbytes is absent, unless it was imported already.

    Where a base is quantised, loading it imported bitsandbytes.
    """
    name = "bitsandbytes"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    _forget_what_is_there()
    try:
        yield
    finally:
        del sys.modules[name]
        _forget_what_is_there()


def _forget_what_is_there() -> None:
    found = sys.modules.get("peft.import_utils")
    for name in ("is_bnb_available", "is_bnb_4bit_available"):
        if found is not None and hasattr(found, name):
            getattr(found, name).cache_clear()


@contextmanager
def _without_scipy_signal() -> Iterator[None]:
    name = "scipy.signal"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = _Signal(name)
    try:
        yield
    finally:
        _Signal.leave()


class _Signal(ModuleType):
    """Stands for ``scipy.signal`` where only the name that torchmetrics looks for is asked for."""

    hamming = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked of every module by who looks through them
            raise AttributeError(name)
        self.leave()
        return getattr(import_module(self.__name__), name)

    @staticmethod
    def leave() -> None:
        if isinstance(sys.modules.get("scipy.signal"), _Signal):
            del sys.modules["scipy.signal"]


_SPARED: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    "peft": without_bitsandbytes,
    "torchmetrics": _without_scipy_signal,
}


class _Sparing(MetaPathFinder):
    """Finds what the other finders find, and has some of it run without what it can do without."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _SPARED:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_without(module: ModuleType) -> None:
                with _SPARED[name]():
                    run(module)

            spec.loader.exec_module = run_without  # type: ignore[method-assign]
        return spec
