"""Predictions on disk: one JSON line each, written as they are made, with what they cost."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sizewise.errors import EvaluationError
from sizewise.files import (
    SEAL,
    append_durably,
    file_hash,
    hash_text,
    parse_json,
    sealed,
    unsealed,
    whole_lines,
    write_atomically,
)
from sizewise.record.kinds import check_kinds

if TYPE_CHECKING:
    from sizewise.devices import PeakMemory

log = logging.getLogger(__name__)

# Scores over a corpus that are ratios of sums: its value is the mean of the examples' values,
# each weighted by this field.
WEIGHTED_BY = {
    "perplexity/bits_per_byte": "answer_bytes",
    "perplexity/nll_per_token": "answer_tokens",
}


@dataclass(frozen=True)
class Prediction:
    """What one model (base or tuned) did with one example; one line of a predictions file.

    Attributes:
        id: content hash of the example (``Example.id``).
        group: the example's group, for clustered statistics.
        strata: values for breakdowns (label, frequency band, …).
        text: the generated answer, special tokens removed.
        log_prob: natural-log probability of the reference answer's tokens, end of turn included;
            ``answer_tokens`` is their number, ``answer_bytes`` the answer's UTF-8 length.
        prompt_tokens: length of the encoded prompt.
        new_tokens: generated tokens, end of turn included.
        finished: whether generation ended by itself (not by ``max_new_tokens``).
        latency: seconds from prompt to answer (its batch's time where batched), synchronised.
        batch_size: number of examples generated together.
        token_log_prob: mean natural-log probability of the generated tokens (the model's own
            confidence); None where it was not computed.
        candidate: the most likely of the given candidate answers, by the summed log-probability of
            its tokens; None where none were given.
        candidate_probability: its share of the probability of all candidates.
        candidate_per_token: the most likely one by the mean per token.
        candidate_calibrated: the one that gains most on its mean over the validation prompts; None
            without such prompts.
        scores: per-example values of every metric, by ``metric/score`` name.
    """

    id: str
    group: str
    prompt: str
    reference: str
    text: str
    log_prob: float
    answer_tokens: int
    answer_bytes: int
    prompt_tokens: int
    new_tokens: int
    finished: bool
    latency: float
    batch_size: int
    token_log_prob: float | None = None
    candidate: str | None = None
    candidate_probability: float | None = None
    candidate_per_token: str | None = None
    candidate_calibrated: str | None = None
    strata: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class PredictionStore:
    """An append-only file of predictions that survives ``kill -9`` at any moment.

    Every batch is flushed to the disk before the next one starts; a torn last line is dropped.
    Each line carries its hash until all are there; from then on a side-car (``<name>.key``), which
    says what the predictions belong to, holds that of the whole file.

    Args:
        path: the file of predictions.
        key: hash of everything the predictions depend on (model, data, decoding, …).

    Raises:
        EvaluationError: the file holds predictions under another key, or under none.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key
        self._key_path = path.with_name(f"{path.name}.key")
        self._check_owner()

    def read(self) -> list[Prediction]:
        """Return all whole predictions, in the order in which they were written.

        Damaged lines are dropped from the file, which is said: they are made again.
        """
        if not self.path.exists():
            return []
        lines, bare = _lines(self.path), self._bare_lines_count()
        rows = [row for line in lines if (row := _row(line, bare)) is not None]
        if len(rows) < len(lines):
            lost = len(lines) - len(rows)
            log.warning("%s: %d damaged predictions are made again.", self.path, lost)
            write_atomically(self.path, "".join(map(_sealed_line, rows)))
        return rows

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Write predictions after the last whole line and wait until they are on the disk."""
        self._claim()
        append_durably(self.path, "".join(map(_sealed_line, predictions)))

    def finish(self, predictions: Iterable[Prediction]) -> None:
        """Replace the file at once by the final predictions with their scores."""
        text = "".join(map(_line, predictions))
        self._claim(hash_text(text))
        write_atomically(self.path, text)

    def empty(self) -> None:
        """Remove all predictions and what they cost: they are made again."""
        for path in (self.path, self._key_path, bill_path(self.path)):
            path.unlink(missing_ok=True)

    def _check_owner(self) -> None:
        if not self.path.exists():
            return
        owner = self._owner()
        if owner != self.key:
            raise EvaluationError(
                f"{self.path} holds predictions of something else (key {owner}, here {self.key}). "
                "Write to another directory, or remove that file to start again."
            )

    def _owner(self) -> str | None:
        return next(iter(self._side_car()), None)

    def _side_car(self) -> list[str]:
        if not self._key_path.exists():
            return []
        return self._key_path.read_text(encoding="utf-8", errors="replace").split()

    def _bare_lines_count(self) -> bool:
        """Whether lines without a hash are whole: an earlier version's, or finished ones."""
        finished = self._side_car()[1:]
        return not finished or finished[0] == file_hash(self.path)

    def _claim(self, finished: str | None = None) -> None:
        """The key is on the disk before the first prediction, never the other way round."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if finished is not None or self._owner() != self.key:
            lines = [self.key] if finished is None else [self.key, finished]
            write_atomically(self._key_path, "".join(f"{line}\n" for line in lines))


def read_predictions(path: Path) -> list[Prediction]:
    """Read predictions, a torn last line left out; EvaluationError for a damaged one before."""
    return [_parse(line, path, i) for i, line in enumerate(_lines(path), start=1)]


def _lines(path: Path) -> list[bytes]:
    return whole_lines(path.read_bytes())


def _line(prediction: Prediction) -> str:
    return json.dumps(prediction.to_json(), ensure_ascii=True) + "\n"


def _sealed_line(prediction: Prediction) -> str:
    return json.dumps(sealed(prediction.to_json()), ensure_ascii=True) + "\n"


def _prediction(record: Any) -> Prediction:
    check_kinds(record, Prediction)
    return Prediction(**unsealed(record))


def _parse(line: bytes, path: Path, number: int) -> Prediction:
    try:
        return _prediction(parse_json(line))
    except (ValueError, TypeError, AttributeError) as error:
        raise EvaluationError(
            f"{path}, line {number}, is no prediction of this version ({error}). "
            "Remove the file and evaluate again."
        ) from error


def _row(line: bytes, bare: bool) -> Prediction | None:
    """Return a prediction; None for a damaged line, or for one without a hash unless ``bare``."""
    try:
        record = parse_json(line)
        return _prediction(record) if bare or SEAL in record else None
    except (ValueError, TypeError, AttributeError):
        return None


@dataclass(frozen=True)
class Spent:
    """What the first ``predictions`` of a file cost: seconds of wall time, peak bytes of memory."""

    predictions: int
    seconds: float
    peak_bytes: int | None


class Bill:
    """Adds up what a split costs, batch by batch, in a side-car ``<name>.spent``.

    A line of it is written before the predictions that it counts. After a kill between the two it
    counts more predictions than there are, and is passed over. ``held`` of them are there already,
    and ``clock`` gives the seconds that the job itself has taken.
    """

    def __init__(
        self,
        predictions: Path,
        held: int,
        peak: PeakMemory,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.path = bill_path(predictions)
        self._held, self._peak, self._clock = held, peak, clock
        self._lines = self._read()
        none = None if held else Spent(0, 0.0, None)
        self._before = self._lines[-1] if self._lines else none
        self._now = self._before
        self._started = self._clock()

    @property
    def seconds(self) -> float | None:
        """Seconds that all predictions took; None where an earlier process did not note its own."""
        return None if self._now is None else self._now.seconds

    @property
    def peak_bytes(self) -> int | None:
        """The highest peak; where nobody noted it, that of this process."""
        return self._peak.read() if self._now is None else self._now.peak_bytes

    def begin(self) -> None:
        """Leave out the warm-up of a resumed evaluation: an undisturbed one has a single one."""
        if self._held:
            self._started = self._clock()

    def note(self, new: int) -> None:
        """Count a batch of ``new`` predictions that is about to be stored."""
        if self._before is None:
            return
        seconds = self._before.seconds + self._clock() - self._started
        peaks = [p for p in (self._before.peak_bytes, self._peak.read()) if p is not None]
        if self._now is self._before:
            self._write_anew()
        self._held += new
        self._now = Spent(self._held, seconds, max(peaks, default=None))
        append_durably(self.path, _bill_line(self._now))

    def _write_anew(self) -> None:
        """Drop what is about predictions that are not there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, "".join(map(_bill_line, self._lines)))

    def _read(self) -> list[Spent]:
        if not self.path.is_file():
            return []
        try:
            lines = read_bill(self.path)
        except (ValueError, TypeError):
            log.warning("%s is damaged: what the answers cost so far is not known.", self.path)
            return []
        return [spent for spent in lines if spent.predictions <= self._held]


def bill_path(predictions: Path) -> Path:
    return predictions.with_name(f"{predictions.name}.spent")


def read_bill(path: Path) -> list[Spent]:
    """Read a side-car that a Bill wrote; ValueError or TypeError if it is damaged."""
    return [_spent(line) for line in _lines(path)]


def _bill_line(spent: Spent) -> str:
    values = astuple(spent)
    return json.dumps([*values, _check(values)]) + "\n"


def _spent(line: bytes) -> Spent:
    *values, last = parse_json(line)
    if not isinstance(last, str):  # of a version without hashes
        return _of_kind(Spent(*[*values, last]))
    if last != _check(values):
        raise ValueError("it is not what was written")
    return _of_kind(Spent(*values))


def _of_kind(spent: Spent) -> Spent:
    check_kinds(asdict(spent), Spent)
    return spent


def _check(values: Iterable[float | None]) -> str:
    return hash_text(json.dumps(list(values)), 16)
