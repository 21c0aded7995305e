"""Typed configuration: the schema, its registration with Hydra, and its conversion to objects."""

from sizewise.config.data import DatasetConfig, FilterConfig, SourceConfig, SplitConfig
from sizewise.config.evaluation import EvaluationConfig, GenerationConfig, LoggerConfig
from sizewise.config.model import (
    WITHOUT_LIKELIHOODS,
    WITHOUT_WEIGHTS,
    ArchitectureConfig,
    LoraConfig,
    LoraTargets,
    ModelConfig,
    QuantizationConfig,
    VisionConfig,
)
from sizewise.config.register import conf_dir, register_schema, to_run_config
from sizewise.config.run import (
    HalvingConfig,
    PathsConfig,
    PricesConfig,
    RunConfig,
    SweepConfig,
    TuningConfig,
)
from sizewise.config.training import OptimizerConfig, SchedulerConfig, TrainerConfig

__all__ = [
    "WITHOUT_LIKELIHOODS",
    "WITHOUT_WEIGHTS",
    "ArchitectureConfig",
    "DatasetConfig",
    "EvaluationConfig",
    "FilterConfig",
    "GenerationConfig",
    "HalvingConfig",
    "LoggerConfig",
    "LoraConfig",
    "LoraTargets",
    "ModelConfig",
    "OptimizerConfig",
    "PathsConfig",
    "PricesConfig",
    "QuantizationConfig",
    "RunConfig",
    "SchedulerConfig",
    "SourceConfig",
    "SplitConfig",
    "SweepConfig",
    "TrainerConfig",
    "TuningConfig",
    "VisionConfig",
    "conf_dir",
    "register_schema",
    "to_run_config",
]
