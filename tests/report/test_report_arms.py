"""Which runs are one configuration, which are not, and by what names they go."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tests.report.factory import PRIMARY, Spec, Task, make_run

from sizewise.evaluation.score import score_predictions
from sizewise.metrics.efficiency import Efficiency
from sizewise.metrics.perplexity import Perplexity
from sizewise.record.predictions import read_predictions
from sizewise.report.comparison.compare import Comparison, compare
from sizewise.report.comparison.contrast import scale_of
from sizewise.report.comparison.labels import name_all, tell_apart
from sizewise.report.comparison.pairs import OWN_BASE, SMALL_LARGE
from sizewise.report.comparison.runs import load_runs
from sizewise.report.comparison.verdict import DIFFER, NOT_SHOWN, OPEN
from sizewise.report.page.page import render_page
from sizewise.report.page.terminal import show
from sizewise.report.page.write import write_report
from sizewise.report.views.charts import scaling_chart
from sizewise.report.views.quality import quality_chart

TASK = Task(examples=60)
NF4 = {"quantization": "nf4", "tuned": None, "task": TASK}
ICD10 = {"metric": {"icd10": {"_target_": "ICD10"}}, "evaluation": {"zero_shot": True}}
LONG = "You are a careful medical coder. Answer with "


def made(directory: Path, spec: Spec, **changes: Any) -> Path:
    """Write a run with an identity of its own and change its record: ``a__b`` is ``b`` of ``a``."""
    make_run(directory, spec)
    changes = {"identity": directory.name, "run_id": directory.name, **changes}
    path = directory / "outcome.json"
    record = json.loads(path.read_text())
    for name, value in changes.items():
        *parents, last = name.split("__")
        node = record
        for key in parents:
            node = node[key]
        node[last] = value
    path.write_text(json.dumps(record))
    return directory


def labels(comparison: Comparison) -> list[str]:
    return [c.label for s in comparison.sets for c in s.test.arms]


def base(content: str | None = None, **more: Any) -> dict[str, Any]:
    return {"model": {"name": "mini", "path": "/bases/mine", "content": content, **more}}


def test_tuned_run_is_measured_against_its_own_base_and_not_an_older_one(tmp_path: Path) -> None:
    path = {"model__path": "/bases/mine"}
    made(tmp_path / "1", Spec("mini", 0.1, None, task=TASK, extra=base("aaa")), **path)
    made(tmp_path / "2", Spec("mini", 0.6, 0.7, task=TASK, extra=base("bbb")), **path)
    (result,) = compare([tmp_path]).sets
    (pair,) = [p for p in result.pairs if p.question == OWN_BASE]
    assert pair.gain == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize(
    "asked",
    [
        [{"quantization": {"method": "nf4", "double_quant": flag}} for flag in (True, False)],
        [{"model": {"name": "mini", "init": init}} for init in ("random", "pretrained")],
        [{"model": {"name": "mini", "tokenizer": name}} for name in (None, "other")],
    ],
)
def test_bases_that_differ_in_an_option_are_two_rows_with_two_names(
    tmp_path: Path, asked: list[dict[str, Any]]
) -> None:
    for number, extra in enumerate(asked):
        made(tmp_path / str(number), Spec("mini", 0.3 + 0.2 * number, extra=extra, **NF4))
    result = compare([tmp_path])
    assert sorted(result.table["score"]) == pytest.approx([0.3, 0.5])
    assert len(set(labels(result))) == 2


def test_options_of_another_format_make_no_other_base(tmp_path: Path) -> None:
    for number, threshold in enumerate((0.0, 6.0)):
        extra = {"quantization": {"method": "nf4", "int8_threshold": threshold}}
        made(tmp_path / str(number), Spec("mini", 0.3, extra=extra, **NF4))
    result = compare([tmp_path])
    assert len(labels(result)) == 1
    assert result.problems == []


def test_other_answers_of_what_should_be_the_same_base_are_listed(tmp_path: Path) -> None:
    for number, rate in enumerate((0.3, 0.5, 0.5)):
        made(tmp_path / str(number), Spec("mini", rate, None, task=TASK))
    result = compare([tmp_path])
    (problem,) = result.problems
    assert problem.where == str(tmp_path / "1")
    assert "are others than those of" in problem.reason
    assert "1 further run" in problem.reason
    assert list(result.table["score"]) == pytest.approx([0.3])


def test_other_prompts_never_make_a_pair_of_base_and_tuned(tmp_path: Path) -> None:
    made(tmp_path / "plain", Spec("nano", 0.5, None, task=TASK), data__prompt_fingerprint="p2")
    made(tmp_path / "tuned", Spec("nano", 0.2, 0.6, task=TASK), base={})
    (result,) = compare([tmp_path]).sets
    tuned = next(c for c in result.test.arms if c.tuned)
    assert result.test.zero_shot_of(tuned) is None
    assert result.pairs == []


def test_further_test_sets_asked_in_other_words_are_other_answers(tmp_path: Path) -> None:
    for number, prompt in enumerate(("{q}", "{q}", "Please: {q}")):
        further = {"eval_dataset": {"further": {"name": TASK.name, "prompt": prompt}}}
        spec = Spec("mini", 0.5 if number == 2 else 0.3, None, task=TASK, extra=further)
        made(tmp_path / str(number), spec, data__name="own")
    result = compare([tmp_path])
    assert sorted(result.table["score"]) == pytest.approx([0.3, 0.5])
    assert len(set(labels(result))) == 2
    assert result.problems == []


def grid(root: Path, task: Task = TASK) -> Comparison:
    """Two alphas by two learning rates; the larger alpha is far better."""
    for number, (alpha, lr) in enumerate((a, lr) for a in (8.0, 64.0) for lr in (1e-4, 1e-3)):
        lora = {"lora": {"method": "lora", "r": 8, "alpha": alpha}}
        rate = 0.9 if alpha == 64 else 0.45
        made(root / str(number), Spec(lr=lr, tuned=rate, task=task, extra=lora))
    return compare([root])


def test_every_configuration_has_a_name_of_its_own(tmp_path: Path) -> None:
    result = grid(tmp_path)
    names = labels(result)
    assert len(set(names)) == len(names) == 5
    assert "nano LoRA r=8 lr=0.001 lora.alpha=64" in names


def test_front_and_its_line_hold_no_dominated_point(tmp_path: Path) -> None:
    (result,) = grid(tmp_path).sets
    front = next(f for f in result.fronts if f.cost == "params")
    assert {round(c.score(), 2) for c in front.arms} == {0.2, 0.9}
    chart = quality_chart(result.test, result.points, front, scale_of(result.test))
    line = next(trace for trace in chart.data if trace.name == "Pareto front")
    assert {round(y) for y in line.y} == {20, 90}


def test_wordings_that_begin_alike_are_named_by_what_differs(tmp_path: Path) -> None:
    for number, end in enumerate(("one code.", "the chapter.")):
        extra = {"dataset": {"name": TASK.name, "system": LONG + end}}
        spec = Spec(tuned=None, base=0.3 + 0.2 * number, task=TASK, extra=extra)
        made(tmp_path / str(number), spec, data__prompt_fingerprint=end)
    names = labels(compare([tmp_path]))
    assert len(set(names)) == 2
    assert sorted(name.partition("system=")[2] for name in names) == ["…one code.", "…the chapter."]


def test_values_that_read_alike_get_other_texts() -> None:
    values = [{"a": None}, {"a": "none"}, {"a": 1e-4}, {"a": 1.00000001e-4}]
    assert len(set(tell_apart(values))) == 4


def test_only_limits_say_all_where_there_is_none() -> None:
    configs = [
        {"optimizer.lr": lr, "dataset.max_train": n} for lr in (None, 0.1) for n in (None, 9)
    ]
    assert tell_apart(configs)[0] == "n=all lr=none"


def test_equal_configurations_of_other_models_are_numbered(tmp_path: Path) -> None:
    (run,) = load_runs([made(tmp_path / "run", Spec(task=TASK))]).runs
    names = name_all([(run.outcome.model, True, {"a": 1})] * 3)
    assert names == ["nano LoRA r=8", "nano LoRA r=8 #2", "nano LoRA r=8 #3"]


def scored_again(directory: Path, of: Path, seed: int, **config: Any) -> None:
    """Write the record of ``evaluate.py run=OF``: the configuration of the training, less that."""
    spec = Spec(task=TASK, seed=seed, extra=ICD10)
    made(directory, spec, config__stage="evaluate", config__run=str(of))
    path = directory / "outcome.json"
    record = json.loads(path.read_text())
    record["config"] |= {"adapter": str(of / "adapter"), **config}
    record["cost"]["train_seconds"] = None
    path.write_text(json.dumps(record))


def test_seeds_that_were_scored_again_are_seeds_of_one_configuration(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        made(tmp_path / f"train/s{seed}", Spec(task=TASK, seed=seed))
        scored_again(tmp_path / f"again/s{seed}a", tmp_path / f"train/s{seed}", seed)
    made(tmp_path / "again/mini", Spec("mini", 0.3, None, task=TASK))
    (result,) = compare([tmp_path / "again"]).sets
    (pair,) = [p for p in result.pairs if p.question == SMALL_LARGE]
    assert pair.a.seeds == (1, 2, 3)
    assert pair.a.label == "nano LoRA r=8"


def test_training_and_its_further_scoring_count_once_and_are_listed(tmp_path: Path) -> None:
    more = {"metric": {**ICD10["metric"], "length": {}}, "evaluation": {"zero_shot": False}}
    for seed in (1, 2):
        train = made(tmp_path / f"train/s{seed}", Spec(task=TASK, seed=seed, extra=ICD10))
        scored_again(tmp_path / f"again/s{seed}a", train, seed)
        scored_again(tmp_path / f"again/s{seed}b", train, seed, **more)
    result = compare([tmp_path])
    tuned = [c for c in result.sets[0].test.arms if c.tuned]
    assert [c.seeds for c in tuned] == [(1, 2)]
    assert {m.run.directory.parent.name for m in tuned[0].members} == {"train"}
    again = [p for p in result.problems if "counted once" in p.reason]
    assert sorted(Path(p.where).name for p in again) == ["s1a", "s1b", "s2a", "s2b"]


def test_ranks_that_were_scored_again_stay_apart(tmp_path: Path) -> None:
    for r in (4, 8):
        train = made(tmp_path / f"train/r{r}", Spec(task=TASK, r=r))
        scored_again(tmp_path / f"again/r{r}a", train, 42, lora={"method": "lora", "r": r})
    result = compare([tmp_path / "again"])
    assert len([c for c in result.sets[0].test.arms if c.tuned]) == 2


def test_other_training_rows_are_no_further_seed(tmp_path: Path) -> None:
    for number in range(5):
        prints = {"train": f"t{number}", "validation": "v", "test": TASK.fingerprint}
        spec = Spec(task=TASK, tuned=0.5 + number * 0.05)
        made(tmp_path / f"a{number}", spec, identity="same", data__fingerprints=prints)
    (result,) = compare([tmp_path]).sets
    tuned = [c for c in result.test.arms if c.tuned]
    assert [c.seeds for c in tuned] == [(42,)] * 5
    assert len({c.label for c in tuned}) == 5
    assert any("One seed only" in warning for warning in result.warnings)


def test_a_seed_that_was_run_twice_counts_once(tmp_path: Path) -> None:
    for number in range(3):
        made(tmp_path / f"a{number}", Spec(task=TASK, tuned=0.5 + number * 0.1))
    result = compare([tmp_path])
    (tuned,) = [c for c in result.sets[0].test.arms if c.tuned]
    assert tuned.seeds == (42,)
    assert tuned.score() == pytest.approx(0.5)
    assert [Path(p.where).name for p in result.problems] == ["a1", "a2"]


def test_the_whole_copy_stands_for_the_broken_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "b", Spec(task=TASK))
    shutil.copytree(run, tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / "predictions")
    loaded = load_runs([tmp_path])
    assert [r.directory.name for r in loaded.runs] == ["b"]
    assert [Path(p.where).name for p in loaded.problems] == ["a"]
    assert compare([tmp_path]).sets[0].pairs


def rescored(
    directory: Path, kind: str, name: str, values: np.ndarray, tokens: np.ndarray, direction: str
) -> None:
    """Give a run's predictions another primary score and other numbers of answer tokens."""
    file = directory / "predictions" / f"{kind}.test.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row, value, count in zip(rows, values, tokens, strict=True):
        row |= {"scores": {name: float(value)}, "answer_tokens": int(count)}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = directory / "outcome.json"
    record = json.loads(path.read_text())
    record |= {"primary": name, "direction": direction}
    for entry in record[kind].values():
        entry["scores"] = {name: float(np.average(values, weights=tokens))}
        entry["predictions"]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        entry["predictions"]["bytes"] = file.stat().st_size
    path.write_text(json.dumps(record))


PARTLY = Task(examples=120)


def partly(tmp_path: Path, extra: dict[str, Any] | None = None) -> None:
    """A tuned model that answered 115 of 120, and a baseline that got the other five right."""
    right = np.zeros(120)
    right[:64] = 1
    for directory, spec, kinds, first in (
        (tmp_path / "nano", Spec(task=PARTLY, extra=extra or {}), ("base", "tuned"), 5),
        (tmp_path / "words", Spec("micro", tuned=None, task=PARTLY, family="classical",
                                  extra=extra or {}), ("base",), 0),
    ):  # fmt: skip
        make_run(directory, spec)
        for kind in kinds:
            values = np.roll(right, 4 if kind == "tuned" else 0)
            only(directory, kind, values, first)


def only(directory: Path, kind: str, values: np.ndarray, first: int) -> None:
    """Score the answers anew, and leave out those before ``first``."""
    file = directory / "predictions" / f"{kind}.test.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row, value in zip(rows, values, strict=True):
        row |= {"scores": {PRIMARY: float(value)}, "answer_tokens": 4, "latency": 0.5}
    rows = rows[first:]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = directory / "outcome.json"
    record = json.loads(path.read_text())
    for entry in record[kind].values():
        entry["examples"] = len(rows)
        entry["scores"] = {PRIMARY: float(np.mean(values[first:]))}
        entry["predictions"]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        entry["predictions"]["bytes"] = file.stat().st_size
    path.write_text(json.dumps(record))


def test_every_figure_stands_on_the_examples_that_all_answered(tmp_path: Path) -> None:
    """All 120 give the baseline 53.3 %; the common 115 give it 51.3, the tuned model 54.8 %."""
    partly(tmp_path)
    comparison = compare([tmp_path])
    (result,) = comparison.sets
    right = {"nano LoRA r=8": 63 / 115, "nano zero-shot": 59 / 115, "micro": 59 / 115}
    table = result.everything
    assert dict(zip(table["label"], table["score"], strict=True)) == pytest.approx(right)
    assert set(table["examples"]) == {115}
    assert {p.label: p.score for p in result.points} == pytest.approx(right)
    assert comparison.runs_table["zero_shot@icd10_dialogues/" + PRIMARY].tolist() == pytest.approx(
        [59 / 115, 59 / 115]
    )
    assert not any("A baseline" in warning for warning in result.warnings)
    assert any(w.startswith("5 of 120 test examples were not answered") for w in result.warnings)
    write_report(comparison, tmp_path / "out")
    (found,) = json.loads((tmp_path / "out" / "results.json").read_text())["test_sets"]
    assert found["examples_compared"] == 115
    assert any(w.startswith("5 of 120 test examples") for w in found["warnings"])
    assert {c["label"]: c["score"] for c in found["configurations"]} == pytest.approx(right)
    assert "0.5333" not in (tmp_path / "out" / "comparison.csv").read_text()
    assert "0.5333" not in (tmp_path / "out" / "runs.csv").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "115 test examples, 5 left out" in page
    assert "53.3 %" not in page
    console = Console(file=io.StringIO(), width=140)
    show(comparison, console=console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "115 test examples, 5 left out" in text
    assert "53.3 %" not in text


def test_corpus_scores_of_common_examples_follow_the_rule_of_their_metric(tmp_path: Path) -> None:
    """Ratios of sums and percentiles are computed anew; what cannot be is left out."""
    own = {"_target_": "sizewise.metrics.perplexity.Perplexity"}
    timed = {"_target_": "sizewise.metrics.efficiency.Efficiency"}
    theirs = {"_target_": "theirs.Metric"}
    partly(tmp_path, {"metric": {"perplexity": own, "efficiency": timed, "theirs": theirs}})
    file = tmp_path / "words" / "predictions" / "base.test.jsonl"
    predictions = read_predictions(file)
    metrics = [Perplexity(), Efficiency()]
    for index, p in enumerate(predictions):
        changed = {"log_prob": -float(index), "answer_bytes": 1 + index % 7, "latency": index / 8}
        predictions[index] = replace(p, **changed)  # type: ignore[arg-type]
    totals, scored = score_predictions(predictions, metrics)
    expected, _ = score_predictions(predictions[5:], metrics)
    file.write_text("".join(json.dumps(p.to_json()) + "\n" for p in scored))
    path = tmp_path / "words" / "outcome.json"
    record = json.loads(path.read_text())
    for entry in record["base"].values():
        entry["scores"] |= {**totals, "theirs/corpus": 7.0}
        entry["predictions"]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        entry["predictions"]["bytes"] = file.stat().st_size
    path.write_text(json.dumps(record))
    comparison = compare([tmp_path])
    (result,) = comparison.sets
    (words,) = [arm for arm in result.test.arms if arm.kind == "classical"]
    assert {n: words.score(n) for n in expected} == pytest.approx(expected)
    assert all(expected[n] != totals[n] for n in expected if n != "efficiency/finished"
               and n != "efficiency/new_tokens")  # fmt: skip
    assert words.score("theirs/corpus") != words.score("theirs/corpus")
    (problem,) = comparison.problems
    assert problem.reason.startswith("theirs/corpus cannot be computed for the 115 test examples")


def test_a_recorded_metric_of_other_code_is_not_called_for_a_figure(tmp_path: Path) -> None:
    script = {"_target_": "pathlib.Path.touch", "self": str(tmp_path / "called")}
    partly(tmp_path, {"metric": {"icd10": script, "forgetting": {"_target_": "sizewise.files.x"}}})
    path = tmp_path / "words" / "outcome.json"
    record = json.loads(path.read_text())
    record["base"]["icd10_dialogues"]["scores"]["icd10/macro_f1"] = 0.5
    path.write_text(json.dumps(record))
    (result,) = compare([tmp_path]).sets
    assert not (tmp_path / "called").exists()
    assert any("icd10/macro_f1 cannot be computed" in p.reason for p in result.test.problems)


@pytest.mark.parametrize("name", ["perplexity/perplexity", "perplexity/nll_per_token"])
def test_scores_per_token_are_not_compared_across_tokenizers(tmp_path: Path, name: str) -> None:
    """The same bits in half the tokens: twice the loss per token, and no worse."""
    nll = np.random.default_rng(0).normal(12, 2, TASK.examples)
    small, large = np.full(TASK.examples, 8), np.full(TASK.examples, 4)
    tuned = make_run(tmp_path / "n", Spec(task=TASK))
    for kind, gain in (("base", 0.0), ("tuned", 1.0)):
        rescored(tuned, kind, name, (nll - gain) / small, small, "min")
    for model, tokens in (("mini", large), ("micro", small)):
        run = make_run(tmp_path / model, Spec(model, tuned=None, base=0.3, task=TASK))
        rescored(run, "base", name, nll / tokens, tokens, "min")
    result = compare([tmp_path])
    models = [{c.model.name for c in s.test.arms} for s in result.sets]
    assert models == [{"nano", "micro"}, {"mini"}]
    first = result.sets[0]
    pairs = [(p.a.model.name, p.b.model.name) for p in first.pairs]
    assert sorted(pairs) == [("nano", "micro"), ("nano", "nano")]
    assert first.verdict.sentence.startswith(f"{name} cannot be compared across tokenizers")
    assert "bits_per_byte" in first.verdict.sentence
    assert len({s.test.fingerprint for s in result.sets}) == 2
    assert result.problems == []


def test_bits_per_byte_are_compared_across_tokenizers(tmp_path: Path) -> None:
    name = "perplexity/bits_per_byte"
    values = np.random.default_rng(0).normal(2, 0.3, TASK.examples)
    for model, tokens in (("mini", 4), ("micro", 8)):
        run = make_run(tmp_path / model, Spec(model, tuned=None, base=0.3, task=TASK))
        rescored(run, "base", name, values, np.full(TASK.examples, tokens), "min")
    (result,) = compare([tmp_path]).sets
    assert len(result.test.arms) == 2
    assert "tokenizer" not in result.verdict.sentence


def test_where_test_and_interval_disagree_nothing_is_shown(tmp_path: Path) -> None:
    task = Task(examples=120, groups=8)
    group = np.arange(120) % 8
    low = np.full(120, 0.2)
    high = low + np.where(group == 0, 0.6, 0.01)
    for r, values in ((8, low), (16, high)):
        run = make_run(tmp_path / str(r), Spec(task=task, r=r))
        for kind, scores in (("base", low), ("tuned", values)):
            rescored(run, kind, "text/score", scores, np.full(120, 4), "max")
    (result,) = compare([tmp_path], by=("lora.r",)).sets
    (pair,) = result.pairs
    assert pair.found
    assert pair.low < 0 < pair.high
    assert result.verdict.status == NOT_SHOWN
    assert result.verdict.headline == "0 of 1 pair differ"
    assert "within chance" not in result.verdict.sentence
    assert "the interval includes none" in result.verdict.sentence


def test_pairs_that_win_are_counted(tmp_path: Path) -> None:
    grid(tmp_path, Task(examples=100))
    (result,) = compare([tmp_path], by=("lora.alpha",)).sets
    assert result.verdict.status == DIFFER
    assert result.verdict.headline == "1 of 1 pair differ"


def test_baseline_costs_its_training_and_is_no_point_of_the_fit(tmp_path: Path) -> None:
    """A count of words is smaller than every language model, and was fitted."""
    made(tmp_path / "nano", Spec(tuned=0.6, task=TASK))
    made(tmp_path / "mini", Spec("mini", 0.5, None, task=TASK))
    counts = Spec("micro", 0.4, None, task=TASK, family="classical")
    small = {"model__params_base": 60_000, "model__params_total": 60_000}
    made(tmp_path / "words", counts, cost__train_seconds=300.0, **small)
    (result,) = compare([tmp_path]).sets
    costs = {p.label: p.costs["train_seconds"] for p in result.points}
    assert costs == {"nano zero-shot": 0, "nano LoRA r=8": 60, "mini zero-shot": 0, "micro": 300}
    views = result.views
    assert views.scaling is not None
    assert views.contrast is not None
    scale = scale_of(result.test)
    chart = scaling_chart(views.scaling, result.test, result.points, views.contrast, scale)
    fit, zero, _ = chart.data
    assert (fit.x[0], fit.x[-1]) == pytest.approx((300_000, 4_000_000))
    assert sorted(zero.x) == [300_000, 4_000_000]


def test_finished_runs_without_scores_are_told_from_none(tmp_path: Path) -> None:
    made(tmp_path / "run", Spec(task=TASK), base={}, tuned={})
    result = compare([tmp_path])
    assert result.verdict.status == OPEN
    assert result.verdict.headline == "Nothing scored"
    assert "1 run finished, but none was scored on the test split" in result.verdict.sentence


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (("/bases/small", "/bases/large"), {"small", "large"}),
        (("org/first-1B", "org/second-1B"), {"first-1B", "second-1B"}),
        (("/a/model", "/b/model"), {"a/model", "b/model"}),
        (("one/model", "./folder/"), {"model", "folder"}),
    ],
)
def test_models_without_a_name_of_their_own_go_by_folder_or_repository(
    tmp_path: Path, paths: tuple[str, str], names: set[str]
) -> None:
    for number, path in enumerate(paths):
        config = {"model": {"name": "local", "path": path, "content": f"97b6d45e2161545{number}"}}
        spec = Spec("mini", 0.1 + 0.3 * number, None, task=TASK, extra=config)
        made(tmp_path / str(number), spec, model__name="local", model__path=path)
    comparison = compare([tmp_path])
    assert set(labels(comparison)) == {f"{name} zero-shot" for name in names}
    shown = render_page(comparison, "t") + comparison.sets[0].verdict.sentence
    assert "model.content" not in shown
    assert "local zero-shot" not in shown


def test_a_named_model_keeps_its_name_and_another_makes_way(tmp_path: Path) -> None:
    for number, (name, path) in enumerate([("model", "hub/x"), ("local", "/bases/model")]):
        spec = Spec("mini", 0.2, None, task=TASK, extra={"model": {"name": name, "path": path}})
        made(tmp_path / str(number), spec, model__name=name, model__path=path)
    assert set(labels(compare([tmp_path]))) == {"model zero-shot", "bases/model zero-shot"}
