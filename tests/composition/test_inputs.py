"""A data file's content is part of a job's identity, and a job refuses another content."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.sweep.conftest import job_config

from sizewise.composition.inputs import pinned
from sizewise.config.data import SourceConfig
from sizewise.data.rows.read import check_content, content_hash
from sizewise.embedded.dialogues import fingerprint, generate_dialogues
from sizewise.errors import ConfigError, DataError, ModelError
from sizewise.job.submit import load_job, make_sweep_job, submit
from sizewise.models import sources
from sizewise.models.sources import check_local_content, models_folder
from sizewise.record.identity import run_identity


def dataset(path: Path) -> dict[str, Any]:
    return {"name": "d", "source": {"kind": "csv", "path": str(path)}}


def config(path: Path) -> dict[str, Any]:
    mixture = {"name": "m", "source": {"kind": "mixture", "path": ""}, "parts": {}}
    return {"dataset": mixture | {"parts": {"a": dataset(path)}}, "eval_dataset": {}}


def test_a_changed_file_makes_another_run(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("q,a\n1,2\n")
    cfg = {"dataset": dataset(path), "eval_dataset": {}}
    before = run_identity(pinned(cfg)).hash
    assert run_identity(pinned(cfg)).hash == before
    path.write_text("q,a\n1,2\n3,4\n")
    assert run_identity(pinned(cfg)).hash != before
    path.write_text("q,a\n1,2\n")
    assert run_identity(pinned(cfg)).hash == before


def test_parts_and_further_test_sets_count_too(tmp_path: Path) -> None:
    part, test = tmp_path / "a.csv", tmp_path / "b.csv"
    for path in (part, test):
        path.write_text("q\n1\n")
    cfg = config(part) | {"eval_dataset": {"t": dataset(test)}}
    hashes = {run_identity(pinned(cfg)).hash}
    for path in (part, test):
        path.write_text("q\n2\n")
        hashes.add(run_identity(pinned(cfg)).hash)
    assert len(hashes) == 3


def test_changed_weights_tokenizer_or_template_make_another_run(tmp_path: Path) -> None:
    folder, tokenizer, template = tmp_path / "base", tmp_path / "words", tmp_path / "chat.jinja"
    files = (folder / "model.safetensors", tokenizer / "tokenizer.json", template)
    for path in files:
        path.parent.mkdir(exist_ok=True)
        path.write_text("1")
    model = {"name": "m", "path": str(folder), "tokenizer": str(tokenizer)}
    cfg = {"model": model | {"chat_template": str(template)}}
    hashes = {run_identity(pinned(cfg)).hash}
    for path in files:
        path.write_text("2")
        hashes.add(run_identity(pinned(cfg)).hash)
    assert len(hashes) == 4
    planned = pinned(cfg)["model"]
    check_local_content(planned)
    files[0].write_text("3")
    with pytest.raises(ModelError, match=r"model\.path=.*holds something else.*another run"):
        check_local_content(planned)


@pytest.mark.parametrize("path", ["embedded:no_such", "google/gemma-3-4b-it"])
def test_what_is_not_on_this_machine_changes_no_name(path: str) -> None:
    cfg = {"model": {"name": "m", "path": path, "chat_template": "plain"}}
    assert pinned(cfg)["model"]["content"] is None
    assert run_identity(pinned(cfg)).hash == run_identity(cfg).hash


def test_other_weights_of_an_embedded_base_make_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = {"model": {"name": "nano", "path": "embedded:nano"}}
    shipped = pinned(cfg)["model"]["content"]
    assert shipped == pinned(cfg)["model"]["content"] is not None
    changed = Path(shutil.copytree(models_folder(), tmp_path / "models"))
    weights = changed / "nano" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    monkeypatch.setattr(sources, "models_folder", lambda: changed)
    assert pinned(cfg)["model"]["content"] != shipped
    before = {"model": cfg["model"] | {"content": shipped}}
    assert run_identity(pinned(cfg)).hash != run_identity(before).hash


def test_the_rows_of_the_embedded_set_are_part_of_the_name() -> None:
    cfg = {"dataset": {"source": {"kind": "embedded", "path": "icd10_dialogues"}}}
    rows = fingerprint(generate_dialogues())
    assert pinned(cfg)["dataset"]["source"]["sha256"] == rows[:16]
    assert run_identity(pinned(cfg)).hash != run_identity(cfg).hash


def test_the_recorded_configuration_names_the_job_without_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("q\n1\n")
    cfg = {"dataset": dataset(path), "eval_dataset": {}}
    recorded = pinned(cfg)
    path.unlink()
    assert run_identity(pinned(recorded)).hash == run_identity(recorded).hash
    assert "sha256" not in cfg["dataset"]["source"]


def test_a_planned_job_refuses_another_content(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("q\n1\n")
    source = SourceConfig("csv", str(path))
    source.sha256 = content_hash(source)
    check_content(source)
    path.write_text("q\n1\n2\n")
    with pytest.raises(DataError, match="holds something else"):
        check_content(source)


def test_what_is_no_local_file_has_no_content() -> None:
    assert content_hash(SourceConfig("hub", "owner/name")) is None
    assert content_hash(SourceConfig("embedded", "no_such")) is None
    assert content_hash(SourceConfig("csv", "no/such/file.csv")) is None


def test_a_changed_file_of_candidates_makes_another_run_and_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "codes.txt"
    path.write_text("A00\nB20\n")
    config = job_config()
    config["evaluation"]["candidates"] = str(path)
    job = make_sweep_job(config, tmp_path)
    assert make_sweep_job(config, tmp_path).identity == job.identity
    submit(job)
    assert load_job(job.run_dir)[0].evaluation.candidates_sha256
    path.write_text("I10\n")
    assert make_sweep_job(config, tmp_path).identity.hash != job.identity.hash
    with pytest.raises(ConfigError, match=r"evaluation\.candidates=.*another run"):
        load_job(job.run_dir)


@pytest.mark.parametrize("choice", [None, "train", "labels"])
def test_candidates_that_are_no_file_change_no_name(choice: str | None) -> None:
    config = job_config()
    config["evaluation"]["candidates"] = choice
    before = {**config, "evaluation": {**config["evaluation"]}}
    del before["evaluation"]["candidates_sha256"]
    assert pinned(config)["evaluation"]["candidates_sha256"] is None
    assert run_identity(pinned(config)).hash == run_identity(before).hash


def test_a_job_of_a_sweep_is_pinned(tmp_path: Path) -> None:
    from sizewise.composition.compose import compose_config

    path = tmp_path / "a.csv"
    path.write_text("question,answer\n1,2\n")
    chosen = ["dataset=csv", f"dataset.source.path={path}", "dataset.prompt=q", "dataset.answer=a"]
    job = make_sweep_job(compose_config(chosen), tmp_path)
    assert job.config["dataset"]["source"]["sha256"] == content_hash(SourceConfig("csv", str(path)))
    assert job.run_dir.parent == tmp_path


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", "embedded:nano"),
        ("Qwen2.5-0.5B-Instruct", "embedded:nano"),
        ("llama3b", "embedded:mini"),
        ("gpt-4o", "classical:majority"),
        ("org/large", "org/small"),
    ],
)
def test_behaviour_50_no_model_runs_under_the_name_of_another(name: str, path: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.name={name} only names .* would run is {path}"):
        pinned({"model": {"name": name, "path": path, "family": "classical"}})


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("mine", "embedded:nano"),
        ("nano-a", "embedded:nano"),
        ("qwen-tuned", "org/name"),
        ("org/name", "org/name"),
        ("Qwen/Qwen3-0.6B", "/models/qwen"),
        ("gpt-4o", "openai/gpt-4o-2024"),
    ],
)
def test_a_name_of_ones_own_is_taken(name: str, path: str) -> None:
    assert pinned({"model": {"name": name, "path": path, "family": "classical"}})["model"]


def test_the_command_refuses_a_borrowed_name_before_it_makes_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sizewise.commands.run import hydra_command

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr("sys.argv", ["sizewise train"])
    with pytest.raises(SystemExit):
        hydra_command("train", ["model.name=Qwen/Qwen2.5-0.5B-Instruct"])
    assert "To run that one: model=Qwen/Qwen2.5-0.5B-Instruct." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
