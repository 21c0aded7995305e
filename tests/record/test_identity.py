from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sweep.conftest import job_config

from sizewise.composition.compose import compose_run
from sizewise.config import to_run_config
from sizewise.record.identity import canonical_config, differing_keys, run_identity


def changed(path: str, value: object) -> dict[str, object]:
    config = job_config()
    *parents, last = path.split(".")
    node = config
    for key in parents:
        node = node[key]
    assert last in node
    node[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("optimizer.lr", 1e-3),
        ("lora.alpha", 7.0),
        ("trainer.max_steps", 12),
        ("trainer.devices", 2),
        ("seed", 3),
        ("dataset.max_train", 500),
        ("generation.temperature", 0.5),
        ("model.revision", "abc"),
    ],
)
def test_whatever_changes_the_result_changes_the_identity(path: str, value: object) -> None:
    assert run_identity(changed(path, value)).hash != run_identity(job_config()).hash


@pytest.mark.parametrize(
    ("key", "value"), [("r", 16), ("alpha", 3.0), ("dropout", 0.2), ("target", "attention")]
)
def test_options_of_an_adapter_name_no_run_without_one(key: str, value: object) -> None:
    full = job_config()
    full["lora"] |= {"method": "full", "alpha_ratio": 2.0, "dropout": 0.05}
    before = {**full, "lora": {**full["lora"]}}
    full["lora"][key] = value
    assert run_identity(full).slug == run_identity(before).slug
    assert run_identity(full).hash != run_identity(job_config()).hash
    named = canonical_config(before)["lora"]
    assert named == {key: before["lora"][key] for key in named}, "the name it always had"
    assert set(named) >= {"method", "r", "alpha", "alpha_ratio", "dropout", "target", "fast"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("paths.outputs", "elsewhere"),
        ("logger.backends", {"csv": {}}),
        ("sweep.name", "other"),
        ("sweep.arms", {"a": ["seed=1"]}),
        ("trainer.accelerator", "cpu"),
        ("trainer.num_threads", 3),
        ("trainer.progress_bar", False),
        ("trainer.checkpoint_every", 7),
        ("evaluation.retries", 9),
        ("evaluation.timed_answers", 0),
        ("model.license", "other words"),
    ],
)
def test_where_and_on_what_a_job_runs_does_not(path: str, value: object) -> None:
    assert run_identity(changed(path, value)) == run_identity(job_config())


def test_devices_and_nodes_count_by_their_product() -> None:
    two_nodes, two_devices = changed("trainer.num_nodes", 2), changed("trainer.devices", 2)
    assert run_identity(two_nodes).hash == run_identity(two_devices).hash


def test_jobs_without_training_are_one_whatever_the_grid_says() -> None:
    hashes = set()
    for rank, seed, rate in ((4, 1, 1e-3), (8, 2, 1e-4)):
        config = job_config(seed)
        config["lora"].update(method="none", r=rank)
        config["optimizer"]["lr"] = rate
        config["trainer"]["max_epochs"] = rank
        hashes.add(run_identity(config).hash)
    assert len(hashes) == 1


def test_random_weights_keep_their_seed() -> None:
    def of(seed: int) -> str:
        config = job_config(seed)
        config["lora"]["method"], config["model"]["init"] = "none", "random"
        return run_identity(config).hash

    assert of(1) != of(2)


def test_typed_and_plain_configurations_have_one_identity() -> None:
    config = job_config()
    assert run_identity(to_run_config(config)) == run_identity(config)


def test_a_run_that_is_scored_is_named_by_what_it_is(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "outcome.json").write_text(json.dumps({"identity": "same"}))
    config = {**job_config(), "stage": "evaluate"}
    hashes = {run_identity({**config, "run": str(tmp_path / n)}).hash for n in ("here", "there")}
    assert len(hashes) == 1
    assert run_identity({**config, "run": "org/other"}).hash not in hashes


@settings(max_examples=20, deadline=None)
@given(st.text(max_size=300), st.text(max_size=50))
def test_any_value_gives_a_flat_legal_name(name: str, dataset: str) -> None:
    config = job_config()
    config["model"]["name"], config["dataset"]["name"] = name, dataset
    slug = run_identity(config).slug
    assert len(os.fsencode(slug)) <= 120
    assert slug == Path(slug).name
    assert slug.isascii()
    assert not set(slug) & set("/,[]=' \"\\\n")


def test_long_values_that_differ_at_their_end_give_two_names() -> None:
    def slug(end: str) -> str:
        config = job_config()
        config["dataset"]["prompt"] = "a/b,[c]=" * 1500 + end
        return run_identity(config).slug

    assert slug("x") != slug("y")


def test_differing_keys_are_named_with_both_values() -> None:
    old, new = canonical_config(job_config()), canonical_config(changed("optimizer.lr", 0.5))
    assert differing_keys(old, new) == ["optimizer.lr: 0.0002 → 0.5"]


def test_a_finished_run_that_is_scored_again_is_named_after_itself(tmp_path: Path) -> None:
    (tmp_path / "outcome.json").write_text(json.dumps({"identity": "0123456789ab"}))
    config = {"model": {"name": "nano"}, "dataset": {"name": "icd10"}, "run": str(tmp_path)}
    found = run_identity(config)
    assert found.slug == f"evaluated_0123456789ab_{found.hash}"


# What was the default when these runs were named.
ASKED = (
    "evaluation.candidates=null", "evaluation.answer_validation=none", "dataset.strata=[chapter]",
)  # fmt: skip
OLD = (*ASKED, "lora.alpha_ratio=2.0", "lora.dropout=0.05")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("model=nano", *OLD, "optimizer.lr=1e-2"), "11f4e4c280c2"),
        (
            ("model=qwen3b", *OLD, "optimizer.lr=2e-4", "lora.r=16", "quantization=nf4",
             "trainer.max_steps=20"),
            "4ded4ec44d13",
        ),
        (
            ("model=gemma4b", "lora=dora", *OLD, "optimizer.lr=2e-4", "lora.target=attention",
             "seed=7"),
            "d84a3379d6f0",
        ),
        (("model=mini", "lora=full", *ASKED, "optimizer.lr=3e-3"), "1a9298c34e2f"),
        (("model=mini", "lora=none", *ASKED), "0685946b1d1e"),
    ],
)  # fmt: skip
def test_point_18_options_that_are_new_leave_the_names_of_runs_as_they_were(
    overrides: tuple[str, ...], expected: str
) -> None:
    assert run_identity(compose_run(overrides)).hash == expected


@pytest.mark.parametrize(
    "override",
    [
        "lora.layers_to_transform=[0]", "+lora.rank_pattern={q_proj:4}", "lora.target=[q_proj]",
        "+lora.alpha_pattern={q_proj:4}", "lora.modules_to_save=[lm_head]",
        "model.added_tokens=['<code>']",
    ],
)  # fmt: skip
def test_point_18_options_that_are_used_make_another_run(override: str) -> None:
    assert run_identity(compose_run(["model=nano", override])).hash != "11f4e4c280c2"


def test_point_21_a_list_of_targets_names_the_same_run_as_its_text() -> None:
    listed, typed = (["model=nano", o] for o in ("lora.target=[q_proj,v_proj]",
                                                 "lora.target='q_proj,v_proj'"))  # fmt: skip
    assert run_identity(compose_run(listed)) == run_identity(compose_run(typed))
    plain = job_config()
    plain["lora"]["target"] = ["q_proj", "v_proj"]
    text = changed("lora.target", "q_proj,v_proj")
    assert run_identity(plain).hash == run_identity(text).hash
