"""Local files that a job reads, data and models: their content is part of what the job is."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from sizewise.data.content import plain_content_hash, sources_of
from sizewise.models.weights import local_content


def pinned(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration in which local data files and bases are named with their content.

    So a file that was changed makes another job, and a queued job refuses a file that is no
    longer the one it was planned with. A hash that is there already stays.
    """
    copy = deepcopy(dict(config))
    datasets = [copy.get("dataset"), *(copy.get("eval_dataset") or {}).values()]
    for source in (source for dataset in datasets for source in sources_of(dataset)):
        if source.get("path") and not source.get("sha256"):
            source["sha256"] = plain_content_hash(source)
    model = copy.get("model")
    if isinstance(model, dict) and not model.get("content"):
        model["content"] = local_content(model)
    return copy
