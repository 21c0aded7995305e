"""The plan of a sweep, from a composer that needs no files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sizewise.config import SweepConfig
from sizewise.config.register import to_run_config
from sizewise.errors import SweepError
from sizewise.files import sealed, unsealed, write_json
from sizewise.job.submit import check_same, load_job, make_job, submit
from sizewise.record.directories import RunDir
from sizewise.record.outcome import write_outcome
from sizewise.sweep.plan import Plan, make_plan

from .conftest import job_config
from .fake import make_outcome


class Composer:
    """Understands seed=, model= and lora= of a job, and nothing else."""

    def compose(self, overrides: list[str]) -> dict[str, Any]:
        config = job_config()
        for text in overrides:
            key, _, value = text.partition("=")
            if key == "model":
                config["model"]["name"] = config["model"]["path"] = value
            elif key == "lora":
                config["lora"]["method"] = value
            else:
                config[key] = int(value)
        return config


def plan(tmp_path: Path, *grid: tuple[str, ...], **options: Any) -> Plan:
    composer: Any = Composer()
    return make_plan(grid, composer, tmp_path, SweepConfig(**options), "sweep.fake:job")


GRID = [(f"seed={seed}", f"model={model}") for seed in (1, 2) for model in ("a", "b")]


def order(found: Plan) -> list[str]:
    return [f"{job.config['model']['name']}{job.config['seed']}" for job in found.jobs]


def test_jobs_that_share_a_base_follow_one_another(tmp_path: Path) -> None:
    assert order(plan(tmp_path, *GRID)) == ["a1", "a2", "b1", "b2"]
    assert order(plan(tmp_path, *GRID, order="given")) == ["a1", "b1", "a2", "b2"]


def test_equal_jobs_are_joined(tmp_path: Path) -> None:
    found = plan(tmp_path, ("seed=1", "lora=none"), ("seed=2", "lora=none"), ("seed=1",))
    assert (found.asked, len(found.jobs)) == (3, 2)


def test_what_is_done_is_left_out_and_a_limit_counts_the_rest(tmp_path: Path) -> None:
    first = plan(tmp_path, *GRID).jobs[0]
    submit(first)
    write_outcome(make_outcome(to_run_config(first.config, check_types=False), 1.0), first.run_dir)
    found = plan(tmp_path, *GRID, limit=2)
    assert [len(found.done), len(found.to_do)] == [1, 2]
    assert order(found) == ["a1", "a2", "b1"]


def test_every_invalid_job_is_named(tmp_path: Path) -> None:
    with pytest.raises(SweepError) as error:
        plan(tmp_path, ("seed=1",), ("seed=-1",), ("lora=other",))
    said = str(error.value)
    assert "2 of 3 jobs are invalid; nothing was started" in said
    assert "job 2 (seed=-1): seed=-1 is too small" in said
    assert "job 3 (lora=other): lora.method='other' is not known" in said


def test_one_reason_for_many_jobs_is_said_once(tmp_path: Path) -> None:
    with pytest.raises(SweepError) as error:
        plan(tmp_path, *((f"seed={n}", "lora=other") for n in range(1, 41)))
    assert "40 of 40 jobs are invalid" in str(error.value)
    assert "job 1 (seed=1 lora=other) and 39 more: lora.method='other' is not known" in str(
        error.value
    )


def test_a_job_knows_its_sweep_and_not_the_grid(tmp_path: Path) -> None:
    arms = {"a": ["seed=1"]}
    (job,) = plan(tmp_path, ("seed=1",), name="mine", arms=arms).jobs
    assert job.config["sweep"] == {"name": "mine", "dir": str(tmp_path)}


def test_the_job_runs_what_was_submitted(tmp_path: Path) -> None:
    config = job_config(seed=3)
    submit(make_job(config, tmp_path / "job", function="sweep.fake:job"))
    config["optimizer"]["lr"] = 9.0  # the file changes while the job waits in a queue
    loaded, function = load_job(tmp_path / "job")
    assert (loaded.seed, loaded.optimizer.lr) == (3, 2e-4)
    assert function.__name__ == "job"


def test_another_configuration_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    submit(make_job(job_config(seed=3), tmp_path))
    check_same(make_job(job_config(seed=3), tmp_path))
    with pytest.raises(SweepError, match="seed: 3 → 4"):
        submit(make_job(job_config(seed=4), tmp_path))


def test_a_run_that_another_version_named_otherwise_is_gone_on_with(tmp_path: Path) -> None:
    """Its configuration is the same; only the hash that was stored is of another making."""
    job = make_job(job_config(seed=3), tmp_path)
    submit(job)
    record = unsealed(json.loads(RunDir(job.run_dir).job.read_text()))
    write_json(RunDir(job.run_dir).job, sealed({**record, "identity": "0123456789ab"}))
    check_same(job)
    with pytest.raises(SweepError, match="seed: 3 → 4"):
        check_same(replace(make_job(job_config(seed=4), tmp_path), run_dir=job.run_dir))


def test_a_function_that_is_not_there_is_named(tmp_path: Path) -> None:
    submit(make_job(job_config(), tmp_path, function="sizewise.nowhere:job"))
    with pytest.raises(SweepError, match=r"sizewise\.nowhere:job cannot be imported"):
        load_job(tmp_path)
