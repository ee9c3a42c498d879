"""A power cut: what was not synced is lost, in part or whole, in any order; what was acknowledged is there.

A writer's changes of files are written down, and cuts are played from that: synced writes are kept; of the others any may
be missing or torn at a 512-byte sector; of the names that were made, renamed or removed since the folder was synced, the
last ones may be missing.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from binsight.errors import NotAStore
from binsight.store import open_store
from tests.store.workers import World, after, compare, nursery, short_script

CUTS = int(os.environ.get("BINSIGHT_CUTS", "3000"))
_HEAD = struct.Struct("c3xi2q")


@dataclass(frozen=True)
class Change:
    kind: str  # w: write, t: truncate, s: sync, c: create, r: rename (data: to), u: remove, !: an operation was acknowledged
    path: str
    offset: int
    data: bytes


@dataclass
class File:
    """What is on the disk for certain, and what was asked of it since."""

    synced: bytes = b""
    pending: list[Change] = field(default_factory=list)

    def now(self) -> bytes:
        return played(self.synced, self.pending)


def played(data: bytes, changes: list[Change]) -> bytes:
    out = bytearray(data)
    for change in changes:
        if change.kind == "t":
            out[change.offset :] = bytes(max(0, change.offset - len(out)))
        else:
            out[len(out) :] = bytes(max(0, change.offset - len(out)))
            out[change.offset : change.offset + len(change.data)] = change.data
    return bytes(out)


def read_changes(path: Path) -> Iterator[Change]:
    data, at = path.read_bytes(), 0
    while at < len(data):
        kind, path_size, offset, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        name = data[at : at + path_size].decode()
        at += path_size
        has_data = kind in b"wr"
        yield Change(kind.decode(), Path(name).name, offset, data[at : at + size] if has_data else b"")
        at += size if has_data else 0


class Disk:
    """A folder as the file system keeps it: names, and the files that they mean."""

    def __init__(self) -> None:
        self.names: dict[str, File] = {}  # as programs see it
        self.kept: dict[str, File] = {}  # as the disk has it for certain
        self.unsynced: list[dict[str, File]] = []  # the folder after each change of a name since

    def take(self, change: Change) -> None:
        if change.kind == "s" and change.path.endswith(".store"):
            self.kept, self.unsynced = dict(self.names), []
        elif change.kind in "ws" or change.kind == "t":
            file = self.names.setdefault(change.path, File())
            if change.kind == "s":
                file.synced, file.pending = file.now(), []
            else:
                file.pending.append(change)
        elif change.kind in "cru":
            if change.kind == "c":
                self.names[change.path] = File()
            elif change.kind == "r":
                self.names[Path(change.data.decode()).name] = self.names.pop(change.path)
            else:
                self.names.pop(change.path, None)
            self.unsynced.append(dict(self.names))

    def after_a_cut(self, rng: np.random.Generator, folder: Path) -> None:
        """Write down one of the states that the disk may be in."""
        names = [self.kept, *self.unsynced][int(rng.integers(len(self.unsynced) + 1))]
        mood = rng.random()
        folder.mkdir()
        for name, file in names.items():
            if name.endswith("-shm"):
                continue
            (folder / name).write_bytes(played(file.synced, list(some(rng, file.pending, mood))))


def some(rng: np.random.Generator, pending: list[Change], mood: float) -> Iterator[Change]:
    """Some of the writes that were not synced: a beginning of them, or any; a write may be torn."""
    end = int(rng.integers(len(pending) + 1)) if mood < 0.4 else len(pending)
    for place, change in enumerate(pending[:end]):
        if mood > 0.6 and rng.random() < 0.3:
            continue
        is_torn = change.kind == "w" and len(change.data) > 512 and (rng.random() < 0.2 or place == end - 1)
        size = int(rng.integers(len(change.data) // 512 + 1)) * 512 if is_torn else len(change.data)
        yield Change(change.kind, change.path, change.offset, change.data[:size])


def cut(shim: Path, folder: Path, *, cuts: int, seed: int) -> int:
    """Play power cuts at random moments; how many of them left a store."""
    with nursery(folder, preload=shim) as children:
        code = children.run("write_down", folder=str(folder / "t.store"), changes=str(folder / "changes"))
        assert code == 0, children.log.read_text()[-3000:]
    changes = list(read_changes(folder / "changes"))
    worlds: list[World] = list(itertools.accumulate(short_script(), after, initial=World()))
    rng = np.random.default_rng(seed)
    moments = sorted(rng.integers(len(changes) + 1, size=cuts).tolist())
    disk, at, done, found = Disk(), 0, 0, 0
    for number, moment in enumerate(moments):
        for change in changes[at:moment]:
            disk.take(change)
            done = change.offset if change.kind == "!" else done
        at = moment
        place = folder / str(number)
        disk.after_a_cut(rng, place)
        possible = worlds[done : done + 2]
        try:
            store = open_store(place)
        except NotAStore:
            assert done == 0
            continue
        with store:
            seen = {item.id: item.metadata["version"] for item in store.scan()}
            assert seen in possible, f"cut at change {moment} of {len(changes)}, after {done} operations"
            assert not compare(store, seen), f"cut at change {moment} of {len(changes)}"
            assert store.verify().is_sound
            found += 1
    return found


def test_what_was_acknowledged_survives_power_cuts(shim: Path, tmp_path: Path) -> None:
    assert cut(shim, tmp_path, cuts=120, seed=1) > 100


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", range(5))
def test_what_was_acknowledged_survives_thousands_of_power_cuts(shim: Path, tmp_path: Path, seed: int) -> None:
    assert cut(shim, tmp_path, cuts=max(10, CUTS // 5), seed=100 + seed) > 5
