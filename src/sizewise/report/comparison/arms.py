"""The arms of a comparison: configurations over their seeds, on the same test examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

import numpy as np

from sizewise import words
from sizewise.config import model as families
from sizewise.files import key_text
from sizewise.record.identity import canonical_config
from sizewise.record.outcome import Evaluation, ModelFacts, Outcome
from sizewise.record.timing import Timing
from sizewise.report.comparison.labels import name_all
from sizewise.report.comparison.runs import Problem, Run, ScoredAnswers
from sizewise.statistics.arrays import FloatArray

ZERO_SHOT = "zero-shot"
TUNED = "tuned"
# Models of these families are arms of a kind of their own.
CLASSICAL = families.CLASSICAL
ENCODER = families.ENCODER


@dataclass
class Member:
    """One evaluation of one run; ``scores`` are its aggregates on the compared examples."""

    run: Run
    evaluation: Evaluation
    answers: ScoredAnswers | None
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Arm:
    """One configuration of a model with all its seeds: zero-shot, tuned, classical (a baseline
    without a language model), or a fine-tuned encoder.

    ``config`` is the canonical configuration without its seed (see ``config_key``), of a zero-shot
    model only what its answers depend on. ``own`` is False for the zero-shot scores that only came
    with tuned runs. ``copies`` are further evaluations of the same, for which ``members`` stand;
    ``others`` the runs among them whose answers were others. ``primary`` names the score that
    counts (a baseline's is always as said, see ``TestSet``); ``missing`` is why ``scores`` is None.
    """

    kind: str
    config: Mapping[str, Any]
    members: list[Member]
    own: bool
    label: str = ""
    scores: FloatArray | None = None
    copies: list[Member] = field(default_factory=list)
    others: list[Run] = field(default_factory=list)
    primary: str = ""
    missing: str = ""

    @property
    def first(self) -> Member:
        return self.members[0]

    @property
    def model(self) -> ModelFacts:
        """Sizes and settings of the model; memory is that of what answers.

        A base that came with a tuned run was measured with the adapter on it, which is taken off.
        Full training adds none.
        """
        facts = self.first.run.outcome.model
        if self.kind != ZERO_SHOT or facts.params_total == facts.params_base:
            return facts
        return replace(facts, memory_bytes=facts.memory_bytes - facts.adapter_bytes)

    @property
    def tuned(self) -> bool:
        """Whether the model was specialised."""
        return self.kind == TUNED

    @property
    def fitted(self) -> bool:
        return self.kind in (TUNED, CLASSICAL, ENCODER)

    @property
    def has_seeds(self) -> bool:
        """Whether another seed would have given another model."""
        return self.kind in (TUNED, ENCODER)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the members; empty for a zero-shot model, which has none."""
        return tuple(m.run.outcome.seed for m in self.members) if self.has_seeds else ()

    @property
    def size(self) -> float:
        """Parameters of the base; infinite where a server does not say how large its model is."""
        return self.model.params_base or math.inf

    @property
    def params(self) -> float:
        """Parameters of the model that answers: the adapter only counts where it is used."""
        return self.model.params_total if self.has_seeds else self.size

    @property
    def has_form(self) -> bool:
        """Whether it writes text, and may know an answer without writing it as it is asked for."""
        return self.kind in (ZERO_SHOT, TUNED)

    def score(self, name: str | None = None) -> float:
        """Mean over seeds of an aggregate on the examples compared; NaN where it is missing."""
        return float(np.mean(self.seed_scores(name)))

    def seed_scores(self, name: str | None = None) -> list[float]:
        """The aggregate of every seed; NaN where it is missing."""
        return [m.scores.get(name or self.primary, float("nan")) for m in self.members]

    def cost(self, read: Callable[[Run], float | None]) -> float | None:
        """Mean over seeds of a figure of the runs; None unless all have it."""
        values = [read(m.run) for m in self.members]
        known = [v for v in values if v is not None]
        return float(np.mean(known)) if known and len(known) == len(values) else None

    @property
    def timed(self) -> list[list[Timing]]:
        """How fast each seed answered a sample, smallest batch first.

        Empty unless all were timed so: on their own test set, and not in earlier records.
        """
        side, by_size = "tuned" if self.tuned else "base", attrgetter("batch_size")
        found = [
            sorted((t for t in m.run.outcome.cost.timings if t.side == side), key=by_size)
            for m in self.members
            if m.evaluation.dataset == m.run.outcome.data.name
        ]
        return found if len(found) == len(self.members) and all(found) else []

    @property
    def latency(self) -> float | None:
        """Median seconds per answer in the batch used, mean over seeds; None: not measured.

        That of the timed samples, where all are of one batch size; without samples that of the
        answers as they were made.
        """
        used = [samples[-1] for samples in self.timed]
        if len({timing.batch_size for timing in used}) > 1:
            return None
        if used:
            return float(np.mean([timing.per_answer for timing in used]))
        value = self.score("efficiency/latency_p50")
        return value if np.isfinite(value) else None

    @property
    def unparsed(self) -> float | None:
        """Share of answers in which nothing could be parsed; None where no metric counts them."""
        for name in self.first.scores:
            if name == "unparsed" or name.endswith("/unparsed"):
                return self.score(name)
        return None

    @property
    def train_seconds(self) -> float | None:
        return self.cost(lambda run: run.outcome.cost.train_seconds) if self.fitted else None

    @property
    def energy_joules(self) -> float | None:
        """Energy of a run of its own; that of a tuned run says nothing of its base's answers."""
        return self.cost(lambda run: run.outcome.cost.energy_joules) if self.own else None

    @property
    def validation(self) -> float | None:
        """Mean validation loss over seeds, the only figure that may choose between variants."""
        return self.cost(lambda run: run.outcome.validation.get("val_loss"))

    @property
    def chosen_by_teacher(self) -> bool:
        """Whether its validation loss is that of a teacher's answers: unlike those of gold."""
        return (self.config.get("dataset") or {}).get("answers_from") == "teacher"

    def validated(self, name: str) -> float | None:
        """Mean over seeds of a score on the validation split; None where it was not asked."""
        side = "tuned" if self.has_seeds else "base"
        return self.cost(lambda run: run.outcome.validated.get(side, {}).get(name))

    @property
    def max_train(self) -> int:
        return int(self.first.run.outcome.data.sizes.get("train", 0)) if self.fitted else 0


@dataclass
class TestSet:
    """Arms that answered the same test examples.

    Attributes:
        dataset, fingerprint: what was asked (of a set divided by tokenizers also in which tokens).
        primary, direction: the score that counts, and whether ``max`` or ``min`` is better.
        said: the score by which the runs were made; ``primary`` is another reading of the same
            answers where the untouched models do better with that (see ``readings``).
        ids: examples that every arm answered, in the order of the first one.
        groups: group of each.
        weights: how much each counts in the primary score [N]; None: all alike.
        compared, recorded: number of examples that all answered, and that any did.
        problems: evaluations that could not be used, or stand for no further run.
        tokenizers: number of sets that this one was divided into (see ``by_tokenizer``).
        notes: objections that came up while the set was made.
    """

    dataset: str
    fingerprint: str
    primary: str
    direction: str
    arms: list[Arm]
    ids: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    weights: FloatArray | None = None
    compared: int = 0
    recorded: int = 0
    problems: list[Problem] = field(default_factory=list)
    tokenizers: int = 1
    said: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def sign(self) -> float:
        """+1 where more is better, −1 where less is."""
        return 1.0 if self.direction == "max" else -1.0

    @property
    def scored(self) -> list[Arm]:
        """Arms with a finite per-example primary score."""
        return [c for c in self.arms if c.scores is not None]

    @property
    def size(self) -> str:
        """``115 test examples, 5 left out``."""
        more = f", {self.left_out:,} left out" if self.ids and self.left_out else ""
        return words.plural(len(self.ids), "test example") + more

    @property
    def left_out(self) -> int:
        """Number of examples that not every arm answered."""
        return self.recorded - self.compared

    def mean(self, arm: Arm, mask: np.ndarray | None = None) -> float:
        """Primary score over the examples (of a mask), mean over seeds; NaN without scores."""
        if arm.scores is None:
            return float("nan")
        mask = np.ones(len(self.ids), dtype=bool) if mask is None else mask
        weights = None if self.weights is None else self.weights[mask]
        return float(np.average(arm.scores[:, mask].mean(axis=0), weights=weights))

    def name(self) -> None:
        """Give every arm a label that tells it from the others."""
        facts = [
            (c.model, c.has_seeds, {**c.config, "facts": hidden_facts(c.first.run)})
            for c in self.arms
        ]
        for arm, label in zip(self.arms, name_all(facts), strict=True):
            arm.label = label

    def zero_shot_of(self, arm: Arm) -> Arm | None:
        """The zero-shot arm with the same base, prompt and decoding, if there is one."""
        wanted = base_key(arm.first.run, self.dataset)
        for other in self.arms:
            if other.kind == ZERO_SHOT and base_key(other.first.run, self.dataset) == wanted:
                return other
        return None


# Options of a storage format that change the stored weights or the arithmetic on them.
STORAGE_OPTIONS = {
    "nf4": ("double_quant", "compute_dtype"),
    "int8": ("int8_threshold", "compute_dtype"),
}
BASE_OPTIONS = ("content", "init", "tokenizer")
PROMPT_OPTIONS = (
    "system", "prompt", "answer", "few_shot", "few_shot_style", "max_length", "truncate_prompt",
    "clean_whitespace",
)  # fmt: skip
# What zero-shot answers do not depend on.
OF_TRAINING = (
    "stage", "lora", "optimizer", "scheduler", "trainer", "callbacks", "evaluation", "metric",
    "eval_dataset",
)  # fmt: skip
TRAINED_ON = ("train", "validation")
DATA = "data."


def base_key(run: Run, dataset: str) -> str:
    """What zero-shot answers to ``dataset`` depend on: base, storage, prompt and decoding.

    What an older record does not name counts as None.
    """
    outcome = run.outcome
    model, config = outcome.model, outcome.config
    named, stored = config.get("model") or {}, config.get("quantization") or {}
    parts: list[Any] = [model.path, model.revision, model.quantization, model.chat_template]
    parts += [dict(model.template_kwargs), outcome.data.prompt_fingerprint]
    parts += [config.get("generation"), model.dtype]
    parts += [named.get(key) for key in BASE_OPTIONS]
    parts += [stored.get(key) for key in STORAGE_OPTIONS.get(model.quantization, ())]
    further = _further(outcome, dataset)
    parts += [[entry.get(key) for key in PROMPT_OPTIONS] for entry in further.values()]
    return key_text(parts)


def base_config(run: Run) -> Mapping[str, Any]:
    """Canonical configuration of a run less all that its zero-shot answers do not depend on."""
    skipped = (*OF_TRAINING, "seed", "run", "adapter")
    config = {k: v for k, v in canonical_config(run.outcome.config).items() if k not in skipped}
    if isinstance(config.get("dataset"), Mapping):
        limits = ("max_train", "max_validation")
        config["dataset"] = {k: v for k, v in config["dataset"].items() if k not in limits}
    return config


def config_key(run: Run, dataset: str) -> tuple[str, Mapping[str, Any]]:
    """Key and canonical configuration of a run without its seed.

    ``data`` holds the fingerprints of what was trained on: other rows make another arm. A
    finished run that was scored again is known by the configuration of its training. Metrics
    beside the one of the primary score, and test sets beside ``dataset``, make no difference.
    """
    outcome = run.outcome
    config = dict(outcome.config)
    if config.get("run"):
        config |= {"stage": "full", "run": None, "adapter": None}
    config = canonical_config(config)
    config.pop("seed", None)
    for key in ("run", "adapter"):
        if not config.get(key):
            config.pop(key, None)
    _leave_out_other_scores(config, outcome, dataset)
    prints = outcome.data.fingerprints
    config["data"] = {split: prints.get(split) for split in TRAINED_ON}
    return key_text(config), config


def run_names(runs: Sequence[Run]) -> list[tuple[Run, str]]:
    """Name runs as reports name configurations, with their seed: ``micro LoRA r=16, seed 1``."""
    keys = [config_key(run, run.outcome.data.name) for run in runs]
    first = {key: (run, config) for (key, config), run in reversed([*zip(keys, runs, strict=True)])}
    facts = [(run.outcome.model, run.outcome.tuned is not None, c) for run, c in first.values()]
    labels = dict(zip(first, name_all(facts), strict=True))
    return [
        (run, labels[key] + (f", seed {run.outcome.seed}" if run.outcome.tuned is not None else ""))
        for (key, _), run in zip(keys, runs, strict=True)
    ]


def hidden_facts(run: Run) -> dict[str, Any]:
    """What may tell runs of equal configurations apart, for their names."""
    model = run.outcome.model
    return {
        "revision": model.revision,
        "dtype": model.dtype,
        "template": model.chat_template,
        "prompt": run.outcome.data.prompt_fingerprint,
    }


def _leave_out_other_scores(config: dict[str, Any], outcome: Outcome, dataset: str) -> None:
    metrics = config.get("metric")
    name = outcome.primary.split("/")[0]
    if isinstance(metrics, Mapping) and name in metrics:
        config["metric"] = {name: metrics[name]}
    config.pop("eval_dataset", None)
    if further := _further(outcome, dataset):
        config["eval_dataset"] = further
    if isinstance(config.get("evaluation"), Mapping):
        config["evaluation"] = {k: v for k, v in config["evaluation"].items() if k != "zero_shot"}


def _further(outcome: Outcome, dataset: str) -> dict[str, Any]:
    """The entry of ``dataset`` among the further test sets; empty for the run's own data set."""
    if dataset == outcome.data.name:
        return {}
    entries = outcome.config.get("eval_dataset") or {}
    return {key: v for key, v in entries.items() if (v or {}).get("name", key) == dataset}
