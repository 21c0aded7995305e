"""sizewise: does a small specialised language model beat a larger general one, and at what cost?

From Python: ``sizewise.run(…)``, ``sizewise.sweep(…)`` and ``sizewise.compare(…)``, see
docs/python.md.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_INTERFACE = ("run", "compare", "Results", "RunResult", "SizewiseError")


def __getattr__(name: str) -> Any:
    """Load the Python interface when it is first asked for (``sweep`` is a package, callable)."""
    if name == "sweep":
        return import_module("sizewise.sweep")
    if name in _INTERFACE:
        return getattr(import_module("sizewise.interface"), name)
    raise AttributeError(f"module 'sizewise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_INTERFACE, "sweep"})
