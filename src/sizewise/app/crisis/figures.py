"""The measured figures of the detector as Markdown, written into its page in the docs.

``python -m sizewise.app.crisis.figures docs/crisis_detector.md`` puts them up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sizewise.app.crisis.detector import CrisisDetector
from sizewise.app.crisis.labelled import read_labelled
from sizewise.app.crisis.measure import Quality, Share, measure
from sizewise.app.crisis.phrases import CATEGORIES
from sizewise.app.crisis.settings import read_settings
from sizewise.atomic import write_atomically

BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


def figures() -> str:
    """Return the tables: phrases alone and as delivered, on the held-out sentences."""
    settings = read_settings()
    held_out, dev = read_labelled("held_out"), read_labelled("dev")
    measured = {
        "phrases alone": measure(CrisisDetector(settings.phrases), held_out),
        "as delivered": measure(settings.detector(), held_out),
    }
    crises = sum(s.is_crisis for s in held_out)
    lines = [
        f"{len(held_out)} held-out sentences, {crises} of them crises "
        f"({len(dev)} others made the phrases and the classifier).",
        "",
        *_table(measured),
        "",
        "Crises that the delivered detector misses there:",
        "",
        *(f"- {text}" for text in measured["as delivered"].missed),
    ]
    return "\n".join(lines)


def _table(measured: dict[str, Quality]) -> list[str]:
    columns = [_column(quality) for quality in measured.values()]
    lines = [f"| | {' | '.join(measured)} |", f"|---|{'---|' * len(measured)}"]
    for name in columns[0]:
        lines.append(f"| {name} | {' | '.join(str(column[name]) for column in columns)} |")
    return lines


def _column(quality: Quality) -> dict[str, Share]:
    recalls = {f"recall, {c.replace('_', ' ')}": quality.by_category[c] for c in CATEGORIES}
    return {
        "**recall**": quality.recall,
        "precision": quality.precision,
        **recalls,
        "fires on near misses": quality.fired["near_miss"],
        "fires on ordinary messages": quality.fired["ordinary"],
        "fires on short replies": quality.fired["reply"],
    }


def with_figures(page: str) -> str:
    """Return ``page`` with what stands between the marks replaced by the measured figures."""
    before, rest = page.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    return f"{before}{BEGIN}\n{figures()}\n{END}{after}"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write_atomically(target, with_figures(target.read_text(encoding="utf-8")))
