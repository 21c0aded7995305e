"""Candidate answers: which there are, which is chosen in each reading, and their calibration."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sizewise.config.model import ModelConfig
from sizewise.data.example import Example, Message
from sizewise.data.tokens.reasoning import answer_of
from sizewise.data.tokens.template import Template
from sizewise.devices import BatchSize, halve_on_oom
from sizewise.errors import ConfigError
from sizewise.evaluation.beginning import Beginning
from sizewise.evaluation.candidates import Scored, Trie, build_trie, score_candidates
from sizewise.evaluation.prompts import Prompts, open_prompts
from sizewise.metrics.base import ExampleMetric
from sizewise.models.adapter.merged import merged
from sizewise.models.likelihood import plan_batches
from sizewise.record.predictions import Prediction

AUTO_LIMIT = 512
"""Different training answers beyond which ``evaluation.candidates=auto`` compares none."""
PRIOR_PROMPTS = 256
"""Validation prompts that a prior is taken over: its error is then far below what it corrects."""


@dataclass(frozen=True)
class CandidateSet:
    """Candidate answers as texts and as one tree of their tokens.

    Attributes:
        texts: the candidates.
        trie: the tree.
        prior: mean log-probability of each over other prompts of the task; None: not known.
        read: what was read behind those prompts, by their tokens.
    """

    texts: tuple[str, ...]
    trie: Trie
    prior: tuple[float, ...] | None = None
    read: Mapping[tuple[int, ...], Scored] = field(default_factory=dict)

    def behind(self, prompts: Prompts, stops: Sequence[int] | None = None) -> Scored:
        """Read all candidates behind each prompt, but where the prior has read them already."""
        found = [self.read.get(tuple(ids)) for ids in prompts.ids]
        lacking = [ids for ids, known in zip(prompts.ids, found, strict=True) if known is None]
        if len(lacking) == len(found):
            return score_candidates(prompts, self.trie, stops)
        if lacking:
            padding = int(prompts.tokens[0, 0])
            part = open_prompts(prompts.model, lacking, padding, prompts.beginning)
            new = iter(score_candidates(part, self.trie, stops).rows())
            found = [next(new) if known is None else known for known in found]
        return Scored.joined([row for row in found if row is not None])

    @property
    def lengths(self) -> list[int]:
        """Tokens of each candidate, end of turn included."""
        return [int(depth) for depth in self.trie.depths[self.trie.ends]]

    @cached_property
    def places(self) -> dict[tuple[int, ...], int]:
        """Position of each candidate by its tokens."""
        return {tuple(tokens): i for i, tokens in enumerate(self.trie.sequences())}


def read_candidates(
    choice: str, train_examples: Sequence[Example], all_examples: Iterable[Example] = ()
) -> tuple[str, ...]:
    """Return candidate answers, without reasoning: ``train``, ``labels``, or a file's lines.

    Args:
        choice: ``train`` (all different training answers), ``labels`` (those of all splits: the
            closed list of a task's labels, which never says whose label it is), or a file.
        train_examples: the training split.
        all_examples: the examples of all splits.

    Raises:
        ConfigError: the file cannot be read, or there is no candidate.
    """
    if choice == "train":
        texts = sorted({answer_of(example.answer) for example in train_examples} - {""})
    elif choice == "labels":
        every = chain(train_examples, all_examples)
        texts = sorted({answer_of(example.answer) for example in every} - {""})
    else:
        texts = _lines(choice)
    if not texts:
        raise ConfigError(f"evaluation.candidates={choice!r} gives no candidate answer.")
    return tuple(texts)


def automatic_choice(
    metrics: Sequence[ExampleMetric], train_examples: Sequence[Example], model: ModelConfig
) -> tuple[str | None, str | None]:
    """Return what ``evaluation.candidates=auto`` means, and what a reader has to know of it.

    Metrics on closed answer sets get the training answers, unless these are too many to be a closed
    set or the model cannot score them.
    """
    if not any(metric.closed or metric.needs_candidates for metric in metrics):
        return None, None
    unable = cannot_score(model)
    if unable is not None:
        return None, f"No answers by likelihood: {unable}."
    count = len({answer_of(example.answer) for example in train_examples})
    if count <= AUTO_LIMIT or any(metric.needs_candidates for metric in metrics):
        return "train", None
    return None, (
        f"No answers by likelihood: training has {count} different answers, and by itself no more "
        f"than {AUTO_LIMIT} are compared. Set evaluation.candidates=train to compare them all."
    )


def cannot_score(model: ModelConfig) -> str | None:
    """Return why a model does not score candidates; None where it does."""
    if model.family == "seq2seq" or model.attn_implementation in ("sdpa", "eager"):
        return None
    return f"candidates need model.attn_implementation=sdpa, not {model.attn_implementation}"


def _lines(choice: str) -> list[str]:
    try:
        lines = Path(choice).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"evaluation.candidates={choice!r} is neither `auto`, `train` nor `labels` nor a "
            f"readable file of UTF-8 text: {error}"
        ) from error
    return sorted({line.strip() for line in lines if line.strip()})


def encode_candidates(
    texts: Sequence[str],
    template: Template,
    messages: Sequence[Message],
    prior: Sequence[float] | None = None,
) -> CandidateSet:
    """Encode candidates as answers to ``messages`` (of any example) and merge them to a tree."""
    ids = [template.answer_ids(messages, text) for text in texts]
    return CandidateSet(tuple(texts), build_trie(ids), None if prior is None else tuple(prior))


@dataclass(frozen=True)
class ChosenCandidate:
    """The best candidate of one prompt in each reading, by its position among the candidates.

    Attributes:
        index: the most likely one, by the natural-log probability of its tokens.
        probability: its share of the probability of all candidates.
        per_token: the most likely one by the mean per token (Brown et al. 2020): a sum favours
            short answers.
        calibrated: the one that gains most on its prior; None without a prior.
    """

    index: int
    probability: float
    per_token: int
    calibrated: int | None = None

    def named(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return the fields of a ``Prediction`` that hold the choice."""
        return {
            "candidate": texts[self.index],
            "candidate_probability": self.probability,
            "candidate_per_token": texts[self.per_token],
            "candidate_calibrated": None if self.calibrated is None else texts[self.calibrated],
        }


def choose(
    log_probs_BC: Tensor, lengths_C: Sequence[int], prior_C: Sequence[float] | None = None
) -> list[ChosenCandidate]:
    """Return the best candidates of each row; the first one of equals.

    Args:
        log_probs_BC: summed natural-log probabilities.
        lengths_C: tokens of each candidate.
        prior_C: see ``calibrated``.
    """
    shares_B = log_probs_BC.softmax(-1).amax(-1)
    mean_B = (log_probs_BC / log_probs_BC.new_tensor(lengths_C)).argmax(-1)
    best = zip(log_probs_BC.argmax(-1).tolist(), shares_B.tolist(), mean_B.tolist(), strict=True)
    if prior_C is None:
        return [ChosenCandidate(*row) for row in best]
    gained_B = (log_probs_BC - log_probs_BC.new_tensor(prior_C)).argmax(-1).tolist()
    return [ChosenCandidate(*row, gained) for row, gained in zip(best, gained_B, strict=True)]


def calibrated(
    model: Any,
    candidates: CandidateSet,
    prompt_ids: Sequence[Sequence[int]],
    batch_size: int,
    padding: int = 0,
    stops: Sequence[int] | None = None,
) -> CandidateSet:
    """Return the candidates with their prior: the mean log-probability of each over prompts.

    What a model writes whatever it is asked is no knowledge. Batch calibration (Zhou et al. 2024,
    arXiv 2309.17249) takes that from the task's own unlabelled prompts, so that it needs neither a
    made-up content-free prompt (Zhao et al. 2021, arXiv 2102.09690) nor a choice of the domain's
    bare premise (PMI: Holtzman et al. 2021, arXiv 2104.08315). Of many prompts ``PRIOR_PROMPTS``
    are taken at even distances; where memory runs out the batch is halved. What was read behind
    them is kept (``CandidateSet.read``): the same prompts are answered next.

    Args:
        model: who reads; an adapter is merged meanwhile, as for answering.
        candidates: those to calibrate.
        prompt_ids: encoded prompts of the task.
        batch_size: prompts at once.
        padding: a valid token id.
        stops: as of ``score_candidates``.
    """
    step = max(1, -(-len(prompt_ids) // PRIOR_PROMPTS))
    prompts = list(prompt_ids[::step])
    batches = plan_batches([len(prompt) for prompt in prompts], batch_size)
    read: dict[tuple[int, ...], Scored] = {}
    total_C = torch.zeros(len(candidates.texts), dtype=torch.float64)
    beginning = Beginning.of(model, prompts)

    def score(batch: Sequence[int]) -> Scored:
        asked = open_prompts(model, [prompts[i] for i in batch], padding, beginning)
        return score_candidates(asked, candidates.trie, stops)

    with merged(model):
        for batch, scored in halve_on_oom(batches, BatchSize(batch_size), score):
            total_C += scored.log_probs.sum(0)
            rows = zip(batch, scored.rows(), strict=True)
            read |= {tuple(prompts[i]): row for i, row in rows}
    prior = tuple((total_C / len(prompts)).tolist())
    return replace(candidates, prior=prior, read=read)


def as_candidate(prediction: Prediction, calibrated: bool) -> Prediction:
    """Return the answer of a classifier as the candidate that it chose, in every reading.

    Args:
        prediction: its class is the text, with the class's probability.
        calibrated: whether language models have a calibrated reading beside it.
    """
    return replace(
        prediction,
        candidate=prediction.text,
        candidate_probability=math.exp(prediction.token_log_prob or 0.0),
        candidate_per_token=prediction.text,
        candidate_calibrated=prediction.text if calibrated else None,
    )
