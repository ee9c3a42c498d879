"""The shared store: items in the vector sets of Redis 8.

Each partition is a hash tag with five keys: `about` says what the store is; `v` is the vector set, whose elements are named
`SEQ:ID`; `r` is a hash from id to `SEQ\nMETADATA`; `i` is a sorted set of the ids, by name, since a vector set cannot be
enumerated; `w` counts writes. One script writes them all at once. SEQ, a number that every write gets anew, ties a vector to
its record: what a search finds counts only if the record still has that number, so no answer mixes two versions of an item.
It also makes a write that is sent twice count once, and of two writes of one id the later.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, final

import numpy as np

from binsight.errors import CannotBeDone, NotAStore, StoreDamaged, StoreReadOnly, StoreWriteFailed, UnknownItem, WrongUse
from binsight.filters import Filter, as_filter
from binsight.records import Item, Match, Metadata, StoreInfo
from binsight.store.base import Batch, VectorStore, VerifyReport, checked_info, metadata_object
from binsight.store.redis_filter import EVERYTHING, attributes, expressions
from binsight.store.redis_link import Command, RedisLink, Reply
from binsight.store.redis_url import RedisUrl
from binsight.vectors import Vectors

FORMAT, VERSION = "binsight-redis", 1
CLUSTER_PARTITIONS = 6
SMALL_ITEMS = 1000  # of a partition: so few are compared one by one, which takes no longer
SEARCH_EFFORT = 200  # candidates that a search of the graph keeps (EF), at least
WRITE_TOGETHER = 16  # items a script writes, while which the server does nothing else
PAGE = 500
_MOST_TIES = 4096  # candidates looked through for an order among equal scores
_ATTEMPTS = 20
_UNDISTURBED = 2  # so many searches that others disturbed; the next one has the server for itself
_DURABLE_MS = 30_000

_WRITE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return redis.error_reply('NOSTORE') end
for at = 2, #ARGV, 5 do
  local seq, id, vector, attributes, record = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local old = redis.call('HGET', KEYS[3], id)
  local old_seq = old and string.match(old, '^%d+')
  if not old_seq or tonumber(old_seq) < tonumber(seq) then
    if old_seq then redis.call('VREM', KEYS[2], old_seq .. ':' .. id) end
    redis.call('VADD', KEYS[2], 'FP32', vector, seq .. ':' .. id, ARGV[1], 'SETATTR', attributes)
    redis.call('HSET', KEYS[3], id, record)
    redis.call('ZADD', KEYS[4], 0, id)
  end
end
redis.call('INCR', KEYS[5])
return 1
"""
_DELETE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return redis.error_reply('NOSTORE') end
local count = 0
for _, id in ipairs(ARGV) do
  local old = redis.call('HGET', KEYS[3], id)
  if old then
    redis.call('VREM', KEYS[2], string.match(old, '^%d+') .. ':' .. id)
    redis.call('HDEL', KEYS[3], id)
    redis.call('ZREM', KEYS[4], id)
    count = count + 1
  end
end
redis.call('INCR', KEYS[5])
return count
"""


class _Hit(NamedTuple):
    score: float
    seq: int
    id: str
    partition: int


@dataclass(slots=True)
class _Search:
    """What is asked for one query: `count` candidates of each partition and expression, exactly or by the graph."""

    count: int
    is_exact: bool = False
    disturbed: int = 0  # how often others wrote meanwhile


class _Record(NamedTuple):
    seq: int
    text: str


@final
class RedisStore(VectorStore):
    """Items in one index of a Redis server or cluster; any number of processes read and write it at once."""

    def __init__(self, url: RedisUrl, link: RedisLink, about: Metadata, *, read_only: bool) -> None:
        self._url, self._link, self._read_only = url, link, read_only
        self._about = about
        self._partitions = [_Partition(url.index, number) for number in range(about["partitions"])]
        self._sizes = [0] * len(self._partitions)
        self._version, self._kept = link.check_server()
        self._durability = url.durability or ("none" if self._kept == "none" else "aof")
        self._is_closed = False
        if self._durability == "aof" and self._kept == "none":
            raise CannotBeDone(
                f"{url.shown} keeps no append-only file; start it with --appendonly yes, or say &durability=none"
            )

    @classmethod
    def open(cls, url: RedisUrl, create: StoreInfo | None, *, read_only: bool) -> RedisStore:
        """The store of a URL; made, when it is not there, for the model of `create`.

        Raises NotAStore, StoreDamaged when partitions are missing, StoreUnavailable, CannotBeDone for a server without vector
        sets or with less durability than asked for.
        """
        link = RedisLink(url)
        try:
            link.check_server()
            about = _read_about(url, link)
            if about is None and create is not None and not read_only:
                about = _make(url, link, create)
            if about is None:
                raise NotAStore(f"{url.shown} holds no store; `binsight index` makes one")
            return cls(url, link, about, read_only=read_only)
        except BaseException:
            link.close()
            raise

    # ---- what it is

    @property
    def info(self) -> StoreInfo:
        about = self._about
        detail: Metadata = {
            "kind": "redis",
            "server": self._version,
            "partitions": len(self._partitions),
            "quantization": about["quantization"],
            "exact_vectors": about["quantization"] == "none",
            "durability": self._durability,
            "appendfsync": self._kept,
        }
        if self._durability == "none":
            detail["warning"] = "an acknowledged write may be lost when the server ends"
        return StoreInfo(
            about["dim"], about["fingerprint"], about["model"], about["metric"], len(self), about["created"], detail
        )

    @property
    def dim(self) -> int:
        return int(self._about["dim"])

    def __len__(self) -> int:
        return sum(int(one[0]) for one in self._of_all(lambda part: [("ZCARD", part.ids)]))

    # ---- writing

    def _upsert(self, batch: Batch) -> None:
        """A batch of which a part was refused is there in part; sent again, it ends as if it had been sent once."""
        self._check_writable()
        last = int(self._asked({self._partitions[0].about: [("INCRBY", self._partitions[0].seq, len(batch.ids))]})[0][0])
        mode = "NOQUANT" if self._about["quantization"] == "none" else "Q8"
        arguments: dict[int, list[Any]] = {}
        for place, (one, text) in enumerate(zip(batch.ids, batch.metadata, strict=True)):
            seq = last - len(batch.ids) + 1 + place
            row = batch.vectors[place].astype("<f4", copy=False).tobytes()
            record = f"{seq}\n{text}"
            arguments.setdefault(self._number_of(one), []).extend([seq, one, row, attributes(metadata_object(text)), record])
        step = 5 * WRITE_TOGETHER
        calls = {
            number: [
                self._partitions[number].script(_WRITE, mode, *of[start : start + step]) for start in range(0, len(of), step)
            ]
            for number, of in arguments.items()
        }
        self._durably(calls)

    def _delete(self, ids: list[str]) -> int:
        """How many were there, as the server says; of a call whose first answer was lost, as it says to the second."""
        self._check_writable()
        by_partition: dict[int, list[str]] = {}
        for one in ids:
            by_partition.setdefault(self._number_of(one), []).append(one)
        calls = {number: [self._partitions[number].script(_DELETE, *some)] for number, some in by_partition.items()}
        return sum(int(replies[0]) for replies in self._durably(calls))

    def _durably(self, calls: dict[int, list[Command]]) -> list[list[Reply]]:
        """Done, and on the disk of each node if the store's writes are to be."""
        waits: Command | None = ("WAITAOF", 1, 0, _DURABLE_MS) if self._durability == "aof" else None
        replies = self._asked({self._partitions[number].about: commands for number, commands in calls.items()}, last=waits)
        if waits is not None and any(int(one[-1][0]) < 1 for one in replies):
            raise StoreWriteFailed(f"{self._url.shown} did not bring the write to its disk within {_DURABLE_MS // 1000} s")
        return replies

    # ---- reading

    def _query(self, queries: Vectors, k: int, where: Filter | None) -> list[list[Match]]:
        cases = expressions(where)
        asks = dict.fromkeys(range(len(queries)))
        searches = {row: _Search(k + 1) for row in asks}
        answers: dict[int, list[Match]] = {}
        for _ in range(_ATTEMPTS):
            for row, found in self._searched(queries, searches, k, where, cases).items():
                answers[row] = found
                del searches[row]
            if not searches:
                return [answers[row] for row in asks]
        raise CannotBeDone(f"{self._url.shown} changed under each of {_ATTEMPTS} attempts to read it; try again")

    def _searched(
        self, queries: Vectors, searches: dict[int, _Search], k: int, where: Filter | None, cases: Sequence[str]
    ) -> dict[int, list[Match]]:
        """The answers of those searches that came to an end; the others now ask for more."""
        if not any(self._sizes):
            self._sizes = [int(one[0]) for one in self._of_all(lambda part: [("VCARD", part.vectors)])]
        lists = self._candidates(queries, searches, cases)
        if lists is None:
            return {}
        done: dict[int, list[_Hit]] = {}
        records = self._records({hit for of in lists.values() for hits, _ in of for hit in hits}) if where is not None else None
        answers: dict[int, list[Match]] = {}
        for row, of in lists.items():
            search = searches[row]
            hits = sorted({hit for found, _ in of for hit in found}, key=lambda hit: (-hit.score, hit.seq))
            if records is not None and where is not None:
                if any(records[hit] is None for hit in hits):
                    continue  # replaced or deleted since: look again
                hits = [hit for hit in hits if where.matches(metadata_object(_text(records[hit])))]
            horizon = max((end for _, end in of), default=-np.inf)  # what no list holds scores no higher
            is_deep = search.count > max(_MOST_TIES, 4 * k)
            if horizon == -np.inf or (len(hits) >= k and (is_deep or hits[k - 1].score > horizon)):
                done[row] = hits[:k]
            else:
                search.is_exact = search.is_exact or where is not None or horizon == np.inf
                search.count = search.count if horizon == np.inf else 4 * search.count
        if records is None:
            records = self._records({hit for hits in done.values() for hit in hits})
        for row, hits in done.items():
            texts = [records[hit] for hit in hits]
            if None not in texts:
                answers[row] = [
                    Match(Item(hit.id, metadata_object(_text(text))), hit.score) for hit, text in zip(hits, texts, strict=True)
                ]
        return answers

    def _candidates(
        self, queries: Vectors, searches: dict[int, _Search], cases: Sequence[str]
    ) -> dict[int, list[tuple[list[_Hit], float]]] | None:
        """For each query, what each partition and expression gave, and the score that what it did not give cannot exceed.

        That is −∞ for a list that holds all there is, and ∞ for one of the graph that should have been longer. None where
        others wrote meanwhile: a search runs beside writes, and of an item that is replaced it may see neither version.
        """
        plan = [(row, case) for row in searches for case in cases]
        replies = self._of_all(
            lambda part: [
                ("GET", part.writes),
                ("VCARD", part.vectors),
                *(self._similar(part, queries[row], searches[row], case) for row, case in plan),
                ("GET", part.writes),
            ]
        )
        if any(before != after for before, *_, after in replies) and not all(
            s.disturbed >= _UNDISTURBED for s in searches.values()
        ):
            for search in searches.values():
                search.disturbed += 1
            return None
        found: dict[int, list[tuple[list[_Hit], float]]] = {row: [] for row in searches}
        for number, (_, size, *lists, _) in enumerate(replies):
            was_small = self._is_small(number)
            self._sizes[number] = int(size)
            for (row, _), reply in zip(plan, lists, strict=True):
                search = searches[row]
                hits = [_hit(name, score, number) for name, score in _pairs(reply)]
                if len(hits) >= search.count:
                    end = min(hit.score for hit in hits)
                elif search.is_exact or was_small or len(hits) >= int(size):
                    end = -np.inf
                else:
                    end = np.inf if len(hits) < min(search.count, int(size)) else -np.inf
                found[row].append((hits, end))
        return found

    def _is_small(self, number: int) -> bool:
        return self._sizes[number] <= SMALL_ITEMS

    def _similar(self, part: _Partition, query: Vectors, search: _Search, case: str) -> Command:
        command: list[Any] = ["VSIM", part.vectors, "FP32", query.astype("<f4", copy=False).tobytes(), "WITHSCORES"]
        command += ["COUNT", search.count]
        if case != EVERYTHING:
            command += ["FILTER", case]
        if search.is_exact or self._is_small(part.number):
            command.append("TRUTH")
        else:
            command += ["EF", max(SEARCH_EFFORT, search.count)]
        if search.disturbed >= _UNDISTURBED:
            command.append("NOTHREAD")  # nothing else runs meanwhile
        return tuple(command)

    def _records(self, hits: set[_Hit]) -> dict[_Hit, _Record | None]:
        """The record of each hit, None where the item was replaced or deleted since it was found."""
        wanted: dict[int, list[_Hit]] = {}
        for hit in hits:
            wanted.setdefault(hit.partition, []).append(hit)
        calls = {
            self._partitions[number].about: [("HMGET", self._partitions[number].records, *(hit.id for hit in some))]
            for number, some in wanted.items()
        }
        found: dict[_Hit, _Record | None] = {}
        for some, replies in zip(wanted.values(), self._asked(calls), strict=True):
            for hit, reply in zip(some, replies[0], strict=True):
                record = _record(reply)
                found[hit] = record if record is not None and record.seq == hit.seq else None
        return found

    def _get(self, ids: list[str]) -> list[Item | None]:
        found = self._records_of(ids)
        return [None if (record := found[one]) is None else Item(one, metadata_object(record.text)) for one in ids]

    def _records_of(self, ids: Sequence[str]) -> dict[str, _Record | None]:
        by_partition: dict[int, list[str]] = {}
        for one in dict.fromkeys(ids):
            by_partition.setdefault(self._number_of(one), []).append(one)
        calls = {
            self._partitions[number].about: [("HMGET", self._partitions[number].records, *some)]
            for number, some in by_partition.items()
        }
        replies = self._asked(calls)
        pairs = zip(by_partition.values(), replies, strict=True)
        return {one: _record(record) for some, reply in pairs for one, record in zip(some, reply[0], strict=True)}

    def _vectors_of(self, ids: list[str]) -> Vectors:
        for _ in range(_ATTEMPTS):
            records = self._records_of(ids)
            missing = [one for one in ids if records[one] is None]
            if missing:
                raise UnknownItem(f"no item has the id {missing[0]!r} ({len(missing)} of {len(ids)} ids are not in the store)")
            rows = self._rows({one: record.seq for one, record in records.items() if record is not None})
            there = {one: row for one, row in rows.items() if row is not None}
            if len(there) == len(rows):
                return np.stack([there[one] for one in ids]) if ids else np.empty((0, self.dim), np.float32)
        raise CannotBeDone(f"{self._url.shown} changed under each of {_ATTEMPTS} attempts to read it; try again")

    def _rows(self, seqs: dict[str, int]) -> dict[str, Vectors | None]:
        """The vector of each id at that number, None where it was replaced since: (dim,) each."""
        by_partition: dict[int, list[str]] = {}
        for one in seqs:
            by_partition.setdefault(self._number_of(one), []).append(one)
        calls = {
            self._partitions[number].about: [
                ("VEMB", self._partitions[number].vectors, f"{seqs[one]}:{one}", "RAW") for one in some
            ]
            for number, some in by_partition.items()
        }
        pairs = zip(by_partition.values(), self._asked(calls), strict=True)
        return {one: _vector(reply) for some, replies in pairs for one, reply in zip(some, replies, strict=True)}

    def scan(self, where: Filter | str | None = None) -> Iterator[Item]:
        found = as_filter(where)
        for part in self._partitions:
            for one, record in self._walk(part):
                item = Item(one, metadata_object(record.text))
                if found is None or found.matches(item.metadata):
                    yield item

    def _walk(self, part: _Partition) -> Iterator[tuple[str, _Record]]:
        """Id and record of every item of a partition, by id; one that is there throughout comes once."""
        after = "-"
        while True:
            (page,) = self._asked({part.about: [("ZRANGE", part.ids, after, "+", "BYLEX", "LIMIT", 0, PAGE)]})[0]
            if not page:
                return
            ids = [_decoded(one) for one in page]
            found = self._records_of(ids)
            yield from ((one, record) for one in ids if (record := found[one]) is not None)
            after = f"({ids[-1]}"

    # ---- looking after it

    def verify(self) -> VerifyReport:
        """Compare ids, records, vectors and attributes of every item; what differs is looked at twice: others may write."""
        problems: list[str] = []
        read = 0
        for part in self._partitions:
            suspects: list[str] = []
            for page in _paged(self._walk(part)):
                read += len(page)
                suspects += self._differing(dict(page))
            again = {one: record for one, record in self._records_of(suspects).items() if record is not None}
            problems += [
                f"partition {part.number}: id {one!r} {self._difference(one, again[one])}" for one in self._differing(again)
            ]
            problems += self._miscounted(part)
        return VerifyReport(items=read, checked={"records": read, "vectors": read}, problems=problems)

    def _differing(self, records: dict[str, _Record]) -> list[str]:
        return [one for one, why in self._differences(records).items() if why]

    def _difference(self, one: str, record: _Record) -> str:
        return self._differences({one: record})[one] or "differed while it was read"

    def _differences(self, records: dict[str, _Record]) -> dict[str, str]:
        rows = self._rows({one: record.seq for one, record in records.items()})
        calls: dict[str, list[Command]] = {}
        order: dict[str, list[str]] = {}
        for one, record in records.items():
            part = self._partitions[self._number_of(one)]
            calls.setdefault(part.about, []).append(("VGETATTR", part.vectors, f"{record.seq}:{one}"))
            order.setdefault(part.about, []).append(one)
        told = {
            one: reply
            for (about, ids), replies in zip(order.items(), self._asked(calls), strict=True)
            for one, reply in zip(ids, replies, strict=True)
        }
        found: dict[str, str] = {}
        for one, record in records.items():
            row = rows[one]
            try:
                wanted = attributes(metadata_object(record.text))
            except StoreDamaged as error:
                found[one] = f"has a record that cannot be read: {error}"
                continue
            if row is None:
                found[one] = "has no vector"
            elif row.shape != (self.dim,) or not np.isfinite(row).all() or abs(float(np.linalg.norm(row)) - 1) > 0.05:
                found[one] = f"has a vector that is no unit row of {self.dim}"
            elif told[one] is None or _decoded(told[one]) != wanted:
                found[one] = "has attributes that are not its record's"
            else:
                found[one] = ""
        return found

    def _miscounted(self, part: _Partition) -> list[str]:
        for _ in range(3):
            replies = self._asked({part.about: [("EVAL", _COUNT, 3, part.vectors, part.records, part.ids)]})[0][0]
            vectors, records, ids = (int(one) for one in replies)
            if vectors == records == ids:
                return []
        return [f"partition {part.number}: {ids} ids, {records} records and {vectors} vectors"]

    def compact(self) -> None:
        """Nothing to do: the server gives back the room of what is replaced and deleted by itself."""
        self._check_writable()

    def close(self) -> None:
        self._is_closed = True
        self._link.close()

    # ---- help

    def _check_writable(self) -> None:
        if self._read_only:
            raise StoreReadOnly(f"{self._url.shown} was opened with read_only=True; open it for writing")

    def _number_of(self, one: str) -> int:
        return zlib.crc32(one.encode()) % len(self._partitions)

    def _of_all(self, commands: Any) -> list[list[Reply]]:  # (_Partition) → list of commands
        return self._asked({part.about: commands(part) for part in self._partitions})

    def _asked(self, calls: dict[str, list[Command]], *, last: Command | None = None) -> list[list[Reply]]:
        """Replies for each key in order; the store's own key is looked for beside, since a lost partition looks empty."""
        if self._is_closed:
            raise WrongUse(f"{self._url.shown} was closed; open it again")
        replies = self._link.ask({about: [("EXISTS", about), *commands] for about, commands in calls.items()}, last=last)
        for about in calls:
            if not int(replies[about][0]):
                raise StoreDamaged(f"{self._url.shown} has lost {about}; restore the server from its backup, or index anew")
        return [replies[about][1:] for about in calls]


_COUNT = "return {redis.call('VCARD', KEYS[1]), redis.call('HLEN', KEYS[2]), redis.call('ZCARD', KEYS[3])}"


@final
class _Partition:
    """The names of a partition's keys."""

    def __init__(self, index: str, number: int) -> None:
        tag = f"binsight:{{{index}:{number}}}"
        self.number = number
        self.about, self.vectors, self.records, self.ids = f"{tag}:about", f"{tag}:v", f"{tag}:r", f"{tag}:i"
        self.writes = f"{tag}:w"
        self.seq = f"{tag}:seq"  # of partition 0: the last number given to a write

    def script(self, text: str, *arguments: Any) -> Command:
        return ("EVAL", text, 5, self.about, self.vectors, self.records, self.ids, self.writes, *arguments)


def _read_about(url: RedisUrl, link: RedisLink) -> Metadata | None:
    first = _Partition(url.index, 0)
    text = link.ask({first.about: [("GET", first.about)]})[first.about][0]
    if text is None:
        return None
    try:
        about: Metadata = json.loads(text)
        is_ours = about["format"] == FORMAT
        partitions, version = int(about["partitions"]), int(about["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreDamaged(f"{url.shown}: {first.about} does not describe a store: {error}") from error
    if not is_ours or version != VERSION:
        raise StoreDamaged(f"{url.shown} is of format {about.get('format')} {version}; this version reads {FORMAT} {VERSION}")
    others = [_Partition(url.index, number).about for number in range(1, partitions)]
    found = link.ask({name: [("EXISTS", name)] for name in others})
    if lost := [name for name in others if not int(found[name][0])]:
        raise StoreDamaged(f"{url.shown} has lost {lost[0]} ({len(lost)} of {partitions} partitions); restore it from a backup")
    return about


def _make(url: RedisUrl, link: RedisLink, create: StoreInfo) -> Metadata:
    """Partition 0 is written last: only then is the store there. Of two makers at once, the first one's counts."""
    info = checked_info(create)
    count = url.partitions or (CLUSTER_PARTITIONS if url.is_cluster else 1)
    about: Metadata = {
        "format": FORMAT,
        "version": VERSION,
        "dim": info.dim,
        "fingerprint": info.fingerprint,
        "model": info.model,
        "metric": info.metric,
        "created": info.created or datetime.now(UTC).isoformat(timespec="seconds"),
        "quantization": url.quantization or "none",
        "partitions": count,
    }
    for number in (*range(1, count), 0):
        name = _Partition(url.index, number).about
        text = json.dumps(about) if number == 0 else json.dumps({"partition": number, "of": count})
        link.ask({name: [("SET", name, text, "NX")]})
    found = _read_about(url, link)
    if found is None:
        raise CannotBeDone(f"{url.shown} was taken away while it was being made; try again")
    return found


def _hit(name: bytes | str, score: Any, partition: int) -> _Hit:
    seq, _, one = _decoded(name).partition(":")
    return _Hit(2 * float(score) - 1, int(seq), one, partition)  # Redis scores (1 + cosine) / 2


def _pairs(reply: Reply) -> list[tuple[Any, Any]]:
    """Names and scores, which come as a mapping or one after the other."""
    if isinstance(reply, dict):
        return list(reply.items())
    return list(zip(reply[::2], reply[1::2], strict=True))


def _record(reply: bytes | None) -> _Record | None:
    if reply is None:
        return None
    seq, separator, text = _decoded(reply).partition("\n")
    if not separator or not seq.isdigit():
        raise StoreDamaged(f"a record in Redis is not binsight's: {reply[:80]!r}")
    return _Record(int(seq), text)


def _text(record: _Record | None) -> str:
    assert record is not None
    return record.text


def _vector(reply: Reply) -> Vectors | None:
    """(dim,) of what VEMB RAW answers: kind, bytes, length, and for int8 the range."""
    if reply is None:
        return None
    kind, data, length = _decoded(reply[0]), reply[1], float(reply[2])
    if kind == "int8":
        return np.frombuffer(data, np.int8).astype(np.float32) * np.float32(float(reply[3]) / 127) * np.float32(length)
    return np.frombuffer(data, "<f4").astype(np.float32) * np.float32(length)


def _decoded(text: bytes | str) -> str:
    return text if isinstance(text, str) else text.decode()


def _paged(items: Iterator[tuple[str, _Record]]) -> Iterator[list[tuple[str, _Record]]]:
    page: list[tuple[str, _Record]] = []
    for one in items:
        page.append(one)
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page
