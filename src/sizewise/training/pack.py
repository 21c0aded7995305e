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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from sizewise.devices import device_of, free_memory, is_out_of_memory, synchronize
from sizewise.models.adapter.packed import PackedBase, Part, why_alone
from sizewise.models.adapter.wrapping import base_of
from sizewise.models.head import answer_logits, answer_targets, rows_at_once
from sizewise.training.group_size import GroupSize, evenly

log = logging.getLogger(__name__)
# What there is to wait for; what stands first is done first: a pass that is to be differentiated
# holds memory. Who gathers waits for all others, and there is no pass then.
PASSES = ("backward", "validation", "forward", "answers", "gathering")
Random = tuple[Tensor, Tensor | None]


def torch_random() -> Random:
    """Return torch's random states: of the CPU and of the GPU, where that is in use."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return torch.get_rng_state(), cuda


def set_torch_random(state: Random) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])


@dataclass(eq=False)
class Shared:
    """What a job has of a shared forward pass of training.

    Attributes:
        logits: (N, V), of the pass; None where nothing is to be differentiated for this job.
        own: the same outside of the pass: as far as these the job differentiates its loss.
        random, cast: random states and autocasting (whether, to what) before the pass.
        failed: the backward pass did.
    """

    logits: Tensor | None
    own: Tensor
    random: Random
    cast: tuple[bool, torch.dtype]
    failed: bool = False

    @contextmanager
    def as_before(self) -> Iterator[None]:
        """Let a pass be made as this one was."""
        now, (enabled, dtype) = torch_random(), self.cast
        set_torch_random(self.random)
        try:
            with torch.autocast(self.own.device.type, dtype=dtype, enabled=enabled):
                yield
        finally:
            set_torch_random(now)


class Question(Protocol):
    """A batch of prompts that a job's model is to answer."""

    @property
    def place(self) -> int:
        """In the order in which the job answers: whoever has the first one is behind the others."""

    def is_like(self, other: Self) -> bool:
        """Whether both can be answered at once."""

    def answer(self, base: PackedBase, asked: Mapping[int, Self]) -> list[Any]:
        """Answer at once what some members ask, in their order."""


@dataclass(eq=False)
class Seat:
    """The place of one job in a pack.

    Attributes:
        pause: lets the others go on; returns when it is this one's turn again.
        random: torch's random states of this job while another one runs.
        waiting: the pass that it waits for (``PASSES``); empty while it can go on.
        passes: forward passes so far.
        together: how many jobs shared the last one of training.
        answered: how many shared the last answers.
    """

    pack: Pack
    number: int
    pause: Callable[[], None]
    random: Random | None = None
    waiting: str = ""
    passes: int = 0
    together: int = 1
    answered: int = 1
    _model: nn.Module | None = None
    _batch: Mapping[str, Any] = field(default_factory=dict)
    _alone: str | None = None
    _logits: Tensor | None = None
    _question: Question | None = None
    _answer: Any = None
    _shared: Shared | None = None
    _begun: float | None = None
    _spent: float = 0.0
    _since: float | None = None

    def answer_logits(self, model: nn.Module, batch: Mapping[str, Any]) -> Tensor | None:
        """As ``models.head.answer_logits``, from one pass with the other jobs.

        In training mode where gradients are on. None: there is no such pass, and the job is to make
        its own.
        """
        training = torch.is_grad_enabled()
        if training:
            self.passes, self.together = self.passes + 1, 1
            self._begun = self._shared = None
        if self._takes_part(model) and not _is_long(model, batch):
            self._batch = batch
            self._wait("forward" if training else "validation")
        logits, self._logits = self._logits, None
        if training and logits is None and self._batch is batch:
            self._begun = self.pack.time()
        return logits

    def answer(self, model: nn.Module, question: Question) -> Any:
        """Return what ``model`` answers, with the other jobs that ask the like.

        None: there is no such pass, and the job is to answer on its own.
        """
        self.answered = 1
        if not self._takes_part(model):
            return None
        self._question = question
        self._wait("answers")
        answer, self._answer, self._question = self._answer, None, None
        return answer

    def gather(self) -> None:
        """Wait until all others gather, too, or have left."""
        self._wait("gathering")

    def backward(self, loss: Tensor) -> None:
        """Differentiate ``loss``, with those of the jobs whose forward pass was the same."""
        loss.backward()  # after a shared pass no further than to the logits
        if self._shared is None:
            if self._begun is not None:
                self.pack.note_alone(self, self._begun)
            return
        self._wait("backward")
        shared, self._shared = self._shared, None
        if shared.failed and shared.own.grad is not None:
            self.together = 1
            assert self._model is not None
            with shared.as_before():
                logits = answer_logits(self._model, self._batch)
            logits.backward(shared.own.grad)

    def gets_alone(self, error: BaseException) -> bool:
        """Whether the job is to make a pass of its own, since it ran out of memory in a shared one.

        The others have made theirs then, and random numbers are as before.
        """
        if self._shared is None or not is_out_of_memory(error):
            return False
        self.pack.size.limit(self.together // 2)
        shared, self.together = self._shared, 1
        shared.logits = None
        self._wait("backward")
        self._shared = None
        set_torch_random(shared.random)
        return True

    def share(self, logits: Tensor, random: Random, together: int) -> None:
        """Take the logits of a pass of training, and what it takes to make that again."""
        kind = logits.device.type
        cast = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        self._shared = Shared(logits, logits.detach().requires_grad_(), random, cast)
        self._logits, self.together = self._shared.own, together

    def trained(self) -> list[nn.Parameter]:
        return [p for p in self._model.parameters() if p.requires_grad] if self._model else []

    def _wait(self, what: str) -> None:
        self.waiting = what
        try:
            self.pause()
            if self.waiting:  # all the others wait, and it was this one's turn to go on
                self.pack.pass_through()
        finally:
            self.waiting = ""

    def _takes_part(self, model: nn.Module) -> bool:
        if model is not self._model:
            self.leave_passes()
            self._model, self._alone = model, self.pack.admit(self.number, model)
            if self._alone:
                log.info("This job goes without the others: %s.", self._alone)
        return not self._alone

    def leave_passes(self) -> None:
        """Take part no more: the fit, or the answering, has ended, however it did."""
        self.pack.dismiss(self.number)
        self._model = self._logits = self._shared = self._question = self._answer = None
        self._batch, self.waiting = {}, ""

    @property
    def tokens(self) -> int:
        """Tokens of the batch that was handed in, padding included."""
        return int(self._batch["input_ids"].numel())

    def go_alone(self, why: str) -> None:
        self._alone = why

    def resumed(self) -> None:
        self._since = time.perf_counter()

    def suspended(self) -> None:
        if self._since is not None:
            self._spent += time.perf_counter() - self._since
            self._since = None

    def charge(self, seconds: float) -> None:
        self._spent += seconds

    def clock(self) -> float:
        """Seconds of this job so far: its own, and its share of passes that were shared."""
        running = time.perf_counter() - self._since if self._since is not None else 0.0
        return self._spent + running

    @contextmanager
    def own_random(self) -> Iterator[None]:
        """Let torch draw this job's random numbers while another one runs."""
        assert self.random is not None
        others = torch_random()
        set_torch_random(self.random)
        try:
            yield
        finally:
            self.random = torch_random()
            set_torch_random(others)


def _is_long(model: nn.Module, batch: Mapping[str, Any]) -> bool:
    """Whether a batch has so many logits that they are made in parts."""
    return answer_targets(batch).numel() > rows_at_once(base_of(model))


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

    def time(self, shared: bool = False) -> float:
        """Seconds of a clock, with all done that a device was given: for a pass that is shared.

        A job's own work is then its own, and no other has a part in it. Of passes of one job that
        is so while sizes are measured.
        """
        if shared or self.size.measuring:
            synchronize(self._device)
        return time.perf_counter()

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
        begun = self.time(shared)
        if what == "backward":
            self._backward(group)
        elif shared:
            group = self._shared_by_most(group, what)
        seconds = self.time(shared) - begun
        if what == "forward":
            self._seconds = seconds
        elif what == "backward":
            self._seconds += seconds
            self.size.note(len(group), sum(seat.tokens for seat in group), self._seconds)
        for seat in group:
            seat.waiting = ""
            seat.charge(seconds / len(group))
        group[0].charge(-seconds)

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


_seat: ContextVar[Seat | None] = ContextVar("seat", default=None)


def current_seat() -> Seat | None:
    """The seat of the job that runs here; None where it is alone."""
    return _seat.get()


def sit(seat: Seat) -> None:
    """Let what runs in this context be the job of ``seat``."""
    _seat.set(seat)


def job_clock() -> float:
    """Seconds that the job here has taken, with its share of what it shares; they only go up."""
    seat = _seat.get()
    return time.perf_counter() if seat is None else seat.clock()
