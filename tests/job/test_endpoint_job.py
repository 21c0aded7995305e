"""A whole job that a server answers: one more model in the same path, record and cache."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.e2e.commands import ROOT, begin
from tests.evaluation.server import FakeServer, serving
from tests.job.runs import SMALL

from sizewise.composition.compose import compose_run
from sizewise.errors import ConfigError
from sizewise.job.finished import of_finished_run
from sizewise.job.run import run_job
from sizewise.record.identity import run_identity
from sizewise.record.outcome import Outcome

KEY = "sk-this-is-a-secret-of-the-test"
ENDPOINT = (*SMALL, "model=endpoint", "model.path=org/big", "lora=none")
PRICES = ("model.endpoint.prices.prompt=1", "model.endpoint.prices.answer=2")


def overrides(state: FakeServer, root: Path, *more: str) -> list[str]:
    return [*ENDPOINT, f"model.base_url={state.url}", f"paths.cache={root / 'cache'}", *more]


def answer(state: FakeServer, root: Path, name: str, *more: str) -> Outcome:
    return run_job(compose_run(overrides(state, root, *more)), root / name)


def test_a_server_answers_a_job_and_a_second_run_asks_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(FakeServer(lambda body: {"content": "G43.009"})) as state:
        outcome = answer(state, tmp_path, "first", *PRICES, "dataset.few_shot=1")
        asked = len(state.bodies)
        again = answer(state, tmp_path, "second", *PRICES, "dataset.few_shot=1", "seed=7")
    scores = outcome.base["icd10_dialogues"].scores
    assert outcome.tuned is None
    assert outcome.model.family == "endpoint"
    assert outcome.validated == {}, "a server that is paid by the answer is asked for the test only"
    assert not any(name.startswith("perplexity/") for name in scores)
    assert scores["endpoint/cost_per_1000"] == pytest.approx(10 + 10)
    assert outcome.cost.money == pytest.approx(asked * 0.02)
    assert len(state.bodies) == asked
    assert again.base["icd10_dialogues"].scores["icd10/exact_match"] == scores["icd10/exact_match"]
    assert again.cost.money == 0.0
    roles = [message["role"] for message in state.bodies[0]["messages"]]
    assert roles[-3:] == ["user", "assistant", "user"]
    assert state.headers[0]["authorization"] == f"Bearer {KEY}"
    texts = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(texts) > 5
    assert not [p for p in texts if KEY.encode() in p.read_bytes()]


def test_how_it_is_asked_is_no_part_of_a_run_but_who_is_asked_is() -> None:
    def name(*more: str) -> str:
        given = ["model.base_url=http://127.0.0.1:1/v1", *more]
        return run_identity(compose_run([*ENDPOINT, *given])).hash

    assert name() == name("model.endpoint.concurrency=2", "model.budget=3", *PRICES[:0])
    assert len({name(), name("model.path=org/other"), name("model.base_url=http://b/v1")}) == 3


def test_other_models_keep_the_names_they_had_before_there_were_servers() -> None:
    canonical = run_identity(compose_run(SMALL)).config["model"]
    assert not {"endpoint", "base_url", "budget", "parameters"} & canonical.keys()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("lora=all_linear",), "lora=lora"),
        (("quantization=nf4",), "quantization=nf4"),
        (("generation.top_k=5",), r"generation\.top_k"),
        (("model.budget=1",), r"model\.endpoint\.prices"),
        (("model.base_url=https://api.example.com/v1",), "SIZEWISE_TEST_KEY is not set"),
    ],
)
def test_what_a_server_cannot_do_is_refused_before_anything_is_sent(
    tmp_path: Path, more: tuple[str, ...], named: str
) -> None:
    given = (*more, "model.endpoint.api_key_env=SIZEWISE_TEST_KEY")
    with serving(FakeServer()) as state, pytest.raises(ConfigError, match=named):
        answer(state, tmp_path, "refused", *given)
    assert state.bodies == []


def test_a_dry_run_sends_nothing_and_says_who_stands_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = [*ENDPOINT, "model.base_url=https://api.example.com/v1", f"paths.cache={tmp_path}"]
    outcome = run_job(compose_run([*given, "dry_run=true"]), tmp_path / "dry")
    assert outcome.base["icd10_dialogues"].examples == 8
    assert "A stand-in answers for the server" in caplog.text


def test_a_server_elsewhere_that_only_a_record_names_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record would choose where texts go, and which of the environment's keys with them."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(FakeServer(lambda body: {"content": "G43.009"})) as state:
        answer(state, tmp_path, "run")
        own = of_finished_run(compose_run([f"run={tmp_path / 'run'}"], "evaluate"))
        assert own.model.base_url == state.url
        config = tmp_path / "run" / "config.yaml"
        config.write_text(config.read_text().replace(state.url, "https://elsewhere.example/v1"))
    again = [f"run={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match=r"model\.base_url .*elsewhere.*trust=true"):
        of_finished_run(compose_run(again, "evaluate"))
    trusted = of_finished_run(compose_run([*again, "trust=true"], "evaluate"))
    assert trusted.model.base_url == "https://elsewhere.example/v1"


def test_a_killed_job_asks_none_of_its_kept_answers_again(tmp_path: Path) -> None:
    state = FakeServer(lambda body: {"content": "G43.009"})
    state.pause = 0.2
    with serving(state):
        given = overrides(state, tmp_path, "dataset.max_test=24", "model.endpoint.alone=0")
        given += ["model.endpoint.concurrency=2", f"hydra.run.dir={tmp_path / 'run'}"]
        process = begin([str(ROOT / "train.py"), *given], tmp_path, {})
        while len(state.answered) < 8:
            assert process.is_alive()
            time.sleep(0.02)
        process.kill()
        process.join()
        outcome = run_job(compose_run(given[:-1]), tmp_path / "run")
    assert outcome.base["icd10_dialogues"].examples == 24
    assert len(set(state.questions)) == 24
    assert len(state.questions) <= 24 + 2  # the two under way when it was killed
