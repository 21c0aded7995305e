"""Pictures: every point named where nothing else stands, marks and lines explained."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from tests.report.factory import PARAMS, Spec, Task, make_sweep, plant, share

from sizewise.report.comparison.compare import SetComparison, compare
from sizewise.report.comparison.contrast import scale_of
from sizewise.report.comparison.pair import Pair
from sizewise.report.views.forest import (
    LEGEND,
    drawn_ends,
    forest_chart,
    forest_notes,
    forest_rows,
)
from sizewise.report.views.pictures import (
    COLUMN,
    WIDE,
    paired_differences,
    size_versus_quality,
    svg_text,
)
from sizewise.report.views.placement import Box, Place, arrange, beside
from sizewise.report.views.quality import WIDTHS, quality_chart
from sizewise.words import Scale, score_name

TASK = Task(examples=60)
# Three bases with ranks that differ by next to nothing in size, and lie close in quality.
CROWDED = [
    Spec(model, 0.2 + 0.05 * place, 0.5 + 0.02 * rank, r=r, task=TASK)
    for place, model in enumerate(("nano", "micro", "mini"))
    for rank, r in enumerate((4, 8, 16))
]
FEW = [Spec("nano", task=TASK), Spec("mini", 0.4, None, task=TASK)]
BASELINES = {"majority": 0.1, "tfidf_logreg": 0.55}


def planted(root: Path, specs: list[Spec]) -> SetComparison:
    make_sweep(root, specs)
    for offset, (name, score) in enumerate(BASELINES.items()):
        facts = {
            "name": name, "path": f"classical:{name}", "family": "classical", "params_base": 1,
            "params_total": 1,
        }  # fmt: skip
        plant(
            root / name, Spec("nano", 0.1, None, task=TASK),
            {"icd10/exact_match": share(score, TASK.examples, offset)}, model=facts,
        )  # fmt: skip
    return compare([root]).sets[0]


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> SetComparison:
    return planted(tmp_path_factory.mktemp("crowded"), CROWDED)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> SetComparison:
    return planted(tmp_path_factory.mktemp("few"), FEW)


def boxes(figure: Figure) -> tuple[list[tuple[str, Box]], list[Box], Box]:
    """The names, the marks and the inside of the axes as they are drawn, in pixels."""
    figure.draw_without_rendering()
    (axes,) = figure.axes
    # An annotation's extent holds its line to the point, too: the text's own is asked for.
    names = [
        (text.get_text(), Box(*Text.get_window_extent(text).extents))
        for text in axes.texts
        if isinstance(text, Annotation)
    ]
    at = [
        (np.ravel(line.get_xdata())[0], np.ravel(line.get_ydata())[0])
        for line in axes.lines
        if line.get_marker() not in ("None", None, "")
    ]
    marks = [Box.around(x, y, 6, 6) for x, y in axes.transData.transform(at)]
    return names, marks, Box(*axes.get_window_extent().extents)


def overlap(a: Box, b: Box) -> bool:
    return a.left < b.right and b.left < a.right and a.bottom < b.top and b.bottom < a.top


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("sweep", ["crowded", "few"])
def test_every_point_is_named_and_no_name_lies_over_anything(
    sweep: str, column: bool, request: pytest.FixtureRequest
) -> None:
    compared: SetComparison = request.getfixturevalue(sweep)
    figure = size_versus_quality(compared.test, compared.points, column=column)
    names, marks, inside = boxes(figure)
    sized = [p for p in compared.points if p.costs["params"] is not None]
    assert len(marks) == len(sized) == {"crowded": 12, "few": 3}[sweep]
    assert len(names) == len(sized) + 2
    for name, box in names:
        assert inside.holds(box), name
        assert not any(overlap(box, mark) for mark in marks), name
    for (first, a), (second, b) in combinations(names, 2):
        assert not overlap(a, b), (first, second)
    if not column:
        assert {name for name, _ in names} == {p.label for p in sized} | {
            "commonest answer",
            "TF-IDF logistic regression",
        }


def test_ticks_stand_at_the_sizes_and_baselines_stretch_no_axis(crowded: SetComparison) -> None:
    (axes,) = size_versus_quality(crowded.test, crowded.points).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.3 M", "1 M", "4 M"]
    assert axes.get_xlim()[0] > 1e5
    assert axes.get_ylabel() == "exact match (ICD-10), %"


def test_colour_is_the_base_shape_the_method_and_both_are_explained(few: SetComparison) -> None:
    figure = size_versus_quality(few.test, few.points)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "nano", "mini", "zero-shot", "LoRA", "95 % interval", "from a base to its tuned models",
        "baseline without a language model",
    ]  # fmt: skip
    (axes,) = figure.axes
    drawn = {
        (line.get_marker(), line.get_color())
        for line in axes.lines
        if line.get_marker() in ("s", "o")
    }
    shapes = {shape for shape, _ in drawn}
    nano = {colour for shape, colour in drawn if shape == "o"}
    assert shapes == {"s", "o"}
    assert len(drawn) == 3
    assert len({colour for _, colour in drawn}) == 2
    assert nano == {legend.legend_handles[0].get_color()}  # type: ignore[union-attr]


def test_methods_differ_in_shape(tmp_path: Path) -> None:
    for offset, method in enumerate(("lora", "dora", "full")):
        plant(
            tmp_path / method, Spec("nano", task=TASK, lr=1e-4 * (offset + 1)),
            {"icd10/exact_match": share(0.2, 60)}, {"icd10/exact_match": share(0.6, 60, offset)},
            model={"lora_method": method},
        )  # fmt: skip
    (result,) = compare([tmp_path]).sets
    (axes,) = size_versus_quality(result.test, result.points).axes
    marks = {line.get_marker() for line in axes.lines} - {"None"}
    assert marks == {"s", "o", "D", "*"}


@pytest.mark.parametrize("cost", ["params", "memory_bytes"])
def test_the_interactive_picture_names_every_point_at_every_width(
    crowded: SetComparison, cost: str
) -> None:
    front = next(f for f in crowded.fronts if f.cost == cost)
    figure = quality_chart(crowded.test, crowded.points, front, scale_of(crowded.test))
    widths = figure.layout.meta["widths"]
    assert [entry["width"] for entry in widths] == list(WIDTHS)
    for entry in widths:
        assert len(entry["annotations"]) == 14
    texts = {entry["text"] for entry in widths[-1]["annotations"]}
    assert {p.label for p in crowded.points if p.costs["params"] is not None} <= texts
    names = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert {"nano", "micro", "mini", "zero-shot", "LoRA", "base to tuned"} <= set(names)


def test_with_many_points_the_best_of_each_base_are_named(tmp_path: Path) -> None:
    specs = [
        Spec(model, tuned=0.4 + 0.02 * n, r=4 + n, task=TASK)
        for model in ("nano", "micro")
        for n in range(8)
    ]
    compared = planted(tmp_path, specs)
    names, marks, _ = boxes(size_versus_quality(compared.test, compared.points))
    assert len(marks) == 18
    assert {n for n, _ in names if "LoRA" in n} == {"nano LoRA r=11", "micro LoRA r=11"}


@pytest.mark.parametrize(
    ("identifier", "said"),
    [
        ("icd10/lenient_match", "lenient match (ICD-10)"),
        ("rouge/rougeL", "ROUGE-L"),
        ("perplexity/bits_per_byte", "bits per byte (perplexity)"),
        ("accuracy", "accuracy"),
    ],
)
def test_scores_are_named_in_words(identifier: str, said: str) -> None:
    assert score_name(identifier) == said


Sizes = st.tuples(st.floats(20, 140), st.floats(8, 16))
Points = st.tuples(st.floats(0, 400), st.floats(0, 250))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(Points, Sizes), min_size=1, max_size=12))
def test_whatever_the_points_no_two_names_overlap(
    names: list[tuple[tuple[float, float], tuple[float, float]]],
) -> None:
    inside = Box(0, 0, 400, 250)
    marks = [Box.around(*point, 6, 6) for point, _ in names]
    options = [beside(*point, *size) for point, size in names]
    found = arrange(options, inside, marks, np.empty((0, 2)))
    placed = [place.box for place in found if place is not None]
    assert placed
    assert all(inside.holds(box) for box in placed)
    assert not any(overlap(box, mark) for box in placed for mark in marks)
    assert not any(overlap(a, b) for a, b in combinations(placed, 2))


def test_a_name_without_room_in_the_first_round_is_placed_in_the_next() -> None:
    """The first has two places, the second only one of them."""
    left, right = Box(0, 0, 10, 10), Box(20, 0, 30, 10)
    options = [[Place(left, 1.0), Place(right, 2.0)], [Place(left, 1.0)]]
    found = arrange(options, Box(0, 0, 30, 10), [], np.empty((0, 2)))
    assert [place.box for place in found if place is not None] == [right, left]


def test_pairs_are_sorted_by_gain_within_their_question(crowded: SetComparison) -> None:
    rows = forest_rows(crowded.pairs)
    by_question: dict[str, list[float]] = {}
    question = ""
    for row in rows:
        if row.pair is None:
            question = row.text
        else:
            assert row.pair.question.lower() == question.lower()
            by_question.setdefault(question, []).append(row.pair.gain)
    assert len(by_question) >= 4
    assert sum(map(len, by_question.values())) == min(40, len(crowded.pairs))
    for gains in by_question.values():
        assert gains == sorted(gains, reverse=True)


class Unlike(Pair):
    """A pair of which interval and test do not say the same."""

    ends = (0.01, 0.2)

    @property
    def low(self) -> float:
        return self.ends[0]

    @property
    def high(self) -> float:
        return self.ends[1]


def unlike(pair: Pair, found: bool, ends: tuple[float, float], primary: bool = False) -> Pair:
    changed = Unlike(**{**vars_of(pair), "found": found, "primary": primary})
    object.__setattr__(changed, "ends", ends)
    return changed


def vars_of(pair: Pair) -> dict[str, Any]:
    return {name: getattr(pair, name) for name in Pair.__dataclass_fields__}


@pytest.mark.parametrize("primary", [False, True])
@pytest.mark.parametrize(
    ("found", "ends", "sign"),
    [(False, (0.01, 0.2), "*"), (True, (-0.01, 0.2), "†"), (False, (-0.01, 0.2), "")],
)
def test_a_hollow_point_whose_interval_or_test_says_otherwise_is_explained(
    few: SetComparison, found: bool, ends: tuple[float, float], sign: str, primary: bool
) -> None:
    """So is the pair that was named in advance."""
    pair = unlike(few.pairs[0], found, ends, primary)
    sign += "‡" * primary
    (row,) = (row for row in forest_rows([pair]) if row.pair is not None)
    assert (row.kind, row.signs) == ("not shown", sign)
    texts = [
        text.get_text()
        for legend in paired_differences(few.test, [pair]).legends
        for text in legend.get_texts()
    ]
    assert texts[0] == "hollow: no difference is shown"
    notes = forest_notes(forest_rows([pair]))
    assert " ".join(texts[1:]) == " ".join(notes)
    assert [note[0] for note in notes] == list(sign)
    (label,) = forest_chart([pair], Scale(True)).layout.yaxis.ticktext
    assert label.endswith(sign)


def test_filled_and_hollow_are_explained_in_the_picture(few: SetComparison) -> None:
    rows = [row for row in forest_rows(few.pairs) if row.pair is not None]
    kinds = {row.kind for row in rows}
    (legend,) = paired_differences(few.test, few.pairs).legends
    said = [text.get_text() for text in legend.get_texts()]
    assert len(kinds) > 1
    assert said[: len(kinds)] == [text for kind, text in LEGEND.items() if kind in kinds]
    assert said[len(kinds) :] == forest_notes(rows)
    assert "‡" in forest_notes(rows)[0]


@pytest.mark.parametrize(("column", "inches"), [(False, WIDE), (True, COLUMN)])
def test_pictures_are_as_wide_as_a_page_or_a_column(
    few: SetComparison, column: bool, inches: float
) -> None:
    for figure in (
        size_versus_quality(few.test, few.points, column=column),
        paired_differences(few.test, few.pairs, column=column),
    ):
        root = ElementTree.fromstring(svg_text(figure))
        assert root.get("width") == f"{72 * inches:g}pt"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("column", [False, True])
def test_long_names_leave_half_of_the_width_to_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: bool
) -> None:
    long = "a_model_whose_name_somebody_made_much_too_long_for_any_picture"
    for size, params in (("small", 300_000), ("large", 4_000_000)):
        monkeypatch.setitem(PARAMS, f"{size}_{long}", params)
    named = [Spec(f"small_{long}", task=TASK), Spec(f"large_{long}", 0.4, None, task=TASK)]
    compared = planted(tmp_path, named)
    figure = paired_differences(compared.test, compared.pairs, column=column)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    width = axes.get_window_extent().width / (figure.get_window_extent().width)
    assert width > (0.9 if column else 0.45)
    svg_text(size_versus_quality(compared.test, compared.points, column=column))


def test_an_interval_of_shares_ends_where_shares_do(few: SetComparison) -> None:
    pair = unlike(few.pairs[0], False, (-2.2, 1.8))
    assert drawn_ends(pair, Scale(True)) == (-100.0, 100.0)
    assert drawn_ends(pair, Scale(False)) == (-2.2, 1.8)
    (drawn,) = [line for line in forest_chart([pair], Scale(True)).data if line.x]
    assert drawn.x[0] + drawn.error_x.array[0] == pytest.approx(100)
    assert drawn.x[0] - drawn.error_x.arrayminus[0] == pytest.approx(-100)


def test_nothing_to_draw_is_said(few: SetComparison) -> None:
    lone = replace(few.test, arms=[])
    for figure in (size_versus_quality(lone, []), paired_differences(lone, [])):
        assert "no finished run to show" in svg_text(figure)
