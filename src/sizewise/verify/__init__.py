"""Does a stored run hold what it reports? A record against the data, the answers and itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

OK, FAILED, UNCHECKED = "ok", "failed", "not checked"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; ``detail`` says what is wrong or why it was not checked."""

    name: str
    status: str
    detail: str = ""

    @classmethod
    def of(cls, name: str, faults: Iterable[str]) -> Check:
        """The check that holds where there are no faults."""
        said = "; ".join(faults)
        return cls(name, FAILED if said else OK, said)
