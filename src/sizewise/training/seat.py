"""The place of one job among those that share passes: what it waits for, brings and gets."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from sizewise.devices import is_out_of_memory, synchronize
from sizewise.models.adapter.packed import PackedBase
from sizewise.models.adapter.wrapping import base_of
from sizewise.models.head import answer_logits, answer_targets, rows_at_once
from sizewise.training.group_size import GroupSize

log = logging.getLogger(__name__)
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


class Passes(Protocol):
    """Makes the passes that jobs share; see ``training.pack.Pack``."""

    size: GroupSize
    answering: GroupSize

    def admit(self, number: int, model: nn.Module) -> str:
        """Let the model of a seat take part; return why it cannot, or nothing."""

    def dismiss(self, number: int) -> None:
        """Let go of the model of a seat."""

    def pass_through(self) -> None:
        """Make the pass that the seat whose turn it is, and others, wait for."""

    def time(self) -> float:
        """Seconds of a clock."""

    def share_wait(self, seat: Seat, seconds: float) -> None:
        """Charge what one job has waited for the device to those that had a part in its work."""

    def begin_own_pass(self, seat: Seat) -> None:
        """Take note of a pass that a job makes by itself."""

    def note_alone(self, seat: Seat, begun: float) -> None:
        """Take down what a forward and a backward pass of one job took."""


@dataclass(eq=False)
class Seat:
    """The place of one job in a pack.

    Attributes:
        pause: lets the others go on; returns when it is this one's turn again.
        random: torch's random states of this job while another one runs.
        waiting: the pass that it waits for (``pack.PASSES``); empty while it can go on.
        passes: forward passes so far.
        together: how many jobs shared the last one of training.
        answered: how many shared the last answers.
    """

    pack: Passes
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
        if logits is None:
            self.pack.begin_own_pass(self)
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
            self.pack.begin_own_pass(self)
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
        self.pack.begin_own_pass(self)
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

    @property
    def takes_part(self) -> bool:
        return self._model is not None

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


def wait_for_device(device: torch.device) -> None:
    """Wait until a device has done what it was given.

    In a pack that is the work of several jobs: each is charged with an equal part of the wait.
    """
    seat, begun = _seat.get(), time.perf_counter()
    synchronize(device)
    if seat is not None:
        seat.pack.share_wait(seat, time.perf_counter() - begun)
