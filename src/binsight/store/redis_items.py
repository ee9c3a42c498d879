"""What lies where in a shared store: its partitions, and the items of some ids in them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, final

import numpy as np

from binsight.errors import CannotBeDone, StoreDamaged, UnknownItem, WrongUse
from binsight.store.redis_link import Command, RedisLink, Reply
from binsight.store.redis_url import RedisUrl
from binsight.vectors import Vectors

ATTEMPTS = 20  # to read what others write meanwhile
_PAGE = 500


@final
class Partition:
    """The names of a partition's keys."""

    def __init__(self, index: str, number: int) -> None:
        tag = f"binsight:{{{index}:{number}}}"
        self.number = number
        self.about, self.vectors, self.records, self.ids = f"{tag}:about", f"{tag}:v", f"{tag}:r", f"{tag}:i"
        self.writes, self.hold, self.left = f"{tag}:w", f"{tag}:hold", f"{tag}:left"
        self.seq = f"{tag}:seq"  # of partition 0: the last number given to a write
        self.follows = f"{tag}:follows"  # of partition 0: the store that `reembed` fills this one from

    def script(self, text: str, *arguments: Any) -> Command:
        keys = (self.about, self.vectors, self.records, self.ids, self.writes, self.hold, self.left)
        return ("EVAL", text, len(keys), *keys, *arguments)


class Record(NamedTuple):
    seq: int
    text: str


@final
class RedisItems:
    """The items of one store. url: for messages. store: the id that each of its partitions holds."""

    def __init__(self, url: RedisUrl, link: RedisLink, store: str, partitions: int) -> None:
        self.url = url
        self.partitions = [Partition(url.index, number) for number in range(partitions)]
        self._link = link
        self._store = store
        self._is_closed = False

    def number_of(self, one: str) -> int:
        return zlib.crc32(one.encode()) % len(self.partitions)

    def of_all(self, commands: Any) -> list[list[Reply]]:  # (Partition) → list of commands
        return self.asked({part.about: commands(part) for part in self.partitions})

    def asked(self, calls: dict[str, list[Command]], *, last: Command | None = None) -> list[list[Reply]]:
        """Replies for each key in order; the partition is asked for beside: a lost one, or another store's, looks right."""
        if self._is_closed:
            raise WrongUse(f"{self.url.shown} was closed; open it again")
        replies = self._link.ask({about: [("GET", about), *commands] for about, commands in calls.items()}, last=last)
        for about in calls:
            if self._store not in decoded(replies[about][0] or b""):
                raise StoreDamaged(f"{self.url.shown} has lost {about}; restore the server from its backup, or index anew")
        return [replies[about][1:] for about in calls]

    def records_of(self, ids: Sequence[str]) -> dict[str, Record | None]:
        return {one: read_record(raw) for one, raw in self.raw_records(ids).items()}

    def raw_records(self, ids: Sequence[str]) -> dict[str, bytes | None]:
        return self.each(ids, lambda part, one: ("HGET", part.records, one))

    def each(self, ids: Sequence[str], command: Callable[[Partition, str], Command]) -> dict[str, Reply]:
        """What Redis answers to one command for each id."""
        by_partition: dict[int, list[str]] = {}
        for one in dict.fromkeys(ids):
            by_partition.setdefault(self.number_of(one), []).append(one)
        parts = [(self.partitions[number], some) for number, some in by_partition.items()]
        replies = self.asked({part.about: [command(part, one) for one in some] for part, some in parts})
        told = {one: reply for (_, some), of in zip(parts, replies, strict=True) for one, reply in zip(some, of, strict=True)}
        return {one: told[one] for one in ids}

    def vectors_of(self, ids: list[str]) -> Vectors:
        """(n, dim) of at least one id. Raises UnknownItem."""
        for _ in range(ATTEMPTS):
            records = self.records_of(ids)
            missing = [one for one in ids if records[one] is None]
            if missing:
                raise UnknownItem(f"no item has the id {missing[0]!r} ({len(missing)} of {len(ids)} ids are not in the store)")
            rows = self.rows({one: record.seq for one, record in records.items() if record is not None})
            there = {one: row for one, row in rows.items() if row is not None}
            if len(there) == len(rows):
                return np.stack([there[one] for one in ids])
        raise CannotBeDone(f"{self.url.shown} changed under each of {ATTEMPTS} attempts to read it; try again")

    def rows(self, seqs: dict[str, int]) -> dict[str, Vectors | None]:
        """The vector of each id at that number, None where it was replaced since: (dim,) each."""
        found = self.each(list(seqs), lambda part, one: ("VEMB", part.vectors, f"{seqs[one]}:{one}", "RAW"))
        return {one: read_vector(reply) for one, reply in found.items()}

    def pages(self, part: Partition) -> Iterator[list[str]]:
        """The ids of a partition, by name; one that is there throughout comes once."""
        after = "-"
        while True:
            (page,) = self.asked({part.about: [("ZRANGE", part.ids, after, "+", "BYLEX", "LIMIT", 0, _PAGE)]})[0]
            if not page:
                return
            ids = [decoded(one) for one in page]
            yield ids
            after = f"({ids[-1]}"

    def close(self) -> None:
        self._is_closed = True
        self._link.close()


def read_record(reply: bytes | None) -> Record | None:
    if reply is None:
        return None
    seq, separator, text = decoded(reply).partition("\n")
    if not separator or not seq.isdigit():
        raise StoreDamaged(f"a record in Redis is not binsight's: {reply[:80]!r}")
    return Record(int(seq), text)


def read_vector(reply: Reply) -> Vectors | None:
    """(dim,) of what VEMB RAW answers: kind, bytes, length, and for int8 the range."""
    if reply is None:
        return None
    kind, data, length = decoded(reply[0]), reply[1], float(reply[2])
    if kind == "int8":
        return np.frombuffer(data, np.int8).astype(np.float32) * np.float32(float(reply[3]) / 127) * np.float32(length)
    return np.frombuffer(data, "<f4").astype(np.float32) * np.float32(length)


def decoded(text: bytes | str) -> str:
    try:
        return text if isinstance(text, str) else text.decode()
    except UnicodeDecodeError as error:
        raise StoreDamaged(f"Redis holds what is no text: {text[:40]!r}") from error
