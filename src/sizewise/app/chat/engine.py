"""A base in memory with the adapters of several runs, and answers token by token."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import StoppingCriteria

from sizewise.config import GenerationConfig, ModelConfig, QuantizationConfig, TrainerConfig
from sizewise.data.example import Message
from sizewise.data.tokens.template import Template
from sizewise.errors import ModelError
from sizewise.evaluation.generate import Generated, generate_batch
from sizewise.evaluation.text import decode_answer, opened_thought
from sizewise.models.adapter import full
from sizewise.models.adapter.attach import (
    adapter_folder,
    cast_adapter,
    load_adapter,
    read_adapter,
)
from sizewise.models.adapter.wrapping import base_of, base_only, is_adapted
from sizewise.models.base import load_base
from sizewise.models.tokenizer import load_template
from sizewise.release.generate import fit_history

CPU = torch.device("cpu")
GLANCE_SECONDS = 0.1


@dataclass(frozen=True)
class Reply:
    """An answer on its way: ``pieces`` yield the text so far; ``left_out`` messages did not fit."""

    pieces: Generator[str, None, None]
    left_out: int


class Engine:
    """One base that answers with or without adapters."""

    def __init__(
        self, model: ModelConfig, quantization: QuantizationConfig, device: torch.device = CPU
    ) -> None:
        self.template = load_template(model)
        self.model: Any = load_base(model, quantization, device)
        self._names: dict[str, str] = {}
        # One model answers one prompt at a time, whoever asks in whichever browser.
        self._lock = threading.Lock()

    def add(self, folder: Path | str, trainer: TrainerConfig | None = None) -> None:
        """Load an adapter beside those that are there; one that is there already is kept.

        Args:
            folder: the adapter.
            trainer: what trained it: its weights get the dtype in which they were scored.

        Raises:
            ModelError: it does not fit the base, or is a fully trained model and not the first.
        """
        key = str(folder)
        if key in self._names:  # without a wait for the answer on its way
            return
        with self._lock:
            if key in self._names:
                return
            if not is_adapted(self.model) and not full.is_full(self.model):
                self.model = load_adapter(self.model, folder)
                self._named(key, "default", trainer)
                return
            if full.is_full(self.model) or full.is_full_checkpoint(adapter_folder(folder)):
                raise ModelError("A fully trained model needs an engine of its own.")
            name = f"adapter{len(self._names)}"
            add_adapter(self.model, adapter_folder(folder), name)
            self._named(key, name, trainer)

    def _named(self, key: str, name: str, trainer: TrainerConfig | None) -> None:
        if trainer is not None:
            cast_adapter(self.model, trainer, name)
        self._names[key] = name

    def reply(
        self,
        adapter: Path | str | None,
        messages: Sequence[Message],
        generation: GenerationConfig,
    ) -> Reply:
        """Answer a conversation: an optional system turn, then turns that end with a user turn.

        Args:
            adapter: a folder that was added; None: the base alone.

        Raises:
            EvaluationError: the last message is too long for the model.
        """
        limit = None
        if self.context is not None:
            limit = max(1, self.context - generation.max_new_tokens)
        ids, left_out = fit_history(messages, self.template, limit)

        def generate(watcher: Watcher) -> Generated:
            with self._alone(watcher.stop), self._speaking(adapter):
                return generate_batch(
                    self.model, [ids], self.template, generation, stopping=watcher
                )[0]

        seq2seq = bool(base_of(self.model).config.is_encoder_decoder)
        length = 1 if seq2seq else len(ids)
        opened = opened_thought(self.template.tokenizer, ids)
        return Reply(stream_answer(generate, self.template, length, opened), left_out)

    @property
    def context(self) -> int | None:
        """Positions of the base, or what the tokenizer names; None where there is no bound."""
        config = base_of(self.model).config
        if config.is_encoder_decoder:
            return None
        text = config.get_text_config()
        known = (getattr(text, "max_position_embeddings", None), self.template.context)
        return min((n for n in known if n is not None), default=None)

    @contextmanager
    def _alone(self, stop: threading.Event) -> Iterator[None]:
        """Wait until no other answer is on its way; ModelError once ``stop`` is set."""
        while not self._lock.acquire(timeout=GLANCE_SECONDS):
            if stop.is_set():
                raise ModelError("This answer was stopped before it began.")
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def _speaking(self, adapter: Path | str | None) -> Iterator[None]:
        if adapter is None:
            with base_only(self.model):
                yield
            return
        if is_adapted(self.model):
            self.model.set_adapter(self._names[str(adapter)])
        yield


def add_adapter(model: Any, folder: Path, name: str) -> None:
    """Load a PEFT adapter under ``name`` beside the first; ModelError unless all weights fit."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    config, weights = read_adapter(folder)
    config.inference_mode = True
    model.add_adapter(name, config)
    expected = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    odd = {key for key in expected.keys() ^ weights.keys()}
    odd |= {k for k in expected.keys() & weights.keys() if expected[k].shape != weights[k].shape}
    if odd:
        model.delete_adapter(name)
        raise ModelError(
            f"The adapter in {str(folder)!r} does not fit this base: {len(odd)} weights are "
            f"missing, left over or of another shape (for example {min(odd)})."
        )
    set_peft_model_state_dict(model, weights, adapter_name=name)
    model.eval()


class Watcher(StoppingCriteria):
    """Passes every new token on, and ends the answer when it is told to.

    Args:
        prompt_length: ids at the start of the sequence that belong to the prompt.
        tell: called with all new ids after each of them.
    """

    def __init__(self, prompt_length: int, tell: Callable[[list[int]], None]) -> None:
        self.prompt_length = prompt_length
        self.tell = tell
        self.stop = threading.Event()

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        self.tell(input_ids[0, self.prompt_length :].tolist())
        return torch.full(
            (input_ids.shape[0],), self.stop.is_set(), device=input_ids.device, dtype=torch.bool
        )


Generate = Callable[[Watcher], Generated]


def stream_answer(
    generate: Generate, template: Template, prompt_length: int, opened: str = ""
) -> Generator[str, None, None]:
    """Yield the answer so far after every token; the last value is the whole answer.

    While nothing comes it is yielded again every ``GLANCE_SECONDS``, so that a consumer can end it.

    The model runs in a thread of its own. A consumer that closes the generator ends it; a page
    that is closed does not, because a ``Writer`` reads on without it.
    Whatever ``generate`` raises is raised here.

    Args:
        generate: makes the answer; gets the criteria to pass on.
        prompt_length: ids before the answer (1 for an encoder-decoder model).
        opened: the tag of a thought that the prompt ends in.
    """
    items: queue.Queue[list[int] | Generated | BaseException] = queue.Queue()
    watcher = Watcher(prompt_length, items.put)

    def work() -> None:
        try:
            items.put(generate(watcher))
        except BaseException as error:
            items.put(error)

    thread = threading.Thread(target=work, name="answer", daemon=True)
    thread.start()
    text = ""
    try:
        while True:
            try:
                item = items.get(timeout=GLANCE_SECONDS)
            except queue.Empty:
                yield text
                continue
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, Generated):
                yield item.text
                return
            text = whole_characters(decode_answer(template, item, opened))
            yield text
    finally:
        watcher.stop.set()
        thread.join()


def whole_characters(text: str) -> str:
    """Leave out a last character of which only some bytes are there yet."""
    return text.rstrip("\ufffd")
