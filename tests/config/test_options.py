from __future__ import annotations

from pathlib import Path

import pytest
from hydra.utils import instantiate

from sizewise.composition.compose import compose_run
from sizewise.config import RunConfig, conf_dir
from sizewise.errors import ConfigError
from sizewise.metrics.base import build_metrics

GROUPS = (
    "model", "dataset", "lora", "quantization", "metric", "generation", "optimizer", "scheduler",
    "trainer", "callbacks", "logger", "eval_dataset", "debug", "experiment",
)  # fmt: skip
LISTS = ("metric", "callbacks", "logger", "eval_dataset")
OPTIONS = [(g, p.stem) for g in GROUPS for p in sorted((conf_dir() / g).glob("*.yaml"))]
REQUIRED = {
    "csv": {"source.path": "rows.csv", "prompt": "{q}", "answer": "{a}"},
    "json": {"source.path": "rows.json", "prompt": "{q}", "answer": "{a}"},
    "jsonl": {"source.path": "rows.jsonl", "prompt": "{q}", "answer": "{a}"},
    "parquet": {"source.path": "rows.parquet", "prompt": "{q}", "answer": "{a}"},
    "sqlite": {"source.path": "rows.db", "source.table": "t", "prompt": "{q}", "answer": "{a}"},
    "chat": {"source.path": "rows.jsonl"},
    "counsel_chat": {"source.path": "rows.csv"},
    "counsel_chat_filtered": {"source.path": "rows.csv"},
    "empathetic_turns": {"source.path": "rows.jsonl"},
    "medsynth_notes": {"source.path": "rows.jsonl"},
    "bertscore": {"encoder": "some/encoder"},
    "similarity": {"encoder": "some/encoder"},
    "judge": {"models": "mini"},
}


def overrides(group: str, option: str) -> list[str]:
    chosen = [f"{group}=[{option}]" if group in LISTS else f"{group}={option}"]
    if group == "model" and option in ("local", "encoder", "endpoint"):
        chosen.append("model.path=some/folder")
    if group in ("dataset", "eval_dataset", "metric"):
        prefix = "dataset" if group == "dataset" else f"{group}.{option}"
        values = REQUIRED.get(option, {}).items()
        chosen += [f"{prefix}.{key}='{value}'" for key, value in values]
    return chosen


def test_every_group_has_options():
    found = {group for group, _ in OPTIONS}
    assert found >= set(GROUPS) - {"experiment"}
    assert len(OPTIONS) >= 60


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{g}={o}" for g, o in OPTIONS])
def test_every_option_composes_and_instantiates(group, option):
    cfg = compose_run(overrides(group, option))
    assert isinstance(cfg, RunConfig)
    built = build_metrics(cfg.metric)
    assert [metric.name for metric in built]
    for node in (*cfg.callbacks.values(), *cfg.logger.backends.values()):
        assert instantiate(node, _convert_="all") is not None


@pytest.mark.parametrize("name", ["gemma4b", "qwen3b", "gemma2b", "gemma2_2b", "phi3mini",
                                  "llama3b", "llama8b", "mistral7b"])  # fmt: skip
def test_the_published_models_carry_figures(name):
    model = compose_run([f"model={name}"]).model
    assert model.architecture is not None
    assert model.architecture.hidden_size >= 1024
    assert "/" in model.path


def test_metrics_of_the_data_set_are_chosen_and_the_command_line_wins():
    assert "icd10" in compose_run(["dataset=icd10_dialogues"]).metric
    assert "icd10" not in compose_run(["dataset=counseling"]).metric
    assert set(compose_run(["dataset=icd10_dialogues", "metric=[perplexity]"]).metric) == {
        "perplexity"
    }


def test_an_unknown_option_names_the_known_ones():
    with pytest.raises(ConfigError, match="gemma4b"):
        compose_run(["model=gemma5b"])


def test_an_unknown_key_is_named():
    with pytest.raises(ConfigError, match="ranks"):
        compose_run(["lora.ranks=4"])


def test_the_committed_reference_is_up_to_date():
    from tools.option_reference import render_reference

    page = Path(__file__).resolve().parents[2] / "docs" / "options.md"
    assert page.read_text(encoding="utf-8") == render_reference(), "run `make docs`"
