"""Connections that bring no request, or do not read their answer, are given up; uvicorn itself waits for ever for both."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def protocol_of(patience_s: float) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1, which ends a connection whose next request's headers, or whose reading on, take longer than this."""

    class Impatient(H11Protocol):
        """Holds a timer while no request runs and, after the first one, while the next has begun to come."""

        _giving_up: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._forget()
            self._read_on()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._forget()  # between requests uvicorn has a shorter timer of its own

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._unread is None:
                self._unread = self.loop.call_later(patience_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._read_on()

        def _read_on(self) -> None:
            if self._unread is not None:
                self._unread.cancel()
                self._unread = None

        def _watch(self) -> None:
            cycle: Any = self.cycle  # None before the first request, which uvicorn's type leaves out
            if cycle is not None and not cycle.response_complete:
                self._forget()
            elif self._giving_up is None:
                self._giving_up = self.loop.call_later(patience_s, self.transport.close)

        def _forget(self) -> None:
            if self._giving_up is not None:
                self._giving_up.cancel()
                self._giving_up = None

    return Impatient
