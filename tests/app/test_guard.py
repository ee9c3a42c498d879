"""What stands before Gradio: whom and what it turns away."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from binsight.app import guard, held
from binsight.app.attempts import AGAIN_S, BURST, Attempts
from binsight.app.guard import Guard
from binsight.app.held import BROKEN_S, KEPT_S, Held
from binsight.app.visitors import Visitors

LOCAL = {"host": "127.0.0.1:7860"}


def guarded(cache: Path, behind: ASGIApp, *, is_local: bool = True) -> Guard:
    return Guard(behind, cache=cache, uploads=cache / "shown", questions=3, visitors=Visitors(), is_local=is_local)


async def answers_299(scope: Scope, receive: Receive, send: Send) -> None:
    """What stands behind a guard: it reads nothing."""
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def asked(
    cache: Path,
    method: str,
    headers: dict[str, str],
    *,
    path: str = "/",
    body: bytes = b"",
    is_local: bool = True,
    guard: Guard | None = None,
) -> tuple[int, dict[bytes, bytes]]:
    """Status and headers of the answer; 299 comes from what stands behind."""
    sent: list[Message] = []
    chunks = [body[:3], body[3:]]

    async def receive() -> Message:
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    async def send(message: Message) -> None:
        sent.append(message)

    told = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": told, "client": ("192.0.2.7", 1)}
    asyncio.run((guard or guarded(cache, answers_299, is_local=is_local))(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"])


def test_requests_pass_and_browsers_are_told_to_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    status, headers = asked(tmp_path, "GET", LOCAL)
    assert status == 299
    assert headers[b"content-security-policy"].startswith(b"default-src 'self'")
    assert asked(tmp_path, "POST", LOCAL | {"content-length": "5"})[0] == 299
    assert b"sandbox" in asked(tmp_path, "GET", LOCAL, path="/gradio_api/file=/x")[1][b"content-security-policy"]


def test_a_page_of_another_host_is_refused_without_a_password(tmp_path: Path) -> None:
    assert asked(tmp_path, "GET", LOCAL | {"origin": "https://elsewhere.example"})[0] == 403
    assert asked(tmp_path, "GET", LOCAL | {"origin": "http://localhost:7860"})[0] == 299


def test_with_a_password_pages_of_other_websites_may_neither_read_nor_ask(tmp_path: Path) -> None:
    """Gradio itself answers any of them with leave to read, and its cookie is sent along."""
    here = {"host": "parts.example", "content-length": "0"}

    def status(method: str, **headers: str) -> int:
        return asked(tmp_path, method, here | headers, is_local=False)[0]

    assert [status("GET", origin=one) for one in ("https://elsewhere.example", "https://parts.example:81", "null")] == [403] * 3
    assert status("OPTIONS", origin="https://elsewhere.example") == 403
    assert status("POST", origin="https://parts.example") == status("GET") == 299
    behind_a_proxy = {"host": "10.0.0.2:7860", "x-forwarded-host": "parts.example"}
    assert status("POST", origin="https://parts.example", **behind_a_proxy) == 299


@pytest.mark.parametrize("host", ["parts.example", "127.0.0.1.example", ""])
def test_without_a_password_only_this_machines_names_are_answered(host: str, tmp_path: Path) -> None:
    assert asked(tmp_path, "GET", {"host": host})[0] == 403
    assert asked(tmp_path, "GET", {"host": host}, is_local=False)[0] == 299


def test_bodies_say_how_long_they_are_and_are_not_too_long(tmp_path: Path) -> None:
    assert asked(tmp_path, "POST", LOCAL)[0] == 411
    assert asked(tmp_path, "POST", LOCAL | {"content-length": "-1"})[0] == 411
    most = {"/gradio_api/upload": guard.MOST_UPLOAD_BYTES, "/login": guard.MOST_OTHER_BYTES, "/gradio_api/cancel": 16384}
    for path, size in most.items():
        assert asked(tmp_path, "POST", LOCAL | {"content-length": str(size)}, path=path)[0] == 299
        assert asked(tmp_path, "POST", LOCAL | {"content-length": str(size + 1)}, path=path)[0] == 413


def test_uploads_have_room_for_all_of_them_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "MOST_BYTES", 100_000)
    (tmp_path / "shown").mkdir()
    statuses: list[int] = []

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        """While the first upload of 50,000 bytes is on its way, others come; and again when it is there."""
        if not statuses:
            statuses.append(0)
            statuses.extend(await asyncio.to_thread(lambda: [upload(size) for size in (40_000, 60_000)]))
            (tmp_path / "shown/a.jpg").write_bytes(bytes(50_000))
        await answers_299(scope, receive, send)

    one = guarded(tmp_path, behind)

    def upload(size: int) -> int:
        headers = LOCAL | {"content-length": str(size)}
        return asked(tmp_path, "POST", headers, path="/gradio_api/upload", guard=one)[0]

    assert upload(50_000) == 299
    assert statuses == [0, 299, 507]
    assert (upload(30_000), upload(60_000)) == (299, 507)


def test_an_upload_that_stops_coming_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_STALLED_S", 0.01)
    heard: list[str] = []

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append((await receive())["type"])

    async def never() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    async def nobody(message: Message) -> None:
        raise AssertionError(message)

    headers = [(b"host", b"localhost"), (b"content-length", b"10")]
    scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": headers}
    asyncio.run(guarded(tmp_path, behind)(scope, never, nobody))
    assert heard == ["http.disconnect"]


def test_an_open_page_is_waited_for_until_it_is_closed_or_the_app_ends(tmp_path: Path) -> None:
    visitors, sent, heard = Visitors(clock=lambda: 0.0), [], []

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        heard.extend([(await receive())["type"], "me" in visitors._waiting, (await receive())["type"]])

    async def stream(ends: bool) -> None:
        messages: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]
        if not ends:
            messages.append({"type": "http.disconnect"})

        async def receive() -> Message:
            if not messages:
                visitors.end()
                await asyncio.sleep(60)
            return messages.pop(0)

        async def send(message: Message) -> None:
            sent.append(message["type"])

        scope = {"type": "http", "method": "GET", "path": "/gradio_api/queue/data", "query_string": b"session_hash=me"}
        one = Guard(behind, cache=tmp_path, uploads=tmp_path, questions=3, visitors=visitors, is_local=True)
        await one(scope | {"headers": [(b"host", b"localhost")]}, receive, send)

    for ends in (False, True):
        asyncio.run(stream(ends))
        assert heard == ["http.request", True, "http.disconnect"]
        assert sent == ["http.response.start", "http.response.body"]
        assert not visitors._waiting
        assert visitors.is_ending == ends
        heard.clear()
        sent.clear()


def test_what_nobody_else_throws_away_is_thrown_away(tmp_path: Path) -> None:
    """An upload that broke off, and tables; what was there at first, and what is young, stays."""
    shown = tmp_path / "shown"
    now = [time.time() + BROKEN_S + 1]

    def put(name: str) -> None:
        (shown / name).parent.mkdir(parents=True, exist_ok=True)
        (shown / name).write_bytes(bytes(10))

    put("examples/part.jpg")
    kept = Held(tmp_path, shown, clock=lambda: now[0])
    for name in ("tmpbroken", "table-1/a.csv", "hash/young.jpg", "tmpcoming", "../work/unpacked.jpg"):
        put(name)

    def left() -> set[str]:
        return {path.relative_to(shown).as_posix() for path in shown.rglob("*") if path.is_file()}

    os.utime(shown / "tmpcoming", (now[0], now[0]))
    assert kept.take(1)
    assert left() == {"examples/part.jpg", "table-1/a.csv", "hash/young.jpg", "tmpcoming"}
    now[0] += KEPT_S
    os.utime(shown / "hash/young.jpg", (now[0], now[0]))
    assert kept.take(1)
    assert left() == {"examples/part.jpg", "hash/young.jpg"}
    now[0] += KEPT_S
    assert kept.take(1)
    assert {path.name for path in shown.iterdir()} == {"examples", "hash"}
    now[0] += KEPT_S
    assert kept.take(1)
    assert {path.name for path in shown.iterdir()} == {"examples"}
    assert (tmp_path / "work/unpacked.jpg").exists()  # is worked on, however long that takes


def test_an_address_has_five_tries_and_one_more_every_half_minute() -> None:
    now = [1000.0]
    tries = Attempts(clock=lambda: now[0])
    assert [tries.take("192.0.2.7") for _ in range(BURST + 1)] == [0] * BURST + [AGAIN_S]
    assert (tries.take("192.0.2.8"), tries.take("::ffff:192.0.2.7")) == (0, AGAIN_S)
    now[0] += 10
    assert tries.take("192.0.2.7") == AGAIN_S - 10
    now[0] += 20
    assert [tries.take("192.0.2.7") for _ in range(2)] == [0, AGAIN_S]
    tries.forget("192.0.2.7")
    assert [tries.take("192.0.2.7") for _ in range(BURST + 1)] == [0] * BURST + [AGAIN_S]


def test_one_who_has_many_addresses_of_ipv6_has_no_more_tries_and_takes_no_more_memory() -> None:
    tries = Attempts(clock=lambda: 0.0)
    assert [bool(tries.take(f"2001:db8::{n:x}")) for n in range(BURST + 1)] == [False] * BURST + [True]
    for n in range(11_000):
        tries.take(f"10.0.{n // 256}.{n % 256}")
    assert len(tries._restored) == 10_000


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/proxy=http://127.0.0.1:1/", "/gradio_api/run/predict", "/gradio_api/vibe-edit", "/monitoring", "/docs"],
)
def test_routes_that_the_screens_do_not_use_are_not_there(path: str, tmp_path: Path) -> None:
    assert asked(tmp_path, "GET", LOCAL, path=path)[0] == 404


@pytest.mark.parametrize("path", ["/", "/config", "/assets/x.js", "/gradio_api/file=/x", "/gradio_api/heartbeat/a", "/login"])
def test_routes_that_the_screens_use_are_there(path: str, tmp_path: Path) -> None:
    assert asked(tmp_path, "GET", LOCAL, path=path)[0] == 299


def question(tmp_path: Path, told: object) -> int:
    body = told if isinstance(told, bytes) else json.dumps(told).encode()
    headers = LOCAL | {"content-length": str(len(body))}
    return asked(tmp_path, "POST", headers, path="/gradio_api/queue/join", body=body)[0]


def test_a_question_may_name_uploads_and_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown/link.png").symlink_to("/etc/hostname")
    kept = str(tmp_path / "shown/abc/a.png")

    def status(*data: object) -> int:
        return question(tmp_path, {"fn_index": 2, "session_hash": "abc", "data": data})

    assert status({"path": kept}, 3, None, [{"files": [{"path": kept}, {"path": None}]}]) == 299
    wrong = [
        "/etc/hostname",
        str(tmp_path / "shown/../x"),
        str(tmp_path),
        str(tmp_path / "shown"),
        str(tmp_path / "shown/link.png"),
    ]
    for path in [*wrong, "a.png", "http://elsewhere.example/a.png", f"http://x{kept}", f"{kept}\0", 7, ["/etc/hostname"]]:
        assert status({"path": kept}, {"deep": [{"path": path}]}) == 403, path


@pytest.mark.parametrize(
    "told",
    [b"{", b"[" * 100_000, [], {"fn_index": 0}]
    + [{"fn_index": number, "session_hash": "a", "data": []} for number in (3, -1, True, 0.0, "0", None)]
    + [{"fn_index": 0, "session_hash": session, "data": []} for session in ("", "a" * 101, 7, None)],
)
def test_what_the_screens_do_not_ask_is_no_question(told: object, tmp_path: Path) -> None:
    assert question(tmp_path, told) == 400


def test_a_question_is_not_too_long(tmp_path: Path) -> None:
    assert question(tmp_path, b" " * (guard.MOST_QUESTION_BYTES + 1)) == 413
    lists = b'{"fn_index": 0, "session_hash": "a", "data": [' + b"[]," * 10_000 + b"0]}"
    assert question(tmp_path, lists) == 400  # a third of a million of them held up everybody for 4 s


def test_a_path_of_very_many_folders_is_no_upload_and_costs_nothing(tmp_path: Path) -> None:
    """Each folder was asked of the file system, by a name that grew: 200 KB took a second, 1 MB twenty."""
    asked_of = {"fn_index": 0, "session_hash": "a", "data": [{"path": f"{tmp_path}/shown/" + "a/" * 200_000}]}
    started = time.process_time()
    assert question(tmp_path, asked_of) == 403
    assert time.process_time() - started < 0.5
