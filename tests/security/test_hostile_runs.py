"""Looking at somebody else's run runs nothing of theirs, whatever stands in which of its files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.security.hostile import SECRET, attacks_on, files_of, plant_module

from sizewise.app.chat.speakers import Choir, speakers_of
from sizewise.app.evaluations import plan_evaluation
from sizewise.app.exploring import explore_config
from sizewise.app.views import example_rows
from sizewise.commands.provenance import compare_command, reproduce_command, verify_command
from sizewise.commands.release import export_command, generate_command
from sizewise.composition.compose import compose_config
from sizewise.config import GenerationConfig, PricesConfig
from sizewise.config.register import to_run_config
from sizewise.config.targets import recorded_config
from sizewise.data.example import Message
from sizewise.data.explore import Exploration, draw_lengths
from sizewise.errors import SizewiseError
from sizewise.job.execute import execute
from sizewise.job.run import run_job
from sizewise.job.submit import make_job, submit
from sizewise.record.directories import RunDir
from sizewise.record.fit import load_result
from sizewise.record.outcome import file_ref, read_outcome, write_outcome
from sizewise.report.comparison.compare import compare_loaded
from sizewise.report.comparison.runs import load_runs
from sizewise.verify.verify import verify_run

QUESTION = "Where is my parcel 3?"
# Weights are read by a library that Python's audit does not see.
UNSEEN = ("adapter_model.safetensors",)
READS_WEIGHTS = ("generate", "export", "chat", "evaluate", "verify")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny finished run, with every other file that a run directory may hold beside it."""
    root = tmp_path_factory.mktemp("finished")
    rows = [f"Where is my parcel {i}?,{'lost' if i % 2 else 'late'}" for i in range(24)]
    (root / "rows.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    overrides = (
        "model=nano", "lora.r=2", "dataset=csv", f"dataset.source.path={root / 'rows.csv'}",
        "dataset.name=parcels", "dataset.prompt='{text}'", "dataset.answer='{label}'",
        "dataset.label=label", "dataset.primary=label/exact_match",
        "metric=[label,tfidf,perplexity]",
        "callbacks=none", "logger=none", "trainer.max_epochs=1", "trainer.progress_bar=false",
        "generation.max_new_tokens=4", "save_data=true", "report=true",
        f"paths.cache={root / 'cache'}", f"paths.outputs={root}",
    )  # fmt: skip
    config = compose_config(overrides)
    run = root / "run"
    submit(make_job(config, run, overrides))
    assert execute(run).state == "done"
    folder = RunDir(run)
    # Whoever plants something leaves out the hashes that would tell of it.
    folder.fit.write_text(json.dumps(asdict(load_result(run))))
    outcome = read_outcome(run)
    files = {**outcome.files, "fit": file_ref(folder.fit, run)}
    write_outcome(replace(outcome, files=files), run)
    folder.checkpoints.mkdir(exist_ok=True)
    for file in (folder.last_checkpoint, folder.best_weights):
        file.write_bytes(b"a checkpoint")
    notes = {folder.failure: {"message": "it failed"}, folder.pruned: {"step": 1, "value": 0.5}}
    notes |= {folder.pruning: {"study": "x", "trial": 1}, folder.queued: {"id": "7"}}
    for file, note in notes.items():
        file.write_text(json.dumps(note))
    folder.claims.mkdir(exist_ok=True)
    (folder.claims / "claim.json").write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    return run


def verify(run: Path, out: Path) -> None:
    verify_command(run)


def compare(run: Path, out: Path) -> None:
    compare_command([run], (), None, PricesConfig())


def evaluate(run: Path, out: Path) -> None:
    asked = [f"run='{run}'", "logger=none", f"paths.cache={Path.cwd() / 'cache'}", "report=false"]
    asked += [f"paths.outputs={out}", "trainer.progress_bar=false", "evaluation.timed_answers=0"]
    config = compose_config(asked, "evaluate")
    submit(make_job(config, out / "evaluated", tuple(asked)))
    run_job(to_run_config(config), out / "evaluated")


def generate(run: Path, out: Path) -> None:
    generate_command([f"run={run}", QUESTION], base=True)


def export(run: Path, out: Path) -> None:
    export_command([f"run={run}", f"out={out / 'release'}", "examples=0"])


def reproduce(run: Path, out: Path) -> None:
    reproduce_command(run, run=True)


def app(run: Path, out: Path) -> None:
    """What the pages do: library, comparison, answers, data, and an evaluation that is planned."""
    library = load_runs([run.parent])
    for compared in compare_loaded(library).sets:
        for arm in compared.test.arms:
            example_rows(compared.test, arm)
    for each in library.runs:
        explore_config(recorded_config(each.outcome.config))
        plan_evaluation(each, out)


def chat(run: Path, out: Path) -> None:
    for each in load_runs([run.parent]).runs:
        speakers = speakers_of(each)
        voices = Choir().prepare(speakers)
        for speaker in speakers:
            said = [Message("user", QUESTION)]
            deque(voices.reply(speaker, said, GenerationConfig(max_new_tokens=2)).pieces, maxlen=1)


Command = Callable[[Path, Path], None]
COMMANDS: dict[str, Command] = {
    "verify": verify,
    "compare": compare,
    "evaluate": evaluate,
    "generate": generate,
    "export": export,
    "reproduce": reproduce,
    "app": app,
    "chat": chat,
}


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears once anything of a run is run."""

    def started(command: list[str], **_: Any) -> Any:
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.chdir(tmp_path)
    here = SimpleNamespace(run=started)  # `reproduce --run` starts nothing here
    monkeypatch.setattr("sizewise.commands.provenance.subprocess", here)
    monkeypatch.setattr("sizewise.job.data.draw_lengths", drawn_once)
    return plant_module(tmp_path, monkeypatch, on_import=True)


_drawn: dict[str, bytes] = {}


def drawn_once(found: Exploration, path: Path) -> None:
    """Draw the lengths of texts, all that such a picture shows; equal ones are one picture."""
    shown = repr(found.lengths)
    if shown not in _drawn:
        draw_lengths(found, path)
        _drawn[shown] = path.read_bytes()
    path.write_bytes(_drawn[shown])


_opened: list[str] | None = None


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event in ("open", "sqlite3.connect"):
        _opened.append(str(arguments[0]))


sys.addaudithook(_listen)


@contextmanager
def opened(run: Path) -> Iterator[set[Path]]:
    """The files below a run that are opened meanwhile."""
    global _opened
    found: set[Path] = set()
    _opened = []
    try:
        yield found
    finally:
        found |= {Path(name) for name in _opened if name.startswith(str(run))}
        _opened = None


def attempt(command: Command, run: Path, out: Path) -> None:
    """A command may refuse, with an error of ours; it may not break."""
    out.mkdir()
    with suppress(SizewiseError):
        command(run, out)


def test_the_run_that_is_attacked_is_an_honest_one(finished: Path) -> None:
    found = verify_run(finished)
    assert found.ok, [c for c in found.checks if c.status == "failed"]
    names = {path.relative_to(finished).parts[0] for path in files_of(finished)}
    assert names >= {
        "adapter", "checkpoints", "config.yaml", "data", "failed.json", "fit.json", "job.json",
        "job.log", "metrics.jsonl", "outcome.json", "predictions", "pruned.json", "pruning.json",
        "queued.json", ".claims",
    }  # fmt: skip


def test_an_export_names_no_path_of_this_machine_and_follows_no_link(
    finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    assert str(finished.parent) in (run / "config.yaml").read_text()
    private = tmp_path / "private.json"
    private.write_text("{}")
    (run / "adapter" / "linked.json").symlink_to(private)
    (run / "adapter" / "helper.py").write_text("import os")
    (run / "adapter" / "README.md").write_text(f"base_model: {tmp_path}")
    export(run, tmp_path)
    written = list(files_of(tmp_path / "release"))
    names = {file.name for file in written}
    assert names >= {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert not names & {"linked.json", "helper.py"}
    for file in written:
        content = file.read_bytes()
        for place in (finished.parent, tmp_path, Path(__file__).parents[2]):
            assert str(place).encode() not in content, file


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_in_any_file_of_a_run_is_run(
    name: str, finished: Path, tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every file that a command opens is attacked in every way; the others it does not open."""
    command = COMMANDS[name]
    clean = tmp_path / "clean" / "run"
    shutil.copytree(finished, clean)
    with opened(clean) as read:
        command(clean, tmp_path)
    assert read, "the command opened nothing"
    count = 0
    for file in files_of(finished):
        place = file.relative_to(finished)
        if clean / place not in read and not (file.name in UNSEEN and name in READS_WEIGHTS):
            continue
        attacks = attacks_on(file)
        assert len(attacks) >= 5, place
        for attack, strike in attacks.items():
            count += 1
            run = tmp_path / str(count) / "run"
            shutil.copytree(finished, run)
            strike(run / place, canary)
            attempt(command, run, tmp_path / f"out{count}")
            assert not canary.exists(), f"{place}: {attack} was run"
            said = capsys.readouterr()
            assert SECRET not in said.out + said.err, f"{place}: {attack}"
            assert "\x1b" not in said.out, f"{place}: {attack}"
            for written in files_of(tmp_path / f"out{count}"):
                assert SECRET.encode() not in written.read_bytes(), f"{place}: {attack}: {written}"
    assert count >= 10


def test_an_attack_on_every_file_at_once_runs_nothing(
    finished: Path, tmp_path: Path, canary: Path
) -> None:
    for number, attack in enumerate(("pickle", "yaml", "python", "shell", "classes")):
        run = tmp_path / str(number) / "run"
        shutil.copytree(finished, run)
        for file in files_of(run):
            if strike := attacks_on(file).get(attack):
                strike(file, canary)
        for name, command in COMMANDS.items():
            attempt(command, run, tmp_path / f"{name}{number}")
            assert not canary.exists(), f"{name}: {attack}"
