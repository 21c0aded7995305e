"""From the configuration of a data set to its three splits."""

from __future__ import annotations

from sizewise.config.data import DatasetConfig
from sizewise.data.example import DataSplits
from sizewise.data.examples import make_examples
from sizewise.data.few_shot import add_demonstrations
from sizewise.data.mixture import build_mixture
from sizewise.data.sources import read_rows
from sizewise.data.splits import split_examples


def build_splits(cfg: DatasetConfig) -> DataSplits:
    """Read, map, filter, split and limit a data set.

    Deterministic: the same rows in any order and the same configuration give the same splits.

    Raises:
        DataError: the source cannot be read, a column does not exist, or a split is empty.
    """
    if cfg.source.kind == "mixture":
        splits = build_mixture(cfg, build_splits)
    else:
        splits = split_examples(make_examples(read_rows(cfg.source), cfg), cfg)
    return add_demonstrations(splits, cfg.few_shot, cfg.few_shot_style)
