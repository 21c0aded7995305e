from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sizewise.config.evaluation import GenerationConfig
from sizewise.config.model import ModelConfig, QuantizationConfig
from sizewise.errors import ModelError, OutcomeError
from sizewise.evaluation.lock import held_lock
from sizewise.evaluation.predict import Predicted
from sizewise.evaluation.zero_shot import (
    cached,
    changed_conditions,
    entry_path,
    zero_shot_key,
    zero_shot_parts,
)
from sizewise.files import file_hash
from sizewise.models.sources import weights_fingerprint
from sizewise.record.predictions import Prediction

from .helpers import StubTemplate, make_split

PARTS = {"model": "m", "data": "d"}
PREDICTED = Predicted(
    (Prediction("a", "g", "p", "r", "t", -1.5, 3, 4, 5, 6, True, 0.25, 2),),
    1.5,
    2**20,
    4,
    (8,),
    conditions={"batch_size": 8, "device": "A", "threads": 2},
)


def test_the_second_time_nothing_is_computed(tmp_path: Path) -> None:
    calls: list[int] = []

    def compute() -> Predicted:
        calls.append(1)
        return PREDICTED

    assert cached(tmp_path, PARTS, compute) == (PREDICTED, False)
    assert cached(tmp_path, PARTS, compute) == (PREDICTED, True)
    assert cached(tmp_path, PARTS | {"data": "other"}, compute)[1] is False
    assert len(calls) == 2
    left = {path.name for path in entry_path(tmp_path, zero_shot_key(PARTS)).parent.iterdir()}
    assert left == {zero_shot_key(PARTS)}, "locks or half-built entries are left behind"


def test_the_key_depends_on_everything_that_predictions_depend_on(template: StubTemplate) -> None:
    split = make_split(template, 3)
    model = ModelConfig(name="a", path="some/base")
    base: dict[str, Any] = {
        "model": model,
        "quantization": QuantizationConfig(),
        "generation": GenerationConfig(),
        "weights": "w",
        "dtype": "float32",
        "device_type": "cpu",
        "template": template,
        "split": split,
    }
    prompts = [replace(item, prompt_ids=[*item.prompt_ids, 9]) for item in split.encoded]
    answers = [replace(e, answer="other") for e in split.examples]
    changes: list[dict[str, Any]] = [
        {"model": replace(model, path="another/base")},
        {"model": replace(model, revision="v2")},
        {"quantization": QuantizationConfig(method="nf4")},
        {"quantization": QuantizationConfig(double_quant=False)},
        {"generation": GenerationConfig(max_new_tokens=65)},
        {"generation": GenerationConfig(do_sample=True)},
        {"weights": "v"},
        {"dtype": "bfloat16"},
        {"device_type": "cuda"},
        {"template": replace(template, fingerprint="other")},
        {"template": replace(template, stop_ids=(1,))},
        {"split": replace(split, encoded=prompts)},
        {"split": replace(split, examples=answers)},
        {"split": make_split(template, 2)},
        {"split": make_split(template, 3, rejected="no")},
    ]
    keys = [zero_shot_key(zero_shot_parts(**base | change)) for change in [{}, *changes]]
    assert len(set(keys)) == len(keys)
    same = [{"model": replace(model, name="b")}, {"split": make_split(template, 3, band="rare")}]
    assert {zero_shot_key(zero_shot_parts(**base | change)) for change in same} == {keys[0]}


def test_answers_timed_under_other_conditions_say_so(tmp_path: Path) -> None:
    cached(tmp_path, PARTS, lambda: PREDICTED)
    stored = cached(tmp_path, PARTS, lambda: PREDICTED)[0].conditions
    assert changed_conditions("d", stored, PREDICTED.conditions) is None
    warning = changed_conditions("d", stored, {**stored, "batch_size": 4, "device": "B"})
    assert warning is not None
    assert "(batch_size 8, this run: 4; device A, this run: B)" in warning
    assert "not recorded" in str(changed_conditions("d", {}, stored))
    texts = "int8 model's texts may differ"  # point 24
    other = {**stored, "batch_size": 4}
    assert texts not in warning
    assert texts in str(changed_conditions("d", stored, other, "int8"))
    assert texts not in str(changed_conditions("d", stored, {**stored, "device": "B"}, "int8"))


def test_a_damaged_entry_is_an_error(tmp_path: Path) -> None:
    cached(tmp_path, PARTS, lambda: PREDICTED)
    (entry_path(tmp_path, zero_shot_key(PARTS)) / "measured.json").write_text('{"cost": ')
    with pytest.raises(OutcomeError, match="damaged"):
        cached(tmp_path, PARTS, lambda: PREDICTED)


def test_of_several_at_once_one_computes(tmp_path: Path) -> None:
    calls: list[int] = []
    results: list[tuple[Predicted, bool]] = []

    def compute() -> Predicted:
        calls.append(1)
        time.sleep(0.5)
        return PREDICTED

    def ask() -> None:
        results.append(cached(tmp_path, PARTS, compute))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert sorted(reused for _, reused in results) == [False, True, True, True]
    assert all(predicted == PREDICTED for predicted, _ in results)


def test_after_a_failure_another_one_computes(tmp_path: Path) -> None:
    def fail() -> Predicted:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        cached(tmp_path, PARTS, fail)
    assert cached(tmp_path, PARTS, lambda: PREDICTED) == (PREDICTED, False)


OWNER = """
import os, sys, time
from pathlib import Path
from sizewise.evaluation.lock import held_lock
with held_lock(Path(sys.argv[1]), lambda: False):
    print("held", flush=True)
    os.kill(os.getpid(), 9)
"""


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    process = subprocess.run([sys.executable, "-c", OWNER, str(lock)], check=False)
    assert process.returncode == -9
    assert lock.is_dir()
    assert acquired(lock, lambda: False, stale=3600)
    assert not lock.exists()


def test_the_lock_of_a_silent_machine_is_taken_over(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    lock.mkdir()
    (lock / "owner.json").write_text('{"token": "x", "host": "elsewhere", "pid": 1}')
    assert acquired(lock, lambda: False, stale=0.2)


def test_a_beating_lock_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, now = tmp_path / "a.lock", 0.0
    lock.mkdir()
    (lock / "owner.json").write_text('{"token": "x", "host": "elsewhere", "pid": 1}')

    def sleep(seconds: float) -> None:
        """Let time pass, in which the owner beats once a second."""
        nonlocal now
        now += seconds
        os.utime(lock, (int(now) + 1, int(now) + 1))

    clock = SimpleNamespace(monotonic=lambda: now, sleep=sleep)
    monkeypatch.setattr("sizewise.evaluation.lock.time", clock)
    assert not acquired(lock, lambda: now > 60, stale=2)


def acquired(lock: Path, done: Callable[[], bool], stale: float) -> bool:
    with held_lock(lock, done, stale=stale, poll=0.02) as mine:
        return mine


def test_weights_are_known_by_content(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="safetensors"):
        weights_fingerprint(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"0" * 100)
    first = weights_fingerprint(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"0" * 99 + b"1")
    second = weights_fingerprint(str(tmp_path))
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert len({first, second, weights_fingerprint(str(tmp_path))}) == 3
    assert weights_fingerprint("owner/name", "v1") == "owner/name@v1"
    assert weights_fingerprint("owner/name", "v1", commit="abc") == "owner/name@abc"


def test_large_files_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sizewise.files.WHOLE_FILE_BYTES", 1000)
    monkeypatch.setattr("sizewise.files.BLOCK_BYTES", 64)
    path = tmp_path / "large"
    prints = set()
    for where in (None, 0, 65_537, 99_999):
        content = bytearray(100_000)
        if where is not None:
            content[where] = 1
        path.write_bytes(content)
        prints.add(file_hash(path, sampled=True))
    assert len(prints) >= 3
