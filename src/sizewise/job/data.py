"""The data of a job: every data set it names, split, encoded, and kept as files where asked."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sizewise.config import DatasetConfig, RunConfig
from sizewise.config.data import SPLITS, SplitName
from sizewise.config.evaluation import CHOICE
from sizewise.data.build import kept_splits
from sizewise.data.example import DataReport, DataSplits, Example
from sizewise.data.explore import draw_lengths, explore, group_columns, leak_sentence
from sizewise.data.rows.sqlite import write_splits
from sizewise.data.splits.frequency import add_frequency, count_labels
from sizewise.data.splits.groups import question_keys
from sizewise.data.splits.mixture import prompt_fingerprint
from sizewise.data.tokens.encode import EncodedSplit, encode_examples
from sizewise.data.tokens.template import Template
from sizewise.evaluation.candidate_set import automatic_choice, read_candidates
from sizewise.files import write_atomically
from sizewise.job.dry_run import few
from sizewise.metrics.base import ExampleMetric, build_metrics
from sizewise.metrics.reading.closed import plain
from sizewise.record.directories import RunDir
from sizewise.record.outcome import TeacherFacts
from sizewise.record.predictions import PredictionStore

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """One data set as a model sees it.

    Attributes:
        config: where it comes from and how it is written.
        splits: the examples.
        encoded: the same, encoded; only the splits that were asked for, none where the model reads
            words.
        teacher: who wrote the answers that are trained on; then ``splits`` have the gold ones, and
            ``encoded`` what is trained on.
        held_back: examples that a teacher answered and that are not trained on: where all that is
            learnt is a teacher's, the loss on them chooses among checkpoints and learning rates,
            and not how gold answers are worded.
    """

    config: DatasetConfig
    splits: DataSplits
    encoded: Mapping[SplitName, EncodedSplit] = field(default_factory=dict)
    teacher: TeacherFacts | None = None
    held_back: EncodedSplit | None = None

    def examples(self, split: SplitName) -> Sequence[Example]:
        """Return the examples of a split that the model is asked: those that were encoded."""
        if self.encoded:
            return self.encoded[split].examples
        return cast(Sequence[Example], getattr(self.splits, split))

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.config.name

    @property
    def prompt_fingerprint(self) -> str:
        """Hash of everything but the rows that decides what a model reads (16 hex digits)."""
        return prompt_fingerprint(self.config)


@dataclass(frozen=True)
class Lesson:
    """The examples that are trained on in place of the training split, and where they are from."""

    examples: tuple[Example, ...]
    held_back: tuple[Example, ...]
    facts: TeacherFacts


def load_encoded_tasks(cfg: RunConfig, template: Template, max_positions: int | None) -> list[Task]:
    """Read, split and encode the data set of a run and the test split of every further one."""
    room, cache, dry_run = answer_room(cfg), Path(cfg.paths.cache), cfg.dry_run
    first = load_task(cfg.dataset, template, max_positions, cache, dry_run=dry_run, reserve=room)
    labels = count_labels(first.splits.train, plain)
    return [
        first,
        *(
            load_task(dataset, template, max_positions, cache, ("test",), labels, dry_run, room)
            for dataset in cfg.eval_dataset.values()
        ),
    ]


def load_plain_tasks(cfg: RunConfig) -> list[Task]:
    """Read and split the same for a model that reads words."""
    first = load_splits(cfg.dataset, None, cfg.dry_run)
    labels = count_labels(first.train, plain)
    further = cfg.eval_dataset.values()
    return [
        Task(cfg.dataset, first),
        *(Task(dataset, load_splits(dataset, labels, cfg.dry_run)) for dataset in further),
    ]


def load_task(
    dataset: DatasetConfig,
    template: Template,
    max_positions: int | None,
    cache_dir: Path,
    names: tuple[SplitName, ...] = SPLITS,
    labels: Mapping[str, int] | None = None,
    dry_run: bool = False,
    reserve: Mapping[SplitName, int] | None = None,
) -> Task:
    """Read, split and encode a data set.

    Args:
        dataset: its configuration.
        template: how prompts and answers are written.
        max_positions: the longest sequence the model takes, where it says so.
        cache_dir: where encoded splits are kept.
        names: the splits to encode.
        labels: as ``count_labels`` makes them of the run's training; None: those of this data set.
        dry_run: take a few examples, synthetic ones where the hub is out of reach.
        reserve: tokens that an answer may take in each split that is to be answered.

    Raises:
        DataError: a split is empty, or all its answers are cut away.
    """
    splits = load_splits(dataset, labels, dry_run)
    encoded = {
        name: encode_examples(
            getattr(splits, name),
            template,
            dataset.max_length,
            dataset.truncate_prompt or dry_run,
            cache_dir,
            context=max_positions,
            name=name,
            reserve=(reserve or {}).get(name, 0),
        )
        for name in names
    }
    task = Task(dataset, splits, encoded)
    say_encoded(task)
    return task


def with_lesson(
    task: Task,
    lesson: Lesson,
    template: Template,
    max_positions: int | None,
    cfg: RunConfig,
) -> Task:
    """Return a task that trains on a lesson in place of its training split."""

    def encoded(examples: Sequence[Example]) -> EncodedSplit:
        return encode_examples(
            examples,
            template,
            cfg.dataset.max_length,
            cfg.dataset.truncate_prompt or cfg.dry_run,
            Path(cfg.paths.cache),
            context=max_positions,
            name="train",
        )

    return replace(
        task,
        encoded={**task.encoded, "train": encoded(lesson.examples)},
        teacher=lesson.facts,
        held_back=encoded(lesson.held_back) if lesson.held_back else None,
    )


def answer_room(cfg: RunConfig) -> dict[SplitName, int]:
    """Return the tokens that an answer may take in each split that the job answers.

    A dry run reserves none: its tiny model has positions enough, and its tokenizer may be another
    one than the base's.
    """
    metrics = build_metrics(cfg.metric)
    answered: dict[SplitName, bool] = {
        "test": cfg.stage != "train",
        "validation": any(answers_validation(cfg, metrics, side) for side in ("base", "tuned")),
    }
    return {
        name: cfg.generation.max_new_tokens
        for name, wanted in answered.items()
        if wanted and not cfg.dry_run
    }


def specialises(cfg: RunConfig) -> bool:
    """Whether the model that stands for the run is another than its untouched base."""
    return cfg.adapter is not None if cfg.stage == "evaluate" else cfg.lora.trains


def answers_validation(cfg: RunConfig, metrics: Sequence[ExampleMetric], side: str) -> bool:
    """Whether the untouched (``base``) or specialised (``tuned``) model is to answer validation.

    Something is chosen by these answers: trials of a search by the primary score; prompt wordings,
    readings and models on closed answer sets; anything where ``evaluation.answer_validation`` says.
    A server is asked only where that is said: it may be paid by the answer.
    """
    evaluation, own = cfg.evaluation, "tuned" if specialises(cfg) else "base"
    if side != own and (side == "tuned" or not evaluation.zero_shot):
        return False
    if side == own and evaluation.objective == "primary":
        return True
    if cfg.stage == "train" or evaluation.answer_validation != "auto":
        return cfg.stage != "train" and evaluation.answer_validation in ("both", side)
    closed = any(metric.closed and metric.gives(cfg.dataset.primary) for metric in metrics)
    return closed and cfg.model.family != "endpoint"


def load_splits(
    dataset: DatasetConfig, labels: Mapping[str, int] | None = None, dry_run: bool = False
) -> DataSplits:
    """Read and split a data set; examples carry how often their label occurs in training.

    Args:
        dataset: its configuration.
        labels: as ``count_labels`` makes them of the run's training; None: those of this data set.
        dry_run: take a few examples, synthetic ones where the hub is out of reach.
    """
    splits = kept_splits(few(dataset) if dry_run else dataset, stand_in=dry_run)
    _say_report(dataset.name, splits.report)
    counts = count_labels(splits.train, plain) if labels is None else labels
    return add_frequency(splits, counts, dataset.frequent, plain)


def shared_questions(tasks: Sequence[Task]) -> list[str]:
    """Say of every further test set how many of its questions the run was trained on.

    Questions are the same if the columns of the prompt hold the same or it reads the same (but for
    case and white space), whatever demonstrations are put before it.

    Args:
        tasks: the data set of the run, then the further test sets.
    """
    trained = {key for e in tasks[0].splits.train for key in question_keys(e.keys)}
    found: list[str] = []
    for task in tasks[1:]:
        test = task.splits.test
        shared = sum(not trained.isdisjoint(question_keys(example.keys)) for example in test)
        if shared:
            found.append(f"{shared} of {len(test)} questions of {task.name} occur in training.")
    return found


def say_encoded(task: Task) -> None:
    """Log how many examples a data set has, and what was dropped or cut."""
    report = task.splits.report
    sizes = ", ".join(f"{len(split.encoded)} {name}" for name, split in task.encoded.items())
    log.info("%s: %s examples from %d rows.", task.name, sizes, report.rows)
    if report.row_split_leak > 0:
        leak = leak_sentence(report, group_columns(task.config))
        log.info("%s: groups kept apart. %s", task.name, leak)
    dropped = {name: dict(split.dropped) for name, split in task.encoded.items() if split.dropped}
    if any(sum(counts.values()) for counts in dropped.values()):
        log.info("%s: dropped while encoding: %s.", task.name, dropped)
    if cut := shortened(task):
        log.info("%s: prompts cut to the length that is read: %s.", task.name, cut)


def shortened(task: Task) -> dict[str, int]:
    """Count the prompts that were cut, by split."""
    return {name: split.shortened for name, split in task.encoded.items() if split.shortened}


def _say_report(name: str, report: DataReport) -> None:
    """Say what of the rows did not become examples as they stand."""
    if any(report.filtered.values()) or report.duplicates:
        reasons = f"{report.reasons}; {report.duplicates} duplicates"
        log.info("%s: left out of %d rows: %s.", name, report.rows, reasons)
    if any(report.noted.values()):
        log.warning("%s: %s.", name, report.notes)
    if report.leaking_rows:
        log.warning(
            "%s: %d evaluation rows share a group with training in the source's own split.",
            name,
            report.leaking_rows,
        )


SPLITS_FILE = "splits.sqlite"
EXPLORATION_FILE = "exploration.json"
LENGTHS_FILE = "token_lengths.png"


def save_data(task: Task, template: Template, folder: Path) -> None:
    """Write ``splits.sqlite``, ``exploration.json`` and ``token_lengths.png`` into ``folder``.

    The SQLite file holds the table ``examples`` and is read back by ``dataset=sqlite``.

    Raises:
        DataError: the file cannot be written.
    """

    write_splits(task.splits, folder / SPLITS_FILE)
    groups = group_columns(task.config)
    found = explore(task.splits, template, samples=0, groups=groups, alike=plain)
    write_atomically(folder / EXPLORATION_FILE, json.dumps(asdict(found), indent=2))
    draw_lengths(found, folder / LENGTHS_FILE)


@dataclass(frozen=True)
class PreparedJob:
    """A job whose data is ready and whose model is still to be loaded.

    Attributes:
        cfg: what is asked for.
        run_dir: the directory of the run.
        identity: hash of the configuration.
        device: where a model goes.
        metrics: what is computed from answers.
        tasks: the data set of the run first, then every further test set.
        template: how prompts are written; None where the answerer reads no tokens.
        warnings: what a reader of the scores has to know.
    """

    cfg: RunConfig
    run_dir: Path
    identity: str
    device: torch.device
    metrics: tuple[ExampleMetric, ...]
    tasks: tuple[Task, ...]
    template: Template | None = None
    warnings: tuple[str, ...] = ()

    @property
    def tested(self) -> tuple[Task, ...]:
        """The data sets that are answered: those that have a test split."""
        return tuple(task for task in self.tasks if task.splits.test)

    @property
    def task(self) -> Task:
        """The data set of the run."""
        return self.tasks[0]

    @property
    def eval_batch_size(self) -> int:
        """Examples that are answered together."""
        return self.cfg.evaluation.batch_size or self.cfg.trainer.batch_size

    @property
    def specialises(self) -> bool:
        """Whether the model that stands for the run is another than its untouched base."""
        return specialises(self.cfg)

    @property
    def candidate_choice(self) -> tuple[str | None, str | None]:
        """Where candidates come from, None without any; and what a reader has to know of it."""
        chosen = self.cfg.evaluation.candidates
        if chosen != "auto":
            return chosen, None
        if self.cfg.evaluation.engine == "server" and not self.cfg.dry_run:
            return None, "No answers by likelihood: a server (evaluation.engine) gives none."
        return automatic_choice(self.metrics, self.task.splits.train, self.cfg.model)

    def candidates(
        self, task: Task, split: SplitName = "test", untouched: bool = True
    ) -> tuple[str, ...]:
        """Return the answers whose likelihoods are compared; none where none are wanted.

        Args:
            task: whose they are.
            split: what is answered.
            untouched: whether the untouched model answers.

        Raises:
            ConfigError: their file cannot be read, or holds none.
        """
        chosen, _ = self.candidate_choice
        only_to_choose = self.cfg.evaluation.candidates_on == CHOICE
        if chosen is None or (only_to_choose and not (untouched and split == "validation")):
            return ()
        trained, tested = self.task.splits, task.splits
        every = chain(trained.train, tested.train, tested.validation, tested.test)
        return read_candidates(chosen, trained.train, every)

    def validates(self, side: str) -> bool:
        """Whether the untouched (``base``) or specialised (``tuned``) model answers validation."""
        there = bool(self.task.examples("validation"))
        return there and answers_validation(self.cfg, self.metrics, side)

    def metrics_on(self, split: SplitName) -> tuple[ExampleMetric, ...]:
        """Return what is computed on a split: on validation what something is chosen by."""
        if split == "test" or self.cfg.evaluation.objective == "primary":
            return self.metrics
        return tuple(m for m in self.metrics if m.closed or m.gives(self.cfg.dataset.primary))

    def store(self, kind: str, task: Task, key: str) -> PredictionStore:
        """Open the predictions of a model on a data set (kinds: ``RunDir.predictions``)."""
        return PredictionStore(RunDir(self.run_dir).predictions(kind, task.name), key)
