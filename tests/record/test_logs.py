"""The log of a job, and the one place where names of files are."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
from pathlib import Path

import pytest

import sizewise
from sizewise.record.directories import LOG_FILE, METRICS_FILE, RunDir
from sizewise.record.logs import job_log

CAPTURED = """
import logging, os, pathlib, sys
from sizewise.record.logs import job_log, output_to_log
folder = pathlib.Path(sys.argv[1])
with output_to_log(folder), job_log(folder):
    print("printed")
    os.system("echo from another program")
    logging.getLogger("x").info("logged")
print("outside")
"""


def test_a_worker_puts_everything_into_the_log_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CAPTURED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    text = RunDir(tmp_path).log.read_text()
    for line in ("printed", "from another program", "logged"):
        assert text.count(line) == 1
    assert done.stdout == "outside\n"


def test_a_job_in_this_process_logs_to_its_file_as_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = list(logging.getLogger().handlers)
    with job_log(tmp_path / "run"):
        logging.getLogger("x").info("said")
    logging.getLogger("x").info("later")
    assert (tmp_path / "run" / LOG_FILE).read_text().endswith("[x][INFO] said\n")
    assert "said" in caplog.text
    assert logging.getLogger().handlers == before


@pytest.mark.parametrize("name", [LOG_FILE, METRICS_FILE])
def test_a_name_of_a_file_is_written_in_one_place(name: str) -> None:
    root = Path(next(iter(sizewise.__path__)))
    found = [
        path.relative_to(root).as_posix()
        for path in sorted(root.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value == name
    ]
    assert found == ["record/directories.py"]
