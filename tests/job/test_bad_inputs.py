"""Every bad input ends in one message before a weight is loaded (``bad_cases``, ``bad_files``)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from sizewise.commands.run import prepare
from sizewise.composition.inputs import pinned
from sizewise.composition.jobs import JobComposer
from sizewise.config import conf_dir, to_run_config
from sizewise.errors import SizewiseError
from sizewise.job import baseline, language_model
from sizewise.job.run import run_job

from . import bad_cases
from .bad_cases import Case
from .bad_files import TABLES, write_bad_files

BASE = {
    "model": "nano",
    "logger": "none",
    "callbacks": "none",
    "metric": "[label,perplexity]",
    "dataset": "csv",
    "dataset.source.path": "'{d}/good.csv'",
    "dataset.prompt": "'{{text}}'",
    "dataset.answer": "'{{label}}'",
    "dataset.primary": "label/exact_match",
    "dataset.direction": "max",
    "dataset.max_length": "64",
    "generation.max_new_tokens": "4",
    "trainer.progress_bar": "false",
    "trainer.accelerator": "cpu",
    "paths.cache": "'{d}/cache'",
}
OWN = ("dataset.source.path", "dataset.prompt", "dataset.answer")
MOST = 1100  # characters of a message, paths included: transformers' own are the longest


class LoadedError(Exception):
    """A weight would have been loaded."""


def make_composer() -> JobComposer:
    prepare()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return JobComposer(GlobalHydra.instance().config_loader(), "train", [])  # type: ignore[arg-type]


def begin(composer: JobComposer, folder: Path, overrides: tuple[str, ...], run_dir: Path) -> None:
    """Compose, pin and run a job, as ``sizewise train`` and the jobs of a sweep do."""
    given = {text.partition("=")[0].lstrip("+~") for text in overrides}
    left_out = {*given, *(OWN if "dataset" in given else ())}
    texts = [f"{key}={value}" for key, value in BASE.items() if key not in left_out]
    config = composer.compose([text.format(d=folder) for text in (*texts, *overrides)])
    run_job(to_run_config(pinned(config), check_types=False), run_dir)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bad")
    write_bad_files(made)
    return made


@pytest.fixture(scope="module")
def composer() -> Iterator[JobComposer]:
    yield make_composer()
    GlobalHydra.instance().clear()


@pytest.fixture
def start(
    composer: JobComposer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    def load(*args: Any, **more: Any) -> None:
        raise LoadedError

    monkeypatch.setattr(language_model, "take_base", load)
    monkeypatch.setattr(baseline, "fit", load)
    monkeypatch.chdir(tmp_path)
    return lambda *overrides: begin(composer, folder, overrides, tmp_path / "run")


def refused(start: Callable[..., None], case: Case) -> None:
    said, *overrides = case
    with pytest.raises(SizewiseError) as error:
        start(*overrides)
    message = str(error.value)
    assert said in message
    assert "Traceback" not in message
    assert len(message) < MOST


def named(cases: list[Case]) -> Any:
    """Run a test with every case, under the overrides that make it."""
    marks = [
        pytest.param(case, id=" ".join(case[1:]).encode("unicode_escape").decode())
        for case in cases
    ]
    return pytest.mark.parametrize("case", marks)


def test_there_are_at_least_two_hundred_bad_inputs_of_our_own() -> None:
    groups = (bad_cases.UNKNOWN, bad_cases.KINDS, bad_cases.CHOICES, bad_cases.BASES)
    every = {case[1:] for cases in (*groups, TABLES) for case in cases}
    assert len(every) >= 200


def test_the_good_input_beside_them_gets_as_far_as_the_weights(start: Callable[..., None]) -> None:
    with pytest.raises(LoadedError):
        start()
    with pytest.raises(LoadedError):
        start("model=tfidf_logreg", "lora=none", "metric=[label]")


@named(bad_cases.UNKNOWN)
def test_what_does_not_exist_is_named(start: Callable[..., None], case: Case) -> None:
    refused(start, case)


@named(bad_cases.KINDS)
def test_a_value_of_another_kind_or_out_of_range_is_refused(
    start: Callable[..., None], case: Case
) -> None:
    refused(start, case)


@named(bad_cases.CHOICES)
def test_choices_that_cannot_work_are_refused_before_weights(
    start: Callable[..., None], case: Case
) -> None:
    refused(start, case)


@named(bad_cases.BASES)
def test_damaged_models_tokenizers_templates_and_adapters_are_refused_before_weights(
    start: Callable[..., None], case: Case
) -> None:
    refused(start, case)


@named(TABLES)
def test_files_and_columns_that_give_no_data_are_refused_before_weights(
    start: Callable[..., None], case: Case
) -> None:
    refused(start, case)


LIGHT = """
import atexit, sys
large = {"torch", "transformers", "peft", "pyarrow", "sklearn"}
atexit.register(lambda: print("imported:", *sorted(large & set(sys.modules))))
from sizewise.commands.main import app
sys.argv = ["sizewise", "train", *sys.argv[1:]]
app()
"""


@pytest.mark.parametrize(
    ("said", "overrides"),
    [
        ("model.path='/no/such/folder'", ["model=local", "model.path=/no/such/folder"]),
        (
            "dataset.source.path='/no/such.csv': no such file",
            ["dataset=csv", "dataset.source.path=/no/such.csv", "dataset.prompt='{a}'",
             "dataset.answer='{b}'"],
        ),
        ("optimizer/none_such", ["optimizer=none_such"]),
        ("metric/none_such", ["metric=[none_such]"]),
        ("seed=-1 is too small", ["seed=-1"]),
        ("job 2 (seed=-1 ", ["-m", "seed=1,-1"]),
    ],
)  # fmt: skip
def test_what_can_be_told_without_the_large_libraries_is_refused_before_they_are_imported(
    tmp_path: Path, said: str, overrides: list[str]
) -> None:
    command = [sys.executable, "-c", LIGHT, *overrides, f"paths.outputs={tmp_path}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (result.returncode, result.stdout.splitlines()[-1]) == (1, "imported:")
    assert said in result.stderr
    assert "Traceback" not in result.stderr
