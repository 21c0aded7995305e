"""A job whose answers are judged: asked once, in both orders, cached, and its cost recorded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.evaluation.server import FakeServer, serving
from tests.job.runs import SMALL
from typer.testing import CliRunner

from sizewise.commands.main import app
from sizewise.composition.compose import compose_run
from sizewise.composition.inputs import pinned
from sizewise.config import RunConfig
from sizewise.errors import ConfigError, EvaluationError
from sizewise.job.finished import of_finished_run
from sizewise.job.others.judge import compare_with_people
from sizewise.job.run import run_job
from sizewise.record.identity import run_identity
from sizewise.record.outcome import Outcome, write_outcome
from sizewise.record.predictions import read_predictions
from sizewise.report.comparison.runs import load_runs
from sizewise.report.ratings.judges import RatedPair, read_agreements
from sizewise.report.ratings.pairs import make_matchup, present, sides_of
from sizewise.report.ratings.store import RatingStore
from sizewise.verify.verify import verify_run

DATA = "icd10_dialogues"
CHOSEN = (
    *SMALL, "lora=none", "metric=[judge,icd10,efficiency]", "dataset.primary=judge/win",
    "evaluation.timed_answers=0",
)  # fmt: skip


def longer(body: dict[str, Any]) -> dict[str, Any]:
    """Judge: the longer answer is better, whatever its place; equal lengths are a tie."""
    text = body["messages"][-1]["content"]
    first = text.partition("[Answer A]\n")[2].partition("\n[End")[0]
    second = text.partition("[Answer B]\n")[2].partition("\n[End")[0]
    by_length = (len(first) > len(second)) - (len(first) < len(second))
    return {"content": {1: "A", -1: "B", 0: "C"}[by_length]}


def judges(url: str, *more: str) -> list[str]:
    server = f"{{base_url: '{url}', path: org/j, endpoint: {{prices: {{prompt: 1, answer: 2}}}}}}"
    return [*CHOSEN, f"metric.judge.models={{near: mini, far: {server}}}", *more]


def planned(root: Path, *overrides: str) -> RunConfig:
    """A job as a sweep plans it, with its judges spelt out."""
    cfg = compose_run([*overrides, f"paths.cache={root / 'cache'}"])
    return replace(cfg, metric=pinned({"metric": cfg.metric})["metric"])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("judged")


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with serving(FakeServer(longer)) as state:
        yield state


@pytest.fixture(scope="module")
def outcome(root: Path, server: FakeServer) -> Outcome:
    return run_job(planned(root, *judges(server.url)), root / "nano")


def test_every_pair_is_asked_in_both_orders_and_scored(
    root: Path, server: FakeServer, outcome: Outcome
) -> None:
    rows = read_predictions(root / "nano" / outcome.base[DATA].predictions.path)
    asked = [row for row in rows if row.text.strip() != row.reference]
    assert len(server.bodies) == 2 * len(asked)
    for row in rows:
        first, second = (row.scores.get(f"judged/far/{place}") for place in ("first", "second"))
        size = (len(row.text) > len(row.reference)) - (len(row.text) < len(row.reference))
        assert first == second == (size + 1) / 2, "this judge knows no order"
        assert row.scores["judge/win"] == pytest.approx(
            (size + 1) / 4
            + (row.scores["judged/near/first"] + row.scores["judged/near/second"]) / 4
        )
    scores = outcome.base[DATA].scores
    assert scores["judge/flipped_far"] == 0.0
    assert {"judge/win_near", "judge/first_near", "judge/unread_far"} <= scores.keys()


def test_what_judging_cost_is_recorded_beside_the_cost_of_the_run(outcome: Outcome) -> None:
    questions = 2 * outcome.base[DATA].examples
    assert outcome.cost.judge_money == pytest.approx(questions * (10 * 1 + 5 * 2) / 1000)
    assert outcome.cost.judge_seconds is not None
    assert outcome.cost.judge_seconds > 0
    assert outcome.cost.money is None


def test_a_second_run_asks_no_judge_again(root: Path, server: FakeServer, outcome: Outcome) -> None:
    before = len(server.bodies)
    cfg = planned(root, *judges(server.url, "metric=[judge,icd10,length]"))
    again = run_job(cfg, root / "again")
    assert len(server.bodies) == before
    assert again.base[DATA].scores["judge/win"] == outcome.base[DATA].scores["judge/win"]


def test_a_judged_run_is_verified_without_asking(
    root: Path, server: FakeServer, outcome: Outcome
) -> None:
    before = len(server.bodies)
    checks = {check.name: check for check in verify_run(root / "nano").checks}
    assert checks[f"base on {DATA}: metric judge"].status == "ok"
    assert len(server.bodies) == before


def test_the_opponent_may_be_another_run(root: Path, server: FakeServer, outcome: Outcome) -> None:
    more = ("model=micro", f"metric.judge.against={root / 'nano'}")
    found = run_job(planned(root, *judges(server.url, *more)), root / "micro")
    rows = read_predictions(root / "micro" / found.base[DATA].predictions.path)
    opponents = {
        r.id: r for r in read_predictions(root / "nano/predictions" / f"base.{DATA}.jsonl")
    }
    for row in rows:
        mine, theirs = len(row.text), len(opponents[row.id].text)
        if row.text != opponents[row.id].text:
            assert row.scores["judged/far/first"] == ((mine > theirs) - (mine < theirs) + 1) / 2
    with pytest.raises(ConfigError, match=r"metric\.judge\.against"):
        run_job(planned(root, *judges(server.url, "metric.judge.against=nowhere")), root / "no")


def test_judges_are_compared_with_what_people_rated(
    root: Path, server: FakeServer, outcome: Outcome
) -> None:
    run_job(planned(root, *judges(server.url, "model=micro", "seed=3")), root / "other")
    sides = [s for run in load_runs([root]).runs for s in sides_of(run)]
    one, two = (next(s for s in sides if s.path.parts[-3] == name) for name in ("nano", "other"))
    matchup = make_matchup(one, two)
    store = RatingStore(root, "Ada")
    for shown in present(matchup, "Ada"):  # she likes long answers, too
        by_length = len(shown.first) - len(shown.second)
        choice = "first" if by_length > 0 else "second" if by_length < 0 else "tie"
        store.add(matchup, shown, choice)
    said = CliRunner().invoke(app, ["judge", str(root)])
    assert said.exit_code == 0, said.output
    found = {value.name: value for value in read_agreements([root]).values()}
    assert found["far"].kappa == pytest.approx(1.0)
    assert found["far"].items == len(matchup.pairs)
    assert found["near"].kappa is None or found["near"].kappa < 0.4
    assert "far: Cohen's kappa with people is 1.00" in said.output


def test_a_server_that_a_record_names_is_asked_only_where_somebody_trusts_it(
    root: Path, outcome: Outcome, tmp_path: Path
) -> None:
    node = outcome.config["metric"]["judge"]
    far = {**node["models"]["far"]["model"], "base_url": "https://api.example.com/v1"}
    models = {"far": {"model": far, "quantization": {"method": "none"}}}
    config = {**outcome.config, "metric": {"judge": {**node, "models": models}}}
    shutil.copytree(root / "nano", tmp_path / "nano")
    shutil.copytree(root / "ratings", tmp_path / "ratings", dirs_exist_ok=True)
    (tmp_path / "nano" / "config.yaml").write_text(yaml.safe_dump(config))
    write_outcome(replace(outcome, config=config), tmp_path / "nano")
    with pytest.raises(ConfigError, match="stands in the record"):
        of_finished_run(compose_run([f"run={tmp_path / 'nano'}"], "evaluate"))
    pair = RatedPair("i", "q", "one", "two", "a", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sizewise.job.others.judge.rated_pairs", lambda _: [pair])
        with pytest.raises(ConfigError, match="stands in the record"):
            compare_with_people(tmp_path)


def test_a_judge_that_fails_in_the_middle_is_asked_nothing_twice(tmp_path: Path) -> None:
    def breaks(body: dict[str, Any]) -> dict[str, Any]:
        broken = len(state.bodies) == 6 and len(state.answered) < 6
        return {"status": 400, "error": {"message": "no"}} if broken else longer(body)

    with serving(FakeServer(breaks)) as state:
        far = f"{{base_url: '{state.url}', path: org/j, endpoint: {{concurrency: 1, alone: 99}}}}"
        cfg = planned(tmp_path, *CHOSEN, f"metric.judge.models={{far: {far}}}")
        with pytest.raises(EvaluationError, match="refused the request"):
            run_job(cfg, tmp_path / "run")
        assert len(state.answered) == 5
        outcome = run_job(cfg, tmp_path / "run")
    assert len(state.answered) == len(set(state.answered)) == 2 * outcome.base[DATA].examples


def test_a_judge_is_part_of_what_a_run_is_but_not_how_it_is_asked(root: Path) -> None:
    def name(judge: str) -> str:
        cfg = planned(root, *CHOSEN, f"metric.judge.models={judge}")
        return run_identity(cfg).hash

    server = "{j: {base_url: http://a/v1, path: x, endpoint: {concurrency: %d}, budget: %d}}"
    assert name(server % (1, 1)) == name(server % (2, 3))
    assert len({name("mini"), name("micro"), name(server % (1, 1))}) == 3


def test_a_dry_run_is_judged_by_stand_ins_that_are_announced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    far = "{base_url: https://api.example.com/v1, path: x}"
    more = ("dry_run=true", f"metric.judge.models={{big: gemma3_27b, far: {far}}}")
    outcome = run_job(planned(tmp_path, *CHOSEN, *more), tmp_path / "dry")
    assert 0 <= outcome.base[DATA].scores["judge/win"] <= 1
    assert "metric.judge.models.big: a tiny random model stands in for gemma3_27b" in caplog.text
    assert "A stand-in answers for the server" in caplog.text


def test_the_record_says_who_judged(outcome: Outcome) -> None:
    models = json.loads(json.dumps(outcome.config))["metric"]["judge"]["models"]
    assert models["near"]["model"]["path"] == "embedded:mini"
    assert models["far"]["model"]["family"] == "endpoint"
