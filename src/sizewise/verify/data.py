"""Is the data of a stored run still what its source gives, its test split included?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sizewise.config.data import SPLITS
from sizewise.errors import SizewiseError
from sizewise.files import parse_json
from sizewise.record.outcome import Evaluation, Outcome
from sizewise.verify import FAILED, UNCHECKED, Check

if TYPE_CHECKING:
    from sizewise.config import DatasetConfig, RunConfig
    from sizewise.data.example import DataSplits, Example
    from sizewise.record.predictions import Prediction


@dataclass(frozen=True)
class Rebuilt:
    """A data set that was built anew; ``splits`` is None with the reason where it was not."""

    splits: DataSplits | None
    reason: str = ""


def rebuild(outcome: Outcome) -> dict[str, Rebuilt]:
    """Build every data set of a run anew, by name; one without a source here says why not."""
    from sizewise.config.targets import recorded_config

    try:
        cfg = recorded_config(_without_hashes(outcome.config))
    except SizewiseError as error:
        return {outcome.data.name: Rebuilt(None, f"the data could not be built: {error}")}
    own = _built(cfg, cfg.dataset)
    train = own.splits.train if own.splits is not None else ()
    found = {outcome.data.name: _marked(own, train, cfg.dataset.frequent)}
    for dataset in cfg.eval_dataset.values():
        there = _built(cfg, dataset)
        found[dataset.name] = _marked(there, train, dataset.frequent) if train else there
    return found


def trained_on(outcome: Outcome, directory: Path, splits: DataSplits | None) -> Sequence[Example]:
    """Return the examples that a run was trained on: a teacher's answers where it had one."""
    from sizewise.config.targets import recorded_config
    from sizewise.data.splits.teaching import (
        askable,
        hold_back,
        taught_examples,
        unanswered_prompts,
    )

    facts, file = outcome.data.report.get("teacher"), outcome.files.get("teacher")
    if splits is None or not facts or file is None:
        return splits.train if splits is not None else ()
    try:
        rows = [parse_json(line) for line in (directory / file.path).read_bytes().splitlines()]
        answers = {row["id"]: row["text"] for row in rows if not row["reason"]}
        dataset = recorded_config(outcome.config).dataset
        asked, _ = askable(splits, unanswered_prompts(dataset))
        source = str(facts["answers_from"])
        taught = taught_examples(splits.train, asked, answers, source)
        return hold_back(taught, dataset.split.seed)[0] if source == "teacher" else taught
    except (SizewiseError, OSError, ValueError, KeyError, TypeError):
        return ()  # what depends on it is then said not to be checked


def _marked(there: Rebuilt, train: Sequence[Example], frequent: int) -> Rebuilt:
    """Give every example the stratum that says how often its label occurs in training."""
    from sizewise.data.splits.frequency import add_frequency, count_labels
    from sizewise.metrics.reading.closed import plain

    if there.splits is None:
        return there
    return Rebuilt(add_frequency(there.splits, count_labels(train, plain), frequent, plain))


def _without_hashes(config: Any) -> Any:
    """Leave out the hashes of files: a changed file is to be read, and its examples compared."""
    if not isinstance(config, Mapping):
        return config
    return {key: _without_hashes(value) for key, value in config.items() if key != "sha256"}


def _built(cfg: RunConfig, dataset: DatasetConfig) -> Rebuilt:
    from sizewise.data.build import build_splits

    if dataset.source.kind == "hub":
        return Rebuilt(None, "the source is on the hub and nothing is downloaded here")
    try:
        if not cfg.dry_run:
            return Rebuilt(build_splits(dataset))
        from sizewise.job.dry_run import few

        return Rebuilt(build_splits(few(dataset), stand_in=True))
    except (SizewiseError, OSError) as error:
        return Rebuilt(None, f"the data could not be built: {error}")


def data_checks(outcome: Outcome, rebuilt: dict[str, Rebuilt], absent: Rebuilt) -> Iterator[Check]:
    """Compare fingerprints, sizes and the report of the data with the data of today.

    ``absent`` says why a data set is not among the ``rebuilt``, which go by name.
    """
    own = outcome.data.name
    there = rebuilt.get(own, absent)
    for split in SPLITS:
        yield _check(own, split, outcome.data.fingerprints.get(split), there)
    yield _counts(outcome, there)
    for name, evaluation in _further(outcome):
        yield _check(name, evaluation.split, evaluation.fingerprint, rebuilt.get(name, absent))


def _further(outcome: Outcome) -> Iterator[tuple[str, Evaluation]]:
    seen = set()
    for entries in (outcome.base, outcome.tuned or {}):
        for name, entry in entries.items():
            key = (name, entry.split, entry.fingerprint)
            if name != outcome.data.name and key not in seen:
                seen.add(key)
                yield name, entry


def _check(dataset: str, split: str, recorded: str | None, there: Rebuilt) -> Check:
    title = f"data {dataset}/{split}"
    if recorded is None:
        return Check(title, FAILED, "its fingerprint is not in the record")
    if there.splits is None or split not in SPLITS:
        return Check(title, UNCHECKED, there.reason or "is no split of the data set")
    found = _print_of(there.splits, split)
    detail = f"the source, as it is split today, gives {found}, recorded was {recorded}"
    return Check.of(title, [] if found == recorded else [detail])


def _counts(outcome: Outcome, there: Rebuilt) -> Check:
    """Compare the examples per split, with those too long for the model, and the report."""
    data, title = outcome.data, f"data {outcome.data.name}: counts"
    if there.splits is None:
        return Check(title, UNCHECKED, there.reason)
    wrong = []
    for split in SPLITS:
        found = len(getattr(there.splits, split))
        dropped = sum(n for key, n in data.dropped.items() if key.partition("/")[0] == split)
        recorded = data.sizes.get(split, 0) + dropped
        taught = split == "train" and bool(data.report.get("teacher"))
        if recorded != found and not taught:  # a teacher's answers are checked as a file
            wrong.append(f"{split}: {recorded} recorded, {found} today")
    today = asdict(there.splits.report)
    for name in sorted({*data.report} & {*today}):
        if not same(data.report[name], today[name]):
            wrong.append(f"{name}: {data.report[name]!r} recorded, {today[name]!r} today")
    return Check.of(title, wrong)


def same(before: Any, after: Any, tolerance: float = 1e-9) -> bool:
    """Equal values, numbers within ``tolerance`` (relative)."""
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(same(v, after[k]) for k, v in before.items())
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(same, before, after))
    if isinstance(before, (int, float)) and isinstance(after, (int, float)):
        return abs(before - after) <= tolerance * max(1.0, abs(before), abs(after))
    return bool(before == after)


def _print_of(splits: DataSplits, split: str) -> str:
    return splits.question_fingerprint(split)  # type: ignore[arg-type]


TITLE = "questions and references"


def example_checks(
    predictions: Sequence[Prediction], evaluation: Evaluation, there: Rebuilt
) -> Iterator[Check]:
    """Compare id, group, prompt, reference and strata of every prediction with its example."""
    if there.splits is None:
        yield Check(TITLE, UNCHECKED, there.reason)
        return
    split = evaluation.split
    if split not in SPLITS or _print_of(there.splits, split) != evaluation.fingerprint:
        yield Check(TITLE, UNCHECKED, f"the source gives another {split} split today")
        return
    asked = getattr(there.splits, split)
    examples = {example.id: example for example in asked}
    faults = [fault for p in predictions for fault in _faults(p, examples.get(p.id), split)]
    said = [f"{len(faults)} differ from the source, first {fault}" for fault in faults[:1]]
    yield Check.of(TITLE, said)
    left_out = len(asked) - len(predictions)
    if left_out:
        detail = (
            f"{left_out} of {len(asked)}: that they are too long for the model is "
            "counted by its tokenizer only"
        )
        yield Check("examples left out", UNCHECKED, detail)


def _faults(prediction: Prediction, example: Example | None, split: str) -> Iterator[str]:
    from sizewise.evaluation.answer import strata_of

    if example is None:
        yield f"{prediction.id}: is no example of the {split} split"
        return
    pairs = {
        "group": (prediction.group, example.group),
        "prompt": (prediction.prompt, example.prompt_text),
        "reference": (prediction.reference, example.answer),
        "answer_bytes": (prediction.answer_bytes, len(example.answer.encode())),
    }
    for name, value in strata_of(example).items():
        pairs[f"stratum {name}"] = (prediction.strata.get(name), value)
    for name, (stored, found) in pairs.items():
        if stored != found:
            yield f"{prediction.id}: {name} is stored as {stored!r} and is {found!r}"
