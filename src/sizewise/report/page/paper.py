"""Tables for a paper: LaTeX and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sizewise.report.comparison.compare import SetComparison
from sizewise.report.comparison.contrast import scale_of
from sizewise.report.page.tables import PageTable, configuration_table, pair_table

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "−": "$-$", "–": "--", "<": "$<$", ">": "$>$",
    "≤": r"$\leq$", "×": r"$\times$", "…": r"\ldots{}", "∞": r"$\infty$",
}  # fmt: skip
CONFIGURATION_COLUMNS = (0, 1, 2, 3, 5, 6, 7, 8, 9)
PAIR_COLUMNS = (0, 1, 3, 4, 5, 6, 8)


def latex_tables(compared: SetComparison) -> str:
    """Configurations and pairs as two ``table`` environments (packages booktabs, array)."""
    configurations, pairs = configuration_table(compared), pair_table(compared)
    caption = _caption(compared)
    first = _latex(configurations, CONFIGURATION_COLUMNS, caption)
    if not pairs.rows:
        return first
    about = "Paired differences; intervals and p are corrected for the number of pairs."
    return first + "\n" + _latex(pairs, PAIR_COLUMNS, about)


def markdown_tables(compared: SetComparison) -> str:
    """Verdict, configurations and pairs as Markdown."""
    scale = scale_of(compared.test)
    parts = [
        f"## {_markdown_text(compared.test.dataset)}",
        f"**{compared.verdict.headline}.** {_markdown_text(compared.verdict.sentence)}",
        _markdown(configuration_table(compared), CONFIGURATION_COLUMNS),
    ]
    pairs = pair_table(compared)
    if pairs.rows:
        parts.append(_markdown(pairs, PAIR_COLUMNS))
    unit = "percentage points" if scale.percent else "the unit of the score"
    parts.append(
        f"Gains in {unit}, with bootstrap intervals paired on the test examples: of 95 % over the "
        "own base, of pairs corrected like their p-values."
    )
    parts += [f"- {_markdown_text(warning)}" for warning in compared.warnings]
    return "\n\n".join(parts) + "\n"


def _caption(compared: SetComparison) -> str:
    test = compared.test
    text = f"{test.primary} on {test.dataset} ({test.size}), best first; gains over the own base"
    return latex_text(text) + " with 95\\,\\% bootstrap intervals."


def _rows(table: PageTable, columns: Sequence[int], text: Callable[[str], str]) -> list[list[str]]:
    return [[text(row[c].text) for c in columns] for row in table.rows]


def _latex(table: PageTable, columns: Sequence[int], caption: str) -> str:
    align = "".join("r" if table.numeric[c] else "l" for c in columns)
    head = " & ".join(latex_text(table.columns[c]) for c in columns)
    body = "\n".join("    " + " & ".join(r) + r" \\" for r in _rows(table, columns, latex_text))
    return (
        "\\begin{table}\n  \\centering\\small\n"
        f"  \\caption{{{caption}}}\n  \\begin{{tabular}}{{{align}}}\n    \\toprule\n"
        f"    {head} \\\\\n    \\midrule\n{body}\n    \\bottomrule\n"
        "  \\end{tabular}\n\\end{table}\n"
    )


def latex_text(text: str) -> str:
    """Escape what LaTeX would read as a command."""
    return "".join(LATEX.get(character, character) for character in text)


def _markdown(table: PageTable, columns: Sequence[int]) -> str:
    head = "| " + " | ".join(_markdown_text(table.columns[c]) for c in columns) + " |"
    line = "|" + "|".join(" ---: " if table.numeric[c] else " --- " for c in columns) + "|"
    rows = ["| " + " | ".join(r) + " |" for r in _rows(table, columns, _markdown_text)]
    return "\n".join([head, line, *rows])


def _markdown_text(text: str) -> str:
    """Escape what Markdown (or HTML inside it) would read as markup."""
    for character in "\\`*_|[]":
        text = text.replace(character, "\\" + character)
    return text.replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")
