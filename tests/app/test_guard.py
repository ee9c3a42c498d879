"""What stands before Gradio: whom and what it turns away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from binsight.app import guard
from binsight.app.guard import Guard, Message, Receive, Scope, Send

LOCAL = {"host": "127.0.0.1:7860"}


def asked(cache: Path, method: str, headers: dict[str, str], *, is_local: bool = True) -> tuple[int, dict[bytes, bytes]]:
    """Status and headers of the answer; 299 comes from what stands behind."""
    sent: list[Message] = []

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        raise AssertionError("nothing is read here")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}
    asyncio.run(Guard(behind, cache=cache, is_local=is_local)(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"])


def test_requests_pass_and_browsers_are_told_to_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    status, headers = asked(tmp_path, "GET", LOCAL)
    assert status == 299
    assert headers[b"content-security-policy"].startswith(b"default-src 'self'")
    assert asked(tmp_path, "POST", LOCAL | {"content-length": "5"})[0] == 299


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
