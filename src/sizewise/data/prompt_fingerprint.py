"""Hash of how a data set asks, without its rows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from sizewise.config.data import DatasetConfig
from sizewise.data.mixture import part_config

IF_SET = ("clean_whitespace", "truncate_prompt", "history", "conversation")


def prompt_fingerprint(cfg: DatasetConfig) -> str:
    """Hash everything but the rows that decides what a model reads (16 hex digits).

    A mixture's is that of its own settings and of every part's, whose prompts are cut as the
    mixture says. ``few_shot_style`` counts with demonstrations only, ``train_on`` with a
    ``conversation`` only.

    Raises:
        ConfigError: a part is not a valid data set configuration.
    """
    wording: list[Any] = [cfg.system, cfg.prompt, cfg.answer, cfg.few_shot, cfg.max_length]
    if cfg.few_shot:
        wording.append(cfg.few_shot_style)
    wording += [_setting(cfg, name) for name in IF_SET if getattr(cfg, name)]
    if cfg.conversation:
        wording.append(cfg.train_on)
    if cfg.parts:
        wording.append({name: _of_part(cfg, name) for name in sorted(cfg.parts)})
    return hashlib.sha256(json.dumps(wording).encode()).hexdigest()[:16]


def _setting(cfg: DatasetConfig, name: str) -> Any:
    value = getattr(cfg, name)
    return name if value is True else [name, value]


def _of_part(cfg: DatasetConfig, name: str) -> str:
    part = part_config(name, cfg.parts[name])
    return prompt_fingerprint(
        replace(part, max_length=cfg.max_length, truncate_prompt=cfg.truncate_prompt)
    )
