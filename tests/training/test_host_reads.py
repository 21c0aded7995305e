"""Training never waits for its device between two records: it would, for every value it reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.toys import adapted, fit_toy, make_module, tiny_base, toy_data
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from sizewise.data.batches.datamodule import MicroBatches
from sizewise.training.recorder import Recorder

READING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "is_nonzero")


class Reads(TorchDispatchMode):
    """Counts operations whose result the host cannot go on without."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        chosen = args[1] if name.startswith("index") and len(args) > 1 else ()
        masks = chosen if isinstance(chosen, (list, tuple)) else [chosen]
        by_mask = any(isinstance(m, torch.Tensor) and m.dtype == torch.bool for m in masks)
        if name.startswith(READING) or by_mask:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


def unseen(make: Callable[..., Any]) -> Callable[..., Any]:
    """Put batches together as ever: that is on the host."""

    def made(*args: Any) -> Any:
        with _disable_current_modes():
            return make(*args)

    return made


def test_whatever_reads_a_value_is_seen() -> None:
    values = torch.arange(4.0)
    with Reads() as reads:
        bool(values.sum() > 1)
        values[values > 1]
        values.nonzero()
    assert set(reads.seen) >= {"_local_scalar_dense", "index", "nonzero"}


@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_clip": None}, {"accumulate": 1}, {"precision": "bf16-mixed"}],
    ids=lambda options: next(iter(options), "defaults"),
)
def test_steps_read_nothing(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a CPU, which nobody waits for, each step asks whether its loss is a number.
    monkeypatch.setattr(Recorder, "check", lambda *_: None)
    monkeypatch.setattr(MicroBatches, "__getitem__", unseen(MicroBatches.__getitem__))
    counts = []
    for steps in (3, 9):
        # A module that was not sped up draws dropout as a GPU does.
        module = make_module(adapted(tiny_base("llama")), label_smoothing=0.1)
        data = toy_data(40, 0, 2, options.get("accumulate", 2))
        with Reads() as reads:
            fit_toy(
                tmp_path / str(steps), module, data, max_epochs=9, max_steps=steps,
                log_every=100, checkpoint_every=100, **options,
            )  # fmt: skip
        counts.append(reads.seen)
    assert counts[0] == counts[1]
    assert counts[0]["_local_scalar_dense"], "the last step's loss is logged"
