"""Activations of a training or decoding step, counted while it runs on the meta device."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from sizewise.config.model import LoraConfig, ModelConfig
from sizewise.config.training import SELECTIVE
from sizewise.errors import ModelError
from sizewise.models.adapter.attach import (
    attach_adapter,
    base_of,
    enable_checkpointing,
    lean_parts,
)
from sizewise.models.adapter.wrapping import is_adapted
from sizewise.models.architecture import meta_model
from sizewise.models.head import chosen_losses
from sizewise.models.masks import known

if TYPE_CHECKING:
    from transformers import PretrainedConfig


FEW, MORE = 3, 5


@dataclass(frozen=True)
class Shape:
    """Rows, tokens of the prompt, and tokens of the answer (or written by generation)."""

    rows: int
    prompt: int
    answer: int


def adapted_meta(
    config: PretrainedConfig, model: ModelConfig, lora: LoraConfig, dtype: torch.dtype
) -> nn.Module:
    if model.attn_implementation == "eager":
        config = copy.deepcopy(config)
        config._attn_implementation = "eager"
    base = meta_model(config).to(dtype)
    base.requires_grad_(False)
    adapted = attach_adapter(base, lora, model, seed=0).to("meta")
    return adapted.to(dtype) if lora.method == "full" else adapted


def trace_training(
    config: PretrainedConfig,
    model: ModelConfig,
    lora: LoraConfig,
    dtype: torch.dtype,
    shape: Shape,
    checkpointing: bool | str,
    every_row: bool = False,
    mixed: bool = False,
    lean_rest: bool = False,
) -> dict[str, int]:
    """Bytes of gradients, activations and logits at the peak of one forward and backward pass.

    ``every_row``: as in ``head.chosen_losses``. ``mixed``: in mixed precision, over a base whose
    weights are ``dtype`` already, so that of the layers only adapters are cast. ``lean_rest``:
    norms and gates have lean passes also where the layers have not.
    """

    def step(part: PretrainedConfig) -> dict[str, int]:
        adapted = adapted_meta(part, model, lora, dtype)
        if lean_rest and is_adapted(adapted):
            lean_parts(adapted, lean=True)
        if checkpointing:
            enable_checkpointing(adapted, checkpointing == SELECTIVE)
        # Meta has no autocast of its own: see ``fast_lora.autocast_dtype``.
        with torch.autocast("cpu", dtype, enabled=mixed), Fp32Norms() if mixed else nullcontext():
            return _training_step(adapted.train(), shape, every_row)

    return _by_layers(config, step)


class Fp32Norms(TorchFunctionMode):
    """Makes layer norms in fp32, as autocast does on GPUs."""

    MADE = (nn.functional.layer_norm, nn.functional.rms_norm, nn.functional.group_norm)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self.MADE:
            args = [a.float() if isinstance(a, Tensor) else a for a in args]
            kwargs = {
                k: v.float() if isinstance(v, Tensor) else v for k, v in (kwargs or {}).items()
            }
        return func(*args, **(kwargs or {}))


def trace_generation(
    config: PretrainedConfig,
    model: ModelConfig,
    lora: LoraConfig,
    dtype: torch.dtype,
    shape: Shape,
) -> dict[str, int]:
    """Bytes of the key/value cache and of activations at generation's peak."""

    def step(part: PretrainedConfig) -> dict[str, int]:
        return _generation_steps(adapted_meta(part, model, lora, dtype).eval(), shape)

    return _by_layers(config, step)


def _by_layers(
    config: PretrainedConfig, step: Callable[[PretrainedConfig], dict[str, int]]
) -> dict[str, int]:
    """Run ``step`` on a few and on some more layers, and continue the line to all of them.

    Raises:
        ModelError: the model asks for values, which the meta device has none of (mixtures of
            experts do, to choose among them).
    """
    layers = config.get_text_config().num_hidden_layers
    try:
        if layers <= MORE:
            return step(config)
        few, more = step(with_layers(config, FEW)), step(with_layers(config, MORE))
    except (RuntimeError, NotImplementedError) as error:
        raise ModelError(
            f"The memory of a {config.model_type} cannot be planned: its layers ask for values, "
            "and a plan has shapes only. Try the run itself with debug=fast."
        ) from error
    slope = {key: (more[key] - few[key]) / (MORE - FEW) for key in more}
    return {key: max(0, int(more[key] + slope[key] * (layers - MORE))) for key in more}


def with_layers(config: PretrainedConfig, count: int) -> PretrainedConfig:
    copied = copy.deepcopy(config)
    text = copied.get_text_config()
    text.num_hidden_layers = count
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:count]
    if copied.is_encoder_decoder:
        copied.num_decoder_layers = count
    return copied


def _training_step(adapted: nn.Module, shape: Shape, every_row: bool) -> dict[str, int]:
    base: Any = base_of(adapted)
    vocabulary = base.config.get_text_config().vocab_size
    mode = LiveBytes(lambda tensor: tensor.dim() > 1 and tensor.shape[-1] == vocabulary)
    mode.ignore(adapted.parameters())
    with meta_stand_ins(base.config), mode:
        targets_N = _tokens(shape.rows * shape.answer, 1).flatten()
        loss, _ = chosen_losses(
            base,
            {**_training_inputs(base, shape), "use_cache": False},
            lambda hidden_BTD: hidden_BTD[:, -shape.answer :].flatten(0, 1),
            targets_N,
            _summed,
            every_row,
        )
        loss.backward()
    gradients = sum(
        p.grad.numel() * p.grad.element_size() for p in adapted.parameters() if p.grad is not None
    )
    activations = max(0, mode.peak - mode.peak_logits - gradients)
    return {"gradients": gradients, "activations": activations, "logits": mode.peak_logits}


def _training_inputs(base: Any, shape: Shape) -> dict[str, Any]:
    if base.config.is_encoder_decoder:
        return {
            "input_ids": _tokens(shape.rows, shape.prompt),
            "decoder_input_ids": _tokens(shape.rows, shape.answer),
        }
    return {"input_ids": _tokens(shape.rows, shape.prompt + shape.answer)}


def _summed(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    summed = nn.functional.cross_entropy(logits_NV.float(), targets_N, reduction="sum")
    return summed, summed.detach()


@torch.no_grad()
def _generation_steps(adapted: nn.Module, shape: Shape) -> dict[str, int]:
    """Peak of reading the prompt, and of writing the last token beside a full cache."""
    base: Any = base_of(adapted)
    mode = LiveBytes()
    mode.ignore(adapted.parameters())
    seq2seq = bool(base.config.is_encoder_decoder)
    with meta_stand_ins(base.config), mode:
        if seq2seq:
            prompt = _tokens(shape.rows, shape.prompt)
            start = {"input_ids": prompt, "decoder_input_ids": _tokens(shape.rows, 1)}
            full = start | {"decoder_input_ids": _tokens(shape.rows, max(1, shape.answer - 1))}
        else:
            start = {"input_ids": _tokens(shape.rows, shape.prompt), "logits_to_keep": 1}
            length = shape.prompt + max(1, shape.answer - 1)
            full = start | {"input_ids": _tokens(shape.rows, length)}
        base(**start, use_cache=True)
        reading = mode.peak
        output = base(**full, use_cache=True)
        past, encoded = output.past_key_values, getattr(output, "encoder_last_hidden_state", None)
        del output, start, full
        mode.reset_peak()
        cache = mode.live
        next_token = _tokens(shape.rows, 1)
        inputs = (
            {"decoder_input_ids": next_token, "encoder_outputs": (encoded,)}
            if seq2seq
            else {"input_ids": next_token}
        )
        base(**inputs, past_key_values=past, use_cache=True)
    peak = max(reading, mode.peak)
    return {"kv_cache": cache, "activations": max(0, peak - cache)}


def _tokens(rows: int, length: int) -> Tensor:
    return torch.zeros(rows, length, dtype=torch.long, device="meta")


STAND_IN = "sizewise_fused"


class LiveBytes(TorchDispatchMode):
    """Count the storages that operations make while this mode is on: alive now, at most, in bytes.

    Tensors made before (weights) are not counted. ``is_logits`` marks the tensors whose share of
    the peak is reported apart (``peak_logits``).
    """

    def __init__(self, is_logits: Callable[[Tensor], bool] = lambda tensor: False) -> None:
        super().__init__()
        self.is_logits = is_logits
        self.known: set[int] = set()
        self.live = self.peak = self.logits = self.peak_logits = 0

    def ignore(self, tensors: Iterator[Tensor]) -> None:
        """Leave out the storages of these tensors (weights and inputs)."""
        self.known |= {tensor.untyped_storage()._cdata for tensor in tensors}

    def reset_peak(self) -> None:
        """Forget the peak so far; what is alive stays counted."""
        self.peak, self.peak_logits = self.live, self.logits

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = _made(func, args, kwargs or {})
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        self.known.add(key)
        size, logits = storage.nbytes(), self.is_logits(tensor)
        weakref.finalize(storage, self._free, key, size, logits)
        self.live += size
        self.logits += size if logits else 0
        if self.live > self.peak:
            self.peak, self.peak_logits = self.live, self.logits

    def _free(self, key: int, size: int, logits: bool) -> None:
        self.known.discard(key)
        self.live -= size
        self.logits -= size if logits else 0


MOST_KEPT = 20_000  # kinds of calls; a plan has some hundreds
Outline = tuple[torch.Size, tuple[int, ...], torch.dtype]
_outlines: dict[tuple[Any, ...], list[Outline] | Outline | None] = {}


def _made(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call an operation; where one like it was called before, make the like of its results.

    On the meta device results are shapes, which follow from those of the arguments, and layer after
    layer has the same. Most operations find them in Python, in a hundred times what it takes to
    look them up.
    """
    try:
        key = (func, _like(args), _like(tuple(kwargs.items())))
        known = _outlines.get(key)
    except (TypeError, _HasValuesError):
        return func(*args, **kwargs)
    if isinstance(known, tuple):
        return _empty(known)
    if known is not None:
        return tuple(map(_empty, known))
    result = func(*args, **kwargs)
    if key not in _outlines:
        if len(_outlines) >= MOST_KEPT:
            _outlines.clear()
        _outlines[key] = _outlines_of(func, result)
    return result


class _HasValuesError(Exception):
    """A tensor that is more than a shape: what is made of it may follow from its values."""


def _like(value: Any) -> Any:
    """Return what of an argument decides about shapes; 1, 1.0 and True are not alike."""
    if isinstance(value, Tensor):
        if not value.is_meta:
            raise _HasValuesError
        return value.shape, value.stride(), value.dtype
    if isinstance(value, (tuple, list)):
        return tuple([_like(item) for item in value])
    return type(value), value


def _outlines_of(func: Any, result: Any) -> list[Outline] | Outline | None:
    """Outline the results of an operation; None where they are not new tensors of their own."""
    schema = func._schema
    aliases = [item.alias_info for item in (*schema.arguments, *schema.returns)]
    if any(item is not None for item in aliases) or func in _SHARING:
        return None
    if isinstance(result, Tensor):
        return _outline(result)
    if not isinstance(result, tuple):
        return None
    parts = [_outline(item) if isinstance(item, Tensor) else None for item in result]
    return None if None in parts else [part for part in parts if part is not None]


_SHARING = {torch.ops.aten._unsafe_view.default}  # a view, and not marked as one


def _outline(tensor: Tensor) -> Outline | None:
    outline = (tensor.shape, tensor.stride(), tensor.dtype)
    same = _empty(outline).untyped_storage().nbytes() == tensor.untyped_storage().nbytes()
    return outline if tensor.is_meta and same else None


def _empty(outline: Outline) -> Tensor:
    shape, strides, dtype = outline
    return torch.empty_strided(shape, strides, dtype=dtype, device="meta")


class _Flash(torch.autograd.Function):
    """What a fused attention kernel keeps: its inputs, its output and one number per row."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        rows = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
        ctx.save_for_backward(query, key, value, out, rows)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def _fused_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any = None, **options: Any
) -> tuple[Tensor, None]:
    """Stand-in of the same memory as SDPA's fused kernels (the meta device has none)."""
    out: Tensor = _Flash.apply(query, key, value)
    return out.transpose(1, 2).contiguous(), None


@contextmanager
def meta_stand_ins(config: Any) -> Iterator[None]:
    """Within the block, models of ``config`` run on the meta device as SDPA's kernels would.

    Fused attention is replaced by a stand-in of the same memory (eager attention stays as it is),
    and the search for packed sequences, which reads values, is left out.
    """
    from transformers import AttentionInterface, AttentionMaskInterface, masking_utils

    AttentionInterface.register(STAND_IN, _fused_attention)
    AttentionMaskInterface.register(STAND_IN, masking_utils.sdpa_mask)
    parts = {id(part): part for part in (config, config.get_text_config())}.values()
    before = [part._attn_implementation for part in parts]
    for part in parts:
        if part._attn_implementation == "sdpa":
            part._attn_implementation = STAND_IN
    try:
        with known(packed=False):
            yield
    finally:
        for part, implementation in zip(parts, before, strict=True):
            part._attn_implementation = implementation
