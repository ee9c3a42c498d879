"""How much a server takes on: places, given at once or not at all; memory and turns, which are waited for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter
from typing import final

from binsight.api.problems import busy


@final
class Budget:
    """So much together at once. Threads wait for their share; one that wants more than all of it goes alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def taking(self, count: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + count <= self._most)
            self._taken += count
        try:
            yield
        finally:
            with self._changed:
                self._taken -= count
                self._changed.notify_all()


@final
class Turns:
    """Large documents one after another, and after each a pause as long as reading it took: the loop has other work, too."""

    def __init__(self, small_bytes: int) -> None:
        self._small_bytes = small_bytes
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def taking(self, size_bytes: int) -> AsyncIterator[None]:
        if size_bytes <= self._small_bytes:
            yield
            return
        async with self._turn:
            started = perf_counter()
            try:
                yield
            finally:
                await asyncio.sleep(perf_counter() - started)


@final
class Places:
    """A number of places. Who finds too few is told at once to come again; nobody waits."""

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self.most = most
        self._taken = 0
        self._lock = threading.Lock()  # places are given back by the threads that end the work

    @property
    def taken(self) -> int:
        return self._taken

    def expect(self, count: int = 1) -> None:
        """Raise HttpProblem 503 where `take` would, without taking: before an upload is read for nothing."""
        if self._taken + count > self.most:
            raise self._full()

    def take(self, count: int = 1) -> None:
        """Raises HttpProblem 503 where fewer are free."""
        with self._lock:
            if self._taken + count > self.most:
                raise self._full()
            self._taken += count

    def give_back(self, count: int = 1) -> None:
        with self._lock:
            self._taken -= count

    @contextmanager
    def taking(self, count: int = 1) -> Iterator[None]:
        self.take(count)
        try:
            yield
        finally:
            self.give_back(count)

    def _full(self) -> Exception:
        return busy(f"all {self.most} places for {self.name} are taken; try again in a moment")
