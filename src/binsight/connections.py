"""Connections that bring no request, do not read their answer, or send crumbs, are given up; uvicorn takes them as they are."""

from __future__ import annotations

import asyncio
from typing import Any, final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CHUNKS, BYTES_A_CHUNK = 2_048, 512  # of one body: so many, and one for each 512 bytes
_MOST_HEAD_BYTES = 65_536  # as uvicorn


@final
class _Coarse(h11.Connection):
    """Takes no body in very many small chunks: each takes 20 µs to be read, and a packet may hold thousands.

    why: what is wrong with the request, for who sent it.
    """

    why = ""
    _left = MOST_CHUNKS * BYTES_A_CHUNK

    def next_event(self) -> Any:  # as h11's
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._left = MOST_CHUNKS * BYTES_A_CHUNK
        elif isinstance(event, h11.Data):
            self._left += len(event.data) - BYTES_A_CHUNK * event.chunk_end
            if self._left < 0:
                self.why = f"Too many small chunks; send some of {BYTES_A_CHUNK} bytes or more."
                raise h11.RemoteProtocolError(self.why)
        return event


def protocol_of(patience_s: float) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1, which ends a connection whose next request's headers, or whose reading on, take longer than this."""

    class Impatient(H11Protocol):
        """Holds a timer while no request runs and, after the first one, while the next has begun to come."""

        _giving_up: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None

        def __init__(self, *args: Any, **named: Any) -> None:  # as uvicorn's
            super().__init__(*args, **named)
            self._coarse = self.conn = _Coarse(h11.SERVER, _MOST_HEAD_BYTES)

        def send_400_response(self, msg: str) -> None:
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                super().send_400_response(self._coarse.why or msg)
            else:  # it has its answer
                self.transport.close()

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
