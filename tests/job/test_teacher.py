"""A larger model writes training answers; it never sees what is validated or tested on."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.evaluation.server import FakeServer, serving
from tests.job.runs import SMALL
from tests.metrics.helpers import prediction

from sizewise.composition.compose import compose_run
from sizewise.composition.inputs import pinned
from sizewise.composition.others import other_model
from sizewise.config import RunConfig
from sizewise.data.example import Example
from sizewise.errors import ConfigError, DataError
from sizewise.job.data import PreparedJob
from sizewise.job.fitting import batches
from sizewise.job.others.teacher import _medoid, _Scorer, refuse_seen
from sizewise.job.run import prepare, run_job
from sizewise.metrics.icd10 import Icd10
from sizewise.record.identity import run_identity
from sizewise.record.predictions import Prediction
from sizewise.verify.verify import verify_run

DATA = "icd10_dialogues"
ROWS = [(f"What is {n} and {n}?", str(2 * n), "pupil" + str(n // 2)) for n in range(60)]
TASK = (
    "model=nano", "lora.r=2", "logger=none", "callbacks=none", "optimizer.lr=1e-3",
    "trainer.max_steps=2", "trainer.progress_bar=false", "generation.max_new_tokens=8",
    "dataset=csv", "dataset.prompt='{question}'", "dataset.answer='{answer}'",
    "dataset.group=[pupil]", "metric=[label]", "dataset.primary=label/exact_match",
    "dataset.direction=max",
)  # fmt: skip


def write_rows(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["question", "answer", "pupil"])
        writer.writerows(rows)
    return path


def doubles(body: dict[str, Any]) -> dict[str, Any]:
    """Teacher: right about even numbers, else one too many."""
    number = int(body["messages"][-1]["content"].split()[2])
    return {"content": str(2 * number + number % 2)}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving(FakeServer(doubles)) as state:
        yield state


def planned(root: Path, server: FakeServer, *more: str) -> RunConfig:
    rows = root / "rows.csv"
    if not rows.exists():
        write_rows(rows, ROWS)
    prices = "endpoint: {prices: {prompt: 1, answer: 2}}"
    teacher = f"dataset.teacher={{base_url: '{server.url}', path: org/t, {prices}}}"
    given = [f"dataset.source.path='{rows}'", f"paths.cache={root / 'cache'}"]
    cfg = compose_run([*TASK, teacher, *given, *more])
    spelt = pinned({"dataset": json.loads(json.dumps(vars_of(cfg)))})["dataset"]
    teaching = replace(cfg.dataset.teaching, prompts_sha256=spelt["teaching"]["prompts_sha256"])
    return replace(cfg, dataset=replace(cfg.dataset, teacher=spelt["teacher"], teaching=teaching))


def vars_of(cfg: RunConfig) -> dict[str, Any]:
    teaching = {"prompts": cfg.dataset.teaching.prompts, "prompts_sha256": None}
    return {"teacher": cfg.dataset.teacher, "teaching": teaching}


def prepared(root: Path, server: FakeServer, name: str, *more: str) -> PreparedJob:
    return prepare(planned(root, server, *more), root / name, name)


def learnt(job: PreparedJob) -> list[Example]:
    """All that a run learns from, in order, with what chooses among its checkpoints."""
    back = job.task.held_back.examples if job.task.held_back else ()
    return sorted([*job.task.encoded["train"].examples, *back], key=lambda e: (number(e), e.answer))


def number(example: Example) -> int:
    return int(example.prompt_text.split()[2])


def test_the_teacher_never_sees_a_planted_test_row(tmp_path: Path, server: FakeServer) -> None:
    gold = prepared(tmp_path, server, "gold", "dataset.answers_from=gold")
    test, held = gold.task.splits.test[0], gold.task.splits.validation[0]
    pupil = next(p for q, _, p in ROWS if q == test.prompt_text)
    more = [
        (test.prompt_text, "", "somebody"),
        (f"  {held.prompt_text.upper()} ", "", "anybody"),
        ("What is 500 and 500?", "", pupil),
        ("What is 600 and 600?", "", "friend"),
        ("What is 601 and 601?", "", "friend"),
        (test.prompt_text, "", "friend"),  # ties its friend's rows to the test row
        ("What is 700 and 700?", "", "new"),
    ]
    path = write_rows(tmp_path / "more.csv", more)
    job = prepared(tmp_path, server, "taught", f"dataset.teaching.prompts={path}")
    held_out = {e.prompt_text for e in (*job.task.splits.validation, *job.task.splits.test)}
    asked = set(server.questions)
    assert asked == {e.prompt_text for e in gold.task.splits.train} | {"What is 700 and 700?"}
    assert not asked & held_out
    assert job.task.teacher is not None
    assert job.task.teacher["held_out"] == 6
    assert job.task.splits.test == gold.task.splits.test


def test_a_run_that_was_trained_on_what_is_tested_here_is_no_teacher(
    tmp_path: Path, server: FakeServer
) -> None:
    job = prepared(tmp_path, server, "gold", "dataset.answers_from=gold")
    adapter = tmp_path / "run" / "adapter"
    adapter.mkdir(parents=True)
    for seed in (42, 7):
        done = planned(tmp_path, server, f"dataset.split.seed={seed}", "dataset.teacher=null")
        (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(asdict(done)))
        teacher = other_model(str(tmp_path / "run"), "dataset.teacher")
        assert teacher.adapter == str(adapter)
        if seed == 42:
            refuse_seen(teacher, job.task.splits)
            continue
        with pytest.raises(DataError, match=r"was trained on \d+ of the 12 validation and test"):
            refuse_seen(teacher, job.task.splits)


def test_gold_teacher_and_both_train_on_unlike_answers_of_the_same_split(
    tmp_path: Path, server: FakeServer
) -> None:
    jobs = {
        name: prepared(tmp_path, server, name, f"dataset.answers_from={name}")
        for name in ("gold", "teacher", "both")
    }
    gold, teacher, both = (learnt(jobs[name]) for name in ("gold", "teacher", "both"))
    assert len({job.task.splits.fingerprint("test") for job in jobs.values()}) == 1
    assert [e.prompt_text for e in teacher] == [e.prompt_text for e in gold]
    assert all(int(e.answer) == 2 * number(e) + number(e) % 2 for e in teacher)
    odd = [e for e in teacher if number(e) % 2]
    assert {e.id for e in both} == {e.id for e in (*gold, *odd)}, "what repeats gold is left out"
    assert len({e.id for e in both}) == len(both)
    assert jobs["gold"].task.teacher is None
    assert len(server.questions) == len(gold), "the second arm asked nothing again"


def test_a_tenth_of_what_a_teacher_wrote_chooses_and_is_not_trained_on(
    tmp_path: Path, server: FakeServer
) -> None:
    """The loss on gold answers would choose who words its answers like gold."""
    taught = prepared(tmp_path, server, "taught").task
    both = prepared(tmp_path, server, "both", "dataset.answers_from=both").task
    assert taught.held_back is not None
    assert both.held_back is None
    back, train = taught.held_back.examples, taught.encoded["train"].examples
    assert len(train) + len(back) == len(taught.splits.train)
    assert 0.1 <= len(back) / len(taught.splits.train) < 0.15
    assert not {e.group for e in back} & {e.group for e in train}
    assert taught.encoded["validation"].examples == taught.splits.validation
    data = batches(planned(tmp_path, server), taught, 0)
    assert data.validation.examples == back


def test_answers_are_filtered_by_the_metric(tmp_path: Path, server: FakeServer) -> None:
    job = prepared(tmp_path, server, "right", "dataset.teaching.min_score=1")
    assert {number(e) % 2 for e in learnt(job)} == {0}
    facts = job.task.teacher
    assert facts is not None
    assert facts["left_out"] == {"below min_score": facts["asked"] - facts["kept"]}
    assert facts["score"] == pytest.approx(facts["kept"] / facts["asked"])


def test_answers_without_a_reference_are_kept_where_samples_agree(tmp_path: Path) -> None:
    """Of five samples the teacher says the same of 700 four times, and of 701 never twice."""

    def varies(body: dict[str, Any]) -> dict[str, Any]:
        asked, seed = int(body["messages"][-1]["content"].split()[2]), body["seed"]
        return {"content": str(seed) if asked == 701 or seed == 4 else "1400"}

    path = write_rows(
        tmp_path / "more.csv", [(f"What is {n} and {n}?", "", f"p{n}") for n in (700, 701)]
    )
    given = (f"dataset.teaching.prompts={path}", "dataset.teaching.samples=5")
    with serving(FakeServer(varies)) as state:
        job = prepared(tmp_path, state, "agree", *given, "dataset.teaching.agreement=0.5")
    extra = {number(e): e.answer for e in learnt(job) if number(e) >= 700}
    assert extra == {700: "1400"}
    rows = [json.loads(x) for x in (tmp_path / "agree/teacher/answers.jsonl").open()]
    by_number = {int(row["prompt"].split()[2]): row for row in rows}
    assert by_number[700]["agreement"] == pytest.approx(3 / 4)
    assert by_number[701]["reason"] == "samples disagree"
    assert by_number[700]["reference"] is None


def test_cut_and_empty_answers_are_not_learnt(tmp_path: Path) -> None:
    def odd(body: dict[str, Any]) -> dict[str, Any]:
        asked = int(body["messages"][-1]["content"].split()[2])
        cut = {"content": "1", "finish_reason": "length"}
        return [{"content": " "}, cut, {"content": "<think>hm</think>3"}][asked % 3]

    with serving(FakeServer(odd)) as state:
        job = prepared(tmp_path, state, "odd")
    assert {(number(e) % 3, e.answer) for e in learnt(job)} == {(2, "3")}
    facts = job.task.teacher
    assert facts is not None
    assert set(facts["left_out"]) == {"empty", "cut"}


def test_a_teacher_that_teaches_nothing_leaves_the_name_of_a_run_as_it_was(
    tmp_path: Path, server: FakeServer
) -> None:
    def name(*more: str) -> str:
        return run_identity(planned(tmp_path, server, *more)).hash

    plain = compose_run([*TASK, f"dataset.source.path='{tmp_path / 'rows.csv'}'"])
    assert "teacher" not in run_identity(plain).config["dataset"]
    assert name("dataset.answers_from=gold") == run_identity(plain).hash
    assert (
        name("lora=none") == run_identity(replace(plain, lora=compose_run(["lora=none"]).lora)).hash
    )
    arms = {name(f"dataset.answers_from={arm}") for arm in ("gold", "teacher", "both")}
    assert len(arms) == 3
    assert name() == name("dataset.answers_from=teacher")
    assert name("+dataset.teacher.budget=3") == name()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("model=encoder", "model.path=embedded:nano", "lora=full"), "learns classes"),
        (("metric=[perplexity]", "dataset.primary=perplexity/bits_per_byte",
          "dataset.teaching.min_score=1"), "says nothing of a teacher's answer"),
        (("dataset.teacher=null", "dataset.answers_from=both"), "needs a teacher"),
        (("dataset.teacher=tfidf_logreg",), "writes no text"),
        (("dataset.teaching.samples=2",), "no majority"),
        (("eval_dataset=[csv]", "eval_dataset.csv.source.path=x.csv", "eval_dataset.csv.prompt=x",
          "eval_dataset.csv.answer=x", "+eval_dataset.csv.teacher=mini"), "nothing is trained on"),
    ],
)  # fmt: skip
def test_teachers_that_cannot_be_are_refused_before_anybody_is_asked(
    tmp_path: Path, server: FakeServer, more: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        prepared(tmp_path, server, "refused", *more)
    assert server.bodies == []


def test_a_sample_that_is_no_reference_agrees_with_none() -> None:
    """A code, the same code, and words without one: of three samples two are the majority."""

    def sample(text: str) -> Prediction:
        return prediction(text, "I10")

    score = _Scorer("icd10/exact_match", 1, Icd10(), ())
    rows = [sample(text) for text in ("no code here", "E11.9", "E119")]
    chosen, agreement = _medoid(rows, score)
    assert (chosen.text, agreement) == ("E11.9", 0.5)
    assert score(rows[1], "no code") == 0.0


def test_a_larger_base_teaches_a_smaller_one_and_the_record_says_so(tmp_path: Path) -> None:
    given = [*SMALL, f"paths.cache={tmp_path / 'cache'}", "dataset.teacher=mini"]
    given += ["generation.max_new_tokens=32", "evaluation.timed_answers=0"]
    given += ["dataset.max_validation=2", "dataset.max_test=2"]
    outcome = run_job(compose_run(given), tmp_path / "run")
    facts: Any = outcome.data.report["teacher"]
    assert (facts["model"], facts["answers_from"], facts["asked"]) == ("mini", "teacher", 24)
    assert facts["seconds"] > 0
    assert facts["money"] is None
    assert outcome.data.sizes["train"] == facts["kept"] - facts["held_back"]
    assert facts["held_back"] > 0
    rows = [json.loads(x) for x in (tmp_path / "run" / outcome.files["teacher"].path).open()]
    assert sum(not row["reason"] for row in rows) == facts["kept"]
    assert outcome.tuned is not None
    assert verify_run(tmp_path / "run").ok, [
        check for check in verify_run(tmp_path / "run").checks if check.status == "failed"
    ]
