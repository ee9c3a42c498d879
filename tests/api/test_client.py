"""The client says what the library says, and comes again when it is told to."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import binsight
from binsight.client import Client
from binsight.encoder import Encoder
from binsight.errors import (
    AccessDenied,
    BadFilter,
    BadImage,
    BadItem,
    BadSettings,
    BadVectors,
    Overloaded,
    ServerUnreachable,
    TooLarge,
    UnknownItem,
)
from binsight.records import Item
from tests.api.conftest import picture
from tests.api.servers import Process


@pytest.fixture
def client(process: Process) -> Iterator[Client]:
    with binsight.Client(process.url) as client:
        yield client


def test_the_verbs_of_a_searcher(client: Client, encoder: Encoder, tmp_path: Path) -> None:
    items = [Item(f"client/{n}", {"set": "client", "n": n}) for n in range(40)]  # more than one request takes
    client.add(items, [picture(100 + n) for n in range(40)])
    told = encoder.encode([picture(103)])
    assert told.counts is not None
    path = tmp_path / "q.png"
    path.write_bytes(picture(103))
    with Image.open(path) as image:
        pixels = np.asarray(image)
        for query in (path, str(path), picture(103), image, pixels):
            answer = client.by_image(query, k=3, where='set = "client"')
            assert answer.matches[0].item == items[3]
            assert answer.matches[0].score == pytest.approx(1, abs=2e-3)
            assert len(answer.matches) == 3
            assert answer.count is not None
            assert answer.count.value == told.counts[0].value
    found = client.by_vector(told.vectors[0], k=1, where=binsight.Filter('set = "client"'))
    assert [match.item for match in found.matches] == [items[3]]
    others = client.by_id("client/3", k=50, where='set = "client"')
    assert len(others.matches) == 39
    assert client.count(path) == client.by_image(path).count
    assert client.inspect(path).labels is not None
    assert client.get(["client/1", "nobody"]) == [items[1], None]
    assert client.delete(["client/1", "client/2", "nobody", "client/1"]) == 2
    assert client.get(["client/1"]) == [None]
    assert client.info().fingerprint == encoder.info.fingerprint
    assert client.info().detail["kind"] == "local"


def test_pictures_are_sent_as_many_at_a_time_as_asked_for(client: Client) -> None:
    """A wrong one refuses its own request only."""
    items = [Item(f"few/{n}") for n in range(4)]
    with pytest.raises(BadImage):
        client.add(items, [*(picture(200 + n) for n in range(3)), b"no picture"], batch_size=2)
    assert client.get([item.id for item in items]) == [*items[:2], None, None]
    client.add(items, [picture(200 + n) for n in range(4)], batch_size=64)  # as a searcher takes it
    assert client.get(["few/3"]) == [items[3]]
    with pytest.raises(BadSettings, match="batch_size of at least 1, got 0"):
        client.add(items, [picture(200 + n) for n in range(4)], batch_size=0)


def test_ids_of_any_signs(client: Client) -> None:
    for item_id in ("a/../b", "..", "ä ö?#%2F", "/x/"):
        client.add([Item(item_id, {"id": item_id})], [picture(1)])
        assert client.get([item_id]) == [Item(item_id, {"id": item_id})]
        assert client.delete([item_id]) == 1


def test_errors_are_those_of_the_library(client: Client, tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="it looks like text"):
        client.count(b"no picture, but text")
    with pytest.raises(BadImage, match="cannot be read"):
        client.by_image(tmp_path / "nowhere.jpg")
    with pytest.raises(BadImage, match="float64"):
        client.by_image(np.zeros((2, 2, 3)))
    with pytest.raises(BadFilter, match="quantity"):
        client.by_vector([1.0] * 16, where="quantity >")
    with pytest.raises(UnknownItem, match="'nobody'"):
        client.by_id("nobody")
    with pytest.raises(BadVectors, match="want vectors of 16 numbers, got 2"):
        client.by_vector([1.0, 2.0])
    with pytest.raises(BadVectors, match="finite"):
        client.by_vector([float("nan")] * 16)
    with pytest.raises(BadSettings, match="want k from 1 to 50"):
        client.by_id("x", k=51)
    with pytest.raises(BadItem, match="_source"):
        client.add([Item("x", {"_source": {}})], [picture(1)])
    with pytest.raises(BadItem, match="control"):
        client.get(["a\nb"])
    with pytest.raises(TooLarge, match="4,194,304"):
        client.count(bytes(5_000_000))
    with pytest.raises(BadSettings, match="one image for each item"):
        client.add([Item("x")], [])
    for key in ("", "schlüssel", "two\nlines", "s3cret ", " s3cret"):
        with pytest.raises(BadSettings, match="want an API key of printable ASCII signs"):
            Client("http://127.0.0.1", key)
    for url in ("parts.example", "ftp://x", "http://", "http://[", "http://x/?q=1"):
        with pytest.raises(BadSettings, match="want the URL of a server"):
            Client(url)


def test_certificates_are_read_where_one_can_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To read the usual ones takes longer than a call; that they cannot be read is told at the door."""
    missing = str(tmp_path / "none.pem")
    monkeypatch.setenv("SSL_CERT_FILE", missing)
    Client("http://127.0.0.1").close()
    with pytest.raises(BadSettings, match=f"certificates in PEM as SSL_CERT_FILE, got {missing}: .*No such file"):
        Client("https://127.0.0.1")


@contextmanager
def answering(*answers: tuple[int, dict[str, str], bytes] | None) -> Iterator[tuple[str, list[float]]]:
    """A server that gives these answers in turn, None for a connection that breaks; and when it was asked."""
    times: list[float] = []
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            times.append(time.monotonic())
            answer = left.pop(0)
            if answer is None:
                self.close_connection = True
                self.connection.shutdown(2)
                return
            status, headers, body = answer
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_DELETE = do_GET  # noqa: N815, http.server's names

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", times
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


ANY_ADDRESS = "0.0.0.0"  # noqa: S104, with keys a server may
INFO = json.dumps({"items": 1, "dim": 2, "fingerprint": "f", "model": "m", "metric": "cosine", "created": "c"}).encode()
GOOD: tuple[int, dict[str, str], bytes] = (200, {}, INFO)
BUSY = (503, {"Retry-After": "1"}, b'{"type": "urn:binsight:Overloaded", "detail": "full"}')


def test_a_server_without_a_place_is_asked_again_when_it_says() -> None:
    with answering(BUSY, GOOD) as (url, times), Client(url) as client:
        assert client.info().items == 1
    assert times[1] - times[0] >= 1.0


def test_a_broken_connection_is_tried_again_after_growing_waits() -> None:
    with answering(None, None, None, GOOD) as (url, times), Client(url) as client:
        assert client.info().dim == 2
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert [wait >= least for wait, least in zip(waits, (0.1, 0.2, 0.4), strict=True)] == [True] * 3


def test_the_last_refusal_is_raised() -> None:
    with answering(BUSY, BUSY) as (url, times), Client(url, retries=1) as client, pytest.raises(Overloaded, match="full"):
        client.info()
    assert len(times) == 2
    with (
        answering(None) as (url, _),
        Client(url, retries=0) as client,
        pytest.raises(ServerUnreachable, match="binsight serve"),
    ):
        client.info()


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        ((504, {}, b'{"type": "urn:binsight:Overloaded", "detail": "late"}'), Overloaded, "late"),
        ((401, {}, b'{"type": "about:blank", "detail": "key?"}'), AccessDenied, "key?"),
        ((200, {"Content-Type": "text/html"}, b"<html>"), ServerUnreachable, "is this a binsight server"),
        ((200, {}, b'{"other": 1}'), ServerUnreachable, "not as this version expects"),
        ((404, {}, b"[]"), ServerUnreachable, "want a binsight server"),
        ((418, {}, b"[]"), binsight.errors.WrongUse, "answered 418"),
        ((500, {}, b'{"type": "urn:binsight:MissingExtra", "detail": "x"}'), binsight.errors.CannotBeDone, "x"),
    ],
)
def test_other_answers_are_not_tried_again(
    answer: tuple[int, dict[str, str], bytes], error: type[Exception], reason: str
) -> None:
    with answering(answer) as (url, times), Client(url) as client, pytest.raises(error, match=reason.replace("?", r"\?")):
        client.info()
    assert len(times) == 1


@pytest.mark.parametrize("body", [b'{"detail": "Not Found"}', b'{"type": "about:blank", "detail": "there is no such route"}'])
def test_another_server_that_knows_no_such_route_holds_not_no_items(body: bytes) -> None:
    """Only binsight's own word that an item is unknown means that; any other 404 is an error."""
    with answering((404, {}, body), (404, {}, body)) as (url, _), Client(url) as client:
        with pytest.raises(binsight.errors.ServerUnreachable, match="want a binsight server"):
            client.get(["a"])
        with pytest.raises(binsight.errors.ServerUnreachable, match="want a binsight server"):
            client.delete(["a"])


def test_the_key_is_sent_and_not_shown(model: Path, shared_cache: Path, tmp_path: Path) -> None:
    keys = f"me:read:{hashlib.sha256(b's3cret').hexdigest()}"
    with Process(
        "--store", tmp_path / "s", "--model", model, "--host", ANY_ADDRESS, cache=shared_cache, api_keys=keys
    ) as running:
        with Client(running.url, "s3cret") as client:
            assert client.info().items == 0
            with pytest.raises(AccessDenied, match="may not write"):
                client.add([Item("x")], [picture(1)])
            assert "s3cret" not in repr(client)
        with Client(running.url) as stranger, pytest.raises(AccessDenied, match="wants an API key"):
            stranger.info()
        assert "s3cret" not in json.dumps(running.lines)
