"""One set of weights out of base and adapter, with the difference this makes, measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sizewise.config import GenerationConfig
from sizewise.data.tokens.encode import EncodedSplit
from sizewise.data.tokens.template import Template
from sizewise.errors import ModelError
from sizewise.evaluation.generate import generate_batch
from sizewise.evaluation.text import pad_id
from sizewise.models.adapter import full
from sizewise.models.adapter.wrapping import is_adapted
from sizewise.models.likelihood import answer_log_probs
from sizewise.release.generate import FinishedRun, load_run_model

BATCH = 8


@dataclass(frozen=True)
class ModelAnswers:
    """What a model says to some examples: greedy ``texts``, and ``nll``, the mean negative
    log-likelihood per token of the reference answers in nats.
    """

    texts: tuple[str, ...]
    nll: float


@dataclass(frozen=True)
class MergeReport:
    """The run's model against the exported one, on the same test examples.

    ``equal_texts`` counts equal greedy answers of ``examples``; ``nll_before`` and ``nll_after``
    are nats per answer token; ``base_dtype`` is what the adapter was merged into.
    """

    examples: int
    equal_texts: int
    nll_before: float
    nll_after: float
    base_dtype: str
    trained_on: str


def merge(run: FinishedRun) -> Any:
    """Merge the adapter into the base, never a quantised one; ModelError if nothing was trained."""
    model = load_run_model(run, quantized=False)
    if full.is_full(model):
        return model
    if not is_adapted(model):
        raise ModelError(f"{run.folder} trained nothing (lora=none): there is nothing to merge.")
    merged = model.merge_and_unload(safe_merge=True)
    merged.config.use_cache = True
    return merged.eval()


def answer_all(
    model: Any, split: EncodedSplit, template: Template, generation: GenerationConfig
) -> ModelAnswers:
    """Ask a model every example of a split; greedy, however the run decoded."""
    encoded, greedy = split.encoded, replace(generation, do_sample=False)
    texts = [
        answer.text
        for start in range(0, len(encoded), BATCH)
        for answer in generate_batch(
            model, [e.prompt_ids for e in encoded[start : start + BATCH]], template, greedy
        )
    ]
    total = -sum(answer_log_probs(model, encoded, BATCH, pad_id(template)))
    return ModelAnswers(tuple(texts), total / sum(len(e.answer_ids) for e in encoded))


def compare_answers(
    before: ModelAnswers, after: ModelAnswers, base_dtype: str, trained_on: str
) -> MergeReport:
    equal = sum(a == b for a, b in zip(before.texts, after.texts, strict=True))
    return MergeReport(len(before.texts), equal, before.nll, after.nll, base_dtype, trained_on)


def reload_plain(folder: Path, family: str, like: Any) -> Any:
    """Load an exported model with plain transformers, as anybody would."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    auto = AutoModelForSeq2SeqLM if family == "seq2seq" else AutoModelForCausalLM
    return auto.from_pretrained(folder, dtype=like.dtype).to(like.device).eval()
