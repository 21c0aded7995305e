"""Logits and losses at answer positions only: the output head never sees the prompt.

Nor do the parts of the last layer that take each position by itself (``last_layer_rows``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from sizewise.data.batches.collate import answer_index
from sizewise.errors import ModelError
from sizewise.models.adapter.fast_lora import Rows, drawn_for_all, draws_positions
from sizewise.models.adapter.wrapping import base_of
from sizewise.models.base import has_int8
from sizewise.models.masks import known, padding_of

Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From logits (N, V) and targets (N,): a loss with a gradient, and a figure without one."""
Choose = Callable[[Tensor], Tensor]
MOST_LOGITS, LEAST_ROWS = 2**23, 128
"""Entries of logits in memory at a time (32 MiB in fp32, and as much again of each copy), and
answer tokens that are worth a pass over the head's weights, however large the vocabulary is."""
OPTIONAL_INPUTS = ("position_ids", "token_type_ids", "decoder_attention_mask")


def answer_logits(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """Run the body on the whole batch and the output head at answer positions only.

    The rows that predict an answer token are chosen just before the model's own output head, so
    that whatever follows it (Gemma 2's soft-cap, logit scales, T5's scale) is the model's own
    code, and the result equals the full logits at these positions.

    Args:
        batch: ``input_ids`` (B, T), ``attention_mask`` (B, T) and ``labels``: (B, T), aligned
            with the inputs for a causal model; (B, U), the decoder's targets, for seq2seq.
            −100 marks what is not answer. With ``answer_rows`` and ``answer_ids`` from the
            collator nothing here waits for the device.

    Returns:
        Logits (N, V) for the N answer tokens, row by row: those of ``answer_targets``.

    Raises:
        ModelError: the batch has no answer token.
    """
    base = base_of(model)
    with head_rows(base, _answers(base, batch)[0]), _told(base, batch):
        logits_NV: Tensor = base(**forward_inputs(base, batch)).logits
    return logits_NV


def answer_losses(
    model: nn.Module, batch: Mapping[str, Any], loss: Loss
) -> tuple[Tensor, Tensor, int]:
    """Return what ``loss`` gives for ``answer_logits`` and ``answer_targets``, and their number.

    Where all logits would have more than ``MOST_LOGITS`` entries, those of some answer tokens at a
    time are made, and differentiated in the same pass (as in Hsu et al. 2024, "Liger Kernel"):
    neither loss nor gradients become others, nothing is computed twice, and no more than a part's
    logits are in memory. ``loss`` has to be a sum over answer tokens.

    Raises:
        ModelError: the batch has no answer token.
    """
    base = base_of(model)
    rows_N, targets_N = _answers(base, batch)
    choose = partial(_rows_of, rows_N)
    with _told(base, batch):
        value, said = chosen_losses(base, forward_inputs(base, batch), choose, targets_N, loss)
    return value, said, len(targets_N)


def chosen_losses(
    base: Any,
    inputs: Mapping[str, Any],
    choose: Choose,
    targets_N: Tensor,
    loss: Loss,
    every_row: bool = False,
) -> tuple[Tensor, Tensor]:
    """As ``answer_losses``; ``choose`` gives the hidden states (N, D) that predict the targets.

    ``every_row``: the last layer computes all positions, as where jobs share passes.
    """
    if every_row:
        return _head_losses(base, inputs, choose, targets_N, loss)
    with last_layer_rows(base, inputs["input_ids"], choose):
        return _head_losses(base, inputs, choose, targets_N, loss)


def _head_losses(
    base: Any, inputs: Mapping[str, Any], choose: Choose, targets_N: Tensor, loss: Loss
) -> tuple[Tensor, Tensor]:
    head, rows = base.get_output_embeddings(), rows_at_once(base)
    nested = not any(child is head for child in base.children())
    if len(targets_N) <= rows or nested or _scales_losses(head):
        with head.register_forward_pre_hook(lambda _, args: (choose(args[0]), *args[1:])):
            logits_NV = base(**inputs).logits
        return loss(logits_NV, targets_N)
    tail = _Tail(base, inputs)
    hidden_ND = tail.read(choose)
    learns = torch.is_grad_enabled() and (hidden_ND.requires_grad or bool(tail.parameters))
    summed: tuple[Tensor, Tensor] = _InParts.apply(
        tail, loss, targets_N, rows if learns else -rows, hidden_ND, *tail.parameters
    )
    return summed


@contextmanager
def last_layer_rows(base: Any, input_ids: Tensor, choose: Choose) -> Iterator[None]:
    """Let the last layer compute at chosen positions only what no other position needs.

    Its attention reads keys and values of every position; queries, the output projection and the
    MLP take each position by itself, and nothing comes after the layer that would ask for others.
    Of a prompt of 110 tokens with 7 of answer that is a sixteenth of these products, forwards and
    backwards. Positions that are left out hold zeros.
    """
    parts = _position_wise(base)
    if not parts:
        yield
        return
    positions_N = torch.arange(input_ids.numel(), device=input_ids.device)
    chosen_N = choose(positions_N.view(*input_ids.shape, 1)).flatten()

    def only(part: nn.Module) -> Callable[..., Any]:
        forward = part.forward

        def run(x_BTD: Tensor, *more: Any, **named: Any) -> Any:
            if more or named:
                return forward(x_BTD, *more, **named)
            every, index_N = x_BTD.shape[:-1].numel(), chosen_N.to(x_BTD.device)
            rows_1ND = x_BTD.reshape(every, -1).index_select(0, index_N).unsqueeze(0)
            with drawn_for_all(Rows(index_N, every)):
                out_ND = forward(rows_1ND).squeeze(0)
            empty = out_ND.new_zeros(every, out_ND.shape[-1])
            return empty.index_copy(0, index_N, out_ND).view(*x_BTD.shape[:-1], -1)

        return run

    with _instead(parts, only):
        yield


def _position_wise(base: Any) -> list[nn.Module]:
    """Return the parts of the last layer that may be run at some positions only.

    None where that would change what is computed: where the layer has a convolution over
    positions; where activations are recomputed later, when all of this is over; where other dropout
    than the adapters' on a CPU draws a random number for every element; where int8 looks for
    outliers in all rows.
    """
    if base.config.is_encoder_decoder:
        return []
    decoder = base.get_decoder()
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return []
    last = layers[-1]
    if any(getattr(part, "gradient_checkpointing", False) for part in (base, decoder, last)):
        return []
    if any(isinstance(m, nn.Conv1d) or "conv" in name for name, m in last.named_modules()):
        return []
    attention, mlp = (getattr(last, name, None) for name in ("self_attn", "mlp"))
    dense = [hasattr(mlp, name) for name in ("gate_proj", "up_proj", "gate_up_proj", "down_proj")]
    found = [mlp] if dense in ([True, True, False, True], [False, False, True, True]) else []
    found += [getattr(attention, name, None) for name in ("q_proj", "o_proj")]
    parts = [part for part in found if isinstance(part, nn.Module)]
    every = [module for part in parts for module in part.modules()]
    adapters = [m for m in every if hasattr(m, "lora_dropout") and draws_positions(m)]
    drawn = {drop for adapter in adapters for drop in adapter.lora_dropout.modules()}
    drops = any(isinstance(m, nn.Dropout) and m.p and m.training and m not in drawn for m in every)
    return [] if drops or any(map(has_int8, parts)) else parts


def rows_at_once(base: Any) -> int:
    """Return of how many answer tokens the logits are made at once."""
    return max(LEAST_ROWS, MOST_LOGITS // base.config.get_text_config().vocab_size)


def _scales_losses(head: nn.Module) -> bool:
    """Whether gradients are fp16, which need the whole loss scaled before it is differentiated."""
    weight = next(head.parameters())
    device = weight.device.type
    casts = device != "meta" and torch.is_autocast_enabled(device)
    return torch.float16 in (weight.dtype, torch.get_autocast_dtype(device) if casts else None)


def _answers(base: Any, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    rows_N, targets_N = answers_of(batch, bool(base.config.is_encoder_decoder))
    if not len(rows_N):
        raise ModelError(
            "A batch has no answer token: every label is -100. Check the template and max_length."
        )
    return rows_N, targets_N


@contextmanager
def head_rows(base: Any, rows_N: Tensor) -> Iterator[None]:
    """Let the output head see the chosen ones of all B·T positions only: its logits are (N, V)."""
    head = base.get_output_embeddings()
    with head.register_forward_pre_hook(lambda _, args: (_rows_of(rows_N, args[0]), *args[1:])):
        yield


def answers_of(batch: Mapping[str, Any], seq2seq: bool = False) -> tuple[Tensor, Tensor]:
    """Return the positions (N,) of B·T whose output predicts an answer token, and the tokens (N,).

    A causal model predicts the next token; a decoder is already shifted by its start token. The
    collator's index is taken where there is one.
    """
    if "answer_rows" in batch:
        return batch["answer_rows"], batch["answer_ids"]
    return answer_index(batch["labels"], shifted=not seq2seq)


def answer_targets(batch: Mapping[str, Any], seq2seq: bool = False) -> Tensor:
    """Return the answer tokens (N,) in the order of ``answer_logits``' rows.

    A causal model cannot predict a sequence's first token: a label there is not counted.
    """
    return answers_of(batch, seq2seq)[1]


def some_examples(batch: Mapping[str, Any], examples: slice) -> dict[str, Any]:
    """Return a batch of some of the examples; which positions are answers is looked for anew."""
    kept = {key: value for key, value in batch.items() if key not in ("answer_rows", "answer_ids")}
    return {key: v[examples] if isinstance(v, Tensor) else v for key, v in kept.items()}


def forward_inputs(base: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the inputs that this model's forward takes.

    A right-padded causal batch needs no mask: no answer position can see its padding, and without
    one the attention kernels take their faster causal path.
    """
    wrapper: Any = base
    inputs = {"input_ids": batch["input_ids"], "use_cache": False}
    inputs |= {key: batch[key] for key in OPTIONAL_INPUTS if key in batch and takes(base, key)}
    mask = batch.get("attention_mask")
    if base.config.is_encoder_decoder:
        decoder_ids = wrapper.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
        return inputs | {"attention_mask": mask, "decoder_input_ids": decoder_ids}
    if mask is not None and not is_right_padded(mask):
        inputs["attention_mask"] = mask
        inputs.setdefault("position_ids", (mask.cumsum(-1) - 1).clamp_min(0))
    return inputs


def is_right_padded(mask_BT: Tensor) -> bool:
    """Whether every row of a mask is ones, then zeros."""
    return bool((mask_BT[:, 1:] <= mask_BT[:, :-1]).all())


def takes(base: nn.Module, name: str) -> bool:
    """Whether the model's forward has a parameter of that name."""
    return name in _parameters(cast(Hashable, type(base)))


@cache
def _parameters(model_class: Any) -> frozenset[str]:
    return frozenset(inspect.signature(model_class.forward).parameters)


def _rows_of(rows_N: Tensor, hidden_BTD: Tensor) -> Tensor:
    return hidden_BTD.flatten(0, 1).index_select(0, rows_N.to(hidden_BTD.device))


def _told(base: Any, batch: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Tell transformers what it would wait for the device to see.

    Positions that the batch brings may say that its rows hold several sequences. Labels of an
    encoder-decoder model make a decoder's input of which none is masked.
    """
    packed = None if "position_ids" in batch else False
    plain = base.config.is_encoder_decoder and "decoder_attention_mask" not in batch
    return known(packed, padding_of(batch), False if plain else None)


class _Tail:
    """A model's own code behind its body: the head, and soft-caps and scales around it.

    ``read`` runs the model once and keeps what its parts return before the head is run. A call runs
    the model's forward again with these results in the parts' place, and other rows for the head.

    Attributes:
        parameters: the weights behind the body that are trained.
    """

    def __init__(self, base: Any, inputs: Mapping[str, Any]) -> None:
        self._base, self._inputs = base, inputs
        self._head: nn.Module = base.get_output_embeddings()
        self._parts = [child for child in base.children() if child is not self._head]
        self._returned: dict[nn.Module, list[Any]] = {part: [] for part in self._parts}
        self._hidden: list[Tensor] = []
        self.parameters: list[nn.Parameter] = []
        self._own([*self._head.parameters(), *base.parameters(recurse=False)])

    def read(self, choose: Choose) -> Tensor:
        """Return the hidden states (N, D) that the head would have been given."""
        found: list[Tensor] = self._hidden

        def keep(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            found.append(choose(args[0]))
            return (found[0][:1].detach(), *args[1:])

        with _instead(self._parts, self._kept), self._head.register_forward_pre_hook(keep):
            self._base(**self._inputs)
        return found[0]

    def __call__(self, hidden_ND: Tensor) -> Tensor:
        with (
            _instead(self._parts, self._again),
            self._head.register_forward_pre_hook(lambda _, args: (hidden_ND, *args[1:])),
        ):
            logits_NV: Tensor = self._base(**self._inputs).logits
        return logits_NV

    def _kept(self, part: nn.Module) -> Callable[..., Any]:
        forward = part.forward

        def run(*args: Any, **kwargs: Any) -> Any:
            result = forward(*args, **kwargs)
            if self._hidden:  # it follows the head
                self._own(part.parameters())
            else:
                self._returned[part].append(result)
            return result

        return run

    def _again(self, part: nn.Module) -> Callable[..., Any]:
        results, forward = iter(self._returned[part]), part.forward

        def run(*args: Any, **kwargs: Any) -> Any:
            kept = next(results, self)
            return forward(*args, **kwargs) if kept is self else kept

        return run

    def _own(self, parameters: Iterable[nn.Parameter]) -> None:
        known = {id(parameter) for parameter in self.parameters}
        self.parameters += [p for p in parameters if p.requires_grad and id(p) not in known]


@contextmanager
def _instead(
    parts: Sequence[nn.Module], make: Callable[[nn.Module], Callable[..., Any]]
) -> Iterator[None]:
    """Give each part another forward in this block, made of the part as it is."""
    before = {part: part.__dict__.get("forward") for part in parts}
    for part in parts:
        part.forward = make(part)
    try:
        yield
    finally:
        for part, forward in before.items():
            del part.forward
            if forward is not None:
                part.forward = forward


class _InParts(torch.autograd.Function):
    """The loss of some rows at a time, each differentiated before the next (negative: never)."""

    @staticmethod
    def forward(
        ctx: Any, tail: _Tail, loss: Loss, targets_N: Tensor, rows: int, hidden_ND: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        learns, rows = rows > 0, abs(rows)
        gradient_ND = torch.empty_like(hidden_ND) if learns else None
        gradients: list[Tensor | None] = [None] * len(parameters)
        losses: list[tuple[Tensor, Tensor]] = []
        for part, targets in zip(hidden_ND.split(rows), targets_N.split(rows), strict=True):
            part = part.detach().requires_grad_(learns)
            with torch.set_grad_enabled(learns):
                value, said = loss(tail(part), targets)
            if gradient_ND is not None:
                own, *others = torch.autograd.grad(value, [part, *tail.parameters])
                start = rows * len(losses)
                gradient_ND[start : start + len(own)] = own
                gradients = [
                    new.float() if old is None else old.add_(new)
                    for old, new in zip(gradients, others, strict=True)
                ]
            losses.append((value.detach(), said.detach()))
        summed = [
            total if total is None else total.to(parameter.dtype)
            for total, parameter in zip(gradients, parameters, strict=True)
        ]
        ctx.save_for_backward(gradient_ND, *summed)
        total, said = (torch.stack(each).sum() for each in zip(*losses, strict=True))
        ctx.mark_non_differentiable(said)
        return total, said

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        found = (None if own is None else own * outer[0].to(own.dtype) for own in ctx.saved_tensors)
        return None, None, None, None, *found
