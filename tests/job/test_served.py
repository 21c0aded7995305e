"""``evaluation.engine=server``: a local server answers for a base and its adapter, after parity."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.tokens_server import tokens_server
from tests.job.runs import SMALL, run

from sizewise.composition.compose import compose_run
from sizewise.config import RunConfig
from sizewise.config.evaluation import ServerConfig
from sizewise.config.targets import recorded_config
from sizewise.errors import ConfigError, EvaluationError
from sizewise.evaluation.engine import check_parity, command_line, engine_up
from sizewise.job import served as served_module
from sizewise.job.answerers import kind_of_answerer
from sizewise.job.language_model import LanguageModel, ServedModel
from sizewise.job.preflight import preflight
from sizewise.models.sources import embedded_model_path
from sizewise.record.directories import RunDir
from sizewise.record.identity import run_identity
from sizewise.record.outcome import Outcome
from sizewise.record.predictions import read_predictions
from sizewise.verify import FAILED
from sizewise.verify.verify import verify_run

NANO = str(embedded_model_path("nano"))
SERVED = ("evaluation.engine=server", "evaluation.answer_validation=none")
PROGRAM = (
    f"{sys.executable} -m tests.evaluation.tokens_server {{model}} {{port}} [tuned={{adapter}}]"
)


def texts(root: Path, name: str, side: str) -> list[str]:
    path = RunDir(root / name).predictions(side, "icd10_dialogues")
    return [row.text for row in sorted(read_predictions(path), key=lambda row: row.id)]


def answered(outcome: Outcome) -> list[dict[str, float]]:
    assert outcome.tuned is not None
    sides = (outcome.base, outcome.tuned)
    return [dict(side["icd10_dialogues"].scores) for side in sides]


def test_a_server_gives_the_answers_of_base_and_adapter_in_one_pass(tmp_path: Path) -> None:
    local = run(tmp_path, "local", "evaluation.answer_validation=none")
    with tokens_server(NANO) as (state, url):
        served = run(tmp_path, "served", *SERVED, f"evaluation.server.base_url={url}")
        assert list(state.models) == [NANO], "the adapter was lent"
    assert len(state.lent) == 1
    assert {body["model"] for body in state.asked} == {NANO, *state.lent}
    assert all(isinstance(body["prompt"][0], int) for body in state.asked)
    for side in ("base", "tuned"):
        assert texts(tmp_path, "served", side) == texts(tmp_path, "local", side)
    for scores, own in zip(answered(served), answered(local), strict=True):
        assert scores["endpoint/parity"] == 1.0
        assert scores["endpoint/parity_examples"] == 8
        assert scores["icd10/exact_match"] == own["icd10/exact_match"]
        assert not any(name.startswith("perplexity/") for name in scores)
    assert any("gives none" in warning for warning in served.warnings)
    checks = verify_run(tmp_path / "served").checks
    assert [check for check in checks if check.status == FAILED] == []


def test_a_job_starts_its_server_and_ends_it(tmp_path: Path) -> None:
    outcome = run(tmp_path, "run", *SERVED, f"evaluation.server.command='{PROGRAM}'")
    assert [scores["endpoint/parity"] for scores in answered(outcome)] == [1.0, 1.0]
    assert (tmp_path / "run" / "server.log").is_file()
    assert not served_processes(), "none is left"


def served_processes() -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if "tests.evaluation.tokens_server" in words and parent == str(os.getpid()):
            found.append(folder.name)
    return found


def test_a_server_whose_answers_differ_does_not_count(tmp_path: Path) -> None:
    said = r"7 of 8 greedy answers.*numbers do not count"
    with tokens_server(NANO, spoil=1) as (_, url), pytest.raises(EvaluationError, match=said):
        run(tmp_path, "run", *SERVED, f"evaluation.server.base_url={url}")
    assert not RunDir(tmp_path / "run").outcome.exists()
    assert not list((tmp_path / "cache").rglob("measured.json")), "no other run reuses them"


def test_99_and_a_half_percent_are_enough() -> None:
    class Row:
        def __init__(self, text: str) -> None:
            self.id, self.text = "1", text

    rows: list[Any] = [Row("a")] * 200
    assert check_parity("x", ["a"] * 199 + ["b"], rows)["endpoint/parity"] == 0.995
    with pytest.raises(EvaluationError, match="198 of 200"):
        check_parity("x", ["a"] * 198 + ["b"] * 2, rows)


def test_a_server_that_takes_no_adapter_says_how_to_start_it(tmp_path: Path) -> None:
    said = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
    with tokens_server(NANO, runtime=False) as (_, url), pytest.raises(EvaluationError, match=said):
        run(tmp_path, "run", *SERVED, f"evaluation.server.base_url={url}")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-server {model}", "cannot be started.*no-such-server"),
        (f"{sys.executable} -c 'import sys; sys.exit(\"no GPU here\")'", "status 1.*no GPU here"),
    ],
)
def test_a_server_that_does_not_come_up_says_why(
    command: str, message: str, tmp_path: Path
) -> None:
    override = f"evaluation.server.command={json.dumps(command)}"
    with pytest.raises(EvaluationError, match=f"(?s){message}"):
        run(tmp_path, "run", *SERVED, override)


def test_the_command_is_filled_in_and_its_brackets_need_an_adapter() -> None:
    template = "vllm serve {model} --port {port} [--enable-lora --lora-modules tuned={adapter}]"
    assert command_line(template, "a/b", None, 7) == ["vllm", "serve", "a/b", "--port", "7"]
    found = command_line(template, "a/b", Path("/my run/adapter"), 7)
    assert found[5:] == ["--enable-lora", "--lora-modules", "tuned=/my run/adapter"]
    with pytest.raises(ConfigError, match="nothing"):
        command_line("vllm {nothing}", "a/b", None, 7)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ((), "either evaluation.server.base_url"),
        (("evaluation.server.base_url=http://x/v1", "lora=full"), "lora=full"),
        (("evaluation.server.base_url=http://x/v1", "generation.do_sample=true"), "do_sample"),
        (("evaluation.server.base_url=http://x/v1", "evaluation.candidates=train"), "candidates"),
        (("evaluation.server.base_url=ftp://x",), "is no address of a server"),
        (("evaluation.server.command='vllm {modl}'",), "modl"),
        (
            ("evaluation.server.command=x", "evaluation.server.api_key_env=NOT_SET"),
            "NOT_SET is not set.*evaluation.server.api_key_env",
        ),
        (("evaluation.server.api_key_env=sk-123",), "is no name of an environment variable"),
    ],
)
def test_what_a_server_cannot_answer_is_refused(more: tuple[str, ...], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        preflight(compose_run([*SMALL, *SERVED, *more]))


def test_a_dry_run_starts_no_server() -> None:
    given = (*SERVED, "evaluation.server.command=no-such-server", "debug=dry_run")
    assert kind_of_answerer(compose_run(given)) is LanguageModel
    assert kind_of_answerer(compose_run(given[:-1])) is ServedModel


def test_where_the_server_is_names_no_run_and_a_record_starts_none() -> None:
    def composed(*more: str) -> RunConfig:
        return compose_run([*SMALL, *more])

    plain, first = composed(), composed(*SERVED[:1], "evaluation.server.base_url=http://a/v1")
    second = composed(*SERVED[:1], "evaluation.server.command=anything")
    assert "engine" not in run_identity(plain).config["evaluation"]
    assert run_identity(first).hash == run_identity(second).hash != run_identity(plain).hash
    assert recorded_config(asdict(second)).evaluation.server.command is None


UNTRAINED = (*SERVED, "lora=none")


def test_a_server_put_right_after_failed_parity_is_asked_again(tmp_path: Path) -> None:
    with tokens_server(NANO) as (state, url):
        state.spoil = 8
        with pytest.raises(EvaluationError, match="numbers do not count"):
            run(tmp_path, "run", *UNTRAINED, f"evaluation.server.base_url={url}")
        left = RunDir(tmp_path / "run").predictions("base", "icd10_dialogues")
        assert not left.exists(), "no answer of it is kept"
        state.spoil = 0
        outcome = run(tmp_path, "run", *UNTRAINED, f"evaluation.server.base_url={url}")
    assert outcome.base["icd10_dialogues"].scores["endpoint/parity"] == 1.0


@pytest.mark.parametrize(("moved", "asked"), [(False, 2 + 8 - 4), (True, 8)])
def test_answers_of_another_server_are_not_kept_and_each_start_compares_anew(
    moved: bool, asked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_module, "PARITY_EXAMPLES", 2)
    with tokens_server(NANO, most=4) as (state, url), tokens_server(NANO) as (other, elsewhere):
        with pytest.raises(EvaluationError, match="no more"):
            run(tmp_path, "run", *UNTRAINED, f"evaluation.server.base_url={url}")
        assert len(state.asked) == 4
        state.asked, state.most = [], other.most
        there = elsewhere if moved else url
        run(tmp_path, "run", *UNTRAINED, f"evaluation.server.base_url={there}")
    assert len((other if moved else state).asked) == asked


def test_the_stand_of_a_split_counts_all_of_its_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []

    @contextmanager
    def bar(label: str, wanted: bool) -> Iterator[Any]:
        yield lambda done, total: told.append((done, total))

    monkeypatch.setattr(served_module, "PARITY_EXAMPLES", 2)
    monkeypatch.setattr(served_module, "evaluation_bar", bar)
    with tokens_server(NANO) as (_, url):
        run(tmp_path, "run", *UNTRAINED, f"evaluation.server.base_url={url}")
    assert told == [(done, 8) for done in range(2, 9)]


@pytest.mark.parametrize(
    ("more", "sent"),
    [((), {None, "Bearer none"}), (("evaluation.server.api_key_env=MINE",), {"Bearer my-key"})],
)
def test_a_server_is_sent_the_key_that_is_named_for_it_and_no_other(
    more: tuple[str, ...], sent: set[str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-somebody-else")
    monkeypatch.setenv("MINE", "my-key")
    with tokens_server(NANO) as (state, url):
        run(tmp_path, "run", *UNTRAINED, f"evaluation.server.base_url={url}", *more)
    assert state.keys == sent


def test_an_adapter_that_a_killed_run_has_left_is_unloaded_first(tmp_path: Path) -> None:
    with tokens_server(NANO) as (state, url):
        state.take = lambda name, adapter: state.models.update({name: "new"})  # type: ignore[method-assign]
        options = ServerConfig(base_url=url)
        with engine_up(options, NANO, tmp_path / "adapter", tmp_path / "log") as engine:
            name = engine.model
        state.models[name] = "old"
        with engine_up(options, NANO, tmp_path / "adapter", tmp_path / "log"):
            assert state.models[name] == "new"
    assert list(state.models) == [NANO]


STUB = """import http.server, os, pathlib, sys
pathlib.Path(sys.argv[2]).write_text(str(os.getpid()))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"data": [{"id": "base"}]}')
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_what_a_servers_script_has_started_ends_with_it(tmp_path: Path) -> None:
    (tmp_path / "stub.py").write_text(STUB)
    start = shlex.join([sys.executable, str(tmp_path / "stub.py")])
    (tmp_path / "serve.sh").write_text(f'{start} "$1" {shlex.quote(str(tmp_path / "pid"))}\ntrue\n')
    options = ServerConfig(command=f"bash {shlex.quote(str(tmp_path / 'serve.sh'))} {{port}}")
    try:
        with engine_up(options, "base", None, tmp_path / "log") as engine:
            port = int(engine.at.url.removesuffix("/v1").rpartition(":")[2])
            assert os.getsid(int((tmp_path / "pid").read_text())) != os.getsid(0)
        with socket.socket() as there:
            assert there.connect_ex(("127.0.0.1", port)) != 0, "nobody listens any more"
    finally:
        with suppress(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
