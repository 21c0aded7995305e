"""Are the recorded sizes of a base those of its files?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sizewise.errors import SizewiseError
from sizewise.models.sources import EMBEDDED
from sizewise.models.weights import weight_files
from sizewise.outcome import Outcome
from sizewise.report.verify_checks import FAILED, OK, UNCHECKED, Check

TITLE = "size of the base"
ELSEWHERE = "memory, trained parameters and dtype are those of the loaded model"


def size_checks(outcome: Outcome) -> Iterator[Check]:
    """Compare parameters and bytes of the base with its files where they lie here."""
    yield _base(outcome)
    yield Check("other sizes of the model", UNCHECKED, ELSEWHERE)


def _base(outcome: Outcome) -> Check:
    model = outcome.model
    said: Any = outcome.config.get("model")
    if isinstance(said, dict) and said.get("init", "pretrained") != "pretrained":
        return Check(TITLE, UNCHECKED, "its weights were random and lie nowhere")
    try:
        files = weight_files(_folder(model.path))
        parameters = sum(map(_parameters, files))
        size = sum(file.stat().st_size for file in files)
    except (SizewiseError, OSError, ValueError, KeyError, SafetensorError) as error:
        return Check(TITLE, UNCHECKED, f"its weights could not be read: {error}")
    if not files:
        return Check(TITLE, UNCHECKED, f"no weights of {model.path} lie in a folder here")
    recorded = f"{model.params_base:,} parameters in {model.base_bytes:,} bytes are recorded"
    found = f"the files hold {parameters:,} in {size:,}"
    if (model.params_base, model.base_bytes) == (parameters, size):
        return Check(TITLE, OK)
    # A foreign file may hold tied weights twice, or parts that are never loaded.
    own = model.path.startswith(EMBEDDED) or model.base_bytes != size
    return Check(TITLE, FAILED if own else UNCHECKED, f"{recorded}, {found}")


def _folder(path: str) -> Path:
    if path.startswith(EMBEDDED):
        from sizewise.embedded.ladder import embedded_model_path

        return embedded_model_path(path.removeprefix(EMBEDDED))
    return Path(path).expanduser()


def _parameters(file: Path) -> int:
    """Count the weights in a safetensors file by their shapes; none is read."""
    with safe_open(file, "np") as weights:
        return sum(math.prod(weights.get_slice(n).get_shape()) for n in weights.keys())  # noqa: SIM118
