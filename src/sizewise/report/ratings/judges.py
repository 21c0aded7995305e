"""How far judges agree with people: the rated pairs with their texts, and Cohen's kappa on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sizewise.errors import OutcomeError
from sizewise.files import read_json, sealed, unsealed, write_json
from sizewise.record.kinds import check_kinds
from sizewise.record.predictions import Prediction, read_predictions
from sizewise.report.comparison.runs import load_runs
from sizewise.report.ratings.pairs import AnswerPair, sides_of
from sizewise.report.ratings.store import FOLDER, Rating, read_ratings
from sizewise.statistics.agreement import TIE, cohen_kappa

JUDGES_FILE = "judges.json"


@dataclass(frozen=True)
class RatedPair:
    """Two answers that people rated; ``people`` is what most of them said (``a``, ``b``, ``tie``).

    Where two say the opposite and nobody decides it, it is a tie.
    """

    item: str
    prompt: str
    a: str
    b: str
    people: str
    raters: int


@dataclass(frozen=True)
class JudgeAgreement:
    """Cohen's kappa of a judge (over both orders) and the majority of people.

    ``items``: pairs that both rated; kappa is None where it is not defined (all said the same).
    """

    name: str
    kappa: float | None
    items: int
    raters: int

    @property
    def sentence(self) -> str:
        if self.kappa is None:
            return f"{self.name}: agreement cannot be told from {self.items} rated pairs."
        return (
            f"{self.name}: Cohen's kappa with people is {self.kappa:.2f} on {self.items} rated "
            "pairs."
        )


def rated_pairs(directory: Path) -> list[RatedPair]:
    """Return the pairs that were rated below a sweep or run, with the answers as they were shown.

    Raises:
        OutcomeError: there are no ratings, or the answers are no longer there.
    """
    paths = sorted((directory / FOLDER).glob("*.jsonl"))
    last = {(r.rater, r.item): r for path in paths for r in read_ratings(path)}
    if not last:
        raise OutcomeError(
            f"Nobody rated answers in {directory}. Rate some first: sizewise app {directory}."
        )
    by_item: dict[str, list[Rating]] = {}
    for rating in last.values():
        by_item.setdefault(rating.item, []).append(rating)
    answers = _answers(directory)
    found = [pair for rated in by_item.values() if (pair := _pair(rated, answers)) is not None]
    if not found:
        raise OutcomeError(f"The answers that were rated in {directory} are not there any more.")
    return found


AnswersOfRuns = Mapping[tuple[str, str], Mapping[str, Prediction]]


def _answers(directory: Path) -> AnswersOfRuns:
    sides = [side for run in load_runs([directory]).runs for side in sides_of(run)]
    return {
        (side.name, side.dataset): {row.id: row for row in read_predictions(side.path)}
        for side in sides
    }


def _pair(rated: Sequence[Rating], answers: AnswersOfRuns) -> RatedPair | None:
    first = rated[0]
    a, b = (
        answers.get((name, first.dataset), {}).get(first.example) for name in (first.a, first.b)
    )
    if a is None or b is None:
        return None
    shown = AnswerPair(a.id, a.prompt, a.text.strip(), b.text.strip())
    if shown.key != first.item:  # answered anew since
        return None
    people = majority([rating.outcome for rating in rated])
    return RatedPair(shown.key, shown.prompt, shown.a, shown.b, people, len(rated))


def majority(outcomes: Iterable[str]) -> str:
    """Return the commonest outcome; a tie where two are equally common."""
    ranked = Counter(outcomes).most_common()
    return TIE if len(ranked) > 1 and ranked[0][1] == ranked[1][1] else ranked[0][0]


def agreement(name: str, verdicts: Mapping[str, str], pairs: Sequence[RatedPair]) -> JudgeAgreement:
    """Compare a judge's verdicts, by item, with what people said of the same pairs."""
    both = [(verdicts[pair.item], pair.people) for pair in pairs if pair.item in verdicts]
    kappa = cohen_kappa([one for one, _ in both], [other for _, other in both])
    raters = max((pair.raters for pair in pairs), default=0)
    return JudgeAgreement(name, None if kappa != kappa else kappa, len(both), raters)


def write_agreements(directory: Path, found: Mapping[str, JudgeAgreement]) -> None:
    """Keep agreements by the judges' keys beside the ratings; those of other judges stay."""
    kept = {key: asdict(value) for key, value in {**read_agreements([directory]), **found}.items()}
    write_json(directory / FOLDER / JUDGES_FILE, sealed({"judges": kept}))


def read_agreements(directories: Iterable[Path]) -> dict[str, JudgeAgreement]:
    """Return the agreements that are kept in any of the directories, by the judges' keys.

    Raises:
        OutcomeError: a file is damaged.
    """
    found: dict[str, JudgeAgreement] = {}
    for path in (directory / FOLDER / JUDGES_FILE for directory in directories):
        if not path.is_file():
            continue
        try:
            judges = unsealed(read_json(path) or {})["judges"]
            for key, value in judges.items():
                check_kinds(value, JudgeAgreement, key)
                found[key] = JudgeAgreement(**value)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OutcomeError(f"{path} is damaged: ask the judges again.") from error
    return found
