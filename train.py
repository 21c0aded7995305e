"""Run one job, or with -m or sweep=NAME many: python train.py -m model=nano,mini lora.r=8,16."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from sizewise.commands.run import prepare, run_command, run_task

prepare()


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Run the job and return its objective, a figure of the validation split."""
    return run_task(cfg)


if __name__ == "__main__":
    run_command(main)
