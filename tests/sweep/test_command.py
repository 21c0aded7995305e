"""train.py as a user runs it, with fake jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests.commands.test_first_words import check_help
from tests.waiting import wait_for

from sizewise.record.state import JobState
from sizewise.sweep.status import sweep_status

from .conftest import Command, command_line, run_dirs
from .fake import EXITS, RAISES, trace

pytestmark = pytest.mark.e2e


def sweep_dir(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "sweeps").iterdir()
    return found


def test_a_single_run_resumes_and_is_done_once(tmp_path: Path, train: Command) -> None:
    first, second = train("lora.r=4"), train("lora.r=4")
    assert (first.returncode, second.returncode) == (0, 0)
    assert "Already done" in second.stderr
    assert "validation loss 42.04" in second.stderr
    (run,) = (tmp_path / "outputs").iterdir()
    assert [entry["what"] for entry in trace(run)] == ["begin", "end"]


def test_a_failed_run_says_why_in_one_message(tmp_path: Path, train: Command) -> None:
    result = train(f"seed={RAISES}")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr + result.stdout
    assert "ValueError: this job was made to fail" in result.stderr
    (run,) = (tmp_path / "outputs").iterdir()
    assert str(run / "job.log") in result.stderr
    assert "Traceback" in (run / "job.log").read_text()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["lora.r=0"], "lora.r=0 is too small"),
        (["paths.outputs=/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(
    tmp_path: Path, overrides: list[str], said: str
) -> None:
    command = [*command_line(tmp_path), *overrides]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 1
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "outputs").exists()


def test_a_directory_of_another_run_is_refused_with_the_keys(
    tmp_path: Path, train: Command
) -> None:
    fixed = f"hydra.run.dir={tmp_path / 'mine'}"
    assert train(fixed, "lora.r=4", "optimizer.lr=0.25").returncode == 0
    result = train(fixed, "lora.r=8", "optimizer.lr=0.5")
    assert result.returncode == 1
    assert "lora.r: 4 → 8" in result.stderr
    assert "optimizer.lr: 0.25 → 0.5" in result.stderr


def test_a_sweep_names_its_failures_and_tries_only_them_again(
    tmp_path: Path, train: Command
) -> None:
    grid = ("-m", f"seed=1,{RAISES},2,{EXITS}", "lora.r=4")
    first = train(*grid)
    assert first.returncode == 1
    for said in ("2 of 4 jobs", "this job was made to fail", "exit code 3", "job.log"):
        assert said in first.stderr
    rows = sweep_status(sweep_dir(tmp_path))
    assert [row.state for row in rows].count(JobState.FAILED) == 2
    (sweep_dir(tmp_path) / "repaired").touch()
    second = train(*grid)
    assert second.returncode == 0, second.stderr
    assert "2 done, 2 to do" in second.stderr
    third = train(*grid, "hydra/launcher=slurm", PATH=str(tmp_path))
    assert third.returncode == 0, "a finished sweep needs no launcher"
    assert "4 done, 0 to do" in third.stderr
    begun = [len([e for e in trace(run) if e["what"] == "begin"]) for run in run_dirs(tmp_path)]
    assert sorted(begun) == [1, 1, 2, 2]
    summaries = (sweep_dir(tmp_path) / "summaries.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in summaries] == [
        {"done": 2, "failed": 2},
        {"done": 4, "failed": 0},
    ], "a summary was written again for results it had seen"


def test_a_search_that_can_never_work_ends_before_its_first_trial(
    tmp_path: Path, train: Command
) -> None:
    result = train("-m", "hydra/sweeper=search", "lora.r=choice(2,4,0)", "seed=1")
    assert result.returncode == 1
    assert "lora.r=0 is too small" in result.stderr
    assert not (tmp_path / "sweeps").exists()


def test_an_invalid_job_is_named_before_any_starts(tmp_path: Path, train: Command) -> None:
    ranks = ",".join(str(rank) for rank in [*range(1, 37), 0, *range(37, 41)])
    result = train("-m", f"lora.r={ranks}")
    assert result.returncode == 1
    assert "1 of 41 jobs are invalid; nothing was started" in result.stderr
    assert "job 37 (lora.r=0" in result.stderr
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_a_typo_ends_in_one_line_that_names_the_known_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    command = command_line(tmp_path, "lora.rr=8", script=script)
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(
        "sizewise: lora.rr is no option. Did you mean lora.r=…? Known keys there: method"
    )


def test_a_dry_run_shows_the_plan_and_leaves_nothing(tmp_path: Path, train: Command) -> None:
    result = train("-m", "seed=1,2", "sweep.dry_run=true")
    assert result.returncode == 0
    assert "2 jobs; 0 done, 2 to do" in result.stderr
    assert "seed=2" in result.stdout
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.parametrize("place", ["outputs", "own"])
def test_a_dry_run_of_one_job_is_refused_before_anything_runs(
    tmp_path: Path, train: Command, place: str
) -> None:
    own = [f"hydra.run.dir={tmp_path / place}"] if place == "own" else []
    result = train("lora.r=4", "sweep.dry_run=true", *own)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(
        "sizewise: sweep.dry_run=true shows the plan of a sweep, and this is one job. Add -m, or "
        "sweep=NAME, to run many. What one job takes: sizewise plan "
    )
    assert "lora.r=4" in line
    assert line.endswith(" --time")
    assert not list((tmp_path / place).glob("*"))


def test_jobs_that_train_nothing_are_one_job_of_a_grid(tmp_path: Path, train: Command) -> None:
    result = train("-m", "lora=none,all_linear", "lora.r=4,8,16")
    assert result.returncode == 0, result.stderr
    assert len(run_dirs(tmp_path)) == 4


def test_a_named_sweep_is_a_union_that_the_command_narrows(tmp_path: Path, train: Command) -> None:
    options = tmp_path / "options" / "sweep"
    options.mkdir(parents=True)
    (options / "mine.yaml").write_text(
        "arms:\n  base: [model=mini, lora=none]\n  tuned: ['model=nano,micro', 'lora.r=4,8']\n"
    )
    result = train("--config-dir", str(options.parent), "sweep=mine", "lora.r=16")
    assert result.returncode == 0, result.stderr
    names = [run.name for run in run_dirs(tmp_path)]
    assert {run.parent.name.split("-")[0] for run in run_dirs(tmp_path)} == {"mine"}
    assert [name.split("_")[0] for name in names] == ["micro", "mini", "nano"]
    assert sum("lora-r16" in name for name in names) == 2


def test_odd_values_give_flat_names_and_reach_the_job(tmp_path: Path, train: Command) -> None:
    odd = ["a/b, [c]=d {dialogue}", "x" * 5000 + "{dialogue}"]
    prompts = ",".join(f"'{value}'" for value in odd)
    result = train("-m", f"dataset.prompt={prompts}")
    assert result.returncode == 0, result.stderr
    records = [json.loads((run / "outcome.json").read_text()) for run in run_dirs(tmp_path)]
    assert {record["config"]["dataset"]["prompt"] for record in records} == set(odd)


def test_hydras_basic_launcher_can_be_chosen(tmp_path: Path, train: Command) -> None:
    result = train("-m", f"seed=1,{RAISES},2", "hydra/launcher=basic")
    assert result.returncode == 1
    assert "1 of 3 jobs have no result" in result.stderr
    assert [row.state for row in sweep_status(sweep_dir(tmp_path))].count(JobState.DONE) == 2


def test_what_the_basic_launcher_cannot_do_is_refused(tmp_path: Path, train: Command) -> None:
    result = train("-m", "seed=1,2", "hydra/launcher=basic", "sweep.retries=2")
    assert result.returncode == 1
    assert "hydra/launcher=local, slurm or ray" in result.stderr
    assert not (tmp_path / "sweeps").exists()


def test_a_stopped_sweep_ends_with_130_and_goes_on(tmp_path: Path, train: Command) -> None:
    grid = ("-m", "seed=1,2,3", "hydra.launcher.n_jobs=1")
    with subprocess.Popen(
        command_line(tmp_path, *grid),
        env={**os.environ, "FAKE_SECONDS": "600"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=tmp_path,
    ) as process:
        wait_for(lambda: any(trace(run) for run in run_dirs(tmp_path)), 180)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "The same command continues" in said
    states = [row.state for row in sweep_status(sweep_dir(tmp_path))]
    assert sorted(states) == ["interrupted", "waiting", "waiting"]
    assert train(*grid).returncode == 0


def test_evaluate_scores_several_bases_in_one_multirun(tmp_path: Path) -> None:
    command = command_line(tmp_path, "-m", "model=nano,micro", script="evaluate.py")
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    records = [json.loads((run / "outcome.json").read_text()) for run in run_dirs(tmp_path)]
    assert [record["config"]["stage"] for record in records] == ["evaluate"] * 2
    assert [run.name.split("_")[0] for run in run_dirs(tmp_path)] == ["micro", "nano"]


@pytest.mark.parametrize("wish", [["--cfg", "job"], ["--help"]], ids=lambda wish: wish[0])
def test_looking_at_the_config_loads_nothing_heavy(tmp_path: Path, wish: list[str]) -> None:
    python, script, *overrides = command_line(tmp_path, "model=gemma4b", "lora.r=16")
    result = subprocess.run(
        [python, "-X", "importtime", script, *wish, *overrides],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0
    modules = {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines()}
    assert "omegaconf" in modules
    assert not modules & {"torch", "transformers", "optuna", "ray", "submitit", "wandb", "rich"}
    if wish == ["--help"]:
        check_help("train", result.stdout)
