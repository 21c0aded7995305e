"""What judges said, counted: both orders, ties, position, agreement."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizewise.errors import ConfigError
from sizewise.evaluation.judging import CHOICES, Duel, ask_both_orders, read_choice, said_of
from sizewise.evaluation.score import score_predictions
from sizewise.job.preflight import PROBE
from sizewise.metrics.judge import Judge
from sizewise.metrics.reading.judged import both_orders
from sizewise.record.predictions import Prediction

PROMPT = "{{ prompt }}|{{ first }}|{{ second }}"


def judged(*points: tuple[float | None, float | None], judge: str = "one") -> list[Prediction]:
    rows = []
    for number, (first, second) in enumerate(points):
        places = {"first": first, "second": second}
        scores = {f"judged/{judge}/{k}": v for k, v in places.items() if v is not None}
        scores[f"judged/{judge}/unread"] = float(2 - len(scores))
        rows.append(replace(PROBE, id=str(number), scores=scores))
    return rows


def totals(rows: list[Prediction], *judges: str) -> dict[str, float]:
    metric = Judge({name: "mini" for name in judges or ("one",)}, PROMPT)
    return score_predictions(rows, [metric])[0]


def test_a_win_needs_both_orders_and_a_tie_is_half_of_one() -> None:
    rows = judged((1, 1), (0, 0), (1, 0), (0.5, 0.5), (1, 0.5))
    scored = score_predictions(rows, [Judge("mini", PROMPT)])[1]
    assert [row.scores["judge/win"] for row in scored] == [0.5] * 5, "nobody of that name was asked"
    scored = score_predictions(rows, [Judge({"one": "mini"}, PROMPT)])[1]
    assert [row.scores["judge/win"] for row in scored] == [1.0, 0.0, 0.5, 0.5, 0.75]


def test_position_bias_is_measured() -> None:
    found = totals(judged((1, 0), (1, 0), (1, 1), (0, 0)))
    assert found["judge/win"] == 0.5
    assert found["judge/first_one"] == pytest.approx(6 / 8)
    assert found["judge/flipped_one"] == 0.5
    assert found["judge/unread_one"] == 0.0


def test_answers_that_cannot_be_read_are_ties_and_counted() -> None:
    found = totals(judged((1, None), (None, None)))
    assert found["judge/unread_one"] == pytest.approx(3 / 4)
    assert found["judge/win"] == pytest.approx((0.75 + 0.5) / 2)
    assert "judge/flipped_one" not in found


def test_judges_are_averaged_and_their_agreement_is_alpha() -> None:
    one, two = judged((1, 1), (0, 0), (1, 1)), judged((1, 1), (0, 0), (0, 0), judge="two")
    rows = [replace(a, scores={**a.scores, **b.scores}) for a, b in zip(one, two, strict=True)]
    found = totals(rows, "one", "two")
    assert found["judge/win"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert found["judge/win_two"] == pytest.approx(1 / 3)
    # Three units, coincidences aa 2, bb 2, ab and ba 1 each; 3 of each category.
    assert found["judge/alpha"] == pytest.approx(1 - 5 * 2 / (36 - 18))


@given(st.sampled_from(CHOICES), st.sampled_from(CHOICES))
def test_swapping_the_two_answers_swaps_the_win(first: str, second: str) -> None:
    """What is said when the answer stands first is said of the opponent when that does."""
    duel, other = Duel("1", "q", "x", "y"), Duel("1", "q", "y", "x")
    said = {"q|x|y": first, "q|y|x": second}

    def win(duel: Duel) -> float:
        asked = ask_both_orders([duel], Judge("mini", PROMPT).render)
        rows = {
            question.id: replace(PROBE, text=said[question.prompt_text])
            for item in asked
            for question in (item.first, item.second)
        }
        scores = said_of(asked, rows, "j")["1"]
        return both_orders(scores.get("judged/j/first"), scores.get("judged/j/second"))

    assert win(duel) + win(other) == 1.0
    if first == second:  # it goes by the order alone
        assert win(duel) == 0.5


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("A", "A"), (" b.", "B"), ("**C**", "C"), ("Answer: B", "B"),
        ("The better answer is A.", "A"),
        ("<think>B is long</think>A", "A"), ("A is vague.\n[[B]]", "B"), ("tie", "C"),
        ("Tie.", "C"),
        ("Both are fine.\nVerdict: C", "C"), ("A good answer", None), ("", None), ("D", None),
    ],
)  # fmt: skip
def test_what_a_judge_says_is_read(text: str, choice: str | None) -> None:
    assert read_choice(replace(PROBE, text=text)) == choice


def test_the_likeliest_choice_goes_before_the_text() -> None:
    assert read_choice(replace(PROBE, text="B", candidate="C")) == "C"


def test_equal_answers_are_not_asked_and_no_words_are_said_to_be_none() -> None:
    duels = [Duel("1", "q", " same", "same "), Duel("2", "q", "", "words")]
    (asked,) = ask_both_orders(duels, Judge("mini", PROMPT).render)
    assert asked.duel.id == "2"
    assert asked.first.prompt_text == "q|(no answer)|words"
    assert asked.second.prompt_text == "q|words|(no answer)"


@pytest.mark.parametrize(
    ("prompt", "said"),
    [("{{ prompt }} {{ first }}", "second"), (PROMPT + "{{ nothing }}", "cannot be rendered"),
     (PROMPT + "{{ ''.__class__.__mro__ }}", "cannot be rendered")],
)  # fmt: skip
def test_a_prompt_that_cannot_work_is_refused(prompt: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Judge("mini", prompt).check_settings()


@pytest.mark.parametrize(
    ("models", "said"),
    [("no_such_model", "no option"), ("tfidf_logreg", "writes no text"), ([], "names no judge"),
     (["mini", "mini"], "two judges"), ({"a b": "mini"}, "no name")],
)  # fmt: skip
def test_a_judge_that_cannot_be_is_refused(models: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Judge(models, PROMPT).check_settings()
