"""An adapter or a merged model with everything that using it needs, in a folder or on the hub."""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sizewise.config import RunConfig
from sizewise.data.tokens.encode import EncodedSplit
from sizewise.data.tokens.template import Template
from sizewise.errors import ModelError
from sizewise.files import read_json, write_atomically
from sizewise.job.data import load_task
from sizewise.models.adapter.full import is_full_checkpoint
from sizewise.models.architecture import context_length
from sizewise.models.dtypes import dtype_name
from sizewise.models.tokenizer import load_template
from sizewise.record.directories import ADAPTER_CONFIG, RunDir
from sizewise.release.card import public_name, write_card
from sizewise.release.generate import (
    FinishedRun,
    load_run_base,
    load_run_model,
    open_run,
    with_weights,
)
from sizewise.release.merging import MergeReport, answer_all, compare_answers, merge, reload_plain

log = logging.getLogger(__name__)
SETTINGS = "sizewise.json"
ADAPTER_FILES = (".safetensors", ".json", ".jinja", ".model", ".txt")  # no code, no pickles


@dataclass(frozen=True)
class Export:
    """What was written: the folder, and for a checked export the comparison with the run."""

    folder: Path
    merged: bool
    report: MergeReport | None


def export_run(
    run_dir: Path,
    out: Path,
    merged: bool = False,
    examples: int = 32,
    remote_code: bool = False,
) -> Export:
    """Write the model of a finished run into a new folder, load it again and compare.

    The folder holds the adapter (or the merged model), the tokenizer with the chat template that
    was used, generation settings, ``sizewise.json`` and the model card ``README.md``. It appears in
    one piece: an export that fails leaves nothing behind.

    Args:
        run_dir: a finished run that trained something.
        out: the folder to write; must not exist or be empty.
        merged: merge the adapter into the base (16 or 32 bits, never the quantised one). A run
            that trained all weights has no adapter: its whole model is written either way.
        examples: test examples on which run and export are compared; 0: no comparison.
        remote_code: let code run that comes with the base.

    Raises:
        ModelError: the run trained nothing, or an encoder, or is an evaluation; or the folder is
            not empty.
        DataError: the run's data cannot be read for the comparison.
    """
    run = open_run(run_dir, remote_code)
    _check_trains(run)
    _check_empty(out)
    adapter, template = run.adapter, load_template(run.cfg.model)
    merged = merged or is_full_checkpoint(adapter)
    split = _test_split(run, template, examples) if examples else None
    before = None
    if split is not None:
        before = answer_all(load_run_model(run), split, template, run.cfg.generation)
    with _in_one_piece(out) as folder:
        model = _write_weights(run, adapter, folder, merged)
        _write_settings(run, template, folder, model)
        report = None
        if split is not None and before is not None:
            after = answer_all(_reload(run, folder, model), split, template, run.cfg.generation)
            dtype = dtype_name(model.dtype) if model is not None else "as trained"
            report = compare_answers(before, after, dtype, run.outcome.model.quantization)
        write_card(run, folder, merged, report)
    return Export(out, merged, report)


@contextmanager
def _in_one_piece(out: Path) -> Iterator[Path]:
    """Give a folder beside ``out`` that takes its place in the end, or is gone after an error."""
    out = out.resolve()
    building = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    building.mkdir(parents=True)
    try:
        yield building
        if out.exists():
            out.rmdir()
        building.rename(out)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _write_weights(run: FinishedRun, adapter: Path, folder: Path, merged: bool) -> Any | None:
    if not merged:
        _copy_adapter(adapter, folder)
        _name_base(folder / ADAPTER_CONFIG, run)
        return None
    model = merge(run)
    model.save_pretrained(folder, safe_serialization=True)
    return model


def _check_trains(run: FinishedRun) -> None:
    if run.cfg.model.family == "encoder":
        raise ModelError(
            f"{run.folder} trained an encoder, which is not exported: it lies in the run's folder "
            "adapter, with the answers of its head in classes.json."
        )
    if run.cfg.stage == "evaluate":
        origin = f"run={run.cfg.run}" if run.cfg.run else "the run that trained what it scored"
        raise ModelError(
            f"{run.folder} is an evaluation, which trained nothing itself. Export {origin}."
        )


def _check_empty(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ModelError(f"{out} is a file. Choose a folder with out=DIR.")
    if out.exists() and any(out.iterdir()):
        raise ModelError(f"{out} is not empty. Choose another folder with out=DIR, or remove it.")


def _test_split(run: FinishedRun, template: Template, examples: int) -> EncodedSplit:
    cfg = run.cfg
    positions = context_length(cfg.model)
    cache = Path(cfg.paths.cache)
    task = load_task(cfg.dataset, template, positions, cache, ("test",), dry_run=cfg.dry_run)
    return task.encoded["test"].first(examples)


def _copy_adapter(adapter: Path, out: Path) -> None:
    """Copy weights and settings, and nothing that a link names outside of the run."""
    for file in adapter.iterdir():
        if file.suffix in ADAPTER_FILES and file.is_file() and not file.is_symlink():
            shutil.copy2(file, out / file.name)


def _name_base(path: Path, run: FinishedRun) -> None:
    """Name the base in PEFT's config as others know it: PEFT wrote where it lay on this machine."""
    settings = read_json(path)
    if settings is None:
        raise ModelError(f"{run.adapter / ADAPTER_CONFIG} cannot be read: it is no JSON record.")
    settings["base_model_name_or_path"] = public_name(run.cfg.model.path)
    settings["revision"] = run.outcome.model.revision
    write_atomically(path, json.dumps(settings, indent=2) + "\n")


def _reload(run: FinishedRun, out: Path, merged: Any | None) -> Any:
    if merged is not None:
        return reload_plain(out, run.cfg.model.family, merged)
    return with_weights(run, load_run_base(run), out)


def _write_settings(run: FinishedRun, template: Template, out: Path, model: Any | None) -> None:
    """Write tokenizer, template and generation settings; the template's arguments belong to both
    training and inference."""
    tokenizer = template.tokenizer
    if template.source is not None:
        tokenizer.chat_template = template.source
    tokenizer.save_pretrained(out)
    generation = asdict(run.cfg.generation)
    settings = {
        "base_model": public_name(run.cfg.model.path),
        "base_revision": run.outcome.model.revision,
        "template_kwargs": dict(template.template_kwargs),
        "stop_token_ids": list(template.stop_ids),
        "generation": generation,
        "system": run.cfg.dataset.system,
        "prompt": run.cfg.dataset.prompt,
        "few_shot": run.cfg.dataset.few_shot,
        "run": run.outcome.run_id,
        "identity": run.outcome.identity,
    }
    write_atomically(out / SETTINGS, json.dumps(settings, indent=2, ensure_ascii=False))
    from transformers import GenerationConfig as HfGeneration

    sampling = generation if generation["do_sample"] else {}
    HfGeneration(
        max_new_tokens=generation["max_new_tokens"],
        do_sample=generation["do_sample"],
        eos_token_id=list(template.stop_ids),
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=_decoder_start(model),
        repetition_penalty=generation["repetition_penalty"],
        **{name: sampling[name] for name in ("temperature", "top_p", "top_k") if name in sampling},
    ).save_pretrained(out)


def _decoder_start(model: Any | None) -> int | None:
    """The token an encoder-decoder model's answers begin after; its file would say none else."""
    if model is None or not model.config.is_encoder_decoder:
        return None
    start: int | None = getattr(model.config, "decoder_start_token_id", None)
    return model.generation_config.decoder_start_token_id if start is None else start


def rehearse_export(cfg: RunConfig, run_dir: Path) -> None:
    """Write, reload and compare a release of a dry run; a real one is exported when asked for."""
    if not cfg.dry_run or not cfg.lora.trains or cfg.stage == "evaluate":
        return
    if cfg.model.family == "encoder":
        return
    done = export_run(run_dir, RunDir(run_dir).export, merged=cfg.lora.is_adapter, examples=2)
    log.info("Dry run: exported to %s.", done.folder)


def push(folder: Path, repo_id: str, private: bool = True, api: Any = None) -> str:
    """Upload an export to ``owner/name`` (``repo_id``) and return its address.

    Private weights are never pushed into an existing public repository. ``api`` is a
    ``huggingface_hub.HfApi`` (default: one with the stored login).

    Raises:
        ModelError: nobody is logged in, the hub is out of reach, or the repository is public.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = api or HfApi()
    try:
        api.whoami()
        try:
            exists, public = True, not api.model_info(repo_id).private
        except RepositoryNotFoundError:
            exists, public = False, False
        if private and exists and public:
            raise ModelError(
                f"push_to={repo_id} is an existing public repository and private=true. "
                "Name another repository, or say private=false to publish."
            )
        if not exists:
            api.create_repo(repo_id, private=private, repo_type="model")
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"push_to={repo_id} failed ({type(error).__name__}: {error}). Log in with "
            f"`hf auth login` and check the network; the export itself is in {folder}."
        ) from error
