"""Opening the files of a local store: which generation counts, and mending what a crash or damage left.

A writer mends in place. A reader lets a writer mend where it may; where it may not (a read-only mount, a full disk), it
builds the table in memory and answers the same.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import final

import numpy as np

from binsight.errors import CannotBeDone, NotAStore, StoreDamaged, StoreLocked, StoreReadOnly, StoreWriteFailed
from binsight.records import Metadata
from binsight.store.base import MAX_DIM
from binsight.store.files import (
    CURRENT,
    FORMAT,
    VERSION,
    Generation,
    WriterLock,
    generations,
    is_at,
    read_sealed_json,
    replace_file,
    require_plain,
    sealed_json,
    sync_folder,
)
from binsight.store.items import ItemTable, State, sealed_seq
from binsight.store.journal import (
    DELETE,
    IDENTITY,
    UPSERT,
    Frame,
    identity_frame,
    mapped,
    read_frame,
    read_frames,
    read_from,
    refuse_hidden_frames,
)

log = logging.getLogger(__name__)

HEADER_BYTES = 4096  # before the first row, so that rows begin on a page
_READER_PATIENCE_S = 2.0
_POINTER = {"format": str, "version": int, "store": str, "generation": int}
_IDENTITY = _POINTER | {"dim": int} | dict.fromkeys(("fingerprint", "model", "metric", "created"), str)


@final
@dataclass(slots=True)
class OpenFiles:
    """The open files of one generation. `mark` changes when another process writes, and tells a frozen table's reader."""

    files: Generation
    stamp: tuple[int, int]
    identity: Metadata
    journal_start: int
    vectors_fd: int
    journal_fd: int
    table: ItemTable
    mark: tuple[int, ...] = ()

    @property
    def dim(self) -> int:
        return int(self.identity["dim"])

    @property
    def stride(self) -> int:
        return 4 * self.dim

    def close(self) -> None:
        self.table.close()
        os.close(self.vectors_fd)
        os.close(self.journal_fd)


def open_files(folder: Path, *, is_writer: bool) -> OpenFiles:
    """The current generation, open. A writer holds the lock already, and mends.

    Raises NotAStore, StoreDamaged; StoreWriteFailed for a writer, CannotBeDone for a reader that the system refuses.
    """
    deadline = monotonic() + _READER_PATIENCE_S
    while True:
        stamp, is_patient = stamp_of(folder), monotonic() < deadline
        try:
            return _open(folder, stamp, is_writer=is_writer, is_patient=is_patient)
        except (StoreDamaged, OSError, sqlite3.Error) as error:
            # A reader may have met a writer between two files; without a writer there is nothing to wait for.
            if not is_writer and is_patient and (stamp_of(folder) != stamp or WriterLock.is_held(folder)):
                sleep(0.02)
                continue
            if isinstance(error, StoreDamaged):
                raise
            if isinstance(error, FileNotFoundError):
                raise StoreDamaged(f"{folder} cannot be opened: {error}; restore it from a backup") from error
            if is_writer:
                raise StoreWriteFailed(f"{folder} cannot be opened for writing: {error}; mend that, then try again") from error
            raise CannotBeDone(f"{folder} cannot be read: {error}") from error


def _open(folder: Path, stamp: tuple[int, int], *, is_writer: bool, is_patient: bool) -> OpenFiles:
    pointer, is_sound = read_pointer(folder)
    files = Generation(folder, pointer["generation"])
    opened: list[int] = []
    try:
        for path in (files.vectors, files.journal):
            require_plain(path)
            opened.append(os.open(path, (os.O_RDWR if is_writer else os.O_RDONLY) | os.O_CLOEXEC))
        vectors_fd, journal_fd = opened
        identity, start = _read_identity(files, pointer, vectors_fd, journal_fd)
        mark = mark_of(files, journal_fd)
        if is_writer:
            table = _writers_table(files, identity, start, journal_fd)
        else:
            table = _readers_table(files, identity, start, journal_fd, is_patient=is_patient)
        found = OpenFiles(files, stamp, identity, start, vectors_fd, journal_fd, table, mark)
        try:
            _check_sizes(found)
            if is_writer:
                _tidy(found, is_sound=is_sound)
        except BaseException:
            table.close()
            raise
        return found
    except BaseException:
        for descriptor in opened:
            os.close(descriptor)
        raise


def _read_identity(files: Generation, pointer: Metadata, vectors_fd: int, journal_fd: int) -> tuple[Metadata, int]:
    """What the journal's first frame says, compared with CURRENT and the vectors' header; and where that frame ends."""
    identity, start = _identity_in(os.pread(journal_fd, 1 << 20, 0), files.journal)
    names = ("format", "version", "store", "generation")
    if [identity[name] for name in names] != [pointer[name] for name in names]:
        raise StoreDamaged(f"{files.journal} belongs to another store or generation than {CURRENT} names")
    if os.pread(vectors_fd, HEADER_BYTES, 0) != _vectors_header(identity):
        raise StoreDamaged(f"{files.vectors} has a damaged header, or belongs to another store or generation")
    return identity, start


def _identity_in(data: bytes, journal: Path) -> tuple[Metadata, int]:
    frame = read_frame(memoryview(data), 0)
    if frame is not None and frame.kind == IDENTITY:
        identity = _record_in(frame.metadata[0])
        if all(type(identity.get(name)) is kind for name, kind in _IDENTITY.items()) and 0 < identity["dim"] <= MAX_DIM:
            return identity, frame.end
    raise StoreDamaged(f"{journal} has lost its first frame; restore the store from a backup")


def _record_in(text: str) -> Metadata:
    """The JSON object in a text; an empty one where there is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


# ---- the table


def _writers_table(files: Generation, identity: Metadata, start: int, journal_fd: int) -> ItemTable:
    """The table with every whole frame of the journal in it."""
    with mapped(journal_fd) as data:
        try:
            table = ItemTable.open(files, store=identity["store"], read_only=False)
        except StoreDamaged as error:
            log.warning("%s; it is built anew from the journal", error)
            with ItemTable.building(files, empty_state(identity, start)) as built:
                _replay(built, data, files)
            point_to(files.folder, identity)  # so that readers let go of the old one
            return ItemTable.open(files, store=identity["store"], read_only=False)
        try:
            with table.writing():
                _replay(table, data, files)
        except BaseException:
            table.close()
            raise
    return table


def _readers_table(files: Generation, identity: Metadata, start: int, journal_fd: int, *, is_patient: bool) -> ItemTable:
    try:
        return _settled_table(files, identity["store"], journal_fd)
    except (StoreDamaged, sqlite3.Error):
        if is_patient and WriterLock.is_held(files.folder):
            raise  # in the midst of a checkpoint, most likely
    try:
        _mend(files.folder)
    except (StoreLocked, StoreReadOnly, StoreWriteFailed, OSError, sqlite3.Error) as error:
        log.warning("%s needs repair, which takes one opening for writing (%s); it is read through memory", files.folder, error)
        return _private_table(files, identity, start, journal_fd)
    return _settled_table(files, identity["store"], journal_fd)


def _mend(folder: Path) -> None:
    lock = WriterLock(folder)
    try:
        opened = open_files(folder, is_writer=True)
        try:
            opened.table.checkpoint(opened.files)
        finally:
            opened.close()
    finally:
        lock.release()


def _settled_table(files: Generation, store: str, journal_fd: int) -> ItemTable:
    """The table as it is. Raises StoreDamaged when whole frames wait after its end and no writer is there to take them in."""
    table = ItemTable.open(files, store=store, read_only=True)
    try:
        waiting = read_frame(read_from(journal_fd, table.state().journal_end), 0)
        if waiting is not None and not WriterLock.is_held(files.folder):
            raise StoreDamaged(f"{files.items} does not have frame {waiting.seq} of the journal yet")
    except BaseException:
        table.close()
        raise
    return table


def _private_table(files: Generation, identity: Metadata, start: int, journal_fd: int) -> ItemTable:
    try:
        source = ItemTable.open(files, store=identity["store"], read_only=True)
    except (StoreDamaged, sqlite3.Error):
        table = ItemTable.in_memory(empty_state(identity, start), None)
    else:
        table = ItemTable.in_memory(source.state(), source)
        source.close()
    try:
        with table.writing():
            _replay(table, read_from(journal_fd, 0), files)
    except BaseException:
        table.close()
        raise
    return table


def _replay(table: ItemTable, data: memoryview, files: Generation) -> None:
    """Take in the whole frames after a table's end. Raises StoreDamaged when frames were lost, as far as anything tells."""
    state = table.state()
    end = state.journal_end
    for frame in read_frames(data, end):
        state, end = _apply(table, state, frame), frame.end
    refuse_hidden_frames(data, min(end, len(data)), files.journal)
    known = sealed_seq(files)
    if state.seq < known:
        raise StoreDamaged(
            f"{files.journal} ends after frame {state.seq} of {known}, and nothing tells of the rows from {state.rows} on; "
            "restore the store from a backup"
        )


def _apply(table: ItemTable, state: State, frame: Frame) -> State:
    if frame.seq != state.seq + 1 or frame.first_row != state.rows:
        raise StoreDamaged(f"journal frame {frame.seq} follows frame {state.seq}; restore the store from a backup")
    if frame.kind == UPSERT:
        sums = np.array(frame.sums, dtype="<u4").tobytes()
        return table.put(state, frame.end, frame.ids, frame.metadata, sums)[0]
    if frame.kind == DELETE:
        return table.drop(state, frame.end, frame.ids)[0]
    raise StoreDamaged(f"journal frame {frame.seq} is of kind {frame.kind}, which this version does not know")


def _check_sizes(opened: OpenFiles) -> None:
    """Raise StoreDamaged, naming rows, when the table counts what the files no longer hold."""
    state = opened.table.state()
    rows = max(0, (os.fstat(opened.vectors_fd).st_size - HEADER_BYTES) // opened.stride)
    if rows < state.rows:
        raise damaged(opened.table, range(rows, state.rows), f"{opened.files.vectors} is cut short")
    if os.fstat(opened.journal_fd).st_size < state.journal_end:
        frames = read_frames(read_from(opened.journal_fd, 0), opened.journal_start)
        kept = sum(len(frame.ids) for frame in frames if frame.kind == UPSERT)
        raise damaged(opened.table, range(kept, state.rows), f"{opened.files.journal} is cut short")


def damaged(table: ItemTable, rows: Sequence[int], what: str) -> StoreDamaged:
    """An error that names the rows that still count, with their ids."""
    records = table.records(rows[:100_000])
    named = ", ".join(f"row {row} (id {records[row][0]!r})" for row in list(records)[:5]) or "rows that no item uses"
    more = f" and {len(records) - 5} more" if len(records) > 5 else ""
    return StoreDamaged(f"{what}: {named}{more}; restore the store from a backup, or delete these ids and index them anew")


def _tidy(opened: OpenFiles, *, is_sound: bool) -> None:
    """Cut off what was never finished, mend CURRENT, and take away other generations, since this one is known to be whole."""
    state, files = opened.table.state(), opened.files
    os.ftruncate(opened.journal_fd, state.journal_end)
    os.ftruncate(opened.vectors_fd, HEADER_BYTES + state.rows * opened.stride)
    if not is_sound:
        log.warning("%s was missing or damaged; the one journal says what it said", files.folder / CURRENT)
        point_to(files.folder, opened.identity)
    others = [path for number, path in generations(files.folder) if number != files.number or ".tmp" in path.name]
    if others:
        sync_folder(files.folder)
    for path in (*others, *files.folder.glob(f".{CURRENT}.*.tmp")):
        path.unlink(missing_ok=True)


# ---- a store that took the place of the one that is open


def refuse_another(opened: OpenFiles) -> None:
    """Raise StoreDamaged unless the folder holds the store that was opened, as it was or as it went on from there."""
    files, folder = opened.files, opened.files.folder
    if not folder.is_dir() or not ((folder / CURRENT).exists() or any(generations(folder))):
        raise not_in_place(folder)
    pointer, _ = read_pointer(folder)
    is_older = pointer["generation"] < files.number  # or else the same rows mean the same, and later ones are new
    is_other_copy = pointer["generation"] == files.number and not is_at(files.journal, opened.journal_fd)
    if pointer["store"] != opened.identity["store"] or is_older or is_other_copy:
        raise not_in_place(folder)


def not_in_place(folder: Path) -> StoreDamaged:
    """What to tell of a store that is not any more where it was opened."""
    how = "was replaced (its files are others)" if (folder / CURRENT).exists() else "was removed"
    return StoreDamaged(f"{folder} {how} after it was opened; open it again, or start its server again")


# ---- the pointer, and new generations


def stamp_of(folder: Path) -> tuple[int, int]:
    """Changes when CURRENT is replaced; (0, 0) when it is not there."""
    try:
        found = (folder / CURRENT).stat()
    except OSError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns


def mark_of(files: Generation, journal_fd: int) -> tuple[int, ...]:
    """Changes with every write of another process, whether or not SQLite can tell."""
    try:
        seal = files.seal.stat()
    except OSError:
        return (os.fstat(journal_fd).st_size,)
    return os.fstat(journal_fd).st_size, seal.st_ino, seal.st_mtime_ns


def has_store(folder: Path) -> bool:
    """Whether there is anything in a folder that a new store must not overwrite: CURRENT, or rows without it."""
    if os.path.exists(folder / CURRENT):  # noqa: PTH110, false too where the system refuses to look
        return True
    return any(path.suffix == ".f32" and path.stat().st_size > HEADER_BYTES for _, path in generations(folder))


def read_pointer(folder: Path) -> tuple[Metadata, bool]:
    """What CURRENT says, and whether it says so itself; where it is gone, the journal says it, if there is only one."""
    try:
        pointer, is_sound = read_sealed_json(folder / CURRENT), True
        if any(type(pointer.get(name)) is not kind for name, kind in _POINTER.items()):
            raise StoreDamaged(f"{folder / CURRENT} is not one of this version")
    except (StoreDamaged, FileNotFoundError) as error:
        journals = [path for _, path in generations(folder) if path.suffix == ".log"]
        if len(journals) != 1:
            raise StoreDamaged(f"{folder / CURRENT} is missing or damaged, and {len(journals)} journals are there") from error
        require_plain(journals[0])
        with journals[0].open("rb") as file:
            pointer, is_sound = _identity_in(file.read(1 << 20), journals[0])[0], False
    if pointer["format"] != FORMAT or pointer["version"] != VERSION:
        raise NotAStore(f"{folder} has format {pointer.get('format')!r} version {pointer.get('version')!r}; want {VERSION}")
    return pointer, is_sound


def point_to(folder: Path, identity: Metadata) -> None:
    kept = {name: identity[name] for name in ("format", "version", "store", "generation")}
    replace_file(folder / CURRENT, sealed_json(kept))


def empty_state(identity: Metadata, journal_start: int) -> State:
    return State(identity["store"], identity["generation"], 0, journal_start, 0, 0)


def write_empty(files: Generation, identity: Metadata) -> State:
    """The vectors and journal of a new generation, with nothing in them, durable; where its table begins."""
    frame = identity_frame(json.dumps(identity, sort_keys=True))
    for path, data in ((files.vectors, _vectors_header(identity)), (files.journal, frame)):
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    sync_folder(files.folder)
    return empty_state(identity, len(frame))


def remove(files: Generation) -> None:
    for number, path in generations(files.folder):
        if number == files.number:
            path.unlink(missing_ok=True)


def _vectors_header(identity: Metadata) -> bytes:
    kept = {name: identity[name] for name in ("format", "version", "store", "generation", "dim")}
    return sealed_json(kept).ljust(HEADER_BYTES, b"\0")
