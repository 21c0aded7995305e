"""Which kind of model answers the examples of a job.

A further kind is one more class in a file of its own, and one more line here. The path of a run
(``job.run``) knows ``job.answerer`` alone.
"""

from __future__ import annotations

from sizewise.config import RunConfig
from sizewise.config.model import CLASSICAL, ENCODER
from sizewise.job.answerer import Answerer
from sizewise.job.baseline import Baseline
from sizewise.job.encoder import Encoder
from sizewise.job.endpoint import Endpoint
from sizewise.job.language_model import LanguageModel, ServedModel


def kind_of_answerer(cfg: RunConfig) -> type[Answerer]:
    """Return the class of the model that a job names."""
    kinds: dict[str, type[Answerer]] = {
        CLASSICAL: Baseline,
        ENCODER: Encoder,
        "endpoint": Endpoint,
    }
    served = cfg.evaluation.engine == "server" and not cfg.dry_run  # which starts nothing
    language = ServedModel if served else LanguageModel
    return kinds.get(cfg.model.family, language)
