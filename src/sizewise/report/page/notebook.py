"""A comparison in a cell of a notebook: the answer, objections, the picture, the configurations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from sizewise import words
from sizewise.report.comparison.compare import Comparison, SetComparison
from sizewise.report.page.prose import plain_answer
from sizewise.report.page.tables import PageTable, configuration_table
from sizewise.report.views.pictures import size_versus_quality, svg_text

MOST_ROWS = 30
# In the notebook's own colours; the picture is drawn on white.
_STYLE = "max-width:62rem"
_PICTURE = "background:#fff;border-radius:6px;padding:.4rem;max-width:46rem"


def notebook_html(comparison: Comparison) -> str:
    """HTML without scripts and without requests; every text that is not ours is escaped."""
    parts = [_set(compared) for compared in comparison.sets]
    if not parts:
        verdict = comparison.verdict
        parts = [f"<p><strong>{_text(verdict.headline)}</strong></p>{_p([verdict.sentence])}"]
    problems = [f"{problem.where}: {problem.reason}" for problem in comparison.problems]
    return f'<div style="{_STYLE}">{"<hr>".join(parts)}{_listed("Not used", problems)}</div>'


def _set(compared: SetComparison) -> str:
    test = compared.test
    name = " · ".join(filter(None, [test.dataset, test.primary, test.size]))
    head = f"<p>{_text(name)}<br><strong>{_text(compared.verdict.headline)}</strong></p>"
    return "".join(
        [
            head,
            _p(plain_answer(compared)),
            _listed("What a reviewer would object to", compared.warnings),
            f'<div style="{_PICTURE}">{_picture(compared)}</div>' if compared.points else "",
            _table(configuration_table(compared)),
        ]
    )


def _text(text: str) -> str:
    return escape(words.visible(text))


def _p(lines: Iterable[str]) -> str:
    return "".join(f"<p>{_text(line)}</p>" for line in lines)


def _listed(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{_text(line)}</li>" for line in lines)
    return f"<p><strong>{_text(title)}</strong></p><ul>{items}</ul>"


def _picture(compared: SetComparison) -> str:
    """The picture as an element: what stands before it in a document would be shown as text."""
    document = svg_text(size_versus_quality(compared.test, compared.points))
    return document[document.index("<svg") :]


def _table(table: PageTable) -> str:
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in table.columns)
    rows = []
    for row in table.rows[:MOST_ROWS]:
        first, *rest = (_text(cell.text) for cell in row)
        cells = "".join(f'<td style="text-align:right">{text}</td>' for text in rest)
        rows.append(f'<tr><th scope="row" style="text-align:left">{first}</th>{cells}</tr>')
    more = len(table.rows) - len(rows)
    note = f"<p>{more} more in <code>.table</code></p>" if more > 0 else ""
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div style="overflow-x:auto"><table>{body}</table></div>{note}'
