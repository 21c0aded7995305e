"""A base that is named directly on the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given
from hypothesis import strategies as st

from sizewise.composition.compose import compose_run
from sizewise.composition.shorthand import shell_text, spelt_out
from sizewise.errors import ConfigError


def test_a_hub_id_is_a_base_and_names_itself() -> None:
    model = compose_run(["model=Org/Some-Model.1-7B"]).model
    assert (model.path, model.name) == ("Org/Some-Model.1-7B", "Some-Model.1-7B")


@pytest.mark.parametrize("quoted", [False, True])
def test_a_folder_is_a_base(tmp_path: Path, quoted: bool) -> None:
    folder = tmp_path / "my model" if quoted else tmp_path / "my_model"
    folder.mkdir()
    text = f"model='{folder}'" if quoted else f"model={folder}"
    model = compose_run([text]).model
    assert (model.path, model.name) == (str(folder), folder.name.replace(" ", "-"))


def test_a_name_that_is_given_stays() -> None:
    assert compose_run(["model=org/name", "model.name=mine"]).model.name == "mine"


@pytest.mark.parametrize("text", ["model=nano", "model=nano,mini", "model.path=a/b", "dataset=a/b"])
def test_everything_else_stays_as_it_is(text: str) -> None:
    assert spelt_out([text]) == [text]


@pytest.mark.parametrize("option", ["mine", "team/mine"])
def test_an_option_of_ones_own_is_no_folder_and_no_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / option).mkdir(parents=True)
    own = tmp_path / "conf" / "model" / f"{option}.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("name: mine")
    assert spelt_out([f"model={option}"]) == [f"model={option}"]


def test_what_is_neither_option_nor_place_still_gets_the_list_of_options() -> None:
    with pytest.raises(ConfigError, match="nano"):
        compose_run(["model=nanoo"])


@pytest.mark.parametrize("kind", ["classification", "codes", "text", "chat"])
def test_a_kind_of_task_stands_for_metrics_score_and_direction(kind: str) -> None:
    own = ["dataset=jsonl", "dataset.source.path=f"]
    columns = [] if kind == "chat" else ["dataset.prompt='{q}'", "dataset.answer='{a}'"]
    cfg = compose_run([*own, *columns, f"dataset.task={kind}"])
    metric, _, _ = cfg.dataset.primary.partition("/")
    assert metric in cfg.metric
    assert cfg.dataset.direction == "max"
    assert metric != "perplexity"  # which decides nothing between tuned and untouched models
    assert (cfg.dataset.conversation == "auto") == (kind == "chat")


def test_what_is_said_beside_a_task_goes_before_it() -> None:
    said = ["dataset.primary=label/lenient_match", "dataset.task=classification"]
    assert compose_run(said).dataset.primary == "label/lenient_match"
    assert spelt_out([*said, "metric=[label]"]).count("metric=[label]") == 1


def test_an_unknown_task_names_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"dataset.task='regression'.*classification, codes"):
        compose_run(["dataset.task=regression"])


def test_bases_of_a_question_are_one_list_and_no_grid() -> None:
    given = "sweep.specialised=nano,Qwen/Qwen3-0.6B"
    assert spelt_out([given]) == ["sweep.specialised=[nano,Qwen/Qwen3-0.6B]"]
    assert spelt_out(["sweep.general=mini"]) == ["sweep.general=mini"]


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=40))
def test_a_text_survives_the_shell_and_hydra(text: str) -> None:
    assume("${" not in text)
    value = f"{{question}}\n\n{text}"
    typed = shlex_ansi(shell_text("dataset.prompt", value))
    parsed = OverridesParser.create().parse_override(typed)
    assert str(parsed.value()) == value


def shlex_ansi(word: str) -> str:
    """Read $'…' as bash does."""
    assert word.startswith("$'")
    assert word.endswith("'")
    return re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], word[2:-1], flags=re.DOTALL)
