"""The journal of a local store: one checksummed frame for each acknowledged upsert or delete.

A frame is `<4sBxxxQQII` (magic, kind, sequence number, first row, items, body bytes), the body, and the CRC-32 of both.
The body of an upsert holds, for each item, `<HII` (id bytes, metadata bytes, CRC-32 of the vector's bytes), id, metadata;
that of a delete holds `<H` (id bytes), id. The first frame (kind 0) holds the store's identity as JSON.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from binsight.errors import BadItem, StoreDamaged

IDENTITY: Final = 0
UPSERT: Final = 1
DELETE: Final = 2
MAGIC: Final = b"bsJ1"

_HEAD = struct.Struct("<4sBxxxQQII")
_ITEM = struct.Struct("<HII")
_ID = struct.Struct("<H")
_SUM = struct.Struct("<I")
_MAX_BODY = 1 << 31


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as read: `end` is the offset after it; for an upsert, `sums[i]` is the CRC-32 of vector i."""

    kind: int
    seq: int
    first_row: int
    ids: list[str]
    metadata: list[str]
    sums: list[int]
    end: int


def upsert_frame(seq: int, first_row: int, ids: Sequence[str], metadata: Sequence[str], sums: Sequence[int]) -> bytes:
    parts: list[bytes] = []
    for one, text, crc in zip(ids, metadata, sums, strict=True):
        name, record = one.encode(), text.encode()
        parts += (_ITEM.pack(len(name), len(record), crc), name, record)
    return _frame(UPSERT, seq, first_row, len(ids), b"".join(parts))


def delete_frame(seq: int, first_row: int, ids: Sequence[str]) -> bytes:
    names = [one.encode() for one in ids]
    return _frame(DELETE, seq, first_row, len(ids), b"".join(_ID.pack(len(name)) + name for name in names))


def identity_frame(text: str) -> bytes:
    return _frame(IDENTITY, 0, 0, 1, text.encode())


def _frame(kind: int, seq: int, first_row: int, count: int, body: bytes) -> bytes:
    if len(body) > _MAX_BODY:
        raise BadItem(
            f"want at most {_MAX_BODY} bytes of ids and metadata at once, got {len(body)}; pass fewer items in one call"
        )
    frame = _HEAD.pack(MAGIC, kind, seq, first_row, count, len(body)) + body
    return frame + _SUM.pack(zlib.crc32(frame))


def read_frames(data: memoryview, start: int) -> Iterator[Frame]:
    """Frames from `start` on, ending before the first one that is incomplete or does not match its checksum."""
    offset = start
    while (frame := read_frame(data, offset)) is not None:
        yield frame
        offset = frame.end


def read_frame(data: memoryview, offset: int) -> Frame | None:
    """The frame at `offset`, or None where no whole and sound frame stands. Raises StoreDamaged for one that is made up."""
    head_end = offset + _HEAD.size
    if head_end + _SUM.size > len(data):
        return None
    magic, kind, seq, first_row, count, size = _HEAD.unpack_from(data, offset)
    end = head_end + size + _SUM.size
    if magic != MAGIC or size > _MAX_BODY or end > len(data):
        return None
    if zlib.crc32(data[offset : head_end + size]) != _SUM.unpack_from(data, head_end + size)[0]:
        return None
    body = bytes(data[head_end : head_end + size])
    try:
        if kind == UPSERT:
            ids, metadata, sums = _upsert_body(body, count)
            return Frame(kind, seq, first_row, ids, metadata, sums, end)
        if kind == DELETE:
            return Frame(kind, seq, first_row, _delete_body(body, count), [], [], end)
        return Frame(kind, seq, first_row, [], [body.decode()], [], end)
    except (struct.error, UnicodeDecodeError) as error:  # its checksum is right, but this program did not write it
        raise StoreDamaged(f"the journal's frame {seq} at byte {offset} does not hold what it says: {error}") from error


def refuse_hidden_frames(data: memoryview, end: int, journal: Path) -> None:
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


def read_from(descriptor: int, start: int) -> memoryview:
    """A copy of a file's bytes from `start` on: safe beside a writer that takes back an unfinished frame."""
    parts: list[bytes] = []
    while part := os.pread(descriptor, 1 << 24, start):
        parts.append(part)
        start += len(part)
    return memoryview(b"".join(parts))


@contextmanager
def mapped(descriptor: int) -> Iterator[memoryview]:
    """A file's bytes without a copy; the file must not be cut short meanwhile."""
    size = os.fstat(descriptor).st_size
    if not size:
        yield memoryview(b"")
        return
    with mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
        yield view


def _upsert_body(body: bytes, count: int) -> tuple[list[str], list[str], list[int]]:
    ids, metadata, sums, at = [], [], [], 0
    for _ in range(count):
        name_size, record_size, crc = _ITEM.unpack_from(body, at)
        at += _ITEM.size
        ids.append(body[at : at + name_size].decode())
        at += name_size
        metadata.append(body[at : at + record_size].decode())
        at += record_size
        sums.append(crc)
    return ids, metadata, sums


def _delete_body(body: bytes, count: int) -> list[str]:
    ids, at = [], 0
    for _ in range(count):
        (name_size,) = _ID.unpack_from(body, at)
        at += _ID.size
        ids.append(body[at : at + name_size].decode())
        at += name_size
    return ids
