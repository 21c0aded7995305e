"""Who may look at the app, and what may be asked of it there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from sizewise.app.evaluations import check_named, plan_evaluation
from sizewise.app.exploring import explore_overrides
from sizewise.app.launch import SCRIPT, TOKEN, app_command, launch, may_enter, same_origin
from sizewise.errors import ConfigError
from sizewise.report.comparison.runs import load_runs


def test_every_start_has_a_token_of_its_own_in_the_printed_address_only(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []

    class Process:
        def __init__(self, command: list[str], env: dict[str, str]) -> None:
            started.append((command, env))

        def wait(self) -> int:
            return 0

    monkeypatch.setattr("sizewise.app.launch.subprocess.Popen", Process)
    for _ in range(2):
        assert launch(app_command(sweep, 8599), 8599) == 0
    lines = capsys.readouterr().out.splitlines()
    tokens = [env[TOKEN] for _, env in started]
    assert len(set(tokens)) == 2
    for line, token, (command, _) in zip(lines, tokens, started, strict=True):
        assert len(token) >= 32
        assert f"http://127.0.0.1:8599/?token={token} " in line
        assert not any(token in word for word in command), "arguments are seen by every user"


def test_only_the_token_of_this_start_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "right")
    assert may_enter("right")
    assert [may_enter(given) for given in (None, "", "righ", "right ", "wröng")] == [False] * 5
    for unset in ("", None):
        monkeypatch.delenv(TOKEN) if unset is None else monkeypatch.setenv(TOKEN, unset)
        assert [may_enter(given) for given in (None, "", "right")] == [False] * 3


@pytest.mark.parametrize(
    ("origin", "host", "own"),
    [
        ("http://127.0.0.1:8501", "127.0.0.1:8501", True),
        ("http://localhost:9000", "localhost:9000", True),
        (None, "127.0.0.1:8501", True),
        ("http://127.0.0.1:8888", "127.0.0.1:8501", False),
        ("http://localhost:8501", "127.0.0.1:8501", False),
        ("http://evil.example", "127.0.0.1:8501", False),
        ("http://evil.example:8501", "evil.example:8501", False),
        ("null", "127.0.0.1:8501", False),
        ("", "", False),
    ],
)
def test_only_pages_of_the_app_itself_may_connect(origin: str | None, host: str, own: bool) -> None:
    headers = {"host": host} | ({} if origin is None else {"Origin": origin})
    assert same_origin(headers) is own


@pytest.mark.parametrize("given", [None, "wrong", ""])
def test_nothing_is_shown_without_the_token(
    given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "right")
    page = AppTest.from_file(str(SCRIPT))
    if given is not None:
        page.query_params["token"] = given
    page.run()
    assert [error.value for error in page.error] == [
        "Open the whole address that `sizewise app` has printed: it ends in a token."
    ]
    assert not page.exception
    assert not page.markdown
    assert len(page.main) == 1, "the message is all there is"


def test_who_brought_the_token_sees_the_pages_and_keeps_it(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "right")
    monkeypatch.setattr(sys, "argv", ["main.py", str(sweep)])
    page = AppTest.from_file(str(SCRIPT), default_timeout=120)
    page.query_params["token"] = "right"
    page.run()
    assert not page.error
    assert page.query_params["token"] in ("right", ["right"])
    del page.query_params["token"]  # as when another page is chosen
    page.run()
    assert not page.error
    assert page.query_params["token"] in ("right", ["right"]), "a reload finds it in the address"


ALLOWED = (
    "metric=[rouge]", "metric=[rouge, label]", "eval_dataset=[counsel_chat]", "evaluation=x",
    "eval_dataset.counsel_chat.source.path=/some where/rows.csv", "evaluation.candidates=train",
    "metric.memorization.n=4", "metric=rouge",
)  # fmt: skip
REFUSED: tuple[str, ...] = (
    "+metric.x._target_=os.system", "metric.x._target_=sizewise.metrics.length.Length",
    "metric={x: {_target_: os.system}}", "metric=[../../evil]", "metric@model=x", "trust=true",
    "model.trust_remote_code=true", "hydra.launcher=x", "callbacks.x=1", "paths.cache=/x", "--help",
    "eval_dataset.a.source.path=${oc.env:HOME}", "~metric", "logger=csv", "run=/x", "metricx.a=1",
    "metric.x={_target_: os.system}", "eval_dataset/../model=x", "",
    "evaluation.engine=server", "evaluation.server.command=sh -c 'x'",
    "evaluation.server={command: x}", "evaluation.server.base_url=http://evil.example/v1",
)  # fmt: skip


def test_only_named_options_can_be_given_to_an_evaluation(sweep: Path, tmp_path: Path) -> None:
    run = next(r for r in load_runs([sweep]).runs if r.outcome.tuned)
    groups = ("metric", "eval_dataset", "evaluation")
    check_named(ALLOWED, groups)
    for text in REFUSED:
        with pytest.raises(ConfigError, match="only options of metric, eval_dataset"):
            plan_evaluation(run, tmp_path, [text])
    plan = plan_evaluation(run, tmp_path, ["metric=[rouge]"])
    assert "trust=true" not in plan.command
    assert "trust=true" in plan_evaluation(run, tmp_path, (), trust=True).command


@pytest.mark.parametrize("text", ["model.trust_remote_code=true", "metric=[rouge]", "trust=true"])
def test_only_data_and_a_model_can_be_explored(text: str) -> None:
    with pytest.raises(ConfigError, match="only options of dataset, model"):
        explore_overrides(["model=nano", text])


@pytest.mark.parametrize("port", [99_999_999, 65_536, 0, -1])
def test_a_port_that_is_none_is_one_message(port: int, sweep: Path) -> None:
    with pytest.raises(ConfigError, match=f"--port {port} is no port"):
        app_command(sweep, port)


def test_a_wrong_port_ends_the_command_with_that_message(sweep: Path) -> None:
    command = [sys.executable, "-m", "sizewise.commands.main", "app", str(sweep)]
    done: Any = subprocess.run([*command, "--port", "99999999"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == ("sizewise: --port 99999999 is no port. Give one from 1 to 65535.\n")
