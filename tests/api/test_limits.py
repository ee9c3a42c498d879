"""What is too much is refused early and at once, and the server stays as it was."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from binsight.api.places import Turns
from binsight.encoder import Encoder
from binsight.errors import CannotBeDone, StoreReadOnly
from binsight.filters import Filter
from binsight.records import Item, Match, StoreInfo
from binsight.store.base import Batch, VectorStore, VerifyReport
from binsight.store.exact import ExactStore
from tests.api.conftest import picture
from tests.api.pressure import forget_peak, memory_mb, request_bytes
from tests.api.servers import Process, in_process, web
from tests.fakes import MeanColour, mean_colour_encoder
from tests.hostile import encoded, photo
from tests.redis_server import wait_until

MB = 2**20
UNIT = [1.0, 0.0, 0.0]


class SlowColour(MeanColour):
    """Takes a tenth of a second for each pass, as a model on a busy machine."""

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        time.sleep(0.1)
        return super().run(pixels)


def slow_encoder() -> Encoder:
    quick = mean_colour_encoder()
    return Encoder(model="slow", fingerprint="e" * 64, preprocess=quick.preprocess, runtime=SlowColour())


class Broken(VectorStore):
    """A store that raises what it is told to, or sleeps, when it is asked; else as the exact one."""

    def __init__(self, info: StoreInfo, error: Exception | None = None, sleep_s: float = 0.0) -> None:
        self._store = ExactStore(info)
        self.error = error
        self.sleep_s = sleep_s

    def sound(self) -> ExactStore:
        time.sleep(self.sleep_s)
        if self.error is not None:
            raise self.error
        return self._store

    @property
    def info(self) -> StoreInfo:
        return self.sound().info

    @property
    def dim(self) -> int:
        return self._store.dim

    def __len__(self) -> int:
        return len(self._store)

    def _upsert(self, batch: Batch) -> None:
        self.sound()._upsert(batch)

    def _query(self, queries: NDArray[np.float32], k: int, where: Filter | None) -> list[list[Match]]:
        return self.sound()._query(queries, k, where)

    def _get(self, ids: list[str]) -> list[Item | None]:
        return self.sound()._get(ids)

    def _vectors_of(self, ids: list[str]) -> NDArray[np.float32]:
        return self.sound()._vectors_of(ids)

    def _delete(self, ids: list[str]) -> int:
        return self.sound()._delete(ids)

    def scan(self, where: Filter | str | None = None) -> Iterator[Item]:
        return self.sound().scan(where)

    def verify(self) -> VerifyReport:
        return self.sound().verify()

    def compact(self) -> None:
        self.sound().compact()

    def close(self) -> None:
        self._store.close()


def chunks(total: int, size: int = 64 * 1024) -> Iterator[bytes]:
    for _ in range(total // size):
        yield bytes(size)


def head(body_headers: str) -> bytes:
    return f"POST /v1/count HTTP/1.1\r\nHost: 127.0.0.1\r\n{body_headers}\r\n\r\n".encode()


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read(process: Process) -> None:
    url = httpx.URL(process.url)
    with socket.create_connection(("127.0.0.1", url.port or 0), timeout=10) as raw:
        raw.sendall(head("Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 99999999999"))
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_is_refused_at_the_limit_and_the_reason_is_read(http: httpx.Client, process: Process) -> None:
    """R10: also a client that sends on finds the answer."""
    before = rss_mb(process)
    for path, most in (("/v1/items:batch", "4,194,304"), ("/v1/search", "524,928"), ("/v1/items/a", "524,928")):
        method = "PUT" if path == "/v1/items/a" else "POST"
        response = http.request(method, path, content=chunks(9 * MB), headers={"content-type": "application/json"})
        assert response.status_code == 413, response.text
        assert response.json()["type"] == "urn:binsight:TooLarge"
        assert f"at most {most} bytes" in response.json()["detail"]
    opening = b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
    response = http.post(
        "/v1/count",
        content=(part for part in (opening, *chunks(9 * MB))),
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    assert response.status_code == 413
    assert "at most 4,194,304 bytes" in response.json()["detail"]
    assert rss_mb(process) < before + 64


def test_one_record_takes_no_more_than_its_share_of_json(http: httpx.Client) -> None:
    longest = {"vector": [-0.123456789012345678e-300] * 15 + [1], "metadata": {"note": "\x7f" * 64_000}}
    response = http.put(
        "/v1/items/longest", content=json.dumps(longest, indent=1), headers={"content-type": "application/json"}
    )
    assert response.status_code == 200, response.text
    form = {"metadata": json.dumps({"note": "x" * 524_288})}
    response = http.put("/v1/items/more", files={"image": picture(9)}, data=form)
    assert (response.status_code, response.json()["type"]) == (413, "urn:binsight:TooLarge")
    assert "want metadata of at most 524,288 signs" in response.json()["detail"]


def test_pictures_whose_decoding_takes_much_memory_are_taken_up_to_two_fifths_of_the_pixels() -> None:
    """R10: a PNG takes three times what a JPEG takes."""
    pixels = photo(1000, 1000)

    async def asked(http: httpx.AsyncClient) -> dict[str, tuple[int, str]]:
        found = {}
        for kind, height in (("JPEG", 1000), ("PNG", 480), ("PNG", 481), ("WEBP", 1000)):
            response = await http.post("/v1/search", files={"image": encoded(pixels[:height], kind)})
            found[f"{kind} {height}"] = (response.status_code, response.json().get("detail", ""))
        return found

    encoder = mean_colour_encoder()
    told = in_process(encoder, ExactStore(encoder.info), asked, api_max_pixels=1_200_000)
    assert {name: status for name, (status, _) in told.items()} == {
        "JPEG 1000": 200,
        "PNG 480": 200,
        "PNG 481": 422,
        "WEBP 1000": 422,
    }
    why = "the image: decoding it takes 20,000,000 bytes, more than 9,600,000; send it smaller, or as JPEG"
    assert told["WEBP 1000"][1] == why


def test_large_documents_take_turns_and_small_ones_pass_them() -> None:
    async def told() -> list[str]:
        turns, said = Turns(small_bytes=10), list[str]()

        async def take(name: str, size_bytes: int) -> None:
            async with turns.taking(size_bytes):
                said.append(f"{name} begins")
                time.sleep(0.02)  # as parsing does: the loop waits
                await asyncio.sleep(0)
                said.append(f"{name} ends")

        async with asyncio.TaskGroup() as group:
            for name, size_bytes in (("first", 11), ("second", 11), ("small", 10)):
                group.create_task(take(name, size_bytes))
        return said

    said = asyncio.run(told())
    assert said.index("second begins") > said.index("first ends")
    assert said.index("small ends") < said.index("second begins")


def rss_mb(process: Process) -> float:
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def test_a_body_in_crumbs_is_refused_with_a_reason_and_one_in_some_small_chunks_is_taken(process: Process) -> None:
    """Each chunk takes 20 µs: 400 KB byte by byte took 7 s, in which others waited 2 s for each answer."""

    def answer(chunks: list[bytes]) -> bytes:
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        with socket.create_connection(("127.0.0.1", httpx.URL(process.url).port or 0), timeout=20) as one:
            one.sendall(head("Content-Type: text/plain\r\nConnection: close\r\nTransfer-Encoding: chunked") + body)
            return b"".join(iter(lambda: one.recv(65_536), b""))

    refused = answer([b" "] * 2_100)
    assert refused.startswith(b"HTTP/1.1 400 ")
    assert b"Too many small chunks; send some of 512 bytes or more." in refused
    for taken in ([b" "] * 2_000, [bytes(600)] * 3_000):
        assert answer(taken).startswith(b"HTTP/1.1 415 ")


def test_a_hundred_thousand_parts_are_refused(http: httpx.Client) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n\r\n'
    body = b"".join(part % number for number in range(60_000))[: 4 * MB - 10]
    response = http.post("/v1/search", content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    assert (response.status_code, response.json()["detail"]) == (413, "want a form of at most 64 parts")


def test_a_part_with_endless_headers_is_refused(http: httpx.Client) -> None:
    body = b"--b\r\n" + b"X: y\r\n" * 100_000 + b"\r\nz\r\n--b--\r\n"
    response = http.post("/v1/search", content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    assert response.status_code == 400


def test_a_flood_of_uploads_keeps_within_its_memory_and_others_are_answered(process: Process) -> None:
    """R10: 48 uploads at the limit at once. What does not fit is told to come again."""
    before, peak, ends = rss_mb(process), [0.0], threading.Event()

    def watch() -> None:
        while not ends.is_set():
            peak[0] = max(peak[0], rss_mb(process))
            time.sleep(0.01)

    def upload(_: int) -> int:
        return web.post(f"{process.url}/v1/count", files={"image": bytes(4 * MB - 1000)}, timeout=60).status_code

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(24) as pool:
        uploads = [pool.submit(upload, number) for number in range(48)]
        others = [web.get(f"{process.url}/v1/info", timeout=30).status_code for _ in range(10)]
        answered = {one.result() for one in uploads}
    ends.set()
    watcher.join()
    assert answered <= {422, 503}
    assert others == [200] * 10
    assert peak[0] < before + 256


def test_slow_uploads_time_out_and_do_not_hold_up_others(model: Path, shared_cache: Path, tmp_path: Path) -> None:
    """R10: 100 clients that say they will send and do not, against a queue of 4."""
    with Process(
        "--store", tmp_path / "s.store", "--model", model, cache=shared_cache, api_deadline_s=2.0, api_queue=4
    ) as running:
        port = httpx.URL(running.url).port or 0
        slow = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(100)]
        try:
            for one in slow:
                one.sendall(head("Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000") + b"--b\r\n")
            response = web.post(f"{running.url}/v1/count", files={"image": picture(1)}, timeout=20)
            assert response.status_code == 200
            assert slow[0].recv(100).startswith(b"HTTP/1.1 408 ")
            with socket.create_connection(("127.0.0.1", port), timeout=20) as silent:
                silent.sendall(b"POST /v1/count HTTP/1.1\r\nHost: 127")
                assert silent.recv(100) == b""  # closed: the headers did not end in time
        finally:
            for one in slow:
                one.close()


def upload_bytes(url: str) -> float:
    """How many bytes of uploads a server holds, as its metrics say."""
    told = web.get(f"{url}/metrics").text
    return float(told.split('binsight_queue_depth{queue="upload_bytes"} ')[1].split("\n")[0])


def test_large_uploads_that_stall_give_their_places_back(model: Path, shared_cache: Path, tmp_path: Path) -> None:
    """R10: two that sent nearly all kept everybody else's pictures out until the deadline; a trickle is a stall, too."""
    with Process(
        "--store", tmp_path / "s.store", "--model", model, cache=shared_cache, api_max_upload_bytes=2**22, api_deadline_s=60.0
    ) as running:
        port = httpx.URL(running.url).port or 0
        begin = head(f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {2**22}")
        start = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        slow = [socket.create_connection(("127.0.0.1", port), timeout=40) for _ in range(2)]
        try:
            for one in slow:
                one.sendall(begin + start + bytes(2**22 - 1000))
            wait_until(lambda: upload_bytes(running.url) >= 2 * (2**22 - 1000))  # else a picture that comes now keeps one out
            assert web.post(f"{running.url}/v1/count", files={"image": picture(1)}).status_code == 503
            slow[0].sendall(b"a crumb")
            began = time.perf_counter()
            wait_until(
                lambda: web.post(f"{running.url}/v1/count", files={"image": picture(1)}).status_code == 200, timeout_s=30
            )
            assert time.perf_counter() - began < 20
            for one in slow:
                assert one.recv(100).startswith(b"HTTP/1.1 408 ")
        finally:
            for one in slow:
                one.close()


def test_clients_that_do_not_read_large_answers_hold_little_and_not_for_long(
    model: Path, shared_cache: Path, tmp_path: Path
) -> None:
    """R10: twenty answers of 12 MB, which nobody reads, against a limit of 96 MB for all."""
    unit = [1.0] + [0.0] * 15
    with Process("--store", tmp_path / "s.store", "--model", model, cache=shared_cache, api_deadline_s=3.0) as running:
        port, pid = httpx.URL(running.url).port or 0, running.process.pid
        items = [{"id": str(n), "vector": unit, "metadata": {"text": "x" * 60_000}} for n in range(100)]
        for some in (items, [{**item, "id": f"more {item['id']}"} for item in items]):
            web.post(f"{running.url}/v1/items:batch", json={"items": some}, timeout=30).raise_for_status()
        body = json.dumps({"vector": unit, "k": 200}).encode()
        whole = web.post(f"{running.url}/v1/search", content=body, headers={"content-type": "application/json"}, timeout=30)
        assert len(whole.json()["matches"]) == 200
        before = memory_mb(pid)
        forget_peak(pid)
        slow = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(20)]
        for one in slow:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.sendall(request_bytes("POST", "/v1/search", body, "application/json"))
        time.sleep(2.5)
        assert web.get(f"{running.url}/v1/items/1", timeout=20).status_code == 200
        assert memory_mb(pid, "VmHWM") < before + 256
        wait_until(lambda: memory_mb(pid) < before + 32, timeout_s=15)
        for one in slow:
            one.close()


def test_a_full_queue_answers_503_at_once_and_the_rest_is_served() -> None:
    """R11: ten places, a model that takes a tenth of a second for two pictures, sixty requests at once."""
    encoder = slow_encoder()

    async def act(client: httpx.AsyncClient) -> list[tuple[int, float, str | None]]:
        async def one() -> tuple[int, float, str | None]:
            started = time.perf_counter()
            response = await client.post("/v1/search", files={"image": picture(1)})
            return response.status_code, time.perf_counter() - started, response.headers.get("retry-after")

        return list(await asyncio.gather(*(one() for _ in range(60))))

    found = in_process(encoder, ExactStore(encoder.info), act, api_queue=10, api_batch=2)
    served = [seconds for status, seconds, _ in found if status == 200]
    refused = [(seconds, retry) for status, seconds, retry in found if status == 503]
    assert len(served) + len(refused) == 60
    assert len(served) >= 10
    assert {retry for _, retry in refused} == {"1"}
    assert max(seconds for seconds, _ in refused) < max(served)


def test_a_deadline_is_told_as_504() -> None:
    encoder = mean_colour_encoder()

    async def act(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/v1/search", json={"vector": UNIT})

    response = in_process(encoder, Broken(encoder.info, sleep_s=1.0), act, api_deadline_s=0.2)
    assert (response.status_code, response.json()["type"]) == (504, "urn:binsight:Overloaded")
    assert "not done within 0.2 s" in response.json()["detail"]


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (CannotBeDone("the store is locked"), 503, "CannotBeDone"),
        (ConnectionResetError("reset"), 503, "CannotBeDone"),
        (TimeoutError(), 503, "CannotBeDone"),
        (StoreReadOnly("ro"), 403, "StoreReadOnly"),
        (RuntimeError("a bug with secrets"), 500, ""),
    ],
)
def test_a_store_that_fails_is_told_without_its_secrets(error: Exception, status: int, name: str) -> None:
    encoder = mean_colour_encoder()
    store = Broken(encoder.info)

    async def act(client: httpx.AsyncClient) -> tuple[httpx.Response, ...]:
        good = await client.get("/readyz")
        store.error = error
        ready = await client.get("/readyz")
        return good, ready, await client.post("/v1/search", json={"vector": UNIT}), await client.get("/healthz")

    good, ready, response, health = in_process(encoder, store, act)
    store.error = None
    assert (good.status_code, health.status_code) == (200, 200)
    assert ready.status_code in (503, 500)
    assert response.status_code == status
    assert response.json()["type"] == (f"urn:binsight:{name}" if name else "about:blank")
    assert response.headers.get("retry-after") == ("1" if status == 503 else None)
    assert "secrets" not in response.text
    assert "Traceback" not in response.text


def test_another_models_store_is_refused() -> None:
    encoder = mean_colour_encoder()
    with pytest.raises(AssertionError, match="was filled by"):
        in_process(encoder, ExactStore(mean_colour_encoder("f" * 64).info), lambda client: client.get("/"))


def test_origins_may_be_let_in() -> None:
    encoder = mean_colour_encoder()

    async def act(client: httpx.AsyncClient) -> httpx.Response:
        return await client.get("/healthz", headers={"Origin": "http://localhost:3000"})

    response = in_process(encoder, ExactStore(encoder.info), act, api_cors="http://localhost:3000")
    assert response.headers["access-control-allow-origin"] == "http://localhost:3000"


def test_metadata_comes_back_as_it_was_sent() -> None:
    encoder = mean_colour_encoder()
    metadata = {"text": "ä\u2028🔩", "big": 2**60, "nested": {"list": [1, 2.5, None, True]}}

    async def act(client: httpx.AsyncClient) -> tuple[httpx.Response, httpx.Response]:
        await client.put("/v1/items/a", json={"vector": UNIT, "metadata": metadata})
        return await client.get("/v1/items/a"), await client.post("/v1/search", json={"vector": UNIT})

    got, found = in_process(encoder, ExactStore(encoder.info), act)
    assert got.json() == {"id": "a", "metadata": metadata}
    assert json.loads(found.content)["matches"] == [{"id": "a", "score": 1.0, "metadata": metadata}]
