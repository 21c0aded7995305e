"""What is imported late is there for whoever uses it, and nobody else waits for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import sys
from sizewise.late_imports import leave_until_used
leave_until_used()
leave_until_used()
assert sum("Sparing" in repr(finder) for finder in sys.meta_path) == 1
import torchmetrics
"""
SIGNAL = """
import peft
import scipy
print("scipy.signal" in sys.modules, "bitsandbytes" in sys.modules, peft.helpers.bnb)
from scipy.signal import butter
print(butter.__name__, scipy.signal.butter is butter)
"""
ADAPTERS = """
from sizewise.composition.compose import compose_run
from sizewise.models.adapter.attach import attach_adapter
from sizewise.models.base import load_base

for method in ("none", "nf4", "int8", "none"):
    cfg = compose_run(["model=nano", f"quantization={method}", "lora.fast=false"])
    adapted = attach_adapter(load_base(cfg.model, cfg.quantization), cfg.lora, cfg.model, 0)
    layers = {type(m).__name__ for m in adapted.modules() if hasattr(m, "lora_A")}
    print(method, *layers, "bitsandbytes" in sys.modules)
"""


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What one process says, which first looks at what was left out and then adapts bases."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + SIGNAL + ADAPTERS],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_one_process_adapts_plain_and_quantised_bases(said: list[str]) -> None:
    assert said[2:] == [
        "none Linear False",
        "nf4 Linear4bit True",
        "int8 Linear8bitLt True",
        "none Linear True",
    ]


def test_what_torchmetrics_left_out_can_be_imported(said: list[str]) -> None:
    assert said[:2] == ["False False None", "butter True"]
