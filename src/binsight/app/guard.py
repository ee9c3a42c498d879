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
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from binsight.app.attempts import Attempts
from binsight.app.held import Held
from binsight.app.login import telling
from binsight.app.visitors import Visitors
from binsight.data.source import inside
from binsight.listening import is_loopback

MOST_UPLOAD_BYTES = 300 << 20  # one request: a zip archive of some hundred photos
MOST_QUESTION_BYTES = 1 << 20  # what the widgets say when something is asked
_MOST_OPENED = 10_000  # brackets and braces of a question: Gradio walks through them again and again
MOST_OTHER_BYTES = 16 << 10  # a password, or which question is taken back
_STALLED_S = 60.0  # how long an upload may bring nothing
_LONGEST_NAME = 100  # of a visitor's session

_QUESTION, _UPLOAD, _LOGIN = "/gradio_api/queue/join", "/gradio_api/upload", ("/login", "/login/")
_ROUTES = re.compile(
    r"/|/(config|theme\.css|robots\.txt|manifest\.json|favicon\.ico|login|logout)/?|/(static|assets|svelte)/.*"
    r"|/gradio_api/(file=.*|upload|upload_progress|queue/(join|data)|heartbeat/.*|reset|cancel|startup-events|login_check/?)"
)
_FILES = "/gradio_api/file="
_STREAMS = ("/gradio_api/queue/data", "/gradio_api/heartbeat/", "/gradio_api/upload_progress")
_LOOK_S = 0.2  # between looks whether the app is about to end
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


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    text: str
    retry_after_s: int | None = None


@final
class Guard:
    """An ASGI application around another. is_local: only this machine is served, so a request names it as its host.

    cache: the folder in which everything lies that is held. uploads: the one within it that uploads come to. questions: how
    many different ones the screens can ask. visitors: is told whose page waits for answers.
    """

    def __init__(self, app: ASGIApp, *, cache: Path, uploads: Path, questions: int, visitors: Visitors, is_local: bool) -> None:
        self._app, self._uploads, self._questions, self._is_local = app, uploads.resolve(), questions, is_local
        self._visitors = visitors
        self._held = Held(cache, uploads)
        self._attempts = Attempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        refusal = self._refusal_of_caller(scope, headers) or _refusal_of_body(scope, headers)
        if refusal is not None:
            await _answer(send, refusal)
        elif scope["path"] == _QUESTION and scope["method"] == "POST":
            await self._ask(scope, receive, send)
        elif scope["path"] == _UPLOAD and scope["method"] == "POST":
            await self._take(int(headers[b"content-length"]), scope, receive, send)
        elif scope["path"] in _LOGIN and scope["method"] == "POST":
            await self._let_in(scope, receive, send)
        elif scope["path"] == "/" and scope["method"] == "GET" and not self._is_local:
            await self._pass(scope, receive, telling(send))
        elif scope["path"].startswith(_STREAMS):
            await self._stream(scope, receive, send)
        else:
            await self._pass(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        added = _OF_FILES if scope["path"].startswith(_FILES) else _HEADERS

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await self._app(scope, receive, with_headers)

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        refusal = await asyncio.to_thread(self._refusal_of, body)  # which asks the file system
        if refusal is not None:
            await _answer(send, refusal)
        else:
            await self._pass(scope, _again(body), send)

    async def _take(self, size: int, scope: Scope, receive: Receive, send: Send) -> None:
        """An upload, once there is room for it; one that stops coming is given up."""
        if not await asyncio.to_thread(self._held.take, size):
            await _answer(send, _Refusal(507, "too many uploads are held; they are thrown away after an hour"))
            return

        async def patient() -> Message:
            try:
                return await asyncio.wait_for(receive(), _STALLED_S)
            except TimeoutError:
                return {"type": "http.disconnect"}

        try:
            await self._pass(scope, patient, send)
        finally:
            self._held.give_back(size)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What an open page listens to: until it is closed, or the app ends."""
        state, coming = "", asyncio.ensure_future(receive())

        async def until_the_end() -> Message:
            nonlocal coming
            while not self._visitors.is_ending:
                await asyncio.wait({coming}, timeout=_LOOK_S)
                if coming.done():
                    message = coming.result()
                    coming = asyncio.ensure_future(receive())
                    return message
            return {"type": "http.disconnect"}

        async def noted(message: Message) -> None:
            nonlocal state
            state = "open" if message.get("more_body", True) else "complete"
            await send(message)

        session = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("session_hash", [""])[0]
        try:
            with self._visitors.waiting(session) if session else nullcontext():
                await self._pass(scope, until_the_end, noted)
        finally:
            coming.cancel()
        if state == "open":
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A password: each address has a few tries, which a right one gives back."""
        address = (scope.get("client") or ("",))[0]
        wait_s = self._attempts.take(address)
        if wait_s:
            await _answer(send, _Refusal(429, f"too many passwords were tried; wait {wait_s} s", wait_s))
            return

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                self._attempts.forget(address)
            await send(message)

        await self._pass(scope, receive, noted)

    def _refusal_of_caller(self, scope: Scope, headers: Mapping[bytes, bytes]) -> _Refusal | None:
        """Why a request is turned away: whose it is, or where it goes."""
        host, origin = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin"))
        page = origin.partition("://")[2]
        if self._is_local:
            if not is_loopback(host):
                return _Refusal(403, "without a password the app answers only calls to 127.0.0.1 or localhost")
            if origin and not is_loopback(page):
                return _Refusal(403, "without a password the app takes no calls from web pages of other hosts")
        elif origin and (not page or page not in (host, headers.get(b"x-forwarded-host", b"").decode("latin-1"))):
            # Gradio would let any website read with the cookie of a visitor who has given the password.
            return _Refusal(403, "the app takes no calls from web pages of other hosts")
        return None if _ROUTES.fullmatch(scope["path"]) else _Refusal(404, "there is no such page")

    def _refusal_of(self, question: bytes) -> _Refusal | None:
        """Why a question is turned away: there is none of that number, or it names a file that is no upload."""
        if question.count(b"[") + question.count(b"{") > _MOST_OPENED:
            return _Refusal(400, f"want a question of at most {_MOST_OPENED:,} lists and objects, got more")
        try:
            told = json.loads(question)
        except (ValueError, RecursionError):
            return _Refusal(400, "want JSON")
        number, session = (told.get(name) for name in ("fn_index", "session_hash")) if isinstance(told, dict) else (None, None)
        is_known = type(number) is int and 0 <= number < self._questions
        if not is_known or not isinstance(session, str) or not 0 < len(session) <= _LONGEST_NAME:
            return _Refusal(400, "want a question that the screens ask; load the page again")
        if all(Path(path).is_absolute() and inside(self._uploads, Path(path)) not in (None, ".") for path in _paths(told)):
            return None
        return _Refusal(403, "want files that were uploaded here")


def _refusal_of_body(scope: Scope, headers: Mapping[bytes, bytes]) -> _Refusal | None:
    if scope["method"] not in ("POST", "PUT", "PATCH"):
        return None
    length = headers.get(b"content-length", b"")
    if not length.isdigit():
        return _Refusal(411, "want a request that says how long it is")
    most = {_UPLOAD: MOST_UPLOAD_BYTES, _QUESTION: MOST_QUESTION_BYTES}.get(scope["path"], MOST_OTHER_BYTES)
    if int(length) > most:
        return _Refusal(413, f"want at most {most:,} bytes at once, got more")
    return None


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


async def _answer(send: Send, refusal: _Refusal) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", str(refusal.retry_after_s).encode()))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{refusal.text}\n".encode()})
