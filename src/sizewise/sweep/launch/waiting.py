"""Jobs that wait for a worker, and which of them is begun next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from sizewise.record.identity import reuse_key

# Below this many weights a base is loaded in no time, and one operation is too short to be worth
# sharing among threads.
SMALL_MODEL = 30_000_000


def rough_size(config: Mapping[str, Any]) -> int:
    """Estimate a model's weights from its figures or its files; 0 where there are neither."""
    model = config.get("model") or {}
    figures = model.get("architecture")
    if model.get("init") == "tiny_random" or model.get("family") == "classical":
        return 1
    if not figures:
        files = Path(str(model.get("path"))).expanduser().glob("*.safetensors")
        return sum(file.stat().st_size for file in files) // 2
    width, layers = figures["hidden_size"], figures["num_layers"]
    block = 4 * width * width + 3 * width * figures["intermediate_size"]
    return int(figures["vocab_size"] * width + layers * block)


class OnABase(Protocol):
    """What waits: its configuration names the base that it needs."""

    @property
    def config(self) -> Mapping[str, Any]: ...


Waits = TypeVar("Waits", bound=OnABase)


class Waiting(Generic[Waits]):
    """Jobs that wait, by the base they need; to take one costs no more with many.

    Those on the largest base are begun first, so that at the end short ones fill what is left of
    the workers' time (longest processing time first, Graham 1969). A base of unknown size comes
    between the large and the small ones.

    Args:
        jobs: those that wait already.
        as_given: take them in this order, whatever their bases.
    """

    def __init__(self, jobs: Sequence[Waits], as_given: bool = False) -> None:
        self._as_given = as_given
        self._of_base: dict[str, deque[Waits]] = {}
        self._sizes: dict[str, int] = {}
        self._worked: set[str] = set()
        self._sorted = True
        for job in jobs:
            self.put(job)

    def __len__(self) -> int:
        return sum(map(len, self._of_base.values()))

    def __iter__(self) -> Iterator[Waits]:
        return chain.from_iterable(self._of_base.values())

    def put(self, job: Waits) -> None:
        """Let a job wait behind those on the same base."""
        base = self._base(job)
        if base not in self._sizes:
            self._sizes[base] = rough_size(job.config) or SMALL_MODEL + 1
        if base not in self._of_base:
            self._of_base[base], self._sorted = deque(), False
        self._of_base[base].append(job)

    def _base(self, job: Waits) -> str:
        return "" if self._as_given else reuse_key(job.config)

    def wants(self, base: str | None) -> bool:
        """Whether a job on this base waits."""
        return base in self._of_base

    def ended(self, job: Waits) -> None:
        """Learn that a job has ended: the untouched model's answers on its base are there."""
        self._worked.add(self._base(job))

    def take(self, loaded: str | None, elsewhere: Collection[str | None]) -> Waits:
        """Take the next job for a worker that has ``loaded`` a base, or none yet.

        A worker stays on a large base. Else it takes the largest among its own, those that no other
        worker has, and the small ones on which a job has ended (before that, two jobs on one base
        would wait for the same answers). Its first is, where possible, no other's. Raises
        IndexError where none waits.
        """
        if not self._of_base:
            raise IndexError("no job waits")
        if not self._sorted:
            by_size = sorted(self._of_base.items(), key=lambda item: -self._sizes[item[0]])
            self._of_base, self._sorted = dict(by_size), True
        base = self._choose(loaded, elsewhere)
        job = self._of_base[base].popleft()
        self._drop_if_empty(base)
        return job

    def _choose(self, loaded: str | None, elsewhere: Collection[str | None]) -> str:
        if loaded is None:
            near = (base for base in self._of_base if base not in elsewhere)
        elif loaded in self._of_base and not self._small(loaded):
            return loaded
        else:
            near = (
                base
                for base in self._of_base
                if base not in elsewhere
                or base == loaded
                or (self._small(base) and base in self._worked)
            )
        return next(near, next(iter(self._of_base)))

    def _small(self, base: str) -> bool:
        return self._sizes[base] <= SMALL_MODEL

    def take_like(self, job: Waits, fits: Callable[[Waits], bool], most: int) -> list[Waits]:
        """Take at most so many of the jobs on the base of ``job`` that fit, in their order."""
        base = self._base(job)
        jobs, found = self._of_base.get(base, deque()), list[Waits]()
        for other in list(jobs) if most > 0 else ():
            if fits(other):
                jobs.remove(other)
                found.append(other)
            if len(found) == most:
                break
        self._drop_if_empty(base)
        return found

    def _drop_if_empty(self, base: str) -> None:
        if base in self._of_base and not self._of_base[base]:
            del self._of_base[base]
