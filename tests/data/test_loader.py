"""Training that was interrupted sees exactly the batches it had not seen; under Lightning too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from sizewise.data.batches.collate import collate_seq2seq
from sizewise.data.batches.datamodule import ResumableLoader, SizewiseDataModule
from sizewise.data.tokens.encode import EncodedSplit
from sizewise.data.tokens.table import Encoded
from sizewise.errors import DataError

from .toys import example


def split(count: int) -> EncodedSplit:
    items = tuple(Encoded([100 + i] * (3 + i % 7), [i + 1, 2]) for i in range(count))
    return EncodedSplit(items, tuple(example(str(i)) for i in range(count)))


def module(count: int = 22, **kwargs: Any) -> SizewiseDataModule:
    values: dict[str, Any] = {"batch_size": 2, "accumulate": 3, "seed": 5} | kwargs
    return SizewiseDataModule(split(count), split(6), **values)


def names(batch: dict[str, Any]) -> tuple[int, ...]:
    return tuple(sorted(batch["input_ids"][:, 0].tolist()))


def epoch_of(loader: ResumableLoader, epoch: int) -> list[tuple[int, ...]]:
    loader.planned.set_epoch(epoch)
    return [names(batch) for batch in loader]


@pytest.mark.parametrize("stop", [1, 5, 10])
def test_a_stored_position_goes_on_where_it_was(stop: int) -> None:
    whole = [epoch_of(module().train_dataloader(), epoch) for epoch in (2, 3)]
    loader = module().train_dataloader()
    loader.planned.set_epoch(2)
    iterator = iter(loader)
    seen = [names(next(iterator)) for _ in range(stop)]
    state = loader.state_dict()
    assert state == {"epoch": 2, "position": stop}
    resumed = module().train_dataloader()
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert seen + epoch_of(resumed, 2) == whole[0]
    assert epoch_of(resumed, 3) == whole[1]


def test_a_position_of_another_epoch_is_not_used() -> None:
    loader = module().train_dataloader()
    loader.load_state_dict({"epoch": 2, "position": 4})
    assert epoch_of(loader, 3) == epoch_of(module().train_dataloader(), 3)


def test_length_is_that_of_a_whole_epoch() -> None:
    loader = module().train_dataloader()
    loader.load_state_dict({"epoch": 0, "position": 4})
    assert len(loader) == 11
    assert len(list(loader)) == 7


def test_iterating_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    data = module()
    list(data.train_dataloader())
    validation = data.val_dataloader()
    assert isinstance(validation, ResumableLoader)
    list(validation)
    assert torch.equal(torch.get_rng_state(), before)


def test_validation_is_the_same_in_every_epoch() -> None:
    loader = module(eval_batch_size=4).val_dataloader()
    assert isinstance(loader, ResumableLoader)
    assert epoch_of(loader, 0) == epoch_of(loader, 9)
    assert [len(batch) for batch in epoch_of(loader, 0)] == [4, 2]


def test_batches_carry_the_tokens_of_their_step() -> None:
    batches = list(module().train_dataloader())
    sums = [int((b["labels"] != -100).sum()) for b in batches]
    for start in range(0, 11, 3):
        assert {b["step_tokens"] for b in batches[start : start + 3]} == {
            sum(sums[start : start + 3])
        }


def test_other_collate_and_empty_splits() -> None:
    data = module(collate=collate_seq2seq)
    assert next(iter(data.train_dataloader()))["labels"].shape[1] == 2
    assert SizewiseDataModule(split(2), split(0), batch_size=1).val_dataloader() == []
    with pytest.raises(DataError, match="nothing to train on"):
        SizewiseDataModule(split(0), split(2), batch_size=1)


class Recorder(pl.LightningModule):
    """Learns one number and writes down what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, tuple[int, ...]]] = []

    def training_step(self, batch: dict[str, Any], index: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, names(batch)))
        return (self.weight * batch["input_ids"].float().mean()).sum() / batch["step_tokens"]

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self.log("val_loss", self.weight.sum(), batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(recorder: Recorder, folder: Path, resume: Path | None = None) -> None:
    save = pl.callbacks.ModelCheckpoint(
        folder, filename="{step}", every_n_train_steps=1, save_top_k=-1,
        save_on_train_epoch_end=False,
    )  # fmt: skip
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[save], accumulate_grad_batches=3,
        use_distributed_sampler=False, num_sanity_val_steps=1,
    )  # fmt: skip
    trainer.fit(recorder, datamodule=module(), ckpt_path=resume)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", [2, 4, 6, 8])
def test_lightning_resumes_within_and_at_the_end_of_an_epoch(tmp_path: Path, step: int) -> None:
    """An epoch has 11 micro-batches in 4 steps; step 4 and 8 end an epoch."""
    whole = Recorder()
    fit(whole, tmp_path / "whole")
    assert len(whole.seen) == 33
    resumed = Recorder()
    fit(resumed, tmp_path / "again", tmp_path / "whole" / f"step={step}.ckpt")
    done = step // 4 * 11 + step % 4 * 3
    assert resumed.seen == whole.seen[done:]
    assert torch.equal(resumed.weight, whole.weight)
