"""The exact store: everything in memory, every score computed. The reference for the others, and the test double."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import final

import numpy as np

from binsight.errors import StoreReadOnly, UnknownItem
from binsight.filters import Filter, as_filter
from binsight.records import Item, Match, StoreInfo
from binsight.store.base import Batch, VectorStore, VerifyReport, checked_info, metadata_object
from binsight.vectors import Vectors, check, score


@final
class ExactStore(VectorStore):
    """A dictionary of id → (metadata, vector). Nothing survives the process."""

    def __init__(self, info: StoreInfo, *, read_only: bool = False) -> None:
        self._info = checked_info(info)
        self._created = info.created or datetime.now(UTC).isoformat(timespec="seconds")
        self._read_only = read_only
        self._lock = threading.RLock()
        self._texts: dict[str, str] = {}
        self._vectors: dict[str, Vectors] = {}
        self._matrix: Vectors | None = None  # (n, dim), rebuilt after a change

    @property
    def info(self) -> StoreInfo:
        mine = self._info
        return StoreInfo(mine.dim, mine.fingerprint, mine.model, mine.metric, len(self), self._created, {"kind": "exact"})

    @property
    def dim(self) -> int:
        return self._info.dim

    def __len__(self) -> int:
        return len(self._texts)

    def _upsert(self, batch: Batch) -> None:
        self._check_writable()
        with self._lock:
            self._texts.update(zip(batch.ids, batch.metadata, strict=True))
            self._vectors.update(zip(batch.ids, batch.vectors.copy(), strict=True))
            self._matrix = None

    def _query(self, queries: Vectors, k: int, where: Filter | None) -> list[list[Match]]:
        with self._lock:
            ids, matrix = list(self._vectors), self._rows()
            texts = [self._texts[one] for one in ids]
        if where is not None:
            kept = [row for row, text in enumerate(texts) if where.matches(metadata_object(text))]
            ids, texts, matrix = [ids[row] for row in kept], [texts[row] for row in kept], matrix[kept]
        scores = score(queries, matrix)  # (q, n)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # (q, ≤k)
        return [
            [Match(Item(ids[row], metadata_object(texts[row])), float(line[row])) for row in best]
            for line, best in zip(scores, order, strict=True)
        ]

    def _get(self, ids: list[str]) -> list[Item | None]:
        with self._lock:
            texts = [self._texts.get(one) for one in ids]
        return [None if text is None else Item(one, metadata_object(text)) for one, text in zip(ids, texts, strict=True)]

    def _vectors_of(self, ids: list[str]) -> Vectors:
        with self._lock:
            missing = [one for one in ids if one not in self._vectors]
            if missing:
                raise UnknownItem(f"no item has the id {missing[0]!r} ({len(missing)} of {len(ids)} ids are not in the store)")
            return np.stack([self._vectors[one] for one in ids]) if ids else np.empty((0, self._info.dim), np.float32)

    def _delete(self, ids: list[str]) -> int:
        self._check_writable()
        with self._lock:
            there = [one for one in ids if self._texts.pop(one, None) is not None]
            for one in there:
                del self._vectors[one]
            self._matrix = None
        return len(there)

    def scan(self, where: Filter | str | None = None) -> Iterator[Item]:
        found = as_filter(where)
        with self._lock:
            records = list(self._texts.items())
        items = (Item(one, metadata_object(text)) for one, text in records)
        return (item for item in items if found is None or found.matches(item.metadata))

    def verify(self) -> VerifyReport:
        with self._lock:
            check(self._rows(), dim=self._info.dim)
            return VerifyReport(items=len(self), checked={"vectors": len(self)})

    def compact(self) -> None:
        """Nothing to do: nothing is left behind."""

    def close(self) -> None:
        """Nothing to let go of."""

    def _rows(self) -> Vectors:
        if self._matrix is None:
            rows = list(self._vectors.values())
            self._matrix = np.stack(rows) if rows else np.empty((0, self._info.dim), np.float32)
        return self._matrix

    def _check_writable(self) -> None:
        if self._read_only:
            raise StoreReadOnly("the store was opened with read_only=True; open it for writing")
