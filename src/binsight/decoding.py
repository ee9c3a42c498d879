"""Pictures read and decoded ahead of the model, in order, with bounded memory.

Files of this machine are read by the threads that decode them. Objects of a bucket are asked for by many threads, since a
request mostly waits. What is read or decoded and not yet taken is bounded: in pictures, and in bytes as the listing gives them.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from time import perf_counter
from types import TracebackType
from typing import Self, TypeAlias, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from binsight.data.files import REQUESTS_AT_ONCE, Files
from binsight.data.source import Picture, Stamp
from binsight.errors import BadImage, BadItem
from binsight.origin import COUNTED, said_by_model, source_of, source_record
from binsight.preprocess import Preprocess
from binsight.rates import Rates
from binsight.records import Item, Metadata
from binsight.store.base import SOURCE_KEY, metadata_text

Pixels = NDArray[np.uint8]
T = TypeVar("T")

TOGETHER = 8  # pictures that one thread decodes in a row: handing them out singly halves what two threads decode
MOST_BYTES_AHEAD = 256 * 2**20  # of objects that were asked for and not yet taken


@dataclass(frozen=True, slots=True)
class Wanted:
    """A picture to read, and the item that the store holds under its id. is_encoded: whether that needs no new vector as long
    as the file's content is the same."""

    picture: Picture
    known: Item | None = None
    is_encoded: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """A picture as read: `pixels` is None when its content is what the store already knows."""

    item: Item
    pixels: Pixels | None


@dataclass(frozen=True, slots=True, eq=False)
class Refused:
    """A picture that cannot be taken, and why."""

    picture: Picture
    error: str


_Data: TypeAlias = tuple[bytes, Stamp | None]


@final
class Decoder:
    """Threads that read and decode; a context manager.

    doors: the files of each root. window: about how many pictures are in work or waiting. reserved: metadata for which an item
    must have room, as it comes later.
    """

    def __init__(
        self,
        doors: Mapping[str, Files],
        preprocess: Preprocess,
        rates: Rates,
        *,
        workers: int,
        window: int,
        reserved: Metadata | None = None,
    ) -> None:
        self._doors, self._preprocess, self._rates = doors, preprocess, rates
        self._window, self._reserved = window, reserved or {}
        is_remote = any(files.is_remote for files in doors.values())
        rates.use("read", REQUESTS_AT_ONCE if is_remote else workers)
        rates.use("decode", workers)
        self._readers = ThreadPoolExecutor(REQUESTS_AT_ONCE, "binsight-read") if is_remote else None
        self._decoders = ThreadPoolExecutor(workers, "binsight-decode")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for files in self._doors.values():
            files.give_up()
        for pool in (self._readers, self._decoders):
            if pool is not None:
                pool.shutdown(cancel_futures=True)

    def ahead(self, wanted: Iterator[Wanted]) -> Iterator[Read | Refused]:
        """Results in order."""
        running: deque[tuple[Future[list[Read | Refused]], int]] = deque()
        size = 0
        for some in batched(wanted, TOGETHER):
            reads = [self._readers.submit(self._data, one) if self._is_remote(one) else None for one in some]  # type: ignore[union-attr]  # there is a pool where one is remote
            bytes_ahead = sum(one.picture.stamp.size for one in some if one.picture.stamp is not None)
            running.append((self._decoders.submit(self._decode_some, some, reads), bytes_ahead))
            size += bytes_ahead
            while len(running) * TOGETHER >= self._window or (size > MOST_BYTES_AHEAD and running):
                future, gone = running.popleft()
                size -= gone
                yield from future.result()
        while running:
            yield from running.popleft()[0].result()

    def _is_remote(self, one: Wanted) -> bool:
        return self._doors[one.picture.root].is_remote

    def _data(self, one: Wanted) -> _Data | BadImage:
        started = perf_counter()
        try:
            return self._doors[one.picture.root].stamped(one.picture.uri)
        except BadImage as error:
            return error
        finally:
            self._rates.add("read", 1, perf_counter() - started)

    def _decode_some(self, some: Sequence[Wanted], reads: Sequence[Future[_Data | BadImage] | None]) -> list[Read | Refused]:
        done: list[Read | Refused] = []
        busy_s = 0.0
        for one, read in zip(some, reads, strict=True):
            data = self._data(one) if read is None else read.result()
            started = perf_counter()
            done.append(self._decode(one, data))
            busy_s += perf_counter() - started
        self._rates.add("decode", len(some), busy_s)
        return done

    def _decode(self, one: Wanted, data: _Data | BadImage) -> Read | Refused:
        """One picture, unless its content is known."""
        try:
            if isinstance(data, BadImage):
                raise data
            content, stamp = data
            source = source_record(one.picture, _seen(one.picture.stamp, stamp, content), hashlib.sha256(content).hexdigest())
            is_known = one.known is not None and source_of(one.known).get("sha256") == source["sha256"]
            if one.known is not None and is_known and one.is_encoded:
                return Read(_kept(one.picture, source, one.known), None)
            item = Item(one.picture.id, one.picture.metadata | {SOURCE_KEY: source})
            metadata_text(replace(item, metadata=item.metadata | self._reserved))
            return Read(item, self._preprocess.pixels(content))
        except (BadImage, BadItem) as error:
            return Refused(one.picture, str(error))


def _seen(listed: Stamp | None, read: Stamp | None, content: bytes) -> Stamp:
    """The stamp of what was read. A listing's is kept for the same version of an object: its time may be told more finely."""
    if read is None or (listed is not None and listed.etag and listed.etag == read.etag):
        return listed or Stamp(len(content), 0)
    return read


def _kept(picture: Picture, source: Metadata, known: Item) -> Item:
    """The item of a known content: what the model said of it stays, unless the source now has a field of that name."""
    said = said_by_model(known)
    if said and not said.keys() & picture.metadata.keys():
        item = Item(picture.id, picture.metadata | said | {SOURCE_KEY: source | {COUNTED: source_of(known)[COUNTED]}})
    else:
        item = Item(picture.id, picture.metadata | {SOURCE_KEY: source})
    metadata_text(item)
    return item


def batched(values: Iterator[T], size: int) -> Iterator[list[T]]:
    while part := list(islice(values, size)):
        yield part
