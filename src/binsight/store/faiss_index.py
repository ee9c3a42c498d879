"""The FAISS side of the local store: candidates by an inverted file of 4-bit product codes, and exact scores.

An index proposes rows; their scores are always computed from the log's float32 rows, in place, without a copy. Three
numbers fix how hard it looks (lists, probed lists, candidates re-ranked); `build` measures them against an exact search on
rows of the store itself and writes down the recall it reached. Quantiser and codes: Jégou et al. 2011 (product
quantisation), André et al. 2017 (4-bit codes in registers). This is the only file that imports faiss.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from binsight.errors import ConflictingPackages, MissingExtra, StoreDamaged
from binsight.records import Metadata
from binsight.store.files import crc_of_file, read_sealed_json, replace_file, sealed_json
from binsight.vectors import Scores, Vectors

_PACKAGES = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs", "faiss-gpu-cu11", "faiss-gpu-cu12")


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _load_faiss() -> Any:  # faiss has no types
    there = [name for name in _PACKAGES if _installed(name)]
    if len(there) > 1:
        raise ConflictingPackages(
            f"{' and '.join(there)} are both installed and both provide the module faiss; "
            f"keep one: pip uninstall -y {' '.join(there)}, then pip install 'binsight[cpu]' or 'binsight[gpu]'"
        )
    try:
        import faiss
    except ImportError as error:
        raise MissingExtra("faiss", extra="cpu") from error
    return faiss


faiss = _load_faiss()

Rows = NDArray[np.int64]
Bits = NDArray[np.uint8]  # one bit a row, little-endian

TUNE_QUERIES = 256
TUNE_RECALL = 0.995  # of the ten nearest, on rows of the store; unseen queries come out a little lower
POINTS_PER_LIST = 48  # k-means training rows for each list
GRAPH_LISTS = 1024  # from so many lists on, the nearest ones are found by a graph over their centres, not by comparing all
RETRAIN_GROWTH = 3.0  # an index is extended until the store is this many times what its lists were trained on


@dataclass(frozen=True, slots=True)
class IndexParameters:
    """What a saved index says of itself; `recall_at_10` was measured when it was built."""

    rows: int
    trained_rows: int
    lists: int
    probes: int
    candidates: int
    recall_at_10: float


@final
class RowIndex:
    """A FAISS index of the first `parameters.rows` rows of a log."""

    def __init__(self, index: Any, parameters: IndexParameters) -> None:  # a faiss index, which has no type
        self._index = index
        self.parameters = parameters

    def candidates(
        self, queries: Vectors, k: int, *, share: float = 1.0, effort: float = 1.0, allowed: Bits | None = None
    ) -> Rows:
        """Rows that are near each query, in no order: (q, m), −1 where there are fewer.

        share: of the rows that `allowed` lets through; the nearest of few lie in farther lists. effort: multiplies probed
        lists and candidates. allowed: rows outside it are never proposed.
        """
        mine = self.parameters
        wider = max(1.0, k / 10)
        count = min(mine.rows, max(2 * k, round(mine.candidates * wider * effort * min(4.0, share**-0.5))))
        extra = 1 if share < 0.9 else 0
        probes = min(mine.lists, round((mine.probes + extra) * wider**0.5 * effort * min(16.0, share**-0.6)))
        selector = faiss.IDSelectorBitmap(allowed) if allowed is not None else None
        parameters = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
        # Where faiss.contrib.torch_utils is loaded, as pytorch-metric-learning does, its `search` takes no parameters.
        search = getattr(self._index, "search_numpy", self._index.search)
        _, rows = search(queries, count, params=parameters)
        return rows  # type: ignore[no-any-return]

    def is_exhausted(self, effort: float) -> bool:
        """Whether an effort already probes every list."""
        return self.parameters.probes * effort >= self.parameters.lists


def best_of(queries: Vectors, vectors: Vectors, rows: Rows, k: int) -> tuple[Scores, Rows]:
    """The k best of each query's own candidates, by exact score, best first.

    queries: (q, dim); vectors: (n, dim), read in place; rows: (q, m) into vectors, −1 for none. Returns scores and rows,
    both (q, min(k, m)), −1 and −inf where there are fewer.
    """
    rows = np.ascontiguousarray(rows)
    scores = np.empty(rows.shape, np.float32)
    q, m = rows.shape
    faiss.fvec_inner_products_by_idx(
        faiss.swig_ptr(scores), faiss.swig_ptr(queries), faiss.swig_ptr(vectors), faiss.swig_ptr(rows), vectors.shape[1], q, m
    )
    return top(scores, rows, k)


def top(scores: Scores, rows: Rows, k: int) -> tuple[Scores, Rows]:
    """The k best columns of each line, best first; equal scores by row, so that an answer does not depend on the path."""
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    lines = np.arange(len(order))[:, None]
    return scores[lines, order], rows[lines, order]


def nearest(queries: Vectors, vectors: Vectors, k: int, *, allowed: Bits | None = None) -> tuple[Scores, Rows]:
    """Exact search over contiguous rows, read in place; same shapes as `best_of`."""
    q, n = len(queries), len(vectors)
    k = min(k, n)
    scores, rows = np.empty((q, k), np.float32), np.empty((q, k), np.int64)
    if k:
        selector = faiss.IDSelectorBitmap(allowed) if allowed is not None else None
        faiss.knn_inner_product(
            faiss.swig_ptr(queries), faiss.swig_ptr(vectors), vectors.shape[1], q, n, k,
            faiss.swig_ptr(scores), faiss.swig_ptr(rows), selector,
        )  # fmt: skip
    return top(scores, rows, k)


# ---- building


def build(vectors: Vectors, *, extend: RowIndex | None, live: Callable[[], Bits | None]) -> RowIndex:
    """An index of all rows: the given one with the rows after it added, or a new one when that has grown too far.

    vectors: (n, dim), mapped; live: which rows count, for the measurement.
    """
    n, dim = vectors.shape
    if extend is not None and n <= RETRAIN_GROWTH * extend.parameters.trained_rows:
        index, trained, lists = extend._index, extend.parameters.trained_rows, extend.parameters.lists
        start = extend.parameters.rows
        _take_graph_away(index)
    else:
        lists, trained, start = _list_count(n), n, 0
        index = faiss.index_factory(dim, f"IVF{lists},{_codes(dim)}", faiss.METRIC_INNER_PRODUCT)
        index.cp.niter = 8
        sample = np.linspace(0, n - 1, min(n, POINTS_PER_LIST * lists)).astype(np.int64)
        index.train(np.ascontiguousarray(vectors[sample]))
    for at in range(start, n, 65_536):
        index.add(vectors[at : at + 65_536])
    if lists >= GRAPH_LISTS:
        _put_graph(index)
    built = RowIndex(index, IndexParameters(n, trained, lists, 1, 1, 0.0))
    return _tuned(built, vectors, live())


def _put_graph(index: Any) -> None:  # faiss.IndexIVF
    """Let searches find the nearest lists by an HNSW graph. Rows are added before: comparing all centres is faster there.

    At a million rows (4,096 lists) a search takes a third to a half of the time; building through the graph, twice.
    """
    centres = index.quantizer.reconstruct_n(0, index.nlist)
    graph = faiss.IndexHNSWFlat(index.d, 32, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction, graph.hnsw.efSearch = 200, 32
    graph.add(centres)
    _exchange_quantizer(index, graph)


def _take_graph_away(index: Any) -> None:  # faiss.IndexIVF
    if isinstance(faiss.downcast_index(index.quantizer), faiss.IndexHNSW):
        flat = faiss.IndexFlatIP(index.d)
        flat.add(index.quantizer.reconstruct_n(0, index.nlist))
        _exchange_quantizer(index, flat)


def _exchange_quantizer(index: Any, quantizer: Any) -> None:
    """The index, which is C++ and owns its quantizer, gets another one and gives the old one back to Python to free."""
    old = index.quantizer
    quantizer.this.disown()
    index.quantizer = quantizer
    old.this.own(True)


def _list_count(n: int) -> int:
    """A power of two near 3.3 · √n: 1,024 lists for 100,000 rows, 4,096 for a million."""
    return int(2 ** round(np.log2(3.6 * np.sqrt(n))))


def _codes(dim: int) -> str:
    """Two dimensions a 4-bit code up to 1,024-d, then four; an odd dimension keeps bytes instead."""
    for width in (2, 4) if dim <= 1024 else (4, 2):
        if dim % width == 0:
            return f"PQ{dim // width}x4fsr"
    return "SQ8"


def _tuned(built: RowIndex, vectors: Vectors, live: Bits | None) -> RowIndex:
    """The same index with the least work that reaches TUNE_RECALL on rows of the store (each without itself)."""
    n = len(vectors)
    chosen = np.linspace(0, n - 1, min(n, TUNE_QUERIES)).astype(np.int64)
    queries = np.ascontiguousarray(vectors[chosen])
    _, truth = nearest(queries, vectors, 11, allowed=live)
    truth = _without(truth, chosen, 10)
    mine = built.parameters
    best = replace(mine, probes=mine.lists, candidates=1000, recall_at_10=-1.0)
    for probes, candidates in _ladder(mine.lists):
        tried = RowIndex(built._index, replace(mine, probes=probes, candidates=candidates))
        _, found = best_of(queries, vectors, tried.candidates(queries, 10, allowed=live), 11)
        recall = _recall(_without(found, chosen, 10), truth)
        best = replace(tried.parameters, recall_at_10=round(recall, 4))
        if recall >= TUNE_RECALL:
            break
    return RowIndex(built._index, best)


def _ladder(lists: int) -> list[tuple[int, int]]:
    """Pairs of (probed lists, candidates) from the least work to the most."""
    steps = [p for p in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512) if p <= lists]
    pairs = [(probes, candidates) for probes in steps for candidates in (20, 32, 48, 64, 96, 128, 256, 512)]
    return sorted(pairs, key=lambda pair: pair[0] + 0.25 * pair[1])


def _without(rows: Rows, own: Rows, k: int) -> Rows:
    """Each line without its own row: (q, k)."""
    kept = [[row for row in line if row != mine][:k] for line, mine in zip(rows.tolist(), own.tolist(), strict=True)]
    return np.array([line + [-1] * (k - len(line)) for line in kept], dtype=np.int64)


def _recall(found: Rows, truth: Rows) -> float:
    hits = sum(len(set(a) & set(b) - {-1}) for a, b in zip(found.tolist(), truth.tolist(), strict=True))
    return hits / max(1, int((truth >= 0).sum()))


# ---- files


def save(index: RowIndex, path: Path, *, store: str, generation: int) -> None:
    """Write an index beside its description, both whole or not at all; OSError when the system refuses."""
    name = f"{path.stem}-{index.parameters.rows}-{os.getpid()}.faiss"
    beside = path.with_name(f".{name}.tmp")
    try:
        try:
            faiss.write_index(index._index, str(beside))
        except RuntimeError as error:  # how faiss reports a failed write
            raise OSError(f"faiss could not write {beside}") from error
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        size, crc = beside.stat().st_size, crc_of_file(beside)
        beside.replace(path.with_name(name))
    finally:
        beside.unlink(missing_ok=True)
    record: Metadata = {"store": store, "generation": generation, "file": name, "bytes": size, "crc": crc}
    replace_file(path, sealed_json(record | {"parameters": asdict(index.parameters)}))
    for old in path.parent.glob(f"{path.stem}-*.faiss"):
        if old.name != name:
            old.unlink(missing_ok=True)


def load(path: Path, *, store: str, generation: int, rows: int, dim: int) -> RowIndex | None:
    """The saved index, or None where there is none. Raises StoreDamaged when it is not what its description says."""
    try:
        record = read_sealed_json(path)
        file = path.with_name(Path(record["file"]).name)
        if (record["store"], record["generation"]) != (store, generation):
            raise StoreDamaged(f"{path} belongs to another store or generation")
        parameters = _checked_parameters(IndexParameters(**record["parameters"]))
        if parameters.rows > rows:
            raise StoreDamaged(f"{path} covers {parameters.rows} rows, but the store has {rows}")
        if file.stat().st_size != record["bytes"] or crc_of_file(file) != record["crc"]:
            raise StoreDamaged(f"{file} does not match its checksum")
    except FileNotFoundError as error:
        if not path.exists():
            return None
        raise StoreDamaged(f"{path} names a file that is not there") from error
    except (KeyError, TypeError, ValueError) as error:  # ValueError: a file name that is none
        raise StoreDamaged(f"{path} does not describe an index of this version: {error}") from error
    faiss.set_deserialization_vector_byte_limit(max(1 << 20, 2 * int(record["bytes"])))
    faiss.set_deserialization_loop_limit(1 << 24)
    try:
        index = faiss.read_index(str(file))
    except RuntimeError as error:
        raise StoreDamaged(f"{file} is not an index that faiss reads") from error
    if index.ntotal != parameters.rows or index.d != dim:
        raise StoreDamaged(f"{file} holds {index.ntotal} rows of {index.d}, but its description says otherwise")
    if not isinstance(index, faiss.IndexIVF) or index.nlist != parameters.lists:
        raise StoreDamaged(f"{file} is not an index of {parameters.lists} lists, as its description says")
    return RowIndex(index, parameters)


def _checked_parameters(told: IndexParameters) -> IndexParameters:
    whole = (told.rows, told.trained_rows, told.lists, told.probes, told.candidates)
    if any(type(number) is not int or not 1 <= number < 1 << 40 for number in whole) or told.probes > told.lists:
        raise ValueError(f"numbers that no index has: {told}")
    if not isinstance(told.recall_at_10, int | float):
        raise TypeError(f"no recall: {told.recall_at_10!r}")
    return told
