"""What every model that answers the examples of a job can do, and what it hands over."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sizewise.config import RunConfig
from sizewise.config.data import SplitName
from sizewise.data.tokens.template import Template
from sizewise.evaluation.predict import Answers
from sizewise.evaluation.score import EvaluationResult
from sizewise.job.data import PreparedJob, Task
from sizewise.record.outcome import CostFacts, ModelFacts
from sizewise.record.timing import Timing

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger


class Answerer(ABC):
    """A model that answers. Its class also says what it refuses and how it reads data.

    Attributes:
        has_likelihoods: whether it says how likely an answer is.
        uses_energy: whether it computes on a device whose energy can be measured.
        answers_untouched: whether it answers before it is trained.
    """

    has_likelihoods: ClassVar[bool] = False
    uses_energy: ClassVar[bool] = False
    answers_untouched: ClassVar[bool] = True

    @staticmethod
    @abstractmethod
    def check(cfg: RunConfig) -> tuple[str, ...]:
        """Refuse what makes no sense for this kind, before data is read; return warnings."""

    @staticmethod
    @abstractmethod
    def read_data(cfg: RunConfig, run_dir: Path) -> tuple[Template | None, list[Task]]:
        """Read, split and prepare all data; return the template (None without one) and tasks."""

    @classmethod
    @abstractmethod
    def load(cls, job: PreparedJob) -> Answerer:
        """Load the untouched model."""

    @abstractmethod
    def answer(self, job: PreparedJob, task: Task, split: SplitName, kind: str) -> Answers:
        """Answer every example of a split; ``kind`` names the file (``RunDir.predictions``)."""

    def specialise(self, job: PreparedJob, loggers: Sequence[Logger]) -> Answerer:
        """Return the model that stands for the run: tuned, with its adapter, or as it is."""
        return self

    def validation_loss(self, job: PreparedJob) -> dict[str, float]:
        """Return the loss on the validation split, empty where there is none."""
        return {}

    def time_answers(self, job: PreparedJob) -> list[Timing]:
        """Time a sample of the test prompts, untouched and specialised.

        Empty where that is not known, or answers are timed as they are made.
        """
        return []

    @abstractmethod
    def facts(self, job: PreparedJob) -> ModelFacts:
        """Describe the model."""

    @abstractmethod
    def cost(self, evaluations: Sequence[EvaluationResult], joules: float | None) -> CostFacts:
        """Sum up what the run cost; evaluations are those of the model that stands for it."""

    def give_back(self, job: PreparedJob) -> None:  # noqa: B027
        """Keep what the next job may use; nothing, unless a kind says otherwise."""
