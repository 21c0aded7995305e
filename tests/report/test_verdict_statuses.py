"""A headline that cannot mislead: planted records for every status and every false sentence."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.report.factory import PRIMARY, Columns, Spec, Task, make_run, make_sweep, plant, share

from sizewise.record.brackets import (
    KEPT,
    STOPPED,
    BracketRecord,
    Candidate,
    RungRecord,
    TuningRecord,
    write_tuning,
)
from sizewise.record.outcome import CostFacts, file_ref, read_outcome, write_outcome
from sizewise.record.timing import Timing
from sizewise.report.comparison import verdict as v
from sizewise.report.comparison.compare import SetComparison, compare
from sizewise.report.comparison.contrast import find_contrast
from sizewise.report.comparison.costs import _batch
from sizewise.report.comparison.decision import gate
from sizewise.report.comparison.pairs import pair_of, primary_pair
from sizewise.report.comparison.readings import who_chose
from sizewise.report.comparison.runs import AnswerCache, load_runs
from sizewise.report.comparison.strata import strata_of
from sizewise.report.comparison.test_sets import build_test_sets
from sizewise.report.page.page import render_page
from sizewise.report.page.prose import cards_of, paid_back_sentences
from sizewise.report.page.results import results_record

N = 300
TASK = Task(examples=N)
LABEL = "label/exact_match"
READINGS = ("exact_match", "lenient_match", "likelihood_match", "likelihood_per_token_match")


def only(root: Path, by: tuple[str, ...] = ()) -> SetComparison:
    (result,) = compare([root], by=by).sets
    return result


def classical(root: Path, name: str, rate: float, offset: int = 0, score: str = PRIMARY) -> Path:
    """A baseline without a language model, right in this share."""
    model = {"name": name, "path": f"classical:{name}", "family": "classical", "params_base": 100}
    columns = {score: share(rate, N, offset), f"{score.partition('/')[0]}/unparsed": np.zeros(N)}
    return plant(root / name, Spec("nano", 0.0, None, task=TASK), columns, model=model,
                 primary=score)  # fmt: skip


def said(rate: float, unparsed: float = 0.0, offset: int = 0, score: str = PRIMARY) -> Columns:
    """Answers as said: right in this share, and unreadable in a share of the wrong ones."""
    right = share(rate, N, offset)
    wrong = np.flatnonzero(right == 0)
    lost = np.zeros(N)
    lost[wrong[: round(unparsed * N)]] = 1.0
    return {score: right, f"{score.partition('/')[0]}/unparsed": lost}


def pair(root: Path, tuned: Columns, large: Columns, score: str = PRIMARY, **more: Any) -> None:
    """A tuned nano, whose base knows little, and an untouched mini."""
    base = {name: np.zeros(N) for name in tuned}
    plant(root / "small", Spec("nano", r=8, task=TASK), base, tuned, primary=score, **more)
    plant(root / "large", Spec("mini", 0.0, None, task=TASK), large, primary=score, **more)


def test_a_win_over_size_and_every_baseline_is_shown(tmp_path: Path) -> None:
    pair(tmp_path, said(0.7), said(0.4, offset=1))
    classical(tmp_path, "majority", 0.2, 2)
    classical(tmp_path, "tfidf_logreg", 0.5, 3)
    result = only(tmp_path)
    assert result.verdict.status == v.SHOWN
    assert result.verdict.headline == "Specialisation beats size"
    assert "The best baseline, tfidf_logreg (50.0 %)" in result.verdict.sentence
    assert "beaten by the tuned model by 20.0 points" in result.verdict.sentence
    assert "Always the commonest answer: 20.0 %" in result.verdict.sentence
    assert result.paid_back


def test_a_baseline_that_beats_the_winner_is_in_the_headline(tmp_path: Path) -> None:
    pair(tmp_path, said(0.5), said(0.25, offset=1))
    classical(tmp_path, "majority", 0.1, 2)
    classical(tmp_path, "tfidf_logreg", 0.7, 3)
    result = only(tmp_path)
    assert result.verdict.status == v.BEATS_SIZE
    assert result.verdict.headline == "Beats size, not the baseline"
    assert "tfidf_logreg (70.0 %), without a language model, beats both" in result.verdict.sentence
    assert result.paid_back == []
    assert not any(card.name == "Paid back" for card in cards_of(result))


def test_a_baseline_within_chance_of_the_winner_is_not_beaten(tmp_path: Path) -> None:
    pair(tmp_path, said(0.5), said(0.25, offset=1))
    classical(tmp_path, "tfidf_logreg", 0.48, 3)
    verdict = only(tmp_path).verdict
    assert verdict.status == v.BEATS_SIZE
    assert verdict.headline == "Beats size, not shown to beat the baseline"


@pytest.mark.parametrize(
    ("rate", "says"),
    [
        (0.9, "A baseline without a language model does better than all of these: tfidf_logreg"),
        (0.52, "scores higher than all of these (not shown to differ from every one): tfidf"),
    ],
)
def test_a_baseline_does_better_in_the_objections_only_where_that_is_shown(
    tmp_path: Path, rate: float, says: str
) -> None:
    pair(tmp_path, said(0.5), said(0.25, offset=1))
    classical(tmp_path, "tfidf_logreg", rate, 3)
    result = only(tmp_path)
    (objection,) = [w for w in result.warnings if w.startswith("A baseline without")]
    assert says in objection
    differs = "is not shown to differ from the tuned model" not in result.verdict.sentence
    assert differs == ("does better" in objection)


@pytest.mark.parametrize(("texts", "said_so"), [("all", True), ("own", False), ("right", False)])
def test_one_answer_to_all_prompts_is_objected_to(
    tmp_path: Path, texts: str, said_so: bool
) -> None:
    """Unless the right answers are one as well."""
    rows = {"all": {"text": "F32.1"}, "own": {}, "right": {"text": "F32.1", "reference": "F32.1"}}
    pair(tmp_path, said(0.1), said(0.25, offset=1), rows=rows[texts])
    found = [w for w in only(tmp_path).warnings if w.startswith("One answer to all prompts")]
    assert bool(found) == said_so
    assert all("commonest answer only: nano LoRA r=8." in line for line in found)


def test_tutorial_run_ends_with_neither_is_useful_yet(tmp_path: Path) -> None:
    """20 labels: tuned 15.7 % with half of the answers readable, large 0.0 % with none."""
    pair(tmp_path, said(0.157, 0.5, score=LABEL), said(0.0, 1.0, score=LABEL), LABEL)
    classical(tmp_path, "majority", 0.333, 2, LABEL)
    classical(tmp_path, "tfidf_logreg", 0.533, 3, LABEL)
    result = only(tmp_path)
    assert result.verdict.status == v.NEITHER
    assert result.verdict.headline == "Neither is useful yet"
    for part in (
        "tfidf_logreg (53.3 %)",
        "beats both",
        "commonest answer: 33.3 %",
        "mini zero-shot are unusable",
    ):
        assert part in result.verdict.sentence
    assert result.paid_back == []


def test_real_models_by_what_they_said_end_with_neither_and_the_baseline(tmp_path: Path) -> None:
    """SmolLM2: tuned 42.6 %, untouched 0.0 % in answers that are cut; TF-IDF 53.3 %."""
    pair(tmp_path, said(0.426, score=LABEL), said(0.0, 1.0, score=LABEL), LABEL)
    classical(tmp_path, "majority", 0.3, 2, LABEL)
    classical(tmp_path, "tfidf_logreg", 0.533, 3, LABEL)
    verdict = only(tmp_path).verdict
    assert verdict.status == v.NEITHER
    assert "53.3 %" in verdict.sentence
    assert "100.0 % of the answers of mini zero-shot are unusable" in verdict.sentence


def test_a_side_without_a_readable_answer_is_no_contest(tmp_path: Path) -> None:
    pair(tmp_path, said(0.8), said(0.0, 1.0))
    classical(tmp_path, "tfidf_logreg", 0.5, 3)
    result = only(tmp_path)
    assert result.verdict.status == v.NO_CONTEST
    assert result.verdict.headline == "No contest: mini zero-shot gives no usable answer"
    assert result.paid_back == []


def test_invalid_codes_count_as_unusable(tmp_path: Path) -> None:
    invalid = said(0.0)
    invalid["icd10/invalid"] = share(0.9, N, 5)
    pair(tmp_path, said(0.6), invalid)
    assert only(tmp_path).verdict.status == v.NO_CONTEST


@pytest.mark.parametrize(("tuned", "large"), [(0.0, 0.0), (0.3, 0.3)])
def test_sides_that_a_baseline_beats_are_of_no_use(
    tmp_path: Path, tuned: float, large: float
) -> None:
    pair(tmp_path, said(tuned), said(large, offset=1))
    classical(tmp_path, "tfidf_logreg", 0.6, 3)
    result = only(tmp_path)
    assert result.verdict.status == v.NEITHER
    assert result.paid_back == []


def test_the_winner_must_beat_every_larger_model_and_not_the_largest_only(tmp_path: Path) -> None:
    specs = [Spec("nano", 0.1, 0.46), Spec("micro", 0.8, None), Spec("mini", 0.2, None)]
    make_sweep(tmp_path, specs)
    result = only(tmp_path)
    assert result.verdict.status == v.SIZE_WINS
    assert "loses to micro zero-shot" in result.verdict.sentence
    assert "It beats mini zero-shot (20.0 %)" in result.verdict.sentence
    assert result.paid_back == []


def test_a_break_even_needs_quality_that_is_shown_not_to_be_worse(tmp_path: Path) -> None:
    """The same answers but for one: not better, and not worse by 2 points or more."""
    tuned = said(0.5)
    large = {name: values.copy() for name, values in tuned.items()}
    large[PRIMARY][np.flatnonzero(large[PRIMARY] == 1)[0]] = 0.0
    pair(tmp_path, tuned, large)
    result = only(tmp_path)
    assert result.verdict.status == v.NOT_SHOWN
    assert len(result.paid_back) == 1
    classical(tmp_path, "tfidf_logreg", 0.49, 3)
    assert only(tmp_path).paid_back == []


def test_equal_and_losing_models_have_no_break_even(tmp_path: Path) -> None:
    for name, tuned in (("equal", 0.4), ("loses", 0.2)):
        make_sweep(tmp_path / name, [Spec("nano", 0.1, tuned), Spec("mini", 0.4, None)])
        assert only(tmp_path / name).paid_back == []


BANDS = ["frequent (5+)"] * 180 + ["rare (1–4)"] * 60 + ["never seen"] * 60


def by_band(*rates: float, offset: int = 0) -> Columns:
    """Right answers with these shares at frequent, rare and never-seen answers."""
    parts = [
        share(rate, n, offset + i)
        for i, (rate, n) in enumerate(zip(rates, (180, 60, 60), strict=True))
    ]
    return {PRIMARY: np.concatenate(parts), "icd10/unparsed": np.zeros(N)}


STRATA = {"strata": {"label_frequency": BANDS}}


def test_main_sweep_says_where_specialisation_loses(tmp_path: Path) -> None:
    """Frequent 76.1 against 22.7, rare even, never seen 1.0 against 30.3."""
    pair(tmp_path, by_band(0.76, 0.25, 0.02), by_band(0.23, 0.25, 0.3, offset=7), **STRATA)
    result = only(tmp_path)
    verdict = result.verdict
    assert verdict.status == v.MIXED
    assert "size wins where the answer is never seen in training" in verdict.headline
    assert "But it loses where the answer is never seen in training" in verdict.sentence
    assert "−28.3 points" in verdict.sentence
    (first, *_) = verdict.reversals
    assert first.level.examples == 60
    assert result.views.strata[0].name == "label_frequency"
    assert result.paid_back == []


def test_main_sweep_beside_a_baseline_that_beats_both_says_both(tmp_path: Path) -> None:
    pair(tmp_path, by_band(0.76, 0.25, 0.02), by_band(0.23, 0.25, 0.3, offset=7), **STRATA)
    classical(tmp_path, "tfidf_logreg", 0.8, 3)
    verdict = only(tmp_path).verdict
    assert verdict.status == v.BEATS_SIZE
    assert verdict.also == (v.MIXED,)
    assert "tfidf_logreg (80.0 %), without a language model, beats both" in verdict.sentence
    assert "loses where the answer is never seen in training" in verdict.sentence


def test_strata_with_the_same_sign_are_no_reversal(tmp_path: Path) -> None:
    pair(tmp_path, by_band(0.8, 0.6, 0.3), by_band(0.3, 0.4, 0.3, offset=7), **STRATA)
    verdict = only(tmp_path).verdict
    assert (verdict.status, verdict.reversals) == (v.SHOWN, ())


def test_reversals_of_equal_models_are_rarely_found(tmp_path: Path) -> None:
    """Twelve sweeps of models that differ nowhere: at 5 % four or more are 2 in 1,000."""
    found = 0
    for number in range(12):
        rng = np.random.default_rng(number)
        a, b = ({PRIMARY: (rng.uniform(size=N) < 0.5) * 1.0} for _ in range(2))
        pair(tmp_path / str(number), a, b, **STRATA)
        (test,) = build_test_sets(load_runs([tmp_path / str(number)]).runs, AnswerCache())
        contrast = find_contrast(test, None)
        assert contrast is not None
        found += any(
            level.tested is not None and (level.tested.wins or level.tested.loses)
            for stratum in strata_of(test, contrast)
            for level in stratum.levels
        )
    assert found <= 3


def test_routing_is_recommended_where_it_beats_either_alone(tmp_path: Path) -> None:
    """The small model is sure where it is right, so that the large one answers the rest."""
    small, large = by_band(0.9, 0.3, 0.0), by_band(0.2, 0.3, 0.9, offset=7)
    pair(tmp_path, small, large, **STRATA)
    path = tmp_path / "small" / "predictions" / "tuned.test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["token_log_prob"] = -0.1 if row["scores"][PRIMARY] else -3.0
    retold(tmp_path / "small", rows)
    verdict = only(tmp_path).verdict
    assert verdict.status == v.MIXED
    assert "Use both: with the" in verdict.sentence


def retold(directory: Path, rows: list[dict[str, Any]], **changes: Any) -> None:
    """Replace the tuned predictions of a run, and more of its outcome."""
    outcome = read_outcome(directory)
    ((name, evaluation),) = (outcome.tuned or {}).items()
    path = directory / evaluation.predictions.path
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tuned = {name: replace(evaluation, predictions=file_ref(path, directory))}
    write_outcome(replace(outcome, tuned=tuned, **changes), directory)


def read_in(*rates: float, offset: int = 0, unparsed: float = 0.0) -> Columns:
    """Right answers as said, with form forgiven, by likelihood, and per token."""
    found = said(rates[0], unparsed, offset, LABEL)
    for i, (reading, rate) in enumerate(zip(READINGS[1:], rates[1:], strict=True)):
        found[f"label/{reading}"] = share(rate, N, offset + i)
    return found


def validated(*rates: float) -> dict[str, dict[str, float]]:
    return {"base": {f"label/{r}": rate for r, rate in zip(READINGS, rates, strict=True)}}


def real_models(root: Path, known: tuple[float, ...] = (0.0, 0.05, 0.25, 0.35)) -> SetComparison:
    """As said +42.6 points; by the reading that the untouched one does best with, far less."""
    base = read_in(0.0, 0.05, 0.2, 0.2, offset=3)
    tuned = read_in(0.426, 0.43, 0.426, 0.47)
    spec = Spec("nano", r=8, task=TASK)
    plant(root / "small", spec, base, tuned, primary=LABEL, validated=validated(0, 0, 0, 0.9))
    large = read_in(0.0, 0.05, 0.25, 0.35, offset=20, unparsed=1.0)
    plant(root / "large", Spec("mini", 0.0, None, task=TASK), large, primary=LABEL,
          validated=validated(*known))  # fmt: skip
    return only(root)


def test_a_gain_that_is_mostly_form_is_called_that(tmp_path: Path) -> None:
    result = real_models(tmp_path)
    verdict = result.verdict
    assert result.test.primary == "label/likelihood_per_token_match"
    assert verdict.status == v.FORM
    assert verdict.headline == "Mostly form, not knowledge"
    assert (
        "answers read by likelihood per token, with which the larger untouched models did best on "
        "validation" in verdict.sentence
    )
    assert (
        "As said it is 42.7 % against 0.0 %: mostly form, 30.7 of 42.7 points" in verdict.sentence
    )
    assert result.paid_back == []


def test_where_no_untouched_model_is_larger_all_of_them_choose_the_reading(tmp_path: Path) -> None:
    assert who_chose(real_models(tmp_path / "both").test) == "the larger untouched models"
    spec = Spec("nano", r=8, task=TASK)
    base, tuned = read_in(0.0, 0.05, 0.2, 0.2), read_in(0.4, 0.4, 0.4, 0.5)
    plant(tmp_path / "one" / "small", spec, base, tuned, primary=LABEL)
    assert who_chose(only(tmp_path / "one").test) == "the untouched models"


@pytest.mark.parametrize(("by_likelihood", "said"), [(0.35, True), (0.2, False)])
@pytest.mark.parametrize("setting", ["choice", None])
def test_a_better_reading_that_the_test_split_lacks_is_said(
    tmp_path: Path, setting: str | None, by_likelihood: float, said: bool
) -> None:
    """With evaluation.candidates_on=choice no test answer is read by likelihood."""
    known = validated(0.25, 0.25, by_likelihood, 0.1)
    small, tuned, large = (
        {n: v for n, v in read_in(rate, rate, 0, 0).items() if "likelihood" not in n}
        for rate in (0.3, 0.4, 0.25)
    )
    extra = {"evaluation": {"candidates_on": setting}}
    spec = Spec("nano", r=8, task=TASK, extra=extra)
    plant(tmp_path / "small", spec, small, tuned, primary=LABEL, validated=known)
    plant(tmp_path / "large", Spec("mini", 0.0, None, task=TASK), large, primary=LABEL,
          validated=known)  # fmt: skip
    result = only(tmp_path)
    assert result.test.primary == LABEL
    found = [w for w in result.warnings if "not all test answers were read that way" in w]
    assert bool(found) == said
    if said:
        assert "better by likelihood on the validation split (35.0 % against 25.0 %)" in found[0]
        assert ("leave out evaluation.candidates_on" in found[0]) == bool(setting)


def test_the_reading_is_chosen_on_validation_by_the_untouched_general_model(tmp_path: Path) -> None:
    """Neither its test scores nor the small model's base choose it."""
    result = real_models(tmp_path, known=(0.0, 0.05, 0.3, 0.2))
    assert result.test.primary == "label/likelihood_match"
    assert {arm.primary for arm in result.test.arms} == {"label/likelihood_match"}
    assert set(result.table["metric"]) == {"label/likelihood_match"}
    (large,) = result.table[result.table["label"] == "mini zero-shot"]["score"]
    assert large == pytest.approx(0.25)


def test_three_numbers_per_model_stand_on_the_page(tmp_path: Path) -> None:
    page = render_page(compare([tmp_path])) if real_models(tmp_path) else ""
    for part in ("Form and knowledge", "As said", "Form forgiven", "By likelihood"):
        assert part in page


def test_a_baseline_counts_with_its_exact_match_in_every_reading(tmp_path: Path) -> None:
    classical(tmp_path, "tfidf_logreg", 0.533, 3, LABEL)
    verdict = real_models(tmp_path).verdict
    assert verdict.status == v.BEATS_SIZE
    assert v.FORM in verdict.also
    assert "tfidf_logreg (53.3 %)" in verdict.sentence


def test_without_validation_answers_count_as_said_with_an_objection(tmp_path: Path) -> None:
    plant(tmp_path / "small", Spec("nano", r=8, task=TASK), read_in(0, 0, 0, 0),
          read_in(0.4, 0.4, 0.4, 0.4), primary=LABEL)  # fmt: skip
    plant(tmp_path / "large", Spec("mini", 0.0, None, task=TASK),
          read_in(0.1, 0.2, 0.3, 0.3, offset=9), primary=LABEL)  # fmt: skip
    result = only(tmp_path)
    assert result.test.primary == LABEL
    assert any("count as said" in w and "validation" in w for w in result.warnings)


def test_bits_per_byte_give_no_verdict_between_tuned_and_untouched_models(tmp_path: Path) -> None:
    score = "perplexity/bits_per_byte"
    columns = ({score: share(0.5, N, i) + level} for i, level in enumerate((4.0, 2.0, 12.0)))
    base, tuned, large = columns
    spec = Spec("nano", r=8, task=TASK)
    for number, r in enumerate((8, 16)):
        better = {score: tuned[score] - number}
        plant(tmp_path / str(r), replace(spec, r=r), base, better, primary=score, direction="min")
    plant(tmp_path / "large", Spec("mini", 0.0, None, task=TASK), large, primary=score,
          direction="min")  # fmt: skip
    result = only(tmp_path)
    assert result.verdict.status == v.OPEN
    assert "no score of the task" in result.verdict.sentence
    assert "use a metric of the task, a judge or ratings" in result.verdict.sentence.lower()
    assert "beats size" not in render_page(compare([tmp_path])).lower().split("application/json")[0]
    assert result.paid_back == []
    assert any(p.question == "rank against rank" and p.wins for p in result.pairs)


def test_status_is_the_same_wherever_it_is_shown(tmp_path: Path) -> None:
    from sizewise.report.wandb import sweep_summary

    pair(tmp_path, said(0.5), said(0.25, offset=1))
    classical(tmp_path, "tfidf_logreg", 0.7, 3)
    comparison = compare([tmp_path])
    (record,) = results_record(comparison)["test_sets"]
    assert record["verdict"]["status"] == v.BEATS_SIZE
    assert record["verdict"]["baseline"]["configuration"] == "tfidf_logreg"
    assert {k: record["cards"][0][k] for k in ("name", "value")} == {
        "name": "Small, tuned",
        "value": "50.0 %",
    }
    values = sweep_summary(comparison, {"picture": tmp_path / "none.png"}).values
    assert values["verdict_status"] == v.BEATS_SIZE
    assert values["verdict"].startswith("Beats size, not the baseline. ")
    assert f'data-status="{v.BEATS_SIZE}"' in render_page(comparison)


def test_every_status_has_a_look() -> None:
    statuses = {
        value for name, value in vars(v).items() if name.isupper() and isinstance(value, str)
    }
    assert statuses - {
        v.PERPLEXITY_PREFIX,
        v.SMALL_LARGE,
        v.OWN_BASE,
        v.ZERO_SHOT,
        v.COMPARABLE,
    } == set(v.TONES)


# Sentences that were false.


def test_one_nan_among_the_seeds_is_named_and_not_nothing_was_tuned(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        tuned = said(0.5, offset=seed)
        if seed == 2:
            tuned[PRIMARY][0] = math.nan
        plant(tmp_path / str(seed), Spec("nano", r=8, seed=seed, task=TASK), said(0.1), tuned,
              seed=seed)  # fmt: skip
    plant(tmp_path / "large", Spec("mini", 0.0, None, task=TASK), said(0.3, offset=9))
    sentence = only(tmp_path).verdict.sentence
    assert "Nothing was tuned" not in sentence
    assert f"nano LoRA r=8 was tuned, but {PRIMARY} is not a number on 1 of 900 answers" in sentence


def test_baselines_and_untouched_models_alone_are_said_to_be_untuned(tmp_path: Path) -> None:
    plant(tmp_path / "large", Spec("mini", 0.0, None, task=TASK), said(0.3))
    classical(tmp_path, "tfidf_logreg", 0.6)
    assert "Nothing was tuned. Best model: tfidf_logreg" in only(tmp_path).verdict.sentence


def test_one_single_group_is_said_to_be_one(tmp_path: Path) -> None:
    task = Task(examples=40, groups=1)
    make_sweep(tmp_path, [Spec("nano", 0.1, 0.5, task=task), Spec("mini", 0.3, None, task=task)])
    sentence = only(tmp_path).verdict.sentence
    assert "no larger" not in sentence
    assert "all test examples are of one group" in sentence


def test_directions_are_tables_of_their_own(tmp_path: Path) -> None:
    for number, direction in enumerate(("max", "min")):
        spec = Spec(("nano", "micro")[number], 0.2, 0.5, task=Task(examples=60))
        directory = make_run(tmp_path / direction, spec)
        write_outcome(replace(read_outcome(directory), direction=direction), directory)
    comparison = compare([tmp_path])
    assert sorted(s.test.direction for s in comparison.sets) == ["max", "min"]
    for result in comparison.sets:
        assert any("they are not compared" in w for w in result.warnings)


def test_unlike_numbers_of_training_rows_are_an_objection(tmp_path: Path) -> None:
    task = Task(examples=60)
    make_sweep(
        tmp_path, [Spec(r=4, max_train=1200, task=task), Spec(r=8, max_train=2516, task=task)]
    )
    assert any("between 1,200 and 2,516" in w for w in only(tmp_path).warnings)
    curve = [Spec(r=r, max_train=n, task=task) for r in (4, 8) for n in (1200, 2516)]
    make_sweep(tmp_path / "curve", curve)
    assert not any("unlike numbers" in w for w in only(tmp_path / "curve").warnings)


def test_answers_cut_at_the_limit_are_an_objection(tmp_path: Path) -> None:
    pair(tmp_path, said(0.6), said(0.3, offset=1), rows={"finished": False})
    (warning,) = [w for w in only(tmp_path).warnings if "max_new_tokens" in w]
    assert "Up to 100.0 % of the answers were cut" in warning


def test_free_text_that_is_cut_is_not_usable(tmp_path: Path) -> None:
    columns = ({"rouge/rouge_l": share(rate, N, i)} for i, rate in enumerate((0.6, 0.3)))
    pair(tmp_path, *columns, "rouge/rouge_l", rows={"finished": False})
    assert only(tmp_path).verdict.status == v.NEITHER


def test_unparsed_and_invalid_answers_are_counted_together(tmp_path: Path) -> None:
    large = said(0.3, 0.1, offset=1)
    large["icd10/invalid"] = np.where(
        large[PRIMARY] + large["icd10/unparsed"] == 0, share(0.3, N, 2), 0
    )
    pair(tmp_path, said(0.6), large)
    together = 0.1 + large["icd10/invalid"].mean()
    assert any(f"up to {100 * together:.1f} % of the outputs" in w for w in only(tmp_path).warnings)


def test_ranks_at_one_learning_rate_are_an_objection(tmp_path: Path) -> None:
    task = Task(examples=60)
    make_sweep(tmp_path / "one", [Spec(r=r, task=task) for r in (4, 8)])
    make_sweep(
        tmp_path / "tuned", [Spec(r=r, lr=lr, task=task) for r in (4, 8) for lr in (1e-4, 1e-3)]
    )
    said_so = {
        name: any("compared at one learning rate" in w for w in only(tmp_path / name).warnings)
        for name in ("one", "tuned")
    }
    assert said_so == {"one": True, "tuned": False}


def test_overconfidence_is_reported_with_its_error(tmp_path: Path) -> None:
    rows = {"token_log_prob": math.log(0.86), "new_tokens": 1}
    pair(tmp_path, said(0.52), said(0.3, offset=1), rows=rows)
    result = only(tmp_path)
    (small, *_) = result.views.calibration
    assert small.confidence == pytest.approx(0.86)
    assert small.accuracy == pytest.approx(0.52)
    assert small.error == pytest.approx(0.34)
    assert any("is surer than it is right" in w for w in result.warnings)
    assert "Calibration" in render_page(compare([tmp_path]))


def test_calibration_error_is_that_of_torchmetrics_where_bins_hold_equal_numbers(
    tmp_path: Path,
) -> None:
    """Probabilities at the middle of ten even bins: equal width and equal mass are the same."""
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    from sizewise.report.comparison.readings import calibration_of

    pair(tmp_path, said(0.6), said(0.3, offset=1))
    path = tmp_path / "small" / "predictions" / "tuned.test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    sure = [(i % 10) / 10 + 0.05 for i in range(N)]
    for row, p in zip(rows, sure, strict=True):
        row |= {"token_log_prob": math.log(p), "new_tokens": 1}
    retold(tmp_path / "small", rows)
    result = only(tmp_path)
    small = next(arm for arm in result.test.arms if arm.tuned)
    found = calibration_of(result.test, small)
    assert found is not None
    assert small.scores is not None
    right = torch.tensor(small.scores[0]).int()
    wanted = binary_calibration_error(torch.tensor(sure), right, n_bins=10, norm="l1")
    assert found.error == pytest.approx(float(wanted), abs=1e-6)


def test_a_closed_set_without_a_baseline_is_an_objection(tmp_path: Path) -> None:
    pair(tmp_path, said(0.6), said(0.3, offset=1))
    assert any("No baseline without a language model" in w for w in only(tmp_path).warnings)


# What the sentence says of costs.


def test_costs_are_called_by_their_names(tmp_path: Path) -> None:
    pair(tmp_path, said(0.7), said(0.4, offset=1))
    sentence = only(tmp_path).verdict.sentence
    assert "of the bytes of weights (" in sentence
    assert "of the peak memory (" in sentence
    assert "At batch 8 an answer takes 3 ms against 40 ms" in sentence
    assert "a new token" in sentence
    assert "timed in separate jobs" in sentence
    assert "times the speed" not in sentence


@pytest.mark.parametrize("together", [None, 4.0])
def test_the_peak_memory_of_jobs_that_answered_together_is_nobodys(
    tmp_path: Path, together: float | None
) -> None:
    cost = CostFacts(eval_peak_bytes=10**9, answered_together=together)
    plant(tmp_path / "small", Spec("nano", r=8, task=TASK), said(0.1), said(0.7), cost=cost)
    plant(tmp_path / "large", Spec("mini", 0.0, None, task=TASK), said(0.4, offset=1))
    assert ("of the peak memory (" in only(tmp_path).verdict.sentence) is (together is None)


def test_speed_of_unlike_batches_or_machines_is_not_compared(tmp_path: Path) -> None:
    for name, changes in (
        ("batch", {"rows": {"batch_size": 64}}),
        ("machine", {"provenance": {"hardware": {"cpu": "other", "threads": 1, "devices": []}}}),
    ):
        root = tmp_path / name
        small = said(0.7)
        plant(root / "small", Spec("nano", r=8, task=TASK), said(0.1), small, **changes)
        plant(root / "large", Spec("mini", 0.0, None, task=TASK), said(0.4, offset=1))
        result = only(root)
        assert "Speed is not compared" in result.verdict.sentence
        assert not any(card.name == "Speed" for card in cards_of(result))
        assert result.paid_back == []


def test_the_batch_is_that_of_the_answers_that_were_timed() -> None:
    """Where memory ran out in the timed batch it was halved, and later ones were not."""
    sizes, seconds = np.array([3.0, 3.0, 1.0, 8.0]), np.array([0.1, 0.1, 0.2, math.nan])
    member: Any = SimpleNamespace(answers=SimpleNamespace(batch_size=sizes, seconds=seconds))
    assert _batch(member) == 3
    member.answers.seconds[:] = math.nan
    assert _batch(member) is None


def test_a_difference_that_never_varies_is_an_objection(tmp_path: Path) -> None:
    everywhere = [{PRIMARY: np.full(N, value)} for value in (0.25, 0.75, 0.5)]
    plant(tmp_path / "small", Spec("nano", r=8, task=TASK), *everywhere[:2])
    plant(tmp_path / "large", Spec("mini", 0.0, None, task=TASK), everywhere[2])
    result = only(tmp_path)
    assert "2 pairs differ by the same on every example" in " ".join(result.warnings)
    assert not any(p.wins for p in result.pairs)


def sample(side: str, batch: int, seconds: float, computing: float) -> Timing:
    return Timing(
        side, batch, 8, 5.0, seconds, seconds / 2, 2 * seconds, seconds / 5, seconds / 10,
        seconds / 2.5, seconds, computing,
    )  # fmt: skip


def timed_apart(root: Path, busy: float = 1.0, merged: bool | None = True) -> SetComparison:
    """A sample of both was timed; ``busy``: seconds that passed for one of computing."""
    small = [replace(sample("tuned", size, 0.01 * busy, 0.01), merged=merged) for size in (1, 8)]
    untouched = [sample("base", size, 0.5, 0.5) for size in (1, 8)]
    large = [sample("base", 1, 0.2, 0.2), sample("base", 8, 0.04, 0.04)]
    cost = CostFacts(train_seconds=60.0, timings=[*untouched, *small])
    spec = Spec("nano", r=8, task=TASK)
    plant(root / "small", spec, said(0.1), said(0.7), rows={"latency": math.nan}, cost=cost)
    spec = Spec("mini", 0.0, None, task=TASK)
    plant(root / "large", spec, said(0.4, offset=1), cost=CostFacts(timings=large))
    return only(root)


def test_speed_is_that_of_the_sample_timed_apart_at_batch_1_and_the_batch_used(
    tmp_path: Path,
) -> None:
    result = timed_apart(tmp_path)
    sentence = result.verdict.sentence
    assert "At batch 8 an answer takes 10 ms (5 ms to 20 ms over timed answers)" in sentence
    assert "against 40 ms (20 ms to 80 ms over timed answers)" in sentence
    assert "a new token 2 ms" in sentence
    assert (
        "at batch 1 an answer 10 ms (5 ms to 20 ms over timed answers) against 200 ms" in sentence
    )
    assert "busy" not in sentence
    (entry,) = result.paid_back
    assert entry.unit == "device seconds"
    assert entry.result.answers == math.ceil(60 / (0.04 - 0.01))


def test_the_table_shows_the_same_speed_as_the_sentence(tmp_path: Path) -> None:
    """Answers as they were made took other times: those of the records' scores."""
    rows = timed_apart(tmp_path).everything.set_index("label")["latency_seconds"]
    expected = {"nano LoRA r=8": 0.01, "mini zero-shot": 0.04, "nano zero-shot": 0.5}
    assert rows.to_dict() == pytest.approx(expected)


@pytest.mark.parametrize("rate", [0.7, 0.3])
def test_the_gate_names_a_baseline_that_neither_exceeds(rate: float, tmp_path: Path) -> None:
    pair(tmp_path, said(0.5), said(0.25, offset=1))
    classical(tmp_path, "tfidf_logreg", rate, 3)
    test = only(tmp_path).test
    named = primary_pair(test)
    assert named is not None
    line = gate(test, named, 2.0).line
    assert line.startswith("PASS: nano LoRA r=8 is better than mini zero-shot")
    assert ("But tfidf_logreg, without a language model, scores 70.0 %" in line) == (rate > 0.5)


def test_the_gate_names_no_baseline_against_itself(tmp_path: Path) -> None:
    pair(tmp_path, said(0.5), said(0.25, offset=1))
    classical(tmp_path, "tfidf_logreg", 0.7, 3)
    test = only(tmp_path).test
    asked = pair_of(test, "nano LoRA r=8", "tfidf_logreg")
    assert asked is not None
    assert " But " not in gate(test, asked, 2.0).line
    classical(tmp_path, "tfidf_svm", 0.8, 4)
    test = only(tmp_path).test
    asked = pair_of(test, "nano LoRA r=8", "tfidf_logreg")
    assert asked is not None
    assert "But tfidf_svm, without a language model, scores 80.0 %" in gate(test, asked, 2.0).line


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([sample("tuned", 8, 0.03, 0.03)], 0.02),
        ([sample("tuned", 1, 0.03, 0.03)], None),  # timed in other batches
        ([], 7.0),  # an earlier record: all are shown as they were made
    ],
)
def test_seeds_are_timed_alike_or_shown_as_they_were_made(
    second: list[Timing], expected: float | None, tmp_path: Path
) -> None:
    first = [sample("tuned", 8, 0.01, 0.01)]
    for seed, timings in ((1, first), (2, second)):
        spec = Spec("nano", r=8, task=TASK, seed=seed, latency=7.0)
        columns, cost = (said(0.1), said(0.7)), CostFacts(timings=timings)
        plant(tmp_path / f"seed{seed}", spec, *columns, cost=cost)
    (arm,) = (arm for arm in only(tmp_path).test.arms if arm.tuned)
    assert len(arm.members) == 2
    assert arm.latency == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(("merged", "said"), [(False, True), (True, False), (None, False)])
def test_an_adapter_that_was_timed_beside_its_base_is_named(
    merged: bool | None, said: bool, tmp_path: Path
) -> None:
    """None: there is none, or the record is of a time before that was noted."""
    sentence = timed_apart(tmp_path, merged=merged).verdict.sentence
    assert ("The adapter of nano LoRA r=8 was not merged." in sentence) == said
    assert sentence.count("not merged") == said


def test_a_busy_machine_is_said_with_speed_and_break_even(tmp_path: Path) -> None:
    result = timed_apart(tmp_path, busy=2.0)
    sentence = result.verdict.sentence
    assert "an answer takes 20 ms" in sentence
    assert "The machine was busy" in sentence
    assert "of computing an answer took 10 ms against 40 ms" in sentence
    (entry,) = result.paid_back
    assert entry.result.answers == math.ceil(60 / (0.04 - 0.01))
    assert "the machine was busy" in paid_back_sentences([entry])[0]


def test_break_even_is_over_all_that_was_trained_with_a_range_over_seeds(tmp_path: Path) -> None:
    task = Task(examples=200)
    specs = [
        Spec("nano", 0.1, 0.7 - 0.05 * (r == 4), r=r, seed=seed, latency=0.002 * seed, task=task)
        for r in (4, 8)
        for seed in (1, 2, 3)
    ]
    make_sweep(tmp_path, [*specs, Spec("mini", 0.4, None, task=task, latency=0.04)])
    (entry,) = only(tmp_path).paid_back
    assert (entry.jobs, entry.training) == (6, 360.0)
    assert entry.result.answers == math.ceil(360 / (0.04 - 0.004))
    assert entry.low == math.ceil(360 / (0.04 - 0.002))
    assert entry.high == math.ceil(360 / (0.04 - 0.006))
    assert entry.alone == math.ceil(60 / (0.04 - 0.004))
    (sentence,) = paid_back_sentences([entry])
    assert "all 6 training runs" in sentence
    assert "9,474 to 10,589" in sentence


def test_candidates_that_a_sweep_stopped_are_to_be_paid_back_too(tmp_path: Path) -> None:
    pair(tmp_path, said(0.7), said(0.4, offset=1))
    cell = [
        Candidate("small", 1e-3, KEPT, seconds=60.0),
        Candidate("other", 3e-3, STOPPED, seconds=20.0),
    ]
    write_tuning(tmp_path, TuningRecord([bracket("nano r=8", cell)]))
    (entry,) = only(tmp_path).paid_back
    assert (entry.jobs, entry.training) == (2, 80.0)


def bracket(cell: str, candidates: list[Candidate]) -> BracketRecord:
    """One configuration, of which the best rate was kept at a third of the steps."""
    named = [replace(candidate, cell=cell) for candidate in candidates]
    return BracketRecord(cell, [RungRecord(1 / 3, 0, ["configuration"])], named)


def test_a_server_is_another_machine_than_the_one_that_asks_it(tmp_path: Path) -> None:
    pair(tmp_path, said(0.7), said(0.4, offset=1))
    outcome = read_outcome(tmp_path / "large")
    server = replace(outcome.model, family="endpoint")
    write_outcome(replace(outcome, model=server), tmp_path / "large")
    assert "Speed is not compared" in only(tmp_path).verdict.sentence


def test_rates_that_a_sweep_stopped_were_tried(tmp_path: Path) -> None:
    task = Task(examples=60)
    dirs = make_sweep(tmp_path, [Spec(r=r, task=task) for r in (4, 8)])
    cells = [
        bracket(f"r={i}", [Candidate(d.name, 1e-3, KEPT), Candidate("x", 3e-3, STOPPED)])
        for i, d in enumerate(dirs)
    ]
    write_tuning(tmp_path, TuningRecord(cells))
    warnings = only(tmp_path).warnings
    assert not any("one learning rate" in w or "tuning budgets" in w for w in warnings)
    write_tuning(tmp_path, TuningRecord(cells[:1]))
    assert any("Unequal tuning budgets: between 1 and 2" in w for w in only(tmp_path).warnings)


def test_where_the_better_reading_leaves_no_gain_it_was_form_alone(tmp_path: Path) -> None:
    """Not "45.0 of 42.7 points", which no reader can make sense of."""
    base = read_in(0.0, 0.05, 0.2, 0.2, offset=3)
    tuned = read_in(0.426, 0.43, 0.426, 0.33)
    spec = Spec("nano", r=8, task=TASK)
    plant(tmp_path / "small", spec, base, tuned, primary=LABEL, validated=validated(0, 0, 0, 0.9))
    large = read_in(0.0, 0.05, 0.25, 0.35, offset=20, unparsed=1.0)
    plant(tmp_path / "large", Spec("mini", 0.0, None, task=TASK), large, primary=LABEL,
          validated=validated(0.0, 0.05, 0.25, 0.35))  # fmt: skip
    verdict = only(tmp_path).verdict
    assert verdict.status == v.FORM
    assert "As said it is 42.7 % against 0.0 %: form alone." in verdict.sentence
