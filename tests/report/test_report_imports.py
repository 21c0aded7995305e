"""Per-sample logs of lm-evaluation-harness and Inspect, as further runs of a comparison."""

from __future__ import annotations

import json
import math
import re
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report.factory import Spec, Task, make_run, make_sweep
from typer.testing import CliRunner

from sizewise.commands.main import app
from sizewise.errors import OutcomeError
from sizewise.record.outcome import Outcome, file_ref, read_outcome, write_outcome
from sizewise.record.predictions import Prediction, read_predictions
from sizewise.report.comparison.compare import Comparison, compare_loaded
from sizewise.report.comparison.runs import load_runs
from sizewise.report.imports.convert import read_log, split_paths, with_imports
from sizewise.report.imports.pairing import pair
from sizewise.report.imports.samples import CHOSEN, GENERATED, HarnessLog, Sample
from sizewise.report.page.write import write_report

LOGS = Path(__file__).parent / "logs"
DATE = "2026-11-29T08-36-18.624096"
REAL = {
    "codes": LOGS / f"samples_embedded_codes_{DATE}.jsonl",
    "choice": LOGS / f"samples_embedded_choice_{DATE}.jsonl",
    "inspect": LOGS / "inspect_codes.json",
}
METRIC = {"metric": {"icd10": {"_target_": "sizewise.metrics.icd10.Icd10"}}}
TASK = Task(examples=120)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A small tuned model with 60 % and a large one as it is, with 40 %."""
    specs = [
        Spec("nano", 0.2, 0.6, task=TASK, extra=METRIC),
        Spec("mini", 0.4, None, task=TASK, extra=METRIC),
    ]
    make_sweep(tmp_path / "runs", specs)
    return tmp_path / "runs"


def questions(runs: Path) -> list[Prediction]:
    run = load_runs([runs]).runs[0]
    return read_predictions(run.directory / run.outcome.base[TASK.name].predictions.path)


def answer(question: Prediction, right: bool) -> str:
    return f"The code is {question.reference}." if right else "I do not know."


def lm_eval_log(
    folder: Path, rows: list[Prediction], share: float, parameters: int | None = 9_000_000
) -> Path:
    """A log in lm-evaluation-harness's form: the first ``share`` of the rows answered rightly."""
    lines = [
        {
            "doc_id": i,
            "doc": {"question": row.prompt, "answer": row.reference, "key": row.id},
            "target": row.reference,
            "arguments": {"gen_args_0": {"arg_0": f"Q: {row.prompt}\nA:", "arg_1": {}}},
            "resps": [[answer(row, i < share * len(rows))]],
            "filtered_resps": ["cut"],
            "filter": "none",
            "metrics": ["exact_match"],
            "exact_match": float(i % 2),
        }
        for i, row in enumerate(rows)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"samples_codes_{DATE}.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    config = {"model_args": "pretrained=big/general,dtype=float32"}
    found = {"config": config | ({"model_num_parameters": parameters} if parameters else {})}
    (folder / f"results_{DATE}.json").write_text(json.dumps(found))
    return path


def with_log(runs: Path, log: Path, folder: Path, **options: Any) -> Comparison:
    return compare_loaded(with_imports(load_runs([runs]), [log], folder, **options))


def test_a_log_of_lm_eval_is_one_more_arm_paired_on_the_same_examples(
    runs: Path, tmp_path: Path
) -> None:
    log = lm_eval_log(tmp_path / "harness", questions(runs), 0.8)
    result = with_log(runs, log, tmp_path / "kept")
    (compared,) = result.sets
    test = compared.test
    (arm,) = [arm for arm in test.arms if arm.model.family == "imported"]
    assert len(test.ids) == TASK.examples
    assert arm.score() == pytest.approx(0.8)
    assert arm.params == 9_000_000
    assert arm.scores is not None
    assert [row.id for row in questions(runs)] == list(test.ids)
    assert arm.scores[0].tolist() == [1.0] * 96 + [0.0] * 24
    held = [p for p in compared.pairs if p.a is arm or p.b is arm]
    assert held, "it is tested against the tuned model"
    assert all(p.result.p_value < 0.05 for p in held)
    assert arm.latency is None, "a log says nothing of time"


def test_answers_are_scored_anew_by_the_runs_own_metric_and_that_is_said(
    runs: Path, tmp_path: Path
) -> None:
    log = lm_eval_log(tmp_path / "harness", questions(runs), 0.75)
    (compared,) = with_log(runs, log, tmp_path / "kept").sets
    assert any("scored anew by icd10/exact_match" in said for said in compared.warnings)
    assert any("paired by text" in said for said in compared.warnings)
    (own,) = with_log(runs, log, tmp_path / "own", score="exact_match").sets
    assert any("is the harness's own exact_match" in said for said in own.warnings)
    (arm,) = [arm for arm in own.test.arms if arm.model.family == "imported"]
    assert arm.score() == pytest.approx(0.5)
    with pytest.raises(OutcomeError, match=r"no figure 'f1' .* It has: exact_match"):
        with_log(runs, log, tmp_path / "f1", score="f1")


def test_the_report_is_written_with_a_model_of_unknown_size(runs: Path, tmp_path: Path) -> None:
    log = lm_eval_log(tmp_path / "harness", questions(runs), 0.8, parameters=None)
    result = with_log(runs, log, tmp_path / "kept")
    written = write_report(result, tmp_path / "report")
    assert all(path.is_file() for path in written.values())
    assert "general (lm-evaluation-harness, codes)" in written["report"].read_text()
    (arm,) = [a for a in result.sets[0].test.arms if a.model.family == "imported"]
    assert math.isinf(arm.params)


def test_what_is_not_paired_is_counted_and_said(runs: Path, tmp_path: Path) -> None:
    rows = questions(runs)
    changed = [
        *rows[:50],
        replace(rows[50], prompt="Something that nobody asked before, at all."),
        replace(rows[51], reference="Z99.9"),
        rows[52],
        rows[52],
    ]
    log = lm_eval_log(tmp_path / "harness", changed, 1.0)
    result = with_log(runs, log, tmp_path / "kept")
    (said,) = [p.reason for p in result.problems if p.where == str(log)]
    assert "1 samples match no example" in said
    assert "2 samples match several examples, or one that others match" in said
    assert "1 samples have another reference answer" in said
    assert "70 examples have no sample" in said
    assert len(result.sets[0].test.ids) == 50


def test_a_log_of_other_questions_is_an_error(runs: Path, tmp_path: Path) -> None:
    others = [replace(r, prompt=f"Question number {i} of another test") for i, r in
              enumerate(questions(runs))]  # fmt: skip
    log = lm_eval_log(tmp_path / "harness", others, 1.0)
    with pytest.raises(OutcomeError, match=r"shares no example .*120 samples match no example"):
        with_log(runs, log, tmp_path / "kept")


def test_examples_are_paired_by_an_id_where_the_log_has_one(runs: Path, tmp_path: Path) -> None:
    rows = questions(runs)
    reworded = [replace(row, prompt=f"[{i}] in other words") for i, row in enumerate(rows)]
    log = lm_eval_log(tmp_path / "harness", reworded, 0.5)
    result = with_log(runs, log, tmp_path / "kept", id_field="key")
    assert any("paired by key" in said for said in result.sets[0].warnings)
    assert len(result.sets[0].test.ids) == TASK.examples
    with pytest.raises(OutcomeError, match=r"no field 'row'.* answer, key, question"):
        with_log(runs, log, tmp_path / "kept", id_field="row")


def test_likelihood_scores_cannot_be_had_from_a_log(tmp_path: Path) -> None:
    extra = {"metric": {"perplexity": {"_target_": "sizewise.metrics.perplexity.Perplexity"}}}
    folder = make_run(tmp_path / "runs" / "one", Spec("nano", 0.2, None, task=TASK, extra=extra))
    write_outcome(replace(read_outcome(folder), primary="perplexity/bits_per_byte"), folder)
    log = lm_eval_log(tmp_path / "harness", questions(tmp_path / "runs"), 0.5)
    with pytest.raises(OutcomeError, match="cannot be computed from the text"):
        with_log(tmp_path / "runs", log, tmp_path / "kept")


def test_the_command_takes_logs_beside_directories(runs: Path, tmp_path: Path) -> None:
    log = lm_eval_log(tmp_path / "harness", questions(runs), 0.8)
    assert split_paths([runs, tmp_path / "harness"]) == ([runs], [log])
    done = CliRunner().invoke(app, ["compare", str(runs), str(log.parent)])
    assert done.exit_code == 0, done.output
    assert "lm-evaluation-harness" in done.output
    alone = CliRunner().invoke(app, ["compare", str(log)])
    assert alone.exit_code != 0
    assert isinstance(alone.exception, OutcomeError)
    assert "Name a run's directory, too" in str(alone.exception)


def run_on(folder: Path, log: HarnessLog, references: list[str]) -> Path:
    """A planted run that answered the questions of a real log."""
    task = Task(examples=len(log.samples))
    made = make_run(folder / "one", Spec("nano", 0.5, None, task=task, extra=METRIC))
    outcome: Outcome = read_outcome(made)
    entry = outcome.base[task.name]
    path = made / entry.predictions.path
    rows = [
        replace(row, prompt=sample.fields.get("question", sample.texts[0]), reference=reference)
        for row, sample, reference in zip(
            read_predictions(path), log.samples, references, strict=True
        )
    ]
    path.write_text("".join(f"{json.dumps(row.to_json())}\n" for row in rows))
    entry = replace(entry, predictions=file_ref(path, made))
    write_outcome(replace(outcome, base={task.name: entry}), made)
    return folder


@pytest.mark.parametrize(
    ("name", "harness", "model", "parameters", "response"),
    [
        ("codes", "lm-evaluation-harness", "stories260K", 260_032, GENERATED),
        ("choice", "lm-evaluation-harness", "stories260K", 260_032, CHOSEN),
        ("inspect", "Inspect", "hf/stories", None, GENERATED),
    ],
)
def test_logs_that_the_packages_themselves_wrote_are_read(
    name: str, harness: str, model: str, parameters: int | None, response: str, tmp_path: Path
) -> None:
    """lm-eval 0.4.13 and inspect-ai 0.3.285 asked stories260K about embedded dialogues."""
    log = read_log(REAL[name])
    assert (log.harness, log.model, log.parameters) == (harness, model, parameters)
    assert log.response == response
    assert len(log.samples) >= 4
    references = [sample.target or "" for sample in log.samples]
    assert all(re.match(r"[A-Z]\d\d", target) for target in references)
    runs = run_on(tmp_path / "runs", log, references)
    result = with_log(runs, REAL[name], tmp_path / "kept")
    (compared,) = result.sets
    assert len(compared.test.ids) == len(log.samples)
    own = [sample.scores for sample in log.samples]
    assert all(own)
    arm = next(a for a in compared.test.arms if a.model.family == "imported")
    assert arm.score() == pytest.approx(np.mean([next(iter(row.values())) for row in own]))


def test_of_choices_the_most_likely_one_is_the_answer() -> None:
    lines = [json.loads(line) for line in REAL["choice"].read_text().splitlines()]
    for sample, line in zip(read_log(REAL["choice"]).samples, lines, strict=True):
        values = [float(response[0][0]) for response in line["resps"]]
        assert sample.response == line["doc"]["choices"][int(np.argmax(values))]
        assert sample.target == line["doc"]["answer"]


def archive(path: Path, zstandard: bool) -> Path:
    """The Inspect log as an ``.eval`` archive, as older or as newer versions compress it."""
    whole = json.loads(REAL["inspect"].read_text())
    members = {f"samples/{s['id']}_epoch_1.json": s for s in whole.pop("samples")}
    members["header.json"] = whole
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED if zstandard else zipfile.ZIP_DEFLATED) as z:
        for name, content in members.items():
            data = json.dumps(content).encode()
            z.writestr(name, pyarrow.compress(data, "zstd", asbytes=True) if zstandard else data)
    if zstandard:
        _mark_as_zstandard(path, {n: len(json.dumps(c).encode()) for n, c in members.items()})
    return path


def _mark_as_zstandard(path: Path, sizes: dict[str, int]) -> None:
    """Python 3.11 writes no method 93: mark stored members as such, with their real lengths."""
    data = bytearray(path.read_bytes())
    for signature, method, size, name_length, name_at in (
        (b"PK\x03\x04", 8, 22, 26, 30),
        (b"PK\x01\x02", 10, 24, 28, 46),
    ):
        start = data.find(signature)
        while start >= 0:
            (length,) = struct.unpack_from("<H", data, start + name_length)
            name = bytes(data[start + name_at : start + name_at + length]).decode()
            struct.pack_into("<H", data, start + method, 93)
            struct.pack_into("<I", data, start + size, sizes[name])
            start = data.find(signature, start + 4)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("zstandard", [False, True])
def test_an_archive_of_inspect_holds_the_same_as_its_json(tmp_path: Path, zstandard: bool) -> None:
    log = read_log(archive(tmp_path / "one.eval", zstandard))
    plain = read_log(REAL["inspect"])
    assert list(log.samples) == list(plain.samples)
    assert (log.model, log.task) == (plain.model, plain.task)


def test_of_inspect_failed_samples_and_further_epochs_are_left_out(tmp_path: Path) -> None:
    whole = json.loads(REAL["inspect"].read_text())
    whole["samples"][0]["error"] = {"message": "no answer"}
    whole["samples"] += [{**sample, "epoch": 2} for sample in whole["samples"]]
    (tmp_path / "log.json").write_text(json.dumps(whole))
    log = read_log(tmp_path / "log.json")
    assert len(log.samples) == 3
    assert "8 samples over several epochs" in log.notes[0]
    assert "1 samples ended in an error" in log.notes[1]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("samples_x.jsonl", "", "hold no `doc`"),
        ("samples_x.jsonl", "{", "is damaged"),
        ("samples_x.jsonl", '{"doc": {}}', "is no sample log"),
        ("x.eval", "no archive", "is no log of Inspect"),
        ("x.json", "{}", "is no log of Inspect"),
        ("x.txt", "", "is no log that is known"),
    ],
)
def test_what_is_no_log_is_one_clear_error(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(OutcomeError, match=words):
        read_log(tmp_path / name)


def test_of_several_filters_the_first_is_read(runs: Path, tmp_path: Path) -> None:
    log = lm_eval_log(tmp_path / "harness", questions(runs), 0.8)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    more = [{**line, "filter": "strict", "resps": [["no"]]} for line in lines]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines + more))
    found = read_log(log)
    assert len(found.samples) == TASK.examples
    assert found.notes == ("of the filters none, strict the first is read",)


def sample(text: str, target: str | None) -> Sample:
    return Sample((text,), target, "answer")


def example(number: int, text: str, reference: str) -> Prediction:
    return Prediction(f"{number:016x}", "g", text, reference, "", -1.0, 1, 1, 1, 1, True, 1.0, 1)


@given(
    st.lists(st.sampled_from(["one", "two", "three", "four"]), max_size=8),
    st.lists(st.sampled_from(["one", "two", "three", "five"]), max_size=8),
)
def test_every_sample_and_every_example_is_paired_at_most_once_and_all_are_counted(
    asked: list[str], answered: list[str]
) -> None:
    text = "The question of the kind {}, long enough."
    examples = [example(i, text.format(kind), "A") for i, kind in enumerate(asked)]
    samples = [sample(text.format(kind).upper(), "a") for kind in answered]
    log = HarnessLog(Path("x"), "h", "t", "m", None, GENERATED, samples)
    found = pair(log, examples)
    assert len({id(s) for s, _ in found.pairs}) == len({e.id for _, e in found.pairs})
    assert len(found.pairs) + found.unknown + found.ambiguous == len(samples)
    assert len(found.pairs) + found.unanswered == len(examples)
    single = {kind for kind in asked if asked.count(kind) == 1 == answered.count(kind)}
    assert len(found.pairs) == len(single)
