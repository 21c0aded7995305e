"""Outcomes of one or many sweeps, and the per-example answers they name by path and hash."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sizewise.errors import OutcomeError
from sizewise.files import key_text, parse_json
from sizewise.record.brackets import TuningRecord, read_tuning
from sizewise.record.directories import OUTCOME_FILE, RunDir
from sizewise.record.kinds import check_kinds
from sizewise.record.outcome import Evaluation, ModelFacts, Outcome, read_outcome
from sizewise.record.predictions import WEIGHTED_BY, Prediction
from sizewise.statistics.arrays import FloatArray


@dataclass(frozen=True)
class Run:
    """A finished run: its record and where its files are now."""

    directory: Path
    outcome: Outcome


@dataclass(frozen=True)
class Problem:
    """Something that could not be used; reports list it and go on."""

    where: str
    reason: str


@dataclass(frozen=True)
class Loaded:
    """All runs that could be read, what could not, and what their sweeps tried before.

    A learning rate that was tried with one seed and not kept is none of the ``runs``, also where
    it was run to its end: configurations are compared at the rate that was chosen.
    """

    runs: tuple[Run, ...]
    problems: tuple[Problem, ...]
    tuning: tuple[TuningRecord, ...] = ()


@dataclass(frozen=True)
class ScoredAnswers:
    """Per-example values [N] of one predictions file, in its order.

    ``scores`` by ``metric/score`` are NaN where an example lacks one, ``confidence`` (the mean
    log-probability of the generated tokens) where it was not computed. ``tokens`` are those of
    prompt and answer together, ``weights`` by how much each example counts in the scores that are
    ratios of sums. ``seconds`` are an example's share of the time of its batch, ``finished`` is 0
    for answers cut by the limit, ``candidate_probability`` as in ``Prediction`` (NaN without).
    ``same_text`` and ``same_reference`` are the shares of the commonest text and reference.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    scores: dict[str, FloatArray]
    confidence: FloatArray
    prompt_chars: FloatArray
    tokens: FloatArray
    weights: dict[str, FloatArray]
    strata: dict[str, list[str]]
    path: Path
    new_tokens: FloatArray
    seconds: FloatArray
    batch_size: FloatArray
    finished: FloatArray
    candidate_probability: FloatArray
    same_text: float
    same_reference: float

    def positions(self, ids: Sequence[str]) -> list[int]:
        at = {key: i for i, key in enumerate(self.ids)}
        return [at[key] for key in ids]

    def lines(self) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in map(parse_json, self.path.read_bytes().splitlines())}


def find_run_dirs(paths: Iterable[Path]) -> list[Path]:
    """Return the directories with an outcome at or below ``paths``, sorted, each once."""
    found: set[Path] = set()
    for path in paths:
        if not path.is_dir():
            raise OutcomeError(f"{path} is no directory. Give run or sweep directories.")
        if RunDir(path).outcome.is_file():
            found.add(path.resolve())
        else:
            found |= {file.parent.resolve() for file in path.rglob(OUTCOME_FILE)}
    return sorted(found)


def load_runs(paths: Iterable[Path]) -> Loaded:
    """Read every outcome at or below ``paths``.

    A damaged record, or one of another version, is a problem and not an error. The same job met
    twice on the same data (copied, or run on two machines) counts once: it is no further seed. The
    first that has all its predictions stands for the others.
    """
    problems: list[Problem] = []
    copies: dict[str, list[Run]] = {}
    directories = find_run_dirs(paths)
    tuning = {path: read_tuning(path) for path in sorted({d.parent for d in directories})}
    tuned = {path: record for path, record in tuning.items() if record is not None}
    tried = {path / c.run for path, record in tuned.items() for _, c in record.stopped}
    for directory in (d for d in directories if d not in tried):
        try:
            outcome = read_outcome(directory)
        except OutcomeError as error:
            problems.append(Problem(str(directory), str(error)))
            continue
        key = key_text([outcome.identity, dict(outcome.data.fingerprints)])
        copies.setdefault(key, []).append(Run(directory, outcome))
    runs = [next(filter(_is_whole, same), same[0]) for same in copies.values()]
    for run, same in zip(runs, copies.values(), strict=True):
        reason = f"is the job of {run.directory}; counted once"
        problems += [Problem(str(r.directory), reason) for r in same if r is not run]
    return Loaded(tuple(_by_place(runs)), tuple(problems), tuple(tuned.values()))


# Names of the options that take any model: they name none.
ANY_MODEL = ("local", "encoder", "endpoint")


def _by_place(runs: Sequence[Run]) -> list[Run]:
    """Name models that have no name of their own by folder or repository.

    That is its last part; where other models would be called so too, as many more as tell them
    apart.
    """
    models = [run.outcome.model for run in runs]
    places = {
        model.path: [part for part in re.split(r"[/\\:]+", model.path) if part]
        for model in models
        if model.name in ANY_MODEL or model.name == _cleaned(Path(model.path).name)
    }
    taken = {model.name for model in models if model.path not in places}
    return [
        Run(
            run.directory,
            replace(run.outcome, model=replace(model, name=_place(model, places, taken))),
        )
        if model.path in places
        else run
        for run, model in zip(runs, models, strict=True)
    ]


def _place(model: ModelFacts, places: Mapping[str, Sequence[str]], taken: set[str]) -> str:
    parts = places[model.path]
    for count in range(1, len(parts) + 1):
        name = "/".join(parts[-count:])
        others = ["/".join(o[-count:]) for path, o in places.items() if path != model.path]
        if name not in others and name not in taken:
            return name
    return model.path or model.name


def _cleaned(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


def _is_whole(run: Run) -> bool:
    evaluations = [*run.outcome.base.values(), *(run.outcome.tuned or {}).values()]
    files = [(run.directory / e.predictions.path, e.predictions.bytes) for e in evaluations]
    return all(path.is_file() and path.stat().st_size == size for path, size in files)


@dataclass
class AnswerCache:
    """Reads predictions files, checked against their hashes; equal files are read once."""

    read: dict[str, ScoredAnswers] = field(default_factory=dict)

    def get(self, run: Run, evaluation: Evaluation) -> ScoredAnswers:
        """Return an evaluation's answers; OutcomeError for a missing, changed or damaged file."""
        ref = evaluation.predictions
        if ref.sha256 not in self.read:
            self.read[ref.sha256] = parse_answers(run.directory / ref.path, ref.sha256)
        return self.read[ref.sha256]


def parse_answers(path: Path, sha256: str | None = None) -> ScoredAnswers:
    """Parse a predictions file; raise OutcomeError where it is not what the record names."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OutcomeError(f"{path} cannot be read ({error.strerror}). Copy it too.") from error
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise OutcomeError(f"{path} was changed after the run: its hash is not the recorded one.")
    try:
        return _answers([parse_json(line) for line in data.splitlines()], path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutcomeError(f"{path} is no predictions file of this version ({error!r}).") from error


def _answers(rows: Sequence[dict], path: Path) -> ScoredAnswers:  # type: ignore[type-arg]
    for number, row in enumerate(rows, start=1):
        check_kinds(row, Prediction, f"line {number}")
    names = sorted({name for row in rows for name in row["scores"]})
    strata = sorted({name for row in rows for name in row["strata"]})
    nan = float("nan")

    def array(values: Iterable[float | None]) -> FloatArray:
        return np.array([nan if v is None else v for v in values], dtype=np.float64)

    return ScoredAnswers(
        ids=tuple(row["id"] for row in rows),
        groups=tuple(row["group"] for row in rows),
        scores={name: array(row["scores"].get(name) for row in rows) for name in names},
        confidence=array(row.get("token_log_prob") for row in rows),
        prompt_chars=array(len(row["prompt"]) for row in rows),
        tokens=array(row["prompt_tokens"] + row["new_tokens"] for row in rows),
        weights={name: array(row[by] for row in rows) for name, by in WEIGHTED_BY.items()},
        strata={name: [str(row["strata"].get(name, "")) for row in rows] for name in strata},
        path=path,
        new_tokens=array(row["new_tokens"] for row in rows),
        seconds=array(row["latency"] / row["batch_size"] for row in rows),
        batch_size=array(row["batch_size"] for row in rows),
        finished=array(row["finished"] for row in rows),
        candidate_probability=array(row.get("candidate_probability") for row in rows),
        same_text=_commonest([row["text"].strip() for row in rows]),
        same_reference=_commonest([row["reference"].strip() for row in rows]),
    )


def _commonest(texts: Sequence[str]) -> float:
    """Share of the commonest text that says anything; 0 of none."""
    return max(Counter(filter(None, texts)).values(), default=0) / max(1, len(texts))
