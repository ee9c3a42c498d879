"""The shared store against raw redis-py of the same durability (P10): `python -m bench.shared --rows 10000 --rounds 5`.

Both write the same items into the same server (append-only file, every write synced): raw is the fewest commands that keep
what a store keeps, in one pipeline a batch: VADD with attributes, the record, the id, and one WAITAOF. Both are asked the same
queries: raw is one VSIM and the records of what it found. Then recall, filters and memory for each quantisation.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import redis
from tests.redis_server import redis_server

from bench.report import Figure, tell
from binsight.records import Item, StoreInfo
from binsight.store import open_store
from binsight.vectors import Vectors, normalise

DIM, BATCH = 512, 256
WHERE = 'label = "k3"'
INFO = StoreInfo(DIM, "b" * 64, "bench")
Found = list[list[str]]


def clustered(n: int, seed: int) -> Vectors:
    """Unit rows as embeddings lie: around 2,000 centres, in 64 of the dimensions mostly."""
    random, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    spread = fixed.standard_normal((64, DIM)).astype(np.float32)
    centres = fixed.standard_normal((2000, 64)).astype(np.float32)
    return normalise((centres[random.integers(0, 2000, n)] + 0.6 * random.standard_normal((n, 64)).astype(np.float32)) @ spread)


def record(number: int) -> dict[str, Any]:
    return {"label": f"k{number % 14}", "quantity": number % 50, "path": f"bins/{number:06}.jpg"}


def raw_write(client: redis.Redis, rows: Vectors, start: int) -> None:
    pipe: Any = client.pipeline(transaction=False)
    for place, row in enumerate(rows):
        text = json.dumps(record(start + place))
        pipe.execute_command("VADD", "raw:v", "FP32", row.tobytes(), str(start + place), "NOQUANT", "SETATTR", text)
        pipe.hset("raw:r", str(start + place), text)
        pipe.zadd("raw:i", {str(start + place): 0})
    pipe.execute_command("WAITAOF", 1, 0, 10_000)
    pipe.execute()


def raw_query(client: Any, query: Vectors) -> list[str]:
    found = client.execute_command("VSIM", "raw:v", "FP32", query.tobytes(), "WITHSCORES", "COUNT", 10, "EF", 200)
    names = [name.decode() for name in found]
    return [json.loads(text)["path"] for text in client.hmget("raw:r", names)]


def timed_ms(act: Callable[[Vectors], object], queries: Vectors) -> float:
    """The median of single calls."""
    times = []
    for query in queries:
        started = time.perf_counter()
        act(query)
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times))


def recall(found: Found, queries: Vectors, rows: Vectors, passing: np.ndarray[Any, Any] | None = None) -> float:
    chosen = np.arange(len(rows)) if passing is None else passing
    truth = chosen[np.argsort(-(queries @ rows[chosen].T), axis=1)[:, :10]]
    return float(
        np.mean([len(set(line) & {str(n) for n in true}) / 10 for line, true in zip(found, truth.tolist(), strict=True)])
    )


def ids(store: Any, queries: Vectors, where: str | None = None) -> Found:
    return [[match.item.id for match in store.query(query[None], k=10, where=where)[0]] for query in queries]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows, queries = clustered(options.rows, 1), clustered(200, 2)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="binsight-bench-") as name, redis_server(Path(name)) as server:
        client: Any = redis.Redis(port=server.port)
        for quantization in ("none", "int8"):
            client.flushall()
            empty = int(client.info("memory")["used_memory"])
            with open_store(server.url(quantization=quantization), create=INFO) as store:
                rates: dict[str, list[float]] = {"ours": [], "raw": []}
                for start in range(0, len(rows), BATCH):
                    batch = rows[start : start + BATCH]
                    started = time.perf_counter()
                    store.upsert([Item(str(start + place), record(start + place)) for place in range(len(batch))], batch)
                    rates["ours"].append(len(batch) / (time.perf_counter() - started))
                    if quantization == "none":
                        started = time.perf_counter()
                        raw_write(client, batch, start)
                        rates["raw"].append(len(batch) / (time.perf_counter() - started))
                kind = f"{quantization}: "
                figures.append(Figure.median(f"{kind}durable upserts, batches of {BATCH}", rates["ours"], "items/s"))
                if quantization == "none":
                    ratios = [a / b for a, b in zip(rates["ours"], rates["raw"], strict=True)]
                    figures.append(Figure("P10 upserts, ours / raw redis-py", float(np.median(ratios)), "x", ">= 0.9"))
                    more = []
                    for _ in range(options.rounds):
                        raw = timed_ms(lambda query: raw_query(client, query), queries)
                        more.append(timed_ms(lambda query: store.query(query[None], k=10), queries) - raw)
                    figures.append(Figure.median("P10 single query, ours - raw redis-py, p50", more, "ms", "<= 0.6"))
                    client.delete("raw:v", "raw:r", "raw:i")
                spans = [timed_ms(lambda query: store.query(query[None], k=10), queries) for _ in range(options.rounds)]
                figures.append(Figure.median(f"{kind}single query, p50", spans, "ms"))
                figures.append(Figure(f"{kind}recall@10", recall(ids(store, queries), queries, rows), ""))
                few = np.flatnonzero(np.arange(len(rows)) % 14 == 3)
                span = timed_ms(lambda query: store.query(query[None], k=10, where=WHERE), queries[:50])
                figures.append(Figure(f"{kind}single query, filter that 1 of 14 passes, p50", span, "ms"))
                figures.append(
                    Figure(f"{kind}its recall@10", recall(ids(store, queries[:50], WHERE), queries[:50], rows, few), "")
                )
                used = int(client.info("memory")["used_memory"]) - empty
                figures.append(
                    Figure(f"{kind}memory an item ({DIM}-d, {len(json.dumps(record(1)))} B record)", used / len(rows), "B")
                )
    tell("shared", figures, as_json=options.json, rows=options.rows, cores=len(os.sched_getaffinity(0)))


if __name__ == "__main__":
    main()
