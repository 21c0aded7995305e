"""A DataLoader that says where it is and goes on from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from sizewise.data.batching import MicroBatch
from sizewise.data.encode import Encoded

Plan = Callable[[int], list[MicroBatch]]
Collate = Callable[[Sequence[Encoded], int, int], dict[str, Any]]


class MicroBatches(Dataset[dict[str, Any]]):
    """Gives the collated tensors of a micro-batch; its index is the micro-batch itself."""

    def __init__(self, encoded: Sequence[Encoded], collate: Collate, pad_token_id: int) -> None:
        self._encoded = encoded
        self._collate = collate
        self._pad = pad_token_id

    def __getitem__(self, batch: MicroBatch) -> dict[str, Any]:
        items = [self._encoded[index] for index in batch.indices]
        return self._collate(items, self._pad, batch.step_tokens)


class PlannedSampler(Sampler[MicroBatch]):
    """Yields an epoch's micro-batches from ``start`` on; the plan depends on the epoch alone."""

    def __init__(self, plan: Plan, length: int) -> None:
        self._plan = plan
        self._length = length
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[MicroBatch]:
        return iter(self._plan(self.epoch)[self.start :])

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each."""
        self.epoch = epoch


class ResumableLoader(DataLoader[dict[str, Any]]):
    """Loads micro-batches of a plan; its state is {epoch, position}, which Lightning stores.

    After ``load_state_dict`` the next pass over that same epoch begins at the stored position;
    a pass over another epoch begins at its start. ``len`` is always that of a whole epoch. It has
    its own generator, so that iterating does not touch the global random state.

    Args:
        dataset: micro-batches by plan.
        plan: micro-batches of an epoch, by its number.
        length: number of micro-batches of an epoch.
    """

    def __init__(self, dataset: MicroBatches, plan: Plan, length: int) -> None:
        super().__init__(
            dataset,
            batch_size=None,
            sampler=PlannedSampler(plan, length),
            generator=torch.Generator().manual_seed(0),
        )
        self._position = 0
        self._resume: tuple[int, int] | None = None

    @property
    def planned(self) -> PlannedSampler:
        """The sampler, by its own type."""
        sampler = self.sampler
        assert isinstance(sampler, PlannedSampler)
        return sampler

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch = self.planned.epoch
        resume, self._resume = self._resume, None
        at = resume[1] if resume is not None and resume[0] == epoch else 0
        self._position = self.planned.start = at if at < len(self) else 0
        for batch in super().__iter__():
            self._position += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its micro-batches were handed out."""
        return {"epoch": self.planned.epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a stored state."""
        self.planned.set_epoch(state["epoch"])
        self._resume = (state["epoch"], state["position"])
        self._position = state["position"]
