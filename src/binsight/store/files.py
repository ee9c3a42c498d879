"""The files of a local store: their names, whole writes, and the lock of the one writer."""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import final

from binsight.errors import StoreDamaged, StoreLocked, StoreReadOnly
from binsight.records import Metadata

FORMAT = "binsight-store"
VERSION = 1
CURRENT = "CURRENT"
FOLLOWS = "FOLLOWS"  # the store that `reembed` fills this one from; without it, none
_OURS = re.compile(r"\.?(?:vectors|journal|items|index)-(\d{6,})[.-].+|\.?(?:CURRENT|FOLLOWS)(?:\.\d+\.tmp)?|lock")
_FOR_READING = "for reading only: read_only=True in Python, --read-only of `binsight serve`"
_ADDRESS = re.compile(r"https?://[0-9A-Za-z.:\[\]%_-]+")
_MOST_OWNER_BYTES = 512
_LOCK_PATIENCE_S = 0.5  # a reader that looks whether the lock is held holds it itself for a moment


@dataclass(frozen=True, slots=True)
class Generation:
    """Names of the files of one generation; compaction writes the next one and then moves `CURRENT` to it."""

    folder: Path
    number: int

    @property
    def vectors(self) -> Path:
        return self.folder / f"vectors-{self.number:06d}.f32"

    @property
    def journal(self) -> Path:
        return self.folder / f"journal-{self.number:06d}.log"

    @property
    def items(self) -> Path:
        return self.folder / f"items-{self.number:06d}.sqlite"

    @property
    def seal(self) -> Path:
        return self.folder / f"items-{self.number:06d}.seal"

    @property
    def index(self) -> Path:
        return self.folder / f"index-{self.number:06d}.json"


def is_ours(name: str) -> bool:
    """Whether a store makes files of that name."""
    return _OURS.fullmatch(name) is not None


def generations(folder: Path) -> Iterator[tuple[int, Path]]:
    """Every file of a generation, of whichever one, with its number."""
    for path in folder.iterdir():
        named = _OURS.fullmatch(path.name)
        if named is not None and named[1]:
            yield int(named[1]), path


def require_plain(path: Path) -> None:
    """Raise StoreDamaged for a link, a pipe or a folder, which a store does not make and does not follow."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise StoreDamaged(f"{path} is not a plain file; a store does not follow links")


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write every byte at `offset`; OSError when the system refuses."""
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def sync_folder(folder: Path) -> None:
    """Make names created in, renamed in or removed from a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """Put a small file in place whole: written beside, synced, renamed. After a kill, the old or the new one is there."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sealed_json(record: Metadata) -> bytes:
    """A JSON line and the CRC-32 of it, so that a changed byte shows."""
    line = json.dumps(record, sort_keys=True).encode()
    return line + b"\n%08x\n" % zlib.crc32(line)


def read_sealed_json(path: Path) -> Metadata:
    """The record that `sealed_json` wrote. Raises StoreDamaged when it is not that any more, OSError when not readable."""
    require_plain(path)
    with path.open("rb") as file:
        data = file.read(1 << 20)
    line, _, crc = data.partition(b"\n")
    if crc != b"%08x\n" % zlib.crc32(line):
        raise StoreDamaged(f"{path} does not match its checksum")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise StoreDamaged(f"{path} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise StoreDamaged(f"{path} holds no record")
    return record


def is_at(path: Path, descriptor: int) -> bool:
    """Whether the name still stands for the open file; not so where the system refuses to look."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))  # noqa: PTH116, a third of the time: asked before each answer
    except OSError:
        return False


def crc_of_file(path: Path) -> int:
    """CRC-32 of a whole file, read in pieces."""
    require_plain(path)
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            crc = zlib.crc32(piece, crc)
    return crc


@final
class WriterLock:
    """An flock on a file in a store's folder; the kernel frees it when its owner dies."""

    def __init__(self, folder: Path, name: str = "lock", *, patience_s: float = _LOCK_PATIENCE_S) -> None:
        self._path = folder / name
        self._descriptor = -1
        deadline = monotonic() + patience_s
        while not self.is_in_place():  # taken away between being opened and being locked: take the one that is there now
            self.release()
            if monotonic() > deadline:
                raise StoreReadOnly(f"{folder} cannot be written: its lock does not stay where it is made")
            self._open(folder)
            try:
                require_plain(self._path)
                self._take(folder, deadline)
            except FileNotFoundError:
                continue
            except BaseException:
                self.release()
                raise
        with suppress(OSError):  # a full disk: the lock holds all the same, only its owner goes unnamed
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def _open(self, folder: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self._descriptor = os.open(self._path, flags, 0o644)
        except OSError as error:
            raise StoreReadOnly(f"{folder} cannot be written ({error.strerror}); open it {_FOR_READING}") from error

    def _take(self, folder: Path, deadline: float) -> None:
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if monotonic() < deadline:
                    sleep(0.02)
                    continue
                raise StoreLocked(f"{folder} is being written by {self._owner()}, or open the store {_FOR_READING}") from error

    def _owner(self) -> str:
        """What the lock says of its owner, and what to do about it."""
        process, _, address = os.pread(self._descriptor, _MOST_OWNER_BYTES, 0).decode(errors="replace").partition("\n")
        process = f"process {process.strip()[:32] or 'unknown'}"
        address = address.strip()
        if not _ADDRESS.fullmatch(address):
            return f"{process}; wait for it to end"
        return f"{process}, a server at {address}; send it what is to be written (PUT {address}/v1/items/ID), stop it"

    def tell_address(self, address: str) -> None:
        """Say beside the pid that the owner is a server, and where."""
        with suppress(OSError):
            os.pwrite(self._descriptor, f"{os.getpid()}\n{address}\n".encode(), 0)

    def is_in_place(self) -> bool:
        """Whether it is held, and still the one that others who want to write would find."""
        return self._descriptor >= 0 and is_at(self._path, self._descriptor)

    def remove(self) -> None:
        """Take the file away, and let go of it: in this order, so that nobody holds one that others do not find."""
        if self.is_in_place():
            with suppress(OSError):  # it may as well stay
                self._path.unlink()
        self.release()

    @staticmethod
    def is_held(folder: Path) -> bool:
        """Whether some process writes to the store now."""
        try:
            descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
