"""A changed digit, a changed answer, a swapped adapter: each is found and named."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from tests.report.factory import CODES, PRIMARY, Spec, Task, make_run, make_sweep
from tests.report.real_run import real_run
from tests.report.written import write_results

from sizewise.commands.provenance import reproduce_command, verify_command
from sizewise.composition.compose import compose_config
from sizewise.composition.inputs import pinned
from sizewise.config import PricesConfig
from sizewise.config.register import to_run_config
from sizewise.data.build import build_splits
from sizewise.errors import ConfigError, OutcomeError
from sizewise.job.finished import of_finished_run
from sizewise.record.identity import run_identity
from sizewise.record.outcome import Outcome, file_ref, read_outcome, write_outcome
from sizewise.report.comparison.compare import compare
from sizewise.report.page.write import write_report
from sizewise.verify import FAILED, OK, UNCHECKED, Check
from sizewise.verify.reproduce import reproduction
from sizewise.verify.verify import Verification, verify_run, verify_sweep


def failed(result: Verification) -> list[str]:
    assert not result.ok
    return [f"{c.name}: {c.detail}" for c in result.checks if c.status == FAILED]


def test_untouched_run_holds_and_says_what_cannot_be_checked(tmp_path: Path) -> None:
    result = verify_run(real_run(tmp_path))
    assert result.ok
    ok = {check.name for check in result.checks if check.status == OK}
    assert {"identity", "config.yaml", "data icd10_dialogues/test"} <= ok
    assert {"base on icd10_dialogues: metric icd10", "tuned on icd10_dialogues: metric perplexity"}
    assert sum("metric" in name for name in ok) == 4
    unchecked = {c.name: c.detail for c in result.checks if c.status == UNCHECKED}
    figures = {"training figures", "evaluation figures"}
    assert set(unchecked) == {*figures, "generation", "other sizes of the model"}


def test_changed_digit_of_a_reported_score_is_found(tmp_path: Path) -> None:
    directory = real_run(tmp_path)
    outcome = read_outcome(directory)
    score = (outcome.tuned or {})["icd10_dialogues"].scores["perplexity/nll_per_token"]
    text = (directory / "outcome.json").read_text()
    digits = repr(score)
    wrong = digits[:-1] + ("1" if digits[-1] != "1" else "2")
    assert digits in text
    head, _, tail = text.rpartition(digits)
    (directory / "outcome.json").write_text(head + wrong[:9] + "7" + tail)
    (only,) = failed(verify_run(directory))
    assert "tuned on icd10_dialogues: metric perplexity" in only
    assert repr(score) in only


def test_changed_answer_is_found_even_with_a_new_hash(tmp_path: Path) -> None:
    directory = real_run(tmp_path)
    path = directory / "predictions" / "tuned.test.jsonl"
    lines = path.read_text().splitlines()
    row = json.loads(lines[3])
    row["text"] = "B99" if row["text"] == row["reference"] else row["reference"]
    path.write_text("\n".join([*lines[:3], json.dumps(row), *lines[4:]]) + "\n")
    assert any("was changed" in line for line in failed(verify_run(directory)))
    outcome = read_outcome(directory)
    ((name, evaluation),) = (outcome.tuned or {}).items()
    fresh = replace(evaluation, predictions=file_ref(path, directory))
    write_outcome(replace(outcome, tuned={name: fresh}), directory)
    (only,) = failed(verify_run(directory))
    assert "stored scores differ" in only
    assert "icd10/exact_match is reported as" in only


def test_swapped_adapter_and_missing_file_are_found(tmp_path: Path) -> None:
    directory = real_run(tmp_path)
    adapter = directory / "adapter" / "adapter_model.safetensors"
    adapter.write_bytes(b"another adapter")
    assert failed(verify_run(directory)) == [
        "file adapter (adapter/adapter_model.safetensors): "
        "was changed: its SHA-256 is not the recorded one"
    ]
    adapter.unlink()
    assert "is missing" in failed(verify_run(directory))[0]


def test_a_dry_run_holds_what_it_reports(tmp_path: Path) -> None:
    assert verify_run(real_run(tmp_path, dry_run=True)).ok


def test_an_evaluation_of_a_run_is_named_by_what_was_asked_for(tmp_path: Path) -> None:
    directory, scored = real_run(tmp_path), make_run(tmp_path / "scored", Spec())
    outcome = read_outcome(directory)
    asked = {**outcome.config, "stage": "evaluate", "run": str(scored), "seed": 7}
    (directory / "config.yaml").write_text(json.dumps(asked))
    config = {**asked, "seed": 42, "adapter": str(scored / "adapter")}
    files = {"config": file_ref(directory / "config.yaml", directory)}
    identity = run_identity(asked).hash
    write_outcome(replace(outcome, config=config, identity=identity, files=files), directory)
    assert verify_run(directory).ok
    shutil.rmtree(scored)
    (check,) = (c for c in verify_run(directory).checks if c.name == "identity")
    assert check.status == UNCHECKED
    assert "scored is not on this machine" in check.detail


def test_changed_configuration_and_data_are_found(tmp_path: Path) -> None:
    directory = real_run(tmp_path)
    text = (directory / "outcome.json").read_text()
    (directory / "outcome.json").write_text(text.replace('"lr": 0.0002', '"lr": 0.0003'))
    lines = failed(verify_run(directory))
    assert any(line.startswith("identity") for line in lines)
    assert any("config.yaml: optimizer.lr: 0.0002 → 0.0003" in line for line in lines)
    (directory / "outcome.json").write_text(text)
    source = tmp_path / "rows.jsonl"
    source.write_text(source.read_text().replace("complains", "is well"))
    assert any("data icd10_dialogues/test" in line for line in failed(verify_run(directory)))
    source.unlink()
    unchecked = [c for c in verify_run(directory).checks if c.status == UNCHECKED]
    assert any("could not be built" in check.detail for check in unchecked)


def test_further_test_sets_are_built_again(tmp_path: Path) -> None:
    directory = real_run(tmp_path)
    outcome = read_outcome(directory)
    rows = [{"note": f"Elsewhere {i}.", "code": CODES[i % 10]} for i in range(40)]
    source = tmp_path / "other.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = {**outcome.config["dataset"], "name": "other"}
    dataset["source"] = {**dataset["source"], "path": str(source)}
    config = pinned({**outcome.config, "eval_dataset": {"other": dataset}})
    assert config["eval_dataset"]["other"]["source"]["sha256"]
    there = to_run_config(config).eval_dataset["other"]
    fingerprint = build_splits(there).question_fingerprint("test")
    ((_, evaluation),) = (outcome.tuned or {}).items()
    further = replace(evaluation, dataset="other", fingerprint=fingerprint)
    tuned = {**(outcome.tuned or {}), "other": further}
    write_outcome(replace(outcome, config=config, tuned=tuned), directory)

    def found() -> Check:
        checks = verify_run(directory).checks
        (check,) = (c for c in checks if c.name == "data other/test")
        return check

    assert found().status == OK
    source.write_text(source.read_text().replace("Elsewhere", "Here"))
    assert found().status == FAILED
    assert fingerprint in found().detail
    source.unlink()
    assert found().status == UNCHECKED
    assert "could not be built" in found().detail


def test_metric_that_cannot_be_built_is_named_and_not_passed(tmp_path: Path) -> None:
    directory = real_run(tmp_path)
    outcome = read_outcome(directory)
    metric = {**outcome.config["metric"], "icd10": {"_target_": "nowhere.Metric"}}
    write_outcome(replace(outcome, config={**outcome.config, "metric": metric}), directory)
    checks = verify_run(directory, data=False).checks
    assert any("metric icd10" in c.name and c.status == UNCHECKED for c in checks)


def test_a_baseline_is_not_asked_for_likelihoods(tmp_path: Path) -> None:
    directory = real_run(tmp_path)
    outcome = read_outcome(directory)
    config = {**outcome.config, "model": {**outcome.config["model"], "family": "classical"}}
    scores = {k: v for k, v in outcome.base["icd10_dialogues"].scores.items() if "icd10" in k}
    base = {"icd10_dialogues": replace(outcome.base["icd10_dialogues"], scores=scores)}
    write_outcome(replace(outcome, config=config, base=base), directory)
    checks = {c.name: c.status for c in verify_run(directory, data=False).checks}
    assert checks["base on icd10_dialogues: metric icd10"] == OK
    assert "base on icd10_dialogues: metric perplexity" not in checks


def test_damaged_record_and_empty_folder(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", Spec(task=Task(examples=4)))
    (directory / "outcome.json").write_text("{")
    assert not verify_run(directory).ok
    (tmp_path / "empty").mkdir()
    with pytest.raises(OutcomeError, match="nothing to verify"):
        verify_sweep(tmp_path / "empty")


def test_reported_comparison_is_made_again(tmp_path: Path) -> None:
    real_run(tmp_path)
    paths = write_report(compare([tmp_path]), tmp_path)
    assert all(result.ok for result in verify_sweep(tmp_path))
    record = json.loads(paths["results"].read_text())
    record["test_sets"][0]["pairs"][0]["gain"] += 0.001
    paths["results"].write_text(json.dumps(record))
    last = verify_sweep(tmp_path)[-1]
    assert failed(last) == ["results.json: differs from a new comparison in test_sets"]
    paths["results"].write_text(json.dumps({**record, "version": 1}))
    (check,) = verify_sweep(tmp_path)[-1].checks
    assert check.status == UNCHECKED


def test_runs_beside_those_compared_and_prices_change_nothing(tmp_path: Path) -> None:
    """A sweep that was narrowed leaves runs in its directory that its report is not about."""
    first, _ = real_run(tmp_path), make_run(tmp_path / "other", Spec(task=Task(examples=4)))
    prices = PricesConfig(device_per_hour=2.0, api_per_1000_tokens=0.1)
    write_results(compare([first], prices=prices), tmp_path)
    (results,) = (v for v in verify_sweep(tmp_path) if v.directory == tmp_path)
    assert results.ok


def test_a_planned_job_without_a_result_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = real_run(tmp_path), make_run(tmp_path / "other", Spec(task=Task(examples=4)))
    shutil.rmtree(tmp_path / "other")
    for name, file in {"begun": "failed.json", "stopped": "pruned.json"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("{}")
    jobs = [first.name, "other", "begun", "stopped", ["..", 7]]
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    *_, last = verify_sweep(tmp_path)
    said = "3 planned jobs without a result here: other (no directory), begun (failed), ['..', 7]"
    (check,) = last.checks
    assert last.ok
    assert (check.name, check.status) == ("sweep.json", UNCHECKED)
    assert check.detail.startswith(said)
    assert verify_command(tmp_path)
    end = " ".join(capsys.readouterr().out.split()).rpartition(" checked, ")[2]
    assert end.startswith(f"0 with a difference; not checked: {said}")
    for record in ({"jobs": [first.name]}, {"jobs": 3}, {}):
        (tmp_path / "sweep.json").write_text(json.dumps(record))
        assert [found.directory for found in verify_sweep(tmp_path, data=False)] == [first]


def test_a_compared_run_that_is_gone_from_its_sweep_is_a_difference(tmp_path: Path) -> None:
    task = Task(examples=30)
    runs = make_sweep(tmp_path, [Spec(task=task), Spec("mini", tuned=None, task=task)])
    names = {directory: read_outcome(directory).run_id for directory in runs}
    for directory, name in names.items():  # as runs are called in a sweep
        directory.rename(tmp_path / name)
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": [*names.values()]}))
    write_results(compare([tmp_path]), tmp_path)
    assert verify_sweep(tmp_path, data=False)[-1].ok
    gone = names[runs[1]]
    shutil.rmtree(tmp_path / gone)
    (only,) = failed(verify_sweep(tmp_path, data=False)[-1])
    assert only == f"results.json: compares runs of this sweep that have no result here: {gone}"


def test_a_comparison_by_a_key_is_made_again_by_it(tmp_path: Path) -> None:
    for r in (8, 16):
        make_run(tmp_path / f"r{r}", Spec(task=Task(examples=60), r=r, tuned=0.5 + r / 100))
    results = write_results(compare([tmp_path], by=("lora.r",)), tmp_path)
    assert json.loads(results.read_text())["by"] == ["lora.r"]
    last = verify_sweep(tmp_path, data=False)[-1]
    assert [check.status for check in last.checks] == [OK]
    record = json.loads(results.read_text())
    results.write_text(json.dumps({**record, "by": ["no.such_key"]}))
    assert "cannot be made again" in failed(verify_sweep(tmp_path, data=False)[-1])[0]


def test_compared_runs_that_lie_elsewhere_are_said_to_be_unchecked(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    make_run(here / "a", Spec(task=Task(examples=30)))
    other = make_run(there / "b", Spec(model="mini", tuned=None, task=Task(examples=30)))
    write_results(compare([here, there]), here)
    last = verify_sweep(here, data=False)[-1]
    (check,) = last.checks
    assert last.ok
    assert check.status == UNCHECKED
    assert read_outcome(other).run_id in check.detail


def provenance(outcome: Outcome, **facts: Any) -> Outcome:
    return replace(outcome, provenance={**outcome.provenance, **facts})


def test_reproduction_names_command_versions_and_obstacles(tmp_path: Path) -> None:
    outcome = read_outcome(make_run(tmp_path / "run", Spec(task=Task(examples=4))))
    facts = {
        "overrides": ["model=nano", "dataset.prompt='Say {x}, please'"],
        "code": {"commit": "abc", "dirty": True},
        "packages": {"torch": "2.13.0+cpu", "wandb": "not installed"},
    }
    found = reproduction(provenance(outcome, **facts), check=False)
    assert found.command[:3] == ("python", "train.py", "model=nano")
    assert found.requirements == ("torch==2.13.0",)
    assert "git checkout abc" in found.script
    assert "'dataset.prompt='\"'\"'Say {x}, please'\"'\"''" in found.script
    assert any("not committed" in note for note in found.notes)
    assert any("torch 2.13.0+cpu" in note for note in found.notes)
    assert any("another revision" in note for note in found.notes)
    here = {"torch": metadata.version("torch")}
    same = provenance(outcome, packages={**here, "numpy": "1.0"}, python=platform.python_version())
    notes = reproduction(same, check=False).notes
    (other,) = (note for note in notes if "Other versions" in note)
    assert other.endswith("pip install numpy==1.0"), "what is here already is not installed again"
    assert not any("Python here" in note for note in notes)


def test_reproduction_runs_in_a_folder_of_its_own_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = make_run(tmp_path / "run", Spec(task=Task(examples=20)))
    outcome = read_outcome(directory)
    write_outcome(provenance(outcome, packages={"torch": "1.0"}), directory)
    commands: list[list[str]] = []

    def run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
        commands.append(command)
        make_run(tmp_path / "reproduced" / run_identity(outcome.config).slug, again)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sizewise.commands.provenance.subprocess.run", run)
    again = Spec(task=Task(examples=20))
    assert reproduce_command(directory, run=True) == 0
    said = capsys.readouterr().out
    assert "torch" in said
    assert "(was 1.0)" in said
    assert "pip install torch==1.0\n" in said
    assert "nothing is checked out or installed" in said
    assert f"{PRIMARY} 0.6, again" in said
    assert list(commands[0][1:4]) == ["-m", "sizewise.commands.main", "train"]
    assert commands[0][-1] == "paths.outputs=reproduced", "where the run lies it is done already"
    shutil.rmtree(tmp_path / "reproduced")
    again = Spec(tuned=0.5, task=Task(examples=20))
    reproduce_command(directory, run=True)
    assert f"{PRIMARY} 0.5, recorded was 0.6" in capsys.readouterr().out


def composed_run(directory: Path, overrides: list[str]) -> Outcome:
    """A run with the configuration that ``overrides`` compose, files and bases pinned."""
    config = pinned(compose_config(overrides))
    outcome = read_outcome(make_run(directory, Spec(task=Task(examples=20))))
    changed = provenance(replace(outcome, config=config), overrides=overrides)
    (directory / "config.yaml").write_text(json.dumps(config))
    write_outcome(replace(changed, identity=run_identity(config).hash), directory)
    return read_outcome(directory)


def test_a_run_on_a_local_file_is_made_again_by_the_same_options(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("question,answer\n" + "".join(f"q{i},a{i}\n" for i in range(40)))
    chosen = ["dataset=csv", f"dataset.source.path={rows}"]
    chosen += ["dataset.prompt='{question}'", "dataset.answer='{answer}'"]
    outcome = composed_run(tmp_path / "run", chosen)
    assert not any("another configuration" in note for note in reproduction(outcome).notes)
    rows.write_text("question,answer\nq,a\n")
    notes = reproduction(outcome).notes
    assert any("another configuration: dataset.source.sha256" in note for note in notes)


def test_an_evaluation_of_a_run_is_reproduced_where_its_command_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = composed_run(tmp_path / "run", ["model=nano"])
    overrides = [f"run={tmp_path / 'run'}"]
    asked = to_run_config(pinned(compose_config(overrides, "evaluate")))
    named = run_identity(asked)
    done = asdict(of_finished_run(asked, overrides))
    directory = shutil.copytree(tmp_path / "run", tmp_path / "evaluated")
    outcome = provenance(replace(trained, config=done), overrides=overrides)
    write_outcome(replace(outcome, identity=named.hash, run_id=named.slug), directory)
    (directory / "config.yaml").write_text(json.dumps(asdict(asked)))

    def run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
        shutil.copytree(directory, tmp_path / "reproduced" / named.slug)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sizewise.commands.provenance.subprocess.run", run)
    assert reproduce_command(directory, run=True) == 0
    said = capsys.readouterr().out
    assert "evaluate.py" in said
    assert "another configuration" not in said
    assert f"{PRIMARY} 0.6, again" in said
    (directory / "config.yaml").write_text("a: [1,\n")
    with pytest.raises(OutcomeError, match=r"config\.yaml cannot be read"):
        reproduce_command(directory, run=True)


def test_reproduction_notices_that_options_have_changed(tmp_path: Path) -> None:
    outcome = read_outcome(make_run(tmp_path / "run", Spec(task=Task(examples=4))))
    found = reproduction(provenance(outcome, overrides=["model=nano"]))
    assert any("another configuration" in note for note in found.notes)
    broken = reproduction(provenance(outcome, overrides=["model=no_such_model"]))
    assert any("does not compose today" in note for note in broken.notes)


@pytest.mark.parametrize(
    "urls", ["https://a.example/v1", "https://a.example/v1,https://b.example/v1"]
)
def test_a_record_that_names_a_server_elsewhere_is_not_run_unless_trusted(
    urls: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_run(tmp_path / "run", Spec(task=Task(examples=4)))
    overrides = ["model=endpoint", "model.path=m", f"model.base_url={urls}", "lora=none"]
    overrides += ["model.endpoint.api_key_env=AWS_SECRET_ACCESS_KEY"]
    write_outcome(provenance(read_outcome(directory), overrides=overrides), directory)
    commands: list[list[str]] = []

    def run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr("sizewise.commands.provenance.subprocess.run", run)
    with pytest.raises(ConfigError, match=r"to a server.*--trust"):
        reproduce_command(directory, run=True)
    assert commands == []
    assert reproduce_command(directory, run=True, trust=True) == 1


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_run(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def copied(kept: Path, tmp_path: Path) -> Path:
    return shutil.copytree(kept, tmp_path / "run")


def test_a_damaged_predictions_file_is_a_finding(copied: Path) -> None:
    path = copied / "predictions" / "tuned.test.jsonl"
    damaged = bytearray(path.read_bytes())
    damaged[50] = 0xFF
    path.write_bytes(bytes(damaged))
    lines = failed(verify_run(copied, data=False))
    assert any("was changed" in line for line in lines)
    assert any("tuned on icd10_dialogues: predictions: they cannot be read" in x for x in lines)


@pytest.mark.parametrize("text", ["a: [1,\n", "- 1\n", "seed: 42\nlora: [1]\n"])
def test_a_damaged_configuration_is_a_finding(copied: Path, text: str) -> None:
    (copied / "config.yaml").write_text(text)
    lines = failed(verify_run(copied, data=False))
    assert any(line.startswith("config.yaml: ") for line in lines)


def test_files_that_cannot_be_read_are_findings(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    lines = failed(verify_run(copied, data=False))
    assert all("Permission denied" in line for line in lines)
    assert {line.partition(" (")[0] for line in lines} >= {"file config", "file adapter"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"version": 2, "run', "cannot be read"),
        ("[]", "no record of a comparison"),
        ('{"version": 4, "test_sets": [3]}', "no record of a comparison"),
    ],
)
def test_a_torn_comparison_is_a_finding(copied: Path, text: str, said: str) -> None:
    (copied.parent / "results.json").write_text(text)
    (only,) = failed(verify_sweep(copied.parent, data=False)[-1])
    assert only.startswith("results.json: ")
    assert said in only
