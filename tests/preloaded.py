"""What the server of `tests.training.jobs` imports and reads, once for all that is forked from it.

Nothing that depends on the folder or the environment that a command runs in.
"""

from __future__ import annotations

import gc
import importlib

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from sizewise.config.register import register_schema
from sizewise.metrics.reading.codes import load_descriptions

USED = (
    "hydra.main", "sizewise.commands.run", "sizewise.embedded.dialogues", "sizewise.job.answerers",
    "sizewise.job.fitting", "sizewise.job.outcome", "sizewise.job.preflight",
    "sizewise.metrics.icd10", "sizewise.sweep.grid", "sizewise.sweep.search.search",
    "tests.sweep.fake", "tests.training.jobs", "transformers.models.qwen3.modeling_qwen3",
)  # fmt: skip

for name in USED:
    importlib.import_module(name)
Plugins.instance()
register_schema()
load_descriptions("icd10cm")
# The parsers of ANTLR learn their grammar from what they read.
OverridesParser.create().parse_overrides(["a=x", "b=[1,2]", "+c='x'", "d=1,2e-3", "e=choice(1,2)"])
OmegaConf.to_container(OmegaConf.create({"a": 1, "b": "x_${a}"}), resolve=True)
gc.collect()
gc.freeze()  # else each fork would look through all of it for garbage
