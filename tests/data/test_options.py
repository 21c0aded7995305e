"""Every option of the groups ``dataset`` and ``eval_dataset`` composes, and metrics follow it."""

from __future__ import annotations

import pytest

from sizewise.composition.compose import compose_run
from sizewise.config.register import conf_dir
from sizewise.data.splits.mixture import part_config
from sizewise.errors import ConfigError

OWN_FILE = ('dataset.prompt="{q}"', 'dataset.answer="{a}"', "dataset.source.path=x")
LOCAL = (
    "chat",
    "counsel_chat",
    "counsel_chat_filtered",
    "empathetic_turns",
    "medsynth_notes",
    "sqlite",
)
GENERIC = ("csv", "json", "jsonl", "parquet")


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def needed(name: str) -> list[str]:
    """Overrides without which an option is not complete."""
    if name in GENERIC:
        return list(OWN_FILE)
    return ["dataset.source.path=x"] if name in LOCAL else []


def test_all_named_data_sets_are_there() -> None:
    assert {
        "icd10_dialogues", "medsynth", "medsynth_notes", "counsel_chat", "counseling",
        "psychotherapy", "psychology", "empathetic_dialogues", "csv", "jsonl", "sqlite", "mixture",
    } <= set(options("dataset"))  # fmt: skip


@pytest.mark.parametrize("name", options("dataset"))
def test_option_composes_with_a_metric_that_gives_its_primary_score(name: str) -> None:
    run = compose_run([f"dataset={name}", *needed(name)])
    assert run.dataset.primary.split("/")[0] in run.metric
    assert "efficiency" in run.metric
    for key, part in run.dataset.parts.items():
        assert part_config(key, part).prompt


@pytest.mark.parametrize("name", options("eval_dataset"))
def test_test_sets_stand_beside_and_leave_the_metrics_alone(name: str) -> None:
    given = [o.replace("dataset.", f"eval_dataset.{name}.", 1) for o in needed(name)]
    run = compose_run(["dataset=psychology", f"eval_dataset=[{name}]", *given])
    assert list(run.eval_dataset) == [name]
    assert run.eval_dataset[name].split.test > 0
    assert list(run.metric) == ["perplexity", "efficiency"]


@pytest.mark.parametrize("name", GENERIC)
def test_a_users_own_file_has_to_be_named(name: str) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.source\.path"):
        compose_run([f"dataset={name}"])


def test_metrics_of_the_command_line_win() -> None:
    assert list(compose_run(["metric=[efficiency]"]).metric) == ["efficiency"]
    assert list(compose_run(["dataset=mixture", "metric=[icd10]"]).metric) == ["icd10"]


def test_the_embedded_prompt_is_the_one_the_ladder_was_made_for() -> None:
    from sizewise.embedded import dialogues

    assert compose_run().dataset.prompt == dialogues.PROMPT
