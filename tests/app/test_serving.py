"""The screens' server: whom it lets in, what it gives away, and what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from binsight.app.attempts import BURST
from tests.api.servers import NO_TLS
from tests.app.conftest import shown
from tests.fakes import paint


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30, verify=NO_TLS) as client:
        yield client


def upload(client: httpx.Client, path: Path) -> httpx.Response:
    with path.open("rb") as file:
        return client.post("/gradio_api/upload", files={"files": (path.name, file)})


def test_the_page_names_no_other_host(http: httpx.Client) -> None:
    """What a browser would load before it runs a script, and the settings that the scripts are given."""
    text = http.get("/").text
    config = http.get("/config").json()
    assert "fonts.googleapis.com" not in text
    assert "cdnjs.cloudflare.com" not in text
    assert config["analytics_enabled"] is False
    assert "default-src 'self'" in http.get("/").headers["content-security-policy"]


def test_no_file_of_this_machine_is_given_away(http: httpx.Client, stock: Path) -> None:
    for path in (
        "/etc/hostname",
        str(stock / "photos/0.png"),
        str(stock / "parts.store"),
        str(Path(__file__)),
        "pyproject.toml",
    ):
        for route in (f"/gradio_api/file={path}", f"/file={path}", f"/gradio_api/file=/tmp/../{path}"):
            assert http.get(route).status_code in (403, 404), route


def test_a_file_that_was_not_uploaded_is_no_photo(http: httpx.Client, stock: Path, tmp_path: Path) -> None:
    """Who tells a widget that a file of this machine, or a URL, is their upload is refused before Gradio copies it."""
    (kept,) = upload(http, paint(tmp_path / "a.png", (200, 30, 30))).json()
    assert http.get(f"/gradio_api/file={kept}").status_code == 200
    find = next(one["id"] for one in http.get("/config").json()["dependencies"] if len(one["inputs"]) == 17)

    def asked(path: str) -> httpx.Response:
        photo = {"path": path, "meta": {"_type": "gradio.FileData"}}
        data: list[object] = [photo, 0, 0, 100, 100, 12, 0, "", *[None, "is", []] * 3]
        return http.post("/gradio_api/queue/join", json={"data": data, "fn_index": find, "session_hash": "abc"})

    assert asked(kept).status_code == 200
    with http.stream("GET", "/gradio_api/queue/data", params={"session_hash": "abc"}) as stream:
        assert "RAM-1" in "".join(stream.iter_text())
    for path in (
        str(stock / "photos/0.png"),
        "/etc/hostname",
        f"{kept}/../../../../../etc/hostname",
        "http://127.0.0.1:1/a.png",
    ):
        assert asked(path).status_code == 403, path


def test_calls_of_other_names_are_refused_without_a_password(http: httpx.Client) -> None:
    assert http.get("/", headers={"Host": "parts.example"}).status_code == 403
    assert http.get("/", headers={"Host": "localhost:1"}).status_code == 200


def test_with_a_password_nothing_is_shown_before_it_is_given(stock: Path, tmp_path: Path) -> None:
    with shown(stock / "parts.store", "open sesame") as url, httpx.Client(base_url=url, timeout=30, verify=NO_TLS) as client:
        assert client.get("/config").status_code == 401
        assert upload(client, paint(tmp_path / "a.png", (1, 2, 3))).status_code == 401
        page = client.get("/")
        assert (page.status_code, "RAM" in page.text) == (200, False)
        assert client.post("/login", data={"username": "me", "password": "sesame"}).status_code == 400
        assert client.get("/config").status_code == 401
        assert client.post("/login", data={"username": "me", "password": "open sesame"}).status_code == 200
        assert client.get("/config").status_code == 200
        elsewhere = {"Origin": "https://elsewhere.example"}
        assert client.get("/config", headers=elsewhere).status_code == 403
        wrong = [client.post("/login", data={"username": "me", "password": str(n)}) for n in range(BURST + 1)]
        assert [one.status_code for one in wrong] == [400] * BURST + [429]
        assert 0 < int(wrong[-1].headers["retry-after"]) <= 30
        assert client.post("/login", data={"username": "me", "password": "open sesame"}).status_code == 429
        assert client.get("/config").status_code == 200  # who is in stays in


def test_events_have_no_api_of_their_own(http: httpx.Client) -> None:
    assert http.get("/gradio_api/info").status_code == 404
    assert http.post("/gradio_api/run/_find", json={"data": []}).status_code == 404
