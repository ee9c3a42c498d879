"""Who waits for an answer: long work ends when nobody does any more, or when the app is to end."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic
from typing import final

from binsight.errors import CannotBeDone

GRACE_S = 5.0  # without anybody waiting: between a question and the stream of its answers, or while a network hiccups
_MOST_REMEMBERED = 1000


@final
class Visitors:
    """The sessions whose browsers hold a stream of answers open. Used by many threads."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: dict[str, int] = {}
        self._seen: OrderedDict[str, float] = OrderedDict()  # when a session waited last
        self._stopped: OrderedDict[str, float] = OrderedDict()  # when a session stopped its work last
        self.is_ending = False

    @contextmanager
    def waiting(self, session: str) -> Iterator[None]:
        """While a stream of a session is open."""
        with self._lock:
            self._waiting[session] = self._waiting.get(session, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting[session] -= 1
                if not self._waiting[session]:
                    del self._waiting[session]
                self._seen[session] = self._clock()
                self._seen.move_to_end(session)
                if len(self._seen) > _MOST_REMEMBERED:
                    self._seen.popitem(last=False)

    def stop(self, session: str | None) -> None:
        """End the work of a session that has begun; what it begins later goes on."""
        with self._lock:
            self._stopped[session or ""] = self._clock()
            self._stopped.move_to_end(session or "")
            if len(self._stopped) > _MOST_REMEMBERED:
                self._stopped.popitem(last=False)

    def end(self) -> None:
        """The app ends: no stream is held open any more, and no work goes on."""
        self.is_ending = True

    def work_for(self, session: str | None) -> Callable[[], None]:
        """What long work calls at every step: it raises CannotBeDone when it was stopped, or nobody waits for it."""
        started = self._clock()

        def go_on() -> None:
            with self._lock:
                is_waited_for = session in self._waiting
                is_stopped = self._stopped.get(session or "", -inf) >= started
                seen = max(started, self._seen.get(session or "", started))
            if is_stopped:
                raise CannotBeDone("the work was stopped, as asked")
            if self.is_ending or (not is_waited_for and self._clock() - seen > GRACE_S):
                raise CannotBeDone("the work was stopped, since nobody waited for it")

        return go_on
