"""The colours of every picture: Okabe and Ito's, for every kind of colour vision (2008).

The page of the report swaps them for their lighter relatives on a dark ground.
"""

from __future__ import annotations

ZERO, TUNED, LARGE = "#0072B2", "#D55E00", "#009E73"
SERIES = (TUNED, ZERO, LARGE, "#CC79A7", "#E69F00", "#56B4E9")
SPLITS = {"train": ZERO, "validation": LARGE, "test": TUNED}
INK, MUTED, GRID = "#1d2430", "#667085", "#e6e8ec"
