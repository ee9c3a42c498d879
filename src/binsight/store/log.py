"""The durable truth of a local store: rows of vectors, a journal, and the table of items that both explain.

An upsert writes its vectors after the last row (synced), then one journal frame (synced), then commits the table. A frame
counts when the table says so, or when it is found whole after the table's end: the process then died between the two. So
each of the two witnesses the other's last write, and a changed byte in either shows:

- vectors: every row has a CRC-32 in the journal and the table; a row is checked when it is first read
- journal: every frame has a CRC-32; what the table counts must be there
- table: its file is sealed; when the seal is broken it is built anew from the journal
"""

from __future__ import annotations

import mmap
import os
import sqlite3
import threading
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep
from typing import final

import numpy as np
from numpy.typing import NDArray

from binsight.errors import BinsightError, CannotBeDone, NotAStore, StoreDamaged, StoreReadOnly, StoreWriteFailed, WrongUse
from binsight.filters import Filter
from binsight.records import Metadata, StoreInfo
from binsight.store.base import Batch
from binsight.store.files import FORMAT, VERSION, Generation, WriterLock, is_at, is_ours, sync_folder, write_all
from binsight.store.items import CHECKPOINT_BYTES, ItemTable, State
from binsight.store.journal import DELETE, UPSERT, delete_frame, mapped, read_frames, upsert_frame
from binsight.store.opening import (
    HEADER_BYTES,
    OpenFiles,
    damaged,
    has_store,
    log,
    mark_of,
    not_in_place,
    open_files,
    point_to,
    read_pointer,
    refuse_another,
    remove,
    stamp_of,
    write_empty,
)
from binsight.vectors import Vectors

_STRETCH_S, _LEAST_STRETCH = 0.05, 64  # for how long, and at how many rows at least, a filter looks before others may
_PAUSE_S = 0.001  # and how long they have for it


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
    """A compaction or a commit came between taking a snapshot and using it: take another."""


@final
class VectorLog:
    """An open log, of one generation at a time. Safe to call from several threads; writing is one at a time."""

    def __init__(self, folder: Path, *, lock: WriterLock | None) -> None:
        self.folder = folder
        self._lock = lock
        self._mutex = threading.RLock()
        self._unfinished: Callable[[], None] | None = None
        self._is_closed = False
        self._checkpoint_at = CHECKPOINT_BYTES
        self._adopt(open_files(folder, is_writer=lock is not None))

    # ---- opening

    @classmethod
    def create(cls, folder: Path, info: StoreInfo, *, created: str) -> VectorLog:
        """A new store in a folder that is missing or empty. Raises NotAStore when something else is in it."""
        try:
            foreign = [path.name for path in folder.iterdir() if not is_ours(path.name)] if folder.is_dir() else []
            if foreign or (folder.exists() and not folder.is_dir()):
                what = f"holds {foreign[0]!r}" if foreign else "is a file"
                raise NotAStore(f"want a folder that is new, empty or a store, but {folder} {what}; choose another path")
            with _new_folder(folder):
                lock = WriterLock(folder)
                try:
                    if not has_store(folder):  # else another process was faster
                        identity = {"format": FORMAT, "version": VERSION, "store": uuid.uuid4().hex, "generation": 1}
                        identity |= {"dim": info.dim, "fingerprint": info.fingerprint, "model": info.model}
                        _write_first(Generation(folder, 1), identity | {"metric": info.metric, "created": created})
                    return cls(folder, lock=lock)
                except BaseException:
                    if has_store(folder):
                        lock.release()
                    else:
                        lock.remove()
                    raise
        except (OSError, sqlite3.Error) as error:
            raise StoreWriteFailed(f"could not create {folder}: {error}; nothing was kept") from error

    @classmethod
    def open(cls, folder: Path, *, read_only: bool) -> VectorLog:
        """Raises NotAStore, StoreLocked, StoreDamaged; StoreReadOnly when the folder cannot be written."""
        try:
            is_store = folder.is_dir() and has_store(folder)
        except OSError as error:
            raise CannotBeDone(f"{folder} cannot be read: {error}") from error
        if not is_store:
            raise NotAStore(f"{folder} is not a store (it has no CURRENT); `binsight index … --store {folder}` makes one")
        if read_only:
            return cls(folder, lock=None)
        lock = WriterLock(folder)
        try:
            return cls(folder, lock=lock)
        except BaseException:
            lock.release()
            raise

    def _adopt(self, opened: OpenFiles) -> None:
        self._opened = opened
        self.files, self.identity, self.dim, self._table = opened.files, opened.identity, opened.dim, opened.table
        self._reset()

    def _move(self) -> None:
        """Go on with the generation, or the table, that CURRENT names now; on an error, stay with the old one."""
        old = self._opened
        refuse_another(old)
        new = open_files(self.folder, is_writer=self.is_writer)
        if new.identity["store"] != old.identity["store"]:  # put there in this moment
            new.close()
            raise not_in_place(self.folder)
        self._adopt(new)
        old.close()

    def _reset(self) -> None:
        """Read the in-memory side afresh from the table."""
        with self._table.reading():
            self._state = self._table.state()
            self._sums = [self._table.sums_from(0)]
            dead = self._table.dead_after(0)
        self._version = -1
        self._checked = np.zeros(0, dtype=bool)
        self._dead: NDArray[np.uint8] | None = None
        self._dead_rows = 0
        self._take_dead(dead)
        self._matrix: Vectors = np.empty((0, self.dim), np.float32)
        self._snapshot: Snapshot | None = None

    @property
    def is_writer(self) -> bool:
        return self._lock is not None

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def is_in_place(self) -> bool:
        """Whether what this writer writes is what others find at the store's path."""
        return self._lock is not None and self._lock.is_in_place() and is_at(self.files.journal, self._opened.journal_fd)

    def tell_address(self, address: str) -> None:
        """As of a store."""
        with self._mutex:
            if self._lock is not None and self._lock.is_in_place():
                self._lock.tell_address(address)

    def _check_lock(self) -> None:
        if self._lock is not None and not self._lock.is_in_place():
            raise not_in_place(self.folder)

    def _check_in_place(self) -> None:
        if not self.is_in_place:
            raise not_in_place(self.folder)

    # ---- reading

    def snapshot(self) -> Snapshot:
        """The log now, with what other processes have committed."""
        with self._at_table():
            self._follow()
            self._catch_up()
            if self._snapshot is None:
                self._snapshot = self._taken()
            return self._snapshot

    @contextmanager
    def still(self) -> Iterator[None]:
        """Nothing changes inside: every snapshot is the same one, and no GenerationMoved is raised. Writers wait."""
        with self._at_table():
            self._follow()
            with self._table.reading():
                yield

    @contextmanager
    def _at_table(self) -> Iterator[None]:
        """One thread at a time; errors of SQLite and the system become ours."""
        with self._mutex:
            self._check_open()
            try:
                yield
            except sqlite3.Error as error:
                raise StoreDamaged(f"{self.files.items} cannot be read: {error}; close the store and open it again") from error
            except OSError as error:
                raise CannotBeDone(f"{self.folder} cannot be read: {error}") from error

    def _taken(self) -> Snapshot:
        rows = self._state.rows
        self._sums = [np.concatenate(self._sums)]
        if len(self._matrix) < rows:
            size = HEADER_BYTES + rows * self._opened.stride
            if os.fstat(self._opened.vectors_fd).st_size < size:
                raise StoreDamaged(f"{self.files.vectors} is cut short; restore the store from a backup")
            data = mmap.mmap(self._opened.vectors_fd, size, access=mmap.ACCESS_READ)
            self._matrix = np.frombuffer(data, dtype="<f4", offset=HEADER_BYTES).reshape(rows, self.dim)
        if len(self._sums[0]) != rows:
            raise StoreDamaged(f"{self.files.items} holds {len(self._sums[0])} checksums of {rows} rows")
        if len(self._checked) < rows:
            self._checked = np.concatenate([self._checked, np.zeros(rows - len(self._checked), dtype=bool)])
        return Snapshot(self._state, self._matrix, self._sums[0], self._checked, self._dead, self._dead_rows)

    def _follow(self) -> None:
        """A reader moves when a writer compacted, mended the table, or wrote where a frozen table cannot show it.

        Both raise StoreDamaged when the store was removed, or another one put in its place.
        """
        if self._table.is_reading:
            return
        self._check_lock()
        if self.is_writer:
            return
        opened = self._opened
        is_behind = self._table.is_frozen and mark_of(self.files, opened.journal_fd) != opened.mark
        if is_behind or stamp_of(self.folder) != opened.stamp:
            self._move()

    def _catch_up(self) -> None:
        """Take in what another process has committed."""
        if self.is_writer or (version := self._table.version()) == self._version:
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
        """Compare rows that count, and that were not read before, with their checksums."""
        fresh = rows[~snapshot.checked[rows]]
        if fresh.size:
            bad = _mismatches(snapshot, fresh if snapshot.dead is None else fresh[~_are_dead(snapshot.dead, fresh)])
            if bad:
                with self._at_table():
                    raise damaged(self._table, bad, f"{self.files.vectors} does not match its checksums")
            snapshot.checked[fresh] = True

    def records(self, snapshot: Snapshot, rows: Sequence[int]) -> dict[int, tuple[str, str]]:
        """Row → (id, metadata text) of the rows that count now. Raises GenerationMoved."""
        with self._of_generation(snapshot):
            return self._table.records(rows)

    def rows_of(self, snapshot: Snapshot, ids: Sequence[str]) -> dict[str, int]:
        """Id → row of the ids that are there now. Raises GenerationMoved."""
        with self._of_generation(snapshot):
            return self._table.rows_of(ids)

    def rows_where(self, snapshot: Snapshot, where: Filter | None) -> NDArray[np.int64]:
        """The rows of a snapshot that count and that the filter lets through, ascending. Raises GenerationMoved.

        Looked for in stretches, between which others are let at the table: a long filter takes a millisecond for each item.
        """
        found, first, size = [np.empty(0, np.int64)], 0, _LEAST_STRETCH
        while first < snapshot.state.rows:
            with self._of_generation(snapshot), self._table.reading():
                if self._table.state().seq != snapshot.state.seq:
                    raise GenerationMoved  # an item that was replaced since has neither its old row nor one of the snapshot's
                began = perf_counter()
                found.append(self._table.rows_where(where, first, first + size))
                took_s = perf_counter() - began
            first += size
            size = max(_LEAST_STRETCH, int(size * min(8.0, _STRETCH_S / max(took_s, 1e-6))))
            if took_s > _STRETCH_S / 4:
                sleep(_PAUSE_S)  # a lock that is taken again at once is taken before who waits for it wakes up
        return np.concatenate(found)

    @contextmanager
    def _of_generation(self, snapshot: Snapshot) -> Iterator[None]:
        with self._at_table():
            if snapshot.state.generation != self._state.generation:
                raise GenerationMoved
            yield

    def scan(self, where: Filter | None, *, page: int = 1000) -> Iterator[tuple[int, str, str]]:
        """Every item, by id: (row, id, metadata text). One that is there throughout comes once, whatever is written."""
        after = ""
        while True:
            with self._at_table():
                self._follow()
                found = self._table.scan(after, page, where)
            if not found:
                return
            yield from found
            after = found[-1][1]

    # ---- writing

    def append(self, batch: Batch) -> None:
        """Add a batch durably. Raises StoreReadOnly, StoreWriteFailed, StoreDamaged when it was replaced meanwhile."""
        with self._mutex:
            self._check_writable()
            state = self._state
            sums = [zlib.crc32(row) for row in batch.vectors]
            frame = upsert_frame(state.seq + 1, state.rows, batch.ids, batch.metadata, sums)
            blob = np.array(sums, dtype="<u4")

            def commit(end: int) -> tuple[State, list[int]]:
                return self._table.put(state, end, batch.ids, batch.metadata, blob.tobytes())

            self._write(frame, batch.vectors, blob, commit)

    def delete(self, ids: Sequence[str]) -> int:
        """Take ids out durably; how many were there."""
        with self._mutex:
            self._check_writable()
            with self._at_table():
                there = list(self._table.rows_of(ids))
            if there:
                state = self._state
                frame = delete_frame(state.seq + 1, state.rows, there)
                self._write(frame, None, np.empty(0, "<u4"), lambda end: self._table.drop(state, end, there))
            return len(there)

    def _write(
        self,
        frame: bytes,
        vectors: Vectors | None,
        sums: NDArray[np.uint32],
        commit: Callable[[int], tuple[State, list[int]]],
    ) -> None:
        """Vectors, then the frame, then the table; on an error, also an interrupt, all three are as before."""
        state, opened = self._state, self._opened
        try:
            if vectors is not None:
                write_all(opened.vectors_fd, vectors.data, HEADER_BYTES + state.rows * opened.stride)
                os.fdatasync(opened.vectors_fd)
            write_all(opened.journal_fd, frame, state.journal_end)
            os.fdatasync(opened.journal_fd)
            with self._table.writing():
                new_state, dead = commit(state.journal_end + len(frame))
            self._state, self._snapshot = new_state, None
            self._sums.append(sums)
            self._take_dead((np.array(dead, dtype=np.int64), self._dead_seq + len(dead)))
        except BaseException as error:
            self._unfinished = self._take_back
            kept = "nothing of this call was kept" if self._is_settled() else "the next write settles whether it counts"
            if isinstance(error, OSError | sqlite3.Error):
                raise StoreWriteFailed(f"could not write to {self.folder}: {error}; {kept}") from error
            raise
        self._check_in_place()  # or else it was written to what nobody finds any more
        if self._table.log_bytes() > self._checkpoint_at:
            self._checkpoint()

    def _take_back(self) -> None:
        """Go back to what the table says, which an interrupt may have come after."""
        self._reset()
        os.ftruncate(self._opened.journal_fd, self._state.journal_end)
        os.fdatasync(self._opened.journal_fd)

    def _is_settled(self) -> bool:
        """Whether what an error cut off could be brought to an end; reads go on either way."""
        try:
            self._settle()
        except (OSError, sqlite3.Error, BinsightError) as error:
            log.warning("%s: a write that failed is not settled yet: %s", self.folder, error)
            return False
        return True

    def _settle(self) -> None:
        if self._unfinished is not None:
            self._unfinished()
            self._unfinished = None

    def _check_open(self) -> None:
        if self._is_closed:
            raise WrongUse(f"{self.folder} was closed; open it again")

    def _check_writable(self) -> None:
        self._check_open()
        if self._lock is None:
            raise StoreReadOnly(f"{self.folder} was opened with read_only=True; open it for writing")
        if not self._is_settled():
            raise StoreWriteFailed(f"{self.folder} cannot be written: an earlier write failed, and so does taking it back")
        self._check_in_place()

    def _checkpoint(self) -> None:
        try:
            self._table.checkpoint(self.files)
        except (OSError, sqlite3.Error) as error:
            # What was acknowledged is in the journal. Without a seal, the next opening builds the table from it.
            log.warning("%s was not sealed: %s", self.files.items, error)
        self._checkpoint_at = self._table.log_bytes() + CHECKPOINT_BYTES

    def next_generation(self) -> None:
        """Write the rows that count into new files and move to them; after a kill, the old or the new ones hold."""
        with self._mutex:
            self._check_writable()
            new = Generation(self.folder, self.files.number + 1)
            identity = self.identity | {"generation": new.number}
            self._unfinished = lambda: self._end_compaction(new)
            try:
                self._copy_rows(new, identity)
                self._check_in_place()
                point_to(self.folder, identity)
                self._settle()
            except BaseException as error:
                kept = "the store holds what it held" if self._is_settled() else "the next write settles whether it counts"
                if isinstance(error, OSError | sqlite3.Error):
                    raise StoreWriteFailed(f"could not compact {self.folder}: {error}; {kept}") from error
                raise

    def _end_compaction(self, new: Generation) -> None:
        """Move to the new files when CURRENT names them, else take them away."""
        self._check_lock()
        if read_pointer(self.folder)[0]["generation"] != new.number:
            remove(new)
            return
        sync_folder(self.folder)  # an error may have come after CURRENT was moved, and before that was durable
        self._move()

    def _copy_rows(self, new: Generation, identity: Metadata) -> None:
        snapshot, state = self.snapshot(), write_empty(new, identity)
        with new.vectors.open("ab") as vectors, new.journal.open("ab") as journal, ItemTable.building(new, state) as table:
            for part in self._pages(1024):
                rows = np.array([row for row, _, _ in part], dtype=np.int64)
                sums = snapshot.sums[rows]
                ids, texts = [one for _, one, _ in part], [text for _, _, text in part]
                frame = upsert_frame(state.seq + 1, state.rows, ids, texts, sums.tolist())
                vectors.write(self.vectors_at(snapshot, rows).data)
                journal.write(frame)
                state, _ = table.put(state, state.journal_end + len(frame), ids, texts, sums.tobytes())
            for file in (vectors, journal):
                file.flush()
                os.fsync(file.fileno())

    def _pages(self, size: int) -> Iterator[list[tuple[int, str, str]]]:
        """Every row that counts, in the order of arrival. Hold the mutex, or a transaction, meanwhile."""
        after = -1
        while part := self._table.rows_after(after, size):
            yield part
            after = part[-1][0]

    # ---- checking and closing

    def problems(self) -> tuple[list[str], int]:
        """What does not agree, and how many vectors were read: journal, table and every row that counts."""
        with self.still():
            snapshot = self.snapshot()
            expected, found = self._journal_items()
            is_witnessed = not found
            found += self._table.problems()
            read = 0
            for part in self._pages(4096):
                rows = np.array([row for row, _, _ in part], dtype=np.int64)
                for row, one, text in part if is_witnessed else ():
                    if expected.pop(one, None) != (row, zlib.crc32(text.encode())):
                        found.append(f"{self.files.items.name}: id {one!r} (row {row}) is not what the journal says")
                ids = {row: one for row, one, _ in part}
                for row in _mismatches(snapshot, rows):
                    found.append(f"{self.files.vectors.name}: row {row} (id {ids[row]!r}) does not match its checksum")
                read += len(part)
            if is_witnessed:
                found += [f"{self.files.items.name}: id {one!r} is missing" for one in list(expected)[:100]]
            if read != snapshot.state.items:
                found.append(f"{self.files.items.name}: {read} items, but its state says {snapshot.state.items}")
            return found, read

    def _journal_items(self) -> tuple[dict[str, tuple[int, int]], list[str]]:
        """Id → (row, CRC-32 of its metadata) as the journal tells it, and what is wrong with the journal."""
        items: dict[str, tuple[int, int]] = {}
        seq, end = 0, self._opened.journal_start
        # Suppressed is a frame that is made up: told below, as the place where the journal ends.
        with mapped(self._opened.journal_fd) as data, suppress(StoreDamaged):
            for frame in read_frames(data[: self._state.journal_end], end):
                seq, end = seq + 1, frame.end
                if frame.kind == UPSERT:
                    for place, (one, text) in enumerate(zip(frame.ids, frame.metadata, strict=True)):
                        items[one] = (frame.first_row + place, zlib.crc32(text.encode()))
                for one in frame.ids if frame.kind == DELETE else ():
                    items.pop(one, None)
        if (seq, end) == (self._state.seq, self._state.journal_end):
            return items, []
        told = "what it held is still in the table, and compacting writes it anew"
        return items, [f"{self.files.journal.name}: damaged at byte {end} (frame {seq + 1} of {self._state.seq}); {told}"]

    def close(self) -> None:
        """Fold and seal the table, and let go of files and lock."""
        with self._mutex:
            if self._is_closed:
                return
            self._is_closed = True
            try:
                if self.is_in_place:
                    self._checkpoint()
                self._opened.close()
            finally:
                self._matrix, self._snapshot = np.empty((0, self.dim), np.float32), None
                if self._lock is not None:
                    self._lock.release()


@contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """The folder, with those above it; when what is done inside fails, those that were not there are taken away again."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in new:
            sync_folder(path.parent)
        yield
    except BaseException:
        with suppress(OSError):  # not made at all, or another process has put something there
            for path in new:
                path.rmdir()
        raise


def _write_first(files: Generation, identity: Metadata) -> None:
    try:
        with ItemTable.building(files, write_empty(files, identity)):
            pass
        point_to(files.folder, identity)
    except BaseException:
        if not has_store(files.folder):
            remove(files)
        raise


def _are_dead(dead: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    places = rows >> 3
    bits = dead[np.minimum(places, len(dead) - 1)] >> (rows & 7) & 1
    return np.asarray((bits == 1) & (places < len(dead)))


def _mismatches(snapshot: Snapshot, rows: NDArray[np.int64]) -> list[int]:
    vectors, sums, crc32 = snapshot.vectors, snapshot.sums, zlib.crc32
    return [row for row in rows.tolist() if crc32(vectors[row]) != sums[row]]
