"""An honest run is verified, whichever of the shipped metrics it chose."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.report.real_run import real_run

from sizewise.config import conf_dir
from sizewise.config.targets import recorded_config
from sizewise.data.example import DataSplits
from sizewise.evaluation.predict import Predicted
from sizewise.evaluation.score import score_predicted
from sizewise.job.data import load_splits
from sizewise.metrics.base import build_metrics
from sizewise.metrics.similarity import STAND_IN
from sizewise.models.sources import embedded_model_path
from sizewise.record.identity import run_identity
from sizewise.record.outcome import Evaluation, file_ref, read_outcome, write_outcome
from sizewise.record.predictions import Prediction, PredictionStore, read_predictions
from sizewise.verify import FAILED, OK, UNCHECKED
from sizewise.verify.verify import verify_run

OPTIONS = sorted((conf_dir() / "metric").glob("*.yaml"))
NAME = "icd10_dialogues"
REJECTED = {"rejected/log_prob": -2.0, "rejected/tokens": 2.0}
JUDGED = {"judged/mini/first": 1.0, "judged/mini/second": 0.0, "judged/mini/unread": 0.0}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_run(tmp_path_factory.mktemp("plain"))


def node_of(option: Path) -> dict[str, Any]:
    """The node of an option; encoders and judges are ones that need no download."""
    nodes: dict[str, Any] = yaml.safe_load(option.read_text(encoding="utf-8"))
    ((name, node),) = nodes.items()
    if "encoder" in node:
        node["encoder"] = STAND_IN if name == "similarity" else str(embedded_model_path("nano"))
    if "models" in node:
        node["models"] = "mini"
    return {name: node}


def scored_by_the_run(plain: Path, root: Path, nodes: dict[str, Any]) -> Path:
    """A run with these metrics: base and tuned answers scored as a job scores them."""
    directory = root / "run"
    shutil.copytree(plain, directory)
    outcome = read_outcome(directory)
    splits = load_splits(recorded_config(outcome.config).dataset)
    base, answers = score(directory, outcome.base[NAME], nodes, splits, ())
    tuned, _ = score(directory, (outcome.tuned or {})[NAME], nodes, splits, answers)
    config = {**outcome.config, "metric": nodes}
    (directory / "config.yaml").write_text(json.dumps(config))
    changed = replace(
        outcome,
        config=config,
        identity=run_identity(config).hash,
        base={NAME: base},
        tuned={NAME: tuned},
        files={**outcome.files, "config": file_ref(directory / "config.yaml", directory)},
    )
    write_outcome(changed, directory)
    return directory


def score(
    directory: Path,
    evaluation: Evaluation,
    nodes: dict[str, Any],
    splits: DataSplits,
    base: tuple[Prediction, ...],
) -> tuple[Evaluation, tuple[Prediction, ...]]:
    path = directory / evaluation.predictions.path
    rows = tuple(
        replace(p, scores=REJECTED | JUDGED, candidate=p.text, candidate_probability=0.5)
        for p in read_predictions(path)
    )
    path.unlink()
    metrics = build_metrics(nodes)
    observed = {f"{m.name}/bits_per_byte": 1.25 for m in metrics if m.observation}
    predicted = Predicted(rows, 1.0, None, 1, observed=observed)
    store = PredictionStore(path, "key")
    done = score_predicted(predicted, splits.test, metrics, store, splits.train, base=base)
    ref = file_ref(path, directory)
    return replace(evaluation, scores=done.scores, predictions=ref), done.predictions


def test_there_are_shipped_metrics_to_verify() -> None:
    assert len(OPTIONS) >= 17
    assert {"tfidf", "forgetting"} <= {option.stem for option in OPTIONS}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda path: path.stem)
def test_an_honest_run_with_any_shipped_metric_is_verified(
    option: Path, plain: Path, tmp_path: Path
) -> None:
    nodes = node_of(option)
    result = verify_run(scored_by_the_run(plain, tmp_path, nodes))
    assert [f"{c.name}: {c.detail}" for c in result.checks if c.status == FAILED] == []
    found = {c.name: c for c in result.checks if "metric " in c.name}
    observed = "forgetting" in nodes
    assert {c.status for c in found.values()} == {UNCHECKED if observed else OK}
    assert len(found) == 2
    if observed:
        assert all("measured of the model itself" in c.detail for c in found.values())


def test_a_changed_comparison_with_the_base_is_found(plain: Path, tmp_path: Path) -> None:
    directory = scored_by_the_run(plain, tmp_path, node_of(conf_dir() / "metric" / "tfidf.yaml"))
    outcome = read_outcome(directory)
    tuned = (outcome.tuned or {})[NAME]
    assert "tfidf/base_cosine" in tuned.scores
    changed = replace(tuned, scores={**tuned.scores, "tfidf/base_cosine": 0.125})
    write_outcome(replace(outcome, tuned={NAME: changed}), directory)
    (only,) = [c for c in verify_run(directory).checks if c.status == FAILED]
    assert only.name == f"tuned on {NAME}: metric tfidf"
    assert "tfidf/base_cosine is reported as 0.125" in only.detail


def test_a_score_that_no_metric_of_the_run_observes_is_found(plain: Path, tmp_path: Path) -> None:
    directory = scored_by_the_run(plain, tmp_path, node_of(conf_dir() / "metric" / "length.yaml"))
    outcome = read_outcome(directory)
    made_up = replace(outcome.base[NAME], scores={**outcome.base[NAME].scores, "length/x": 1.0})
    write_outcome(replace(outcome, base={NAME: made_up}), directory)
    (only,) = [c for c in verify_run(directory).checks if c.status == FAILED]
    assert "length/x is not computable" in only.detail
