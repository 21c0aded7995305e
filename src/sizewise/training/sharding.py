"""FSDP2: a fit whose weights, gradients and optimiser states are divided among its processes.

Each process holds a share of every weight and gathers one block of layers at a time (Zhao et al.
2023; ``torch.distributed.fsdp.fully_shard``). A share is a ``DTensor`` under the parameter's own
name, so that the rest of a fit hardly notices; what leaves the fit (best weights, checkpoints) is
made whole here, and holds what is trained alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, distribute_tensor

from sizewise.models.adapter.wrapping import base_of
from sizewise.models.base import transformer_blocks


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Divide all weights of ``model`` among the processes of ``mesh``, block by block.

    A block is moved to the process's device before it is divided, so that the device never holds
    more than the shares and one block. Weights of several dtypes may stand side by side: a bf16
    or packed NF4 base under an fp32 adapter. Nothing is done to a model that is divided already.
    """
    from torch.distributed.fsdp import fully_shard

    if is_sharded(model):
        return
    base = base_of(model)
    for block in transformer_blocks(base):
        fully_shard(block, mesh=mesh)
    fully_shard(base, mesh=mesh)


def is_sharded(model: nn.Module) -> bool:
    return any(isinstance(p, DTensor) for p in model.parameters())


def whole(tensor: Tensor) -> Tensor:
    """Gather a share into the whole tensor, for which every process has to call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Cut this process's share out of a whole tensor, divided as ``like`` is; asks no other one."""
    if not isinstance(like, DTensor):
        return tensor
    local = tensor.to(like.device_mesh.device_type)
    return distribute_tensor(local, like.device_mesh, like.placements, src_data_rank=None)


def leave_group() -> None:
    """Leave the process group of a fit: its other processes end, and the next fit forms its own."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's FSDP2, with checkpoints of what is trained: whole, in one file, by rank 0.

    Lightning's own would gather the frozen base too.
    """

    def __init__(self, processes: int, timeout: timedelta) -> None:
        super().__init__(processes, tensor_parallel_size=1, timeout=timeout)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Tensor]:
        assert self.lightning_module is not None
        state = self.lightning_module.state_dict()
        return {name: whole(tensor).cpu() for name, tensor in state.items()}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        Strategy.load_model_state_dict(self, checkpoint, strict)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        state: dict[str, Any] = _plain(optimizer).state_dict()
        gathered = {number: _each(values, whole) for number, values in state["state"].items()}
        return {**state, "state": gathered}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            plain = _plain(optimizer)
            parameters = [p for group in plain.param_groups for p in group["params"]]
            shares = {
                number: _shares(values, parameters[number])
                for number, values in state["state"].items()
            }
            plain.load_state_dict({**state, "state": shares})

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None
    ) -> None:
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)


def _plain(optimizer: Any) -> torch.optim.Optimizer:
    found = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
    assert isinstance(found, torch.optim.Optimizer)
    return found


def _each(values: Mapping[str, Any], change: Any) -> dict[str, Any]:
    return {k: change(v) if isinstance(v, Tensor) else v for k, v in values.items()}


def _shares(values: Mapping[str, Any], parameter: Tensor) -> dict[str, Any]:
    """Divide the moments of one parameter as it is divided; its count of steps stays whole."""
    return _each(values, lambda v: share_of(v, parameter) if v.shape == parameter.shape else v)
