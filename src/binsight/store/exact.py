"""The exact store: everything in memory, every score computed. The reference for the others, and the test double."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import final
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from binsight.errors import StoreReadOnly, UnknownItem
from binsight.filters import Filter, as_filter
from binsight.records import Item, Match, StoreInfo
from binsight.store.base import Batch, VectorStore, VerifyReport, checked_info, metadata_object
from binsight.vectors import Scores, Vectors, check, score

_BLOCK_SCORES = 1 << 22  # 16 MB of scores at a time


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
        self._laid_out: tuple[list[str], list[str], Vectors] | None = None  # ids, texts, (n, dim); anew after a change
        self._id, self._follows = uuid4().hex, ""

    @property
    def info(self) -> StoreInfo:
        mine = self._info
        detail = {"kind": "exact", "id": self._id}
        return StoreInfo(mine.dim, mine.fingerprint, mine.model, mine.metric, len(self), self._created, detail)

    @property
    def follows(self) -> str:
        return self._follows

    def follow(self, store_id: str) -> None:
        self._follows = store_id

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
            self._laid_out = None

    def _query(self, queries: Vectors, k: int, where: Filter | None) -> list[list[Match]]:
        with self._lock:
            ids, texts, matrix = self._rows()
        if where is not None:
            kept = [row for row, text in enumerate(texts) if where.matches(metadata_object(text))]
            ids, texts, matrix = [ids[row] for row in kept], [texts[row] for row in kept], matrix[kept]
        answer: list[list[Match]] = []
        block = max(1, _BLOCK_SCORES // max(1, len(ids)))
        for start in range(0, len(queries), block):
            for line in score(queries[start : start + block], matrix):  # (n,)
                best = _best(line, k).tolist()
                answer.append([Match(Item(ids[row], metadata_object(texts[row])), float(line[row])) for row in best])
        return answer

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
            self._laid_out = None
        return len(there)

    def scan(self, where: Filter | str | None = None) -> Iterator[Item]:
        found = as_filter(where)
        with self._lock:
            records = list(self._texts.items())
        items = (Item(one, metadata_object(text)) for one, text in records)
        return (item for item in items if found is None or found.matches(item.metadata))

    def verify(self) -> VerifyReport:
        with self._lock:
            check(self._rows()[2], dim=self._info.dim)
            return VerifyReport(items=len(self), checked={"vectors": len(self)})

    def compact(self) -> None:
        """Nothing to do: nothing is left behind."""

    def close(self) -> None:
        """Nothing to let go of."""

    def _rows(self) -> tuple[list[str], list[str], Vectors]:
        if self._laid_out is None:
            rows = list(self._vectors.values())
            matrix = np.stack(rows) if rows else np.empty((0, self._info.dim), np.float32)
            self._laid_out = list(self._vectors), [self._texts[one] for one in self._vectors], matrix
        return self._laid_out

    def _check_writable(self) -> None:
        if self._read_only:
            raise StoreReadOnly("the store was opened with read_only=True; open it for writing")


def _best(scores: Scores, k: int) -> NDArray[np.int64]:
    """Places of the k largest, largest first, equal ones in order of arrival. scores: (n,)."""
    if k >= len(scores):
        return np.argsort(-scores, kind="stable")
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    places = np.flatnonzero(scores >= least)  # k, and those that equal the last of them
    return places[np.argsort(-scores[places], kind="stable")[:k]]
