"""What W&B calls artifacts: data → base → adapter → answers, by content, with their lineage.

By default an artifact holds no file: each entry is a reference with the SHA-256 of what lies in the
run's directory, so that the same content is the same version and nothing private is sent. Files go
along only where that was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sizewise.record.directories import ADAPTER
from sizewise.record.outcome import FileRef, Outcome
from sizewise.tracking.summary import RunContext

SCHEME = "sizewise"
NAME_LENGTH = 120


@dataclass(frozen=True)
class Uploads:
    """Which files may be sent; what is not is named by its hash."""

    adapters: bool = False
    answers: bool = False


def log_artifacts(run: Any, context: RunContext, outcome: Outcome, uploads: Uploads) -> None:
    """Declare what the run read (data, base) and what it made (adapter, answers)."""
    for artifact in (data_artifact(outcome), base_artifact(outcome)):
        use(run, artifact)
    folder, group = context.run_dir, context.group
    if (adapter := adapter_artifact(outcome, folder, group, uploads.adapters)) is not None:
        run.log_artifact(adapter, aliases=["latest", alias(folder.name)])
    if outcome.base or outcome.tuned:
        answers = answers_artifact(outcome, folder, group, uploads.answers)
        run.log_artifact(answers, aliases=["latest", alias(folder.name)])


def use(run: Any, artifact: Any) -> None:
    """Declare an input. ``use_artifact`` refuses offline runs, but what it calls does not."""
    run._log_artifact(artifact, aliases=["latest"], is_user_created=True, use_after_commit=True)


def data_artifact(outcome: Outcome) -> Any:
    """The splits, by the fingerprint of their questions; never their content."""
    data = outcome.data
    described = {"sizes": dict(data.sizes), "prompt_fingerprint": data.prompt_fingerprint}
    artifact = _artifact(f"data-{data.name}", "dataset", described)
    for split, fingerprint in data.fingerprints.items():
        _refer(artifact, split, fingerprint, 0)
    return artifact


def base_artifact(outcome: Outcome) -> Any:
    """The base, by revision or content where these are known; a local folder's path stays here."""
    model, config = outcome.model, outcome.config.get("model") or {}
    content = config.get("content")
    place = content if content else f"{model.path}@{model.revision or 'main'}"
    described = {"params": model.params_base, "family": model.family, "dtype": model.dtype}
    artifact = _artifact(f"base-{model.name}", "model", described)
    _refer(artifact, "weights", str(place), model.base_bytes)
    return artifact


def adapter_artifact(
    outcome: Outcome, run_dir: Path, group: str | None, upload: bool = False
) -> Any | None:
    """The adapter, a version of its sweep's collection; None for a run that trained none."""
    files = {key: ref for key, ref in outcome.files.items() if key.split("/")[0] == ADAPTER}
    if not files:
        return None
    model = outcome.model
    described = {
        "run": run_dir.name,
        "base": model.name,
        "method": model.lora_method,
        "r": model.lora_r,
        "params_trainable": model.params_trainable,
        "validation": dict(outcome.validation),
    }
    return _with_files(
        f"adapter-{group or run_dir.name}", "model", described, files, run_dir, upload
    )


def answers_artifact(
    outcome: Outcome, run_dir: Path, group: str | None, upload: bool = False
) -> Any:
    """Every file of answers to a test split; they hold texts of the data."""
    sides = {"base": outcome.base, "tuned": outcome.tuned or {}}
    files = {
        f"{side}.{name}": evaluation.predictions
        for side, evaluations in sides.items()
        for name, evaluation in evaluations.items()
    }
    described = {"run": run_dir.name, "test": outcome.data.fingerprints.get("test")}
    name = f"answers-{group or run_dir.name}"
    return _with_files(name, "predictions", described, files, run_dir, upload)


def alias(text: str) -> str:
    """Make a legal alias: neither ``/`` nor ``:``."""
    return re.sub(r"[/:\s]+", "-", text)[:NAME_LENGTH]


def _with_files(
    name: str,
    kind: str,
    described: Mapping[str, Any],
    files: Mapping[str, FileRef],
    run_dir: Path,
    upload: bool,
) -> Any:
    artifact = _artifact(name, kind, described)
    for ref in files.values():
        path = run_dir / ref.path
        if upload and path.is_file():
            artifact.add_file(str(path), name=ref.path)
        else:
            _refer(artifact, ref.path, ref.sha256, ref.bytes)
    return artifact


def _artifact(name: str, kind: str, described: Mapping[str, Any]) -> Any:
    import wandb

    legal = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:NAME_LENGTH]
    return wandb.Artifact(legal, kind, metadata=dict(described))


def _refer(artifact: Any, name: str, digest: str, size: int) -> None:
    """Add a reference by hash. ``add_reference`` would warn of each scheme it cannot check."""
    from wandb.sdk.artifacts.artifact_manifest_entry import ArtifactManifestEntry

    address = f"{SCHEME}://{digest}"
    entry = ArtifactManifestEntry(path=name, digest=digest, ref=address, size=size)
    artifact.manifest.add_entry(entry)
