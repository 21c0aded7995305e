"""Score an untouched base, a finished run (run=DIR) or an adapter (adapter=PATH_OR_ID)."""

from __future__ import annotations

from sizewise.commands.run import hydra_command

if __name__ == "__main__":
    hydra_command("evaluate")
