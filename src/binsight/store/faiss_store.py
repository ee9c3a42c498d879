"""The local store: the log is the truth, a FAISS index over its first rows a cache that may be lost at any time.

Rows after the index (the tail) are compared exactly and merged. Up to SMALL_ROWS there is no index at all. A filter becomes
the rows it lets through, kept for the next query; few rows are compared exactly, many are handed to FAISS as a selector.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, final

import numpy as np

from binsight.errors import StoreDamaged, StoreReadOnly, StoreWriteFailed, UnknownItem
from binsight.filters import Filter, as_filter
from binsight.records import Item, Match, Metadata, StoreInfo
from binsight.store import faiss_index
from binsight.store.base import Batch, VectorStore, VerifyReport, metadata_object
from binsight.store.faiss_index import Bits, RowIndex, Rows
from binsight.store.files import FOLLOWS, read_sealed_json, replace_file, sealed_json
from binsight.store.log import GenerationMoved, Snapshot, VectorLog
from binsight.vectors import Scores, Vectors

log = logging.getLogger(__name__)

SMALL_ROWS = 20_000  # compared exactly: 40 MB at 512-d, a few milliseconds
TAIL_ROWS = 50_000  # or a tenth of the log, whichever is more: then the index is brought up to date
FEW_ROWS = 3_000  # a filter that leaves so few rows: compared exactly
_KEPT_FILTERS = 64
_KEPT_ITEMS = 20_000
_Kept: TypeAlias = tuple[str, Metadata | None, str]  # id; flat metadata; or else its text
_MOST_ROUNDS = 8


@dataclass(frozen=True, slots=True, eq=False)
class _Allowed:
    """The rows that a filter lets through at one moment, and the same as bits."""

    rows: Rows
    bits: Bits


@final
class FaissStore(VectorStore):
    """A folder on one machine: one writer, any number of readers, also in other processes."""

    def __init__(self, log_: VectorLog) -> None:
        self._log = log_
        self._lock = threading.RLock()  # guards what is kept below
        self._filters: OrderedDict[tuple[int, int, str], _Allowed] = OrderedDict()
        self._records: dict[int, _Kept] = {}  # of one generation
        self._records_generation = -1
        self._builder: threading.Thread | None = None
        self._building = threading.Lock()  # held while files of an index are written or taken away; take no other lock first
        self._index_note = ""
        self._loaded: tuple[int, RowIndex | None] = (-1, None)  # a generation and its index, exchanged together
        try:
            self._load_index(log_.snapshot())
        except BaseException:
            log_.close()
            raise

    @classmethod
    def create(cls, folder: Path, info: StoreInfo, *, created: str) -> FaissStore:
        return cls(VectorLog.create(folder, info, created=created))

    @classmethod
    def open(cls, folder: Path, *, read_only: bool) -> FaissStore:
        return cls(VectorLog.open(folder, read_only=read_only))

    # ---- what it is

    @property
    def info(self) -> StoreInfo:
        state, told = self._log.snapshot().state, self._log.identity
        detail: Metadata = {"kind": "local", "path": str(self._log.folder), "rows": state.rows, "generation": state.generation}
        detail["id"] = told["store"]
        detail["durability"] = "every write is on disk when it returns"
        _, index = self._loaded
        detail["index"] = {"kind": "exact"} if index is None else {"kind": "ivf-pq-fastscan", **_described(index)}
        return StoreInfo(
            told["dim"], told["fingerprint"], told["model"], told["metric"], state.items, told["created"], detail
        )  # fmt: skip

    @property
    def dim(self) -> int:
        return self._log.dim

    def __len__(self) -> int:
        return self._log.snapshot().state.items

    # ---- writing

    def _upsert(self, batch: Batch) -> None:
        self._log.append(batch)

    def _delete(self, ids: list[str]) -> int:
        return self._log.delete(ids)

    @property
    def follows(self) -> str:
        try:
            record = read_sealed_json(self._log.folder / FOLLOWS)
        except (FileNotFoundError, StoreDamaged):  # of an unreadable one nobody knows: then it follows none
            return ""
        return str(record.get("follows", "")) if record.get("store") == self._log.identity["store"] else ""

    def follow(self, store_id: str) -> None:
        if self._log.is_in_place and store_id != self.follows:
            replace_file(self._log.folder / FOLLOWS, sealed_json({"store": self._log.identity["store"], "follows": store_id}))

    def tell_address(self, address: str) -> None:
        self._log.tell_address(address)

    # ---- reading

    def _get(self, ids: list[str]) -> list[Item | None]:
        while True:
            snapshot = self._log.snapshot()
            try:
                rows = self._log.rows_of(snapshot, ids)
                there = [rows[one] for one in ids if one in rows]
                items = self._items_of(snapshot, there)
            except GenerationMoved:
                continue
            if items is not None:
                found = iter(items)
                return [next(found) if one in rows else None for one in ids]

    def _vectors_of(self, ids: list[str]) -> Vectors:
        while True:
            snapshot = self._log.snapshot()
            try:
                rows = self._log.rows_of(snapshot, ids)
            except GenerationMoved:
                continue
            missing = [one for one in ids if one not in rows]
            if missing:
                raise UnknownItem(f"no item has the id {missing[0]!r} ({len(missing)} of {len(ids)} ids are not in the store)")
            wanted = np.array([rows[one] for one in ids], dtype=np.int64)
            if not len(wanted) or wanted.max() < snapshot.state.rows:
                return self._log.vectors_at(snapshot, wanted)

    def scan(self, where: Filter | str | None = None) -> Iterator[Item]:
        found = as_filter(where)
        return (Item(one, metadata_object(text)) for _, one, text in self._log.scan(found))

    def _query(self, queries: Vectors, k: int, where: Filter | None) -> list[list[Match]]:
        for _ in range(_MOST_ROUNDS):
            try:
                answer = self._look(queries, k, where)
            except GenerationMoved:
                continue
            if answer is not None:
                return answer
        with self._log.still():  # others write faster than we look
            answer = self._look(queries, k, where)
        assert answer is not None
        return answer

    def _look(self, queries: Vectors, k: int, where: Filter | None) -> list[list[Match]] | None:
        """The answer of one snapshot; None when an item of it was replaced or deleted before it could be read."""
        snapshot = self._log.snapshot()
        allowed = self._allowed(snapshot, where) if where is not None else None
        scores, rows = self._search(snapshot, queries, k, allowed)
        lines = rows.tolist()
        items = self._items_of(snapshot, [row for line in lines for row in line if row >= 0])
        if items is None:
            return None
        found = iter(items)
        return [
            [Match(next(found), score) for row, score in zip(line, values, strict=True) if row >= 0]
            for line, values in zip(lines, np.clip(scores, -1.0, 1.0).tolist(), strict=True)
        ]

    def _items_of(self, snapshot: Snapshot, rows: list[int]) -> list[Item] | None:
        """The item of each row, all of which counted in the snapshot; None when one ceased since, and was not kept.

        Every place gets objects of its own, which a caller may change: flat metadata is copied, nested parsed anew.
        """
        with self._lock:
            if self._records_generation != snapshot.state.generation or len(self._records) > _KEPT_ITEMS:
                self._records, self._records_generation = {}, snapshot.state.generation
            kept = self._records  # of this generation, also when another one takes its place meanwhile
        missing = [row for row in rows if row not in kept]
        if missing:
            kept.update({row: _kept(*record) for row, record in self._log.records(snapshot, missing).items()})
            if any(row not in kept for row in missing):
                return None
        found = []
        for row in rows:
            one, flat, text = kept[row]
            found.append(Item(one, flat.copy() if flat is not None else metadata_object(text)))
        return found

    # ---- nearness

    def _search(self, snapshot: Snapshot, queries: Vectors, k: int, allowed: _Allowed | None) -> tuple[Scores, Rows]:
        index = self._index_of(snapshot)
        indexed = index.parameters.rows if index is not None else 0
        if allowed is not None and (index is None or len(allowed.rows) <= FEW_ROWS):
            return self._among(snapshot, queries, k, allowed.rows)
        found = []
        if index is not None:
            found.append(self._by_index(index, snapshot, queries, k, allowed))
        if indexed < snapshot.state.rows:
            found.append(self._tail(snapshot, queries, k, indexed, allowed))
        if not found:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        if len(found) == 1:
            return found[0]
        scores, rows = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
        return faiss_index.top(scores, rows, k)

    def _by_index(
        self, index: RowIndex, snapshot: Snapshot, queries: Vectors, k: int, allowed: _Allowed | None
    ) -> tuple[Scores, Rows]:
        n = index.parameters.rows
        bits = allowed.bits if allowed is not None else _live_bits(snapshot, n)
        there = _count(bits, n) if bits is not None else n
        if allowed is None and there <= FEW_ROWS:
            return self._among(snapshot, queries, k, self._live_rows(snapshot, None, 0, n))
        share = max(1, there) / n
        effort = 2.0 if allowed is None and share < 0.9 else 1.0  # what is deleted may be a whole side of the space
        while True:
            rows = index.candidates(queries, k, share=share, effort=effort, allowed=bits)
            self._log.check_rows(snapshot, rows[rows >= 0])
            scores, best = faiss_index.best_of(queries, snapshot.vectors, rows, k)
            if bool((best[:, -1] >= 0).all()) and best.shape[1] >= min(k, there):
                return scores, best
            if index.is_exhausted(effort):
                return self._among(snapshot, queries, k, self._live_rows(snapshot, allowed, 0, n))
            effort *= 4

    def _tail(self, snapshot: Snapshot, queries: Vectors, k: int, start: int, allowed: _Allowed | None) -> tuple[Scores, Rows]:
        """Exact search over the rows from `start` on."""
        n = snapshot.state.rows
        if allowed is not None:
            return self._among(snapshot, queries, k, allowed.rows[np.searchsorted(allowed.rows, start) :])
        self._log.check_rows(snapshot, np.arange(start, n))
        live = _live_bits(snapshot, n, start)
        scores, rows = faiss_index.nearest(queries, snapshot.vectors[start:n], k, allowed=live)
        return scores, np.where(rows >= 0, rows + start, rows)

    def _among(self, snapshot: Snapshot, queries: Vectors, k: int, rows: Rows) -> tuple[Scores, Rows]:
        """Exact search over chosen rows, some thousand at a time."""
        self._log.check_rows(snapshot, rows)
        scores, best = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        for at in range(0, len(rows), 16_384):
            part = rows[at : at + 16_384]
            if len(queries) == 1:
                found = faiss_index.best_of(queries, snapshot.vectors, part[None], k)
            else:
                of_part, places = faiss_index.nearest(queries, np.ascontiguousarray(snapshot.vectors[part]), k)
                found = of_part, np.where(places >= 0, part[places], -1)
            scores, best = np.concatenate([scores, found[0]], axis=1), np.concatenate([best, found[1]], axis=1)
            scores, best = faiss_index.top(scores, best, k)
        return scores, best

    def _live_rows(self, snapshot: Snapshot, allowed: _Allowed | None, start: int, end: int) -> Rows:
        if allowed is not None:
            return allowed.rows[np.searchsorted(allowed.rows, start) : np.searchsorted(allowed.rows, end)]
        live = _live_bits(snapshot, end, start)
        if live is None:
            return np.arange(start, end)
        return start + np.flatnonzero(np.unpackbits(live, count=end - start, bitorder="little"))

    def _allowed(self, snapshot: Snapshot, where: Filter) -> _Allowed:
        """The rows that count and that the filter lets through, kept for each filter and commit."""
        key = (snapshot.state.generation, snapshot.state.seq, where.text)
        with self._lock:
            if key in self._filters:
                self._filters.move_to_end(key)
                return self._filters[key]
        rows = self._log.rows_where(snapshot, where)
        mask = np.zeros(snapshot.state.rows, dtype=bool)
        mask[rows] = True
        allowed = _Allowed(rows, np.packbits(mask, bitorder="little"))
        with self._lock:
            self._filters[key] = allowed
            while len(self._filters) > _KEPT_FILTERS:
                self._filters.popitem(last=False)
        return allowed

    # ---- the index

    def _index_of(self, snapshot: Snapshot) -> RowIndex | None:
        """The index that fits the snapshot; when the tail has grown too long, a better one is on its way."""
        generation, index = self._loaded
        if generation != snapshot.state.generation:
            with self._lock:
                if self._loaded[0] < snapshot.state.generation:
                    self._load_index(snapshot)
                generation, index = self._loaded
            if generation != snapshot.state.generation:
                return None  # another thread has gone on to a later one
        if index is not None and index.parameters.rows > snapshot.state.rows:
            return None  # loaded for a later moment than this snapshot
        if self._is_stale(snapshot, index):
            if self._log.is_writer:
                self._build_beside()
            else:
                self._load_newer(snapshot)
        return index

    def _is_stale(self, snapshot: Snapshot, index: RowIndex | None) -> bool:
        rows = snapshot.state.rows
        tail = rows - (index.parameters.rows if index is not None else 0)
        limit = SMALL_ROWS if index is None else max(TAIL_ROWS, index.parameters.rows // 10)
        return tail > limit

    def _load_index(self, snapshot: Snapshot) -> None:
        state, files, index = snapshot.state, self._log.files, None
        try:
            index = faiss_index.load(
                files.index, store=state.store, generation=state.generation, rows=state.rows, dim=self._log.dim
            )
        except (StoreDamaged, OSError) as error:
            log.warning("%s; it is only a cache: answers stay right, and it will be built anew", error)
        self._loaded = (state.generation, index)
        self._seen_index = _mtime(files.index)

    def _load_newer(self, snapshot: Snapshot) -> None:
        """A reader looks whether the writer has saved a newer index."""
        with self._lock:
            if _mtime(self._log.files.index) != self._seen_index:
                self._load_index(snapshot)
            elif not self._index_note:
                self._index_note = "told"
                log.warning(
                    "the index of %s covers few of its %d rows: answers are right but slow; run `binsight store compact %s`",
                    self._log.folder, snapshot.state.rows, self._log.folder,
                )  # fmt: skip

    def _build_beside(self) -> None:
        with self._lock:
            if self._builder is None or not self._builder.is_alive():
                self._builder = threading.Thread(target=self._try_build, name="binsight-index", daemon=True)
                self._builder.start()

    def _try_build(self) -> None:
        try:
            with self._building:
                self._build()
        except (StoreWriteFailed, StoreDamaged, MemoryError) as error:
            log.warning("the index of %s was not built: %s", self._log.folder, error)

    def _build(self) -> None:
        snapshot = self._log.snapshot()
        rows, files = snapshot.state.rows, self._log.files
        if rows <= SMALL_ROWS:
            return
        self._log.check_rows(snapshot, np.arange(rows))
        state = snapshot.state
        try:
            saved = faiss_index.load(
                files.index, store=state.store, generation=state.generation, rows=rows, dim=self._log.dim
            )  # a second copy: the first one is being searched
        except (StoreDamaged, OSError):
            saved = None
        built = faiss_index.build(snapshot.vectors, extend=saved, live=lambda: _live_bits(snapshot, rows))
        if not self._log.is_in_place:
            return
        try:
            faiss_index.save(built, files.index, store=state.store, generation=state.generation)
        except OSError as error:
            raise StoreWriteFailed(f"could not save the index of {self._log.folder}: {error}") from error
        with self._lock:
            if self._loaded[0] == state.generation:
                self._loaded, self._seen_index = (state.generation, built), _mtime(files.index)

    # ---- keeping

    def verify(self) -> VerifyReport:
        problems, read = self._log.problems()
        state = self._log.snapshot().state
        damage = self._index_damage()
        if damage:
            problems.append(f"{damage} (a cache: it is built anew by `binsight store compact`)")
        return VerifyReport(state.items, {"vectors": read, "records": read, "journal_frames": state.seq}, problems)

    def _index_damage(self) -> str:
        """What is wrong with the saved index; nothing when a writer has put another one in its place meanwhile."""
        told = ""
        for _ in range(_MOST_ROUNDS):
            state, file = self._log.snapshot().state, self._log.files.index
            saved_at = _mtime(file)
            try:
                faiss_index.load(file, store=state.store, generation=state.generation, rows=state.rows, dim=self._log.dim)
            except (StoreDamaged, OSError) as error:
                told = str(error)
            else:
                return ""
            now = self._log.snapshot().state
            if (now.generation, now.rows, _mtime(file)) == (state.generation, state.rows, saved_at):
                return told
        return ""  # it is written faster than it can be read

    def compact(self) -> None:
        if not self._log.is_writer:
            raise StoreReadOnly(f"{self._log.folder} was opened with read_only=True; open it for writing")
        with self._building:
            snapshot = self._log.snapshot()
            if snapshot.dead_rows or snapshot.state.seq > max(64, snapshot.state.rows // 128):
                self._log.next_generation()
                snapshot = self._log.snapshot()
                with self._lock:
                    self._load_index(snapshot)
            _, index = self._loaded
            if index is None or index.parameters.rows < snapshot.state.rows:
                self._build()

    def close(self) -> None:
        if self._log.is_closed:
            return
        try:
            self._join_builder()
            if self._log.is_in_place and self._is_stale(self._log.snapshot(), self._loaded[1]):
                self._try_build()
        finally:
            self._log.close()

    def _join_builder(self) -> None:
        builder = self._builder
        if builder is not None:
            builder.join()


def _kept(one: str, text: str) -> _Kept:
    metadata = metadata_object(text)
    is_flat = not any(isinstance(value, dict | list) for value in metadata.values())
    return (one, metadata, "") if is_flat else (one, None, text)


def _live_bits(snapshot: Snapshot, end: int, start: int = 0) -> Bits | None:
    """A bit for each of the rows start … end − 1 that counts, or None when all of the log's do."""
    if snapshot.dead is None:
        return None
    dead = np.zeros(end, dtype=bool)
    bits = np.unpackbits(snapshot.dead, bitorder="little")[:end]
    dead[: len(bits)] = bits
    return np.packbits(~dead[start:], bitorder="little")


def _count(bits: Bits, n: int) -> int:
    """How many of the first n bits are set."""
    whole = int(np.bitwise_count(bits[: n // 8]).sum())
    return whole + (int(bits[n // 8] & (1 << n % 8) - 1).bit_count() if n % 8 else 0)


def _described(index: RowIndex) -> Metadata:
    mine = index.parameters
    return {
        "rows": mine.rows, "lists": mine.lists, "probes": mine.probes,
        "candidates": mine.candidates, "recall_at_10": mine.recall_at_10,
    }  # fmt: skip


def _mtime(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
