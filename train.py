"""Run one job, or with -m or sweep=NAME many: python train.py -m model=nano,mini lora.r=8,16."""

from __future__ import annotations

from sizewise.commands.run import hydra_command

if __name__ == "__main__":
    hydra_command("train")
