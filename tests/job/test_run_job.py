from __future__ import annotations

import json

import pytest
from tests.job.comparing import answers, comparable
from tests.job.runs import run

from sizewise.errors import ConfigError, DataError, ModelError
from sizewise.record.outcome import Outcome, read_outcome


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return root, run(root, "tuned")


def test_a_run_trains_and_scores_base_and_tuned_on_the_same_examples(tuned):
    root, outcome = tuned
    base, best = outcome.base["icd10_dialogues"], outcome.best["icd10_dialogues"]
    assert outcome.tuned is not None
    assert base.fingerprint == best.fingerprint == outcome.data.fingerprints["test"]
    assert base.examples == best.examples == 8
    assert best.scores["perplexity/bits_per_byte"] < base.scores["perplexity/bits_per_byte"]
    ids = [
        [row["id"] for row in answers(root / "tuned" / e.predictions.path)] for e in (base, best)
    ]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 8


def test_the_record_says_what_it_cost(tuned):
    _, outcome = tuned
    assert outcome.cost.train_steps == 3
    assert outcome.cost.train_seconds > 0
    assert 0 < outcome.cost.train_answer_tokens < outcome.cost.train_tokens
    assert outcome.model.params_trainable < outcome.model.params_base < outcome.model.params_total
    assert outcome.model.lora_scale == 8.0
    assert 0 < outcome.model.adapter_bytes < outcome.model.base_bytes


def test_a_sample_of_both_sides_is_timed_at_batch_1_and_the_batch_used(tuned):
    _, outcome = tuned
    timed = {(t.side, t.batch_size): t for t in outcome.cost.timings}
    assert timed.keys() == {(side, size) for side in ("base", "tuned") for size in (1, 8)}
    for timing in timed.values():
        assert timing.answers >= (4 if timing.batch_size == 1 else 8)
        assert 0 < timing.per_answer_low <= timing.per_answer <= timing.per_answer_high
        assert 0 < timing.per_token_low <= timing.per_token <= timing.per_token_high
        assert 0 < timing.cpu_per_answer < 1.2 * timing.mean_per_answer
        assert 1 <= timing.new_tokens <= 8


def test_the_files_it_names_are_there_with_their_content(tuned):
    root, outcome = tuned
    from sizewise.record.outcome import file_ref

    assert {"config", "metrics", "adapter/adapter_model.safetensors"} <= outcome.files.keys()
    for ref in outcome.files.values():
        assert file_ref(root / "tuned" / ref.path, root / "tuned") == ref


def test_a_finished_run_is_read_back_and_not_repeated(tuned):
    root, outcome = tuned
    before = (root / "tuned" / "outcome.json").stat().st_mtime_ns
    assert run(root, "tuned") == read_outcome(root / "tuned")
    assert (root / "tuned" / "outcome.json").stat().st_mtime_ns == before
    assert outcome.identity == read_outcome(root / "tuned").identity


def test_a_torn_record_is_no_result(tuned):
    root, _ = tuned
    (root / "torn").mkdir()
    (root / "torn" / "outcome.json").write_text('{"version": 1, "objective"')
    run(root, "torn", "lora=none", "evaluation.timed_answers=0")
    assert read_outcome(root / "torn").tuned is None
    assert read_outcome(root / "torn").cost.timings == []


def test_a_run_is_done_only_when_its_trackers_are_closed(tuned, monkeypatch):
    """Killed in between it would stay without its history, for nobody begins a done run again."""
    root, _ = tuned

    def killed(loggers: object, outcome: Outcome | None, error: bool) -> None:
        assert outcome is not None
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sizewise.tracking.finish_loggers", killed)
        with pytest.raises(KeyboardInterrupt):
            run(root, "killed", "lora=none")
    assert not (root / "killed" / "outcome.json").exists()
    run(root, "killed", "lora=none")
    assert (root / "killed" / "outcome.json").exists()


def test_the_same_seed_gives_the_same_outcome_and_another_differs(tuned):
    root, _ = tuned
    run(root, "again")
    assert comparable(root / "again") == comparable(root / "tuned")
    other = run(root, "other", "seed=43")
    assert other.validation["val_loss"] != read_outcome(root / "tuned").validation["val_loss"]
    assert other.data.fingerprints == read_outcome(root / "tuned").data.fingerprints


def test_zero_shot_answers_are_computed_once_for_all_runs_of_a_base(tuned, monkeypatch):
    root, _ = tuned
    from sizewise.job import language_model

    def refuse(*_: object) -> None:
        raise AssertionError("the base was asked again")

    monkeypatch.setattr(language_model, "predict", refuse)
    outcome = run(root, "zero", "lora=none")
    assert outcome.tuned is None
    assert outcome.base["icd10_dialogues"].scores["icd10/exact_match"] == pytest.approx(
        read_outcome(root / "tuned").base["icd10_dialogues"].scores["icd10/exact_match"]
    )
    assert outcome.warnings == []
    other = run(root, "zero-other-batch", "lora=none", "evaluation.batch_size=3")
    assert len(other.warnings) == 1
    assert "timed under other conditions (batch_size 8, this run: 3)" in other.warnings[0]


def test_without_training_the_objective_is_the_validation_loss_of_the_base(tuned):
    root, tuned_outcome = tuned
    outcome = run(root, "zero-objective", "lora=none")
    assert outcome.objective == outcome.validation["val_loss"] > tuned_outcome.objective
    history = (root / "tuned" / "metrics.jsonl").read_text().splitlines()
    first = json.loads(history[0])["values"]["val_loss"]
    assert outcome.objective == pytest.approx(first, rel=1e-5)


def test_the_objective_may_be_the_primary_score_of_validation(tmp_path):
    outcome = run(tmp_path, "run", "lora=none", "evaluation.objective=primary")
    assert outcome.objective == outcome.validation["icd10/exact_match"]
    assert (tmp_path / "run" / "predictions" / "base_validation.icd10_dialogues.jsonl").is_file()


def test_an_adapter_is_evaluated_on_its_own(tuned):
    root, outcome = tuned
    again = run(root, "evaluated", "stage=evaluate", f"adapter={root / 'tuned' / 'adapter'}")
    ours, theirs = (root / d / o.best["icd10_dialogues"].predictions.path
                    for d, o in (("evaluated", again), ("tuned", outcome)))  # fmt: skip
    for own, other in zip(answers(ours), answers(theirs), strict=True):
        assert own["id"] == other["id"]
        assert own["text"] == other["text"]
        assert own["log_prob"] == pytest.approx(other["log_prob"], rel=1e-4)


def test_stage_train_leaves_the_test_split_alone(tmp_path):
    outcome = run(tmp_path, "run", "stage=train")
    assert outcome.base == {}
    assert outcome.tuned == {}
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        (["dataset.primary=rouge/rougeL"], ConfigError, "metric=[efficiency,icd10,"),
        (["dataset.primary=icd10/exactly"], ConfigError, "icd10/exact_match"),
        (["lora.target=\"q_proj,no_such\""], ModelError, "no_such"),
        (["dataset.max_length=16"], DataError, "dataset.max_length"),
        (["dataset.filter.min_answer_chars=1000"], DataError, "filter"),
        (["dataset.prompt=\"{words}\""], DataError, "dialogue"),
        (["model=local", "model.path=/no/such/folder"], ModelError, "model.path"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_error_before_a_weight_is_loaded(
    tmp_path, monkeypatch, overrides, error, words
):
    from sizewise.job import language_model

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a base was loaded")

    monkeypatch.setattr(language_model, "take_base", refuse)
    with pytest.raises(error) as caught:
        run(tmp_path, "run", *overrides)
    assert words in str(caught.value)
    assert not (tmp_path / "run" / "outcome.json").exists()


@pytest.mark.parametrize("how", ["lora=none", "lora.r=2"])
def test_without_a_validation_split_there_is_no_objective(tmp_path, how):
    rows = "".join(f"question {i},answer {i}\n" for i in range(40))
    (tmp_path / "rows.csv").write_text(f"q,a\n{rows}")
    own = (
        "dataset=csv", f"dataset.source.path={tmp_path / 'rows.csv'}", "dataset.prompt='{q}'",
        "dataset.answer='{a}'", "dataset.split.validation=0", "trainer.max_steps=2", how,
    )  # fmt: skip
    outcome = run(tmp_path, "run", *own)
    assert (outcome.objective, outcome.validation) == (None, {})
    assert "my_csv" in outcome.best
    with pytest.raises(ConfigError, match=r"objective=primary .* dataset\.split\.validation"):
        run(tmp_path, "other", *own, "evaluation.objective=primary")


def test_two_data_sets_of_one_name_are_refused_before_anything_is_scored(tmp_path):
    """Their predictions would go to the same file."""
    same = "eval_dataset=[icd10_dialogues]"
    with pytest.raises(ConfigError, match=r"eval_dataset\.icd10_dialogues\.name"):
        run(tmp_path, "same", same, "lora=none")
    assert not (tmp_path / "same" / "predictions").exists()


def test_a_second_file_is_a_test_set_beside_the_first(tmp_path):
    for name in ("a", "b"):
        rows = "".join(f"question {name} {i},answer {i}\n" for i in range(20))
        (tmp_path / f"{name}.csv").write_text(f"q,a\n{rows}")
    beside = "eval_dataset.csv"
    outcome = run(
        tmp_path, "run", "dataset=csv", f"dataset.source.path={tmp_path / 'a.csv'}", "lora=none",
        "dataset.prompt='{q}'", "dataset.answer='{a}'", "eval_dataset=[csv]",
        f"{beside}.source.path={tmp_path / 'b.csv'}", f"{beside}.prompt='{{q}}'",
        f"{beside}.answer='{{a}}'",
    )  # fmt: skip
    assert {name: result.examples for name, result in outcome.base.items()} == {
        "my_csv": 2, "my_csv_test": 20
    }  # fmt: skip
