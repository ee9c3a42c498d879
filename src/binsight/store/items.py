"""The SQLite side of a local store: ids, metadata, and which rows of the log count.

It is what the journal says, laid out for look-ups. Its main file changes only at a checkpoint, which ends by sealing it:
size and CRC-32 in a file beside it. So a changed byte shows before the file is opened, and it is then built anew from the
journal. What lies between two seals is in SQLite's own write-ahead log and, again, in the journal.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from binsight.errors import StoreDamaged
from binsight.filters import Filter
from binsight.store.files import Generation, crc_of_file, read_sealed_json, replace_file, sealed_json

CHECKPOINT_BYTES = 64 << 20  # of SQLite's write-ahead log, before it is folded into the main file
_MOST_PARAMETERS = 500

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
    """The open SQLite file. Safe to call from several threads; errors are sqlite3's own."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self._path = path
        self.lock = threading.RLock()

    # ---- opening

    @classmethod
    def create(cls, generation: Generation, state: State) -> ItemTable:
        for suffix in ("", "-wal", "-shm"):
            generation.items.with_name(generation.items.name + suffix).unlink(missing_ok=True)
        table = cls(_connect(generation.items, "rwc"), generation.items)
        table._db.execute("PRAGMA journal_mode=WAL")
        table._db.executescript(_SCHEMA)
        table._db.execute(
            "INSERT INTO state VALUES (?,?,?,?,?,?)",
            (state.store, state.generation, state.seq, state.journal_end, state.rows, state.items),
        )
        table.checkpoint(generation)
        return table

    @classmethod
    def open(cls, generation: Generation, *, read_only: bool) -> ItemTable:
        """Raises StoreDamaged when the file does not match its seal, sqlite3.Error when SQLite cannot read it."""
        try:
            seal = read_sealed_json(generation.seal)
            if seal["bytes"] != generation.items.stat().st_size or seal["crc"] != crc_of_file(generation.items):
                raise StoreDamaged(f"{generation.items} does not match its seal")
        except (OSError, KeyError) as error:
            raise StoreDamaged(f"{generation.items} has no seal that can be read: {error}") from error
        if not read_only:
            return cls(_connect(generation.items, "rw"), generation.items)
        try:
            table = cls(_connect(generation.items, "ro"), generation.items)
            table.state()
        except sqlite3.OperationalError:  # a read-only mount, where SQLite cannot make its shared memory
            log = generation.items.with_name(generation.items.name + "-wal")
            if log.exists() and log.stat().st_size:
                raise
            table = cls(_connect(generation.items, "ro", immutable=True), generation.items)
        return table

    def close(self) -> None:
        with self.lock:
            self._db.close()

    # ---- reading

    def version(self) -> int:
        """A number that changes when another connection has committed."""
        with self.lock:
            return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def state(self) -> State:
        with self.lock:
            return State(*self._db.execute("SELECT * FROM state").fetchone())

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Several reads of one moment."""
        with self.lock:
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("COMMIT")

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

    def rows_where(self, where: Filter | None) -> NDArray[np.int64]:
        """The rows that count and that the filter lets through, ascending."""
        sql, values = where.to_sql("metadata") if where is not None else ("1", [])
        with self.lock:
            found = self._db.execute(f"SELECT row FROM items WHERE {sql}", values)  # noqa: S608, compiled by Filter
            rows = np.fromiter((row for (row,) in found), dtype=np.int64)
        rows.sort()
        return rows

    def scan(self, after_row: int, limit: int, where: Filter | None) -> list[tuple[int, str, str]]:
        """The next rows, in order: (row, id, metadata text)."""
        sql, values = where.to_sql("metadata") if where is not None else ("1", [])
        with self.lock:
            query = f"SELECT row, id, metadata FROM items WHERE row > ? AND {sql} ORDER BY row LIMIT ?"  # noqa: S608
            return self._db.execute(query, (after_row, *values, limit)).fetchall()

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
            self._db.execute("BEGIN IMMEDIATE")
            try:
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
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            seal = {"bytes": self._path.stat().st_size, "crc": crc_of_file(self._path)}
            replace_file(generation.seal, sealed_json(seal))

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


def _connect(path: Path, mode: str, *, immutable: bool = False) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}" + ("&immutable=1" if immutable else "")
    connection = sqlite3.connect(uri, uri=True, timeout=10.0, isolation_level=None, check_same_thread=False)
    settings: dict[str, Any] = {"synchronous": "NORMAL", "wal_autocheckpoint": 0, "cache_size": -16_384, "mmap_size": 1 << 31}
    for name, value in settings.items():  # NORMAL: the journal is what is synced at each write
        connection.execute(f"PRAGMA {name}={value}").fetchall()
    return connection
