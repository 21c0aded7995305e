"""The root of the configuration: one job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sizewise.config.checks import above, at_least, is_seed, one_component, one_of, within
from sizewise.config.data import DatasetConfig
from sizewise.config.evaluation import EvaluationConfig, GenerationConfig, LoggerConfig
from sizewise.config.model import LoraConfig, ModelConfig, QuantizationConfig
from sizewise.config.training import OptimizerConfig, SchedulerConfig, TrainerConfig
from sizewise.errors import ConfigError

STAGES = ("full", "train", "evaluate")


@dataclass
class PathsConfig:
    """Where things are written; never part of a run's identity."""

    outputs: str = "outputs"
    sweeps: str = "multirun"
    cache: str = ".cache/sizewise"


@dataclass
class PricesConfig:
    """For the break-even in money: what an hour of your device costs, and what 1,000 tokens (of
    prompt or answer) of a rented large model cost, in one currency. The second may be left out
    where the large model is behind a server, whose money is measured (``model.endpoint.prices``).
    """

    device_per_hour: float | None = None
    api_per_1000_tokens: float | None = None

    def __post_init__(self) -> None:
        """Check that a rented model is not compared with a device that would seem to be free."""
        at_least("sweep.prices.device_per_hour", self.device_per_hour, 0)
        at_least("sweep.prices.api_per_1000_tokens", self.api_per_1000_tokens, 0)
        if self.device_per_hour is None and self.api_per_1000_tokens is not None:
            raise ConfigError(
                "sweep.prices.api_per_1000_tokens needs sweep.prices.device_per_hour beside it. "
                "Give both (0 for what costs nothing), or neither."
            )


@dataclass
class TuningConfig:
    """How the learning rate of every trained configuration of a grid is found.

    ``lr_factors`` null or empty: it is not. Otherwise each job that trains is tried at its own
    ``optimizer.lr`` times each factor, unless the command (or the arm) gives ``optimizer.lr``: then
    at what is given. ``screen``: the rates run with the first seed only, up to ``rung`` (a share of
    the optimiser steps; 1: to the end), and the one with the lowest validation loss there goes on,
    also with the further seeds; false: every rate runs with every seed. An early rung favours low
    rates, since those that end best are still high there (see docs/sweeps.md). ``audit``: the share
    of the stopped that is run to the end all the same, to see whether the choice was right.
    """

    lr_factors: list[float] | None = None
    screen: bool = True
    rung: float = 2 / 3
    audit: float = 0.0

    @property
    def on(self) -> bool:
        return bool(self.lr_factors)

    def __post_init__(self) -> None:
        """Check that every rate is one, and tried once."""
        for factor in self.lr_factors or ():
            above("sweep.tuning.lr_factors", factor, 0)
        if self.lr_factors and len(set(self.lr_factors)) < len(self.lr_factors):
            raise ConfigError(
                f"sweep.tuning.lr_factors={list(self.lr_factors)} names a factor twice."
            )
        above("sweep.tuning.rung", self.rung, 0)
        within("sweep.tuning.rung", self.rung, 0.0, 1.0)
        within("sweep.tuning.audit", self.audit, 0.0, 1.0)


@dataclass
class HalvingConfig:
    """Successive halving of a whole grid: what looks worse at a rung goes no further.

    ``rungs`` null or empty: it is off. Otherwise shares of the optimiser steps, such as [0.333], at
    which the configurations that share base and data set are compared by validation loss, each with
    the first seed only. Of all of them the best ``keep`` go on from the first rung, ``keep`` of
    those from the next, and in any case the best of every combination of values of the keys
    ``keep_each``; what is left at the end gets the further seeds. ``margin``: how far above the
    lowest loss one of the ``keep`` best may be, as a share of it, one for each rung, such as [0.15]
    (null: nobody is too far). ``audit``: as of ``sweep.tuning.audit``; the larger of both counts.
    """

    rungs: list[float] | None = None
    keep: float = 0.5
    margin: list[float] | None = None
    keep_each: list[str] = field(
        default_factory=lambda: ["model", "quantization", "lora.method", "lora.r", "dataset"]
    )
    audit: float = 0.0

    @property
    def on(self) -> bool:
        return bool(self.rungs)

    def __post_init__(self) -> None:
        """Check that rungs follow one another."""
        for share in self.rungs or ():
            above("sweep.halving.rungs", share, 0)
            if share >= 1:
                raise ConfigError(
                    f"sweep.halving.rungs={list(self.rungs or ())}: a rung is a share of the steps "
                    "below 1; all that is left at the last one goes to its end."
                )
        if self.rungs and sorted(set(self.rungs)) != list(self.rungs):
            raise ConfigError(
                f"sweep.halving.rungs={list(self.rungs)}: give each rung once, in rising order."
            )
        above("sweep.halving.keep", self.keep, 0)
        within("sweep.halving.keep", self.keep, 0.0, 1.0)
        for margin in self.margin or ():
            at_least("sweep.halving.margin", margin, 0)
        if self.rungs and self.margin and len(self.margin) != len(self.rungs):
            raise ConfigError(
                f"sweep.halving.margin={list(self.margin)} beside sweep.halving.rungs="
                f"{list(self.rungs)}: give one margin for each rung, or margin=null for none."
            )
        within("sweep.halving.audit", self.audit, 0.0, 1.0)


@dataclass
class SweepConfig:
    """How a multirun is planned and launched; never part of a job's identity.

    ``name`` and ``dir`` null: derived from the command, so that the same command resumes.
    ``arms``: a named sweep's union of grids, each a list of overrides with comma-separated values.
    ``general`` and ``specialised`` are the bases that ``sweep=my_question`` asks as they are and
    tunes: one name, or a list.
    ``estimate``: a dry run times a few steps and answers, to say how long the whole will take.
    ``order``: ``base`` (jobs that share a base follow one another; on this machine those on large
    bases are begun first) or ``given``.
    ``packing``: how many jobs that share base, storage, data and micro-batch are trained together,
    in one forward and backward pass, and answer together: a number, ``off``, or ``auto`` (on a
    GPU as many as pay there, measured; off on a CPU).
    ``baselines``: add the classical baselines wherever answers are labels or codes.
    ``tuning``: how learning rates are found. ``halving``: what of a grid is run to its end.
    ``prices``: for the report at the end. ``margin``:
    points that may be lost for a smaller or cheaper model, in its decision (of a score that has no
    points, in units of the score); null: 2 points, and no decision for other scores.
    """

    name: str | None = None
    dir: str | None = None
    arms: dict[str, list[str]] = field(default_factory=dict)
    general: Any = None
    specialised: Any = None
    description: str | None = None
    dry_run: bool = False
    estimate: bool = True
    fail_fast: bool = False
    retries: int = 0
    order: str = "base"
    limit: int | None = None
    packing: Any = "auto"
    baselines: bool = True
    tuning: TuningConfig = field(default_factory=TuningConfig)
    halving: HalvingConfig = field(default_factory=HalvingConfig)
    prices: PricesConfig = field(default_factory=PricesConfig)
    margin: float | None = None

    @property
    def as_given(self) -> bool:
        """Whether jobs begin in the order of the command."""
        return self.order == "given"

    def __post_init__(self) -> None:
        one_of("sweep.order", self.order, ("base", "given"))
        if self.dir is None:  # else it is only what the sweep is called
            one_component("sweep.name", self.name)
        at_least("sweep.retries", self.retries, 0)
        at_least("sweep.limit", self.limit, 1)
        _check_packing(self.packing)
        above("sweep.margin", self.margin, 0)


def _check_packing(asked: Any) -> None:
    number = isinstance(asked, int) and not isinstance(asked, bool)
    if not (number and asked >= 1) and asked not in ("auto", "off") and asked is not False:
        raise ConfigError(
            f"sweep.packing={asked!r}. Choose auto, off, or how many jobs are trained together."
        )


@dataclass
class RunConfig:
    """Everything one job needs; each field is a config group or a plain value.

    ``stage``: ``full`` (train, then score base and tuned), ``train`` (no scoring of the test
    split) or ``evaluate`` (score a finished ``run``, an ``adapter``, or the untouched base).
    ``report``: also write table, pictures and page of this run on its own (a sweep always writes
    those of all its runs). ``save_data``: also write the splits as SQLite and the distribution of
    their token lengths. ``dry_run``: a few examples, an interruption on purpose, stand-ins for what
    cannot be reached; chosen by ``debug=dry_run``. ``trust``: with ``run=DIR``, also call metrics
    that the record of that run names and that are not sizewise's (see SECURITY.md).
    """

    seed: int = 42
    stage: str = "full"
    run: str | None = None
    adapter: str | None = None
    report: bool = False
    save_data: bool = False
    dry_run: bool = False
    trust: bool = False
    model: ModelConfig = field(default_factory=ModelConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    eval_dataset: dict[str, DatasetConfig] = field(default_factory=dict)
    lora: LoraConfig = field(default_factory=LoraConfig)
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    metric: dict[str, Any] = field(default_factory=dict)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)

    def __post_init__(self) -> None:
        one_of("stage", self.stage, STAGES)
        is_seed("seed", self.seed)
        for key, dataset in self.eval_dataset.items():
            if dataset.teacher is not None:
                raise ConfigError(
                    f"eval_dataset.{key}.teacher: nothing is trained on there. Name a teacher of "
                    "the data set of the run: dataset.teacher."
                )

    @property
    def learns_from_teacher(self) -> bool:
        """Whether the job trains on answers that a teacher writes."""
        return self.dataset.is_taught and self.lora.trains and self.stage != "evaluate"
