"""What stands before Gradio: whom and what it turns away."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from binsight.app import guard
from binsight.app.guard import Guard, Message, Receive, Scope, Send

LOCAL = {"host": "127.0.0.1:7860"}


def asked(
    cache: Path, method: str, headers: dict[str, str], *, path: str = "/", body: bytes = b"", is_local: bool = True
) -> tuple[int, dict[bytes, bytes]]:
    """Status and headers of the answer; 299 comes from what stands behind, which gets the whole body."""
    sent: list[Message] = []
    chunks = [body[:3], body[3:]]

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        if body:
            assert (await receive())["body"] == body
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    async def send(message: Message) -> None:
        sent.append(message)

    told = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": told}
    asyncio.run(Guard(behind, cache=cache, uploads=cache / "shown", is_local=is_local)(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"])


def test_requests_pass_and_browsers_are_told_to_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    status, headers = asked(tmp_path, "GET", LOCAL)
    assert status == 299
    assert headers[b"content-security-policy"].startswith(b"default-src 'self'")
    assert asked(tmp_path, "POST", LOCAL | {"content-length": "5"})[0] == 299
    assert b"sandbox" in asked(tmp_path, "GET", LOCAL, path="/gradio_api/file=/x")[1][b"content-security-policy"]


def test_a_page_of_another_host_is_refused_without_a_password(tmp_path: Path) -> None:
    assert asked(tmp_path, "GET", LOCAL | {"origin": "https://elsewhere.example"})[0] == 403
    assert asked(tmp_path, "GET", LOCAL | {"origin": "https://elsewhere.example"}, is_local=False)[0] == 299
    assert asked(tmp_path, "GET", LOCAL | {"origin": "http://localhost:7860"})[0] == 299


@pytest.mark.parametrize("host", ["parts.example", "127.0.0.1.example", ""])
def test_without_a_password_only_this_machines_names_are_answered(host: str, tmp_path: Path) -> None:
    assert asked(tmp_path, "GET", {"host": host})[0] == 403
    assert asked(tmp_path, "GET", {"host": host}, is_local=False)[0] == 299


def test_bodies_say_how_long_they_are_and_are_not_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(tmp_path, "POST", LOCAL)[0] == 411
    assert asked(tmp_path, "POST", LOCAL | {"content-length": "-1"})[0] == 411
    assert asked(tmp_path, "POST", LOCAL | {"content-length": str(guard.MOST_UPLOAD_BYTES + 1)})[0] == 413
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads/a.jpg").write_bytes(bytes(1000))
    monkeypatch.setattr(guard, "MOST_HELD_BYTES", 100_000)
    assert asked(tmp_path, "POST", LOCAL | {"content-length": "50000"})[0] == 299
    assert asked(tmp_path, "POST", LOCAL | {"content-length": "99500"})[0] == 507


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
    assert question(tmp_path, {"data": [{"path": kept}, 3, None, [{"files": [{"path": kept}, {"path": None}]}]]}) == 299
    wrong = [
        "/etc/hostname",
        str(tmp_path / "shown/../x"),
        str(tmp_path),
        str(tmp_path / "shown"),
        str(tmp_path / "shown/link.png"),
    ]
    for path in [*wrong, "a.png", "http://elsewhere.example/a.png", f"http://x{kept}", f"{kept}\0", 7, ["/etc/hostname"]]:
        assert question(tmp_path, {"data": [{"path": kept}, {"deep": [{"path": path}]}]}) == 403, path
    assert question(tmp_path, b"{") == 400
    assert question(tmp_path, b"[" * 100_000) == 400
    assert question(tmp_path, b" " * (guard.MOST_QUESTION_BYTES + 1)) == 413
