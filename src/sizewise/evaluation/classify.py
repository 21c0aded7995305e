"""One batch of examples through a fine-tuned encoder: the most probable class is the answer."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from sizewise.data.batches.collate import collate_classes, on_device, pad_with_mask
from sizewise.data.example import Example
from sizewise.data.tokens.table import Encoded
from sizewise.devices import BatchSize, device_of, evaluating, halve_on_oom, synchronize
from sizewise.evaluation.answer import of_example
from sizewise.models.encoder import class_logits
from sizewise.models.likelihood import plan_batches
from sizewise.record.predictions import Prediction


@dataclass(frozen=True)
class Classifier:
    """Turns examples into predictions.

    Attributes:
        model: an encoder with its head, in any mode.
        classes: the answer that each row of the head stands for.
        padding: the id to pad with.
    """

    model: Any
    classes: tuple[str, ...]
    padding: int

    def __call__(self, examples: Sequence[Example], encoded: Sequence[Encoded]) -> list[Prediction]:
        """Answer one batch; the answer is the candidate, too, with its probability.

        There are no answer tokens, and no likelihood of a reference in the sense of a text.
        """
        device = device_of(self.model)
        rows = [item.prompt_ids for item in encoded]
        tokens_BT, mask_BT = pad_with_mask(rows, self.padding, left=False, device=device)
        batch = {"input_ids": tokens_BT, "attention_mask": mask_BT}
        with evaluating(self.model):
            synchronize(device)
            started = time.perf_counter()
            logits_BC = class_logits(self.model, batch)
            best_B = torch.log_softmax(logits_BC.float(), dim=-1).max(dim=-1)
            synchronize(device)
            seconds = time.perf_counter() - started
        chosen = zip(best_B.indices.tolist(), best_B.values.tolist(), strict=True)
        return [
            self._prediction(example, item, *choice, seconds, len(examples))
            for example, item, choice in zip(examples, encoded, chosen, strict=True)
        ]

    def _prediction(
        self, e: Example, item: Encoded, number: int, log_prob: float, seconds: float, size: int
    ) -> Prediction:
        return Prediction(
            **of_example(e),
            text=self.classes[number],
            log_prob=float("nan"),
            answer_tokens=1,
            prompt_tokens=len(item.prompt_ids),
            new_tokens=0,
            finished=True,
            latency=seconds,
            batch_size=size,
            token_log_prob=log_prob,
            candidate=self.classes[number],
            candidate_probability=math.exp(log_prob),
        )


def mean_nll(model: Any, encoded: Sequence[Encoded], batch_size: int, padding: int) -> float:
    """Return the mean negative log-probability (nats) of the right class.

    Args:
        model: an encoder with its head.
        encoded: texts, each with the number of its class.
        batch_size: texts at once; fewer where memory does not suffice.
        padding: the id to pad with.

    Raises:
        OutOfMemoryError: a single text did not fit.
    """
    device = device_of(model)

    def summed(batch: Sequence[int]) -> float:
        items = [encoded[i] for i in batch]
        inputs = on_device(collate_classes(items, padding, len(items)), device)
        with evaluating(model):
            logits_BC = class_logits(model, inputs).float()
            return float(cross_entropy(logits_BC, inputs["labels"], reduction="sum"))

    batches = plan_batches([len(item.prompt_ids) for item in encoded], batch_size)
    sizes = BatchSize(batch_size, "one single text was classified")
    return sum(total for _, total in halve_on_oom(batches, sizes, summed)) / len(encoded)
