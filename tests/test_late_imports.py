"""What is imported late is there for whoever uses it, and nobody else waits for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

UNUSED = (
    "simple_icd_10_cm", "plotly", "sklearn", "pandas", "wandb", "optuna", "bitsandbytes",
    "scipy.signal", "torch._inductor.lowering",
)  # fmt: skip
# A LoRA job on the embedded data, without a tracker, from its first line to its record.
JOB = f"""
import sys
from sizewise.catalogue import load_entries
load_entries("icd10cm")  # read from the package once, by whoever comes first
sys.modules.pop("simple_icd_10_cm", None)
from sizewise.commands.run import hydra_command
hydra_command("train")
print("found:", sorted(set({UNUSED!r}) & set(sys.modules)))
"""
SMALL = (
    "model=nano", "dataset.max_train=8", "dataset.max_validation=8", "dataset.max_test=8",
    "trainer.max_steps=1", "logger=none", "generation.max_new_tokens=2",
)  # fmt: skip
AGAIN = """
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
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What one process says, which runs a job, looks at what was left out and adapts bases."""
    place = tmp_path_factory.mktemp("late")
    done = subprocess.run(
        [sys.executable, "-c", JOB + AGAIN + SIGNAL + ADAPTERS, *SMALL, f"hydra.run.dir={place}"],
        capture_output=True, text=True, timeout=300, check=False, cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-7:]


def test_a_job_imports_nothing_that_it_does_not_use(said: list[str]) -> None:
    assert said[0] == "found: []"


def test_one_process_adapts_plain_and_quantised_bases(said: list[str]) -> None:
    assert said[3:] == [
        "none Linear False",
        "nf4 Linear4bit True",
        "int8 Linear8bitLt True",
        "none Linear True",
    ]


def test_what_torchmetrics_left_out_can_be_imported(said: list[str]) -> None:
    assert said[1:3] == ["False False None", "butter True"]
