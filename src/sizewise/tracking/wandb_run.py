"""Opening a run of W&B: who is logged in, in which mode, and what is left where nothing answers."""

from __future__ import annotations

import logging
import netrc
import os
import shutil
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sizewise.errors import ConfigError
from sizewise.tracking.summary import RunContext

log = logging.getLogger(__name__)

MODES = ("auto", "online", "offline", "disabled")
FLUSH_SECONDS = 1.0
CONNECT_SECONDS = 30.0
TAG_LENGTH = 64  # W&B refuses to open a run with a longer one
_said: set[str] = set()
_unreachable: set[bool] = set()


def import_wandb() -> Any:
    """Import wandb with its error reporting off (it starts at import)."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb


def choose_mode(mode: str) -> str:
    """Return ``online``, ``offline`` or ``disabled``.

    ``auto`` follows ``WANDB_MODE`` where it is set; otherwise it is online exactly if somebody is
    logged in. Asking to be online without being logged in gives offline: W&B would prompt.
    """
    if mode not in MODES:
        raise ConfigError(
            f"logger.backends.wandb.mode={mode!r} is not known. Choose one of: {', '.join(MODES)}."
        )
    wanted = os.environ.get("WANDB_MODE", "auto") if mode == "auto" else mode
    if wanted in ("offline", "dryrun"):
        return "offline"
    if wanted == "disabled":
        return "disabled"
    if logged_in():
        return "offline" if _unreachable else "online"
    say_once(
        "W&B: nobody is logged in, so runs are recorded offline, inside the run directories. "
        "`wandb sync DIR` sends them later."
    )
    return "offline"


def logged_in() -> bool:
    """Whether W&B has credentials (environment or netrc); nothing is asked or sent."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    given = os.environ.get("NETRC")
    names = [Path(given)] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]
    return any(_has_entry(path.expanduser(), host) for path in names)


def _has_entry(path: Path, host: str) -> bool:
    try:
        return host in netrc.netrc(path).hosts
    except (OSError, netrc.NetrcParseError):
        return False


def say_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        log.info(message)


def open_run(
    context: RunContext, mode: str, project: str, entity: str | None, stats: bool | None
) -> Any:
    """Open the W&B run of ``context``; a server that does not answer makes it an offline run.

    ``stats``: see ``WandbBackend.system_metrics``.

    Older offline folders of the same run are removed: their history is replayed into the new one.
    """
    wandb = import_wandb()
    leave_foreign_service()
    context.run_dir.mkdir(parents=True, exist_ok=True)
    if mode == "online":
        try:
            run = _init(wandb, context, mode, project, entity, stats)
            if context.job_type != "configuration":  # these are found beside the sweep's own
                log.info("W&B: %s", run.url)
            return run
        except (wandb.errors.CommError, wandb.errors.AuthenticationError) as error:
            say_once(f"W&B does not answer ({error}): runs are recorded offline.")
            _unreachable.add(True)
            wandb.teardown()  # else its service goes on trying and holds the run's id
            leave_foreign_service()
            mode = "offline"
    if mode == "offline":
        remove_offline_folders(context.run_dir, context.run_id)
    return _init(wandb, context, mode, project, entity, stats)


def leave_foreign_service() -> None:
    """Forget the W&B service of a parent process.

    A worker that is killed would leave its run open in that service, which then refuses to open
    it again ("run ID … is in use") for as long as the parent lives.
    """
    token = os.environ.get("WANDB_SERVICE", "")
    if token and token.split("-")[1:2] != [str(os.getpid())]:
        del os.environ["WANDB_SERVICE"]


def remove_offline_folders(root: Path, run_id: str) -> None:
    """Remove the offline folders of ``run_id`` below ``root``, so that one run stays one folder."""
    for folder in (root / "wandb").glob(f"offline-run-*-{run_id}"):
        # The service of a killed process may still be writing there for a moment.
        stale = folder.rename(folder.with_name(f".stale-{uuid.uuid4().hex}"))
        shutil.rmtree(stale, ignore_errors=True)


def _init(
    wandb: Any, context: RunContext, mode: str, project: str, entity: str | None, stats: bool | None
) -> Any:
    load = context.config.get("device") == "cuda" if stats is None else stats
    settings = wandb.Settings(
        silent=True,
        console="off",
        reinit="create_new",
        disable_code=True,
        x_disable_stats=not load,
        x_disable_machine_info=not stats,
        x_save_requirements=False,
        x_transaction_log_flush_interval=FLUSH_SECONDS,
        init_timeout=CONNECT_SECONDS,
    )
    return wandb.init(
        project=project,
        entity=entity,
        dir=str(context.run_dir),
        id=context.run_id,
        name=context.name or context.run_dir.name,
        group=context.group,
        job_type=context.job_type,
        tags=[tag[:TAG_LENGTH] for tag in context.tags if tag],
        config=dict(context.config),
        mode=mode,
        resume="allow",
        settings=settings,
    )
