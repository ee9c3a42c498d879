"""The local store against raw FAISS (P5–P8): `python -m bench.store --rows 100000`, then with 1000000.

Vectors: 1,000 clusters in a 32-dimensional latent space, mapped to 512 dimensions with a little noise, as embeddings of
photos are: far fewer degrees of freedom than numbers. Queries are drawn from the same source and are not in the store.
Raw FAISS: the same kind of index (inverted lists of 4-bit product codes) with faiss's own refine stage over its own copy of
the vectors. For P6 both sides are set to the cheapest setting that reaches the recall. For P5 raw FAISS trains as it does by
default (up to 256 rows a list), and once more on the sample that the store takes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss as _faiss  # its types lack most of it
import numpy as np

from bench.report import Figure, tell
from binsight.records import Item, StoreInfo
from binsight.store import open_store
from binsight.store.faiss_index import GRAPH_LISTS, POINTS_PER_LIST, RowIndex, _codes, _list_count, _put_graph
from binsight.store.faiss_store import FaissStore
from binsight.vectors import Vectors

faiss: Any = _faiss
Search = Callable[[Vectors], list[list[int]]]
DIM = 512
INFO = StoreInfo(DIM, "d" * 64, "bench")


def latent(n: int, seed: int) -> Vectors:
    random = np.random.default_rng(seed)
    spread = np.random.default_rng(1).standard_normal((32, DIM)).astype(np.float32)
    centres = np.random.default_rng(2).standard_normal((1000, 32)).astype(np.float32)
    rows = np.empty((n, DIM), np.float32)
    for at in range(0, n, 50_000):
        m = min(50_000, n - at)
        points = centres[random.integers(0, 1000, m)] + 0.5 * random.standard_normal((m, 32), dtype=np.float32)
        part = points @ spread + 0.5 * random.standard_normal((m, DIM), dtype=np.float32)
        rows[at : at + m] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return rows


def item(row: int) -> Item:
    record = {"label": f"label {row % 14}", "quantity": row % 100, "serial": row % 1000, "path": f"shelf/{row % 997}/{row}.jpg"}
    return Item(f"{row}", record)


def batched_ms(search: Callable[[Vectors], Any], queries: Vectors, size: int = 256) -> float:
    started = time.perf_counter()
    for at in range(0, len(queries), size):
        search(queries[at : at + size])
    return 1000 * (time.perf_counter() - started) / len(queries)


def single_ms(search: Callable[[Vectors], Any], queries: Vectors) -> list[float]:
    times = []
    for at in range(len(queries)):
        started = time.perf_counter()
        search(queries[at : at + 1])
        times.append(1000 * (time.perf_counter() - started))
    return times


def recall(found: list[list[int]], truth: Any) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, truth.tolist(), strict=True)]))


def ours(store: FaissStore, where: str | None = None) -> Search:
    def search(queries: Vectors) -> list[list[int]]:
        found = store.query(queries, k=10, where=where)
        return [[int(match.item.id) for match in matches] for matches in found]

    return search


class Raw:
    """faiss alone: the same kind of index, refined by faiss from its own float32 copy."""

    def __init__(self, vectors: Vectors, *, by_default: bool) -> None:
        lists = _list_count(len(vectors))
        started = time.perf_counter()
        self.base = faiss.index_factory(DIM, f"IVF{lists},{_codes(DIM)}", faiss.METRIC_INNER_PRODUCT)
        sample = vectors
        if not by_default:
            self.base.cp.niter = 8
            sample = vectors[np.linspace(0, len(vectors) - 1, min(len(vectors), POINTS_PER_LIST * lists)).astype(np.int64)]
        self.base.train(sample)
        self.base.add(vectors)
        self.build_s = time.perf_counter() - started
        if lists >= GRAPH_LISTS:
            _put_graph(self.base)  # the same search as ours; not counted in its time to build
        self.flat = faiss.IndexFlatIP(DIM)
        self.flat.add(vectors)
        self.index = faiss.IndexRefine(self.base, self.flat)

    def search(self, probes: int, factor: float) -> Search:
        inner = faiss.SearchParametersIVF(nprobe=probes)
        parameters = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)
        return lambda queries: self.index.search(queries, 10, params=parameters)[1].tolist()

    def at_recall(self, wanted: float, queries: Vectors, truth: Any) -> Search:
        return cheapest(lambda probes, candidates: self.search(probes, candidates / 10), wanted, queries, truth)


def cheapest(make: Callable[[int, int], Search], wanted: float, queries: Vectors, truth: Any) -> Search:
    """The setting (probed lists, candidates) that reaches a recall in the least time."""
    found: list[tuple[float, int, int]] = []
    for candidates in (10, 15, 20, 30, 40, 60, 80, 120, 160):
        for probes in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64):
            search = make(probes, candidates)
            if recall(search(queries), truth) >= wanted:
                found.append((min(batched_ms(search, queries) for _ in range(3)), probes, candidates))
                break
    _, probes, candidates = min(found)
    return make(probes, candidates)


def at_recall(store: FaissStore, wanted: float, queries: Vectors, truth: Any) -> Search:
    """The store's own search at the cheapest setting of its index that reaches a recall."""
    generation, index = store._loaded
    assert index is not None

    def make(probes: int, candidates: int) -> Search:
        eased = RowIndex(index._index, replace(index.parameters, probes=probes, candidates=candidates))

        def search(part: Vectors) -> list[list[int]]:
            store._loaded = (generation, eased)
            return ours(store)(part)

        return search

    return cheapest(make, wanted, queries, truth)


def anonymous_bytes() -> int:
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Anonymous line in smaps_rollup")


def build(folder: Path, vectors: Vectors) -> tuple[float, float]:
    """(upsert seconds, seconds until the index is saved as well)."""
    shutil.rmtree(folder, ignore_errors=True)
    started = time.perf_counter()
    store = open_store(folder, create=INFO)
    for at in range(0, len(vectors), 256):
        part = vectors[at : at + 256]
        store.upsert([item(row) for row in range(at, at + len(part))], part)
    upserted = time.perf_counter() - started
    store.close()
    return upserted, time.perf_counter() - started


def open_and_weigh(folder: Path, rows: int) -> None:
    """In a process of its own: open, first answer, memory a vector (prints three numbers)."""
    before = anonymous_bytes()
    started = time.perf_counter()
    store = open_store(folder, read_only=True)
    opened = time.perf_counter() - started
    queries = latent(200, 77)
    store.query(queries[:1], k=10)
    first = time.perf_counter() - started
    for at in range(len(queries)):
        store.query(queries[at : at + 1], k=10)
    print(opened, first, (anonymous_bytes() - before) / rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("bench-out/bench.store"))
    parser.add_argument("--weigh", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.weigh:
        open_and_weigh(options.folder, options.rows)
        return
    options.folder.parent.mkdir(exist_ok=True)
    rows, figures = options.rows, []
    vectors, queries = latent(rows, 10), latent(1024, 11)
    flat = faiss.IndexFlatIP(DIM)
    flat.add(vectors)
    _, truth = flat.search(queries, 10)

    upsert_s, total_s = build(options.folder, vectors)
    figures.append(Figure("P5 durable upserts, batches of 256", rows / upsert_s, "vectors/s", ">= 20000"))
    raw = Raw(vectors, by_default=True)
    figures.append(Figure("raw faiss: train + add", raw.build_s, "s"))
    figures.append(Figure("P5 upserted, built and saved / raw faiss", total_s / raw.build_s, "x", "<= 1.15"))
    raw = Raw(vectors, by_default=False)
    figures.append(Figure("P5 the same / raw faiss trained on our sample", total_s / raw.build_s, "x"))

    weighed = [
        subprocess.run(
            [sys.executable, "-m", "bench.store", "--weigh", "--rows", str(rows), "--folder", str(options.folder)],
            check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        ).stdout.split()
        for _ in range(3)
    ]  # fmt: skip
    for place, (name, unit, reach) in enumerate(
        [("P7 open", "s", "<= 3"), ("P7 open + first answer", "s", ""), ("P7 anonymous memory a vector", "bytes", "<= 700")]
    ):
        figures.append(Figure.median(name, [float(one[place]) for one in weighed], unit, reach))

    store = open_store(options.folder, read_only=True)
    assert isinstance(store, FaissStore)
    mine = ours(store)
    reached = recall(mine(queries), truth)
    figures.append(Figure("recall@10 as tuned", reached, ""))
    tuned = store._loaded
    for wanted in (0.95, 0.99):
        theirs, eased = raw.at_recall(wanted, queries, truth), at_recall(store, wanted, queries, truth)
        ratios, extra = [], []
        for _ in range(options.rounds):
            ratios.append(batched_ms(theirs, queries) / batched_ms(eased, queries))
        faiss.omp_set_num_threads(1)
        for _ in range(options.rounds):
            extra.append(float(np.median(single_ms(eased, queries[:300])) - np.median(single_ms(theirs, queries[:300]))))
        faiss.omp_set_num_threads(2)
        label = f"P6 at recall {recall(eased(queries), truth):.3f} (raw {recall(theirs(queries), truth):.3f})"
        figures.append(Figure.median(f"{label}: batched queries/s over raw", ratios, "x", ">= 0.90"))
        figures.append(Figure.median(f"{label}: single p50 over raw", extra, "ms", "<= 0.15"))
    store._loaded = tuned

    faiss.omp_set_num_threads(1)
    p50s, p99s = [], []
    for _ in range(options.rounds):
        times = single_ms(mine, queries)
        p50s.append(float(np.median(times)))
        p99s.append(float(np.percentile(times, 99)))
    figures.append(Figure.median("P7 single query p50, one thread", p50s, "ms", "<= 0.8"))
    figures.append(Figure.median("P7 single query p99, one thread", p99s, "ms", "<= 3"))

    for share, where in (("10%", "quantity < 10"), ("1%", "quantity = 7"), ("0.1%", "serial = 7")):
        allowed = np.array([row for row in range(rows) if _passes(share, row)], dtype=np.int64)
        few = faiss.IndexFlatIP(DIM)
        few.add(np.ascontiguousarray(vectors[allowed]))
        wanted_rows = allowed[few.search(queries[:300], 10)[1]]
        search = ours(store, where)
        started = time.perf_counter()
        search(queries[:1])
        cold = 1000 * (time.perf_counter() - started)
        ratios = []
        for _ in range(options.rounds):
            plain = np.median(single_ms(mine, queries[:300]))
            ratios.append(float(np.median(single_ms(search, queries[:300])) / plain))
        found = [search(queries[at : at + 1])[0] for at in range(300)]
        figures.append(Figure(f"P8 filter {share}: recall@10", recall(found, wanted_rows), "", ">= 0.98"))
        figures.append(Figure.median(f"P8 filter {share}: p50 over unfiltered, warm", ratios, "x", "<= 3"))
        figures.append(Figure(f"P8 filter {share}: first query (bitmap made)", cold, "ms"))
    store.close()
    tell(f"store-{rows}", figures, as_json=options.json, rows=rows, dim=DIM)


def _passes(share: str, row: int) -> bool:
    return {"10%": row % 100 < 10, "1%": row % 100 == 7, "0.1%": row % 1000 == 7}[share]


if __name__ == "__main__":
    main()
