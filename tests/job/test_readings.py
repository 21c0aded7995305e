"""Runs on closed answer sets: readings by likelihood, and what is chosen on validation."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tests.job.runs import run

from sizewise.errors import ConfigError
from sizewise.job import language_model
from sizewise.metrics.reading.closed import READINGS
from sizewise.record.outcome import outcome_from_json, read_outcome
from sizewise.record.predictions import read_predictions
from sizewise.verify import FAILED
from sizewise.verify.verify import verify_run

COLOURS = ("red", "green", "blue", "dark red")
SCORES = {f"label/{reading}" for reading in READINGS}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    rows = "".join(f"Thing {i} looks {COLOURS[i % 4]}.,{COLOURS[i % 4]}\n" for i in range(60))
    path.write_text(f"q,a\n{rows}")
    return (
        "dataset=csv", f"dataset.source.path={path}", "dataset.name=colours",
        "dataset.prompt='{q}'", "dataset.answer='{a}'", "metric=[label,perplexity,efficiency]",
        "dataset.primary=label/exact_match", "dataset.direction=max", "trainer.max_steps=2",
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, source: tuple[str, ...]) -> Path:
    root = tmp_path_factory.mktemp("runs")
    run(root, "tuned", *source)
    return root


def test_every_model_answers_a_closed_set_in_every_reading(trained: Path) -> None:
    outcome = read_outcome(trained / "tuned")
    for side in (outcome.base, outcome.tuned or {}):
        assert side["colours"].scores.keys() >= SCORES
        path = trained / "tuned" / side["colours"].predictions.path
        for row in read_predictions(path):
            assert row.candidate in COLOURS
            assert row.candidate_per_token in COLOURS
            assert row.candidate_calibrated in COLOURS
    assert outcome.warnings == []


def test_both_models_answer_validation_and_its_scores_are_recorded(trained: Path) -> None:
    outcome = read_outcome(trained / "tuned")
    assert outcome.validated.keys() == {"base", "tuned"}
    for scores in outcome.validated.values():
        assert scores.keys() >= SCORES
        assert not [name for name in scores if name.startswith(("perplexity", "efficiency"))]
    assert "label/exact_match" not in outcome.validation
    validated = read_predictions(trained / "tuned" / outcome.files["base_validation"].path)
    tested = read_predictions(trained / "tuned" / outcome.base["colours"].predictions.path)
    assert len(validated) == outcome.data.sizes["validation"]
    assert {row.id for row in validated}.isdisjoint(row.id for row in tested)


def test_figures_of_cost_are_those_of_the_test_split(trained: Path) -> None:
    outcome = read_outcome(trained / "tuned")
    bill = trained / "tuned" / "predictions" / "tuned.colours.jsonl.spent"
    seconds = json.loads(bill.read_text().splitlines()[-1])[1]
    assert outcome.cost.eval_seconds == seconds


def test_the_base_is_asked_once_for_test_and_validation(
    trained: Path, source: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the base was asked again")

    monkeypatch.setattr(language_model, "predict", refuse)
    monkeypatch.setattr(language_model, "calibrated", refuse)
    outcome = run(trained, "zero", *source, "lora=none")
    before = read_outcome(trained / "tuned")
    assert outcome.validated == {"base": before.validated["base"]}
    named = {name: before.base["colours"].scores[name] for name in SCORES}
    assert {name: outcome.base["colours"].scores[name] for name in SCORES} == named


def test_an_honest_run_is_verified_and_a_forged_validation_score_is_found(trained: Path) -> None:
    directory = trained / "tuned"
    assert [c.detail for c in verify_run(directory).checks if c.status == FAILED] == []
    outcome = read_outcome(directory)
    record = dataclasses.asdict(outcome)
    record["validated"]["base"]["label/likelihood_match"] = 0.99
    before = (directory / "outcome.json").read_text()
    try:
        (directory / "outcome.json").write_text(json.dumps(record))
        faults = [c for c in verify_run(directory).checks if c.status == FAILED]
    finally:
        (directory / "outcome.json").write_text(before)
    (fault,) = faults
    assert fault.name == "base on colours, validation: metric label"
    assert "likelihood_match is reported as 0.99" in fault.detail


def test_a_record_of_earlier_code_is_read_and_verified_without_the_new_readings(
    trained: Path, tmp_path: Path
) -> None:
    record = json.loads((trained / "tuned" / "outcome.json").read_text())
    del record["validated"]
    assert outcome_from_json(record, "old").validated == {}


def test_nothing_is_compared_and_validation_is_left_alone_where_that_is_asked_for(
    tmp_path: Path, source: tuple[str, ...]
) -> None:
    off = ("evaluation.candidates=null", "evaluation.answer_validation=none", "lora=none")
    outcome = run(tmp_path, "off", *source, *off)
    assert outcome.validated == {}
    assert not [n for n in outcome.base["colours"].scores if "likelihood_" in n]


def test_without_validation_there_is_no_calibrated_reading(
    tmp_path: Path, source: tuple[str, ...]
) -> None:
    outcome = run(tmp_path, "none", *source, "lora=none", "dataset.split.validation=0")
    scores = outcome.base["colours"].scores
    assert "label/likelihood_calibrated_match" not in scores
    assert "label/likelihood_per_token_match" in scores
    assert outcome.validated == {}
    primary = "dataset.primary=label/likelihood_calibrated_match"
    with pytest.raises(ConfigError, match=r"calibrated on validation prompts.*split\.validation"):
        run(tmp_path, "primary", *source, "lora=none", "dataset.split.validation=0", primary)


def test_a_baseline_gives_its_answer_in_every_reading(
    tmp_path: Path, source: tuple[str, ...]
) -> None:
    outcome = run(tmp_path, "tfidf", *source, "model=tfidf_logreg", "lora=none")
    for scores in (outcome.base["colours"].scores, outcome.validated["base"]):
        assert len({scores[name] for name in SCORES}) == 1


def test_wordings_and_demonstrations_share_test_examples_and_are_chosen_on_validation(
    trained: Path, source: tuple[str, ...]
) -> None:
    """The general side's budget: arms of a grid, which pair and carry what decides among them."""
    arms = [("dataset.prompt='{q} Which colour?'",), ("dataset.few_shot=2",), ()]
    found = [run(trained, f"arm{i}", *source, "lora=none", *arm) for i, arm in enumerate(arms)]
    ids = [
        [
            row.id
            for row in read_predictions(trained / o.run_id / o.base["colours"].predictions.path)
        ]
        for o in found
    ]
    assert ids[0] == ids[1] == ids[2]
    assert len({o.base["colours"].fingerprint for o in found}) == 1
    assert all(o.validated["base"].keys() >= SCORES for o in found)
    assert len({o.data.prompt_fingerprint for o in found}) == 3


def test_candidates_are_compared_only_where_the_reading_is_chosen(
    tmp_path: Path, source: tuple[str, ...]
) -> None:
    """Untouched on validation; nobody else's likelihoods choose a reading."""
    outcome = run(tmp_path, "choice", *source, "evaluation.candidates_on=choice")
    assert outcome.validated["base"].keys() >= SCORES
    others = [outcome.validated["tuned"]]
    others += [side["colours"].scores for side in (outcome.base, outcome.tuned or {})]
    assert len(others) == 3
    for scores in others:
        assert "label/exact_match" in scores
        assert not [name for name in scores if "likelihood" in name]
    faults = [c for c in verify_run(tmp_path / "choice").checks if c.status == FAILED]
    assert faults == []


def test_a_primary_score_by_likelihood_needs_candidates_on_the_test_split(
    tmp_path: Path, source: tuple[str, ...]
) -> None:
    primary = "dataset.primary=label/likelihood_match"
    with pytest.raises(ConfigError, match=r"Leave out evaluation\.candidates_on=choice"):
        run(tmp_path, "refused", *source, primary, "evaluation.candidates_on=choice")
    trained = ("stage=train", "evaluation.objective=primary")
    with pytest.raises(ConfigError, match=r"Leave out evaluation\.candidates_on=choice"):
        run(tmp_path, "trained", *source, primary, "evaluation.candidates_on=choice", *trained)
