"""Around every request: an id, a deadline, one line of log, metrics, and an answer whatever happens inside."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from time import perf_counter
from typing import final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from binsight.api.metrics import Metrics
from binsight.api.problems import HttpProblem, response_of
from binsight.api.server import CALLER, NOTE
from binsight.errors import Overloaded

REQUEST_ID = "X-Request-ID"
_SANE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_GONE = 499  # in logs and metrics only: nobody was there to be answered
_LINGER_S = 2.0
_SMALL_BYTES = 2**18
_BREATH_S = 0.001  # between two chunks of large bodies, whoever sends them
_PIECE_BYTES = 2**18
_log = logging.getLogger(__name__)


@final
class Envelope:
    """An ASGI application around another.

    An upload that is refused before its end is read on for a moment, up to `linger_bytes`, and thrown away: a client that is
    still sending would otherwise find a broken connection in place of the reason.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, deadline_s: float, linger_bytes: int) -> None:
        self._app = app
        self._metrics = metrics
        self._deadline_s = deadline_s
        self._linger_bytes = linger_bytes
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        exchange = _Exchange(receive, send, Headers(scope=scope), self._linger_bytes, self._turn)
        try:
            async with asyncio.timeout(self._deadline_s):
                if exchange.is_framed_twice:
                    await exchange.answer(_framed_twice(), scope)
                else:
                    await self._app(scope, exchange.receive, exchange.send)
        except TimeoutError:  # ours: one from inside has become an answer there
            if exchange.status:
                exchange.status = _GONE  # the answer was not read
            await exchange.answer(self._late(exchange), scope)
        except ClientDisconnect:
            exchange.status = _GONE
        except Exception as error:  # noqa: BLE001, the last resort: told as our bug
            _log.exception("internal error", extra={"request_id": exchange.request_id, "error": type(error).__name__})
            await exchange.answer(_internal(), scope)
        finally:
            self._tell(scope, exchange, perf_counter() - started)

    def _late(self, exchange: _Exchange) -> HttpProblem:
        if exchange.is_reading:
            return HttpProblem(408, f"the body did not come within {self._deadline_s:g} s", name=Overloaded.__name__)
        detail = f"not done within {self._deadline_s:g} s; a write may still be carried out"
        return HttpProblem(504, detail, name=Overloaded.__name__, headers={"Retry-After": "1"})

    def _tell(self, scope: Scope, exchange: _Exchange, seconds: float) -> None:
        route: str = getattr(scope.get("route"), "path", None) or (scope["path"] if "endpoint" in scope else "unmatched")
        status = exchange.status or _GONE
        self._metrics.request(scope["method"], route, status, seconds)
        _log.info(
            "request",
            extra={
                "request_id": exchange.request_id,
                "method": scope["method"],
                "route": route,
                "path": scope["path"],
                "status": status,
                "took_ms": round(1000 * seconds, 3),
                "caller": scope.get(CALLER),
                "bytes_in": exchange.bytes_in,
                **({"note": scope[NOTE]} if NOTE in scope else {}),
            },
        )


@final
class _Exchange:
    """One request and its answer, watched: what came in, and whether the answer has begun."""

    def __init__(self, receive: Receive, send: Send, headers: Headers, linger_bytes: int, turn: asyncio.Lock) -> None:
        wished = headers.get(REQUEST_ID, "")
        self.request_id = wished if _SANE.fullmatch(wished) else uuid.uuid4().hex
        self.status = 0
        self.bytes_in = 0
        self.is_framed_twice = "content-length" in headers and "transfer-encoding" in headers
        self.is_reading = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._receive = receive
        self._send = send
        self._linger_bytes = linger_bytes
        self._turn = turn

    async def receive(self) -> Message:
        if self.bytes_in > _SMALL_BYTES:  # one chunk of one large body at a time, and others in between
            async with self._turn:
                await asyncio.sleep(_BREATH_S)
        message = await self._receive()
        if message["type"] == "http.request":
            self.bytes_in += len(message.get("body", b""))
            self.is_reading = message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)[REQUEST_ID] = self.request_id
        elif self.is_reading and self.status >= 400 and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        body = memoryview(message.get("body", b""))
        while len(body) > _PIECE_BYTES:  # each piece waits until the client has read most of those before
            await self._send({**message, "body": bytes(body[:_PIECE_BYTES]), "more_body": True})
            body = body[_PIECE_BYTES:]
            message = {**message, "body": bytes(body[:_PIECE_BYTES])}
        await self._send(message)

    async def answer(self, problem: HttpProblem, scope: Scope) -> None:
        """The problem as the answer, unless another has begun."""
        if not self.status:
            await response_of(problem)(scope, self.receive, self.send)

    async def _linger(self) -> None:
        most = self.bytes_in + self._linger_bytes
        try:
            async with asyncio.timeout(_LINGER_S):
                while self.is_reading and self.bytes_in < most:
                    if (await self.receive())["type"] == "http.disconnect":
                        return
        except TimeoutError:
            return


def _framed_twice() -> HttpProblem:
    """Of two lengths a proxy in front may believe the other one, and what is left would be somebody's next request."""
    detail = "a body has one length: send either Content-Length or Transfer-Encoding"
    return HttpProblem(400, detail, headers={"Connection": "close"})


def _internal() -> HttpProblem:
    return HttpProblem(500, "an internal error; its request id is in the server's log")
