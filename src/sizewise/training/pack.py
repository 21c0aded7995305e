"""Jobs of one process that share the passes over their base.

Every fit keeps its own Trainer, optimiser, schedule, callbacks and files. Two points of a step are
common: the forward pass, for which each hands in its micro-batch and gets its own logits, and the
backward pass, for which each hands in the gradient of its own loss by them; and so are the batches
of validations, and those that are answered. The jobs run one at a time, and at these points one
waits (``Seat.pause``) until all the others wait too or have left. What fails for all is made again
by each alone, so that nobody pays for what another brought.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sizewise.devices import device_of, free_memory, is_out_of_memory, synchronize
from sizewise.models.adapter.packed import PackedBase, Part, why_alone
from sizewise.models.adapter.wrapping import base_of
from sizewise.training.group_size import GroupSize, evenly
from sizewise.training.seat import Seat, set_torch_random, torch_random

log = logging.getLogger(__name__)
# What there is to wait for; what stands first is done first: a pass that is to be differentiated
# holds memory. Who gathers waits for all others, and there is no pass then.
PASSES = ("backward", "validation", "forward", "answers", "gathering")


@dataclass(eq=False)
class Pack:
    """The jobs that share passes, and who is in the next one.

    ``size``: how many at most share one; it is halved where memory does not suffice. ``answering``:
    the same where they answer, which needs other memory.
    """

    size: GroupSize
    answering: GroupSize = field(default_factory=lambda: GroupSize(sys.maxsize))
    seats: dict[int, Seat] = field(default_factory=dict)
    _base: PackedBase | None = None
    _weight: Tensor | None = None
    _group: list[Seat] = field(default_factory=list)
    _seconds: float = 0.0

    def join(self, pause: Callable[[], None]) -> Seat:
        number = len(self.seats)
        seat = self.seats[number] = Seat(self, number, pause)
        return seat

    def admit(self, number: int, model: nn.Module) -> str:
        """Let a model's adapter take part; return why it cannot, or nothing."""
        if why := why_alone(model):
            return why
        weight = base_of(model).get_input_embeddings().weight
        if self._base is None:
            self._base, self._weight = PackedBase(model), weight
        if weight is not self._weight:
            return "it has another base in memory"
        self._base.add(number, model)
        return ""

    def dismiss(self, number: int) -> None:
        if self._base is not None:
            self._base.remove(number)

    def next_leader(self) -> Seat | None:
        """Return who is to go on when nobody can without a pass: it makes the pass for a group."""
        for what in PASSES:
            jobs = [seat for seat in self.seats.values() if seat.waiting == what]
            if jobs:
                self._group = self._chosen(what, jobs)
                return self._group[0]
        return None

    def _chosen(self, what: str, jobs: list[Seat]) -> list[Seat]:
        if what in ("backward", "gathering"):
            return jobs
        if what == "answers":
            return self._asking_alike(jobs)
        jobs = sorted(jobs, key=lambda seat: seat.passes)
        most = self.size.most if what == "validation" else self.size.now(self._device, len(jobs))
        return jobs[:most]

    def _asking_alike(self, jobs: Sequence[Seat]) -> list[Seat]:
        """Return who asks what one asks that is behind the others, as many as can be answered."""
        if self.answering.most == 1:
            return [jobs[0]]
        asked = {seat: seat._question for seat in jobs if seat._question is not None}
        first = min(asked.values(), key=lambda question: question.place)
        alike = [seat for seat, question in asked.items() if question.is_like(first)]
        return list(evenly(alike, self.answering.most)[0])

    @property
    def _device(self) -> torch.device:
        assert self._base is not None
        return device_of(self._base.base)

    def time(self) -> float:
        """Seconds of a clock; while sizes are measured, with all done that a device was given.

        Otherwise no pass waits for the device: the next jobs' work is prepared meanwhile.
        """
        if self.size.measuring:
            synchronize(self._device)
        return time.perf_counter()

    def share_wait(self, seat: Seat, seconds: float) -> None:
        """Charge what one job has waited for the device to those that shared the last pass with it.

        All read their losses after the same steps: whoever is first waits for what all have queued.
        """
        group = [each for each in self._group if each.takes_part]
        group = group if seat in group else [seat]
        for each in group:
            each.charge(seconds / len(group))
        seat.charge(-seconds)

    def begin_own_pass(self, seat: Seat) -> None:
        """Remember that the last pass is one that a job makes by itself."""
        self._group = [seat]

    def note_alone(self, seat: Seat, begun: float) -> None:
        """Take down what a forward and a backward pass of one job took."""
        self.size.note(1, seat.tokens, self.time() - begun)

    def pass_through(self) -> None:
        """Make the pass of the group, led by its first seat, whose turn it is."""
        group, what, shared = self._group, self._group[0].waiting, len(self._group) > 1
        if what == "gathering":
            for seat in group:
                seat.waiting = ""
            return
        begun = self.time()
        if what == "backward":
            self._backward(group)
        elif shared:
            group = self._group = self._shared_by_most(group, what)
        seconds = self.time() - begun
        if what == "forward":
            self._seconds = seconds
        elif what == "backward":
            self._seconds += seconds
            self.size.note(len(group), sum(seat.tokens for seat in group), self._seconds)
        for seat in group:
            seat.waiting = ""
            seat.charge(seconds / len(group))
        group[0].charge(-seconds)
        if what == "answers":  # they have been read
            self._group = []

    def _shared_by_most(self, group: list[Seat], what: str) -> list[Seat]:
        """Make a pass that leads forward; with too little memory, of half the group, then the rest.

        Whatever else goes wrong, each of the group goes on by itself, and fails alone if it does.
        """
        size = self.answering if what == "answers" else self.size
        while len(group) > 1:
            states, first = [seat.random for seat in group], torch_random()
            try:
                if what == "answers":
                    self._answer(group)
                else:
                    self._forward(group, what == "forward")
                return group
            except Exception as error:
                why, memory = _said(error), is_out_of_memory(error)
            # Outside the handler, so that the traceback no longer holds the failed pass's tensors.
            set_torch_random(first)
            for seat, state in zip(group, states, strict=True):
                seat.random = state
            free_memory()
            if not memory:
                log.warning(
                    "%d jobs cannot share a pass (%s): each goes on alone.", len(group), why
                )
                for seat in group:
                    seat.go_alone(why)
                return group
            size.limit(len(group) // 2)
            log.warning("Out of memory with %d jobs in a pass: fewer go on.", len(group))
            group = group[: len(group) // 2]
        return group

    def _answer(self, group: Sequence[Seat]) -> None:
        asked = {seat.number: seat._question for seat in group if seat._question is not None}
        assert self._base is not None
        first = next(iter(asked.values()))
        for seat, answer in zip(group, first.answer(self._base, asked), strict=True):
            seat._answer, seat.answered = answer, len(group)

    def _forward(self, group: Sequence[Seat], training: bool) -> None:
        assert self._base is not None
        before = [torch_random(), *(seat.random for seat in group[1:])]
        logits = self._base.answer_logits(self._parts(group), training)
        for seat, own, random in zip(group, logits, before, strict=True):
            if training:
                assert random is not None
                seat.share(own, random, len(group))
            else:
                seat._logits = own

    def _parts(self, group: Sequence[Seat]) -> list[Part]:
        first, *others = group  # the first one's random states are those in force
        parts = [Part(seat.number, seat._batch, seat.own_random) for seat in others]
        return [Part(first.number, first._batch, nullcontext), *parts]

    def _backward(self, group: Sequence[Seat]) -> None:
        """Make the backward pass; where that fails each of the group makes both again, alone."""
        shared = [seat._shared for seat in group if seat._shared is not None]
        graded = [(s.logits, s.own.grad) for s in shared if s.logits is not None]
        pairs = [(logits, grad) for logits, grad in graded if grad is not None]
        try:
            with _all_or_none([p for seat in group for p in seat.trained()]):
                if pairs:
                    torch.autograd.backward(
                        [made for made, _ in pairs], [grad for _, grad in pairs]
                    )
            return
        except Exception as error:
            why, memory = _said(error), is_out_of_memory(error)
        for seat, each in zip(group, shared, strict=True):
            each.logits, each.failed = None, True
            if not memory:
                seat.go_alone(why)
        del graded, pairs
        free_memory()
        if memory:
            self.size.limit(len(group) // 2)
        log.warning("A backward pass of %d jobs failed (%s): each makes its own.", len(group), why)


def _said(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@contextmanager
def _all_or_none(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Add the gradients that are made inside to those that are there; after an error none."""
    before = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        yield
    except BaseException:
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient
        raise
    for parameter, gradient in zip(parameters, before, strict=True):
        if gradient is not None:
            new = parameter.grad
            parameter.grad = gradient if new is None else gradient.add_(new)
