"""Logs of other harnesses as further runs of a comparison, on the examples that both answered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sizewise.errors import EvaluationError, OutcomeError
from sizewise.files import file_hash, write_atomically
from sizewise.record.directories import OUTCOME_FILE
from sizewise.record.outcome import CostFacts, DataFacts, Evaluation, ModelFacts, Outcome, file_ref
from sizewise.record.predictions import Prediction, read_predictions
from sizewise.report.comparison.runs import Loaded, Problem, Run
from sizewise.report.comparison.test_sets import own_metric
from sizewise.report.imports import inspect_log, lm_eval
from sizewise.report.imports.pairing import Paired, pair
from sizewise.report.imports.samples import HarnessLog

FAMILY = "imported"
NAN = float("nan")


def split_paths(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Divide what is to be compared into directories of runs and logs of other harnesses.

    A file is a log. So are all sample logs at or below a directory that holds no run.

    Raises:
        OutcomeError: a path is not there, or a file of no known kind.
    """
    runs: list[Path] = []
    logs: list[Path] = []
    for path in paths:
        if path.is_file():
            logs.append(path)
        elif path.is_dir() and not any(path.rglob(OUTCOME_FILE)) and (found := _logs_in(path)):
            logs += found
        else:
            runs.append(path)
    if logs and not runs:
        raise OutcomeError(
            f"{', '.join(map(str, logs))}: logs of other harnesses are compared with runs of "
            "sizewise on the same examples. Name a run's directory, too."
        )
    return runs, logs


def _logs_in(folder: Path) -> list[Path]:
    return sorted({*folder.rglob(lm_eval.PATTERN), *folder.rglob(inspect_log.PATTERN)})


def read_log(path: Path) -> HarnessLog:
    """Read a log by its kind.

    Raises:
        OutcomeError: it is of no known kind, or damaged.
    """
    if path.suffix == ".jsonl":
        return lm_eval.read_lm_eval(path)
    if path.suffix in (".eval", ".json"):
        return inspect_log.read_inspect(path)
    raise OutcomeError(
        f"{path} is no log that is known here. Give samples_*.jsonl of lm-evaluation-harness, or "
        ".eval or .json of Inspect."
    )


@dataclass
class Asked:
    """A test set of the runs: what was asked, with the first run that answered it."""

    run: Run
    evaluation: Evaluation
    examples: dict[str, Prediction] = field(default_factory=dict)


def with_imports(
    loaded: Loaded,
    logs: Sequence[Path],
    folder: Path,
    id_field: str | None = None,
    score: str | None = None,
) -> Loaded:
    """Add every log as a run that answered the test set which it shares most examples with.

    Args:
        loaded: the runs.
        logs: files of other harnesses.
        folder: where their answers are written in sizewise's form; reports read them there.
        id_field: field of the logs' rows that holds the id of an example; None: by text.
        score: the harness's own figure that is taken as the primary score; None: its answers are
            scored anew by the runs' own metric.

    Raises:
        OutcomeError: a log cannot be read, shares no example with the runs, or cannot be scored.
    """
    asked = list(_asked(loaded))
    runs, problems = list(loaded.runs), list(loaded.problems)
    for path in logs:
        log = read_log(path)
        where, paired = _best(log, asked, id_field)
        runs.append(_as_run(log, paired, where, folder, score))
        if said := "; ".join(filter(None, [*log.notes, paired.left_out])):
            problems.append(Problem(str(path), f"not all of it is compared: {said}."))
    return replace(loaded, runs=tuple(runs), problems=tuple(problems))


def _asked(loaded: Loaded) -> Iterator[Asked]:
    """Yield every test set with all of its examples that any run has answered."""
    found: dict[tuple[str, str, str], Asked] = {}
    for run in loaded.runs:
        outcome = run.outcome
        for evaluation in (*outcome.base.values(), *(outcome.tuned or {}).values()):
            where = (evaluation.dataset, evaluation.fingerprint, outcome.primary)
            test = found.setdefault(where, Asked(run, evaluation))
            if len(test.examples) >= evaluation.examples:
                continue
            try:
                rows = read_predictions(run.directory / evaluation.predictions.path)
            except (OSError, EvaluationError):
                continue  # said by the comparison itself, which reads the same file
            test.examples |= {row.id: row for row in rows}
    yield from found.values()


def _best(log: HarnessLog, asked: Sequence[Asked], id_field: str | None) -> tuple[Asked, Paired]:
    found = [(test, pair(log, list(test.examples.values()), id_field)) for test in asked]
    best = max(found, key=lambda item: len(item[1].pairs), default=None)
    if best is None or not best[1].pairs:
        why = "there is no test set" if best is None else best[1].left_out
        raise OutcomeError(
            f"{log.path} shares no example with the runs ({why}). Make the harness's task from the "
            "same rows, with the question's text (or the example's id, see --id-field) in a column."
        )
    return best


def _as_run(log: HarnessLog, paired: Paired, asked: Asked, folder: Path, score: str | None) -> Run:
    outcome, digest = asked.run.outcome, file_hash(log.path)
    answered = [_prediction(sample.response, example) for sample, example in paired.pairs]
    if score is None:
        scores, rows = _scored_anew(log, answered, outcome)
        how = f"its answers ({log.response}) are scored anew by {outcome.primary}"
    else:
        scores, rows = _as_scored(log, paired, answered, outcome.primary, score)
        how = f"{outcome.primary} is the harness's own {score}"
    directory = folder / f"{log.task}-{digest[:12]}"
    path = directory / "predictions.jsonl"
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(f"{json.dumps(row.to_json())}\n" for row in rows))
    note = (
        f"{log.model} was read from a log of {log.harness} (task {log.task}): {how}; "
        f"{len(rows)} examples, paired by {paired.by}; prompt and decoding are the harness's."
    )
    evaluation = replace(
        asked.evaluation, examples=len(rows), scores=scores, predictions=file_ref(path, directory)
    )
    return Run(directory, _outcome(log, outcome, evaluation, digest, note))


def _prediction(response: str, example: Prediction) -> Prediction:
    """Return a response as an answer to an example; the log says nothing of tokens and time."""
    return Prediction(
        id=example.id,
        group=example.group,
        prompt=example.prompt,
        reference=example.reference,
        text=response,
        log_prob=NAN,
        answer_tokens=example.answer_tokens,
        answer_bytes=example.answer_bytes,
        prompt_tokens=0,
        new_tokens=0,
        finished=True,
        latency=NAN,
        batch_size=1,
        strata=dict(example.strata),
    )


Scored = tuple[Mapping[str, float], list[Prediction]]


def _scored_anew(log: HarnessLog, answered: Sequence[Prediction], outcome: Outcome) -> Scored:
    """Score answers by the runs' own metric of the primary score."""
    from sizewise.evaluation.score import score_predictions

    name = outcome.primary.partition("/")[0]
    nodes = (outcome.config.get("metric") or {}).values()
    metrics = [metric for node in nodes if (metric := own_metric(node)) and metric.name == name]
    if not metrics or metrics[0].needs_likelihood or metrics[0].needs_candidates:
        raise OutcomeError(
            f"{log.path}: {outcome.primary} cannot be computed from the text of an answer, and a "
            "log holds no more. Take a figure of the log (--harness-score NAME), or compare runs "
            "with another dataset.primary."
        )
    return score_predictions(answered, metrics)


def _as_scored(
    log: HarnessLog, paired: Paired, answered: Sequence[Prediction], primary: str, score: str
) -> Scored:
    """Take a figure of the harness as the primary score."""
    values = [sample.scores.get(score) for sample, _ in paired.pairs]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        there = sorted({name for sample, _ in paired.pairs for name in sample.scores})
        raise OutcomeError(
            f"{log.path} has no figure {score!r} for {len(values) - len(known)} of {len(values)} "
            f"samples. It has: {', '.join(there) or 'none'}."
        )
    rows = [replace(row, scores={primary: v}) for row, v in zip(answered, known, strict=True)]
    return {primary: sum(known) / len(known)}, rows


def _outcome(
    log: HarnessLog, like: Outcome, evaluation: Evaluation, digest: str, note: str
) -> Outcome:
    """Return a log as the record of a model that was only asked; a size of 0 is unknown."""
    model = Path(log.model).name
    name, size = f"{model} ({log.harness}, {log.task})", log.parameters or 0
    facts = ModelFacts.without_weights(name, log.model, FAMILY, "unknown", size)
    data = DataFacts(
        name=like.data.name,
        sizes={"test": evaluation.examples},
        fingerprints=dict(like.data.fingerprints),
        dropped={},
        report={},
        prompt_fingerprint=digest[:16],
    )
    config = {
        "model": {"name": name, "path": log.model, "family": FAMILY, "content": digest[:16]},
        "dataset": like.config.get("dataset"),
        "metric": like.config.get("metric"),
    }
    return Outcome(
        run_id=f"{log.task}-{digest[:12]}",
        identity=digest[:12],
        config=config,
        model=facts,
        data=data,
        cost=CostFacts(),
        primary=like.primary,
        direction=like.direction,
        base={evaluation.dataset: evaluation},
        tuned=None,
        validation={},
        objective=None,
        seed=0,
        provenance={},
        warnings=[note],
    )
