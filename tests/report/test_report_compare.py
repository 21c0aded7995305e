"""Planted differences are found, and nothing is found where nothing is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from tests.report.factory import PRIMARY, Spec, Task, make_run, make_sweep, plant, share

from sizewise import words
from sizewise.errors import ConfigError
from sizewise.evaluation.score import score_predictions
from sizewise.metrics.perplexity import Perplexity
from sizewise.record.outcome import Evaluation, file_ref, read_outcome, write_outcome
from sizewise.record.predictions import read_predictions
from sizewise.report.comparison.arms import CLASSICAL, ENCODER, TUNED, ZERO_SHOT
from sizewise.report.comparison.by import _several_values
from sizewise.report.comparison.compare import Comparison, SetComparison, compare
from sizewise.report.comparison.contrast import find_contrast
from sizewise.report.comparison.pair import Pair
from sizewise.report.comparison.pairs import (
    BASELINES,
    ENCODERS,
    METHODS,
    MODELS,
    OWN_BASE,
    RANKS,
    SMALL_LARGE,
    STORAGE,
    TARGETS,
    compare_pairs,
)
from sizewise.report.comparison.points import score_intervals
from sizewise.report.comparison.runs import AnswerCache, load_runs
from sizewise.report.comparison.test_sets import build_test_sets
from sizewise.report.comparison.verdict import NOT_SHOWN, OPEN, SHOWN, SIZE_WINS
from sizewise.report.page.prose import plain_answer
from sizewise.report.page.results import results_text
from sizewise.report.page.tables import decision_table, pair_table


def compared(root: Path, specs: list[Spec], **options: object) -> SetComparison:
    make_sweep(root, specs)
    (only,) = compare([root], **options).sets  # type: ignore[arg-type]
    return only


def of(result: SetComparison, question: str) -> list[Pair]:
    return [pair for pair in result.pairs if pair.question == question]


def test_planted_win_of_the_small_model_is_shown(tmp_path: Path) -> None:
    specs = [Spec("nano", 0.2, 0.6, seed=s) for s in (1, 2, 3)] + [Spec("mini", 0.4, None)]
    result = compared(tmp_path, specs)
    (pair,) = of(result, SMALL_LARGE)
    assert pair.gain == pytest.approx(0.2)
    assert pair.low < 0.2 < pair.high
    assert pair.wins
    assert result.verdict.status == SHOWN
    for part in (
        "+20.0 points",
        "95 % interval",
        "3 seeds",
        "200 test examples",
        "of the bytes of weights",
    ):
        assert part in result.verdict.sentence


def test_planted_win_of_the_large_model_is_not_turned_round(tmp_path: Path) -> None:
    result = compared(tmp_path, [Spec("nano", 0.1, 0.3), Spec("mini", 0.6, None)])
    assert result.verdict.status == SIZE_WINS
    assert of(result, SMALL_LARGE)[0].gain == pytest.approx(-0.3)


def test_equal_models_are_not_shown_to_differ(tmp_path: Path) -> None:
    result = compared(tmp_path, [Spec("nano", 0.2, 0.5), Spec("mini", 0.5, None)])
    assert result.verdict.status == NOT_SHOWN
    assert "within chance" in result.verdict.sentence
    assert "could have been found" in result.verdict.sentence


def test_many_sweeps_of_equal_models_rarely_find_anything(tmp_path: Path) -> None:
    found = []
    for number in range(20):
        task = Task(examples=60, seed=number)
        specs = [Spec("nano", 0.5, 0.5, r, task=task, by_chance=True) for r in (4, 8)]
        specs += [Spec("mini", 0.5, None, task=task, by_chance=True)]
        make_sweep(tmp_path / str(number), specs)
        runs = load_runs([tmp_path / str(number)]).runs
        (test,) = build_test_sets(runs, AnswerCache())
        pairs = compare_pairs(test)
        assert len(pairs) == 5
        found.append(any(pair.found for pair in pairs))
    assert sum(found) <= 4  # at 5 % five or more of twenty happen three times in a thousand


def test_every_pair_of_the_question_is_there_once(tmp_path: Path) -> None:
    specs = [Spec("nano", r=r) for r in (4, 8, 16)]
    specs += [Spec("nano", quantization="nf4"), Spec("micro"), Spec("mini", 0.4, None)]
    result = compared(tmp_path, specs)
    # four nano adapters against micro and mini, one micro adapter against mini
    assert len(of(result, SMALL_LARGE)) == 4 * 2 + 1
    assert len(of(result, OWN_BASE)) == 5
    assert len(of(result, RANKS)) == 3
    assert len(of(result, STORAGE)) == 2  # tuned at r=8, and zero-shot
    corrected = [p.p_corrected for p in result.pairs]
    assert all(c >= p.result.p_value for c, p in zip(corrected, result.pairs, strict=True))
    assert max(c / p.result.p_value for c, p in zip(corrected, result.pairs, strict=True)) > 2


def test_the_largest_model_is_beaten_only_at_its_best(tmp_path: Path) -> None:
    """Beating the quantised large model but not the whole one shows nothing."""
    large = [Spec("mini", 0.3, None, quantization="nf4"), Spec("mini", 0.6, None)]
    result = compared(tmp_path, [Spec("nano", 0.2, 0.55), *large])
    weak = next(p for p in of(result, SMALL_LARGE) if p.b.model.quantization == "nf4")
    assert weak.wins
    assert result.verdict.status == NOT_SHOWN
    assert result.verdict.pair is not None
    assert result.verdict.pair.b.model.quantization == "none"


def test_prompts_and_targets_are_questions_and_not_variants_of_training(tmp_path: Path) -> None:
    """Each has its own pair with the large model; only training settings stand for one another."""
    asked = ("Be brief.", "all_linear"), ("Be kind.", "all_linear"), ("Be kind.", "attention")
    for system, target in asked:
        for number, dropout in enumerate((0.0, 0.1)):
            spec = Spec("nano", seed=7)
            directory = make_run(tmp_path / f"{system}{target}{dropout}", spec)
            outcome = read_outcome(directory)
            config = {
                **outcome.config,
                "dataset": {**outcome.config["dataset"], "system": system},
                "lora": {**outcome.config["lora"], "target": target, "dropout": dropout},
            }
            identity = f"{system}{target}{dropout}"
            loss = {"val_loss": 1.0 + number}
            write_outcome(
                replace(outcome, config=config, identity=identity, validation=loss), directory
            )
    make_run(tmp_path / "mini", Spec("mini", 0.4, None))
    (result,) = compare([tmp_path]).sets
    tried = [pair.a.config for pair in of(result, SMALL_LARGE)]
    assert sorted((c["dataset"]["system"], c["lora"]["target"]) for c in tried) == sorted(asked)
    assert {c["lora"]["dropout"] for c in tried} == {0.0}, "not the best validation loss"


def test_ranks_are_compared_with_all_else_equal(tmp_path: Path) -> None:
    for r, target in ((4, "attention"), (8, "attention"), (8, "all_linear"), (16, "all_linear")):
        directory = make_run(tmp_path / f"{r}{target}", Spec("nano", r=r))
        outcome = read_outcome(directory)
        config = {**outcome.config, "lora": {**outcome.config["lora"], "target": target}}
        write_outcome(replace(outcome, config=config, identity=f"{r}{target}"), directory)
    (result,) = compare([tmp_path]).sets
    pairs = {(p.a.model.lora_r, p.b.model.lora_r) for p in of(result, RANKS)}
    assert pairs == {(8, 4), (16, 8)}
    assert all(p.a.config["lora"]["target"] == p.b.config["lora"]["target"] for p in result.pairs
               if p.question == RANKS)  # fmt: skip
    curves = result.views.ranks
    assert {curve.x for curve in curves} == {(4.0, 8.0), (8.0, 16.0)}
    assert len({curve.name for curve in curves}) == 2


def test_keys_that_nothing_differs_in_are_said_to_give_no_pair(tmp_path: Path) -> None:
    result = compared(tmp_path, [Spec("nano"), Spec("mini", 0.4, None)], by=["lora.r"])
    assert result.verdict.status == OPEN
    assert result.verdict.sentence == "No two configurations differ in lora.r only."


def test_variants_of_training_are_chosen_by_validation_never_by_test(tmp_path: Path) -> None:
    lucky = Spec("nano", 0.2, 0.7, lr=1e-3)
    chosen = Spec("nano", 0.2, 0.5, lr=1e-4)
    for spec in (lucky, chosen, Spec("mini", 0.4, None)):
        make_run(tmp_path / spec.name, spec)
    for spec, loss in ((lucky, 2.0), (chosen, 1.0)):
        outcome = read_outcome(tmp_path / spec.name)
        write_outcome(replace(outcome, validation={"val_loss": loss}), tmp_path / spec.name)
    (result,) = compare([tmp_path]).sets
    (pair,) = of(result, SMALL_LARGE)
    assert pair.a.score() == pytest.approx(0.5)
    assert len(result.table) == 3
    assert any("lr=0.001" in label for label in result.table["label"])


def test_seeds_that_gave_the_same_scores_are_no_range(tmp_path: Path) -> None:
    specs = [Spec("nano", seed=s) for s in (1, 2, 3)]
    columns = [{PRIMARY: share(rate, 200)} for rate in (0.2, 0.6)]
    for spec in specs:
        plant(tmp_path / spec.name, spec, *columns)
    plant(tmp_path / "large", Spec("mini", tuned=None), {PRIMARY: share(0.4, 200, 1)})
    (result,) = compare([tmp_path]).sets
    assert "3 seeds, every seed has the same mean score)" in result.verdict.sentence
    assert "which range from" not in result.verdict.sentence


def test_seeds_are_a_level_of_their_own(tmp_path: Path) -> None:
    few = compared(tmp_path / "few", [Spec(seed=s) for s in (1, 2, 3)])
    many = compared(tmp_path / "many", [Spec(seed=s) for s in range(6)])
    for result in (few, many):
        (pair,) = of(result, OWN_BASE)
        assert pair.result.seeds_are_random
        assert pair.result.n == 200
        low, high = pair.uncorrected
        assert high - low >= pair.given_seeds[1] - pair.given_seeds[0], "these seeds tie"
        assert "conditional on these seeds" not in result.verdict.sentence
    assert list(many.table["seeds"]) == [6]


def test_groups_are_the_units(tmp_path: Path) -> None:
    alone = compared(tmp_path / "alone", [Spec()])
    grouped = compared(tmp_path / "grouped", [Spec(task=Task(groups=10))])
    assert of(alone, OWN_BASE)[0].result.n_clusters is None
    assert of(grouped, OWN_BASE)[0].result.n_clusters == 10
    assert any("10 independent groups" in warning for warning in grouped.warnings)


def test_zero_shot_of_tuned_runs_is_used_once_and_marked_as_such(tmp_path: Path) -> None:
    result = compared(tmp_path, [Spec(seed=s) for s in (1, 2)])
    assert list(result.table["label"]) == ["nano LoRA r=8"]
    assert list(result.everything["label"]) == ["nano LoRA r=8", "nano zero-shot"]
    assert result.table["gain"].iloc[0] == pytest.approx(0.4)


def test_data_sets_are_never_compared_with_each_other(tmp_path: Path) -> None:
    specs = [Spec(task=Task("one")), Spec(task=Task("two", seed=1)), Spec("mini", 0.4, None)]
    make_sweep(tmp_path, specs)
    result = compare([tmp_path])
    assert sorted(s.test.dataset for s in result.sets) == ["icd10_dialogues", "one", "two"]
    assert all(not of(s, SMALL_LARGE) for s in result.sets)
    assert len(result.table) == 5


def test_less_is_better_where_the_direction_says_so(tmp_path: Path) -> None:
    specs = [Spec("nano", 0.6, 0.2), Spec("mini", 0.5, None)]
    for directory in make_sweep(tmp_path, specs):
        outcome = read_outcome(directory)
        write_outcome(replace(outcome, direction="min"), directory)
    (result,) = compare([tmp_path]).sets
    (pair,) = of(result, SMALL_LARGE)
    assert pair.gain == pytest.approx(0.3)
    assert pair.low <= 0.3 <= pair.high
    assert result.verdict.status == SHOWN
    assert list(result.table["score"]) == sorted(result.table["score"])


def rescore(directory: Path, change: object) -> None:
    """Apply ``change(index, row)`` to the tuned predictions and record the file's new hash."""
    outcome = read_outcome(directory)
    assert outcome.tuned is not None
    ((name, evaluation),) = outcome.tuned.items()
    path = directory / evaluation.predictions.path
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [r for i, r in enumerate(rows) if change(i, r) is not None]  # type: ignore[operator]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fresh: Evaluation = replace(
        evaluation, predictions=file_ref(path, directory), examples=len(rows)
    )
    write_outcome(replace(outcome, tuned={name: fresh}), directory)


def test_only_examples_that_all_answered_are_compared(tmp_path: Path) -> None:
    specs = [Spec("nano"), Spec("micro"), Spec("mini", 0.4, None)]
    directory, *_ = make_sweep(tmp_path, specs)
    rescore(directory, lambda i, row: None if i < 30 else row)
    (result,) = compare([tmp_path]).sets
    assert len(result.test.ids) == 170
    assert {pair.result.n for pair in result.pairs} == {170}
    assert any("30 of 200 test examples" in warning for warning in result.warnings)


def test_nan_scores_are_left_out_with_the_reason(tmp_path: Path) -> None:
    specs = [Spec("nano"), Spec("micro"), Spec("mini", 0.4, None)]
    directory, *_ = make_sweep(tmp_path, specs)

    def spoil(index: int, row: dict[str, dict[str, float]]) -> object:
        row["scores"][PRIMARY] = float("nan") if index == 0 else row["scores"][PRIMARY]
        return row

    rescore(directory, spoil)
    comparison = compare([tmp_path])
    (result,) = comparison.sets
    assert any("is not a number on 1 of 200" in p.reason for p in comparison.problems)
    assert {pair.a.model.name for pair in of(result, SMALL_LARGE)} == {"micro"}
    assert len(result.table) == 3


def test_by_pairs_runs_that_differ_in_that_key_only(tmp_path: Path) -> None:
    specs = [Spec(lr=lr, r=r) for lr in (1e-4, 2e-4) for r in (4, 8)]
    result = compared(tmp_path, specs, by=["optimizer.lr"])
    assert len(result.pairs) == 2
    assert "0 of 2 pairs differ" in result.verdict.headline
    assert "differ in optimizer.lr only" in result.verdict.sentence
    assert {p.a.model.lora_r == p.b.model.lora_r for p in result.pairs} == {True}
    with pytest.raises(ConfigError, match=r"--by lora\.rank"):
        compare([tmp_path], by=["lora.rank"])


def test_same_outcomes_give_the_same_figures(tmp_path: Path) -> None:
    make_sweep(tmp_path, [Spec("nano"), Spec("mini", 0.4, None)])
    first, second = (compare([tmp_path]).sets[0] for _ in range(2))
    assert [(p.low, p.high, p.p_corrected) for p in first.pairs] == [
        (p.low, p.high, p.p_corrected) for p in second.pairs
    ]


def test_intervals_agree_with_a_bootstrap_of_their_own(tmp_path: Path) -> None:
    result = compared(tmp_path, [Spec("nano", 0.2, 0.6), Spec("mini", 0.4, None)])
    (pair,) = of(result, SMALL_LARGE)
    assert pair.a.scores is not None
    assert pair.b.scores is not None
    d = pair.a.scores[0] - pair.b.scores[0]
    rng = np.random.default_rng(5)
    means = rng.choice(d, (20_000, d.size)).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    assert pair.low == pytest.approx(low, abs=0.01)
    assert pair.high == pytest.approx(high, abs=0.01)


@pytest.mark.parametrize("specs", [[], [Spec()], [Spec("mini", 0.4, None)]])
def test_few_runs_leave_the_question_open(tmp_path: Path, specs: list[Spec]) -> None:
    make_sweep(tmp_path, specs)
    comparison: Comparison = compare([tmp_path])
    assert comparison.verdict.status == OPEN
    assert comparison.verdict.sentence
    assert len(comparison.runs) == len(specs)


@pytest.mark.parametrize("rates", [(0.2, 0.6, 0.4), (0.5, 0.5, 0.5), (0.0, 1.0, 0.0), (1, 1, 1)])
@pytest.mark.parametrize(
    ("examples", "groups"), [(1, None), (2, None), (3, None), (20, 1), (20, 2), (20, 3)]
)
def test_tiny_designs_end_in_a_value_or_in_what_cannot_be_said(
    tmp_path: Path, examples: int, groups: int | None, rates: tuple[float, float, float]
) -> None:
    """One, two and three units; two that differ in 0, 1 and all examples."""
    task = Task(examples=examples, groups=groups)
    specs = [Spec("nano", rates[0], rates[1], task=task), Spec("mini", rates[2], None, task=task)]
    result = compared(tmp_path, specs)
    units = groups or examples
    if units == 1:
        assert result.pairs == []
        assert result.verdict.status == OPEN
        why = "one test example" if examples == 1 else "of one group"
        assert why in result.verdict.sentence
        make_run(tmp_path / "by", Spec("nano", *rates[:2], r=16, task=task))
        (by,) = compare([tmp_path], by=["lora.r"]).sets
        assert why in by.verdict.sentence
        return
    assert {pair.question for pair in result.pairs} == {SMALL_LARGE, OWN_BASE}
    for pair in result.pairs:
        values = (pair.a.scores, pair.b.scores)
        assert values[0] is not None
        assert values[1] is not None
        means = [[v[0][np.array(result.test.groups) == g].mean() for g in set(result.test.groups)]
                 for v in values]  # fmt: skip
        detectable = pair.result.minimum_detectable_effect
        varies = np.ptp(np.subtract(*means)) > 1e-12
        assert (detectable > 0) if varies else (detectable != detectable)
        assert pair.low <= pair.gain <= pair.high
        assert 0 <= pair.p_corrected <= 1
    assert "nan" not in result.verdict.sentence.split()
    assert json.loads(results_text(compare([tmp_path])))["test_sets"]


def test_a_difference_beyond_the_scale_is_not_said_to_be_detectable(tmp_path: Path) -> None:
    task = Task(examples=2)
    specs = [Spec("nano", 0.0, 0.5, task=task), Spec("mini", 0.5, None, task=task)]
    result = compared(tmp_path, specs)
    assert all(not p.result.minimum_detectable_effect <= 1 for p in result.pairs)
    assert "could have been found" not in result.verdict.sentence


def test_intervals_and_effects_of_shares_are_shown_within_what_shares_can_be(
    tmp_path: Path,
) -> None:
    """Three groups and seeds that differ by chance: an interval far beyond the scale."""
    task = Task(examples=6, groups=3)
    nano = [
        Spec("nano", 0.2, rate, seed=seed, task=task) for seed, rate in enumerate((0.2, 0.5, 1.0))
    ]
    result = compared(tmp_path, [*nano, Spec("mini", 0.4, None, task=task)])
    (pair,) = of(result, SMALL_LARGE)
    assert pair.high > 1.0
    assert pair.result.minimum_detectable_effect > 1.0
    assert "to +100.0" in result.verdict.sentence
    row = next(row for row in pair_table(result).rows if "large" in row[2].text)
    assert row[6].text.endswith("to +100.0")
    assert row[11].text == "none"
    assert all(0 <= p.low <= p.high <= 1 for p in result.points if p.low is not None)
    assert result.decision is not None
    said = " ".join(result.decision.sentences)
    assert "of the resamples." not in said
    assert "fewer than 10 independent groups" in said
    table = decision_table(result)
    assert table is not None
    assert {row[4].text for row in table.rows} == {"–"}


def test_only_shares_have_ends() -> None:
    scale = words.Scale(True)
    assert scale.interval(-2.094, 1.729) == "−100.0 to +100.0"
    assert scale.cut(-0.2, 1.3, 0.0) == (0.0, 1.0)
    assert (scale.detectable(65.269), scale.detectable(0.2)) == ("none", "20.0")
    other = words.Scale(False)
    assert other.interval(-2.0, 3.0) == "−2.000 to +3.000"
    assert other.detectable(2.0) == "2.000"


def chosen(root: Path, specs: list[Spec], validated: dict[str, float]) -> SetComparison:
    """Runs with the validation scores of their untouched or tuned models, by the run's name."""
    for directory, spec in zip(make_sweep(root, specs), specs, strict=True):
        outcome = read_outcome(directory)
        side = "base" if spec.tuned is None else "tuned"
        score = {side: {PRIMARY: validated[spec.name]}} if spec.name in validated else {}
        asked = replace(outcome.data, prompt_fingerprint=str(outcome.config["dataset"]))
        write_outcome(replace(outcome, validated=score, data=asked), directory)
    (only,) = compare([root]).sets
    return only


def primary(result: SetComparison) -> Pair:
    (pair,) = [pair for pair in result.pairs if pair.primary]
    return pair


def test_the_best_by_validation_of_either_side_are_tested_first(tmp_path: Path) -> None:
    """The test scores would choose others; the largest model is not the best by validation."""
    small = [Spec("nano", 0.1, 0.5, r=4), Spec("nano", 0.1, 0.6, r=8)]
    large = [Spec("micro", 0.3, None), Spec("mini", 0.5, None)]
    scores = dict(zip([s.name for s in (*small, *large)], (0.9, 0.1, 0.9, 0.1), strict=True))
    pair = primary(chosen(tmp_path, [*small, *large], scores))
    assert (pair.a.model.lora_r, pair.b.model.name) == (4, "micro")
    assert pair.question == SMALL_LARGE


@pytest.mark.parametrize(
    ("rates", "how"),
    [
        ((0.3, 0.58), "is lost: −30.0 points (p < 0.001)"),
        ((0.58, 0.59), "is not shown to win: −2.0"),
    ],
)
def test_how_the_pair_named_in_advance_ended_is_said_where_the_verdict_is_about_another(
    tmp_path: Path, rates: tuple[float, float], how: str
) -> None:
    """Nobody wins, and the test set alone brings the second model to the headline."""
    specs = [Spec("nano", 0.1, rates[0]), Spec("micro", 0.1, rates[1]), Spec("mini", 0.6, None)]
    scores = dict(zip([s.name for s in specs], (0.9, 0.2, 0.5), strict=True))
    result = chosen(tmp_path, specs, scores)
    verdict = result.verdict
    assert verdict.pair is not None
    assert (verdict.status, verdict.pair.a.model.name) == (NOT_SHOWN, "micro")
    said = f"The pair named in advance, nano LoRA r=8 against mini zero-shot, {how}"
    assert said in verdict.sentence
    assert verdict.parts[-1] in plain_answer(result)
    marked = [row for row in pair_table(result).rows if "named in advance" in row[2].text]
    assert [(row[0].text, row[1].text) for row in marked] == [("nano LoRA r=8", "mini zero-shot")]


@pytest.mark.parametrize("tuned", [(0.5,), (0.5, 0.6)])
def test_without_a_contest_the_largest_gain_is_called_so(
    tmp_path: Path, tuned: tuple[float, ...]
) -> None:
    specs = [Spec("nano", 0.2, rate, r=4 * (i + 1)) for i, rate in enumerate(tuned)]
    verdict = compared(tmp_path, specs).verdict
    assert verdict.status == OPEN
    assert ("(the largest gain of 2 such pairs)" in verdict.sentence) == (len(tuned) == 2)


def test_a_named_pair_that_is_won_is_said_beside_a_smaller_winner(tmp_path: Path) -> None:
    specs = [Spec("nano", 0.1, 0.7), Spec("micro", 0.1, 0.8), Spec("mini", 0.4, None)]
    scores = dict(zip([s.name for s in specs], (0.2, 0.9, 0.5), strict=True))
    sentence = chosen(tmp_path, specs, scores).verdict.sentence
    assert "The pair named in advance, micro LoRA r=8 against mini zero-shot, is won" in sentence
    scores = dict(zip([s.name for s in specs], (0.9, 0.2, 0.5), strict=True))
    assert "named in advance" not in chosen(tmp_path / "same", specs, scores).verdict.sentence


def test_without_validation_scores_the_largest_model_stored_whole_is_tested_first(
    tmp_path: Path,
) -> None:
    large = [Spec("micro", 0.9, None), Spec("mini", 0.9, None, quantization="nf4")]
    result = compared(tmp_path, [Spec("nano", 0.1, 0.5), *large, Spec("mini", 0.3, None)])
    assert (primary(result).b.model.name, primary(result).b.model.quantization) == ("mini", "none")


def test_the_primary_pair_keeps_its_power_and_hands_it_on(tmp_path: Path) -> None:
    """Its p-value is not multiplied by the number of pairs; the others get its level once found."""
    specs = [Spec("nano", 0.2, 0.6, r=r) for r in (2, 4, 8, 16)] + [Spec("mini", 0.4, None)]
    result = compared(tmp_path, specs)
    pair = primary(result)
    assert pair.level == pytest.approx(0.96)
    assert pair.p_corrected == pytest.approx(pair.result.p_value / 0.8)
    open_still = [p for p in result.pairs if not p.found]
    assert len(open_still) > 1
    assert [p.level for p in open_still] == pytest.approx(
        [1 - 0.05 / len(open_still)] * len(open_still)
    )
    assert all(p.low <= p.uncorrected[0] <= p.uncorrected[1] <= p.high for p in result.pairs)


def test_wordings_of_an_untouched_model_are_one_cell_chosen_by_validation(tmp_path: Path) -> None:
    config = {"name": "icd10_dialogues", "label": "code"}
    wordings = [
        Spec("mini", rate, None, lr=number, extra={"dataset": {**config, "prompt": f"p{number}"}})
        for number, rate in enumerate((0.7, 0.3, 0.5))
    ]
    specs = [Spec("nano", 0.1, 0.6), *wordings]
    scores = dict(zip([s.name for s in wordings], (0.2, 0.9, 0.1), strict=True))
    made = chosen(tmp_path / "asked", specs, scores)
    (pair,) = of(made, SMALL_LARGE)
    assert pair.b.score() == pytest.approx(0.3)
    assert len(of(chosen(tmp_path / "not", specs, {}), SMALL_LARGE)) == 3


def with_lora(spec: Spec, **lora: object) -> Spec:
    return replace(spec, extra={"lora": {"method": "lora", "r": spec.r, **lora}})


def test_the_pairs_of_the_question_are_tested(tmp_path: Path) -> None:
    """Sizes, methods and targets against each other, and all against baseline and encoder."""
    planted = [
        (with_lora(Spec("nano", 0.1, 0.6), target="all_linear"), {"lora_method": "lora"}),
        (with_lora(Spec("nano", 0.1, 0.5, lr=2.0), target="attention"), {"lora_method": "lora"}),
        (with_lora(Spec("nano", 0.1, 0.5, lr=3.0), target="all_linear", method="dora"),
         {"lora_method": "dora"}),
        (with_lora(Spec("nano", 0.1, 0.5, lr=4.0), target="x", method="full"),
         {"lora_method": "full", "lora_r": None}),
        (with_lora(Spec("micro", 0.1, 0.5), target="all_linear"), {"lora_method": "lora"}),
        (Spec("mini", 0.4, None), {}),
        (Spec("mini", 0.3, None, lr=5.0, family="classical"), {"name": "words"}),
        (Spec("micro", 0.1, 0.7, lr=6.0, family="encoder"), {"name": "minilm"}),
    ]  # fmt: skip
    for directory, (_, facts) in zip(make_sweep(tmp_path, [s for s, _ in planted]), planted,
                                     strict=True):  # fmt: skip
        outcome = read_outcome(directory)
        write_outcome(replace(outcome, model=replace(outcome.model, **facts)), directory)
    (result,) = compare([tmp_path]).sets
    asked = {q: [(p.a.label, p.b.label) for p in of(result, q)] for q in (MODELS, METHODS, TARGETS)}
    assert len(asked[MODELS]) == 1
    methods = [{p.a.model.lora_method, p.b.model.lora_method} for p in of(result, METHODS)]
    assert sorted(map(sorted, methods)) == [["dora", "full"], ["dora", "lora"], ["full", "lora"]]
    assert len(asked[TARGETS]) == 1
    against = of(result, BASELINES)
    assert {p.b.kind for p in against} == {CLASSICAL}
    assert {p.a.kind for p in against} == {TUNED, ENCODER, ZERO_SHOT}
    assert {(p.a.model.name, p.b.kind) for p in of(result, ENCODERS)} == {
        ("nano", ENCODER), ("micro", ENCODER)
    }  # fmt: skip


def test_an_encoder_has_seeds_and_is_no_tuned_model(tmp_path: Path) -> None:
    specs = [Spec("micro", 0.1, 0.7, seed=s, family="encoder") for s in (1, 2)]
    result = compared(tmp_path, [*specs, Spec("mini", 0.3, None)])
    (encoder,) = [arm for arm in result.test.arms if arm.kind == ENCODER]
    assert encoder.seeds == (1, 2)
    assert encoder.fitted
    assert not encoder.tuned
    assert {arm.kind for arm in result.test.arms} == {ENCODER, ZERO_SHOT}
    assert not of(result, SMALL_LARGE)


def test_by_model_pairs_tuned_models_whatever_their_learning_rates(tmp_path: Path) -> None:
    """The best learning rate of each by validation; what stands in no pair is said, with why."""
    rates = (("nano", 1e-2), ("nano", 3e-2), ("micro", 5e-3))
    specs = [Spec(model, 0.1, 0.5, lr=lr) for model, lr in rates]
    odd = Spec("mini", 0.1, 0.5, r=16, lr=1e-3)
    for directory, spec in zip(make_sweep(tmp_path, [*specs, odd]), [*specs, odd], strict=True):
        outcome = read_outcome(directory)
        model = {**outcome.config["model"], "suggested_lr": spec.lr}
        loss = {"val_loss": 2.0 if spec.lr == 1e-2 else 1.0}
        config = {**outcome.config, "model": model}
        write_outcome(replace(outcome, config=config, validation=loss), directory)
    (result,) = compare([tmp_path], by=["model"]).sets
    tuned = [(p.a.label, p.b.label) for p in result.pairs if p.a.tuned]
    assert tuned == [("nano LoRA r=8 lr=0.03", "micro LoRA r=8")]
    said = " ".join(result.left_out)
    assert "nano LoRA r=8 lr=0.01: a setting of the training that was worse on validation" in said
    assert "mini LoRA r=16: nothing differs from it in model alone (also in lora.r)" in said


def test_a_wrong_key_says_which_keys_differ_and_that_nothing_was_compared(tmp_path: Path) -> None:
    make_sweep(tmp_path, [Spec(r=4), Spec(r=8)])
    with pytest.raises(ConfigError, match=r"2 configurations|3 configurations") as caught:
        compare([tmp_path], by=["lora.rank"])
    assert str(caught.value).endswith("They differ in: lora.r."), "and not in what some lack"


def test_seeds_are_no_pairs_and_a_group_of_many_keys_is_one_word(tmp_path: Path) -> None:
    make_sweep(tmp_path, [Spec("nano", seed=1), Spec("nano", seed=2), Spec("micro")])
    with pytest.raises(ConfigError) as caught:
        compare([tmp_path], by=["seed"])
    said = str(caught.value)
    assert said.startswith("--by seed cannot pair: a configuration stands for all its seeds")
    assert said.endswith("They differ in: model.name, model.path."), said
    flats = [{f"model.{n}": value for n in range(9)} | {"lora.r": 1} for value in (1, 2)]
    assert _several_values([*flats, {}], sorted(flats[0])) == ["model"]


def test_a_key_is_not_the_beginning_of_another(tmp_path: Path) -> None:
    """``lora.r`` is the rank and not also ``lora.random``."""
    specs = [with_lora(Spec(r=r, lr=lr), random=lr) for r, lr in ((4, 1.0), (8, 1.0), (8, 2.0))]
    result = compared(tmp_path, specs, by=["lora.r"])
    assert [p.a.config["lora"]["random"] for p in result.pairs] == [1.0]


def test_what_cannot_be_printed_is_no_win(tmp_path: Path) -> None:
    """Six examples that differ by next to nothing in one direction are significant at 0.031."""
    directories = make_sweep(tmp_path, [Spec(task=Task(examples=6))])
    outcome = read_outcome(directories[0])
    assert outcome.tuned is not None
    path = directories[0] / "predictions" / "tuned.test.jsonl"
    lines = (directories[0] / "predictions" / "base.test.jsonl").read_text().splitlines()
    table = [json.loads(line) for line in lines]
    for number, row in enumerate(table):
        row["scores"][PRIMARY] += 1e-5 * (number + 1)
    path.write_text("".join(json.dumps(row) + "\n" for row in table))
    ((name, evaluation),) = outcome.tuned.items()
    fresh = replace(evaluation, predictions=file_ref(path, directories[0]))
    write_outcome(replace(outcome, tuned={name: fresh}), directories[0])
    (result,) = compare([tmp_path]).sets
    (pair,) = of(result, OWN_BASE)
    assert pair.found
    assert pair.low > 0
    assert pair.negligible
    assert not pair.wins


def test_p_values_at_the_floor_of_the_draws_are_bounds(tmp_path: Path) -> None:
    specs = [Spec("nano", 0.1, 0.9, task=Task(groups=100)), Spec("mini", 0.1, None,
             task=Task(groups=100))]  # fmt: skip
    result = compared(tmp_path, specs)
    pair = primary(result)
    assert pair.at_floor
    assert pair.p_floor == pair.result.p_value
    assert words.p_value(0.0012, at_most=True) == "p ≤ 0.001"
    assert words.level(1 - 0.01 / 30) == "99.967 %"


def test_without_a_larger_model_the_verdict_is_about_the_best_by_validated_score(
    tmp_path: Path,
) -> None:
    """The validation loss alone would choose the other rank."""
    specs = [Spec("nano", 0.1, 0.5, r=4), Spec("nano", 0.1, 0.6, r=8)]
    chosen(tmp_path, specs, dict(zip([s.name for s in specs], (0.9, 0.2), strict=True)))
    for run_dir in sorted(tmp_path.glob("*/outcome.json")):
        outcome = read_outcome(run_dir.parent)
        loss = 2.0 if outcome.model.lora_r == 4 else 1.0
        write_outcome(replace(outcome, validation={"val_loss": loss}), run_dir.parent)
    (made,) = compare([tmp_path]).sets
    contrast = find_contrast(made.test, None)
    assert contrast is not None
    assert contrast.small.model.lora_r == 4


def record_score(directory: Path, value: float, name: str = PRIMARY) -> None:
    """Change a recorded score of the tuned model, and leave its answers as they are."""
    outcome = read_outcome(directory)
    ((dataset, entry),) = (outcome.tuned or {}).items()
    tuned = {dataset: replace(entry, scores={**entry.scores, name: value})}
    write_outcome(replace(outcome, tuned=tuned), directory)


@pytest.mark.parametrize("left_out", [0, 20])
def test_a_recorded_score_that_its_answers_do_not_give_is_said(
    tmp_path: Path, left_out: int
) -> None:
    small, large = make_sweep(tmp_path, [Spec("nano", 0.2, 0.6), Spec("micro", 0.2, 0.5)])
    if left_out:
        rescore(large, lambda i, row: row if i >= left_out else None)
        rows = (large / "predictions" / "tuned.test.jsonl").read_text().splitlines()
        record_score(large, float(np.mean([json.loads(r)["scores"][PRIMARY] for r in rows])))
    assert not any("its answers give" in p.reason for p in compare([tmp_path]).problems)
    record_score(small, 0.859)
    comparison = compare([tmp_path])
    (problem,) = [p for p in comparison.problems if "its answers give" in p.reason]
    assert problem.where == str(small)
    assert f"{PRIMARY} 0.859 (the answers' own: 0.6)" in problem.reason
    (result,) = comparison.sets
    (arm,) = [arm for arm in result.test.arms if arm.label == "nano LoRA r=8"]
    assert arm.score() == pytest.approx(result.test.mean(arm))
    assert arm.score() != 0.859


@pytest.mark.parametrize("target", ["sizewise.metrics.perplexity.Perplexity", "theirs.Metric"])
def test_a_score_of_a_corpus_is_held_against_its_own_rule(tmp_path: Path, target: str) -> None:
    """That of a metric which is not of this package is held against nothing."""
    name = "perplexity/perplexity"
    spec = Spec("nano", 0.2, 0.6, extra={"metric": {"perplexity": {"_target_": target}}})
    directory = plant(tmp_path / "run", spec, {name: np.ones(200)}, {name: np.ones(200)})
    write_outcome(replace(read_outcome(directory), primary=name, direction="min"), directory)
    path = directory / "predictions" / "tuned.test.jsonl"
    predictions = [replace(p, log_prob=-float(i % 9)) for i, p in enumerate(read_predictions(path))]
    totals, scored = score_predictions(predictions, [Perplexity()])
    lines = iter([p.to_json() for p in scored])
    rescore(directory, lambda _, row: row.update(next(lines)) or row)
    record_score(directory, totals[name], name)
    config = {**read_outcome(directory).config, **spec.extra}
    write_outcome(replace(read_outcome(directory), config=config), directory)

    def problems() -> list[str]:
        found = compare([tmp_path]).problems
        return [p.reason for p in found if "its answers give" in p.reason and "tuned" in p.reason]

    assert totals[name] != pytest.approx(np.mean([p.scores[name] for p in scored]))
    assert problems() == []
    record_score(directory, 1.5, name)
    assert len(problems()) == (target != "theirs.Metric")


def test_a_score_that_every_answer_has_is_bounded_and_not_sure(tmp_path: Path) -> None:
    """All of 200 right: Clopper and Pearson's bound, and no interval without width."""
    plant(tmp_path / "all", Spec("mini", tuned=None), {PRIMARY: share(1.0, 200)})
    plant(tmp_path / "none", Spec("nano", tuned=None), {PRIMARY: share(0.0, 200)})
    (result,) = compare([tmp_path]).sets
    ends = score_intervals(result.test, result.test.scored, 0)
    low, high = binomtest(200, 200).proportion_ci()
    found = {arm.model.name: ends[id(arm)] for arm in result.test.scored}
    assert found["mini"] == pytest.approx((low, high))
    assert found["nano"] == pytest.approx((1 - high, 1 - low))
