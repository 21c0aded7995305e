"""Settings of the crisis detector: phrases, help lines, and for which models it is on."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from sizewise.app.crisis.detector import CrisisDetector, make_classifier
from sizewise.app.crisis.phrases import CATEGORIES, PhraseList
from sizewise.errors import ConfigError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class HelpLine:
    """Whom to call: a name, numbers or an address, and when they answer."""

    name: str
    contact: str
    hours: str = ""


@dataclass(frozen=True)
class CrisisSettings:
    """What ``settings.yaml`` says; see there for the meaning of every key.

    ``lines`` maps a country's two letters to its help lines; "" holds those for everywhere.
    """

    enabled: bool
    off_for_datasets: tuple[str, ...]
    off_for_models: tuple[str, ...]
    country: str | None
    phrases: PhraseList
    classifier: str | None
    threshold: float | None
    message: str
    aside: str
    lines: Mapping[str, tuple[HelpLine, ...]]

    def needed(self, models: Iterable[tuple[str, str]]) -> bool:
        """Whether the detector is on for a chat with ``models``, pairs of (model, data set)."""
        return self.enabled and any(
            not _any(model, self.off_for_models) and not _any(dataset, self.off_for_datasets)
            for model, dataset in models
        )

    def help_lines(self, country: str | None = None) -> tuple[HelpLine, ...]:
        """Return the lines of a country (default: the chosen one), else international ones."""
        return self.lines.get((country or self.country or "").upper()) or self.lines[""]

    def watcher(self) -> CrisisDetector:
        """The phrases alone, which say where help lines are shown beside an answer."""
        return CrisisDetector(self.phrases)

    def detector(self) -> CrisisDetector:
        """Make the detector, fitting its classifier where one is named."""
        classifier = make_classifier(self.classifier)
        suggested = getattr(classifier, "threshold", 0.5)
        threshold = suggested if self.threshold is None else self.threshold
        return CrisisDetector(self.phrases, classifier, threshold)


def read_settings(path: Path | None = None) -> CrisisSettings:
    """Read settings; keys that ``path`` leaves out are those that come with sizewise.

    ``path`` may also hold ``phrases`` (a whole list in place of ours) and ``lines`` (country →
    entries, added to ours or in their place).

    Raises:
        ConfigError: the file cannot be read, or a key or value is wrong.
    """
    given = _yaml(path.read_text(encoding="utf-8"), str(path)) if path is not None else {}
    values = {**_package("settings.yaml"), **given}
    known = {f.name for f in fields(CrisisSettings)} | {"more_phrases"}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f"{path}: {unknown[0]!r} is not known. Keys: {', '.join(sorted(known))}.")
    threshold = values["threshold"]
    number = isinstance(threshold, int | float) and 0.0 < threshold <= 1.0
    if not number and threshold is not None:
        raise ConfigError(
            f"{path}: threshold={threshold!r} must be above 0 and at most 1, or null."
        )
    country = values["country"]
    settings = CrisisSettings(
        enabled=bool(values["enabled"]),
        off_for_datasets=tuple(values["off_for_datasets"] or ()),
        off_for_models=tuple(values["off_for_models"] or ()),
        country=None if country is None else str(country).upper(),
        phrases=_phrases(values),
        classifier=values["classifier"],
        threshold=None if threshold is None else float(threshold),
        message=str(values["message"]),
        aside=str(values["aside"]),
        lines=_lines(values.get("lines") or {}),
    )
    if settings.country is not None and settings.country not in settings.lines:
        raise ConfigError(
            f"{path}: there are no help lines for country={settings.country!r}. Choose one of "
            f"{', '.join(sorted(filter(None, settings.lines)))}, or add them under `lines`."
        )
    return settings


def _phrases(values: Mapping[str, Any]) -> PhraseList:
    content = dict(values.get("phrases") or _package("phrases.yaml"))
    for name, more in (values.get("more_phrases") or {}).items():
        if name not in (*CATEGORIES, "idioms"):
            raise ConfigError(
                f"more_phrases.{name}: choose one of {', '.join(CATEGORIES)}, idioms."
            )
        content[name] = [*(content.get(name) or ()), *more]
    return PhraseList.from_mapping(content)


def _lines(more: Mapping[str, Any]) -> dict[str, tuple[HelpLine, ...]]:
    content = _package("help_lines.yaml")
    entries: dict[str, Any] = {"": content["default"], **content["countries"]}
    entries |= {str(country).upper(): lines for country, lines in more.items()}
    try:
        return {c: tuple(HelpLine(**line) for line in lines) for c, lines in entries.items()}
    except TypeError as error:
        raise ConfigError(f"lines: every entry has name, contact and hours ({error}).") from error


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _package(name: str) -> dict[str, Any]:
    path = resources.files("sizewise.app.crisis") / name
    return _yaml(path.read_text(encoding="utf-8"), name)


def _yaml(text: str, where: str) -> dict[str, Any]:
    try:
        content = yaml.load(text, Loader=_LOADER) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is no YAML file: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{where} must hold keys and values.")
    return content
