"""Blind ratings: random but repeatable order, append-only files, win rates and agreement."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sizewise.commands.main import app
from sizewise.errors import ConfigError, OutcomeError
from sizewise.report.comparison.compare import compare
from sizewise.report.comparison.runs import load_runs
from sizewise.report.page.page import render_page
from sizewise.report.ratings.pairs import (
    AnswerPair,
    Matchup,
    Presented,
    Side,
    make_matchup,
    next_unrated,
    present,
    sides_of,
)
from sizewise.report.ratings.store import RatingStore, file_name, ratings_summary, read_ratings


@pytest.fixture
def sides(sweep: Path) -> list[Side]:
    return [side for run in load_runs([sweep]).runs for side in sides_of(run)]


def tuned_and_base(sides: list[Side]) -> tuple[Side, Side]:
    tuned = next(s for s in sides if s.name.endswith("/tuned"))
    base = next(s for s in sides if s.name == tuned.name.replace("/tuned", "/base"))
    return tuned, base


def synthetic(count: int = 40) -> Matchup:
    side = Side("r1/tuned", "A", Path("a"), "data"), Side("r2/tuned", "B", Path("b"), "data")
    pairs = tuple(AnswerPair(f"e{i}", f"prompt {i}", f"good {i}", f"bad {i}") for i in range(count))
    return Matchup(*side, pairs)


def test_pairs_hold_different_answers_to_the_same_prompt(sides: list[Side]) -> None:
    tuned, base = tuned_and_base(sides)
    matchup = make_matchup(tuned, base, count=10)
    assert len(matchup.pairs) == 10
    assert all(pair.a != pair.b for pair in matchup.pairs)
    stored = [json.loads(line) for line in tuned.path.read_text().splitlines()]
    rows = {row["id"]: row for row in stored}
    assert all(
        rows[p.id]["text"] == p.a and rows[p.id]["prompt"] == p.prompt for p in matchup.pairs
    )
    whole = make_matchup(tuned, base, count=1_000)
    others = [json.loads(line) for line in base.path.read_text().splitlines()]
    different = {r["id"] for r in others if r["text"].strip() != rows[r["id"]]["text"].strip()}
    assert {pair.id for pair in whole.pairs} == different


def test_either_way_round_is_one_matchup(sides: list[Side]) -> None:
    tuned, base = tuned_and_base(sides)
    assert make_matchup(tuned, base) == make_matchup(base, tuned)
    assert make_matchup(base, tuned).a == tuned


def test_equal_answers_cannot_be_rated(sides: list[Side]) -> None:
    with pytest.raises(OutcomeError, match="same answer"):
        make_matchup(sides[0], sides[0])


def test_order_is_the_raters_own_and_repeatable() -> None:
    matchup = synthetic()
    ann, ben = present(matchup, "Ann"), present(matchup, "Ben")
    assert ann == present(matchup, "Ann")
    assert ann != ben
    assert {p.pair.key for p in ann} == {p.pair.key for p in ben}
    for shown in (ann, ben):
        assert sum(p.swapped for p in shown) == 20


def test_sides_are_swapped_independently_of_the_pair() -> None:
    matchup = synthetic(20)
    raters = [present(matchup, f"rater {i}") for i in range(400)]
    swaps = {pair.key: [] for pair in matchup.pairs}
    for shown in raters:
        for p in shown:
            swaps[p.pair.key].append(p.swapped)
    shares = [np.mean(s) for s in swaps.values()]
    assert 0.4 < min(shares) <= max(shares) < 0.6


@pytest.mark.parametrize(
    ("swapped", "choice", "outcome"),
    [
        (False, "first", "a"),
        (False, "second", "b"),
        (True, "first", "b"),
        (True, "second", "a"),
        (True, "tie", "tie"),
    ],
)
def test_a_choice_becomes_the_model_that_gave_it(swapped: bool, choice: str, outcome: str) -> None:
    pair = AnswerPair("e", "prompt", "from a", "from b")
    shown = Presented(pair, swapped)
    assert shown.outcome(choice) == outcome
    if choice != "tie":
        chosen = shown.first if choice == "first" else shown.second
        assert chosen == f"from {outcome}"


def test_ratings_survive_and_a_torn_line_is_skipped(tmp_path: Path) -> None:
    matchup = synthetic(3)
    store = RatingStore(tmp_path, "Ännä / 1")
    shown = present(matchup, store.rater)
    store.add(matchup, shown[0], "first", " clear ")
    with store.path.open("a") as handle:
        handle.write('{"rater": "Änn')
    store.add(matchup, shown[1], "tie")
    found = RatingStore(tmp_path, "Ännä / 1").read()
    assert [r.item for r in found] == [shown[0].pair.key, shown[1].pair.key]
    assert found[0].comment == "clear"
    rest = next_unrated(shown, store.rated(matchup))
    assert rest == shown[2]
    store.add(matchup, shown[2], "second")
    assert next_unrated(shown, store.rated(matchup)) is None


def test_files_of_raters_do_not_meet(tmp_path: Path) -> None:
    assert file_name("a/b") != file_name("a b")
    assert Path(file_name("../../etc")).name == file_name("../../etc")
    store = RatingStore(tmp_path, "../x")
    assert store.path.parent == tmp_path / "ratings"


@pytest.mark.parametrize("name", ["", "   ", "x" * 61])
def test_a_rater_needs_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        RatingStore(tmp_path, name)


def test_an_unknown_choice_is_refused(tmp_path: Path) -> None:
    matchup = synthetic(1)
    with pytest.raises(ConfigError, match="choice"):
        RatingStore(tmp_path, "x").add(matchup, present(matchup, "x")[0], "left")


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"rater": "x"}\n')
    with pytest.raises(OutcomeError, match="line 1"):
        read_ratings(path)


def rate_all(root: Path, matchup: Matchup, rater: str, good: int) -> None:
    """Prefer A's answer on the first ``good`` pairs of the matchup and B's on the rest."""
    store = RatingStore(root, rater)
    better = {pair.key for pair in matchup.pairs[:good]}
    for shown in present(matchup, rater):
        wants_first = (shown.pair.key in better) != shown.swapped
        store.add(matchup, shown, "first" if wants_first else "second")


def test_win_rate_does_not_depend_on_the_order_shown(tmp_path: Path) -> None:
    matchup = synthetic()
    for rater in ("Ann", "Ben", "Cem"):
        rate_all(tmp_path, matchup, rater, 30)
    (found,) = ratings_summary(tmp_path)
    assert (found.ratings, found.items, found.raters) == (120, 40, ("Ann", "Ben", "Cem"))
    assert found.wins.rate == pytest.approx(0.75)
    assert found.agreement.alpha == pytest.approx(1.0)
    # Three raters who always agree are 40 independent judgements, not 120.
    assert found.wins.effective_n == pytest.approx(40, rel=0.05)
    assert found.wins.interval.low < 0.62
    assert found.first is not None
    assert 0.3 < found.first.rate < 0.7
    assert "75 %" in found.sentence
    assert "alpha is 1.00" in found.sentence


def test_opposite_raters_do_not_agree(tmp_path: Path) -> None:
    matchup = synthetic()
    rate_all(tmp_path, matchup, "Ann", 40)
    rate_all(tmp_path, matchup, "Ben", 0)
    (found,) = ratings_summary(tmp_path)
    assert found.wins.rate == pytest.approx(0.5)
    assert found.agreement.alpha < 0.0


def test_the_last_judgement_of_a_pair_counts(tmp_path: Path) -> None:
    matchup = synthetic(1)
    store = RatingStore(tmp_path, "Ann")
    shown = present(matchup, "Ann")[0]
    store.add(matchup, shown, "tie")
    store.add(matchup, shown, "second" if shown.swapped else "first")
    (found,) = ratings_summary(tmp_path)
    assert (found.ratings, found.wins.wins, found.wins.ties) == (1, 1, 0)
    assert "no answer was rated more than once" in found.sentence


def test_raters_who_always_say_the_same_are_called_that(tmp_path: Path) -> None:
    matchup = synthetic(4)
    rate_all(tmp_path, matchup, "Ann", 4)
    rate_all(tmp_path, matchup, "Ben", 4)
    (found,) = ratings_summary(tmp_path)
    assert found.agreement.units == 4
    assert "all ratings are the same" in found.sentence


def test_no_ratings_are_no_summary(tmp_path: Path) -> None:
    assert ratings_summary(tmp_path) == []


def test_the_report_shows_ratings_escaped(sweep: Path, sides: list[Side]) -> None:
    assert "Blind ratings" not in render_page(compare([sweep]))
    matchup = make_matchup(*tuned_and_base(sides))
    evil = Matchup(
        Side(matchup.a.name, "<script>x</script>", matchup.a.path, matchup.a.dataset),
        matchup.b, matchup.pairs,
    )  # fmt: skip
    rate_all(sweep, evil, "Ann", len(evil.pairs))
    page = render_page(compare([sweep]))
    assert "Blind ratings" in page
    assert "was preferred to" in page
    assert "<script>x</script>" not in page
    assert "&lt;script&gt;x&lt;/script&gt;" in page


def test_ratings_reach_the_report_of_a_sweep_wherever_they_were_given(
    sweep: Path, sides: list[Side], tmp_path: Path
) -> None:
    """The app may be opened on a sweep or on the folder that holds it; strangers stay out."""
    matchup = make_matchup(*tuned_and_base(sides), count=20)
    rate_all(sweep, matchup, "Ann", 15)
    rate_all(sweep.parent, matchup, "Ben", 5)
    rate_all(sweep.parent, synthetic(), "Ben", 5)
    result = CliRunner().invoke(app, ["compare", str(sweep), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    (page,) = (tmp_path / "out").glob("*.html")
    text = unescape(page.read_text(encoding="utf-8"))
    # 15 of Ann's and 5 of Ben's 20 ratings; Krippendorff's alpha by hand: of 40 paired values
    # 20 are A's and 20 B's, 10 of 20 pairs differ, so that alpha = 1 - 39 * 20 / (40**2 - 800).
    assert "was preferred to" in text
    assert "in 50 % of 40 blind ratings of 20 answers" in text
    assert "by 2 raters. Krippendorff's alpha is 0.03 over 20 answers" in text
    assert "A was preferred to B" not in text
