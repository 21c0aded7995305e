from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from tests.waiting import wait_for

from sizewise.record import claims
from sizewise.record.claims import Owner, attempts, holder, this_process, try_claim
from sizewise.signals import SignalHandlers

HOLD = "import sys; from pathlib import Path; from sizewise.record.claims import try_claim;"
HOLD += "print(try_claim(Path(sys.argv[1])) is not None, flush=True); sys.stdin.read()"


def elsewhere(directory: Path, age: float, **changes: str) -> None:
    """Write the claim of a process on another machine that touched it ``age`` seconds ago."""
    owner = replace(this_process(), machine="another", host="node7", **changes)
    path = directory / ".claims" / "000001.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(asdict(owner)))
    os.utime(path, (time.time() - age, time.time() - age))


def test_a_live_process_keeps_its_claim_and_gives_it_up(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert try_claim(tmp_path) is None
        owner = holder(tmp_path)
        assert owner is not None
        assert owner.pid == other.pid
        other.kill()
    claim = try_claim(tmp_path)
    assert claim is not None, "the claim of a dead process was not taken over"
    assert attempts(tmp_path) == 2
    claim.release("failed")
    assert holder(tmp_path) is None
    assert json.loads((tmp_path / ".claims" / "000002.json").read_text())["released"] == "failed"


def test_one_of_many_gets_a_dead_claim(tmp_path: Path) -> None:
    elsewhere(tmp_path, age=10_000)
    with ThreadPoolExecutor(16) as pool:
        taken = [claim for claim in pool.map(lambda _: try_claim(tmp_path), range(64)) if claim]
    assert len(taken) == 1
    taken[0].release("done")


def test_another_machine_holds_as_long_as_it_beats(tmp_path: Path) -> None:
    elsewhere(tmp_path / "fresh", age=10)
    elsewhere(tmp_path / "stale", age=claims.STALE_SECONDS + 10)
    assert try_claim(tmp_path / "fresh") is None
    assert str(holder(tmp_path / "fresh")).endswith("on node7")
    claim = try_claim(tmp_path / "stale")
    assert claim is not None
    claim.release("done")


def test_a_claim_of_a_host_whose_clock_is_a_day_ahead_blocks_no_longer_than_another(
    tmp_path: Path,
) -> None:
    elsewhere(tmp_path, age=-86_400)
    path = tmp_path / ".claims" / "000001.json"
    assert try_claim(tmp_path) is None
    assert abs(path.stat().st_mtime - time.time()) < claims.STALE_SECONDS, "it is dated ahead"
    os.utime(path, (time.time() + 86_400, time.time() + 86_400))  # it lives, and beats
    assert holder(tmp_path) is not None
    seen = path.stat().st_mtime - claims.STALE_SECONDS - 1  # so long it has been silent
    os.utime(path, (seen, seen))
    claim = try_claim(tmp_path)
    assert claim is not None
    claim.release("done")


def test_a_claim_with_an_unknown_field_is_read_and_one_without_a_field_is_torn(
    tmp_path: Path,
) -> None:
    elsewhere(tmp_path, age=10)
    path = tmp_path / ".claims" / "000001.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "rack": 7}))
    assert str(holder(tmp_path)).endswith("on node7")
    del record["machine"]
    path.write_text(json.dumps(record))
    assert str(holder(tmp_path)).endswith("on an unknown machine")


def test_a_claim_is_given_up_although_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = try_claim(tmp_path)
    assert claim is not None

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(claims, "write_atomically", full)
    claim.release("failed")
    assert holder(tmp_path) is None
    again = try_claim(tmp_path)
    assert again is not None
    monkeypatch.undo()
    again.release("done")


def test_who_may_only_read_sees_who_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(tmp_path / "fresh", age=10)
    elsewhere(tmp_path / "stale", age=claims.STALE_SECONDS + 10)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(claims.Path, "touch", refuse)
    assert str(holder(tmp_path / "fresh")).endswith("on node7")
    assert holder(tmp_path / "stale") is None
    with pytest.raises(PermissionError):
        try_claim(tmp_path / "stale")


def test_a_requeued_job_takes_over_from_its_earlier_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    elsewhere(tmp_path, age=1, queue_job="77")
    assert try_claim(tmp_path) is None, "another node of the same job is no earlier start of it"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    claim = try_claim(tmp_path)
    assert claim is not None
    claim.release("done")


def test_a_reused_process_number_is_not_the_owner(tmp_path: Path) -> None:
    path = tmp_path / ".claims" / "000001.json"
    path.parent.mkdir()
    path.write_text(json.dumps(asdict(replace(this_process(), started="1"))))
    assert holder(tmp_path) is None


def test_a_torn_claim_counts_until_it_is_old(tmp_path: Path) -> None:
    path = tmp_path / ".claims" / "000001.json"
    path.parent.mkdir()
    path.write_text("{")
    assert try_claim(tmp_path) is None
    os.utime(path, (0, 0))
    claim = try_claim(tmp_path)
    assert claim is not None
    claim.release("done")


def test_a_held_claim_is_kept_fresh_and_its_loss_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.02)
    stopped: list[int] = []
    with SignalHandlers(lambda number, _: stopped.append(number)):
        claim = try_claim(tmp_path)
        assert claim is not None
        os.utime(claim.path, (0, 0))
        wait_for(lambda: claim.path.stat().st_mtime > 0)
        (claim.path.parent / "000002.json").write_text(json.dumps(asdict(this_process())))
        wait_for(lambda: stopped)
    assert stopped == [signal.SIGINT]
    assert claim.lost
    claim.release("done")
    assert "released" not in json.loads(claim.path.read_text())


def test_a_beat_that_fails_is_not_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.02)
    utime, beats = os.utime, []

    def unreliable(path: Path, *times: object) -> None:
        beats.append(path)
        if len(beats) == 1:
            raise OSError("the file server does not answer")
        utime(path, *times)  # type: ignore[arg-type]

    monkeypatch.setattr(claims.os, "utime", unreliable)
    claim = try_claim(tmp_path)
    assert claim is not None
    utime(claim.path, (0, 0))
    wait_for(lambda: claim.path.stat().st_mtime > 0)
    assert len(beats) >= 2
    claim.release("done")


LOSES = """
import signal, sys, time
from pathlib import Path
from sizewise.record import claims
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a worker of a pool does
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
claims.HEARTBEAT_SECONDS = 0.02
claim = claims.try_claim(Path(sys.argv[1]))
(claim.path.parent / "000002.json").write_text("{}")
time.sleep(20)
"""


def test_a_worker_that_lost_its_claim_stops_although_it_ignores_ctrl_c(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LOSES, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == 7


def test_an_owner_reads_like_a_sentence() -> None:
    owner = Owner("t", "host", "m", 12, "3")
    assert str(owner) == "process 12 on host"
