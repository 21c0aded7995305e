"""Schema of the group ``dataset``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from omegaconf import MISSING

from sizewise.config.checks import above, at_least, one_of, within
from sizewise.errors import ConfigError

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
SYNONYMS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing"),
}
EITHER = ("eval", "evaluation")
"""Where there is a test split, or none is wanted, these are validation, else the test split."""
KNOWN_SPLITS = {*EITHER, *(word for words in SYNONYMS.values() for word in words)}
SPLIT_COLUMN = "__split__"
"""Column that holds the split which the source itself gives a row."""
SOURCES = ("embedded", "hub", "csv", "json", "parquet", "sqlite", "mixture")


@dataclass(frozen=True)
class TaskSettings:
    """What a kind of task sets: the metrics, the score that decides, and further keys."""

    metrics: tuple[str, ...]
    primary: str
    direction: str
    more: Mapping[str, str] = field(default_factory=dict)

    def overrides(self) -> dict[str, str]:
        """Return the settings as keys and values of a command line."""
        return {
            "metric": f"[{','.join(self.metrics)}]",
            "dataset.primary": self.primary,
            "dataset.direction": self.direction,
            **self.more,
        }


LIKELIHOOD_METRICS = ("perplexity", "efficiency")
CHAT_COLUMNS = {"dataset.conversation": "auto", "dataset.prompt": "''", "dataset.answer": "''"}
TASKS = {
    "classification": TaskSettings(("label", *LIKELIHOOD_METRICS), "label/exact_match", "max"),
    "codes": TaskSettings(("icd10", *LIKELIHOOD_METRICS), "icd10/exact_match", "max"),
    "text": TaskSettings(("tfidf", *LIKELIHOOD_METRICS), "tfidf/cosine", "max"),
    "chat": TaskSettings(("tfidf", *LIKELIHOOD_METRICS), "tfidf/cosine", "max", CHAT_COLUMNS),
}
"""The kinds of tasks that ``dataset.task=NAME`` stands for on a command line.

Texts are scored against the reference without a further package or download; how likely a model
finds the reference would decide nothing between tuned and untouched models.
"""


@dataclass
class SourceConfig:
    """Where the rows come from.

    ``path`` is a file or a glob (csv, json/jsonl, parquet, sqlite), a hub id (or a local file with
    the same columns, read by its extension, or a folder of ``save_to_disk``), or the name of an
    embedded data set; or a mapping of train, validation and test to such files, which then are the
    splits. Under ``csv``, files ending in .tsv and .xlsx are read as what they are. ``table`` or
    ``query`` choose the rows of a SQLite file, ``table`` also the sheet of an Excel file;
    ``subset`` and ``hub_split`` those of a hub data set
    (``hub_split`` null: every split, kept in the column ``__split__``). ``sha256`` is the content
    of local files (16 digits); it is filled in when a job is planned, and other files are refused.
    """

    kind: str = MISSING
    path: Any = MISSING
    revision: str | None = None
    subset: str | None = None
    hub_split: str | None = None
    table: str | None = None
    query: str | None = None
    delimiter: str = ","
    sha256: str | None = None

    def __post_init__(self) -> None:
        one_of("dataset.source.kind", self.kind, SOURCES)
        if len(self.delimiter.replace("\\t", "\t")) != 1 or self.delimiter in '"\r\n':
            raise ConfigError(
                f"dataset.source.delimiter={self.delimiter!r} is not one sign. Give the one "
                "between columns, such as 'dataset.source.delimiter=\";\"' (\\t for a tab)."
            )
        if isinstance(self.path, Mapping):
            known = set(self.path) <= set(SPLITS) and {"train", "test"} & set(self.path)
            if known and all(path and isinstance(path, str) for path in self.path.values()):
                return
        elif isinstance(self.path, str):
            return
        raise ConfigError(
            f"dataset.source.path={self.path!r} names no files. Give one path, or one for each "
            "split: 'dataset.source.path={train: FILE, validation: FILE, test: FILE}' (validation "
            "may be left out, and train or test)."
        )

    def by_split(self) -> list[tuple[str | None, SourceConfig]]:
        """Return the source of each split that has files of its own, else the one there is."""
        if not isinstance(self.path, Mapping):
            return [(None, self)]
        named = [name for name in SPLITS if name in self.path]
        return [(name, replace(self, path=self.path[name])) for name in named]


@dataclass
class FilterConfig:
    """Keep rows whose prompt and answer lengths (in characters) lie within these bounds."""

    min_prompt_chars: int = 1
    max_prompt_chars: int | None = None
    min_answer_chars: int = 1
    max_answer_chars: int | None = None


@dataclass
class SplitConfig:
    """How examples are divided; groups never straddle splits.

    ``column`` names the source's own split column (values mapped by ``names``, else known synonyms
    such as ``dev``, in any case; a further entry of ``names`` says that a value is left out);
    otherwise groups are drawn by ``seed`` into the given fractions. ``seed`` is apart from the
    run's seed, so that runs with different seeds share one test set.
    ``on_leak``: what to do where the source's own split leaks (``report``, ``drop`` the leaking
    training rows, or ``error``).
    """

    column: str | None = None
    names: dict[str, str] = field(
        default_factory=lambda: {"train": "train", "validation": "validation", "test": "test"}
    )
    validation: float = 0.1
    test: float = 0.1
    seed: int = 42
    on_leak: str = "report"

    def __post_init__(self) -> None:
        within("dataset.split.validation", self.validation, 0.0, 0.9)
        within("dataset.split.test", self.test, 0.0, 1.0)
        one_of("dataset.split.on_leak", self.on_leak, ("report", "drop", "error"))
        if self.validation + self.test > 1:
            raise ConfigError(
                f"dataset.split.validation={self.validation} and dataset.split.test={self.test} "
                "leave nothing to train on. Their sum has to be at most 1."
            )


ANSWERS_FROM = ("gold", "teacher", "both")


@dataclass
class TeachingConfig:
    """How a teacher is asked, and which of its answers are trained on.

    ``prompts``: a file with further rows (columns as the data set's, without answers) that the
    teacher answers beside the training prompts. ``min_score``: where there is a reference, keep
    answers whose primary score against it is at least that (at most, where less is better); null:
    all. ``samples``: ask so many times, at ``temperature``, take the answer that the others agree
    with most (mean primary score against them), and where no reference decides keep it if that is
    at least ``agreement``.
    """

    prompts: str | None = None
    prompts_sha256: str | None = None
    min_score: float | None = None
    samples: int = 1
    temperature: float = 0.7
    agreement: float = 0.5

    def __post_init__(self) -> None:
        at_least("dataset.teaching.samples", self.samples, 1)
        above("dataset.teaching.temperature", self.temperature, 0)
        if self.samples == 2:
            raise ConfigError(
                "dataset.teaching.samples=2: two answers that differ have no majority. Take 3."
            )


@dataclass
class DatasetConfig:
    """A task: rows, how they become messages, how they are split, and what counts as good.

    ``system``, ``prompt`` and ``answer`` are texts with ``{column}`` placeholders; a paragraph
    all of whose placeholders are empty is left out. ``history`` names a column that holds earlier
    turns (a list of strings, user first, or of role/content mappings); ``conversation`` one that
    holds a whole dialogue, of which each assistant turn becomes an example (``train_on``: all of
    them or the last one); ``auto``: the first column of ``messages``, ``conversations``,
    ``conversation``, ``dialogue``, ``dialog``, ``chat`` and ``turns`` that holds one, else
    ``prompt`` and ``completion`` (or ``chosen`` and ``rejected``). ``group`` names the columns that
    must never straddle splits besides the question itself (which never does: the first user turn,
    or what the prompt's columns hold). Other words around the columns leave the splits as they are.
    ``strata`` name columns kept for
    breakdowns; ``label`` the column whose frequency in training is one (``label_frequency``: never
    seen, rare, and frequent from ``frequent`` training examples on). ``few_shot`` examples of the
    training split are put before every prompt, as earlier ``turns`` or as ``text`` within the
    prompt; they are the same for every ``max_train``, which counts the examples trained on beside
    them.
    ``parts`` are the data sets of a mixture, by name. What one part holds out no part trains on:
    the same question, the same row, and the same value of a ``group`` column if both parts name
    that column so. Columns that number the groups of each part anew need different names.
    ``teacher`` is a larger model that writes training answers: an option of ``model``, a folder, a
    hub id, a finished run, or a mapping such as ``{option: endpoint, base_url: …, path: …}``.
    ``answers_from``: train on ``gold`` answers, on those of the ``teacher``, or on ``both``; null:
    the teacher's where one is named.
    """

    name: str = MISSING
    source: SourceConfig = field(default_factory=SourceConfig)
    system: str | None = None
    prompt: str = MISSING
    answer: str = MISSING
    history: str | None = None
    conversation: str | None = None
    train_on: str = "all"
    group: list[str] = field(default_factory=list)
    label: str | None = None
    frequent: int = 10
    strata: list[str] = field(default_factory=list)
    rejected: str | None = None
    clean_whitespace: bool = False
    filter: FilterConfig = field(default_factory=FilterConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    max_samples: int | None = None
    max_train: int | None = None
    max_validation: int | None = None
    max_test: int | None = None
    max_length: int = 1024
    truncate_prompt: bool = False
    few_shot: int = 0
    few_shot_style: str = "turns"
    primary: str = MISSING
    direction: str = "max"
    license: str | None = None
    parts: dict[str, Any] = field(default_factory=dict)
    teacher: Any = None
    answers_from: str | None = None
    teaching: TeachingConfig = field(default_factory=TeachingConfig)

    def __post_init__(self) -> None:
        one_of("dataset.train_on", self.train_on, ("all", "last"))
        one_of("dataset.direction", self.direction, ("max", "min"))
        one_of("dataset.few_shot_style", self.few_shot_style, ("turns", "text"))
        if self.answers_from is not None:
            one_of("dataset.answers_from", self.answers_from, ANSWERS_FROM)
            if self.answers_from != "gold" and self.teacher is None:
                raise ConfigError(
                    f"dataset.answers_from={self.answers_from} needs a teacher. Name one: "
                    "dataset.teacher=OPTION (or a run, a folder, a hub id)."
                )
        for key in ("max_samples", "max_train", "max_validation", "max_test"):
            at_least(f"dataset.{key}", getattr(self, key), 1)
        at_least("dataset.max_length", self.max_length, 8)
        at_least("dataset.few_shot", self.few_shot, 0)
        at_least("dataset.frequent", self.frequent, 2)
        for name, part in self.parts.items():
            if not isinstance(part, Mapping):
                raise ConfigError(
                    f"dataset.parts.{name}={part!r} is no data set. Give the keys of one, such as "
                    f"dataset.parts.{name}.source.path; or leave it out."
                )
        if isinstance(self.source.path, Mapping) and self.split.column is not None:
            raise ConfigError(
                f"dataset.source.path names a file for each split, and dataset.split.column="
                f"{self.split.column} divides the rows too. Set dataset.split.column=null."
            )

    @property
    def is_taught(self) -> bool:
        """Whether a teacher writes training answers."""
        return self.teacher is not None and self.answers_from != "gold"

    @property
    def own_split(self) -> SplitConfig:
        """How examples are divided: files of their own are splits, and nothing but training is cut.

        Without a file for training, nothing is drawn for what else has none.
        """
        if not isinstance(self.source.path, Mapping):
            return self.split
        split = replace(self.split, column=SPLIT_COLUMN, names={n: n for n in SPLITS})
        if "train" in self.source.path:
            return split
        validation = 0.5 if "validation" in self.source.path else 0.0
        return replace(split, validation=validation, test=1 - validation)
