"""The SQLite side of a local store: ids, metadata, and which rows of the log count.

It is what the journal says, laid out for look-ups. Its main file changes only at a checkpoint, which ends by sealing it:
size and CRC-32 in a file beside it. So a changed byte shows before the file is opened, and it is then built anew from the
journal. What lies between two seals is in SQLite's own write-ahead log and, again, in the journal. A seal also names the
last frame that it knows of, from before the checkpoint on: a table or a journal that ends earlier has lost something.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from binsight.errors import StoreDamaged, StoreUnavailable
from binsight.filters import Filter
from binsight.patience import is_given_up
from binsight.records import Metadata
from binsight.store.files import Generation, crc_of_file, read_sealed_json, replace_file, require_plain, sealed_json

CHECKPOINT_BYTES = 64 << 20  # of SQLite's write-ahead log, before it is folded into the main file
_MOST_PARAMETERS = 500
_STEPS = 100_000  # of SQLite's machine, between looks whether anybody waits: some milliseconds
_REFUSALS = (
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
)  # fmt: skip

_SCHEMA = """
CREATE TABLE items(row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, metadata TEXT NOT NULL);
CREATE TABLE sums(first_row INTEGER PRIMARY KEY, crcs BLOB NOT NULL);
CREATE TABLE dead(seq INTEGER PRIMARY KEY, row INTEGER NOT NULL);
CREATE TABLE state(store TEXT, generation INTEGER, seq INTEGER, journal_end INTEGER, rows INTEGER, items INTEGER);
"""


@dataclass(frozen=True, slots=True)
class State:
    """Where a store stands: the last frame that counts, rows in the log, items alive. One row of SQLite."""

    store: str
    generation: int
    seq: int
    journal_end: int
    rows: int
    items: int


@final
class ItemTable:
    """The open SQLite file. Safe to call from several threads; errors are sqlite3's own.

    is_frozen: it is read as it was when it was opened, whatever other processes write.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, *, is_frozen: bool = False) -> None:
        self._db = connection
        self._path = path
        self._keeper: sqlite3.Connection | None = None
        self._is_sealed = True
        self.is_frozen = is_frozen
        self.lock = threading.RLock()

    # ---- opening

    @classmethod
    @contextmanager
    def building(cls, generation: Generation, state: State) -> Iterator[ItemTable]:
        """A new table, to be filled inside; at the end it takes the place of the old one, whole and sealed."""
        beside = generation.items.with_name(f".{generation.items.name}.tmp")
        _unlink(beside)
        table = cls(_connect(beside, "rwc"), beside)
        try:
            table._begin(state)
            with table.writing():
                yield table
            seq = table.state().seq
            table._db.execute("PRAGMA journal_mode=WAL").fetchall()
            table.close()
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            _unlink(generation.items)  # its log first goes, then its name: never another table's log beside a table
            beside.replace(generation.items)
            _write_seal(generation, seq)
        finally:
            table.close()
            _unlink(beside)

    @classmethod
    def in_memory(cls, state: State, source: ItemTable | None) -> ItemTable:
        """A copy of a table, or an empty one, that no file holds: for a reader that may not mend what it finds."""
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        table = cls(connection, Path(":memory:"), is_frozen=True)
        if source is None:
            table._begin(state)
        else:
            source._db.backup(table._db)
        return table

    @classmethod
    def open(cls, generation: Generation, *, store: str, read_only: bool) -> ItemTable:
        """Raises StoreDamaged when the table is not the one that its seal tells of; sqlite3.Error when the system refuses."""
        try:
            for suffix in ("-wal", "-shm"):
                with suppress(FileNotFoundError):
                    require_plain(generation.items.with_name(generation.items.name + suffix))
            seal = read_sealed_json(generation.seal)
            seq = _seq_of(seal)
            if seal["bytes"] != generation.items.stat().st_size or seal["crc"] != crc_of_file(generation.items):
                raise StoreDamaged(f"{generation.items} does not match its seal")
        except (OSError, KeyError) as error:
            raise StoreDamaged(f"{generation.items} has no seal that can be read: {error}") from error
        table = cls(_connect(generation.items, "ro" if read_only else "rw"), generation.items)
        try:
            table._check(generation.number, store, seq)
            if not read_only:
                table._keep()
        except BaseException as error:
            table.close()
            if not isinstance(error, sqlite3.Error):
                raise
            log = generation.items.with_name(generation.items.name + "-wal")
            if not read_only or (log.exists() and log.stat().st_size):
                raise
            # A read-only mount, where SQLite cannot make its shared memory. There is nothing in it to be missed.
            table = cls(_connect(generation.items, "ro", immutable=True), generation.items, is_frozen=True)
        return table

    def _keep(self) -> None:
        """Keep SQLite from folding its log on closing, without a seal, and from removing it.

        It does so when it thinks that it is the last connection. It would err: reading the main file for its CRC-32 lets
        go of this process's locks on it (sqlite.org/howtocorrupt.html, 2.2). A reader that closes later leaves all as it is.
        """
        self._keeper = _connect(self._path, "ro")
        self._keeper.execute("SELECT seq FROM state").fetchone()

    def _check(self, generation: int, store: str, seq: int) -> None:
        try:
            state = self.state()
        except (sqlite3.DatabaseError, TypeError) as error:
            if isinstance(error, sqlite3.DatabaseError) and error.sqlite_errorcode & 0xFF in _REFUSALS:
                raise
            raise StoreDamaged(f"{self._path} cannot be read: {error}") from error
        first, last = self._ends()
        numbers = (state.generation, state.seq, state.journal_end, state.rows, state.items)
        if any(type(number) is not int or number < 0 for number in numbers) or first < 0 or last >= state.rows:
            raise StoreDamaged(f"{self._path} has a state that no store has: {state}, items of rows {first} to {last}")
        if (state.store, state.generation) != (store, generation):
            raise StoreDamaged(f"{self._path} belongs to another store or generation")
        if state.seq < seq:
            raise StoreDamaged(f"{self._path} ends at frame {state.seq}, but its seal knows of frame {seq}")

    def _ends(self) -> tuple[int, int]:
        """The first and the last row that counts; 0 and -1 where none does."""
        found = self._db.execute("SELECT (SELECT min(row) FROM items), (SELECT max(row) FROM items)").fetchone()
        return (0, -1) if found[0] is None else (int(found[0]), int(found[1]))

    def _begin(self, state: State) -> None:
        """Make the tables, without any log: a table that was not finished is thrown away."""
        for setting in ("journal_mode=OFF", "synchronous=OFF"):
            self._db.execute(f"PRAGMA {setting}").fetchall()
        self._db.executescript(_SCHEMA)
        values = (state.store, state.generation, state.seq, state.journal_end, state.rows, state.items)
        self._db.execute("INSERT INTO state VALUES (?,?,?,?,?,?)", values)

    def close(self) -> None:
        with self.lock:
            self._db.close()
            if self._keeper is not None:
                self._keeper.close()

    # ---- reading

    @property
    def is_reading(self) -> bool:
        """Whether a `reading` block is open."""
        return self._db.in_transaction

    def version(self) -> int:
        """A number that changes when another connection has committed."""
        with self.lock:
            return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def state(self) -> State:
        with self.lock:
            return State(*self._db.execute("SELECT * FROM state").fetchone())

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Several reads of one moment; inside another such block, of that one's."""
        with self.lock:
            if self._db.in_transaction:
                yield
                return
            try:
                self._db.execute("BEGIN")
                yield
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")  # nothing was written

    def sums_from(self, first_row: int) -> NDArray[np.uint32]:
        """CRC-32 of the vectors from a row on that began an upsert."""
        with self.lock:
            found = self._db.execute("SELECT crcs FROM sums WHERE first_row >= ? ORDER BY first_row", (first_row,))
            return np.frombuffer(b"".join(blob for (blob,) in found), dtype="<u4")

    def dead_after(self, seq: int) -> tuple[NDArray[np.int64], int]:
        """Rows that ceased to count since the `seq` of an earlier call (0 at first), and the new `seq`."""
        with self.lock:
            found = self._db.execute("SELECT row FROM dead WHERE seq > ? ORDER BY seq", (seq,))
            rows = np.fromiter((row for (row,) in found), dtype=np.int64)
        return rows, seq + len(rows)

    def records(self, rows: Sequence[int]) -> dict[int, tuple[str, str]]:
        """Row → (id, metadata text) of the rows that count."""
        found: dict[int, tuple[str, str]] = {}
        with self.lock:
            for start in range(0, len(rows), _MOST_PARAMETERS):
                part = rows[start : start + _MOST_PARAMETERS]
                marks = ",".join("?" * len(part))
                sql = f"SELECT row, id, metadata FROM items WHERE row IN ({marks})"  # noqa: S608, marks only
                for row, one, text in self._db.execute(sql, part):
                    found[row] = (one, text)
        return found

    def rows_of(self, ids: Sequence[str]) -> dict[str, int]:
        """Id → row of the ids that are there."""
        with self.lock:
            sql = "SELECT id, row FROM items WHERE id IN (SELECT value FROM json_each(?))"
            return dict(self._db.execute(sql, (json.dumps(list(ids)),)))

    @contextmanager
    def _while_wanted(self) -> Iterator[None]:
        """A look at every item, which a long filter makes long: StoreUnavailable once nobody waits for it any more."""
        why = f"{self._path}: nobody waits for the answer any more"
        if is_given_up():
            raise StoreUnavailable(why)
        with self.lock:
            self._db.set_progress_handler(is_given_up, _STEPS)
            try:
                yield
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                    raise StoreUnavailable(why) from error
                raise
            finally:
                self._db.set_progress_handler(None, 0)

    def rows_where(self, where: Filter | None, first: int, end: int) -> NDArray[np.int64]:
        """Of the rows from `first` to before `end` those that count and that the filter lets through, ascending."""
        sql, values = where.to_sql("metadata") if where is not None else ("1", [])
        with self._while_wanted():
            query = f"SELECT row FROM items WHERE row >= ? AND row < ? AND {sql}"  # noqa: S608, compiled by Filter
            found = self._db.execute(query, (first, end, *values))
            rows = np.fromiter((row for (row,) in found), dtype=np.int64)
        rows.sort()
        return rows

    def scan(self, after_id: str, limit: int, where: Filter | None) -> list[tuple[int, str, str]]:
        """The next items, by id: (row, id, metadata text)."""
        sql, values = where.to_sql("metadata") if where is not None else ("1", [])
        with self._while_wanted():
            query = f"SELECT row, id, metadata FROM items WHERE id > ? AND {sql} ORDER BY id LIMIT ?"  # noqa: S608
            return self._db.execute(query, (after_id, *values, limit)).fetchall()

    def rows_after(self, row: int, limit: int) -> list[tuple[int, str, str]]:
        """The next rows that count: (row, id, metadata text)."""
        with self.lock:
            query = "SELECT row, id, metadata FROM items WHERE row > ? ORDER BY row LIMIT ?"
            return self._db.execute(query, (row, limit)).fetchall()

    def problems(self) -> list[str]:
        """What SQLite itself finds wrong."""
        with self.lock:
            found = [str(line) for (line,) in self._db.execute("PRAGMA integrity_check")]
        return [] if found == ["ok"] else [f"{self._path.name}: {line}" for line in found]

    # ---- writing

    @contextmanager
    def writing(self) -> Iterator[None]:
        """All or nothing of what is done inside."""
        with self.lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def put(self, state: State, end: int, ids: Sequence[str], metadata: Sequence[str], sums: bytes) -> tuple[State, list[int]]:
        """Add the rows of one upsert frame; the new state and the rows that they replace. Call inside `writing`."""
        replaced = sorted(self.rows_of(ids).values())
        self._kill(replaced)
        first = state.rows
        rows = range(first, first + len(ids))
        self._db.executemany("INSERT INTO items VALUES (?,?,?)", zip(rows, ids, metadata, strict=True))
        self._db.execute("INSERT INTO sums VALUES (?,?)", (first, sums))
        return self._save(replace(
            state, seq=state.seq + 1, journal_end=end, rows=first + len(ids), items=state.items + len(ids) - len(replaced)
        )), replaced  # fmt: skip

    def drop(self, state: State, end: int, ids: Sequence[str]) -> tuple[State, list[int]]:
        """Take out the items of one delete frame; the new state and the rows that ceased. Call inside `writing`."""
        gone = sorted(self.rows_of(ids).values())
        self._kill(gone)
        return self._save(replace(state, seq=state.seq + 1, journal_end=end, items=state.items - len(gone))), gone

    def checkpoint(self, generation: Generation) -> None:
        """Fold SQLite's log into the main file as far as readers allow, and seal the main file."""
        with self.lock:
            if self._is_sealed and not self.log_bytes():
                return
            seq, self._is_sealed = self.state().seq, False
            replace_file(generation.seal, sealed_json({"seq": seq}))  # until it is sealed: no table, but a frame to reach
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            _write_seal(generation, seq)
            self._is_sealed = True

    def log_bytes(self) -> int:
        log = self._path.with_name(self._path.name + "-wal")
        return log.stat().st_size if log.exists() else 0

    def _kill(self, rows: Sequence[int]) -> None:
        if rows:
            self._db.executemany("DELETE FROM items WHERE row = ?", ((row,) for row in rows))
            self._db.executemany("INSERT INTO dead(row) VALUES (?)", ((row,) for row in rows))

    def _save(self, state: State) -> State:
        sql = "UPDATE state SET seq = ?, journal_end = ?, rows = ?, items = ?"
        self._db.execute(sql, (state.seq, state.journal_end, state.rows, state.items))
        return state


def sealed_seq(generation: Generation) -> int:
    """The last frame that a seal knows of; 0 when there is no seal that can be read."""
    try:
        return _seq_of(read_sealed_json(generation.seal))
    except (OSError, StoreDamaged, KeyError):
        return 0


def _seq_of(seal: Metadata) -> int:
    seq = seal["seq"]
    if type(seq) is not int or seq < 0:
        raise StoreDamaged(f"a seal names a frame {seq!r}")
    return seq


def _write_seal(generation: Generation, seq: int) -> None:
    record = {"bytes": generation.items.stat().st_size, "crc": crc_of_file(generation.items), "seq": seq}
    replace_file(generation.seal, sealed_json(record))


def _unlink(path: Path) -> None:
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _connect(path: Path, mode: str, *, immutable: bool = False) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}" + ("&immutable=1" if immutable else "")
    connection = sqlite3.connect(uri, uri=True, timeout=2.0, isolation_level=None, check_same_thread=False)
    settings: dict[str, Any] = {
        "synchronous": "NORMAL",  # the journal is what is synced at each write
        "wal_autocheckpoint": 0, "cache_size": -16_384, "mmap_size": 1 << 31, "trusted_schema": "OFF",
    }  # fmt: skip
    try:
        for name, value in settings.items():
            connection.execute(f"PRAGMA {name}={value}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection
