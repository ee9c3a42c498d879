"""Pictures of several requests pass the model together: whatever waits when the model is free is its next batch."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from time import perf_counter
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from binsight.encoder import Encoder
from binsight.errors import BadVectors
from binsight.records import Count
from binsight.vectors import Vectors

Pixels: TypeAlias = NDArray[np.uint8]  # (h, w, 3)


@dataclass(frozen=True, slots=True)
class Told:
    """What a model says of one picture. vector: (1, dim)."""

    vector: Vectors
    count: Count | None
    labels: tuple[tuple[str, float], ...] | None


@final
class Batcher:
    """One thread that runs the model. How many may wait is for the caller to bound.

    most: pictures in one pass. observe: is told of each pass how many pictures it had and how many seconds it took.
    """

    def __init__(self, encoder: Encoder, *, most: int, observe: Callable[[int, float], None]) -> None:
        self._encoder = encoder
        self._most = most
        self._observe = observe
        self._waiting: deque[tuple[Pixels, Future[Told]]] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, pixels: Pixels) -> Future[Told]:
        """What the model will say of pixels that its `preprocess` made; BadVectors where that has no direction."""
        future: Future[Told] = Future()
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the batcher is closed")
            self._waiting.append((pixels, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._taken():
            live = [(pixels, future) for pixels, future in batch if future.set_running_or_notify_cancel()]
            if live:
                self._answer(live)

    def _taken(self) -> list[tuple[Pixels, Future[Told]]]:
        """What waits, up to `most`; empty when there is nothing more to come."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most))]

    def _answer(self, batch: list[tuple[Pixels, Future[Told]]]) -> None:
        started = perf_counter()
        try:
            encoded = self._encoder.encode_pixels(np.stack([pixels for pixels, _ in batch]))
        except BadVectors as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            for one in batch:  # one picture's answer must not be another's error
                self._answer([one])
            return
        except Exception as error:  # noqa: BLE001, it belongs to those who asked
            for _, future in batch:
                future.set_exception(error)
            return
        self._observe(len(batch), perf_counter() - started)
        for row, (_, future) in enumerate(batch):
            count = None if encoded.counts is None else encoded.counts[row]
            labels = None if encoded.labels is None else encoded.labels[row]
            future.set_result(Told(encoded.vectors[row : row + 1], count, labels))
