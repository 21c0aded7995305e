"""The colours of every picture: Okabe and Ito's, for every kind of colour vision (2008).

On a dark ground they are swapped for their lighter relatives: ``DARK``, and in the report's script.
"""

from __future__ import annotations

ZERO, TUNED, LARGE = "#0072B2", "#D55E00", "#009E73"
SERIES = (TUNED, ZERO, LARGE, "#CC79A7", "#E69F00", "#56B4E9")
SPLITS = {"train": ZERO, "validation": LARGE, "test": TUNED}
INK, MUTED, GRID = "#1d2430", "#667085", "#e6e8ec"
DARK = {
    "#0072B2": "#56B4E9", "#D55E00": "#E69F00", "#009E73": "#2FC79A", "#667085": "#98A2B3",
    "#CC79A7": "#E3A5C7", "#E69F00": "#F0E442", "#56B4E9": "#8FD0F5", "#1d2430": "#e8ebf0",
}  # fmt: skip
