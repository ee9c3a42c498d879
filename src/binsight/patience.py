"""Waiting for a store that is away, or takes no writes, for a while, and no longer than somebody waits for its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event, Lock
from time import perf_counter
from typing import TypeVar, final

from binsight.errors import StoreHeld, StoreUnavailable

T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
_given_up: ContextVar[Event | None] = ContextVar("given_up", default=None)


@contextmanager
def until(given_up: Event) -> Iterator[None]:
    """What this thread asks of a store within the `with` is asked no more once the event is set: nobody waits for it."""
    token = _given_up.set(given_up)
    try:
        yield
    finally:
        _given_up.reset(token)


def is_given_up() -> bool:
    """Whether nobody waits any more for what this thread asks."""
    event = _given_up.get()
    return event is not None and event.is_set()


@final
class Patience:
    """Asks a store again, for up to `limit_s` each time that it is away, or held for another one to take its place.

    waited_s: how long that took, of all threads.
    """

    def __init__(self, limit_s: float) -> None:
        self.waited_s = 0.0
        self._limit_s = limit_s
        self._lock = Lock()
        self._given_up = Event()

    def call(self, action: Callable[[], T]) -> T:
        """What the store answers. Raises StoreUnavailable or StoreHeld when it stays so, or after `give_up`."""
        began, pause_s, has_failed = perf_counter(), FIRST_PAUSE_S, False
        try:
            while True:
                try:
                    return action()
                except (StoreUnavailable, StoreHeld):
                    has_failed = True
                    if perf_counter() - began + pause_s > self._limit_s or self._given_up.wait(pause_s):
                        raise
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        finally:
            if has_failed:
                with self._lock:
                    self.waited_s += perf_counter() - began

    def give_up(self) -> None:
        """Wait no more, in no thread."""
        self._given_up.set()
