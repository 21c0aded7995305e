"""Run identity, planning, launching, resuming and the state of a sweep.

The package may be called: ``sizewise.sweep(…)`` is ``sizewise.interface.sweep``. Importing a module
of it puts the package in the place of that name, whatever stood there before.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return import_module("sizewise.interface").sweep(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
