"""The shared store: items in the vector sets of Redis 8.

Each partition is a hash tag with seven keys: `about` says what the store is; `v` is the vector set, whose elements are named
`SEQ:ID`; `r` is a hash from id to `SEQ\nMETADATA`; `i` is a sorted set of the ids, by name, since a vector set cannot be
enumerated; `w` counts writes; `hold`, where it is there, says why there may be none, and `left`, which aliases may have left
the store. One script writes them all at once. SEQ, a number that every write gets anew, ties a vector to its record: what a
search finds counts only if the record still has that number, so no answer mixes two versions of an item. It also makes a write
that is sent twice count once, and of two writes of one id the later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import final

import numpy as np

from binsight.errors import BadSettings, CannotBeDone, NotAStore, StoreReadOnly
from binsight.filters import Filter, as_filter
from binsight.records import Item, Match, Metadata, StoreInfo
from binsight.store import redis_about, redis_alias, redis_check
from binsight.store.base import Batch, VectorStore, VerifyReport, metadata_object
from binsight.store.redis_items import RedisItems, decoded
from binsight.store.redis_link import RedisLink
from binsight.store.redis_search import RedisSearch
from binsight.store.redis_url import RedisUrl
from binsight.store.redis_writing import RedisWriter
from binsight.vectors import Vectors


@final
class RedisStore(VectorStore):
    """Items in one index of a Redis server or cluster; any number of processes read and write it at once."""

    def __init__(self, url: RedisUrl, link: RedisLink, about: Metadata, *, read_only: bool) -> None:
        self._url, self._read_only, self._about = url, read_only, about
        self._version, self._kept = link.check_server()
        is_kept = self._kept not in ("none", "no")
        self._durability = url.durability or ("aof" if is_kept else "none")
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
        self._items = RedisItems(url, link, about["store"], about["partitions"])
        self._search = RedisSearch(self._items)
        self._writer = RedisWriter(
            self._items,
            about["store"],
            lambda alias: redis_alias.read(replace(url, index=alias), link),
            is_quantized=about["quantization"] != "none",
            is_durable=self._durability == "aof",
        )

    @classmethod
    def open(cls, url: RedisUrl, create: StoreInfo | None, *, read_only: bool) -> RedisStore:
        """The store of a URL, or the one that its alias names; made, when it is not there, for the model of `create`.

        Raises NotAStore, StoreDamaged when partitions are missing, StoreUnavailable, CannotBeDone for a server without vector
        sets or with less durability than asked for.
        """
        link = RedisLink(url)
        try:
            link.check_server()
            about = redis_about.read(url, link)
            if about is None and (behind := redis_alias.read(url, link)) is not None:
                url = replace(url, index=behind, alias=url.index)
                about = redis_about.read(url, link)
                if about is None:
                    raise NotAStore(f"{url.place}?index={url.alias} is an alias of {behind}, which is not there")
            if about is None and create is not None and not read_only:
                about = redis_about.make(url, link, create)
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
            "id": about["store"],
            "index": self._url.index,
            "server": self._version,
            "partitions": about["partitions"],
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
        return sum(int(one[0]) for one in self._items.of_all(lambda part: [("ZCARD", part.ids)]))

    # ---- writing

    def _upsert(self, batch: Batch) -> None:
        """A batch of which a part was refused is there in part; sent again, it ends as if it had been sent once."""
        self._check_writable()
        self._writer.upsert(batch)

    def _delete(self, ids: list[str]) -> int:
        """How many were there, as the server says; of a call whose first answer was lost, as it says to the second."""
        self._check_writable()
        return self._writer.delete(ids)

    def hold_writes(self, why: str, *, for_s: float, but_mine: bool = False, leaving: str = "", joining: str = "") -> None:
        self._check_writable()
        self._writer.hold(why, for_s, but_mine=but_mine, leaving=leaving, joining=joining)

    def release_writes(self) -> None:
        self._check_writable()
        self._writer.release()

    @property
    def follows(self) -> str:
        first = self._items.partitions[0]
        return decoded(self._items.asked({first.about: [("GET", first.follows)]})[0][0] or b"")

    def follow(self, store_id: str) -> None:
        self._check_writable()
        self._writer.follow(store_id)

    # ---- reading

    def _query(self, queries: Vectors, k: int, where: Filter | None) -> list[list[Match]]:
        return self._search.query(queries, k, where)

    def _get(self, ids: list[str]) -> list[Item | None]:
        found = self._items.records_of(ids)
        return [None if (record := found[one]) is None else Item(one, metadata_object(record.text)) for one in ids]

    def _vectors_of(self, ids: list[str]) -> Vectors:
        return self._items.vectors_of(ids) if ids else np.empty((0, self.dim), np.float32)

    def scan(self, where: Filter | str | None = None) -> Iterator[Item]:
        found = as_filter(where)
        for part in self._items.partitions:
            for ids in self._items.pages(part):
                for item in self._get(ids):
                    if item is not None and (found is None or found.matches(item.metadata)):
                        yield item

    # ---- looking after it

    def verify(self) -> VerifyReport:
        """Compare ids, records, vectors and attributes of every item. What differs is told if its version stayed the same."""
        return redis_check.verify(self._items, self.dim)

    def compact(self) -> None:
        """Nothing to do: the server gives back the room of what is replaced and deleted by itself."""
        self._check_writable()
        self._items.asked({self._items.partitions[0].about: []})

    def close(self) -> None:
        self._items.close()

    def _check_writable(self) -> None:
        if self._read_only:
            raise StoreReadOnly(f"{self._url.shown} was opened with read_only=True; open it for writing")
