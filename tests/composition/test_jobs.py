from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import sizewise
from sizewise.commands.run import prepare
from sizewise.composition.compose import compose_config, compose_run, initialized
from sizewise.composition.jobs import JobComposer
from sizewise.config import conf_dir, to_run_config
from sizewise.errors import ConfigError
from sizewise.record.identity import plain_config

# In this order: what is composed later must not show what was composed before.
JOBS = [
    ["model=nano", "lora.r=3"],
    ["model=nano", "lora.r=4", "seed=7"],
    ["model=gemma4b", "lora=dora", "quantization=nf4", "lora.r=12"],
    ["model=qwen3b", "lora=rslora", "metric=[icd10,efficiency]"],
    ["debug=fast", "model=mini"],
    ["model=qwen3b", "lora=dora", "+model.template_kwargs.enable_thinking=false"],
    ["model=nano", "generation.max_new_tokens=3", "dataset.prompt='a, b=[{dialogue}]'"],
    ["model=nano", "lora.r=3"],
]

OWN_COLUMNS = ["dataset.prompt='{q}'", "dataset.answer='{a}'", "dataset.source.path=own.csv"]


@pytest.fixture(scope="module")
def composer() -> Iterator[JobComposer]:
    prepare()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield JobComposer(GlobalHydra.instance().config_loader(), "train", [])  # type: ignore[arg-type]


def test_every_job_is_composed_as_hydra_composes_it(composer: JobComposer) -> None:
    for overrides in JOBS:
        expected = plain_config(compose("train", overrides=overrides))
        assert composer.compose(overrides) == expected, overrides


@pytest.mark.parametrize(
    "rest", [[], ["debug=fast"], ["experiment=therapy_gemma4b"], ["dataset=csv"]]
)
def test_groups_that_are_replaced_give_what_hydra_gives(rest: list[str]) -> None:
    """Whatever was composed before them, and whatever fills their group besides the option."""
    draw = random.Random(len(str(rest)))
    groups = ("model", "lora", "optimizer", "scheduler", "generation", "logger", "quantization")
    names = {
        group: sorted(path.stem for path in (conf_dir() / group).glob("*.yaml")) for group in groups
    }
    for _ in range(4):
        own = [f"{group}={draw.choice(names[group])}" for group in groups if draw.random() < 0.5]
        overrides = [*own, *rest, "metric=[label,efficiency]", "model.path=a/b", *OWN_COLUMNS]
        draw.shuffle(overrides)
        with initialized(overrides):
            expected = plain_config(compose("train", overrides=overrides))
        assert compose_config(overrides) == expected, overrides


def test_the_quick_conversion_equals_the_thorough_one(composer: JobComposer) -> None:
    config = composer.compose(["model=gemma4b", "lora.r=5"])
    assert asdict(to_run_config(config, check_types=False)) == asdict(to_run_config(config))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model=nope", "model/nope"),
        ("lora.rank=3", "lora.rank"),
        ("lora.r=abc", "lora.r"),
        ("lora.r=[", "lora.r=["),
    ],
)
def test_a_wrong_override_is_named(composer: JobComposer, override: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        composer.compose([override])
    assert said in str(error.value)


def test_a_wrong_value_does_not_stay(composer: JobComposer) -> None:
    with pytest.raises(ConfigError):
        composer.compose(["seed=3", "lora.r=abc"])
    config = composer.compose([])
    assert (config["seed"], config["lora"]["r"]) == (42, 8)


def test_an_unknown_key_of_a_plain_configuration_is_named(composer: JobComposer) -> None:
    config = composer.compose([])
    config["lora"]["rank"] = 3
    with pytest.raises(ConfigError, match=r"lora\.rank is no option.*lora\.r="):
        to_run_config(config, check_types=False)


def test_what_hydra_and_omegaconf_do_not_publish_is_still_there() -> None:
    """The canary of ``composition/jobs.py``, the one file that may use these names."""
    assert {
        "_apply_overrides_to_config",
        "_load_single_config",
        "_parse_overrides_and_create_caching_repo",
        "load_configuration",
    } <= set(dir(ConfigLoaderImpl))
    config = OmegaConf.create({"a": {"b": 1}})
    assert set(config.__dict__["_content"]) == {"a"}
    assert config._get_node("a") is config.a
    assert callable(config.a._set_parent)
    root = Path(sizewise.__file__).parent
    private = ("hydra._internal", '__dict__["_content"]', "._get_node(", "._set_parent(")
    users = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if any(name in path.read_text(encoding="utf-8") for name in private)
    }
    assert users == {"composition/jobs.py"}


def test_threads_compose_one_after_the_other() -> None:
    entered = threading.Event()

    def other() -> None:
        with initialized([]):
            entered.set()

    thread = threading.Thread(target=other)
    with initialized([]):
        assert compose_config(["model=nano"])["model"]["name"] == "nano", "one within the other"
        thread.start()
        assert not entered.wait(0.5)
    assert entered.wait(20)
    thread.join()


def test_composing_again_gives_what_hydra_gives() -> None:
    expected = {}
    for overrides in [*JOBS, *JOBS, ["model=nano", "hydra.launcher.n_jobs=3"]]:
        if (key := tuple(overrides)) not in expected:
            with initialized(overrides):
                expected[key] = plain_config(compose("train", overrides=overrides))
        assert compose_config(overrides) == expected[key], overrides
        assert asdict(compose_run(overrides)) == asdict(to_run_config(expected[key])), overrides


def test_a_file_of_options_that_changes_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it comes later, goes, or lies in another folder that is then the working one."""
    (tmp_path / "conf" / "lora").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "conf" / "lora" / "own.yaml"
    with pytest.raises(ConfigError, match="lora/own"):
        compose_config(["lora=own"])
    for rank in (3, 5, 7):
        own.write_text(f"defaults: [all_linear]\nr: {rank}\n")
        assert compose_run(["lora=own"]).lora.r == rank
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(ConfigError, match="lora/own"):
        compose_config(["lora=own"])
    monkeypatch.chdir(tmp_path)
    assert compose_run(["lora=own"]).lora.r == 7
    own.unlink()
    with pytest.raises(ConfigError, match="lora/own"):
        compose_config(["lora=own"])


def test_a_stored_option_that_changes_is_read_again() -> None:
    store = ConfigStore.instance()
    for rank in (3, 5):
        node = OmegaConf.create({"defaults": ["all_linear"], "r": rank})
        store.store(name="stored_here", node=node, group="lora")
        assert compose_run(["lora=stored_here"]).lora.r == rank
    del store.repo["lora"]["stored_here.yaml"]
    with pytest.raises(ConfigError, match="lora/stored_here"):
        compose_config(["lora=stored_here"])


def test_a_grid_is_no_job() -> None:
    for override in ("lora.r=2,4", "model=nano,micro", "lora.r=choice(2,4)"):
        with pytest.raises(ConfigError, match=r"lora\.r|model"):
            compose_config([override])


def test_what_a_composed_job_is_changed_to_stays_with_it() -> None:
    config = compose_config(["model=nano"])
    config["lora"]["r"], config["dataset"]["source"]["kind"] = 99, "y"
    again = compose_config(["model=nano"])
    assert again["dataset"]["source"]["kind"] != "y"
    assert again["lora"]["r"] == 8


def test_options_that_choose_others_are_composed_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another option, or by the environment: what was composed before does not say."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "conf" / "experiment"
    linked = "# @package _global_\ndefaults:\n  - override /{}: {}\n"
    (own / "linked.yaml").write_text(linked.format("lora", "${quantization}"))
    (own / "here.yaml").write_text(linked.format("model", "${oc.env:MODEL_HERE}"))
    for quantization in ("none", "nf4", "none"):
        (tmp_path / "conf" / "lora").mkdir(exist_ok=True)
        (tmp_path / "conf" / "lora" / "nf4.yaml").write_text("defaults: [all_linear]\nr: 3\n")
        cfg = compose_run(["experiment=linked", f"quantization={quantization}"])
        assert cfg.lora.trains is (quantization == "nf4")
    for model in ("nano", "mini"):
        monkeypatch.setenv("MODEL_HERE", model)
        assert compose_run(["experiment=here"]).model.name == model


def test_what_is_no_option_does_not_matter_and_what_lies_behind_a_link_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor's lock is a link to nothing; folders may be links, also to themselves."""
    folder, elsewhere = tmp_path / "conf", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "lora").symlink_to(elsewhere)
    (folder / "again").symlink_to(folder)
    (folder / ".#own.yaml").symlink_to("somebody@somewhere.1")
    monkeypatch.chdir(tmp_path)
    for rank in (3, 5):
        (elsewhere / "own.yaml").write_text(f"defaults: [all_linear]\nr: {rank}\n")
        assert compose_run(["lora=own"]).lora.r == rank
