"""Shards: a folder of finished files that any store loads later, and Parquet's and numpy's readers read as they are.

`manifest.json` says which model made the vectors. Every job of an array writes shards of its own name beside the others'.
Items wait in memory until a shard is full; what is in finished shards is not encoded again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self, TypeVar, final

import numpy as np

from binsight.data.files import PARTIAL, make_folder
from binsight.data.part import WHOLE, Part
from binsight.errors import BadSettings, NotAStore, StoreDamaged, StoreReadOnly, UnknownItem
from binsight.filters import Filter, as_filter
from binsight.origin import COUNTED, count_names, said_by_model, source_of
from binsight.records import Item, Match, Metadata, StoreInfo
from binsight.store.base import Batch, VectorStore, VerifyReport, checked_info, metadata_object
from binsight.store.files import WriterLock
from binsight.vectors import Vectors
from indexer.shard_files import (
    COUNTS,
    FORMAT,
    VERSION,
    ShardFile,
    read_records,
    read_shard,
    read_vectors,
    sealed,
    unsealed,
    write_file,
    write_shard,
)

MANIFEST = "manifest.json"
T = TypeVar("T")
_MAKING_S = 30.0  # that another job may take to write the manifest
_KEPT = 2  # shards whose records, and whose vectors, stay in memory


class _Place(NamedTuple):
    shard: int
    row: int


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """An item that is in no finished shard yet."""

    text: str
    vector: Vectors  # (dim,)


@final
class Shards(VectorStore):
    """A folder of shards, open for one part of a job or for reading. It is read and written, but not searched or pruned."""

    def __init__(self, folder: Path, info: StoreInfo, *, part: Part, shard_items: int, read_only: bool) -> None:
        self._folder, self._info, self._part, self._shard_items = folder, info, part, shard_items
        self._read_only = read_only
        self._lock = threading.RLock()
        self._writer = None if read_only else WriterLock(folder, f".lock-{part.number}of{part.parts}")
        self._waiting: dict[str, _Waiting] = {}
        self._places: dict[str, _Place] = {}
        self._texts: OrderedDict[int, list[str]] = OrderedDict()
        self._rows: OrderedDict[int, Vectors] = OrderedDict()
        try:
            if not read_only:
                self._clean()
            found = sorted((read_shard(path) for path in folder.glob("part-*.json")), key=lambda one: (one.number, one.part))
            self._shards: list[ShardFile] = []
            for shard in found:
                self._take_in(shard, read_records(folder, shard, "id")[0])
        except BaseException:
            self._release()
            raise

    @classmethod
    def open(
        cls,
        folder: Path,
        create: StoreInfo | None = None,
        *,
        part: Part = WHOLE,
        shard_items: int = 4096,
        read_only: bool = False,
    ) -> Self:
        """The shards of a folder; made for the model of `create` when it is not there.

        Raises NotAStore, ModelMismatch, StoreLocked when another job writes this part, StoreDamaged.
        """
        if not (folder / MANIFEST).exists():
            if create is None or read_only:
                raise NotAStore(f"{folder} holds no shards: there is no {MANIFEST} in it")
            _make(folder, checked_info(create))
        shards = cls(folder, manifest_of(folder), part=part, shard_items=shard_items, read_only=read_only)
        try:
            if create is not None:
                shards.expect(create)
        except BaseException:
            shards.close()
            raise
        return shards

    def _take_in(self, shard: ShardFile, ids: list[str]) -> None:
        if (shard.fingerprint, shard.dim) != (self._info.fingerprint, self._info.dim):
            raise StoreDamaged(
                f"{self._folder / shard.name}.json is of another model than {MANIFEST}; take it out of the folder"
            )
        place = len(self._shards)
        self._shards.append(shard)
        self._places.update((one, _Place(place, row)) for row, one in enumerate(ids))

    def _clean(self) -> None:
        """Remove what a killed job of this part left half written."""
        for left in self._folder.glob(f".part-*-{self._part.number}of{self._part.parts}.*{PARTIAL}"):
            left.unlink(missing_ok=True)

    # ---- what it is

    @property
    def info(self) -> StoreInfo:
        mine = self._info
        detail: Metadata = {"kind": "shards", "path": str(self._folder), "shards": len(self._shards)}
        detail["durability"] = "a shard is on disk when it is finished"
        return StoreInfo(mine.dim, mine.fingerprint, mine.model, mine.metric, len(self), mine.created, detail)

    @property
    def model_info(self) -> StoreInfo:
        """What a store of the same model is made with."""
        return StoreInfo(self._info.dim, self._info.fingerprint, self._info.model, self._info.metric)

    @property
    def dim(self) -> int:
        return self._info.dim

    def __len__(self) -> int:
        with self._lock:
            return len(self._places) + sum(one not in self._places for one in self._waiting)

    # ---- writing

    def _upsert(self, batch: Batch) -> None:
        if self._read_only:
            raise StoreReadOnly(f"{self._folder} was opened for reading")
        with self._lock:
            for one, text, row in zip(batch.ids, batch.metadata, batch.vectors, strict=True):
                self._waiting[one] = _Waiting(text, row)
            while len(self._waiting) >= self._shard_items:
                self._finish_shard(self._shard_items)

    def finish(self) -> None:
        """Put what waits into a last, smaller shard. Raises StoreWriteFailed."""
        with self._lock:
            if self._waiting:
                self._finish_shard(len(self._waiting))

    def _finish_shard(self, size: int) -> None:
        ids = list(self._waiting)[:size]
        some = [self._waiting[one] for one in ids]
        number = max((shard.number for shard in self._shards), default=0) + 1
        mine = self._info
        shard = ShardFile(number, self._part.number, self._part.parts, len(ids), mine.dim, mine.fingerprint, "", "")
        counts = [_counts_of(Item(one, metadata_object(each.text))) for one, each in zip(ids, some, strict=True)]
        shard = write_shard(
            self._folder, shard, ids, [one.text for one in some], counts, np.stack([one.vector for one in some])
        )
        self._take_in(shard, ids)
        for one in ids:
            del self._waiting[one]

    def _delete(self, ids: list[str]) -> int:
        raise BadSettings(f"shards are only added to, so {ids[0]!r} cannot be deleted; load them into a store and prune there")

    # ---- reading

    def _get(self, ids: list[str]) -> list[Item | None]:
        with self._lock:
            return [self._item(one) for one in ids]

    def _item(self, one: str) -> Item | None:
        if one in self._waiting:
            return Item(one, metadata_object(self._waiting[one].text))
        if one not in self._places:
            return None
        place = self._places[one]
        return Item(one, metadata_object(self._texts_of(place.shard)[place.row]))

    def _vectors_of(self, ids: list[str]) -> Vectors:
        with self._lock:
            missing = [one for one in ids if one not in self._waiting and one not in self._places]
            if missing:
                raise UnknownItem(f"no item has the id {missing[0]!r} ({len(missing)} of {len(ids)} ids are not in the shards)")
            found = np.empty((len(ids), self.dim), np.float32)
            for at, one in enumerate(ids):
                place = self._places.get(one)
                waiting = self._waiting.get(one)
                if waiting is not None:
                    found[at] = waiting.vector
                elif place is not None:
                    found[at] = self._rows_of(place.shard)[place.row]
            return found

    def scan(self, where: Filter | str | None = None) -> Iterator[Item]:
        found = as_filter(where)
        for place, shard in enumerate(list(self._shards)):
            with self._lock:
                ids, texts = read_records(self._folder, shard, "id", "metadata")
                items = [
                    Item(one, metadata_object(text))
                    for row, (one, text) in enumerate(zip(ids, texts, strict=True))
                    if self._places[one] == _Place(place, row) and one not in self._waiting
                ]
            yield from (item for item in items if found is None or found.matches(item.metadata))
        with self._lock:
            waiting = [Item(one, metadata_object(each.text)) for one, each in self._waiting.items()]
        yield from (item for item in waiting if found is None or found.matches(item.metadata))

    def _query(self, queries: Vectors, k: int, where: Filter | None) -> list[list[Match]]:  # noqa: ARG002
        raise BadSettings(f"shards are not searched; load {self._folder} into a store, and search that")

    def verify(self) -> VerifyReport:
        problems: list[str] = []
        for shard in self._shards:
            try:
                read_records(self._folder, shard, "id", "metadata")
                read_vectors(self._folder, shard)
            except StoreDamaged as error:
                problems.append(str(error))
        return VerifyReport(len(self), {"shards": len(self._shards)}, problems)

    def compact(self) -> None:
        """Nothing to do: finished shards stay as they are."""

    def close(self) -> None:
        """Finish the last shard and let the next job of this part begin."""
        try:
            if self._writer is not None:
                self.finish()
        finally:
            self._waiting.clear()
            self._release()

    def _release(self) -> None:
        if self._writer is not None:
            self._writer.remove()
            self._writer = None

    def _texts_of(self, place: int) -> list[str]:
        if place not in self._texts:
            self._texts[place] = read_records(self._folder, self._shards[place], "metadata")[0]
        return _kept(self._texts, place)

    def _rows_of(self, place: int) -> Vectors:
        if place not in self._rows:
            self._rows[place] = read_vectors(self._folder, self._shards[place])
        return _kept(self._rows, place)


def manifest_of(folder: Path) -> StoreInfo:
    """Which model's vectors a folder of shards holds. Raises NotAStore, StoreDamaged."""
    path = folder / MANIFEST
    if not path.exists():
        raise NotAStore(f"{folder} holds no shards: there is no {MANIFEST} in it")
    record = unsealed(path)
    if (record.get("format"), record.get("version")) != (FORMAT, VERSION):
        raise StoreDamaged(f"{path} is of another format than {FORMAT} {VERSION}")
    return checked_info(StoreInfo(*(record.get(name) for name in _INFO)))  # type: ignore[arg-type]  # checked there


_INFO = ("dim", "fingerprint", "model", "metric", "items", "created")


def _make(folder: Path, info: StoreInfo) -> None:
    """Write the manifest, unless another job of the array does."""
    if folder.exists() and not folder.is_dir():
        raise BadSettings(f"{folder} is there and holds no shards; choose another folder")
    lock = WriterLock(make_folder(folder), ".making", patience_s=_MAKING_S)
    try:
        if not (folder / MANIFEST).exists():
            _write_manifest(folder, info)
    finally:
        lock.remove()


def _write_manifest(folder: Path, info: StoreInfo) -> None:
    if any(one.name[0] != "." for one in folder.iterdir()):
        raise BadSettings(f"{folder} is there and holds no shards; choose another folder")
    created = info.created or datetime.now(UTC).isoformat(timespec="seconds")
    values = (info.dim, info.fingerprint, info.model, info.metric, 0, created)
    write_file(folder / MANIFEST, sealed({"format": FORMAT, "version": VERSION} | dict(zip(_INFO, values, strict=True))))


def _counts_of(item: Item) -> Metadata:
    """The model's count in a shard's columns, under whichever names the item has it."""
    said = said_by_model(item)
    if not said:
        return {}
    names = count_names(source_of(item)[COUNTED])
    return {column: said.get(name) for column, name in zip(COUNTS, names, strict=True)}


def _kept(cache: OrderedDict[int, T], place: int) -> T:
    """What a cache holds there, now its newest; the oldest beyond _KEPT go."""
    cache.move_to_end(place)
    while len(cache) > _KEPT:
        cache.popitem(last=False)
    return cache[place]
