"""R8 and R9: pictures made to break a reader, through every route that takes one."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.api.pressure import forget_peak, memory_mb
from tests.api.servers import NO_TLS, Process
from tests.hostile import bombs, malformed, mutations, odd, seeds

ROUTES = ("/v1/count", "/v1/search", "/v1/inspect", "/v1/items/odd", "/v1/items:batch")
LIMIT_BYTES = 4_000_000  # of the server that these tests ask
READ, REFUSED, LARGE = (200, ""), (422, "BadImage"), (413, "TooLarge")


def answer(http: httpx.Client, path: str, data: bytes) -> tuple[int, str]:
    """How a picture is answered: the status, and the kind of error."""
    fields = {"items": json.dumps([{"id": "odd"}])} if path.endswith(":batch") else {}
    response = http.request("PUT" if path == "/v1/items/odd" else "POST", path, files={"image": data}, data=fields)
    return response.status_code, response.json().get("type", "").rpartition(":")[2]


def answers(http: httpx.Client, asked: Iterable[tuple[str, bytes]]) -> list[tuple[int, str]]:
    """Eight at a time."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda one: answer(http, *one), asked))


def in_turn(pictures: Iterable[bytes]) -> list[tuple[str, bytes]]:
    """Each through one route."""
    return [(ROUTES[number % len(ROUTES)], data) for number, data in enumerate(pictures)]


def wanted(data: bytes) -> tuple[int, str]:
    return REFUSED if len(data) < LIMIT_BYTES else LARGE


def test_pictures_made_to_break_a_reader_are_refused(http: httpx.Client) -> None:
    """Truncated, of the wrong type, polyglots, bombs."""
    bad = {**malformed(), **bombs()}
    for (name, data), found in zip(bad.items(), answers(http, in_turn(bad.values())), strict=True):
        assert found == wanted(data), name


def test_odd_pictures_are_read(http: httpx.Client) -> None:
    for name, found in zip(odd(), answers(http, in_turn(one.data for one in odd().values())), strict=True):
        assert found == READ, name


def test_damaged_pictures_are_read_or_refused_but_never_an_error(http: httpx.Client) -> None:
    rng = random.Random(0)
    changed = [one for data in seeds().values() for one in mutations(data, rng, 8)]
    assert set(answers(http, in_turn(changed))) == {READ, REFUSED}


def test_pictures_are_turned_upright_on_every_route(http: httpx.Client) -> None:
    """The eight ways to hold a camera give one vector: red is in the upper left corner of each."""
    turned = [odd()[f"jpeg turned {turn}"].data for turn in range(1, 9)]
    records = [{"id": f"turned/{turn}", "metadata": {"set": "turned"}} for turn in range(1, 9)]
    http.post(
        "/v1/items:batch", files=[("image", data) for data in turned], data={"items": json.dumps(records)}
    ).raise_for_status()
    http.put("/v1/items/turned/9", files={"image": turned[5]}, data={"metadata": '{"set": "turned"}'}).raise_for_status()
    counts = [http.post("/v1/count", files={"image": data}).json()["expected"] for data in turned]
    assert max(counts) - min(counts) < 0.02
    for data, path in zip(turned, ("/v1/search", "/v1/inspect") * 4, strict=True):
        found = http.post(path, files={"image": data}, data={"where": 'set = "turned"'}).json()["matches"]
        assert len(found) == 9
        assert found[-1]["score"] > 0.999


def test_bombs_cost_neither_time_nor_memory(http: httpx.Client, process: Process) -> None:
    """R9: at most 50 ms more than as many bytes that are no picture at all, and 32 MB."""
    small = [(name, data) for name, data in bombs().items() if len(data) < LIMIT_BYTES]
    http.post("/v1/count", files={"image": b"junk"})
    before = memory_mb(process.process.pid)
    forget_peak(process.process.pid)
    for name, data in small:
        more_s = (took_s(http, data) - took_s(http, b"junk" + bytes(len(data) - 4)) for _ in range(10))
        assert any(one_s < 0.05 for one_s in more_s), name  # on a busy host, not at once
    assert memory_mb(process.process.pid, "VmHWM") - before < 32


def took_s(http: httpx.Client, data: bytes) -> float:
    started = time.perf_counter()
    assert answer(http, "/v1/count", data) == REFUSED
    return time.perf_counter() - started


@pytest.mark.torture
def test_every_picture_through_every_route(model: Path, shared_cache: Path, tmp_path: Path) -> None:
    """The largest too, and 20,000 damaged ones; the server is the same afterwards."""
    with (
        Process("--store", tmp_path / "s.store", "--model", model, cache=shared_cache) as running,
        httpx.Client(base_url=running.url, timeout=60, verify=NO_TLS) as http,
    ):
        answers(http, in_turn(one.data for one in odd().values()))
        before = memory_mb(running.process.pid)
        for path in ROUTES:
            bad = {**malformed(), **bombs()}
            for (name, _), found in zip(bad.items(), answers(http, [(path, one) for one in bad.values()]), strict=True):
                assert found == REFUSED, (path, name)
            for name, found in zip(odd(), answers(http, [(path, one.data) for one in odd().values()]), strict=True):
                assert found == READ, (path, name)
        rng, seen = random.Random(1), 0
        while seen < 20_000:
            changed = [one for data in seeds().values() for one in mutations(data, rng, 20)]
            assert set(answers(http, in_turn(changed))) <= {READ, REFUSED}
            seen += len(changed)
        assert memory_mb(running.process.pid) < before + 64
        assert http.get("/readyz").status_code == 200
        assert not [line for line in running.lines if line["level"] == "error"]
