"""What HTTP adds to a search, and what batching gives back (P9): `python -m bench.serve --model models/bins-mobilenetv2`.

The server is a process of its own, and so are its clients, on the same cores: their share is in every figure. Vector search is
measured beside a bare FastAPI route that takes the same body and answers an empty object, and beside one that asks the store
right there, which holds up all other requests but has the search under the same conditions. The photo is generated: 500 × 450
pixels, 75 KB. A round asks all of them in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from tests.redis_server import redis_server

from bench.decode import generated
from bench.report import Figure, tell
from bench.store import DIM, latent
from binsight.vectors import Vectors

_BARE = """
import sys
import numpy as np
import uvicorn
from binsight import open_store
from fastapi import FastAPI
from pydantic import BaseModel

class Query(BaseModel):
    vector: list[float]
    k: int

app = FastAPI()
store = open_store(sys.argv[2], read_only=True) if len(sys.argv) > 2 else None

@app.post("/v1/search")
async def search(query: Query):
    if store is None:
        return {}
    row = np.asarray(query.vector, np.float32)
    (matches,) = store.query((row / np.linalg.norm(row))[None], k=query.k)
    return [{"id": match.item.id, "score": match.score, "metadata": match.item.metadata} for match in matches]

@app.get("/readyz")
async def ready():
    return {}

uvicorn.run(app, port=int(sys.argv[1]), log_level="error", http="h11")
"""
_CLIENT = """
import http.client, json, sys, threading, time
port, clients, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
kind, body = sys.argv[4], open(sys.argv[5], "rb").read()
took, lock, other = [], threading.Lock(), []

def ask():
    connection = http.client.HTTPConnection("127.0.0.1", port)
    ends = time.perf_counter() + seconds
    while (started := time.perf_counter()) < ends:
        connection.request("POST", "/v1/search", body, {"Content-Type": kind})
        response = connection.getresponse()
        response.read()
        with lock:
            (took if response.status == 200 else other).append(time.perf_counter() - started)

threads = [threading.Thread(target=ask) for _ in range(clients)]
started = time.perf_counter()
[thread.start() for thread in threads]
[thread.join() for thread in threads]
took.sort()
print(json.dumps({"per_s": len(took) / (time.perf_counter() - started), "p50_ms": 1000 * took[len(took) // 2],
                  "p99_ms": 1000 * took[int(len(took) * 0.99)], "refused": len(other)}))
"""


class Served:
    """A process that answers on a port, ready."""

    def __init__(self, port: int, *command: str) -> None:
        self.port = port
        environ = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
        self.process = subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL, env=environ)
        import httpx

        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                assert self.process.poll() is None, command
            time.sleep(0.1)

    def asked(self, clients: int, seconds: float, kind: str, body: Path) -> dict[str, float]:
        command = [sys.executable, "-c", _CLIENT, str(self.port), str(clients), str(seconds), kind, str(body)]
        told: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return told

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


def fill(url: str, model: str, rows: int) -> str:
    """A store with vectors as those of `bench.store`, whose dimension the model has to have; the model's runtime."""
    from binsight import Item, load_encoder, open_store

    encoder = load_encoder(model)
    assert encoder.info.dim == DIM, encoder.info
    with open_store(url, create=encoder.info) as store:
        if len(store) < rows:
            store.upsert([Item(str(n), {"number": n}) for n in range(rows)], latent(rows, 0))
            store.compact()
    return encoder.runtime


def in_process(url: str, model: str, query: Vectors, photo: bytes, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds of a search by vector, and of decode and model for a photo, without a server."""
    from binsight import load_encoder, open_store

    encoder = load_encoder(model)
    encoder.warm_up()
    search_ms, model_ms = [], []
    with open_store(url, read_only=True) as store:
        for _ in range(200 * rounds):
            started = time.perf_counter()
            store.query(query[None], k=10)
            search_ms.append(1000 * (time.perf_counter() - started))
    for _ in range(20 * rounds):
        started = time.perf_counter()
        encoder.encode([photo])
        model_ms.append(1000 * (time.perf_counter() - started))
    return search_ms, model_ms


def form(photo: bytes) -> bytes:
    """A multipart body with the boundary `b`."""
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="p.jpg"\r\n\r\n'
    return head + photo + b"\r\n--b--\r\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="models/bins-mobilenetv2")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--redis", action="store_true", help="the store is on a Redis of its own in place of a folder")
    parser.add_argument("--port", type=int, default=8377, help="this one and the next two are used")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    (photo,) = generated(1, 450, 500)
    with tempfile.TemporaryDirectory(prefix="binsight-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        url = str(folder / "bench.store")
        if options.redis:
            url = stack.enter_context(redis_server(folder / "redis")).url("bench")
        runtime = fill(url, options.model, options.rows)
        vector, picture = folder / "vector.json", folder / "picture.form"
        (numbers,) = latent(1, 9)
        vector.write_text(json.dumps({"vector": [float(one) for one in numbers], "k": 10}))
        picture.write_bytes(form(photo))
        search_ms, model_ms = in_process(url, options.model, numbers, photo, options.rounds)
        program = "import sys; from binsight.cli import run; sys.exit(run(sys.argv[1:]))"
        arguments = ["serve", "--store", url, "--model", options.model, "--read-only", "--port", str(options.port)]
        served, bare, naive = (
            Served(options.port, "-c", program, *arguments),
            Served(options.port + 1, "-c", _BARE, str(options.port + 1)),
            Served(options.port + 2, "-c", _BARE, str(options.port + 2), url),
        )
        told: dict[str, list[dict[str, Any]]] = {
            what: [] for what in ("bare", "naive", "vector", "vector4", "vector16", "one", "four", "sixteen")
        }
        try:
            for _ in range(options.rounds):
                told["bare"].append(bare.asked(1, options.seconds, "application/json", vector))
                told["naive"].append(naive.asked(1, options.seconds, "application/json", vector))
                for what, clients in (("vector", 1), ("vector4", 4), ("vector16", 16)):
                    told[what].append(served.asked(clients, options.seconds, "application/json", vector))
                for what, clients in (("one", 1), ("four", 4), ("sixteen", 16)):
                    told[what].append(served.asked(clients, options.seconds, "multipart/form-data; boundary=b", picture))
        finally:
            served.end()
            bare.end()
            naive.end()
    p50 = {what: [one["p50_ms"] for one in rounds] for what, rounds in told.items()}
    per_s = {what: [one["per_s"] for one in rounds] for what, rounds in told.items()}
    over_bare = [ours - theirs for ours, theirs in zip(p50["vector"], p50["bare"], strict=True)]
    over_naive = [ours - theirs for ours, theirs in zip(p50["vector"], p50["naive"], strict=True)]
    gains = [many / one for many, one in zip(per_s["sixteen"], per_s["one"], strict=True)]
    in_process_ms, alone_ms = float(np.median(search_ms)), float(np.median(model_ms))
    figures = [
        Figure.median("vector search in process, p50", [in_process_ms], "ms"),
        Figure.median("bare FastAPI route, the same body, p50", p50["bare"], "ms"),
        Figure.median("POST /v1/search by vector, p50", p50["vector"], "ms"),
        Figure.median("P9 the same, less bare route and search", [one - in_process_ms for one in over_bare], "ms", "<= 0.5"),
        Figure.median("bare route that asks the store itself, in its event loop, p50", p50["naive"], "ms"),
        Figure.median("P9 by vector, less that route", over_naive, "ms", "<= 0.5"),
        *(
            Figure.median(f"vector searches a second, {clients} client{'s' * (clients > 1)}", per_s[what], "1/s")
            for what, clients in (("vector", 1), ("vector4", 4), ("vector16", 16))
        ),
        Figure.median("decode and model of a photo in process, p50", [alone_ms], "ms"),
        Figure.median("POST /v1/search with a photo, one client, p50", p50["one"], "ms"),
        Figure.median("P9 the same, less decode and model", [one - alone_ms for one in p50["one"]], "ms", "<= 5"),
        Figure.median("photo searches a second, 1 client", per_s["one"], "1/s"),
        Figure.median("photo searches a second, 4 clients", per_s["four"], "1/s"),
        Figure.median("photo searches a second, 16 clients", per_s["sixteen"], "1/s"),
        Figure.median("P9 16 clients over one", gains, "x", ">= 1.5"),
    ]  # fmt: skip
    store = "Redis" if options.redis else "folder"
    tell("serve", figures, as_json=options.json, model=options.model, runtime=runtime, rows=options.rows, store=store)


if __name__ == "__main__":
    main()
