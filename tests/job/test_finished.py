"""Scoring a finished run again: whose metrics count."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from sizewise.composition.compose import compose_config, compose_run
from sizewise.errors import ConfigError
from sizewise.job.finished import of_finished_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The directory of an untouched base, scored on a file whose answers are no codes."""
    given = ["dataset=csv", "dataset.source.path=a.csv", "dataset.prompt='{q}'"]
    config = compose_config([*given, "dataset.answer='{a}'", "lora=none"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "metrics"),
    [
        ([], {"perplexity", "efficiency"}),
        (["metric=[rouge]"], {"perplexity", "efficiency", "rouge"}),
    ],
)
def test_metrics_are_the_runs_and_those_asked_for(
    run: Path, asked: list[str], metrics: set[str]
) -> None:
    overrides = [f"run='{run}'", *asked]
    cfg = compose_run(overrides, "evaluate")
    assert "icd10" in compose_run([f"run='{run}'"], "evaluate").metric  # the default data set's
    assert set(of_finished_run(cfg, overrides).metric) == metrics


def test_a_setting_that_is_typed_goes_before_the_runs_own(run: Path) -> None:
    first = [f"run='{run}'", "metric=[rouge]", "metric.rouge.use_stemmer=false"]
    scored = of_finished_run(compose_run(first, "evaluate"), first)
    assert scored.metric["rouge"]["use_stemmer"] is False
    (run / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(asdict(scored)))))
    for more, stemmer in (([], False), (["metric.rouge.use_stemmer=true"], True)):
        overrides = [f"run='{run}'", "metric=[rouge]", *more]
        again = of_finished_run(compose_run(overrides, "evaluate"), overrides)
        assert again.metric["rouge"]["use_stemmer"] is stemmer


def test_metrics_of_a_program_are_all_asked_for(run: Path) -> None:
    cfg = compose_run([f"run='{run}'", "metric=[rouge]"], "evaluate")
    assert set(of_finished_run(cfg).metric) == {"perplexity", "efficiency", "rouge"}


def test_how_to_evaluate_may_be_changed_one_by_one(run: Path) -> None:
    cfg = compose_run([f"run='{run}'", "evaluation.candidates=train"], "evaluate")
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("retries: 3", "retries: 5"))
    evaluation = of_finished_run(cfg).evaluation
    assert (evaluation.candidates, evaluation.retries) == ("train", 5)


@pytest.mark.parametrize("override", ["dataset.max_test=4", "model=micro", "+lora.r=3"])
def test_what_would_have_no_effect_is_refused(run: Path, override: str) -> None:
    overrides = [f"run='{run}'", "evaluation.batch_size=4", override]
    cfg = compose_run([*overrides[:2]], "evaluate")
    with pytest.raises(ConfigError, match="would have no effect"):
        of_finished_run(cfg, overrides)
    of_finished_run(cfg, overrides[:2])
