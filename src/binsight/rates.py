"""How fast each stage of a pipeline is, and which one holds up the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import final

from binsight.records import Metadata


@dataclass(frozen=True, slots=True)
class StageRate:
    """What a stage has done. busy_s: seconds that its threads worked (or waited for a disk or a server), all together.

    >>> StageRate("read", threads=4, items=100, busy_s=2.0).per_s
    200.0
    """

    stage: str
    threads: int
    items: int
    busy_s: float

    @property
    def per_s(self) -> float:
        """Items a second while all its threads are busy."""
        return self.items * self.threads / self.busy_s if self.busy_s else 0.0

    def share(self, wall_s: float) -> float:
        """How much of the time its threads were busy: 0 … 1."""
        return min(1.0, self.busy_s / self.threads / wall_s) if wall_s > 0 else 0.0


@final
class Rates:
    """A stopwatch of every stage, and how many inputs were passed over as unchanged. Used by many threads at once."""

    def __init__(self, threads: Mapping[str, int] | None = None) -> None:
        self.unchanged = 0
        self._lock = threading.Lock()
        self._threads = dict(threads or {})
        self._done: dict[str, tuple[int, float]] = {}
        self._at_work: dict[object, tuple[str, float]] = {}  # blocks that are being timed: stage, and since when

    def use(self, stage: str, threads: int) -> None:
        """Say how many threads a stage has; one by default."""
        with self._lock:
            self._threads[stage] = threads

    def add(self, stage: str, items: int, busy_s: float) -> None:
        with self._lock:
            before = self._done.get(stage, (0, 0.0))
            self._done[stage] = before[0] + items, before[1] + busy_s

    @contextmanager
    def timing(self, stage: str, items: int) -> Iterator[None]:
        """Add the time that a block takes, also while it lasts; nothing when it fails."""
        started, block = perf_counter(), object()
        with self._lock:
            self._at_work[block] = stage, started
        try:
            yield
        finally:
            with self._lock:
                del self._at_work[block]
        self.add(stage, items, perf_counter() - started)

    def stages(self) -> list[StageRate]:
        """Every stage that has begun, in the order in which they did."""
        with self._lock:
            done, now = dict(self._done), perf_counter()
            for stage, started in self._at_work.values():
                items, busy_s = done.get(stage, (0, 0.0))
                done[stage] = items, busy_s + now - started
            return [StageRate(name, self._threads.get(name, 1), *one) for name, one in done.items()]


def bottleneck(stages: list[StageRate]) -> str | None:
    """The stage whose threads were busy for the longest, which a faster job has to begin with; None without any.

    >>> bottleneck([StageRate("read", 4, 10, 2.0), StageRate("encode", 1, 10, 1.5)])
    'encode'
    """
    busiest = max(stages, key=lambda one: one.busy_s / one.threads, default=None)
    return busiest.stage if busiest is not None else None


def rates_json(stages: list[StageRate], wall_s: float) -> list[Metadata]:
    """The stages as a report shows them; `busy` is the share of the wall time."""
    return [
        {
            "stage": one.stage,
            "threads": one.threads,
            "items": one.items,
            "busy_s": round(one.busy_s, 3),
            "per_s": round(one.per_s, 1),
            "busy": round(one.share(wall_s), 3),
        }
        for one in stages
    ]
