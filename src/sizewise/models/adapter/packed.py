"""Several adapters on one base in one pass: each is applied to its own rows of the batch alone.

Rows of a batch know nothing of each other in a causal model, so that one forward and backward pass
over the joined batches of K adapters gives each exactly what a pass of its own would, but for
rounding. The base's products are made once, for all rows; those of the adapters are K small ones
in one batched product, ranks filled up with zeros. After mLoRA (Ye et al. 2023, arXiv:2312.02515)
and S-LoRA (Sheng et al. 2023, arXiv:2311.03285).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sizewise.models.adapter.fast_lora import (
    adapter_dropout,
    as_multiplied,
    as_returned,
    has_lean_passes,
    is_plain,
)
from sizewise.models.adapter.packed_lora import LoopedLoraLinear, PackedLoraLinear
from sizewise.models.adapter.wrapping import base_of, is_adapted
from sizewise.models.architecture import positions_depend_on_length
from sizewise.models.base import has_int8
from sizewise.models.head import answer_logits, answers_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def view_of(base: PreTrainedModel) -> PreTrainedModel:
    """Return a model of the same weights, not copied, in modules of its own.

    What is wrapped around its layers leaves those of ``base`` as they are.
    """
    shared: dict[int, Any] = {id(t): t for t in chain(base.parameters(), base.buffers())}
    states = (getattr(module, "quant_state", None) for module in base.modules())
    shared |= {id(state): state for state in states if state is not None}
    return copy.deepcopy(base, shared)


def why_alone(model: nn.Module) -> str:
    """Why an adapted model cannot go through a pass with others; empty where it can.

    A pass is shared where rows are independent, whatever is random belongs to the adapter, and the
    adapter is LoRA or rsLoRA over linear layers (also in NF4).
    """
    if not is_adapted(model):
        return "it is no base with an adapter"
    base = base_of(model)
    if base.config.is_encoder_decoder:
        return "encoder-decoder models are trained alone"
    if len({p.device for p in base.parameters()}) > 1:
        return "the base lies on several devices"
    if has_int8(base):
        return "products in int8 depend on the other rows"
    layers = lora_layers(model)
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    known = {id(w) for layer in layers.values() for w in weights_of(layer)}
    if not layers or trained != known or not all(map(_is_simple, layers.values())):
        return "only LoRA and rsLoRA on linear layers share a pass"
    head = base.get_output_embeddings()
    if any(layer is head for layer in layers.values()):
        return "the output head has an adapter"
    if _base_drops(base):
        return "the base has dropout of its own"
    if positions_depend_on_length(base):
        return "its position encoding depends on the length of the batch"
    recomputes = getattr(base, "is_gradient_checkpointing", False)
    if recomputes and any(map(dropout_rate, layers.values())):
        return "activations are recomputed, and with them dropout would be drawn anew"
    return ""


def lora_layers(model: nn.Module) -> dict[str, Any]:
    """Return the adapted linear layers by their names in the base."""
    modules = base_of(model).named_modules()
    return {name: module for name, module in modules if hasattr(module, "lora_A")}


def weights_of(layer: Any) -> tuple[Tensor, Tensor]:
    """Return A (R, I) and B (O, R) of an adapted layer."""
    name = layer.active_adapters[0]
    return layer.lora_A[name].weight, layer.lora_B[name].weight


def _is_simple(layer: Any) -> bool:
    names = layer.active_adapters
    alone = len(names) == 1 and not (layer.merged or layer.disable_adapters)
    return alone and has_lean_passes(layer)


def _base_drops(base: PreTrainedModel) -> bool:
    """Whether a base in training mode draws random numbers: it would draw them for all rows."""
    settings = base.config.get_text_config().to_dict().items()
    drawn = (v for k, v in settings if "drop" in k or "jitter" in k)
    if any(isinstance(value, float) and value > 0 for value in drawn):
        return True
    adapters = {id(m) for layer in lora_layers(base).values() for m in layer.lora_dropout.modules()}
    drops = (m for m in base.modules() if isinstance(m, nn.Dropout) and id(m) not in adapters)
    return any(module.p > 0 for module in drops)


class NotPackableError(Exception):
    """A layer's input is not the batch, row by row: nobody knows whose rows it holds."""


@dataclass(frozen=True)
class Part:
    """What one member brings to a pass.

    ``batch``: what ``collate_training`` makes, padded on the right;
    ``random``: a context in which torch draws the member's own random numbers.
    """

    member: int
    batch: Mapping[str, Any]
    random: Callable[[], AbstractContextManager[None]]

    @property
    def shape(self) -> tuple[int, int]:
        rows, tokens = self.batch["input_ids"].shape
        return rows, tokens


@dataclass
class Places:
    """Who has which rows of the pass under way: each of K members B rows, one after the other.

    ``tokens`` of a row are T in every layer; None while answers are decoded, which read some at a
    time. ``parts``: what the members brought; empty where nothing of it is looked at.
    """

    members: Sequence[int] = ()
    rows: int = 0
    tokens: int | None = 0
    parts: Sequence[Part] = ()

    def have(self, shape: Sequence[int]) -> bool:
        """Whether a layer's input of this shape is the batch, row by row."""
        return (
            len(shape) == 3
            and shape[0] == len(self.members) * self.rows
            and self.tokens in (None, shape[1])
        )


class PackedBase:
    """One base and the adapters of several members.

    The modules are a view of the base of ``model``, without its adapter.
    """

    def __init__(self, model: nn.Module) -> None:
        self.base = view_of(base_of(model))
        self._places = Places()
        self._layers: dict[str, PackedLinear] = {}
        for name, layer in lora_layers(self.base).items():
            _replace(self.base, name, layer.base_layer)

    def add(self, member: int, model: nn.Module) -> None:
        """Let the adapter of ``model`` take part as ``member``; ``why_alone`` has no objection."""
        for name, layer in lora_layers(model).items():
            if name not in self._layers:
                plain = self.base.get_submodule(name)
                self._layers[name] = PackedLinear(plain, self._places)
                _replace(self.base, name, self._layers[name])
            self._layers[name].adapters[member] = layer

    def remove(self, member: int) -> None:
        for layer in self._layers.values():
            layer.forget(member)
        if not any(layer.adapters for layer in self._layers.values()):
            self._begin_pass((), 0, 0)  # nobody is left who would hold what they had

    def answer_logits(self, parts: Sequence[Part], training: bool = True) -> list[Tensor]:
        """Return logits (N, V) at the N answer positions of every part (see ``head``).

        ``training``: with the dropout of the adapters.

        Raises:
            NotPackableError: the base's code rearranges rows.
        """
        batch = joined([part.batch for part in parts])
        rows, tokens = batch["input_ids"].shape
        self._begin_pass([part.member for part in parts], rows // len(parts), tokens, parts)
        logits_NV = answer_logits(self.base.train(training), batch)
        return list(logits_NV.split([len(answers_of(part.batch)[0]) for part in parts]))

    @contextmanager
    def answering(self, members: Sequence[int], rows: int) -> Iterator[PreTrainedModel]:
        """Yield the base as a model of K·``rows`` rows: the first ``rows`` are the first member's.

        Inside, every batch has to be of so many; how many tokens it has is free.
        """
        self._begin_pass(members, rows, None)
        try:
            yield self.base
        finally:
            self._begin_pass((), 0, 0)

    def _begin_pass(
        self,
        members: Sequence[int],
        rows: int,
        tokens: int | None,
        parts: Sequence[Part] = (),
    ) -> None:
        places = self._places
        places.members, places.rows, places.tokens, places.parts = members, rows, tokens, parts
        for layer in self._layers.values():
            layer.begin_pass()


def _replace(base: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(base.get_submodule(parent), last, module)


def joined(batches: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Join batches to one of K·B rows: all filled up to the same B and T.

    No answer can see what is filled up on the right, and rows that are filled up have no answer.
    """
    every = [batch["input_ids"] for batch in batches]
    rows, tokens = (max(sizes) for sizes in zip(*(ids.shape for ids in every), strict=True))
    filled = [
        functional.pad(ids, (0, tokens - ids.shape[1], 0, rows - ids.shape[0])) for ids in every
    ]
    answers = [answers_of(batch) for batch in batches]
    moved = [
        (k * rows + rows_N // ids.shape[1]) * tokens + rows_N % ids.shape[1]
        for k, (ids, (rows_N, _)) in enumerate(zip(every, answers, strict=True))
    ]
    return {
        "input_ids": torch.cat(filled),
        "answer_rows": torch.cat(moved),
        "answer_ids": torch.cat([ids_N for _, ids_N in answers]),
    }


class PackedLinear(nn.Module):
    """A frozen linear layer with one adapter for each member's rows (none for some).

    Who leaves stays in the pass under way: what is recomputed for the others is what they saw.
    """

    def __init__(self, base_layer: nn.Module, places: Places) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.adapters: dict[int, Any] = {}
        self._of_pass: list[Any] = []
        self._stacks: tuple[Tensor, Tensor] | None = None
        self._places = places
        self._scales: dict[tuple[int, ...], Tensor] = {}

    def begin_pass(self) -> None:
        self._of_pass = [self.adapters.get(member) for member in self._places.members]
        self._stacks = None

    @property
    def weight(self) -> Tensor:
        """The base's own, for models that look at its dtype."""
        return cast(Tensor, self.base_layer.weight)

    def forget(self, member: int) -> None:
        self.adapters.pop(member, None)
        self._scales.clear()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``x`` (K·B, T, I).

        Raises:
            NotPackableError: it has another shape.
        """
        count = len(self._places.members)
        if not self._places.have(x.shape):
            raise NotPackableError(f"a layer is given {tuple(x.shape)}")
        adapters = self._of_pass
        used = [layer for layer in adapters if layer is not None]
        if not used:
            return cast(Tensor, self.base_layer(x))
        pairs = _weights(adapters, *weights_of(used[0]))
        base: Any = self.base_layer
        lean = all(is_plain(x, layer) for layer in used)
        given, x = x.dtype, as_multiplied(x, base) if lean else x
        seen = x if lean else x.to(pairs[0][0].dtype)
        dropped = self._dropped(seen, adapters)
        if lean and _one_by_one(x):
            layer, weights = (x, dropped, base.weight, base.bias), chain(*pairs)
            cast_weights = (weight.to(x.dtype) for weight in weights)
            out = LoopedLoraLinear.apply(*layer, scales_of(adapters), *cast_weights)
            return as_returned(out, base, given)
        (a_KRI, b_KOR), scale_K = self._stacks_of(pairs), self._scale(adapters)
        if lean:
            a_KRI, b_KOR = a_KRI.to(x.dtype), b_KOR.to(x.dtype)
            layer = (x, dropped, base.weight, base.bias)
            out = PackedLoraLinear.apply(*layer, a_KRI, b_KOR, scale_K)
            return as_returned(out, base, given)
        out = base(x)
        inputs_KNI = (seen if dropped is None else dropped).reshape(count, -1, x.shape[-1])
        hidden_KNR = torch.bmm(inputs_KNI, a_KRI.transpose(1, 2))
        update = torch.bmm(hidden_KNR, b_KOR.transpose(1, 2)) * scale_K
        return cast(Tensor, (out + update.view_as(out)).to(out.dtype))

    def _stacks_of(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Stack all A and all B; while answers are decoded they stay what they are."""
        if self._places.tokens is not None:
            return _stacked(pairs)
        if self._stacks is None:
            self._stacks = _stacked(pairs)
        return self._stacks

    def _scale(self, adapters: Sequence[Any]) -> Tensor:
        """Return alpha/r of every part (K, 1, 1); it is made once for each set of members."""
        key = tuple(self._places.members)
        if key not in self._scales:
            like = next(weights_of(a)[0] for a in adapters if a is not None)
            exact = torch.promote_types(like.dtype, torch.float32)  # alone it is no tensor
            scales = torch.tensor(scales_of(adapters), dtype=exact, device=like.device)
            self._scales[key] = scales.view(-1, 1, 1)
        return self._scales[key]

    def _dropped(self, x: Tensor, adapters: Sequence[Any]) -> Tensor | None:
        """Drop elements of every part by its own random numbers, drawn at its own shape."""
        rates = [0.0 if a is None else dropout_rate(a) for a in adapters]
        if not (self.training and any(rates)):
            return None
        found, blocks = [], x.split(self._places.rows)
        for layer, part, rate, own in zip(adapters, self._places.parts, rates, blocks, strict=True):
            if rate:
                rows, tokens = part.shape
                ones = x.new_ones(rows, tokens, x.shape[-1])
                draw = adapter_dropout if is_plain(x, layer) else functional.dropout
                with part.random():
                    drawn = draw(ones, rate) != 0
                keep = torch.ones_like(own, dtype=torch.bool)
                keep[:rows, :tokens] = drawn
                own = torch.where(keep, own * (1 / (1 - rate)), 0.0)
            found.append(own)
        return torch.cat(found)


def dropout_rate(layer: Any) -> float:
    return float(getattr(layer.lora_dropout[layer.active_adapters[0]], "p", 0.0))


def _one_by_one(x: Tensor) -> bool:
    """Whether the small products are made one after the other: on a CPU that is faster."""
    return x.device.type == "cpu"


def scales_of(adapters: Sequence[Any]) -> list[float]:
    return [0.0 if a is None else a.scaling[a.active_adapters[0]] for a in adapters]


def _weights(adapters: Sequence[Any], a_RI: Tensor, b_OR: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return A and B of all members; who has none has rank 0."""
    none = a_RI.new_zeros(0, a_RI.shape[1]), b_OR.new_zeros(b_OR.shape[0], 0)
    return [none if layer is None else weights_of(layer) for layer in adapters]


def _stacked(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Stack all A and all B; ranks are filled up with zeros."""
    most = max(len(a) for a, _ in pairs)
    a_K = [functional.pad(a, (0, 0, 0, most - len(a))) if len(a) < most else a for a, _ in pairs]
    b_K = [functional.pad(b, (0, most - b.shape[1])) if b.shape[1] < most else b for _, b in pairs]
    return torch.stack(a_K), torch.stack(b_K)
