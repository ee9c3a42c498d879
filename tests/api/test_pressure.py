"""R10 and R11 with the shipped model: floods from processes of their own, what they cost, and what others feel of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from binsight.encoder import load_encoder
from tests.api.pressure import Felt, Flood, felt, forget_peak, form_request, memory_mb, request_bytes
from tests.api.servers import Process, web
from tests.hostile import encoded, photo

MB = 2**20
MODEL = Path(__file__).resolve().parents[2] / "models" / "bins-mobilenetv2"
JSON, FORM = "application/json", "multipart/form-data; boundary=b"
OPENING = b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n'


def many_parts() -> bytes:
    part = b'--b\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n\r\n'
    return b"".join(part % n for n in range(100_000)) + b"--b--\r\n"


FLOODS = {
    "uploads at the limit": lambda: form_request("/v1/count", bytes(32 * MB - 1000)),
    "chunked bodies beyond the limit": lambda: request_bytes("POST", "/v1/count", OPENING + bytes(40 * MB), FORM, chunked=True),
    "100,000 parts": lambda: request_bytes("POST", "/v1/search", many_parts(), FORM),
    "JSON of objects": lambda: request_bytes("POST", "/v1/items:batch", b"[" + b"{}," * 2_790_000 + b"{}]", JSON),
    "JSON of numbers": lambda: request_bytes("POST", "/v1/search", b'{"vector": [' + b"1," * 4_190_000 + b"1]}", JSON),
    "JSON of numbers, as a batch": lambda: request_bytes(
        "POST", "/v1/items:batch", b'{"items": [{"id": "a", "vector": [' + b"1," * 4_190_000 + b"1]}]}", JSON
    ),
    "photos": lambda: form_request("/v1/count", encoded(photo(1200, 1600), "JPEG")),
}


class Served:
    """A server of the shipped model, with what is asked of it as files."""

    def __init__(self, running: Process, folder: Path) -> None:
        self.running, self.folder = running, folder
        self.port, self.pid = httpx.URL(running.url).port or 0, running.process.pid
        dim = web.get(f"{running.url}/v1/info").json()["dim"]
        rows = np.random.default_rng(0).standard_normal((200, dim)).tolist()
        items = [{"id": str(n), "vector": row} for n, row in enumerate(rows)]
        web.post(f"{running.url}/v1/items:batch", json={"items": items}, timeout=30).raise_for_status()
        self.vector = self.file("vector", request_bytes("POST", "/v1/search", json.dumps({"vector": rows[0]}).encode(), JSON))
        self.photo = self.file("photo", form_request("/v1/search", encoded(photo(480, 640), "JPEG")))
        felt(self.port, self.photo, 3)

    def file(self, name: str, request: bytes) -> Path:
        (self.folder / name).write_bytes(request)
        return self.folder / name


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("pressed")
    with pytest.MonkeyPatch.context() as patch:  # exported before, which may take longer than a server is waited for
        patch.setenv("BINSIGHT_CACHE", str(shared_cache))
        load_encoder(str(MODEL))
    with Process("--store", folder / "s.store", "--model", MODEL, cache=shared_cache) as running:
        yield Served(running, folder)


@pytest.mark.torture
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_keeps_within_its_memory_and_leaves_others_their_pace(served: Served, name: str) -> None:
    """R10: at most 256 MB more, and other clients' vector searches at most three times slower, 99 of 100."""
    flood = served.file("flood", FLOODS[name]())
    ratios: list[float] = []
    told: list[tuple[Felt, Felt]] = []
    for _ in range(3):
        before = memory_mb(served.pid)
        alone = felt(served.port, served.vector, 5)
        forget_peak(served.pid)
        with Flood(served.port, flood, clients=12) as pressed:
            beside = felt(served.port, served.vector, 5)
        more = memory_mb(served.pid, "VmHWM") - before
        assert more < 256, more
        assert set(beside.statuses) == {"200"}
        assert set(pressed.statuses) <= {"200", "413", "422", "503", "closed"}, pressed.statuses
        ratios.append(beside.p99_ms / alone.p99_ms)
        told.append((alone, beside))
        print(  # noqa: T201
            f"{name}: +{more:.0f} MB; p50 {alone.p50_ms:.1f} → {beside.p50_ms:.1f} ms, p99 {alone.p99_ms:.1f} → "
            f"{beside.p99_ms:.1f} ms; {dict(pressed.statuses)}"
        )
    assert sorted(ratios)[1] <= 3, told


@pytest.mark.torture
def test_five_times_more_than_capacity_leaves_nine_tenths_of_it(served: Served) -> None:
    """R11: capacity is what 48 clients get who wait for their answers, fewer than there are places."""
    shares: list[float] = []
    for _ in range(2):
        with Flood(served.port, served.photo, clients=48, nice=0) as full:
            felt(served.port, served.vector, 8)
        capacity = full.statuses["200"] / full.seconds
        with Flood(served.port, served.photo, clients=200, rate_per_s=5 * capacity, nice=0) as over:
            felt(served.port, served.vector, 8)
        per_s = over.statuses["200"] / over.seconds
        assert set(over.statuses) <= {"200", "503"}, over.statuses
        shares.append(per_s / capacity)
        print(  # noqa: T201
            f"capacity {capacity:.0f}/s; asked for {sum(over.statuses.values()) / over.seconds:.0f}/s, served {per_s:.0f}/s "
            f"({per_s / capacity:.2f}); refusals took at most {over.longest_refusal_ms:.0f} ms; {dict(over.statuses)}"
        )
    assert min(shares) >= 0.9, shares
