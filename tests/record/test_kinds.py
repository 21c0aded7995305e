"""A record with a value of another kind is refused in words, whatever reads it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.report.factory import Spec, Task, make_run

from sizewise.errors import EvaluationError, OutcomeError, SizewiseError
from sizewise.record.outcome import outcome_from_json, read_outcome, write_outcome
from sizewise.record.predictions import read_predictions
from sizewise.report.comparison.compare import compare
from sizewise.report.comparison.runs import parse_answers
from sizewise.verify.reproduce import reproduction
from sizewise.verify.verify import verify_run

NAME = "icd10_dialogues"
WRONG: tuple[Any, ...] = ([], {}, "x", 3, None, True)
EVERY = 17


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs to compare, the record of the first to be mutated."""
    root = tmp_path_factory.mktemp("runs")
    first = make_run(root / "a", Spec(task=Task(examples=6)))
    make_run(root / "b", Spec(model="micro", tuned=0.3, task=Task(examples=6)))
    outcome = read_outcome(first)
    code = {"commit": "abc", "dirty": False}
    hardware = {"cpu": "x86", "cores": 2, "devices": [{"name": "H", "bytes": 3}]}
    provenance = {**outcome.provenance, "code": code, "hardware": hardware, "sizewise": "1"}
    write_outcome(replace(outcome, provenance=provenance), first)
    return root


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield every place in a record, the leaves and what holds them."""
    if path:
        yield path
    if isinstance(node, list):
        node = dict(enumerate(node))
    for key, value in node.items() if isinstance(node, dict) else ():
        yield from places(value, (*path, key))


def mutated(record: Any, path: tuple[Any, ...], value: Any) -> Any:
    record = copy.deepcopy(record)
    node = record
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return record


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"tuned.{NAME}.dataset", [1]),
        (f"tuned.{NAME}.fingerprint", {}),
        (f"tuned.{NAME}.fingerprint", float("nan")),
        (f"tuned.{NAME}.examples", "x"),
        (f"tuned.{NAME}.examples", True),
        (f"base.{NAME}.predictions.sha256", {}),
        (f"base.{NAME}.predictions.bytes", 1.5),
        ("files.config.path", 3),
        ("model.name", {}),
        ("model.params_base", {}),
        ("model.params_base", [1]),
        ("model.params_trainable", {}),
        ("model.path", []),
        ("seed", "x"),
        ("data.sizes.test", None),
        ("warnings", {}),
        ("cost.out_of_memory", 3),
        ("config.model", "x"),
        ("config.metric", {"icd10": 3}),
        ("data.report.leaking_rows", "x"),
        ("provenance.hardware", "x"),
        ("provenance.hardware.devices", [1]),
        ("provenance.code", [1]),
        ("provenance.overrides", 3),
    ],
)
def test_a_field_of_a_wrong_kind_is_named_with_its_place(runs: Path, path: str, value: Any) -> None:
    record = json.loads((runs / "a" / "outcome.json").read_text())
    with pytest.raises(OutcomeError, match=f"mistakes a field: {path}[ .]"):
        outcome_from_json(mutated(record, tuple(path.split(".")), value), "it")


def test_what_earlier_code_left_out_or_did_not_measure_is_accepted(runs: Path) -> None:
    record = json.loads((runs / "a" / "outcome.json").read_text())
    for place, name in (("model", "template_kwargs"), ("data", "token_lengths")):
        del record[place][name]
    record["cost"] = {"train_seconds": None, "eval_seconds": 3}
    record["objective"] = record["validation"]["val_loss"] = float("nan")
    record["provenance"] = {"code": None, "of_old": [1]}
    assert outcome_from_json(record, "it").cost.eval_seconds == 3


@pytest.mark.parametrize(
    ("name", "value"), [("id", []), ("group", {}), ("log_prob", "x"), ("strata", {"a": []})]
)
def test_a_prediction_of_a_wrong_kind_is_refused_by_both_readers(
    runs: Path, tmp_path: Path, name: str, value: Any
) -> None:
    line = (runs / "a" / "predictions" / "base.test.jsonl").read_text().splitlines()[0]
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({**json.loads(line), name: value}) + "\n")
    with pytest.raises(EvaluationError, match=name):
        read_predictions(path)
    with pytest.raises(OutcomeError, match=name):
        parse_answers(path)


def test_whatever_is_wrong_in_a_record_is_never_a_traceback(runs: Path) -> None:
    """Every place with every wrong value is read; of what is accepted, one in EVERY is used."""
    path = runs / "a" / "outcome.json"
    text = path.read_text()
    accepted = list(readable(json.loads(text)))
    assert len(accepted) > 100
    raised = []
    for place, value, changed in accepted[::EVERY]:
        path.write_text(json.dumps(changed))
        raised += [f"{place} = {value!r}: {said}" for said in used(runs)]
    path.write_text(text)
    assert not raised, "\n".join(raised)


def readable(record: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yield place, wrong value and mutated record where it is none that is refused."""
    for place in places(record):
        for value in WRONG:
            changed = mutated(record, place, value)
            try:
                outcome_from_json(changed, "it")
            except OutcomeError:
                continue
            yield place, value, changed


def used(root: Path) -> Iterator[str]:
    """Compare, verify and reproduce; yield what was raised that is no error of ours."""
    readers = (
        lambda: compare([root]),
        lambda: verify_run(root / "a", data=False),
        lambda: reproduction(read_outcome(root / "a"), check=False),
    )
    for name, reader in zip(("compare", "verify", "reproduce"), readers, strict=True):
        try:
            reader()
        except SizewiseError:
            continue
        except Exception as error:
            yield f"{name}: {error!r}"
