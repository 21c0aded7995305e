"""The end of a sweep: a summary for every set of results, shown again where nothing is new."""

from __future__ import annotations

from pathlib import Path

import pytest

from sizewise.config import PricesConfig
from sizewise.config.register import to_run_config
from sizewise.errors import SweepError
from sizewise.job.submit import Job
from sizewise.record.outcome import write_outcome
from sizewise.record.state import JobFailure, record_failure
from sizewise.record.study import open_study
from sizewise.sweep.finish import finish
from sizewise.sweep.grid import sum_up
from sizewise.sweep.plan import Plan
from sizewise.sweep.search.search import report_search

from .conftest import Submit
from .fake import make_outcome

FUNCTION = f"{__name__}:summary"
calls: list[tuple[int, list[str], PricesConfig]] = []


def summary(
    sweep_dir: Path, run_dirs: list[Path], failures: list[JobFailure], *, prices: PricesConfig
) -> None:
    calls.append((len(run_dirs), [failure.reason for failure in failures], prices))
    (sweep_dir / "summary.txt").write_text(f"table of {len(run_dirs)}\n")


def crash(sweep_dir: Path, *rest: object, **prices: object) -> None:
    raise KeyError("no such column")


def done(job: Job) -> Job:
    write_outcome(make_outcome(to_run_config(job.config, check_types=False), 1.0), job.run_dir)
    return job


def plan_of(tmp_path: Path, *jobs: Job) -> Plan:
    return Plan(tmp_path, "mine", list(jobs), {}, len(jobs))


def test_a_finished_sweep_shows_its_table_again_and_makes_nothing(
    tmp_path: Path, submitted: Submit, capsys: pytest.CaptureFixture[str]
) -> None:
    calls.clear()
    plan, free = plan_of(tmp_path, done(submitted(1)), done(submitted(2))), PricesConfig()
    assert finish(plan, FUNCTION, free) == []
    assert capsys.readouterr().out == ""
    assert finish(plan, FUNCTION, free) == []
    assert capsys.readouterr().out == "table of 2\n"
    assert len(calls) == 1
    priced = PricesConfig(device_per_hour=2.0, api_per_1000_tokens=0.1)
    finish(plan, FUNCTION, priced)
    assert [call[2] for call in calls] == [free, priced], "other prices are another summary"


def test_another_reason_of_a_failure_is_news(tmp_path: Path, submitted: Submit) -> None:
    calls.clear()
    plan = plan_of(tmp_path, done(submitted(1)), submitted(2))
    for reason in ("no memory", "no memory", "no disk"):
        record_failure(plan.jobs[1].run_dir, reason)
        finish(plan, FUNCTION, PricesConfig())
    assert [call[1] for call in calls] == [["no memory"], ["no disk"]]


def test_a_report_that_fails_does_not_hide_the_jobs_that_failed(
    tmp_path: Path, submitted: Submit
) -> None:
    calls.clear()
    plan, free = plan_of(tmp_path, done(submitted(1)), submitted(2)), PricesConfig()
    record_failure(plan.jobs[1].run_dir, "no memory")
    with pytest.raises(SweepError) as found:
        sum_up(plan, f"{__name__}:crash", free)
    said = str(found.value)
    assert "1 of 2 jobs have no result" in said
    assert said.index("no memory") < said.index("KeyError: 'no such column'")
    log = tmp_path / "report_error.log"
    assert str(log) in said
    assert "Traceback" in log.read_text()
    assert "in crash" in log.read_text()
    finish(plan, FUNCTION, free)
    assert len(calls) == 1, "a report that failed is made again"
    assert not log.exists()


def test_a_report_of_finished_jobs_that_fails_is_an_error(
    tmp_path: Path, submitted: Submit
) -> None:
    plan = plan_of(tmp_path, done(submitted(1)))
    with pytest.raises(SweepError, match=r"^The report could not be made"):
        sum_up(plan, f"{__name__}:crash", PricesConfig())


def test_a_search_shows_its_best_trial_before_a_report_that_fails(
    tmp_path: Path, submitted: Submit, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(tmp_path, done(submitted(1)))
    study = open_study(tmp_path, ["minimize"], "random", "none", 0)
    trial = study.ask()
    trial.set_user_attr("overrides", ["seed=1"])
    study.tell(trial, 1.5)
    function, prices = f"{__name__}:crash", PricesConfig()
    with pytest.raises(SweepError, match="no such column"):
        report_search(study, ["objective"], tmp_path, plan, function, prices)
    assert "seed=1" in capsys.readouterr().out
