from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sizewise.config.evaluation import GenerationConfig
from sizewise.config.model import ModelConfig, QuantizationConfig
from sizewise.errors import ModelError
from sizewise.evaluation.predict import Predicted
from sizewise.evaluation.zero_shot import (
    MEASURED,
    PREDICTIONS,
    cached,
    changed_conditions,
    zero_shot_key,
    zero_shot_parts,
)
from sizewise.files import file_hash
from sizewise.models.sources import weights_fingerprint
from sizewise.record import claims
from sizewise.record.claims import attempts, this_process
from sizewise.record.directories import entry_path
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
    entry = entry_path(tmp_path, zero_shot_key(PARTS))
    assert {path.name for path in entry.parent.iterdir()} == {zero_shot_key(PARTS)}
    assert {path.name for path in entry.iterdir()} == {PREDICTIONS, MEASURED, ".claims"}


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
    known = {"candidates": ("a", "b")}
    changes += [known, known | {"calibration": split}]
    changes += [known | {"calibration": replace(split, encoded=prompts)}]
    keys = [zero_shot_key(zero_shot_parts(**base | change)) for change in [{}, *changes]]
    assert len(set(keys)) == len(keys)
    same = [
        {"model": replace(model, name="b")},
        {"calibration": split},
        {"split": make_split(template, 3, band="rare")},
    ]
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


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (PREDICTIONS, lambda path: edit(path, '"t"', '"u"')),
        (PREDICTIONS, lambda path: path.write_text(path.read_text()[:-30])),
        (PREDICTIONS, lambda path: path.write_bytes(b"\xff\xfe")),
        (PREDICTIONS, lambda path: path.unlink()),
        (MEASURED, lambda path: edit(path, '"seconds": 1.5', '"seconds": 0.5')),
        (MEASURED, lambda path: path.write_text('{"cost": ')),
        (MEASURED, lambda path: path.write_text("[]")),
        (MEASURED, lambda path: path.write_bytes(b"\xff")),
    ],
)
def test_a_damaged_entry_of_the_cache_is_computed_again_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Any
) -> None:
    cached(tmp_path, PARTS, lambda: PREDICTED)
    entry = entry_path(tmp_path, zero_shot_key(PARTS))
    damage(entry / name)
    assert cached(tmp_path, PARTS, lambda: PREDICTED, ["a"]) == (PREDICTED, False)
    (warning,) = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert "damaged" in warning
    assert "\n" not in warning
    assert cached(tmp_path, PARTS, lambda: PREDICTED, ["a"]) == (PREDICTED, True)


def test_an_entry_of_an_earlier_version_is_reused_unless_answers_are_missing(
    tmp_path: Path,
) -> None:
    entry = entry_path(tmp_path, zero_shot_key(PARTS))
    cached(tmp_path, PARTS, lambda: PREDICTED)
    record = json.loads((entry / MEASURED).read_text())
    (entry / MEASURED).write_text(json.dumps({k: record[k] for k in ("cost", "parts")}))
    assert cached(tmp_path, PARTS, lambda: PREDICTED, ["a"])[1]
    assert not cached(tmp_path, PARTS, lambda: PREDICTED, ["a", "b"])[1]


@pytest.mark.parametrize("where", ["full", "read-only", "absent"])
def test_a_cache_that_cannot_be_used_does_not_fail_the_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    cache = tmp_path / "cache"
    if where == "absent":
        cache.write_text("a file stands where the folder should be")
    elif where == "read-only":
        monkeypatch.setattr(claims.os, "open", refuse(30, "Read-only file system"))
    else:
        monkeypatch.setattr("sizewise.files.os.fsync", refuse(28, "No space left on device"))
    assert cached(cache, PARTS, lambda: PREDICTED) == (PREDICTED, False)
    said = [record.message for record in caplog.records if "going on without" in record.message]
    assert len(said) == 1
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.tmp"))


def refuse(number: int, text: str) -> Any:
    def call(*_: object, **__: object) -> None:
        raise OSError(number, text)

    return call


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
import os, sys
from pathlib import Path
from sizewise.record.claims import claim_or_find
claim_or_find(Path(sys.argv[1]), lambda: None)
print("held", flush=True)
os.kill(os.getpid(), 9)
"""


def test_the_entry_of_a_killed_process_is_taken_over_at_once(tmp_path: Path) -> None:
    entry = entry_path(tmp_path, zero_shot_key(PARTS))
    process = subprocess.run([sys.executable, "-c", OWNER, str(entry)], check=False)
    assert process.returncode == -9
    assert attempts(entry) == 1
    assert cached(tmp_path, PARTS, lambda: PREDICTED) == (PREDICTED, False)
    assert attempts(entry) == 2


def in_another_container(entry: Path, age: float = 0.0) -> Path:
    """Claim an entry as a process with this one's host name and number in another container."""
    owner = replace(this_process(), machine="boot:pid:[4026530000]", started="1")
    path = entry / ".claims" / "000001.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(asdict(owner)))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_of_two_containers_with_equal_names_and_numbers_one_computes(tmp_path: Path) -> None:
    """Asking whether process 7 of host x lives would ask about another process 7 of a host x."""
    entry, made = entry_path(tmp_path, zero_shot_key(PARTS)), tmp_path / "elsewhere"
    in_another_container(entry)
    cached(made, PARTS, lambda: PREDICTED)
    results: list[tuple[Predicted, bool]] = []

    def compute() -> Predicted:
        raise AssertionError("both containers compute")

    waiter = threading.Thread(target=lambda: results.append(cached(tmp_path, PARTS, compute)))
    waiter.start()
    waiter.join(0.3)
    assert waiter.is_alive()
    for name in (PREDICTIONS, MEASURED):
        (entry_path(made, zero_shot_key(PARTS)) / name).rename(entry / name)
    waiter.join()
    assert results == [(PREDICTED, True)]


def test_an_entry_is_taken_over_from_a_container_that_is_silent(tmp_path: Path) -> None:
    entry = entry_path(tmp_path, zero_shot_key(PARTS))
    in_another_container(entry, age=claims.STALE_SECONDS + 10)
    assert cached(tmp_path, PARTS, lambda: PREDICTED) == (PREDICTED, False)


def test_who_lost_an_entry_goes_on_with_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that make the same entry waste time; two in one run's directory would mix files."""
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(claims, "_stop_main", lambda: pytest.fail("the job was stopped"))
    claim = claims.claim_or_find(tmp_path, lambda: None)
    assert isinstance(claim, claims.Claim)
    (claim.path.parent / "000002.json").write_text("{}")
    claim._thread.join()
    assert claim.lost


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
