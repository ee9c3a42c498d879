"""The survey of a store, made when it is first wanted and again when it is old."""

from __future__ import annotations

import threading
from time import monotonic
from typing import final

from binsight.app.backend import Backend
from binsight.app.survey import Survey

_FRESH_S = 60.0


@final
class Surveys:
    """Hands out the last survey; several visitors share it."""

    def __init__(self, backend: Backend, *, fresh_s: float = _FRESH_S) -> None:
        self._backend = backend
        self._fresh_s = fresh_s
        self._lock = threading.Lock()
        self._last: tuple[float, Survey] | None = None

    def current(self) -> Survey:
        """One that is at most a minute old. Raises what the backend raises."""
        with self._lock:
            if self._last is None or monotonic() - self._last[0] > self._fresh_s:
                self._last = monotonic(), self._backend.survey()
            return self._last[1]

    def fresh(self) -> Survey:
        """A new one."""
        with self._lock:
            self._last = monotonic(), self._backend.survey()
            return self._last[1]
