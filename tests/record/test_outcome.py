from __future__ import annotations

import dataclasses
import json

import pytest

from sizewise.errors import OutcomeError
from sizewise.files import read_json
from sizewise.record.fit import read_result
from sizewise.record.history import parse_lines
from sizewise.record.outcome import (
    CostFacts,
    DataFacts,
    Evaluation,
    FileRef,
    ModelFacts,
    Outcome,
    file_ref,
    read_outcome,
    write_outcome,
)
from sizewise.record.state import is_done
from sizewise.record.timing import Timing

MODEL = ModelFacts(
    name="nano",
    path="embedded:nano",
    revision=None,
    family="causal",
    model_type="qwen3",
    params_total=110,
    params_trainable=10,
    params_base=100,
    base_bytes=200,
    memory_bytes=400,
    adapter_bytes=40,
    dtype="float32",
    quantization="none",
    lora_method="lora",
    lora_r=8,
    lora_alpha=16.0,
    lora_scale=2.0,
    chat_template="0123",
)
DATA = DataFacts(
    name="d",
    sizes={"train": 2},
    fingerprints={"test": "ab"},
    dropped={},
    report={},
    prompt_fingerprint="cd",
)


def _outcome() -> Outcome:
    base = Evaluation("d", "test", "ab", 3, {"m/s": 0.25}, FileRef("p.jsonl", "00", 1))
    tuned = dataclasses.replace(base, scores={"m/s": 0.5})
    return Outcome(
        run_id="r",
        identity="h",
        config={"seed": 1},
        model=MODEL,
        data=DATA,
        cost=CostFacts(train_seconds=1.5),
        primary="m/s",
        direction="max",
        base={"d": base},
        tuned={"d": tuned},
        validation={"loss": 1.0},
        objective=1.0,
        seed=1,
        provenance={},
    )


def test_an_outcome_reads_back_equal(tmp_path):
    write_outcome(_outcome(), tmp_path)
    assert read_outcome(tmp_path) == _outcome()
    assert read_outcome(tmp_path).score() == 0.5
    assert [p.name for p in tmp_path.iterdir()] == ["outcome.json"]


def test_a_record_of_a_version_without_timings_is_read(tmp_path):
    timing = Timing("tuned", 8, 16, 5.0, 0.1, 0.05, 0.2, 0.02, 0.01, 0.04, 0.12, 0.11)
    timed = dataclasses.replace(_outcome(), cost=CostFacts(timings=[timing]))
    path = write_outcome(timed, tmp_path)
    assert read_outcome(tmp_path) == timed
    record = json.loads(path.read_text())
    record["cost"].pop("timings")
    path.write_text(json.dumps(record))
    assert read_outcome(tmp_path).cost.timings == []
    record["cost"]["timings"] = [{"side": "tuned", "batch_size": "eight"}]
    path.write_text(json.dumps(record))
    with pytest.raises(OutcomeError, match="timings"):
        read_outcome(tmp_path)


def test_without_training_the_base_stands_for_the_run():
    assert dataclasses.replace(_outcome(), tuned=None).score() == 0.25


def test_a_truncated_record_is_not_done(tmp_path):
    path = write_outcome(_outcome(), tmp_path)
    path.write_text(path.read_text()[:-40])
    with pytest.raises(OutcomeError, match="damaged"):
        read_outcome(tmp_path)


def test_a_record_of_another_version_or_with_a_missing_field_is_refused(tmp_path):
    path = write_outcome(_outcome(), tmp_path)
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "version": 99}))
    with pytest.raises(OutcomeError, match="version 99"):
        read_outcome(tmp_path)
    record["model"].pop("name")
    path.write_text(json.dumps(record))
    with pytest.raises(OutcomeError, match="name"):
        read_outcome(tmp_path)


def test_no_record_says_that_the_run_has_not_finished(tmp_path):
    with pytest.raises(OutcomeError, match="not finished"):
        read_outcome(tmp_path)


def test_a_file_is_known_by_its_content(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    first = file_ref(tmp_path / "a.txt", tmp_path)
    (tmp_path / "a.txt").write_text("y")
    assert first.path == "a.txt"
    assert file_ref(tmp_path / "a.txt", tmp_path).sha256 != first.sha256


@pytest.mark.parametrize("text", ["[]", "null", '"x"', "", "1"])
def test_what_is_no_record_is_refused_with_its_place(tmp_path, text):
    (tmp_path / "outcome.json").write_text(text)
    with pytest.raises(OutcomeError, match=r"outcome\.json"):
        read_outcome(tmp_path)


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"a":' * 300 + "1" + "}" * 300])
def test_a_record_nested_too_deeply_is_damaged_as_any_other(tmp_path, deep):
    for name in ("outcome.json", "fit.json", "failed.json"):
        (tmp_path / name).write_text(deep)
    with pytest.raises(OutcomeError, match="truncated or damaged"):
        read_outcome(tmp_path)
    assert not is_done(tmp_path)
    assert read_json(tmp_path / "failed.json") is None
    assert read_result(tmp_path) is None
    assert parse_lines(f"{deep}\n".encode()) == []


def test_a_record_cut_inside_a_character_is_refused(tmp_path):
    path = write_outcome(dataclasses.replace(_outcome(), run_id="nanö"), tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: data.index("ö".encode()) + 1])
    with pytest.raises(OutcomeError, match="damaged"):
        read_outcome(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("base", None), ("files", None), ("config", None), ("tuned", []), ("primary", 3)],
)
def test_a_field_of_another_kind_is_named(tmp_path, key, value):
    path = write_outcome(_outcome(), tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(OutcomeError, match=rf"outcome\.json.*{key}"):
        read_outcome(tmp_path)


def test_nested_fields_of_another_kind_are_named(tmp_path):
    path = write_outcome(_outcome(), tmp_path)
    record = json.loads(path.read_text())
    record["base"]["d"]["scores"]["m/s"] = "high"
    path.write_text(json.dumps(record))
    with pytest.raises(OutcomeError, match=r"base\.d\.scores\.m/s"):
        read_outcome(tmp_path)
    record["base"]["d"] = None
    path.write_text(json.dumps(record))
    with pytest.raises(OutcomeError, match=r"base\.d"):
        read_outcome(tmp_path)


def test_an_unreadable_record_is_refused_in_words(tmp_path, monkeypatch):
    write_outcome(_outcome(), tmp_path)

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    with pytest.raises(OutcomeError, match="cannot be read: Permission denied"):
        read_outcome(tmp_path)
