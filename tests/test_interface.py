"""sizewise from Python: the runs of the commands, errors that are errors, nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hypothesis import given
from hypothesis import strategies as st
from tests.report.factory import PARAMS, Spec, Task, make_sweep
from tests.sweep.conftest import TESTS

import sizewise
from sizewise.composition.compose import compose_config, override_of
from sizewise.runtime import guest, prepare_environment, quiet

SMALL: dict[str, Any] = {
    "model": "nano", "lora.r": 4, "logger": "none", "callbacks": "none", "dataset.max_train": 24,
    "dataset.max_validation": 8, "dataset.max_test": 8, "trainer.max_steps": 2,
    "trainer.progress_bar": False, "generation.max_new_tokens": 8,
}  # fmt: skip
FAKE = ["hydra.sweeper.job=sweep.fake:job", "hydra.sweeper.finish=null", "sweep.baselines=false"]


def test_import_sizewise_is_light_and_names_what_there_is() -> None:
    heavy = "{'hydra', 'omegaconf', 'torch', 'pandas', 'numpy', 'yaml'}"
    code = f"import sys, sizewise; print({heavy} & set(sys.modules), *dir(sizewise))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("set() ")
    assert {"run", "sweep", "compare", "SizewiseError"} <= set(done.stdout.split())
    assert not hasattr(sizewise, "nothing_of_this_name")


def test_sweep_can_be_called_whatever_was_imported_before() -> None:
    code = "import sizewise; {}; print(callable(sizewise.sweep), sizewise.sweep.__name__)"
    for before in ("pass", "import sizewise.sweep.grid", "from sizewise import sweep"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(before)], capture_output=True, text=True, check=True
        )
        assert done.stdout == "True sizewise.sweep\n"


def traces() -> dict[str, Any]:
    """What a call could leave behind in the process."""
    known = [
        n for n, v in logging.Logger.manager.loggerDict.items() if isinstance(v, logging.Logger)
    ]
    return {
        "environment": dict(os.environ),
        "handlers": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)],
        "loggers": {name: logging.getLogger(name).level for name in known},
        "root": (logging.getLogger().level, list(logging.getLogger().handlers)),
        "warnings": list(warnings.filters),
        "hydra": (GlobalHydra.instance().hydra, HydraConfig.instance().cfg),
        "random": (random.getstate(), torch.get_rng_state().tolist()),
        "numpy": np.random.get_state()[1].tolist(),
        "path": list(sys.path),
        "arguments": list(sys.argv),
        "threads": torch.get_num_threads(),
    }


def test_a_run_from_python_twice_in_one_process_inside_of_an_event_loop(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "a"

    async def cell() -> list[sizewise.RunResult]:
        cache = [f"paths.cache='{tmp_path}'"]
        return [sizewise.run(SMALL, dir=where, overrides=cache) for where in (place, str(place))]

    before = traces()
    first, second = asyncio.run(cell())
    after = traces()
    new = after["loggers"].keys() - before["loggers"].keys()
    after["loggers"] = {n: v for n, v in after["loggers"].items() if n not in new}
    for name, value in before.items():
        assert after[name] == value, name
    assert first.directory == place
    assert (place / "outcome.json").is_file()
    assert first.outcome.summary in (place / "job.log").read_text()
    assert first.outcome == second.outcome
    assert first.objective == first.outcome.objective
    assert first.outcome.config["lora"]["r"] == 4
    see_the_frames_of_a_run(first)


def see_the_frames_of_a_run(result: sizewise.RunResult) -> None:
    primary = result.outcome.primary
    assert list(result.table["kind"].unique()) != []
    assert set(result.table["label"]) == {"nano zero-shot", "nano LoRA r=4"}
    (row,) = result.runs.to_dict("records")
    assert row["seed"] == 42
    answers = result.predictions
    assert answers.groupby("side").size().to_dict() == {"zero_shot": 8, "tuned": 8}
    assert {"id", "prompt", "reference", "text", "latency", primary} <= set(answers.columns)
    mean = answers[answers["side"] == "tuned"][primary].mean()
    assert mean == pytest.approx(result.scores[primary])
    assert result.verdict.startswith("Open. ")
    assert any("Only 8 test examples" in line for line in result.objections)
    assert "nano LoRA r=4" in repr(result)


def test_what_is_wrong_is_a_sizewise_error_and_no_exit(tmp_path: Path) -> None:
    with pytest.raises(sizewise.SizewiseError, match=r"Did you mean lora\.r="):
        sizewise.run({"lora.rank": 3}, dir=tmp_path / "x")
    with pytest.raises(sizewise.SizewiseError, match=r"lora\.r=0 is too small"):
        sizewise.run({"lora.r": 0}, dir=tmp_path / "x")
    with pytest.raises(sizewise.SizewiseError, match=r"\['model=nano'\]"):
        sizewise.run("model=nano")
    with pytest.raises(sizewise.SizewiseError, match=r"lora\.r=0 is too small"):
        sizewise.sweep({"lora.r": [0, 4]}, dir=tmp_path / "x")
    with pytest.raises(sizewise.SizewiseError, match="needs directories"):
        sizewise.compare()
    with pytest.raises(sizewise.SizewiseError, match="no finished run"):
        sizewise.compare(tmp_path)
    with pytest.raises(sizewise.SizewiseError, match="no directory"):
        sizewise.compare(tmp_path / "nowhere")
    assert not (tmp_path / "x").exists()


def test_a_run_that_fails_says_why_and_where_its_log_is(tmp_path: Path) -> None:
    data = {"dataset": "csv", "dataset.source.path": str(tmp_path / "missing.csv")}
    wanted = {**data, "dataset.prompt": "{q}", "dataset.answer": "{a}", "dataset.name": "mine"}
    with pytest.raises(sizewise.SizewiseError, match=r"missing\.csv"):
        sizewise.run({**SMALL, **wanted}, dir=tmp_path / "run")


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find the fake jobs."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ["PYTHONPATH"]]))
    monkeypatch.syspath_prepend(str(TESTS))


@pytest.mark.usefixtures("workers")
def test_a_sweep_from_python_runs_in_workers_and_is_continued(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "sweep"
    before = traces()
    found = sizewise.sweep({"seed": [1, 2], "lora.r": 4}, overrides=FAKE, dir=place)
    after = traces()
    assert all(after[name] == before[name] for name in before if name != "loggers")
    assert found.directory == place
    assert sorted(found.runs["seed"]) == [1, 2]
    pids = {json.loads(p.read_text().splitlines()[0])["pid"] for p in place.glob("*/trace.jsonl")}
    assert len(list(place.glob("*/trace.jsonl"))) == 2
    assert os.getpid() not in pids
    again = sizewise.sweep({"seed": [1, 2], "lora.r": 4}, overrides=FAKE, dir=place)
    assert len(again.runs) == 2
    assert all(len(p.read_text().splitlines()) == 2 for p in place.glob("*/trace.jsonl"))
    said = capfd.readouterr()
    assert said.out == ""  # the results show themselves
    assert "[2/2]" in said.err


@pytest.mark.usefixtures("workers")
def test_jobs_of_a_sweep_that_fail_are_named_and_the_others_can_be_compared(tmp_path: Path) -> None:
    arms = {"a": {"seed": [3, 901]}, "b": ["seed=4", "lora.r=2,4"]}
    with pytest.raises(sizewise.SizewiseError, match="1 of 4 jobs have no result") as caught:
        sizewise.sweep(arms=arms, overrides=FAKE, dir=tmp_path / "s")
    assert "ValueError: this job was made to fail" in str(caught.value)
    assert sorted(sizewise.compare(tmp_path / "s").runs["seed"]) == [3, 4, 4]


@pytest.mark.usefixtures("workers")
def test_a_sweep_may_be_started_beside_the_main_thread(tmp_path: Path) -> None:
    found: list[sizewise.Results] = []

    def work() -> None:
        found.append(sizewise.sweep({"seed": [5]}, overrides=FAKE, dir=tmp_path / "s"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(120)
    assert [len(result.runs) for result in found] == [1]


def test_the_plan_of_a_sweep_is_printed_where_only_that_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wish = {
        "seed": [1, 2],
        "sweep.dry_run": True,
        "sweep.baselines": False,
        "sweep.estimate": False,
    }
    found = sizewise.sweep(wish, dir=tmp_path / "s")
    assert len(found.runs) == 0
    assert "seed=2" in capsys.readouterr().out
    assert not (tmp_path / "s").exists()


def test_a_later_run_of_the_process_may_name_the_hub() -> None:
    """The hub's client reads once, when it is imported, whether it may go on-line."""
    kept = {name: os.environ.pop(name, None) for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")}
    try:
        with guest():
            prepare_environment(hub=False)
            quiet()
            assert os.environ["HF_HUB_OFFLINE"] == "0"
        assert "HF_HUB_OFFLINE" not in os.environ
    finally:
        os.environ.update({name: value for name, value in kept.items() if value is not None})


def test_the_hydra_of_the_notebook_is_as_it_was() -> None:
    from hydra import initialize_config_dir

    with initialize_config_dir(version_base="1.3", config_dir=str(Path(__file__).parent)):
        before = GlobalHydra.instance().hydra
        assert before is not None
        compose_config(["model=nano"])
        with pytest.raises(sizewise.SizewiseError):
            compose_config(["model=nothing_of_this_name"])
        assert GlobalHydra.instance().hydra is before


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    return value.text if isinstance(value, QuotedString) else value


SIMPLE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
SIMPLE |= st.text("'\"\\,:=[]{}()$~+ #a\n")  # what means something to Hydra

NAMES = st.from_regex(r"[a-z_][a-z0-9_]*", fullmatch=True).filter(
    lambda name: name not in ("null", "true", "false", "nan", "inf")
)


PARSER = OverridesParser.create()


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4)


@given(st.recursive(SIMPLE, nested, max_leaves=12))
def test_every_value_of_python_reaches_hydra_as_it_is(value: Any) -> None:
    parsed = PARSER.parse_override(override_of("key", value))
    assert plain(parsed.value()) == value
    assert not parsed.is_sweep_override()


@given(st.lists(SIMPLE, min_size=2, max_size=4))
def test_a_list_is_one_job_per_element_of_a_sweep(values: list[Any]) -> None:
    parsed = PARSER.parse_override(override_of("key", values, choices=True))
    assert [plain(value) for value in parsed.sweep_iterator()] == values


def test_numbers_of_numpy_reach_hydra_as_numbers() -> None:
    values = [np.float64(1e-4), np.float32(0.5), np.int64(8), np.bool_(True), True, None, 3]
    rates = np.logspace(-5, -3, 3)
    parse = PARSER.parse_override
    assert parse(override_of("key", values)).value() == [1e-4, 0.5, 8, True, True, None, 3]
    for wanted in (rates, list(rates)):
        parsed = parse(override_of("key", wanted, choices=True))
        assert list(parsed.sweep_iterator()) == rates.tolist()
        assert parse(override_of("key", wanted)).value() == rates.tolist()


def test_the_random_states_of_gpus_in_use_are_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [torch.tensor([1, 2])]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [s.clone() for s in states])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda new: states.__setitem__(0, new[0]))
    with guest():
        states[0] = torch.tensor([3, 4])
    assert states[0].tolist() == [1, 2]


def test_garbage_is_collected_as_rarely_as_before() -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(700, 10, 10)
        with guest():
            prepare_environment(hub=False)
            assert gc.get_threshold()[0] > 10_000
        assert gc.get_threshold() == (700, 10, 10)
    finally:
        gc.set_threshold(*before)


def test_results_show_themselves_in_a_notebook_and_escape_what_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "<script>alert(1)<img src=x onerror=alert(2)>"
    monkeypatch.setitem(PARAMS, evil, 5_000_000)
    task = Task(name=evil)
    specs = [Spec("nano", task=task), Spec(evil, 0.8, None, task=task)]
    make_sweep(tmp_path, [*specs, Spec("mini", 0.7, None, task=task)])
    found = sizewise.compare(tmp_path, margin=2.0)
    html = found._repr_html_()
    assert "<svg" in html
    assert "<table" in html
    assert "<!DOCTYPE" not in html
    assert "<?xml" not in html
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert "<img" not in html
    headline = found.comparison.sets[0].verdict.headline
    assert escape(headline) in html
    assert found.objections
    assert all(escape(line) in html for line in found.objections)
    assert "Parameters" in found.figure.axes[0].get_xlabel()
    page = found.write_report(tmp_path / "report")
    assert page.is_file()
