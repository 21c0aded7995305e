"""A model behind a server: faults, retries, money, and what is counted."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.server import FakeServer, echo, serving

from sizewise.config import GenerationConfig, ModelConfig
from sizewise.config.endpoint import EndpointConfig, TokenPrices, check_base_url
from sizewise.data.example import Example, Message
from sizewise.errors import ConfigError, EvaluationError
from sizewise.evaluation import endpoint
from sizewise.evaluation.endpoint import Server, ask_all, make_pace, open_client
from sizewise.record.predictions import PredictionStore
from sizewise.record.spending import Ledger

FAST = EndpointConfig(concurrency=4, alone=2, timeout=0.5, retry_seconds=30)
PRICED = TokenPrices(prompt=1.0, cached=0.1, answer=2.0)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)


def examples(count: int) -> list[Example]:
    return [Example((Message("user", f"Say {i}"),), str(i), f"g{i}") for i in range(count)]


def make_server(
    url: str, folder: Path, options: EndpointConfig = FAST, budget: float | None = None
) -> Server:
    model = ModelConfig(name="m", path="m", family="endpoint", base_url=url, endpoint=options)
    ledger = Ledger(folder / "spending.jsonl", options.prices, budget)
    generation = GenerationConfig(max_new_tokens=8)
    return Server(open_client(model), "m", generation, options, ledger, make_pace(None))


def ask(state: FakeServer, folder: Path, count: int = 12, **options: Any) -> Any:
    budget = options.pop("budget", None)
    server = make_server(state.url, folder, replace(FAST, **options), budget)
    return ask_all(server, examples(count), PredictionStore(folder / "base.jsonl", "key"))


def test_every_example_is_asked_once_with_its_messages_and_the_limit(tmp_path: Path) -> None:
    with serving(FakeServer()) as state:
        predicted = ask(state, tmp_path)
    assert [p.text for p in predicted.predictions] == [str(i) for i in range(12)]
    assert sorted(state.questions) == sorted(f"Say {i}" for i in range(12))
    first = state.bodies[0]
    assert (first["max_tokens"], first["temperature"], first["model"]) == (8, 0.0, "m")
    assert all(math.isnan(p.log_prob) for p in predicted.predictions)


def test_answers_that_are_there_are_not_asked_again(tmp_path: Path) -> None:
    with serving(FakeServer()) as state:
        ask(state, tmp_path, 5)
        before = len(state.bodies)
        predicted = ask(state, tmp_path, 8)
    assert before == 5
    assert sorted(state.questions[5:]) == ["Say 5", "Say 6", "Say 7"]
    assert len(predicted.predictions) == 8


@pytest.mark.parametrize("fault", [429, 500, 503, "cut", "hang"])
@pytest.mark.parametrize("at", [0, 4])
def test_a_fault_that_passes_changes_no_answer(tmp_path: Path, fault: int | str, at: int) -> None:
    with serving(FakeServer()) as calm:
        wanted = ask(calm, tmp_path / "calm")
    kinds: tuple[Any, ...] = (None,) * at + (fault, fault)
    with serving(FakeServer(faults=kinds)) as state:
        found = ask(state, tmp_path / "faults")
    texts = [[(p.id, p.text, p.new_tokens) for p in x.predictions] for x in (wanted, found)]
    assert texts[0] == texts[1]
    assert len(state.bodies) == 14


def test_a_server_that_stays_down_is_given_up_with_what_there_is_kept(tmp_path: Path) -> None:
    def reply(body: dict[str, Any]) -> dict[str, Any]:
        last = echo(body)
        down = {"status": 500, "error": {"message": "down"}}
        return down if last["content"] == "7" else last

    with serving(FakeServer(reply)) as state, pytest.raises(EvaluationError, match="retry_seconds"):
        ask(state, tmp_path, retry_seconds=0.3)
    kept = PredictionStore(tmp_path / "base.jsonl", "key").read()
    assert {p.text for p in kept} >= {"0", "1", "2"}
    assert "7" not in {p.text for p in kept}


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "api_key_env"), (403, "may not use"), (404, "model.base_url")]
)
def test_a_refusal_for_good_says_what_to_do(tmp_path: Path, status: int, advice: str) -> None:
    with serving(FakeServer(faults=(status,))) as state, pytest.raises(EvaluationError) as caught:
        ask(state, tmp_path)
    assert advice in str(caught.value)
    assert len(state.bodies) == 1


def test_refused_cut_and_too_long_are_counted(tmp_path: Path) -> None:
    def reply(body: dict[str, Any]) -> dict[str, Any]:
        last = echo(body)["content"]
        error = {"message": "maximum context length is 8", "code": "context_length_exceeded"}
        return {
            "0": {"content": None, "refusal": "I cannot."},
            "1": {"content": "", "finish_reason": "content_filter"},
            "2": {"content": "long", "finish_reason": "length"},
            "3": {"status": 400, "error": error},
        }.get(last, {"content": last})

    with serving(FakeServer(reply)) as state:
        predicted = ask(state, tmp_path, 8)
    assert predicted.observed["endpoint/refused"] == 2 / 8
    assert predicted.observed["endpoint/too_long"] == 1 / 8
    assert [p.finished for p in predicted.predictions] == [True, True, False, False] + [True] * 4
    assert [p.text for p in predicted.predictions[:4]] == ["", "", "long", ""]
    said = " ".join(endpoint.warnings_of("data", predicted))
    assert "2 of 8 prompts were refused" in said
    assert "1 of 8 prompts were too long" in said


def test_reasoning_is_stripped_and_paid_for(tmp_path: Path) -> None:
    def reply(body: dict[str, Any]) -> dict[str, Any]:
        details = {"completion_tokens_details": {"reasoning_tokens": 40}}
        usage = {"prompt_tokens": 100, "completion_tokens": 50, **details}
        usage["prompt_tokens_details"] = {"cached_tokens": 60}
        return {"content": f"<think>Hm.</think> {echo(body)['content']}", "usage": usage}

    with serving(FakeServer(reply)) as state:
        predicted = ask(state, tmp_path, 3, prices=PRICED)
    row = predicted.predictions[0]
    assert (row.text, row.prompt_tokens, row.new_tokens) == ("0", 100, 50)
    assert predicted.observed["endpoint/reasoning_tokens"] == 40
    assert predicted.observed["endpoint/cost_per_1000"] == pytest.approx(40 + 6 + 100)


def test_confidence_comes_from_log_probabilities_where_the_server_gives_them(
    tmp_path: Path,
) -> None:
    def reply(body: dict[str, Any]) -> dict[str, Any]:
        tokens = [{"token": "a", "logprob": p, "top_logprobs": []} for p in (-0.5, -1.5)]
        return {**echo(body), "logprobs": {"content": tokens}}

    with serving(FakeServer(reply)) as state:
        predicted = ask(state, tmp_path, 1, log_probs=True)
    assert state.bodies[0]["logprobs"] is True
    assert predicted.predictions[0].token_log_prob == pytest.approx(-1.0)


def test_latency_is_measured_one_at_a_time_and_the_rest_goes_together(tmp_path: Path) -> None:
    state = FakeServer()
    state.pause = 0.05
    with serving(state):
        predicted = ask(state, tmp_path, 12, timeout=10)
    timed = [p.latency for p in predicted.predictions if not math.isnan(p.latency)]
    assert len(timed) == FAST.alone
    assert min(timed) >= 0.05
    assert 1 < state.together <= FAST.concurrency


def test_the_budget_is_never_passed_under_concurrency_and_over_restarts(tmp_path: Path) -> None:
    cost = PRICED.cost(prompt=10, answer=5)
    for budget in (0.25, 0.3):
        state = FakeServer()
        state.pause = 0.01
        with serving(state), pytest.raises(EvaluationError, match=r"model\.budget"):
            ask(state, tmp_path, 60, prices=PRICED, concurrency=16, budget=budget, timeout=10)
        kept = PredictionStore(tmp_path / "base.jsonl", "key").read()
        assert len(kept) * cost <= budget
        assert Ledger(tmp_path / "spending.jsonl", PRICED, None).spent <= budget
    assert kept


def test_a_request_that_was_never_settled_counts_in_full(tmp_path: Path) -> None:
    path = tmp_path / "spending.jsonl"
    first = Ledger(path, PRICED, 1.0)
    first.settle(first.reserve(10, 5), 0.001)
    first.reserve(100, 100)  # killed here
    path.write_text(path.read_text() + "[2, 0.")
    again = Ledger(path, PRICED, 1.0)
    assert again.spent == pytest.approx(0.001 + 0.3)
    with pytest.raises(EvaluationError, match="used up"):
        again.reserve(700, 0)


def test_a_damaged_ledger_is_no_licence_to_spend(tmp_path: Path) -> None:
    path = tmp_path / "spending.jsonl"
    path.write_text("nonsense\n[0, 1.0]\n")
    with pytest.raises(EvaluationError, match="not known"):
        Ledger(path, PRICED, 1.0)


def test_requests_keep_to_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    pace = make_pace(30)
    threads = [threading.Thread(target=pace) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == [0.0, 2.0, 4.0, 6.0]


@pytest.mark.parametrize(
    "url",
    [None, "", "api.example.com/v1", "https://user:hunter2@host/v1", "https://host/v1?key=hunter2"],
)
def test_an_address_is_one_and_holds_no_secret(url: str | None) -> None:
    with pytest.raises(ConfigError, match=r"model\.base_url") as caught:
        check_base_url(url)
    assert "hunter2" not in str(caught.value)


def test_a_key_in_place_of_its_name_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        EndpointConfig(api_key_env="sk-proj-123")
    assert "sk-proj" not in str(caught.value)
