"""Where a base model, tokenizer or adapter lies, and which weights it names by content."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sizewise.config.model import ModelConfig
from sizewise.errors import ModelError, causes
from sizewise.files import file_hash, hash_text, refuse_changed

EMBEDDED = "embedded:"
PACKAGE = "package:"  # a folder of weights that an installed package carries
STAND_IN = "stand_in:words"  # a count of words in place of an encoder that is not here
HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")
HUB_TIMEOUT = 10.0
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True)
class Source:
    """A resolved place: a local folder or a hub id.

    ``local_only``: everything needed is on this machine, so that no request is made. Of a GGUF
    file ``path`` is the folder it lies in and ``gguf`` its name.
    """

    path: str
    revision: str | None = None
    local_only: bool = True
    gguf: str | None = None

    @property
    def folder(self) -> Path | None:
        return Path(self.path) if self.gguf is None and Path(self.path).is_dir() else None

    @property
    def place(self) -> str:
        """The folder, file or hub id as one writes it."""
        return self.path if self.gguf is None else str(Path(self.path) / self.gguf)

    @property
    def options(self) -> dict[str, str]:
        """What transformers has to be told beside the path."""
        return {} if self.gguf is None else {"gguf_file": self.gguf}

    def weight_files(self) -> list[Path]:
        """Return the files that hold the weights on this machine; none of a hub id."""
        if self.gguf is not None:
            return [Path(self.place)]
        return weight_files(self.folder) if self.folder is not None else []


def find_source(
    path: str,
    revision: str | None = None,
    *,
    marker: str = "config.json",
    weights: bool = True,
    key: str = "model.path",
) -> Source:
    """Resolve ``path`` without downloading anything; a hub id costs at most one request.

    Args:
        path: ``embedded:NAME``, a folder, a GGUF file, or a hub id.
        marker: the file whose presence makes the folder or repository usable.
        weights: whether the weights have to be there too, and whole.
        key: the configuration key that error messages name.

    Raises:
        ModelError: nothing is there, it is damaged or gated, or it cannot be reached.
    """
    if path.startswith(EMBEDDED):
        return Source(str(embedded_model_path(path.removeprefix(EMBEDDED))))
    folder = package_folder(path) if path.startswith(PACKAGE) else Path(path).expanduser()
    if folder is None:
        raise ModelError(
            f"{key}={path!r}: there is no such package, or no such folder in it. Install it, or "
            "name a local folder or a hub id."
        )
    if is_gguf(path):
        return _gguf_source(folder, key)
    if path and folder.is_dir():
        return _folder_source(folder, marker, weights, key)
    if not HUB_ID.match(path):
        raise ModelError(
            f"{key}={path!r} is neither an existing folder or GGUF file nor a hub id (owner/name). "
            "Check the spelling, or give the folder that holds the model."
        )
    if is_cached(path, revision, marker, weights):
        return Source(path, revision)
    _check_hub(path, revision, marker, key)
    return Source(path, revision, local_only=False)


def _folder_source(folder: Path, marker: str, weights: bool, key: str) -> Source:
    if not (folder / marker).is_file():
        raise ModelError(
            f"{key}={str(folder)!r} holds no {marker}. "
            "Give the folder that was written by save_pretrained (or its hub id)."
        )
    files = _listed(folder) if weights else []
    if weights and not files:
        raise ModelError(
            f"{key}={str(folder)!r} holds no *.safetensors file, the only weight format read here. "
            "Fetch it again with its weights, or save it by save_pretrained."
        )
    for file in files:
        check_weights(file)
    return Source(str(folder))


def is_gguf(path: str) -> bool:
    """Whether a path names a GGUF file (llama.cpp's format) on this machine."""
    return path.lower().endswith(".gguf") and Path(path).expanduser().is_file()


def _gguf_source(file: Path, key: str) -> Source:
    with file.open("rb") as handle:
        if handle.read(4) != b"GGUF":
            raise ModelError(f"{key}={str(file)!r} is damaged: it does not begin as GGUF files do.")
    if find_spec("gguf") is None:
        raise ModelError(
            f"{key}={str(file)!r} needs the package gguf: pip install 'sizewise[gguf]'. "
            "Or give the folder of the model's safetensors."
        )
    return Source(str(file.parent), gguf=file.name)


def check_place(model: ModelConfig) -> None:
    """Raise ModelError unless weights and tokenizer are there, whole, as planned, or to be fetched.

    Needs none of the large libraries, so that a wrong path is refused at once.
    """
    if not model.has_weights:
        return
    if model.init == "pretrained":
        find_source(model.path, model.revision)
    if model.tokenizer is not None and model.init != "tiny_random":
        find_source(
            model.tokenizer, marker="tokenizer_config.json", weights=False, key="model.tokenizer"
        )
    check_local_content(asdict(model))


def check_encoder(path: str, key: str) -> None:
    """Raise ModelError for an encoder that is no folder, not in the hub's cache, not on the hub."""
    if Path(path).expanduser().is_dir():
        return
    for marker in ("modules.json", "config.json"):
        if HUB_ID.match(path) and is_cached(path, None, marker, weights=False):
            return
    find_source(path, weights=False, key=key)


def package_folder(path: str) -> Path | None:
    """Return the folder that ``package:NAME/FOLDER`` stands for, where there is one."""
    name, _, folder = path.removeprefix(PACKAGE).partition("/")
    # Of a dotted name, the packages above would be imported.
    spec = find_spec(name) if name.isidentifier() else None
    found = Path(spec.origin).parent / folder if spec and spec.origin else None
    return found if found and found.is_dir() else None


def is_local(path: str, revision: str | None, marker: str) -> bool:
    """Whether ``path`` is an embedded base, a folder, or a hub id whose ``marker`` is cached."""
    local = path.startswith(EMBEDDED) or Path(path).expanduser().is_dir() or is_gguf(path)
    local = local or (path.startswith(PACKAGE) and package_folder(path) is not None)
    return local or is_cached(path, revision, marker, weights=False)


def is_cached(path: str, revision: str | None, marker: str, weights: bool) -> bool:
    """Whether the hub cache holds ``marker`` (and, if asked, every safetensors file)."""
    if _cached_file(path, marker, revision) is None:
        return False
    if not weights:
        return True
    if _cached_file(path, WEIGHT_FILES[0], revision) is not None:
        return True
    index = _cached_file(path, WEIGHT_FILES[1], revision)
    if index is None:
        return False
    return all(_cached_file(path, shard, revision) is not None for shard in shard_names(index))


def shard_names(index: Path) -> list[str]:
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except RecursionError as error:
        raise ValueError(f"{index} is nested too deeply") from error
    return sorted(set(places.values()))


def _cached_file(path: str, name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(path, name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _check_hub(path: str, revision: str | None, marker: str, key: str) -> None:
    """Ask the hub once for ``marker``, so that failures come fast and say what to do."""
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

    where = f"{key}={path!r}" + (f" (revision {revision!r})" if revision else "")
    try:
        get_hf_file_metadata(hf_hub_url(path, marker, revision=revision), timeout=HUB_TIMEOUT)
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{where} is gated. Accept its licence on its hub page, log in with "
            "`hf auth login` (or set HF_TOKEN), and start again."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"{where} was not found on the hub, or it is private. Check the spelling; "
            "for a private repository log in with `hf auth login` (or set HF_TOKEN)."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"{where}: there is no such revision on the hub. Name a branch, a tag or a commit of "
            f"{path}, or leave model.revision out."
        ) from error
    except errors.EntryNotFoundError as error:
        raise ModelError(
            f"{where} has no {marker} on the hub, so it is no model that transformers can load. "
            "Name the repository that holds the safetensors weights."
        ) from error
    except Exception as error:
        raise ModelError(_unreachable(where, error, key)) from error


def _unreachable(where: str, error: Exception, key: str) -> str:
    return (
        f"{where} is not on this machine and the hub cannot be reached "
        f"({type(error).__name__}: {error}). Connect to the network (for a gated model also "
        "`hf auth login`), point HF_HOME at a cache that holds it, or set "
        f"{key} to a local folder. debug=dry_run runs everything without its weights."
    )


# Who raises where a connection fails, in the versions of the hub's client.
_CLIENTS = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")


def unusable(source: Source, what: str, error: BaseException) -> ModelError:
    """Tell a download that broke off from files that are no good: ``what`` is said of those."""
    for link in causes(error):
        if type(link).__module__.partition(".")[0] in _CLIENTS or isinstance(link, ConnectionError):
            return ModelError(
                f"The download of {source.path!r} broke off ({link}). Start the same command "
                "again: files that are already there are kept."
            )
    return ModelError(f"{what}: {' '.join(str(error).split())}")


_NAMES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "tokenizer.model", "spiece.model", "chat_template.jinja",
)  # fmt: skip


def weights_fingerprint(path: str, revision: str | None = None, commit: str | None = None) -> str:
    """Identify a base's weights (16 hex digits of content, or the hub's id and commit).

    ``revision`` is what was asked of the hub, ``commit`` what it resolved that to, where known.

    Raises:
        ModelError: a local directory holds no safetensors file.
    """
    if is_gguf(path):
        return file_hash(Path(path), sampled=True)[:16]
    folder = Path(path)
    if not folder.is_dir():
        return f"{path}@{commit or revision or 'main'}"
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{path} holds no *.safetensors file, the only weight format read here.")
    return folder_fingerprint(folder)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that a base is loaded from, not copies in another layout."""
    return [file for file in _listed(folder) if file.is_file()]


def _listed(folder: Path) -> list[Path]:
    if (folder / WEIGHT_FILES[0]).is_file():
        return [folder / WEIGHT_FILES[0]]
    index = folder / WEIGHT_FILES[1]
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    return [folder / name for name in shard_names(index)]


def check_weights(file: Path) -> None:
    """Raise ModelError, with the file's name, if it is no whole safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        safe_open(str(file), framework="np")
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{file} is missing, damaged or cut off ({error}). Fetch or write that file again."
        ) from error


def folder_fingerprint(folder: Path) -> str:
    """Hash the weights, configuration, tokenizer and template of a folder (16 hex digits)."""
    named = [folder / name for name in _NAMES if (folder / name).is_file()]
    weights = [file for file in sorted(folder.glob("*.safetensors")) if file.is_file()]
    lines = [
        f"{file.name}:{file.stat().st_size}:{file_hash(file, sampled=True)}\n"
        for file in [*named, *weights]
    ]
    return hash_text("".join(lines), 16)


def local_content(model: Mapping[str, Any]) -> str | None:
    """Hash what a model's configuration names on this machine (16 hex digits); None for nothing.

    That is the folder or GGUF file of ``path``, the folder of ``tokenizer`` and the file of
    ``chat_template``; of ``embedded:NAME`` the folder in the package, since another version may
    bring others.
    """
    found = []
    for key in ("path", "tokenizer"):
        place = str(model.get(key) or "")
        folder = _folder_of(place)
        if folder is not None:
            found.append(f"{key}:{folder_fingerprint(folder)}")
        elif is_gguf(place):
            found.append(f"{key}:{weights_fingerprint(str(Path(place).expanduser()))}")
    template = Path(str(model.get("chat_template") or "")).expanduser()
    if template.suffix and template.is_file():
        found.append(f"chat_template:{file_hash(template)}")
    return hash_text("\n".join(found), 16) if found else None


def _folder_of(place: str) -> Path | None:
    """Return the folder on this machine that a place names; None where it names none."""
    name = place.removeprefix(EMBEDDED)
    if place.startswith(EMBEDDED):
        folder = models_folder() / name if name in EMBEDDED_MODELS else None
    else:
        folder = Path(place).expanduser() if place else None
    return folder if folder is not None and folder.is_dir() else None


def check_local_content(model: Mapping[str, Any]) -> None:
    """Raise ModelError if the files of a base are no longer those of ``model.content``."""
    what = f"model.path={model.get('path')!r} (or its tokenizer or template)"
    refuse_changed(what, model.get("content"), local_content(model), ModelError)


EMBEDDED_MODELS = ("nano", "micro", "mini")


def models_folder() -> Path:
    return Path(str(files("sizewise.embedded"))) / "models"


def embedded_model_path(name: str) -> Path:
    """Folder of a shipped model, loadable with `from_pretrained`.

    Raises ModelError for an unknown name, or when the weights are not installed.
    """
    if name not in EMBEDDED_MODELS:
        options = ", ".join(EMBEDDED_MODELS)
        raise ModelError(f"There is no embedded model {name!r}; the options are {options}.")
    folder = models_folder() / name
    if not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"The weights of the embedded model {name!r} are missing in {folder}: reinstall the "
            "package, or rebuild them with `python -m tools.embedded_models.build`."
        )
    return folder
