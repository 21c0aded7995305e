"""sizewise's launchers under a sweeper of Hydra's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobStatus
from hydra.types import HydraContext

from hydra_plugins.sizewise_launchers import LocalLauncher
from sizewise.commands.run import prepare
from sizewise.config import conf_dir
from sizewise.errors import SweepError
from sizewise.sweep.launch import backend

from .fake import RAISES


def test_results_and_failures_are_returned_as_hydra_wants_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "DEFAULT_FUNCTION", "sweep.fake:job")
    prepare()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        own = [f"hydra.sweep.dir={tmp_path}", "hydra/sweeper=basic"]
        config = compose("train", overrides=own, return_hydra_config=True)
        launcher = LocalLauncher(progress=False)
        launcher.setup(
            hydra_context=HydraContext(loader, Callbacks()),
            task_function=lambda _: None,
            config=config,
        )
        jobs = [["seed=1", "lora.r=4"], [f"seed={RAISES}"]]
        good, bad = launcher.launch(jobs, initial_job_idx=0)
    assert (good.status, good.return_value) == (JobStatus.COMPLETED, 1.04)
    assert bad.status == JobStatus.FAILED
    with pytest.raises(SweepError, match="this job was made to fail"):
        _ = bad.return_value
