"""Training and validation batches for Lightning, from loaders that go on where they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from sizewise.data.batches.collate import collate_training
from sizewise.data.batches.plan import MicroBatch, cut_smaller, plan_epoch, plan_in_order
from sizewise.data.tokens.encode import EncodedSplit
from sizewise.data.tokens.table import Encoded, table_of
from sizewise.errors import DataError


class SizewiseDataModule(pl.LightningDataModule):
    """Micro-batches of a training and a validation split (which may be empty).

    The plan divides examples among ranks itself: the Trainer has to be given
    ``use_distributed_sampler=False``. Every batch carries ``step_tokens``, the answer tokens of
    its whole optimiser step (validation: of the batch). ``batch_size`` counts the examples of a
    micro-batch on one device; ``eval_batch_size`` None means the same.

    Raises:
        DataError: there is nothing to train on.
    """

    def __init__(
        self,
        train: EncodedSplit,
        validation: EncodedSplit,
        *,
        batch_size: int,
        accumulate: int = 1,
        eval_batch_size: int | None = None,
        length_grouping: bool = True,
        seed: int = 0,
        pad_token_id: int = 0,
        collate: Collate = collate_training,
    ) -> None:
        super().__init__()
        if not len(train):
            raise DataError("The training split is empty: there is nothing to train on.")
        self.train = train
        self.validation = validation
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.micro_batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.length_grouping = length_grouping
        self.seed = seed
        self.pad_token_id = pad_token_id
        self._collate = collate

    def set_batch_shape(self, batch_size: int, accumulate: int) -> None:
        """Cut the same optimiser steps into smaller micro-batches (after memory ran out).

        Raises:
            DataError: the effective batch would not be the same.
        """
        if batch_size * accumulate != self.batch_size * self.accumulate:
            raise DataError(
                f"{batch_size} x {accumulate} examples a step are not the planned "
                f"{self.batch_size} x {self.accumulate}."
            )
        self.micro_batch_size = batch_size

    def train_plan(self, epoch: int) -> list[MicroBatch]:
        rank, world = self._place()
        plan = plan_epoch(
            *_lengths(self.train),
            self.batch_size,
            self.accumulate,
            seed=self.seed,
            epoch=epoch,
            rank=rank,
            world=world,
            length_grouping=self.length_grouping,
        )
        return cut_smaller(plan, self.micro_batch_size)

    def validation_plan(self, epoch: int) -> list[MicroBatch]:
        """Plan one pass over this rank's share of validation; the same in every epoch."""
        rank, world = self._place()
        size = self.eval_batch_size
        return plan_in_order(*_lengths(self.validation), size, rank=rank, world=world)

    def train_dataloader(self) -> ResumableLoader:
        return self._loader(self.train, self.train_plan)

    def val_dataloader(self) -> ResumableLoader | list[ResumableLoader]:
        return self._loader(self.validation, self.validation_plan) if len(self.validation) else []

    def _loader(self, split: EncodedSplit, plan: Plan) -> ResumableLoader:
        rows = MicroBatches(split.encoded, self._collate, self.pad_token_id)
        trainer = self.trainer
        on_gpu = trainer is not None and trainer.strategy.root_device.type == "cuda"
        return ResumableLoader(rows, plan, len(plan(0)), pin_memory=on_gpu)

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)


def _lengths(split: EncodedSplit) -> tuple[list[int], list[int]]:
    table = table_of(split.encoded)
    answers = table.answer_lengths
    return (table.prompt_lengths + answers).tolist(), answers.tolist()


Plan = Callable[[int], list[MicroBatch]]
Collate = Callable[[Sequence[Encoded], int, int], dict[str, Any]]
"""Makes a batch of examples, the id to pad with and the answer tokens of the step; see
``batches.collate`` for what belongs into one."""


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

    ``pin_memory``: in host memory from which a GPU copies while the host goes on.
    """

    def __init__(
        self, dataset: MicroBatches, plan: Plan, length: int, pin_memory: bool = False
    ) -> None:
        super().__init__(
            dataset,
            batch_size=None,
            sampler=PlannedSampler(plan, length),
            generator=torch.Generator().manual_seed(0),
            pin_memory=pin_memory,
        )
        self._position = 0
        self._resume: tuple[int, int] | None = None

    @property
    def planned(self) -> PlannedSampler:
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
        return {"epoch": self.planned.epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.planned.set_epoch(state["epoch"])
        self._resume = (state["epoch"], state["position"])
        self._position = state["position"]
