"""Score an untouched base, a finished run (run=DIR) or an adapter (adapter=PATH_OR_ID)."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from sizewise.commands.run import prepare, run_command, run_task

prepare()


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> float | None:
    """Score what the config names and return the objective, a figure of the validation split."""
    return run_task(cfg)


if __name__ == "__main__":
    run_command(main)
