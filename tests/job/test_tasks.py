from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sizewise.config.compose import compose_run
from sizewise.data.example import DataReport, DataSplits
from sizewise.job.tasks import Task


def prompt_fingerprint(**changed: Any) -> str:
    config = replace(compose_run().dataset, **changed)
    nothing = DataSplits((), (), (), DataReport(0, {}, 0, 0, 0, 0.0))
    return Task(config, nothing, {}).prompt_fingerprint


@pytest.mark.parametrize(
    "changed",
    [
        {"system": "Be brief."},
        {"few_shot": 3},
        {"few_shot": 3, "few_shot_style": "text"},
        {"truncate_prompt": True},
        {"clean_whitespace": True},
    ],
)
def test_whatever_a_model_reads_otherwise_is_another_prompt(changed: dict[str, Any]) -> None:
    turns = {"few_shot": 3} if "few_shot_style" in changed else {}
    assert prompt_fingerprint(**changed) != prompt_fingerprint(**turns)


def test_a_style_without_demonstrations_is_the_same_prompt() -> None:
    assert prompt_fingerprint(few_shot_style="text") == prompt_fingerprint()
