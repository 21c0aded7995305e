"""Training and validation batches for Lightning."""

from __future__ import annotations

import pytorch_lightning as pl

from sizewise.data.batching import MicroBatch, cut_smaller, plan_epoch, plan_in_order
from sizewise.data.collate import collate_training
from sizewise.data.encode import EncodedSplit
from sizewise.data.loader import Collate, MicroBatches, ResumableLoader
from sizewise.errors import DataError


class SizewiseDataModule(pl.LightningDataModule):
    """Micro-batches of a training and a validation split.

    The plan divides examples among ranks itself: the Trainer has to be given
    ``use_distributed_sampler=False``. Every batch carries ``step_tokens``, the answer tokens of
    its whole optimiser step (validation: of the batch).

    Args:
        train: what to learn.
        validation: what to select by; may be empty.
        batch_size: examples of a micro-batch on one device.
        accumulate: micro-batches of an optimiser step.
        eval_batch_size: examples of a validation batch; None: ``batch_size``.
        length_grouping: put examples of like length together.
        seed: decides, with the epoch, the order.
        pad_token_id: id to pad with.
        collate: ``collate_training`` or ``collate_seq2seq``.

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
        """Plan an epoch for this rank."""
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
        """Return the resumable loader of training micro-batches."""
        length = len(self.train_plan(0))
        rows = MicroBatches(self.train.encoded, self._collate, self.pad_token_id)
        return ResumableLoader(rows, self.train_plan, length)

    def val_dataloader(self) -> ResumableLoader | list[ResumableLoader]:
        """Return the loader of validation batches; none where validation is empty."""
        if not len(self.validation):
            return []
        rows = MicroBatches(self.validation.encoded, self._collate, self.pad_token_id)
        length = len(self.validation_plan(0))
        return ResumableLoader(rows, self.validation_plan, length)

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)


def _lengths(split: EncodedSplit) -> tuple[list[int], list[int]]:
    items = split.encoded
    return [item.length for item in items], [len(item.answer_ids) for item in items]
