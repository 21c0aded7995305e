"""What is offered for a key or an option that there is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizewise.composition.compose import compose_run
from sizewise.config.suggest import WORDS, all_keys, did_you_mean, nearest_key
from sizewise.errors import ConfigError


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("lora.rank=8", "lora.r=…"),
        ("lr=1e-3", "optimizer.lr=…"),
        ("epochs=3", "trainer.max_epochs=…"),
        ("+epochs=3", "trainer.max_epochs=…"),
        ("trainer.num_train_epochs=3", "trainer.max_epochs=…"),
        ("max_epochs=3", "trainer.max_epochs=…"),
        ("dataset.max_lenght=3", "dataset.max_length=…"),
        ("generation.temprature=1", "generation.temperature=…"),
        ("per_device_train_batch_size=4", "trainer.batch_size=…"),
        ("load_in_4bit=true", "quantization=nf4"),
        ("datset=csv", "dataset=…"),
        ("model=qwen3", "model=qwen3_0_6b"),
        ("model=nanoo", "model=nano"),
        ("optimizer=adam", "optimizer=adamw"),
        ("metric=[icd10,lable]", "metric=label"),
    ],
)
def test_did_you_mean(typed: str, offered: str) -> None:
    with pytest.raises(ConfigError, match="Did you mean") as caught:
        compose_run([typed])
    assert f"Did you mean {offered}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_base_comes_with_the_next_step() -> None:
    with pytest.raises(ConfigError) as caught:
        compose_run(["model=gpt2"])
    said = str(caught.value)
    assert "model=OWNER/NAME" in said
    assert "model=local model.path=gpt2" in said
    assert "model=./FOLDER" in said


def test_options_of_the_folder_one_is_in_are_offered_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "conf" / "dataset" / "visits.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("name: visits")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="Did you mean dataset=visits") as caught:
        compose_run(["dataset=visit"])
    assert "sizewise init FILE" in str(caught.value)


def test_nothing_is_offered_where_nothing_is_near() -> None:
    assert did_you_mean("zebra") == ""


def test_every_word_of_the_field_leads_to_a_key_that_there_is() -> None:
    groups = {key.partition(".")[0] for key in all_keys()}
    known = {*all_keys(), *groups, "dataset.task"}
    assert {key.partition("=")[0] for key in WORDS} <= known


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("model.endpoint.prices.cache", "model.endpoint.prices.cached"),
        ("dataset.teaching.prompt", "dataset.teaching.prompts"),
        ("evaluation.batchsize", "evaluation.batch_size"),
        ("evaluation.server.baseurl", "evaluation.server.base_url"),
    ],
)
def test_a_slip_is_nearer_than_a_like_key_of_another_group(typed: str, meant: str) -> None:
    assert nearest_key(typed) == meant


@given(st.sampled_from(all_keys()), st.data())
def test_one_letter_too_few_still_finds_a_key_of_the_same_group(
    key: str, data: st.DataObject
) -> None:
    group, _, last = key.rpartition(".")
    if len(last) < 6:
        return
    gone = data.draw(st.integers(1, len(last) - 1))
    typed = f"{group}.{last[:gone]}{last[gone + 1 :]}".lstrip(".")
    if typed in all_keys():
        return
    found = nearest_key(typed)
    assert found is not None
    assert found.rpartition(".")[0] == group


def test_options_that_are_no_files_are_listed_too() -> None:
    with pytest.raises(ConfigError, match="Did you mean hydra/launcher=local") as caught:
        compose_run(["hydra/launcher=locall"])
    assert "basic" in str(caught.value)
