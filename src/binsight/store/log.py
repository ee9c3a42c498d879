"""The durable truth of a local store: rows of vectors, a journal, and the table of items that both explain.

An upsert writes its vectors after the last row (synced), then one journal frame (synced), then commits the table. A frame
counts when the table says so, or when it is found whole after the table's end: the process then died between the two. So
each of the two witnesses the other's last write, and a changed byte in either shows:

- vectors: every row has a CRC-32 in the journal and the table; a row is checked when it is first read
- journal: every frame has a CRC-32; what the table counts must be there
- table: its file is sealed; when the seal is broken it is built anew from the journal
"""

from __future__ import annotations

import json
import mmap
import os
import sqlite3
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import final

import numpy as np
from numpy.typing import NDArray

from binsight.errors import (
    BinsightError,
    CannotBeDone,
    NotAStore,
    StoreDamaged,
    StoreReadOnly,
    StoreWriteFailed,
)
from binsight.filters import Filter
from binsight.records import Metadata, StoreInfo
from binsight.store.base import Batch
from binsight.store.files import (
    FORMAT,
    VERSION,
    Generation,
    WriterLock,
    read_sealed_json,
    replace_file,
    sealed_json,
    sync_folder,
    write_all,
)
from binsight.store.items import CHECKPOINT_BYTES, ItemTable, State
from binsight.store.journal import (
    DELETE,
    IDENTITY,
    MAGIC,
    UPSERT,
    Frame,
    delete_frame,
    identity_frame,
    read_frame,
    read_frames,
    upsert_frame,
)
from binsight.vectors import Vectors

HEADER_BYTES = 4096  # before the first row, so that rows begin on a page
CURRENT = "CURRENT"
_READER_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The log at one moment. `dead` is a bit for each row, little-endian, or None when every row counts."""

    state: State
    vectors: Vectors  # (rows, dim), mapped
    sums: NDArray[np.uint32]  # (rows,) CRC-32 of each row
    checked: NDArray[np.bool_]  # (rows,) whether a row was compared with its sum; filled in as rows are read
    dead: NDArray[np.uint8] | None
    dead_rows: int


class GenerationMoved(Exception):
    """A compaction came between taking a snapshot and using it: take another."""


@final
class VectorLog:
    """An open log, of one generation at a time. Reading is safe from several threads, writing is one at a time."""

    def __init__(self, folder: Path, *, lock: WriterLock | None) -> None:
        self.folder = folder
        self._lock = lock
        self._broken = ""
        self._load()

    # ---- opening

    @classmethod
    def create(cls, folder: Path, info: StoreInfo, *, created: str) -> VectorLog:
        """A new store in a folder that is missing or empty. Raises NotAStore when something else is in it."""
        foreign = [path.name for path in folder.iterdir() if not _is_ours(path.name)] if folder.is_dir() else []
        if foreign or (folder.exists() and not folder.is_dir()):
            what = f"holds {foreign[0]!r}" if foreign else "is a file"
            raise NotAStore(f"want a folder that is new, empty or a store, but {folder} {what}; choose another path")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = WriterLock(folder)
            try:
                if not (folder / CURRENT).exists():  # else another process was faster
                    identity = {"format": FORMAT, "version": VERSION, "store": uuid.uuid4().hex, "generation": 1}
                    identity |= {"dim": info.dim, "fingerprint": info.fingerprint, "model": info.model}
                    _write_generation(Generation(folder, 1), identity | {"metric": info.metric, "created": created})
                    _point_to(folder, identity)
                return cls(folder, lock=lock)
            except BaseException:
                if not (folder / CURRENT).exists():
                    _remove(Generation(folder, 1))
                lock.release()
                raise
        except OSError as error:
            raise StoreWriteFailed(f"could not create {folder}: {error.strerror}; nothing was kept") from error

    @classmethod
    def open(cls, folder: Path, *, read_only: bool) -> VectorLog:
        """Raises NotAStore, StoreLocked, StoreDamaged; StoreReadOnly when the folder cannot be written."""
        if not (folder / CURRENT).is_file():
            raise NotAStore(f"{folder} is not a store (it has no {CURRENT}); `binsight index … --store {folder}` makes one")
        if not read_only:
            lock = WriterLock(folder)
            try:
                return cls(folder, lock=lock)
            except BaseException:
                lock.release()
                raise
        return cls(folder, lock=None)

    def _load(self) -> None:
        """Open the files of the current generation; a writer first mends what a crash left."""
        deadline = monotonic() + _READER_PATIENCE_S
        while True:
            try:
                self._open_generation()
                return
            except (FileNotFoundError, StoreDamaged, sqlite3.Error) as error:
                # A reader may have met a writer between two files; without a writer there is nothing to wait for.
                if self._lock is None and WriterLock.is_held(self.folder) and monotonic() < deadline:
                    sleep(0.02)
                    continue
                if isinstance(error, StoreDamaged):
                    raise
                raise StoreDamaged(f"{self.folder} cannot be opened: {error}; restore it from a backup") from error

    def _open_generation(self) -> None:
        self._pointer_stamp = _stamp(self.folder)
        pointer = _read_pointer(self.folder)
        self.files = Generation(self.folder, pointer["generation"])
        if self._lock is not None:
            _remove_others(self.files)
        mode = os.O_RDWR if self._lock is not None else os.O_RDONLY
        opened: list[int] = []
        try:
            for path in (self.files.vectors, self.files.journal):
                opened.append(os.open(path, mode | os.O_CLOEXEC))
            self._vectors_fd, self._journal_fd = opened
            self.identity = self._read_identity(pointer)
            self.dim = int(self.identity["dim"])
            self._stride = 4 * self.dim
            self._table = self._open_table()
            try:
                self._read_state()
            except BaseException:
                self._table.close()
                raise
        except BaseException:
            for descriptor in opened:
                os.close(descriptor)
            raise

    def _read_identity(self, pointer: Metadata) -> Metadata:
        """What the journal's first frame says, compared with CURRENT and the vectors' header."""
        with _mapped(self._journal_fd) as data:
            frame = read_frame(data, 0)
        if frame is None or frame.kind != IDENTITY:
            raise StoreDamaged(f"{self.files.journal} has lost its first frame; restore the store from a backup")
        identity: Metadata = json.loads(frame.metadata[0])
        self._journal_start = frame.end
        names = ("format", "version", "store", "generation")
        if [identity[name] for name in names] != [pointer[name] for name in names]:
            raise StoreDamaged(f"{self.files.journal} belongs to another store or generation than {CURRENT} names")
        if os.pread(self._vectors_fd, HEADER_BYTES, 0) != _vectors_header(identity):
            raise StoreDamaged(f"{self.files.vectors} has a damaged header, or belongs to another store or generation")
        return identity

    def _open_table(self) -> ItemTable:
        """The table of items; a writer builds it anew from the journal when its seal is broken."""
        try:
            table = ItemTable.open(self.files, read_only=self._lock is None)
            state = table.state()
            if (state.store, state.generation) != (self.identity["store"], self.identity["generation"]):
                table.close()
                raise StoreDamaged(f"{self.files.items} belongs to another store or generation")
        except (StoreDamaged, sqlite3.Error, TypeError):
            if self._lock is not None:
                return self._rebuilt_table()
            if WriterLock.is_held(self.folder):
                raise
            self._recover_as_writer()
            return ItemTable.open(self.files, read_only=True)
        return table

    def _recover_as_writer(self) -> None:
        """A reader that finds a crash's traces lets a writer mend them, where it may."""
        try:
            lock = WriterLock(self.folder)
        except CannotBeDone as error:
            raise StoreDamaged(f"{self.folder} needs repair, which takes one opening for writing: {error}") from error
        try:
            VectorLog(self.folder, lock=lock).close()
        finally:
            lock.release()

    def _rebuilt_table(self) -> ItemTable:
        state = State(self.identity["store"], self.identity["generation"], 0, self._journal_start, 0, 0)
        table = ItemTable.create(self.files, state)
        with _mapped(self._journal_fd) as data:
            end = state.journal_end
            with table.writing():
                for frame in read_frames(data, state.journal_end):
                    state = _apply(table, state, frame)
                    end = frame.end
            _refuse_hidden_frames(data, end, self.files.journal)
        table.checkpoint(self.files)
        return table

    def _read_state(self) -> None:
        """Take in what the table counts, and the whole frames after it."""
        state = self._table.state()
        self._check_sizes(state)
        with _mapped(self._journal_fd) as data:
            pending = list(read_frames(data, state.journal_end))
            if self._lock is not None:
                _refuse_hidden_frames(data, pending[-1].end if pending else state.journal_end, self.files.journal)
        if pending and self._lock is not None:
            with self._table.writing():
                for frame in pending:
                    self._check_frame_vectors(frame)
                    state = _apply(self._table, state, frame)
        elif pending and not WriterLock.is_held(self.folder):
            self._table.close()
            self._recover_as_writer()
            self._table = ItemTable.open(self.files, read_only=True)
            state = self._table.state()
        if self._lock is not None:
            os.ftruncate(self._journal_fd, state.journal_end)
            os.ftruncate(self._vectors_fd, HEADER_BYTES + state.rows * self._stride)
        self._reset(state)

    def _check_sizes(self, state: State) -> None:
        """Raise StoreDamaged, naming rows, when the table counts what the files no longer hold."""
        rows = max(0, (os.fstat(self._vectors_fd).st_size - HEADER_BYTES) // self._stride)
        if rows < state.rows:
            raise self._damaged(list(range(rows, state.rows)), f"{self.files.vectors.name} is cut short")
        if os.fstat(self._journal_fd).st_size < state.journal_end:
            with _mapped(self._journal_fd) as data:
                kept = sum(len(frame.ids) for frame in read_frames(data, self._journal_start) if frame.kind == UPSERT)
            raise self._damaged(list(range(kept, state.rows)), f"{self.files.journal.name} is cut short")

    def _check_frame_vectors(self, frame: Frame) -> None:
        if frame.kind != UPSERT:
            return
        data = os.pread(self._vectors_fd, len(frame.ids) * self._stride, HEADER_BYTES + frame.first_row * self._stride)
        found = [zlib.crc32(data[at : at + self._stride]) for at in range(0, len(data), self._stride)]
        if found != frame.sums:
            raise StoreDamaged(f"{self.files.vectors.name}: rows from {frame.first_row} do not match the journal")

    def _damaged(self, rows: Sequence[int], what: str) -> StoreDamaged:
        """An error that names the rows that still count, with their ids."""
        records = self._table.records(rows[:100_000])
        named = ", ".join(f"row {row} (id {records[row][0]!r})" for row in list(records)[:5]) or "rows that no item uses"
        more = f" and {len(records) - 5} more" if len(records) > 5 else ""
        return StoreDamaged(f"{what}: {named}{more}; restore the store from a backup, or delete these ids and index them anew")

    def _reset(self, state: State) -> None:
        """Start the in-memory side of a generation afresh."""
        self._state = state
        self._version = -1
        self._sums = [self._table.sums_from(0)]
        self._checked = np.zeros(0, dtype=bool)
        self._dead_seq = 0
        self._dead: NDArray[np.uint8] | None = None
        self._dead_rows = 0
        self._take_dead(self._table.dead_after(0))
        self._matrix: Vectors = np.empty((0, self.dim), np.float32)
        self._snapshot: Snapshot | None = None

    @property
    def is_writer(self) -> bool:
        return self._lock is not None

    @property
    def is_closed(self) -> bool:
        return self._vectors_fd < 0

    # ---- reading

    def snapshot(self) -> Snapshot:
        """The log now, with what other processes have committed."""
        with self._table.lock:
            if self._lock is None:
                self._refresh()
            if self._snapshot is None:
                self._snapshot = self._taken()
            return self._snapshot

    def _taken(self) -> Snapshot:
        rows = self._state.rows
        self._sums = [np.concatenate(self._sums)]
        if len(self._matrix) < rows:
            size = HEADER_BYTES + rows * self._stride
            mapped = mmap.mmap(self._vectors_fd, size, access=mmap.ACCESS_READ)
            self._matrix = np.frombuffer(mapped, dtype="<f4", offset=HEADER_BYTES).reshape(rows, self.dim)
        if len(self._checked) < rows:
            self._checked = np.concatenate([self._checked, np.zeros(rows - len(self._checked), dtype=bool)])
        return Snapshot(self._state, self._matrix, self._sums[0], self._checked, self._dead, self._dead_rows)

    def _refresh(self) -> None:
        if _stamp(self.folder) != self._pointer_stamp:
            self._close_files()
            self._load()
        version = self._table.version()
        if version == self._version:
            return
        with self._table.reading():
            state = self._table.state()
            sums = self._table.sums_from(self._state.rows)
            dead = self._table.dead_after(self._dead_seq)
        self._version = version
        self._sums.append(sums)
        self._state, self._snapshot = state, None
        self._take_dead(dead)

    def _take_dead(self, found: tuple[NDArray[np.int64], int]) -> None:
        rows, self._dead_seq = found
        self._bury(rows)

    def _bury(self, rows: NDArray[np.int64]) -> None:
        if len(rows):
            bits = np.zeros((self._state.rows + 7) // 8 if self._dead is None else len(self._dead), np.uint8)
            if self._dead is not None:
                bits[:] = self._dead
            if len(bits) * 8 <= rows.max():
                bits = np.concatenate([bits, np.zeros(int(rows.max()) // 8 + 1 - len(bits), np.uint8)])
            np.bitwise_or.at(bits, rows >> 3, (1 << (rows & 7)).astype(np.uint8))
            self._dead, self._dead_rows = bits, self._dead_rows + len(rows)

    def vectors_at(self, snapshot: Snapshot, rows: NDArray[np.int64]) -> Vectors:
        """Copies of rows, in order: (n, dim). Raises StoreDamaged, naming the rows that do not match their checksum."""
        self.check_rows(snapshot, rows)
        return snapshot.vectors[rows]

    def check_rows(self, snapshot: Snapshot, rows: NDArray[np.int64]) -> None:
        """Compare rows that were not read before with their checksums."""
        fresh = rows[~snapshot.checked[rows]]
        if fresh.size:
            bad = _mismatches(snapshot, np.unique(fresh))
            if bad:
                raise self._damaged(bad, f"{self.files.vectors.name} does not match its checksums")
            snapshot.checked[fresh] = True

    def records(self, snapshot: Snapshot, rows: Sequence[int]) -> dict[int, tuple[str, str]]:
        """Row → (id, metadata text) of the rows that count now. Raises GenerationMoved."""
        with self._table.lock:
            self._check_generation(snapshot)
            return self._table.records(rows)

    def rows_of(self, snapshot: Snapshot, ids: Sequence[str]) -> dict[str, int]:
        """Id → row of the ids that are there now. Raises GenerationMoved."""
        with self._table.lock:
            self._check_generation(snapshot)
            return self._table.rows_of(ids)

    def rows_where(self, snapshot: Snapshot, where: Filter | None) -> NDArray[np.int64]:
        """The rows of a snapshot that count and that the filter lets through, ascending. Raises GenerationMoved."""
        with self._table.lock:
            self._check_generation(snapshot)
            rows = self._table.rows_where(where)
        return rows[: np.searchsorted(rows, snapshot.state.rows)]

    def _check_generation(self, snapshot: Snapshot) -> None:
        if snapshot.state.generation != self._state.generation:
            raise GenerationMoved

    def scan(self, where: Filter | None, *, page: int = 1000) -> Iterator[tuple[int, str, str]]:
        """Every row that counts: (row, id, metadata text)."""
        after = -1
        while found := self._table.scan(after, page, where):
            yield from found
            after = found[-1][0]

    # ---- writing

    def append(self, batch: Batch) -> None:
        """Add a batch durably. Raises StoreReadOnly, StoreWriteFailed."""
        with self._table.lock:
            self._check_writable()
            state = self._state
            sums = [zlib.crc32(row) for row in batch.vectors]
            frame = upsert_frame(state.seq + 1, state.rows, batch.ids, batch.metadata, sums)
            blob = np.array(sums, dtype="<u4").tobytes()

            def commit(end: int) -> tuple[State, list[int]]:
                return self._table.put(state, end, batch.ids, batch.metadata, blob)

            replaced = self._write(frame, batch.vectors, commit)
            self._sums.append(np.frombuffer(blob, "<u4"))
            self._dead_seq += len(replaced)
            self._bury(np.array(replaced, dtype=np.int64))
            self._maybe_checkpoint()

    def delete(self, ids: Sequence[str]) -> int:
        """Take ids out durably; how many were there."""
        with self._table.lock:
            self._check_writable()
            there = list(self._table.rows_of(ids))
            if not there:
                return 0
            state = self._state
            frame = delete_frame(state.seq + 1, state.rows, there)
            gone = self._write(frame, None, lambda end: self._table.drop(state, end, there))
            self._dead_seq += len(gone)
            self._bury(np.array(gone, dtype=np.int64))
            self._maybe_checkpoint()
            return len(gone)

    def _write(self, frame: bytes, vectors: Vectors | None, commit: Callable[[int], tuple[State, list[int]]]) -> list[int]:
        """Vectors, then the frame, then the table; on an error all three are as before."""
        state = self._state
        try:
            if vectors is not None:
                write_all(self._vectors_fd, vectors.data, HEADER_BYTES + state.rows * self._stride)
                os.fdatasync(self._vectors_fd)
            write_all(self._journal_fd, frame, state.journal_end)
            os.fdatasync(self._journal_fd)
            with self._table.writing():
                new_state, rows = commit(state.journal_end + len(frame))
        except (OSError, sqlite3.Error) as error:
            self._take_back(state)
            raise StoreWriteFailed(f"could not write to {self.folder}: {error}; nothing of this call was kept") from error
        self._state, self._snapshot = new_state, None
        return rows

    def _take_back(self, state: State) -> None:
        try:
            os.ftruncate(self._journal_fd, state.journal_end)
            os.fdatasync(self._journal_fd)
        except OSError as error:
            self._broken = f"an earlier write failed and could not be taken back ({error}); close the store and open it again"

    def _check_writable(self) -> None:
        if self._lock is None:
            raise StoreReadOnly(f"{self.folder} was opened with read_only=True; open it for writing")
        if self._broken:
            raise StoreWriteFailed(f"{self.folder}: {self._broken}")

    def _maybe_checkpoint(self) -> None:
        if self._table.log_bytes() > CHECKPOINT_BYTES:
            self._checkpoint()

    def _checkpoint(self) -> None:
        try:
            self._table.checkpoint(self.files)
        except (OSError, sqlite3.Error) as error:
            # What was acknowledged is in the journal; without a seal the next writer builds the table from it.
            self._broken = f"a checkpoint failed ({error}); close the store and open it again"

    def next_generation(self) -> None:
        """Write the rows that count into new files and move to them; after a kill, the old or the new ones hold."""
        with self._table.lock:
            self._check_writable()
            snapshot, old = self.snapshot(), self.files
            new = Generation(self.folder, old.number + 1)
            identity = self.identity | {"generation": new.number}
            try:
                _write_generation(new, identity)
                self._copy_rows(snapshot, new, identity)
                _point_to(self.folder, identity)
            except (OSError, sqlite3.Error, BinsightError) as error:
                if _read_pointer(self.folder)["generation"] != new.number:
                    _remove(new)
                if isinstance(error, BinsightError):
                    raise
                raise StoreWriteFailed(f"could not compact {self.folder}: {error}; the store is as it was") from error
            self._close_files()
            self._load()

    def _copy_rows(self, snapshot: Snapshot, new: Generation, identity: Metadata) -> None:
        vectors_fd, journal_fd = os.open(new.vectors, os.O_RDWR), os.open(new.journal, os.O_RDWR)
        try:
            start = os.fstat(journal_fd).st_size
            state = State(identity["store"], new.number, 0, start, 0, 0)
            table = ItemTable.open(new, read_only=False)
            try:
                with table.writing():
                    for part in _parts(self.scan(None), 1024):
                        rows = np.array([row for row, _, _ in part], dtype=np.int64)
                        vectors, sums = self.vectors_at(snapshot, rows), snapshot.sums[rows]
                        ids, texts = [one for _, one, _ in part], [text for _, _, text in part]
                        frame = upsert_frame(state.seq + 1, state.rows, ids, texts, sums.tolist())
                        write_all(vectors_fd, vectors.data, HEADER_BYTES + state.rows * self._stride)
                        write_all(journal_fd, frame, state.journal_end)
                        state, _ = table.put(state, state.journal_end + len(frame), ids, texts, sums.tobytes())
                os.fsync(vectors_fd)
                os.fsync(journal_fd)
                table.checkpoint(new)
            finally:
                table.close()
        finally:
            os.close(vectors_fd)
            os.close(journal_fd)

    # ---- checking and closing

    def problems(self) -> tuple[list[str], int]:
        """What does not agree, and how many vectors were read: journal, table and every row that counts."""
        with self._table.lock:
            snapshot = self.snapshot()
            expected, found = self._journal_items()
            found += self._table.problems()
            read = 0
            for part in _parts(self.scan(None), 4096):
                rows = np.array([row for row, _, _ in part], dtype=np.int64)
                for row, one, text in part:
                    if expected.pop(one, None) != (row, zlib.crc32(text.encode())):
                        found.append(f"{self.files.items.name}: id {one!r} (row {row}) is not what the journal says")
                for row in _mismatches(snapshot, rows):
                    named = next(one for at, one, _ in part if at == row)
                    found.append(f"{self.files.vectors.name}: row {row} (id {named!r}) does not match its checksum")
                read += len(part)
            found += [f"{self.files.items.name}: id {one!r} is missing" for one in list(expected)[:100]]
            if read != snapshot.state.items:
                found.append(f"{self.files.items.name}: {read} items, but its state says {snapshot.state.items}")
            return found, read

    def _journal_items(self) -> tuple[dict[str, tuple[int, int]], list[str]]:
        """Id → (row, CRC-32 of its metadata) as the journal tells it, and what is wrong with the journal."""
        items: dict[str, tuple[int, int]] = {}
        seq, end = 0, self._journal_start
        with _mapped(self._journal_fd) as data:
            for frame in read_frames(data[: self._state.journal_end], end):
                seq, end = seq + 1, frame.end
                if frame.kind == UPSERT:
                    for place, (one, text) in enumerate(zip(frame.ids, frame.metadata, strict=True)):
                        items[one] = (frame.first_row + place, zlib.crc32(text.encode()))
                for one in frame.ids if frame.kind == DELETE else ():
                    items.pop(one, None)
        if (seq, end) == (self._state.seq, self._state.journal_end):
            return items, []
        rows = f"rows up to {self._state.rows - 1} are not witnessed by it"
        return items, [f"{self.files.journal.name}: damaged at byte {end} (frame {seq + 1} of {self._state.seq}); {rows}"]

    def close(self) -> None:
        """Fold and seal the table, and let go of files and lock."""
        if self._vectors_fd < 0:
            return
        with self._table.lock:
            if self._lock is not None:
                self._checkpoint()
            self._close_files()
            if self._lock is not None:
                self._lock.release()

    def _close_files(self) -> None:
        self._table.close()
        os.close(self._vectors_fd)
        os.close(self._journal_fd)
        self._vectors_fd = self._journal_fd = -1


def _apply(table: ItemTable, state: State, frame: Frame) -> State:
    if frame.seq != state.seq + 1 or frame.first_row != state.rows:
        raise StoreDamaged(f"journal frame {frame.seq} follows frame {state.seq}; restore the store from a backup")
    if frame.kind == UPSERT:
        sums = np.array(frame.sums, dtype="<u4").tobytes()
        return table.put(state, frame.end, frame.ids, frame.metadata, sums)[0]
    return table.drop(state, frame.end, frame.ids)[0]


def _mismatches(snapshot: Snapshot, rows: NDArray[np.int64]) -> list[int]:
    vectors, sums, crc32 = snapshot.vectors, snapshot.sums, zlib.crc32
    return [row for row in rows.tolist() if crc32(vectors[row]) != sums[row]]


def _stamp(folder: Path) -> tuple[int, int]:
    """Changes when CURRENT is replaced."""
    found = (folder / CURRENT).stat()
    return found.st_ino, found.st_mtime_ns


def _refuse_hidden_frames(data: memoryview, end: int, journal: Path) -> None:
    """Raise StoreDamaged when sound frames follow a damaged one: that is no torn last write."""
    rest = bytes(data[end:])
    at = rest.find(MAGIC, 1)
    while at >= 0:
        frame = read_frame(data, end + at)
        if frame is not None:
            raise StoreDamaged(
                f"{journal} is damaged at byte {end}: frames before frame {frame.seq} (row {frame.first_row}) are lost; "
                "restore the store from a backup"
            )
        at = rest.find(MAGIC, at + 1)


def _parts(rows: Iterator[tuple[int, str, str]], size: int) -> Iterator[list[tuple[int, str, str]]]:
    part: list[tuple[int, str, str]] = []
    for one in rows:
        part.append(one)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


class _mapped:  # noqa: N801, a context manager used like a function
    """A file's bytes, mapped for reading, as a memoryview."""

    def __init__(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        self._map = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) if size else None
        self._view = memoryview(self._map) if self._map is not None else memoryview(b"")

    def __enter__(self) -> memoryview:
        return self._view

    def __exit__(self, *_: object) -> None:
        self._view.release()
        if self._map is not None:
            self._map.close()


def _vectors_header(identity: Metadata) -> bytes:
    kept = {name: identity[name] for name in ("format", "version", "store", "generation", "dim")}
    return sealed_json(kept).ljust(HEADER_BYTES, b"\0")


def _write_generation(files: Generation, identity: Metadata) -> None:
    """The empty files of a generation, durable."""
    frame = identity_frame(json.dumps(identity, sort_keys=True))
    for path, data in ((files.vectors, _vectors_header(identity)), (files.journal, frame)):
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    ItemTable.create(files, State(identity["store"], files.number, 0, len(frame), 0, 0)).close()
    sync_folder(files.folder)


def _point_to(folder: Path, identity: Metadata) -> None:
    kept = {name: identity[name] for name in ("format", "version", "store", "generation")}
    replace_file(folder / CURRENT, sealed_json(kept))


def _read_pointer(folder: Path) -> Metadata:
    try:
        pointer = read_sealed_json(folder / CURRENT)
    except StoreDamaged:
        journals = list(folder.glob("journal-*.log"))
        if len(journals) != 1:  # with one, the journal itself says what CURRENT said
            raise
        with journals[0].open("rb") as file, _mapped(file.fileno()) as data:
            frame = read_frame(data, 0)
        if frame is None or frame.kind != IDENTITY:
            raise
        pointer = json.loads(frame.metadata[0])
    if pointer.get("format") != FORMAT or pointer.get("version") != VERSION:
        raise NotAStore(f"{folder} has format {pointer.get('format')!r} version {pointer.get('version')!r}; want {VERSION}")
    return pointer


def _is_ours(name: str) -> bool:
    return name.startswith(("vectors-", "journal-", "items-", "index-", ".CURRENT.", ".items-", ".index-")) or name == "lock"


def _remove(files: Generation) -> None:
    for path in files.siblings():
        path.unlink(missing_ok=True)


def _remove_others(files: Generation) -> None:
    """Take away what a killed compaction, or a finished one, left of other generations."""
    for pattern in ("vectors-*", "journal-*", "items-*", "index-*", ".*.tmp"):
        for path in files.folder.glob(pattern):
            if f"-{files.number:06d}" not in path.name or path.suffix == ".tmp":
                path.unlink(missing_ok=True)
