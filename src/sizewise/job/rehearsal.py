"""The release of a dry run."""

from __future__ import annotations

import logging
from pathlib import Path

from sizewise.config import RunConfig
from sizewise.release.export import export_run

log = logging.getLogger(__name__)


def rehearse_export(cfg: RunConfig, run_dir: Path) -> None:
    """Write, reload and compare a release of a dry run; a real one is exported when asked for."""
    if not cfg.dry_run or not cfg.lora.trains or cfg.stage == "evaluate":
        return
    done = export_run(run_dir, run_dir / "export", merged=cfg.lora.is_adapter, examples=2)
    log.info("Dry run: exported to %s.", done.folder)
