"""What a sweep shows of running and ended jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from sizewise.sweep.status import print_status

from .conftest import Submit, run_local
from .fake import RAISES


def test_lines_and_table_name_every_job(
    tmp_path: Path, submitted: Submit, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [submitted(1), submitted(RAISES), submitted(2)]
    run_local(jobs[:2], tmp_path, progress=False)
    said = capsys.readouterr().err
    assert f"[1/2] {jobs[0].identity.slug}" in said
    assert "failed: ValueError: this job was made to fail" in said
    print_status(tmp_path)
    shown = capsys.readouterr().out
    assert "1 done, 1 failed, 1 waiting" in shown
    assert all(job.identity.slug in shown for job in jobs)


def test_the_live_view_shows_what_a_worker_does(
    tmp_path: Path,
    submitted: Submit,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    job = submitted(1)
    run_local([job], tmp_path, progress=True)
    said = capsys.readouterr().err
    assert "1/1" in said
    assert said.count(job.identity.slug) >= 2
