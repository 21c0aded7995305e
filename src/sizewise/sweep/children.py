"""Further processes of a distributed job run that job only, never the command that began it.

Lightning starts them by executing this process's own command line again, and with Hydra in use it
adds Hydra's arguments: of ``train.py -m …`` that would be the whole multirun. While a job runs,
Hydra is therefore hidden and the command line is that of a worker with this one job.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

WORKER_MODULE = "sizewise.sweep.worker"


def worker_arguments(run_dir: Path | None = None) -> list[str]:
    """Return the arguments of a worker that ends with this process, for one job or for many."""
    job = [] if run_dir is None else ["--job", str(run_dir.resolve())]
    return ["--parent", str(os.getpid()), *job]


@contextmanager
def children_run(run_dir: Path) -> Iterator[None]:
    """Let processes that are started from here run the job of ``run_dir``."""
    main = sys.modules["__main__"]
    kept = (sys.argv, getattr(main, "__spec__", None), HydraConfig.instance().cfg)
    environment = dict(os.environ)
    sys.argv = [WORKER_MODULE, *worker_arguments(run_dir)]
    main.__spec__ = importlib.util.find_spec(WORKER_MODULE)
    HydraConfig.instance().cfg = None
    try:
        yield
    finally:
        sys.argv, main.__spec__, HydraConfig.instance().cfg = kept
        # Ranks and addresses of this job must not reach the next one in this process.
        for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)
            if name in environment:
                os.environ[name] = environment[name]
