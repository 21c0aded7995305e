from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sizewise.composition.compose import compose_run
from sizewise.config.data import DatasetConfig, SourceConfig, SplitConfig
from sizewise.data.example import DataReport, DataSplits
from sizewise.job.data import Task, load_splits, shared_questions


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


def mixture_of(**parts: dict[str, Any]) -> str:
    plain = {"name": "p", "source": {"kind": "csv", "path": "x"}, "prompt": "{q}", "answer": "{a}"}
    whole = {name: {**plain, "primary": "x/y", **part} for name, part in parts.items()}
    return prompt_fingerprint(prompt="", answer="", parts=whole)


@pytest.mark.parametrize(
    "changed",
    [{"prompt": "Solve: {q}"}, {"system": "Be brief."}, {"few_shot": 2}, {"history": "h"}],
)
def test_the_wording_of_a_part_is_that_of_its_mixture(changed: dict[str, Any]) -> None:
    assert mixture_of(one={}, two=changed) != mixture_of(one={}, two={})


def test_the_limits_of_a_part_are_not_its_wording() -> None:
    """Its answers are cut by the mixture's bound, and by no other."""
    assert mixture_of(one={"max_length": 99, "max_train": 3}) == mixture_of(one={})


@pytest.mark.parametrize(
    "changed",
    [
        {"history": "turns"},
        {"conversation": "turns"},
        {"conversation": "turns", "train_on": "last"},
    ],
)
def test_earlier_turns_are_another_prompt(changed: dict[str, Any]) -> None:
    before = {"conversation": "turns"} if "train_on" in changed else {}
    assert prompt_fingerprint(**changed) != prompt_fingerprint(**before)


@pytest.mark.parametrize("few_shot", [0, 2])
@pytest.mark.parametrize("style", ["turns", "text"])
@pytest.mark.parametrize("prompt", ["{q}", "Please: {q}"])
def test_questions_that_occur_in_training_are_said_behind_demonstrations_and_other_words(
    tmp_path: Path, few_shot: int, style: str, prompt: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"q": f"Why {i}?", "a": f"So {i}."}) for i in range(60)))
    own = DatasetConfig(
        name="own", source=SourceConfig("json", str(path)), prompt=prompt, answer="{a}",
        few_shot=few_shot, few_shot_style=style, primary="x/y",
    )  # fmt: skip
    all_of_it = SplitConfig(validation=0.0, test=1.0)
    further = replace(own, name="further", prompt="{q}", few_shot=0, split=all_of_it)
    tasks = [Task(cfg, load_splits(cfg), {}) for cfg in (own, further)]
    trained = len(tasks[0].splits.train)
    assert trained == 48 - few_shot
    assert shared_questions(tasks) == [f"{trained} of 60 questions of further occur in training."]
