"""What stands before Gradio: it turns away requests that are too large, or that another website made the browser send.

And it tells the browser to load nothing from elsewhere: the screens work without a network, and nobody is told of a visit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias, final

from binsight.listening import is_loopback

Scope: TypeAlias = MutableMapping[str, Any]  # as ASGI has them
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_UPLOAD_BYTES = 300 << 20  # one request: a zip archive of some hundred photos
MOST_HELD_BYTES = 4 << 30  # all uploads and thumbnails that lie in the cache
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        b"style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


@final
class Guard:
    """An ASGI application around another. is_local: only this machine is served, so a request names it as its host.

    cache: the folder in which uploads lie.
    """

    def __init__(self, app: App, *, cache: Path, is_local: bool) -> None:
        self._app, self._cache, self._is_local = app, cache, is_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = await self._refusal(scope)
        if refusal is not None:
            await _answer(send, *refusal)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        await self._app(scope, receive, with_headers)

    async def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = dict(scope["headers"])
        if self._is_local and not is_loopback(headers.get(b"host", b"").decode("latin-1")):
            return 403, "without a password the app answers only calls to 127.0.0.1 or localhost"
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return None
        length = headers.get(b"content-length", b"")
        if not length.isdigit():
            return 411, "want a request that says how long it is"
        if int(length) > MOST_UPLOAD_BYTES:
            return 413, f"want at most {MOST_UPLOAD_BYTES >> 20} MB at once, got more"
        if await asyncio.to_thread(_held_bytes, self._cache) + int(length) > MOST_HELD_BYTES:
            return 507, "too many uploads are held; they are thrown away after an hour"
        return None


def _held_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except FileNotFoundError:  # thrown away meanwhile
            continue
    return total


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{text}\n".encode()})
