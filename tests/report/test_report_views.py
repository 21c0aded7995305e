"""Strata, curves, routing, break-even, confusion, warnings: each with something planted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simple_icd_10_cm as icd
from tests.report.factory import Spec, Task, make_sweep, plant, share

from sizewise.config import PricesConfig
from sizewise.record.outcome import read_outcome, write_outcome
from sizewise.report.comparison.compare import SetComparison, compare
from sizewise.report.comparison.labels import name_all, tell_apart
from sizewise.report.comparison.strata import CHAPTERS, PROMPT_LENGTH, _levels, chapter
from sizewise.report.page.page import charts_of
from sizewise.report.page.prose import hybrid_sentence, scaling_sentence
from sizewise.statistics.learning_curve import REACHED
from sizewise.statistics.scaling import ABOVE, MATCHED, NO_FIT, NOT_RISING


def compared(root: Path, specs: list[Spec], prices: PricesConfig | None = None) -> SetComparison:
    make_sweep(root, specs)
    return compare([root], prices=prices).sets[0]


def test_strata_cover_all_examples_and_average_to_the_score(tmp_path: Path) -> None:
    result = compared(tmp_path, [Spec("nano"), Spec("mini", 0.4, None)])
    strata = {s.name: s for s in result.views.strata}
    assert set(strata) == {PROMPT_LENGTH, "label", "label_band", "language"}
    for stratum in strata.values():
        assert sum(level.examples for level in stratum.levels) == 200
        mean = sum(v.examples * v.means["nano LoRA r=8"] for v in stratum.levels) / 200
        assert mean == pytest.approx(0.6)
    level = strata["language"].levels[0]
    difference = level.means["nano LoRA r=8"] - level.means["mini zero-shot"]
    assert level.tested is not None
    assert level.tested.gain == pytest.approx(difference)
    assert level.tested.low < level.tested.gain < level.tested.high


def test_counts_become_bands_and_texts_without_end_are_left_out() -> None:
    counts = [str(n) for n in range(40)]
    bands = _levels(counts)
    assert bands is not None
    assert set(bands) == {"0", "1–4", "5–19", "20–99"}
    assert _levels([f"text {n}" for n in range(40)]) is None
    assert _levels(["same"] * 40) is None
    assert _levels(["billing", "Login", "Billing ", "billing", ""]) == [
        "billing", "Login", "billing", "billing", "(none)",
    ]  # fmt: skip


def test_learning_curve_tells_where_the_large_model_is_overtaken(tmp_path: Path) -> None:
    sizes = ((100, 0.2), (200, 0.3), (400, 0.5), (800, 0.6))
    specs = [Spec("nano", 0.1, rate, max_train=n) for n, rate in sizes]
    result = compared(tmp_path, [*specs, Spec("mini", 0.4, None)])
    (curve,) = result.views.learning
    assert curve.curve.x == (100, 200, 400, 800)
    assert curve.large == "mini zero-shot"
    assert curve.overtaking is not None
    assert curve.overtaking.status == REACHED
    assert 200 < (curve.overtaking.examples_needed or 0) < 400
    assert result.verdict.pair is not None
    assert "n=800" in result.verdict.pair.a.label


def test_rank_curves_hold_what_differs_in_rank_only(tmp_path: Path) -> None:
    specs = [Spec(m, r=r) for m in ("nano", "micro") for r in (4, 8, 16)]
    result = compared(tmp_path, [*specs, Spec(r=4, quantization="nf4")])
    assert [curve.x for curve in result.views.ranks] == [(4, 8, 16), (4, 8, 16)]


def test_scaling_names_a_size_within_the_range_only(tmp_path: Path) -> None:
    zero = [Spec("micro", 0.4, None), Spec("mini", 0.7, None)]
    inside = compared(tmp_path / "in", [Spec("nano", 0.2, 0.55), *zero]).views.scaling
    above = compared(tmp_path / "out", [Spec("nano", 0.2, 0.9), *zero]).views.scaling
    assert inside is not None
    assert inside.status == MATCHED
    assert 1e6 < (inside.parameters or 0) < 4e6
    assert above is not None
    assert above.status == ABOVE
    assert above.parameters is None


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(("rate", "status"), [(0.0, NOT_RISING), (0.4, NO_FIT)])
def test_scaling_of_scores_that_no_curve_fits_is_still_shown(
    tmp_path: Path, rate: float, status: str
) -> None:
    zero = [Spec("micro", 0.0, None), Spec("mini", rate, None)]
    result = compared(tmp_path, [Spec("nano", 0.0, 0.3), *zero])
    match = result.views.scaling
    assert match is not None
    assert match.status == status
    assert status in scaling_sentence(result.test, result.views)
    assert "scaling" in charts_of(result)


def test_hybrid_starts_and_ends_with_the_models_themselves(tmp_path: Path) -> None:
    result = compared(tmp_path, [Spec("nano", 0.2, 0.6), Spec("mini", 0.4, None)])
    curve = result.views.hybrid
    assert curve is not None
    assert curve.scores[0] == pytest.approx(0.6)
    assert curve.scores[-1] == pytest.approx(0.4)
    assert curve.best_score >= 0.6
    assert (curve.oracle >= curve.scores - 1e-12).all()


def test_the_area_of_a_hybrid_is_not_called_its_gain(tmp_path: Path) -> None:
    """The area counts from random routing, the gain from the small model alone."""
    result = compared(tmp_path, [Spec("nano", 0.2, 0.6), Spec("mini", 0.4, None)])
    curve, sentence = result.views.hybrid, hybrid_sentence(result.test, result.views)
    assert curve is not None
    ideal = f"{100 * curve.oracle.max():.1f} %"
    assert f"who does better on each prompt: {ideal}." in sentence
    assert "Of the area between random and ideal routing" in sentence
    assert sentence.endswith(f"covers {100 * curve.gain_captured:.0f} %.")
    assert "possible gain" not in sentence


def test_each_seed_is_routed_by_its_own_confidence(tmp_path: Path) -> None:
    """The mean of several models' confidence is better than any model's own."""
    specs = [Spec("nano", 0.2, 0.6, seed=s) for s in (1, 2, 3)]
    together = compared(tmp_path / "all", [*specs, Spec("mini", 0.4, None)]).views.hybrid
    alone = [
        compared(tmp_path / str(s.seed), [s, Spec("mini", 0.4, None)]).views.hybrid for s in specs
    ]
    assert together is not None
    curves = [curve for curve in alone if curve is not None]
    assert len(curves) == 3
    for name in ("scores", "oracle", "held_out_score", "gain_captured"):
        mean = np.mean([getattr(curve, name) for curve in curves], axis=0)
        np.testing.assert_allclose(getattr(together, name), mean)
    assert together.best_score == together.scores.max()


def test_energy_of_a_tuned_run_is_not_that_of_its_base(tmp_path: Path) -> None:
    for directory in make_sweep(tmp_path, [Spec("nano"), Spec("mini", 0.4, None)]):
        outcome = read_outcome(directory)
        write_outcome(replace(outcome, cost=replace(outcome.cost, energy_joules=50.0)), directory)
    (result,) = compare([tmp_path]).sets
    energy = {p.label: p.costs["energy_joules"] for p in result.points}
    assert energy == {"nano LoRA r=8": 50.0, "nano zero-shot": None, "mini zero-shot": 50.0}


def test_memory_of_a_base_that_came_with_a_tuned_run_is_without_the_adapter(
    tmp_path: Path,
) -> None:
    result = compared(tmp_path, [Spec("nano"), Spec("nano", tuned=None, quantization="nf4")])
    memory = {p.label: p.costs["memory_bytes"] for p in result.points}
    adapter = 8_000 * 4
    wanted = {"nano LoRA r=8": 1_200_000 + adapter, "nano zero-shot": 1_200_000}
    wanted["nano zero-shot nf4"] = 150_000
    assert memory == wanted
    assert (
        dict(zip(result.everything["label"], result.everything["memory_bytes"], strict=True))
        == wanted
    )


def test_break_even_in_time_and_money(tmp_path: Path) -> None:
    prices = PricesConfig(device_per_hour=3.6, api_per_1000_tokens=0.02)
    specs = [Spec("nano", latency=0.01, train_seconds=100.0)]
    specs += [Spec("mini", 0.4, None, latency=0.03)]
    time, money = compared(tmp_path, specs, prices).paid_back
    assert time.result.answers == pytest.approx(5_000, abs=1)
    assert money.small_per_answer == pytest.approx(1e-5)
    assert money.large_per_answer == pytest.approx(0.02 * 54 / 1000, rel=0.05)
    assert math.isfinite(money.result.answers)


def test_chapters_are_those_of_the_catalogue() -> None:
    categories = [code for code in icd.get_all_codes(with_dots=False) if icd.is_category(code)]
    assert len(categories) > 1_500
    numerals = [icd.get_ancestors(c)[-1] for c in categories]
    by_chapter: dict[str, set[str]] = {}
    for code, number in zip(categories, numerals, strict=True):
        by_chapter.setdefault(chapter(code), set()).add(number)
    assert all(len(numbers) == 1 for numbers in by_chapter.values())
    assert len(by_chapter) == len({n for v in by_chapter.values() for n in v})
    assert {name for _, name in CHAPTERS} <= set(by_chapter)


def test_confusion_counts_every_answer_once(tmp_path: Path) -> None:
    result = compared(tmp_path, [Spec("nano", 0.2, 0.6, unparsed=0.1)])
    base, tuned = result.views.confusion
    for confusion in (base, tuned):
        assert sum(map(sum, confusion.counts)) == 200
    at = tuned.columns.index("no code")
    assert 0 < sum(row[at] for row in tuned.counts) <= 20
    diagonal = sum(
        row[tuned.columns.index(name)] for name, row in zip(tuned.rows, tuned.counts, strict=True)
    )
    assert diagonal == pytest.approx(0.6 * 200, abs=20)


def test_sample_is_stated_and_holds_what_changed(tmp_path: Path) -> None:
    result = compared(tmp_path, [Spec("nano", 0.5, 0.55), Spec("mini", 0.4, None)])
    sample = result.views.sample
    assert len(sample.rows) == 120
    assert "120 of the 200" in sample.note
    assert sample.models[:3] == ["nano LoRA r=8", "nano zero-shot", "mini zero-shot"]
    assert sample.base[0] == 1
    changed = [row for row in sample.rows if row["scores"][0] != row["scores"][1]]
    assert len(changed) >= 30
    small = compared(tmp_path / "small", [Spec(task=Task(examples=30))])
    assert small.views.sample.note == "All 30 test examples."


def test_reviewers_warnings(tmp_path: Path) -> None:
    task = Task(examples=80)
    specs = [Spec("nano", lr=lr, task=task, unparsed=0.3) for lr in (1e-4, 2e-4)]
    specs += [Spec("micro", task=task)]
    dirs = make_sweep(tmp_path, specs)
    outcome = read_outcome(dirs[2])
    report = {**outcome.data.report, "shared_groups": 3}
    scores = {"memorization/shared_5grams": 0.5, "memorization/reference_shared_5grams": 0.2}
    evaluation = (outcome.tuned or {})[task.name]
    tuned = {task.name: replace(evaluation, scores={**evaluation.scores, **scores})}
    prints = {**outcome.data.fingerprints, "validation": outcome.data.fingerprints["test"]}
    data = replace(outcome.data, report=report, prompt_fingerprint="other", fingerprints=prints)
    config = {**outcome.config, "generation": {"do_sample": True}}
    changed = replace(outcome, data=data, tuned=tuned, config=config, warnings=["Own warning."])
    write_outcome(changed, dirs[2])
    (result,) = compare([tmp_path]).sets
    text = "\n".join(result.warnings)
    worst = result.everything["unusable"].max()
    assert 0.05 < worst <= 0.3  # unparsed, and not counted as right all the same
    for part in (
        "One seed only",
        "Only 80 test examples",
        "share 3 groups",
        "2 different wordings",
        "decoded in 2 different ways",
        "Unequal tuning budgets: between 1 and 2",
        f"up to {100 * worst:.1f} %",
        "repeats training answers: 50.0 %",
        "share 20.0 % of their word runs",
        "choices were made on the test set",
        "Own warning.",
    ):
        assert part in text, part


@pytest.mark.parametrize(("method", "said"), [("int8", True), ("nf4", False)])
def test_point_24_int8_answered_in_different_batches_is_an_objection(
    tmp_path: Path, method: str, said: bool
) -> None:
    smaller = {"evaluation": {"batch_size": 2}}
    specs = [Spec(m, seed=s, quantization=method) for m in ("nano",) for s in (1, 2, 3)]
    specs += [Spec("mini", seed=s, quantization=method, extra=smaller) for s in (1, 2, 3)]
    text = "\n".join(compared(tmp_path, specs).warnings)
    assert ("int8 models were asked in batches of 2 and 8" in text) is said


def test_clean_comparison_has_no_warnings(tmp_path: Path) -> None:
    """Three seeds, a baseline, every reading on validation, and probabilities that are kept."""
    task = Task(examples=200)
    names = [f"icd10/{name}" for name in ("exact_match", "lenient_match", "likelihood_match")]
    validated = {"base": dict(zip(names, (0.4, 0.3, 0.2), strict=True))}

    def read(rate: float, offset: int) -> dict[str, np.ndarray]:
        return {name: share(rate, 200, offset) for name in names}

    for seed in (1, 2, 3):
        plant(tmp_path / f"nano{seed}", Spec("nano", seed=seed, task=task), read(0.58, 9),
              read(0.6, seed), rows={"token_log_prob": math.log(0.6), "new_tokens": 1},
              seed=seed, validated=validated)  # fmt: skip
    plant(tmp_path / "mini", Spec("mini", 0.4, None, task=task), read(0.4, 7),
          rows={"token_log_prob": math.log(0.4), "new_tokens": 1}, validated=validated)  # fmt: skip
    words = {"name": "tfidf", "path": "classical:tfidf_logreg", "family": "classical"}
    plant(tmp_path / "words", Spec("nano", 0.1, None, task=task), read(0.3, 8), model=words)
    assert compare([tmp_path]).sets[0].warnings == []


@pytest.mark.parametrize(("share", "said"), [(0.9, True), (0.05, False)])
def test_a_baseline_that_counts_words_better_is_named(
    tmp_path: Path, share: float, said: bool
) -> None:
    specs = [Spec(seed=s) for s in (1, 2, 3)]
    specs += [Spec("mini", 0.4, None), Spec("micro", share, None, family="classical")]
    text = "\n".join(compared(tmp_path, specs).warnings)
    assert ("baseline without a language model does better" in text) is said


def test_labels_tell_configurations_apart(tmp_path: Path) -> None:
    specs = [Spec(lr=lr, max_train=n) for lr in (1e-4, 2e-4) for n in (100, None)]
    (first, *_) = make_sweep(tmp_path, specs)
    outcomes = [read_outcome(path) for path in sorted(first.parent.iterdir())]
    labels = name_all([(o.model, True, o.config) for o in outcomes])
    assert sorted(labels) == [
        "nano LoRA r=8 n=100 lr=0.0001",
        "nano LoRA r=8 n=100 lr=0.0002",
        "nano LoRA r=8 n=all lr=0.0001",
        "nano LoRA r=8 n=all lr=0.0002",
    ]


def test_labels_say_no_more_than_is_needed_to_tell_configurations_apart() -> None:
    one = {"dataset.few_shot": 0, "dataset.max_length": 2048, "seed": 1}
    two = {"dataset.few_shot": 3, "dataset.max_length": 8192, "seed": 1}
    assert tell_apart([one, two]) == ["shots=0", "shots=3"]
    assert tell_apart([one, two, {**two, "dataset.max_length": 4096}]) == [
        "shots=0 dataset.max_length=2048",
        "shots=3 dataset.max_length=8192",
        "shots=3 dataset.max_length=4096",
    ]


def test_sizes_that_come_to_the_same_make_no_learning_curve(tmp_path: Path) -> None:
    """Asked for 1,000 and for all of 1,000: two configurations, one size."""
    specs = [Spec("nano", 0.3, max_train=n) for n in (1000, None)]
    found = compared(tmp_path, [*specs, Spec("mini", 0.4, None)])
    assert found.views.learning == []
