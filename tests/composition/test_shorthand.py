"""A base that is named directly on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sizewise.composition.compose import compose_run
from sizewise.composition.shorthand import spelt_out
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


def test_what_is_neither_option_nor_place_still_gets_the_list_of_options() -> None:
    with pytest.raises(ConfigError, match="nano"):
        compose_run(["model=nanoo"])
