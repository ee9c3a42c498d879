"""The survey of a store, made when it is first wanted, and again when it is old or another store answers."""

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
        self._last: tuple[float, str, Survey] | None = None

    def current(self) -> Survey:
        """One of this store that is at most a minute old. Raises what the backend raises."""
        with self._lock:
            if self._last is not None:
                made_s, name, survey = self._last
                if monotonic() - made_s <= self._fresh_s and name == self._backend.name:
                    return survey
            return self._made()

    def fresh(self) -> Survey:
        """A new one."""
        with self._lock:
            return self._made()

    def _made(self) -> Survey:
        name, survey = self._backend.name, self._backend.survey()
        self._last = monotonic(), name, survey
        return survey
