"""Composition of the jobs of a sweep, fast enough for hundreds.

Hydra composes one job in some tenths of a second, nearly all of it for the options (YAML files,
defaults lists, merging). Three things are shared between the jobs of a sweep: the parsed files;
the composition of equal options, over which plain values are laid; and, for options that fill
nothing but their own group, the composition without them, in which that group is replaced. The
group is composed alone: a grid of 10 models × 10 ways of LoRA takes one composition and 20 groups.

Programs and commands that compose one job after another share them as well, until a file of options
changes. Sweepers for programs are made here too: this is the one file that touches what Hydra and
OmegaConf do not publish; a canary test names it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sizewise.composition.shorthand import spelt_out
from sizewise.config.register import explain, explained
from sizewise.errors import ConfigError
from sizewise.record.identity import plain_config, plain_copy, plain_node


class _CopyingRepository:
    """Parsed files, handed out as copies: whoever is given one writes into it.

    Attributes:
        merging: whether its values are written into as well, and not its list of defaults alone.
        only: the one key that is merged; None: all.
        linked: whether a list of defaults depends on other options, or on the environment.
    """

    def __init__(self, repository: Any) -> None:
        self._repository = repository
        self.merging = self.linked = False
        self.only: str | None = None

    def load_config(self, config_path: str) -> Any:
        loaded = self._repository.load_config(config_path)
        self.linked |= loaded is not None and "${" in repr(loaded.defaults_list)
        if loaded is None:
            return None
        if self.merging:
            with _narrowed(loaded.config, self.only):
                return deepcopy(loaded)
        defaults = loaded.defaults_list and [copy(item) for item in loaded.defaults_list]
        return replace(loaded, header=dict(loaded.header), defaults_list=defaults)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._repository, name)


@contextmanager
def _narrowed(config: Any, key: str | None) -> Iterator[None]:
    """Within the block a parsed file has no other key; None: all that it has."""
    if key is None or not isinstance(config, DictConfig):
        yield
        return
    whole = config.__dict__["_content"]
    config.__dict__["_content"] = {key: whole[key]} if key in whole else {}
    try:
        yield
    finally:
        config.__dict__["_content"] = whole


class SharedLoader(ConfigLoaderImpl):
    """Loads configurations like ``loader``, reading every file once."""

    def __init__(self, loader: ConfigLoaderImpl, name: str, hydra_overrides: list[str]) -> None:
        self.config_search_path = loader.config_search_path
        self.repository = loader.repository
        self._shared: Any = None
        self._groups: dict[str, bool] = {}
        self._group: str | None = None
        self._parse_overrides_and_create_caching_repo(name, hydra_overrides)

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], Any]:
        if self._shared is None:
            parsed, repository = super()._parse_overrides_and_create_caching_repo(
                config_name, overrides
            )
            self._shared = _CopyingRepository(repository)
            return parsed, self._shared
        return OverridesParser.create().parse_overrides(overrides=overrides), self._shared

    def _load_single_config(self, default: Any, repo: Any) -> Any:
        place = default.package or ""
        if self._group is not None and default.config_path != "hydra/config":
            if place and place.split(".")[0] != self._group:
                return ConfigResult(default.config_path, "", OmegaConf.create(), {})
            self._shared.only = None if place else self._group
        self._shared.merging = True
        try:
            return super()._load_single_config(default, repo)
        finally:
            self._shared.merging, self._shared.only = False, None

    def load_group(self, name: str, overrides: list[str], group: str) -> Any:
        """Compose a configuration as far as one of its groups goes, and return that node.

        What options put anywhere else is left out, which is nearly all of the work.
        """
        self._group = group
        try:
            return self.load_configuration(name, overrides, RunMode.RUN)._get_node(group)
        finally:
            self._group = None

    @property
    def linked(self) -> bool:
        """Whether an option chooses another by what else is chosen, or by the environment."""
        return bool(self._shared.linked)

    def folders(self) -> set[Path]:
        """Return where options are read from, but for Hydra's own."""
        found: set[Path] = set()
        for source in self._shared.get_sources():
            if source.scheme() == "file":
                found.add(Path(source.path))
            elif source.scheme() == "pkg" and source.path != "hydra.conf":
                spec = find_spec(source.path.replace("/", "."))
                found.update(map(Path, (spec and spec.submodule_search_locations) or ()))
        return found

    def is_group(self, override: Override) -> bool:
        """Whether an override chooses an option (and does not set a value)."""
        if override.package is not None:
            return True
        key = str(override.key_or_group)
        if key not in self._groups:
            self._groups[key] = bool(self._shared.group_exists(key))
        return self._groups[key]

    def separable(self, override: Override) -> bool:
        """Whether an override's options fill nothing but the node named like their group."""
        group, value = str(override.key_or_group), override.value()
        if override.package is not None or override.is_delete() or "/" in group:
            return False
        if override.is_add() or override.is_force_add() or value is None:
            return False
        options = value if isinstance(value, list) else [value]
        return all(self._plain_option(group, str(option)) for option in options)

    def _plain_option(self, group: str, option: str) -> bool:
        loaded = self._shared.load_config(f"{group}/{option}")
        if loaded is None:
            return False
        own = (item for item in loaded.defaults_list or () if not item.is_self())
        package = loaded.header.get("package")
        return not any(own) and package in (None, group, "_group_")


@dataclass(frozen=True)
class HydraParts:
    """The composed configuration, the loader of further ones, and for a sweeper its launcher."""

    config: DictConfig
    context: HydraContext
    launcher: Launcher | None = None


@dataclass
class _Composed:
    """Composed options: the config, its plain values, and the keys that interpolate others."""

    config: DictConfig
    plain: dict[str, Any] | None
    linked: set[str]


class JobComposer:
    """Composes jobs; ``hydra_overrides`` are those of Hydra itself, the same for every job."""

    def __init__(
        self, loader: ConfigLoaderImpl, config_name: str, hydra_overrides: list[str]
    ) -> None:
        self._hydra = [text for text in hydra_overrides if not text.startswith("hydra.mode=")]
        self._loader = SharedLoader(loader, config_name, self._hydra)
        self._name = config_name
        self._parser = OverridesParser.create(config_loader=loader)
        self._parsed: dict[str, Override] = {}
        self._whole = lru_cache(MOST_WHOLE)(self._compose_whole)
        self._group = lru_cache(MOST_GROUPS)(self._compose_group)
        self._options = lru_cache(MOST_WHOLE)(self._compose_options)

    @property
    def reusable(self) -> bool:
        """Whether what was composed holds for later jobs."""
        return not self._loader.linked

    def folders(self) -> set[Path]:
        return self._loader.folders()

    def parse(self, overrides: list[str]) -> list[Override]:
        try:
            parsed = [self._parsed_once(text) for text in overrides]
            for item in parsed:  # such as range(1,4,0), which only fails when it is run through
                if item.is_sweep_override() and item.is_discrete_sweep():
                    next(iter(item.sweep_iterator()), None)
            return parsed
        except ValueError as error:
            raise ConfigError(f"{' '.join(overrides)}: {error}") from error
        except HydraException as error:
            raise ConfigError(explain(error)) from error

    def _parsed_once(self, text: str) -> Override:
        """Parse an override; most of those of a job are those of others as well."""
        if text not in self._parsed:
            (self._parsed[text],) = self._parser.parse_overrides([text])
        return self._parsed[text]

    def compose(self, overrides: list[str]) -> dict[str, Any]:
        """Return a job's resolved configuration as plain values; ConfigError where one is wrong."""
        overrides = spelt_out(overrides)
        parsed = self.parse(overrides)
        with explained(overrides):
            self._loader.validate_sweep_overrides_legal(parsed, RunMode.RUN, from_shell=False)
            groups = [item for item in parsed if self._loader.is_group(item)]
            values = [item for item in parsed if not self._loader.is_group(item)]
            own = tuple(str(g.input_line) for g in groups if self._loader.separable(g))
            rest = tuple(str(g.input_line) for g in groups if not self._loader.separable(g))
            return _overlay(self._options(rest, own), values)

    def _compose_options(self, rest: tuple[str, ...], own: tuple[str, ...]) -> _Composed:
        """Compose options, of which those of ``own`` fill nothing but their group."""
        config = self._whole(rest)
        if self._loader.linked:
            return _prepared(self._whole((*rest, *own)))
        config = deepcopy(config)
        for choice in own:
            group = choice.split("=")[0]
            node = deepcopy(self._group(rest, choice))
            config.__dict__["_content"][group] = node
            node._set_parent(config)
        return _prepared(config)

    def _compose_whole(self, groups: tuple[str, ...]) -> DictConfig:
        overrides = [*self._hydra, *groups]
        return _without_hydra(self._loader.load_configuration(self._name, overrides, RunMode.RUN))

    def _compose_group(self, rest: tuple[str, ...], choice: str) -> Any:
        choices = [text for text in self._hydra if not text.startswith("hydra.")]
        return self._loader.load_group(self._name, [*choices, *rest, choice], choice.split("=")[0])


@dataclass
class _Kept:
    """The composer of a primary config, where it looks from for options, and what stood there."""

    composer: JobComposer
    search_path: str
    options: list[Any]


# Composed options are some thousand objects, those of one group some dozens.
MOST_WHOLE, MOST_GROUPS = 64, 512
_kept: dict[str, _Kept] = {}
_OF_HYDRA = re.compile(r"[+~]*hydra[./]")


def compose_job(overrides: Sequence[str], config_name: str) -> dict[str, Any]:
    """Return a job's resolved configuration as plain values; inside of ``compose.initialized``.

    Raises:
        ConfigError: an override is wrong.
    """
    hydra = [text for text in overrides if _OF_HYDRA.match(text)]
    own = [text for text in overrides if not _OF_HYDRA.match(text)]
    return _composer(config_name, hydra).compose(own)


def _composer(config_name: str, hydra_overrides: list[str]) -> JobComposer:
    """Return the composer that is kept, or a new one where options may have changed since."""
    loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, ConfigLoaderImpl)
    if hydra_overrides:
        return JobComposer(loader, config_name, hydra_overrides)
    search_path = f"{Path.cwd()} {loader.config_search_path}"
    kept = _kept.get(config_name)
    if (
        kept is None
        or kept.search_path != search_path
        or not kept.composer.reusable
        or kept.options != list(_options_there(kept.composer))
    ):
        composer = JobComposer(loader, config_name, [])
        kept = _Kept(composer, search_path, list(_options_there(composer)))
        _kept[config_name] = kept
    return kept.composer


def _options_there(composer: JobComposer) -> Iterator[Any]:
    """Name the files of options with what tells that one has changed, and the stored options."""
    for path in sorted(_yaml_files(composer.folders())):
        with suppress(OSError):  # a link to nothing, as an editor's lock: Hydra sees none either
            state = path.stat()
            yield str(path), state.st_mtime_ns, state.st_size, state.st_ino
    stack: list[Any] = [ConfigStore.instance().repo]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            stack.extend(node.values())
        else:
            yield id(node), node


def _yaml_files(folders: Iterable[Path]) -> Iterator[Path]:
    """All of them in the folders, also behind links, but each folder once."""
    seen: set[str] = set()
    for top in folders:
        for folder, inner, files in os.walk(top, followlinks=True):
            if (real := os.path.realpath(folder)) in seen:
                inner.clear()
                continue
            seen.add(real)
            yield from (Path(folder, name) for name in files if name.endswith(".yaml"))


def sweeper_of(overrides: list[str], config_name: str = "train") -> tuple[Sweeper, DictConfig]:
    """Make the sweeper of a command, as ``hydra.main`` does; inside of ``compose.initialized``."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    config = hydra.compose_config(
        config_name, overrides, run_mode=RunMode.MULTIRUN, with_log_configuration=False
    )
    context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
    sweeper = Plugins.instance().instantiate_sweeper(
        config=config, hydra_context=context, task_function=_read_from_disk
    )
    return sweeper, config


def _read_from_disk(config: DictConfig) -> None:
    raise AssertionError("sizewise's launchers read jobs from their directories")


def _prepared(config: DictConfig) -> _Composed:
    raw = OmegaConf.to_container(config, resolve=False)
    assert isinstance(raw, dict)
    linked = {str(key) for key, value in raw.items() if key != "hydra" and "${" in repr(value)}
    return _Composed(config, None, linked)


def _overlay(composed: _Composed, values: list[Override]) -> dict[str, Any]:
    """Lay plain values over composed options, resolve, and take them off again.

    Copying and resolving a whole config takes 20 ms; only what can have changed is done anew.
    """
    config, content = composed.config, composed.config.__dict__["_content"]
    touched = {str(item.key_or_group).split(".")[0] for item in values}
    if composed.plain is None and touched:
        composed.plain = _plain_if_complete(config)
    saved = {key: deepcopy(content[key]) for key in touched if key in content}
    try:
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        if composed.plain is None:
            return plain_config(config)
        changed = {key for key in touched | composed.linked if key in content}
        kept = {k: v for k, v in composed.plain.items() if k in content and k not in changed}
        return {**plain_copy(kept), **{key: plain_node(config, key) for key in changed}}
    finally:
        for key in touched:
            content.pop(key, None)
        content.update(saved)


def _plain_if_complete(config: DictConfig) -> dict[str, Any] | None:
    """Resolve the options alone; None where a value is still missing (an override gives it)."""
    try:
        return plain_config(config)
    except OmegaConfBaseException:
        return None


def _without_hydra(config: DictConfig) -> DictConfig:
    """Drop Hydra's own node, which is the larger half, unless a value refers to it."""
    raw = OmegaConf.to_container(config, resolve=False)
    assert isinstance(raw, dict)
    raw.pop("hydra")
    if "${hydra" not in repr(raw):
        config.__dict__["_content"].pop("hydra")
    return config
