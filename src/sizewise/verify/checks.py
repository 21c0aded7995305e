"""What one check of a stored run found."""

from __future__ import annotations

from dataclasses import dataclass

OK, FAILED, UNCHECKED = "ok", "failed", "not checked"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; ``detail`` says what is wrong or why it was not checked."""

    name: str
    status: str
    detail: str = ""
