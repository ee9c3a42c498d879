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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, final
from uuid import uuid4

import numpy as np

from binsight.errors import (
    BadSettings,
    CannotBeDone,
    NotAStore,
    StoreDamaged,
    StoreReadOnly,
    StoreWriteFailed,
    UnknownItem,
    WrongUse,
)
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
_DURABLE_SHARE = 0.8  # of the time for an answer: how long a write may take to the disk

_OURS = """
local about = redis.call('GET', KEYS[1])
if not about or not string.find(about, ARGV[1], 1, true) then return redis.error_reply('NOSTORE') end
"""
_WRITE = (
    _OURS
    + """
local newest = 0
for at = 3, #ARGV, 5 do
  local seq, id, vector, attributes, record = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local old = redis.call('HGET', KEYS[3], id)
  local old_seq = old and string.match(old, '^%d+')
  local number = old_seq and tonumber(old_seq) or 0
  if number > tonumber(seq) then newest = math.max(newest, number) end
  if number < tonumber(seq) or (number == tonumber(seq) and old ~= record) then
    if old_seq then redis.call('VREM', KEYS[2], old_seq .. ':' .. id) end
    redis.call('VADD', KEYS[2], 'FP32', vector, seq .. ':' .. id, ARGV[2], 'SETATTR', attributes)
    redis.call('HSET', KEYS[3], id, record)
    redis.call('ZADD', KEYS[4], 0, id)
  end
end
redis.call('INCR', KEYS[5])
return newest
"""
)
_DELETE = (
    _OURS
    + """
local count = 0
for at = 2, #ARGV do
  local id = ARGV[at]
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
)
_RAISE = (
    "if tonumber(redis.call('GET', KEYS[1]) or '0') < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end return 1"
)


class _Hit(NamedTuple):
    score: float
    seq: int
    id: str
    partition: int

    @property
    def key(self) -> tuple[int, int, str]:
        """Which version of which item."""
        return self.partition, self.seq, self.id


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
        self._store: str = about["store"]
        self._partitions = [_Partition(url.index, number) for number in range(about["partitions"])]
        self._sizes = [0] * len(self._partitions)
        self._version, self._kept = link.check_server()
        is_kept = self._kept not in ("none", "no")
        self._durability = url.durability or ("aof" if is_kept else "none")
        self._is_closed = False
        if self._durability == "aof" and not is_kept:
            lacks = "keeps no append-only file" if self._kept == "none" else "never syncs its append-only file"
            raise CannotBeDone(
                f"{url.shown} {lacks}; start it with --appendonly yes --appendfsync always, or say &durability=none"
            )
        for name, asked, is_there in (
            ("quantization", url.quantization, about["quantization"]),
            ("partitions", url.partitions, about["partitions"]),
        ):
            if asked and asked != is_there:
                raise BadSettings(f"{url.shown} was made with {name}={is_there}, got {name}={asked}; leave it out of the URL")

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
        for _ in range(_ATTEMPTS):
            newest = self._written(batch)
            if not newest or newest <= self._last_number():
                return  # nothing newer was there, or another writer's, whose number came later
            counter = self._partitions[0]
            # The node of the counter was restored from an older state than the others.
            self._asked({counter.about: [("EVAL", _RAISE, 1, counter.seq, newest)]})
        raise CannotBeDone(f"{self._url.shown} gives numbers that are older than its records; restore it from one backup")

    def _last_number(self) -> int:
        counter = self._partitions[0]
        return int(self._asked({counter.about: [("GET", counter.seq)]})[0][0] or 0)

    def _written(self, batch: Batch) -> int:
        """The highest number of a record that was passed over because it is newer; 0 where none was."""
        counter = self._partitions[0]
        last = int(self._asked({counter.about: [("INCRBY", counter.seq, len(batch.ids))]})[0][0])
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
                self._partitions[number].script(_WRITE, self._store, mode, *of[start : start + step])
                for start in range(0, len(of), step)
            ]
            for number, of in arguments.items()
        }
        scripts = 0 if self._durability == "none" else 1  # its last reply is that of the wait
        return max(int(one) for of in self._durably(calls) for one in of[: len(of) - scripts])

    def _delete(self, ids: list[str]) -> int:
        """How many were there, as the server says; of a call whose first answer was lost, as it says to the second."""
        self._check_writable()
        by_partition: dict[int, list[str]] = {}
        for one in ids:
            by_partition.setdefault(self._number_of(one), []).append(one)
        calls = {
            number: [self._partitions[number].script(_DELETE, self._store, *some)] for number, some in by_partition.items()
        }
        return sum(int(replies[0]) for replies in self._durably(calls))

    def _durably(self, calls: dict[int, list[Command]]) -> list[list[Reply]]:
        """Done, and on the disk of each node if the store's writes are to be."""
        limit_ms = int(1000 * _DURABLE_SHARE * self._url.timeout_s)
        waits: Command | None = ("WAITAOF", 1, 0, limit_ms) if self._durability == "aof" else None
        replies = self._asked({self._partitions[number].about: commands for number, commands in calls.items()}, last=waits)
        if waits is not None and any(int(one[-1][0]) < 1 for one in replies):
            raise StoreWriteFailed(f"{self._url.shown} did not bring the write to its disk within {limit_ms / 1000:g} s")
        return replies

    # ---- reading

    def _query(self, queries: Vectors, k: int, where: Filter | None) -> list[list[Match]]:
        cases = expressions(where)
        asks = dict.fromkeys(range(len(queries)))
        searches = {row: _Search(k + 1) for row in asks}
        answers: dict[int, list[Match]] = {}
        known: dict[tuple[int, int, str], _Record] = {}
        for _ in range(_ATTEMPTS):
            for row, found in self._searched(queries, searches, k, where, cases, known).items():
                answers[row] = found
                del searches[row]
            if not searches:
                return [answers[row] for row in asks]
        raise CannotBeDone(f"{self._url.shown} changed under each of {_ATTEMPTS} attempts to read it; try again, or verify it")

    def _searched(
        self,
        queries: Vectors,
        searches: dict[int, _Search],
        k: int,
        where: Filter | None,
        cases: Sequence[str],
        known: dict[tuple[int, int, str], _Record],
    ) -> dict[int, list[Match]]:
        """The answers of those searches that came to an end; the others now ask for more. known: records, added to."""
        if not any(self._sizes):
            self._sizes = [int(one[0]) for one in self._of_all(lambda part: [("VCARD", part.vectors)])]
        lists = self._candidates(queries, searches, cases)
        if lists is None:
            return {}
        done: dict[int, list[_Hit]] = {}
        if where is not None:
            self._learn({hit.key for of in lists.values() for hits, _ in of for hit in hits}, known)
        answers: dict[int, list[Match]] = {}
        for row, of in lists.items():
            search = searches[row]
            hits = sorted({hit for found, _ in of for hit in found}, key=lambda hit: (-hit.score, hit.seq))
            if where is not None:
                if any(hit.key not in known for hit in hits):
                    continue  # replaced or deleted since: look again
                hits = [hit for hit in hits if where.matches(metadata_object(known[hit.key].text))]
            horizon = max((end for _, end in of), default=-np.inf)  # what no list holds scores no higher
            is_deep = search.count > max(_MOST_TIES, 4 * k)
            if horizon == -np.inf or (len(hits) >= k and (is_deep or hits[k - 1].score > horizon)):
                done[row] = hits[:k]
            else:
                search.is_exact = search.is_exact or where is not None or horizon == np.inf
                search.count = search.count if horizon == np.inf else 4 * search.count
        self._learn({hit.key for hits in done.values() for hit in hits}, known)
        for row, hits in done.items():
            if all(hit.key in known for hit in hits):
                answers[row] = [Match(Item(hit.id, metadata_object(known[hit.key].text)), hit.score) for hit in hits]
        return answers

    def _candidates(
        self, queries: Vectors, searches: dict[int, _Search], cases: Sequence[str]
    ) -> dict[int, list[tuple[list[_Hit], float]]] | None:
        """For each query, what each partition and expression gave, and the score that what it did not give cannot exceed.

        That is −∞ for a list that holds all there is, and ∞ for one of the graph that should have been longer. None where
        others wrote meanwhile: a search runs beside writes, and of an item that is replaced it may see neither version.
        """
        plan = [(row, case) for row in searches for case in cases]
        small = [size <= SMALL_ITEMS for size in self._sizes]
        replies = self._of_all(
            lambda part: [
                ("GET", part.writes),
                ("VCARD", part.vectors),
                ("ZCARD", part.ids),
                *(self._similar(part, queries[row], searches[row], case, is_small=small[part.number]) for row, case in plan),
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
        for number, (_, size, ids, *lists, _) in enumerate(replies):
            if int(ids) and not int(size):
                raise StoreDamaged(f"{self._url.shown} has lost {self._partitions[number].vectors}; restore it from a backup")
            self._sizes[number] = int(size)
            for (row, _), reply in zip(plan, lists, strict=True):
                search = searches[row]
                hits = [_hit(name, score, number) for name, score in _pairs(reply)]
                if len(hits) >= search.count:
                    end = min(hit.score for hit in hits)
                elif search.is_exact or small[number] or len(hits) >= int(size):
                    end = -np.inf
                else:
                    end = np.inf
                found[row].append((hits, end))
        return found

    @staticmethod
    def _similar(part: _Partition, query: Vectors, search: _Search, case: str, *, is_small: bool) -> Command:
        command: list[Any] = ["VSIM", part.vectors, "FP32", query.astype("<f4", copy=False).tobytes(), "WITHSCORES"]
        command += ["COUNT", search.count]
        if case != EVERYTHING:
            command += ["FILTER", case]
        if search.is_exact or is_small:
            command.append("TRUTH")
        else:
            command += ["EF", max(SEARCH_EFFORT, search.count)]
        if search.disturbed >= _UNDISTURBED:
            command.append("NOTHREAD")  # nothing else runs meanwhile
        return tuple(command)

    def _learn(self, keys: set[tuple[int, int, str]], known: dict[tuple[int, int, str], _Record]) -> None:
        """Read the records that are not known; one that was replaced or deleted since it was found stays unknown."""
        wanted: dict[int, list[tuple[int, int, str]]] = {}
        for key in keys - known.keys():
            wanted.setdefault(key[0], []).append(key)
        calls = {
            self._partitions[number].about: [("HMGET", self._partitions[number].records, *(one for _, _, one in some))]
            for number, some in wanted.items()
        }
        for some, replies in zip(wanted.values(), self._asked(calls), strict=True):
            for key, reply in zip(some, replies[0], strict=True):
                record = _record(reply)
                if record is not None and record.seq == key[1]:
                    known[key] = record

    def _get(self, ids: list[str]) -> list[Item | None]:
        found = self._records_of(ids)
        return [None if (record := found[one]) is None else Item(one, metadata_object(record.text)) for one in ids]

    def _records_of(self, ids: Sequence[str]) -> dict[str, _Record | None]:
        return {one: _record(raw) for one, raw in self._raw_records(ids).items()}

    def _raw_records(self, ids: Sequence[str]) -> dict[str, bytes | None]:
        return self._each(ids, lambda part, one: ("HGET", part.records, one))

    def _each(self, ids: Sequence[str], command: Callable[[_Partition, str], Command]) -> dict[str, Reply]:
        """What Redis answers to one command for each id."""
        by_partition: dict[int, list[str]] = {}
        for one in dict.fromkeys(ids):
            by_partition.setdefault(self._number_of(one), []).append(one)
        parts = [(self._partitions[number], some) for number, some in by_partition.items()]
        replies = self._asked({part.about: [command(part, one) for one in some] for part, some in parts})
        told = {one: reply for (_, some), of in zip(parts, replies, strict=True) for one, reply in zip(some, of, strict=True)}
        return {one: told[one] for one in ids}

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
        found = self._each(list(seqs), lambda part, one: ("VEMB", part.vectors, f"{seqs[one]}:{one}", "RAW"))
        return {one: _vector(reply) for one, reply in found.items()}

    def scan(self, where: Filter | str | None = None) -> Iterator[Item]:
        found = as_filter(where)
        for part in self._partitions:
            for ids in self._pages(part):
                for one, record in self._records_of(ids).items():
                    item = Item(one, metadata_object(record.text)) if record is not None else None
                    if item is not None and (found is None or found.matches(item.metadata)):
                        yield item

    def _pages(self, part: _Partition) -> Iterator[list[str]]:
        """The ids of a partition, by name; one that is there throughout comes once."""
        after = "-"
        while True:
            (page,) = self._asked({part.about: [("ZRANGE", part.ids, after, "+", "BYLEX", "LIMIT", 0, PAGE)]})[0]
            if not page:
                return
            ids = [_decoded(one) for one in page]
            yield ids
            after = f"({ids[-1]}"

    # ---- looking after it

    def verify(self) -> VerifyReport:
        """Compare ids, records, vectors and attributes of every item. What differs is told if its version stayed the same."""
        problems: list[str] = []
        read = 0
        for part in self._partitions:
            for ids in self._pages(part):
                read += len(ids)
                suspects = [one for one, why in self._differences(self._raw_records(ids)).items() if why]
                problems += self._confirmed(part, suspects)
            problems += self._miscounted(part)
        return VerifyReport(items=read, checked={"records": read, "vectors": read}, problems=problems)

    def _confirmed(self, part: _Partition, suspects: list[str]) -> list[str]:
        """What still differs of items whose version is the same before and after it was looked at; others may be writing."""
        before = self._raw_records(suspects)
        found = self._differences(before)
        after = self._raw_records(suspects)
        return [
            f"partition {part.number}: id {one!r} {found[one]}" for one in suspects if found[one] and before[one] == after[one]
        ]

    def _differences(self, raw: dict[str, bytes | None]) -> dict[str, str]:
        """What is wrong with each item of such a record, empty where nothing is."""
        found: dict[str, str] = {}
        records: dict[str, _Record] = {}
        for one, text in raw.items():
            found[one] = ""  # also of one that was deleted since; ids without a record are counted
            try:
                record = _record(text)
                if record is not None:
                    metadata_object(record.text)
                    records[one] = record
            except StoreDamaged as error:
                found[one] = f"has a record that cannot be read: {error}"
        rows = self._rows({one: record.seq for one, record in records.items()})
        told = self._each(list(records), lambda part, one: ("VGETATTR", part.vectors, f"{records[one].seq}:{one}"))
        for one, record in records.items():
            row = rows[one]
            if row is None:
                found[one] = "has no vector"
            elif row.shape != (self.dim,) or not np.isfinite(row).all() or abs(float(np.linalg.norm(row)) - 1) > 0.05:
                found[one] = f"has a vector that is no unit row of {self.dim}"
            elif told[one] != attributes(metadata_object(record.text)).encode():
                found[one] = "has attributes that are not its record's"
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
        self._asked({self._partitions[0].about: []})

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
        """Replies for each key in order; the partition is asked for beside: a lost one, or another store's, looks right."""
        if self._is_closed:
            raise WrongUse(f"{self._url.shown} was closed; open it again")
        replies = self._link.ask({about: [("GET", about), *commands] for about, commands in calls.items()}, last=last)
        for about in calls:
            if self._store not in _decoded(replies[about][0] or b""):
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
    """What the store says of itself; None where there is none, or one that is still being made."""
    first = _Partition(url.index, 0)
    text = link.ask({first.about: [("GET", first.about)]})[first.about][0]
    if text is None:
        return None
    about = _parsed(url, text)
    if about.get("making"):
        return None
    others = [_Partition(url.index, number).about for number in range(1, about["partitions"])]
    found = link.ask({name: [("GET", name)] for name in others})
    if lost := [name for name in others if about["store"] not in _decoded(found[name][0] or b"")]:
        raise StoreDamaged(
            f"{url.shown} has lost {lost[0]} ({len(lost)} of {about['partitions']} partitions); restore it from a backup"
        )
    return about


def _parsed(url: RedisUrl, text: bytes) -> Metadata:
    try:
        about: Metadata = json.loads(text)
        kinds = {"store": str, "partitions": int, "version": int, "dim": int, "quantization": str, "created": str}
        wrong = [name for name, kind in kinds.items() if not isinstance(about[name], kind)]
        is_ours = about["format"] == FORMAT and not wrong
    except (ValueError, KeyError, TypeError) as error:
        raise StoreDamaged(f"{url.shown} does not describe a store: {error}") from error
    if not is_ours or about["version"] != VERSION:
        raise StoreDamaged(f"{url.shown} is not of format {FORMAT} {VERSION}, which this version reads")
    return about


def _make(url: RedisUrl, link: RedisLink, create: StoreInfo) -> Metadata:
    """Partition 0 is written first, as being made, and again when all others are there. Of several makers, and after one that
    was killed, each brings to its end what is written in partition 0. Raises StoreDamaged over what is left of another store.
    """
    info = checked_info(create)
    first = _Partition(url.index, 0)
    about: Metadata = {
        "format": FORMAT,
        "version": VERSION,
        "store": uuid4().hex,
        "dim": info.dim,
        "fingerprint": info.fingerprint,
        "model": info.model,
        "metric": info.metric,
        "created": info.created or datetime.now(UTC).isoformat(timespec="seconds"),
        "quantization": url.quantization or "none",
        "partitions": url.partitions or (CLUSTER_PARTITIONS if url.is_cluster else 1),
    }
    is_new, text = _claimed(link, url, first, json.dumps(about | {"making": True}))
    made = about if is_new else _parsed(url, text)
    for number in range(1, made["partitions"]):
        mine = json.dumps({"store": made["store"], "partition": number, "of": made["partitions"]})
        part = _Partition(url.index, number)
        is_new, text = _claimed(link, url, part, mine)
        if not is_new and made["store"] not in _decoded(text):
            raise _remains(url, part)
    final = {name: value for name, value in made.items() if name != "making"}
    link.ask({first.about: [("SET", first.about, json.dumps(final), "XX")]})
    return final


def _claimed(link: RedisLink, url: RedisUrl, part: _Partition, about: str) -> tuple[bool, bytes]:
    """Whether a partition was free and is ours now, and what it says of itself. Raises StoreDamaged over another's data."""
    calls: list[Command] = [("EXISTS", part.records, part.vectors), ("SET", part.about, about, "NX"), ("GET", part.about)]
    left, was_set, text = link.ask({part.about: calls})[part.about]
    if was_set and int(left):
        link.ask({part.about: [("DEL", part.about)]})
        raise _remains(url, part)
    return bool(was_set), text or b""


def _remains(url: RedisUrl, part: _Partition) -> StoreDamaged:
    keys = part.about.removesuffix("about")
    return StoreDamaged(
        f"{url.shown} cannot be made over the remains of another store: restore that, or delete the keys {keys}*"
    )


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


def _vector(reply: Reply) -> Vectors | None:
    """(dim,) of what VEMB RAW answers: kind, bytes, length, and for int8 the range."""
    if reply is None:
        return None
    kind, data, length = _decoded(reply[0]), reply[1], float(reply[2])
    if kind == "int8":
        return np.frombuffer(data, np.int8).astype(np.float32) * np.float32(float(reply[3]) / 127) * np.float32(length)
    return np.frombuffer(data, "<f4").astype(np.float32) * np.float32(length)


def _decoded(text: bytes | str) -> str:
    try:
        return text if isinstance(text, str) else text.decode()
    except UnicodeDecodeError as error:
        raise StoreDamaged(f"Redis holds what is no text: {text[:40]!r}") from error
