"""Answers of a base and its adapter by a server of this machine, once it has shown its parity."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from sizewise.config import RunConfig
from sizewise.config.data import SplitName
from sizewise.config.endpoint import EndpointConfig
from sizewise.data.tokens.encode import EncodedSplit
from sizewise.data.tokens.template import Template
from sizewise.devices import BatchSize, halve_on_oom
from sizewise.errors import ConfigError, EvaluationError
from sizewise.evaluation.endpoint import ask_all, client_of
from sizewise.evaluation.engine import (
    PARITY_EXAMPLES,
    Engine,
    TokenServer,
    check_parity,
    command_line,
    engine_up,
    server_key,
)
from sizewise.evaluation.generate import Generated, generate_batch
from sizewise.evaluation.predict import Predicted, evaluation_bar
from sizewise.files import hash_text, write_atomically
from sizewise.job.data import PreparedJob, Task
from sizewise.models.adapter.attach import adapter_folder
from sizewise.models.adapter.merged import merged
from sizewise.models.sources import find_source
from sizewise.record.directories import RunDir
from sizewise.record.predictions import Prediction, PredictionStore
from sizewise.record.spending import Ledger

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def check_served(cfg: RunConfig) -> None:
    """Refuse what a server does not answer as transformers does, and a missing key.

    Raises:
        ConfigError: the message names the keys.
    """
    server, generation, candidates = (
        cfg.evaluation.server,
        cfg.generation,
        cfg.evaluation.candidates,
    )
    if (server.base_url is None) == (server.command is None):
        raise ConfigError(
            "evaluation.engine=server needs either evaluation.server.base_url, the address of a "
            "server that runs, or evaluation.server.command, which starts one."
        )
    if server.command is not None:
        command_line(server.command, "base", Path("adapter"), 1)
    server_key(server)
    refused = {
        "generation.do_sample=true": generation.do_sample,
        f"evaluation.candidates={candidates}": candidates not in (None, "auto"),
        f"model.init={cfg.model.init}": cfg.model.init != "pretrained",
        f"model.family={cfg.model.family}": cfg.model.family != "causal",
        f"lora={cfg.lora.method}": cfg.lora.method in ("full", "dora"),
        f"lora.modules_to_save={cfg.lora.modules_to_save}": bool(cfg.lora.modules_to_save),
        f"model.added_tokens={cfg.model.added_tokens}": bool(cfg.model.added_tokens),
    }
    wrong = [key for key, found in refused.items() if found]
    if wrong:
        raise ConfigError(
            f"evaluation.engine=server with {', '.join(wrong)}: servers answer greedily with LoRA "
            "adapters of causal models. Leave evaluation.engine out, or that."
        )


def answer_served(
    model: PreTrainedModel | PeftModel,
    template: Template,
    untouched: bool,
    job: PreparedJob,
    task: Task,
    split: SplitName,
    store: PredictionStore,
) -> Predicted:
    """Let the server answer a split, after 64 of its answers were compared with those of ``model``.

    The 64 are asked anew at every start. Answers of another server, or from before one that failed,
    are not kept.

    Raises:
        EvaluationError: there is no server, or fewer than 99.5 % of them are equal.
    """
    encoded = task.encoded[split]
    compared = _first(encoded, PARITY_EXAMPLES)
    with merged(model):
        local = _greedy(model, template, compared, job)
    engine = _engine(job, untouched)
    _keep_only_answers_of(engine, job, store)
    server = _server(engine, template, encoded, job)
    held = {row.id for row in store.read()}
    started = time.perf_counter()
    try:
        parity, first = _parity(server, compared, local, task.name, store)
        store.append(row for row in first if row.id not in held)
        with evaluation_bar(store.path.stem, job.cfg.trainer.progress_bar) as progress:
            found = ask_all(server, encoded.examples, store, progress)
    finally:
        server.client.close()
    seconds = None if held else time.perf_counter() - started
    return dataclasses.replace(found, seconds=seconds, observed=parity)


def _keep_only_answers_of(engine: Engine, job: PreparedJob, store: PredictionStore) -> None:
    """Empty ``store`` unless this server and model gave its answers; a side-car says who did."""
    options = job.cfg.evaluation.server
    who = hash_text(repr((options.base_url, options.command, engine.model)), 16)
    path = store.path.with_name(f"{store.path.name}.server")
    if path.is_file() and path.read_text(encoding="utf-8") == who:
        return
    store.empty()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, who)


def _parity(
    server: TokenServer,
    compared: EncodedSplit,
    local: Sequence[str],
    name: str,
    store: PredictionStore,
) -> tuple[dict[str, float], list[Prediction]]:
    """Compare answers that are asked for now with ``local``; if they fail, ``store`` is emptied.

    Returns:
        What ``check_parity`` does, and the answers, one for each example.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked = PredictionStore(Path(folder) / store.path.name, store.key)
        first = ask_all(server, compared.examples, asked).predictions
    try:
        return check_parity(name, local, first), list({row.id: row for row in first}.values())
    except EvaluationError:
        store.empty()
        raise


def _first(split: EncodedSplit, count: int) -> EncodedSplit:
    return dataclasses.replace(
        split, encoded=split.encoded[:count], examples=split.examples[:count]
    )


def _greedy(
    model: PreTrainedModel | PeftModel, template: Template, split: EncodedSplit, job: PreparedJob
) -> list[str]:
    """Return transformers' own answers."""

    def answer(batch: Sequence[int]) -> list[Generated]:
        prompts = [split.encoded[i].prompt_ids for i in batch]
        return generate_batch(model, prompts, template, job.cfg.generation)

    answered = halve_on_oom([range(len(split.encoded))], BatchSize(job.eval_batch_size), answer)
    return [each.text for _, answers in answered for each in answers]


def _server(
    engine: Engine, template: Template, split: EncodedSplit, job: PreparedJob
) -> TokenServer:
    options = job.cfg.evaluation.server
    asked = EndpointConfig(concurrency=options.concurrency, timeout=options.timeout)
    client = client_of(engine.at.url, engine.at.key, options.timeout)
    prompts: dict[str, Sequence[int]] = {
        example.id: item.prompt_ids
        for example, item in zip(split.examples, split.encoded, strict=True)
    }
    return TokenServer(
        client, engine.model, job.cfg.generation, asked,
        Ledger(RunDir(job.run_dir).spending, asked.prices, None), lambda: None, template, prompts,
    )  # fmt: skip


_open: dict[str, tuple[ExitStack, Engine]] = {}


def _engine(job: PreparedJob, untouched: bool) -> Engine:
    """Return the server of a job: the one that is up for the same base and adapter, or another."""
    cfg = job.cfg
    place = find_source(cfg.model.path, cfg.model.revision).place
    adapter = None if untouched else _adapter_of(job)
    key = repr((cfg.evaluation.server, place, adapter))
    if key not in _open:
        close_engine()
        stack, log_file = ExitStack(), job.run_dir / "server.log"
        engine = stack.enter_context(engine_up(cfg.evaluation.server, place, adapter, log_file))
        _open[key] = (stack, engine)
    return _open[key][1]


def _adapter_of(job: PreparedJob) -> Path:
    if job.cfg.stage == "evaluate":
        return adapter_folder(str(job.cfg.adapter))
    return RunDir(job.run_dir).adapter


def close_engine() -> None:
    """End the server that is up, or take the adapter from it; nothing where there is none."""
    while _open:
        _, (stack, _) = _open.popitem()
        stack.close()
