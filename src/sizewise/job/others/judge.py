"""Judges of a job's answers: who is asked what, what it cost, and how far people agree."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sizewise.composition.inputs import names_hub
from sizewise.composition.others import (
    check_recorded_judges,
    judge_key,
    judge_nodes,
    judges_of,
    other_model,
)
from sizewise.config import GenerationConfig, RunConfig
from sizewise.config.data import SplitName
from sizewise.config.targets import recorded_config
from sizewise.data.example import Example
from sizewise.errors import ConfigError, OutcomeError
from sizewise.evaluation.judging import CHOICES, Duel, ask_both_orders, said_of
from sizewise.evaluation.predict import Answers
from sizewise.job.data import PreparedJob, Task
from sizewise.job.others.asking import ask
from sizewise.metrics.base import ExampleMetric
from sizewise.metrics.judge import REFERENCE, Judge
from sizewise.metrics.reading.judged import both_orders, points_of, verdict_of
from sizewise.record.directories import RunDir
from sizewise.record.outcome import read_outcome
from sizewise.record.predictions import Prediction, read_predictions
from sizewise.report.comparison.runs import Run, load_runs
from sizewise.report.ratings.judges import (
    JudgeAgreement,
    RatedPair,
    agreement,
    rated_pairs,
    write_agreements,
)
from sizewise.report.ratings.store import FOLDER
from sizewise.runtime import prepare_environment, resolve_device

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JudgeCost:
    """Seconds and money of judging; None where one of the judges left no word of it."""

    seconds: float | None = 0.0
    money: float | None = None

    def plus(self, other: JudgeCost) -> JudgeCost:
        both = (self.seconds, other.seconds)
        seconds = None if None in both else sum(s for s in both if s is not None)
        paid = [m for m in (self.money, other.money) if m is not None]
        return JudgeCost(seconds, sum(paid) if paid else None)


def judge_among(metrics: Sequence[ExampleMetric]) -> Judge | None:
    """Return the judging metric, where one is chosen."""
    return next((metric for metric in metrics if isinstance(metric, Judge)), None)


def judged(
    job: PreparedJob, task: Task, split: SplitName, answers: Answers
) -> tuple[Answers, JudgeCost]:
    """Let every judge compare the answers with their opponents; what it says joins their scores.

    Without a judging metric the answers stay as they are.
    """
    metric = judge_among(job.metrics_on(split))
    if metric is None:
        return answers, JudgeCost()
    rows, examples = answers.predicted.predictions, task.examples(split)
    opponents = _opponents(metric, task, split, examples)
    duels = [
        Duel(row.id, example.prompt_text, row.text, opponents[row.id])
        for row, example in zip(rows, examples, strict=True)
    ]
    said, cost = ask_judges(job.cfg, job.device, RunDir(job.run_dir).judges, metric, duels)
    scored = tuple(_joined(row, said.get(row.id, {})) for row in rows)
    predicted = replace(answers.predicted, predictions=scored)
    return replace(answers, predicted=predicted), cost


Said = dict[str, dict[str, float]]


def ask_judges(
    cfg: RunConfig, device: torch.device, folder: Path, metric: Judge, duels: Sequence[Duel]
) -> tuple[Said, JudgeCost]:
    """Ask every judge every duel in both orders; return scores by the duel's id, and the cost.

    A duel of two equal answers is not asked: it has no scores. A judge decodes greedily, and a
    local one takes the likeliest of its three answers.
    """
    asked = ask_both_orders(duels, metric.render)
    questions = [question for item in asked for question in (item.first, item.second)]
    generation = GenerationConfig(max_new_tokens=metric.max_new_tokens)
    found: Said = {item.duel.id: {} for item in asked}
    cost = JudgeCost()
    for name, value in metric.judges.items():
        log.info("%s judges %d pairs, each in both orders.", name, len(asked))
        other = other_model(value, f"metric.judge.models.{name}")
        replies = ask(cfg, device, other, questions, folder / name, generation, CHOICES)
        for key, scores in said_of(asked, replies.rows, name).items():
            found[key] |= scores
        cost = cost.plus(JudgeCost(replies.seconds, replies.money))
    return found, cost


def _joined(row: Prediction, said: Mapping[str, float]) -> Prediction:
    return replace(row, scores={**row.scores, **said})


def _opponents(
    metric: Judge, task: Task, split: SplitName, examples: Sequence[Example]
) -> Mapping[str, str]:
    """Return the opponent's answer to every example, by its id.

    Raises:
        ConfigError: the run that is named has not answered them all.
    """
    if metric.against == REFERENCE:
        return {example.id: example.answer for example in examples}
    folder = Path(metric.against)
    side = "tuned" if read_outcome(folder).tuned is not None else "base"
    kind = side if split == "test" else f"{side}_{split}"
    path = RunDir(folder).predictions(kind, task.name)
    found = {row.id: row.text for row in read_predictions(path)} if path.is_file() else {}
    missing = sum(example.id not in found for example in examples)
    if missing:
        raise ConfigError(
            f"metric.judge.against={metric.against!r} has no answer to {missing} of "
            f"{len(examples)} {split} examples of {task.name}. Name a run on the same data."
        )
    return found


def compare_with_people(
    directory: Path, ratings: Path | None = None, trust: bool = False
) -> list[JudgeAgreement]:
    """Ask the judges of the runs in ``directory`` what people rated, and keep how far they agree.

    The reports of ``directory`` read it from ``ratings/judges.json`` there.

    Args:
        directory: a sweep or a run.
        ratings: the sweep or run whose blind ratings are taken; None: the same.
        trust: also ask servers elsewhere that the records name.

    Raises:
        ConfigError: a record names such a server.
        OutcomeError: no run has a judge, or nothing was rated.
    """
    pairs = rated_pairs(ratings or directory)
    duels = [Duel(pair.item, pair.prompt, pair.a, pair.b) for pair in pairs]
    found: dict[str, JudgeAgreement] = {}
    for run in load_runs([directory]).runs:
        for node in judge_nodes(run.outcome.config):
            check_recorded_judges({"judge": node}, trust)
            judges = judges_of(node.get("models"))
            new = {n: v for n, v in judges.items() if judge_key(node, n) not in found}
            for name, people in _compared(run, node, new, duels, pairs, directory).items():
                found[judge_key(node, name)] = people
    if not found:
        raise OutcomeError(f"No run in {directory} has a judge. Add metric=[judge,…] to its runs.")
    write_agreements(directory, found)
    return list(found.values())


def _compared(
    run: Run,
    node: Mapping[str, Any],
    judges: Mapping[str, Any],
    duels: Sequence[Duel],
    pairs: Sequence[RatedPair],
    directory: Path,
) -> dict[str, JudgeAgreement]:
    """Ask judges as a run has asked them, and compare them with people."""
    if not judges:
        return {}
    cfg = recorded_config(run.outcome.config)
    prepare_environment(names_hub(cfg))
    metric = Judge(judges, str(node.get("prompt")), max_new_tokens=node.get("max_new_tokens", 16))
    metric.check_settings()
    folder = directory / FOLDER / "judges"
    said, _ = ask_judges(cfg, resolve_device(cfg.trainer), folder, metric, duels)
    verdicts = {
        name: {key: verdict_of(both_orders(*points_of(row, name))) for key, row in said.items()}
        for name in judges
    }
    return {name: agreement(name, verdicts[name], pairs) for name in judges}
