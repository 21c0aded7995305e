"""Jobs that share passes end as each would alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.job.comparing import answers, comparable
from tests.job.runs import SMALL

from sizewise.composition.compose import compose_run
from sizewise.job.execute import JobResult, execute
from sizewise.job.pack import execute_together
from sizewise.job.submit import Job, make_job, submit
from sizewise.record.identity import plain_config
from sizewise.record.state import JobState

UNEQUAL = (
    ("lora.r=2", "optimizer.lr=3e-3", "seed=1"),
    ("lora.r=8", "optimizer.lr=1e-3", "seed=2", "lora.dropout=0.1", "trainer.accumulate=2"),
    ("lora.r=4", "lora.method=rslora", "scheduler.name=linear", "seed=3", "lora.dropout=0.3"),
)
FAST = ("evaluation.timed_answers=0", "trainer.batch_size=4", "trainer.log_every=1")


def planned(root: Path, folder: str, *overrides: str) -> Job:
    """Submit a job in ``root/folder``; each of the two ways has its own cache."""
    cache = root / f"cache_{folder.rstrip('0123456789')}"
    cfg = compose_run([*SMALL, *FAST, f"paths.cache={cache}", *overrides])
    job = make_job(plain_config(cfg), root / folder, tuple(overrides))
    submit(job)
    return job


def together(jobs: list[Job]) -> dict[str, JobResult]:
    found: dict[str, JobResult] = {}
    execute_together([job.run_dir for job in jobs], lambda r: found.update({r.run_dir.name: r}))
    return found


def history(run_dir: Path) -> list[dict[str, Any]]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    assert lines
    return [{k: v for k, v in json.loads(line).items() if k != "sha256"} for line in lines]


def assert_equal(ours: Path, theirs: Path) -> None:
    """The same record, answers and learning curve, to rounding; the same files."""
    one, other = comparable(ours), comparable(theirs)
    assert rounded(one) == rounded(other)
    files = [sorted(str(p.relative_to(d)) for p in d.rglob("*")) for d in (ours, theirs)]
    assert files[0] == files[1]
    for path in (theirs / "predictions").glob("*.jsonl"):
        found, expected = answers(ours / "predictions" / path.name), answers(path)
        assert [row["text"] for row in found] == [row["text"] for row in expected]
    for found, expected in zip(history(ours), history(theirs), strict=True):
        assert rounded(found) == rounded(expected)


def rounded(value: Any) -> Any:
    """Figures as they are but for rounding: compared to five digits."""
    if isinstance(value, float):
        return pytest.approx(value, rel=2e-5, abs=2e-5)
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items() if "sha256" not in k}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def test_unequal_jobs_end_as_each_alone(tmp_path: Path) -> None:
    packed = [planned(tmp_path, f"packed{n}", *each) for n, each in enumerate(UNEQUAL)]
    alone = [planned(tmp_path, f"alone{n}", *each) for n, each in enumerate(UNEQUAL)]
    for job in alone:
        assert execute(job.run_dir).state == JobState.DONE
    results = together(packed)
    assert {r.state for r in results.values()} == {JobState.DONE}
    for ours, theirs in zip(packed, alone, strict=True):
        assert ours.identity == theirs.identity
        assert_equal(ours.run_dir, theirs.run_dir)
        cost = json.loads((ours.run_dir / "outcome.json").read_text())["cost"]
        assert cost["packed"] > 1.5
        assert cost["train_seconds"] > 0
        assert cost["energy_joules"] is None
