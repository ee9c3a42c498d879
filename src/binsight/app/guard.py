"""What stands before Gradio, and what it lets through.

It turns away requests that are too large, that another website made the browser send, that go to routes which the screens do
not use, and those that name a file as an upload which is none: a mounted Gradio checks that of no path, and would hand out any
file of the machine, or fetch any URL. And it tells the browser to load nothing from elsewhere: the screens work without a
network, and nobody is told of a visit.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias, final

from binsight.data.source import inside
from binsight.listening import is_loopback

Scope: TypeAlias = MutableMapping[str, Any]  # as ASGI has them
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_UPLOAD_BYTES = 300 << 20  # one request: a zip archive of some hundred photos
MOST_HELD_BYTES = 4 << 30  # all uploads and thumbnails that lie in the cache
MOST_QUESTION_BYTES = 1 << 20  # what the widgets say when something is asked

_QUESTION = "/gradio_api/queue/join"
_ROUTES = re.compile(
    r"/|/(config|theme\.css|robots\.txt|manifest\.json|favicon\.ico|login|logout)/?|/(static|assets|svelte)/.*"
    r"|/gradio_api/(file=.*|upload|upload_progress|queue/(join|data)|heartbeat/.*|reset|cancel|startup-events|login_check/?)"
)
_FILES = "/gradio_api/file="
_HEADERS = (
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (
        b"content-security-policy",
        b"default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        b"style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'",
    ),
)
_OF_FILES = (*_HEADERS[:2], (b"content-security-policy", b"default-src 'none'; sandbox"))  # an upload is nobody's page


@final
class Guard:
    """An ASGI application around another. is_local: only this machine is served, so a request names it as its host.

    cache: the folder in which everything lies that is held. uploads: the one within it that uploads come to.
    """

    def __init__(self, app: App, *, cache: Path, uploads: Path, is_local: bool) -> None:
        self._app, self._cache, self._uploads, self._is_local = app, cache, uploads.resolve(), is_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = await self._refusal(scope)
        if refusal is None and scope["path"] == _QUESTION:
            body = await _body(receive)
            receive = _again(body)
            refusal = self._refusal_of(body)
        if refusal is not None:
            await _answer(send, *refusal)
            return

        is_file = scope["path"].startswith(_FILES)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *(_OF_FILES if is_file else _HEADERS)]
            await send(message)

        await self._app(scope, receive, with_headers)

    async def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = dict(scope["headers"])
        if self._is_local and not is_loopback(headers.get(b"host", b"").decode("latin-1")):
            return 403, "without a password the app answers only calls to 127.0.0.1 or localhost"
        origin = headers.get(b"origin", b"").decode("latin-1")
        if self._is_local and origin and not is_loopback(origin.partition("://")[2]):
            return 403, "without a password the app takes no calls from web pages of other hosts"
        if not _ROUTES.fullmatch(scope["path"]):
            return 404, "there is no such page"
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return None
        length = headers.get(b"content-length", b"")
        if not length.isdigit():
            return 411, "want a request that says how long it is"
        most = MOST_QUESTION_BYTES if scope["path"] == _QUESTION else MOST_UPLOAD_BYTES
        if int(length) > most:
            return 413, f"want at most {most >> 20} MB at once, got more"
        if await asyncio.to_thread(_held_bytes, self._cache) + int(length) > MOST_HELD_BYTES:
            return 507, "too many uploads are held; they are thrown away after an hour"
        return None

    def _refusal_of(self, question: bytes) -> tuple[int, str] | None:
        """Why a question is turned away: it names a file that is no upload."""
        try:
            told = json.loads(question)
        except (ValueError, RecursionError):
            return 400, "want JSON"
        if all(Path(path).is_absolute() and inside(self._uploads, Path(path)) not in (None, ".") for path in _paths(told)):
            return None
        return 403, "want files that were uploaded here"


def _paths(told: Any) -> Iterator[str]:  # any JSON
    """Whatever a question calls a path, at any depth; one that cannot be any comes as the root."""
    waiting = [told]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if "path" in one and one["path"] is not None:
                path = one["path"]
                yield path if isinstance(path, str) and "\0" not in path and "://" not in path else "/"
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


async def _body(receive: Receive) -> bytes:
    """All of a request's body; its length was looked at before."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _again(body: bytes) -> Receive:
    """The same body for who reads it next."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    return receive


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
