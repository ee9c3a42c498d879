"""Search in the vector sets of a shared store: right answers from a graph, filters and other people's writes meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np

from binsight.errors import CannotBeDone, StoreDamaged
from binsight.filters import Filter
from binsight.records import Item, Match
from binsight.store.base import metadata_object
from binsight.store.redis_filter import EVERYTHING, expressions
from binsight.store.redis_items import ATTEMPTS, Partition, Record, RedisItems, decoded, read_record
from binsight.store.redis_link import Command, Reply
from binsight.vectors import Vectors

SMALL_ITEMS = 1000  # of a partition: so few are compared one by one, which takes no longer
SEARCH_EFFORT = 200  # candidates that a search of the graph keeps (EF), at least
_MOST_TIES = 4096  # candidates looked through for an order among equal scores
_UNDISTURBED = 2  # so many searches that others disturbed; the next one has the server for itself


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


@final
class RedisSearch:
    """Searches among the items of one store. Safe to use from several threads."""

    def __init__(self, items: RedisItems) -> None:
        self._items = items
        self._sizes = [0] * len(items.partitions)

    def query(self, queries: Vectors, k: int, where: Filter | None) -> list[list[Match]]:
        cases = expressions(where)
        asks = dict.fromkeys(range(len(queries)))
        searches = {row: _Search(k + 1) for row in asks}
        answers: dict[int, list[Match]] = {}
        known: dict[tuple[int, int, str], Record] = {}
        for _ in range(ATTEMPTS):
            for row, found in self._searched(queries, searches, k, where, cases, known).items():
                answers[row] = found
                del searches[row]
            if not searches:
                return [answers[row] for row in asks]
        raise CannotBeDone(
            f"{self._items.url.shown} changed under each of {ATTEMPTS} attempts to read it; try again, or verify it"
        )

    def _searched(
        self,
        queries: Vectors,
        searches: dict[int, _Search],
        k: int,
        where: Filter | None,
        cases: Sequence[str],
        known: dict[tuple[int, int, str], Record],
    ) -> dict[int, list[Match]]:
        """The answers of those searches that came to an end; the others now ask for more. known: records, added to."""
        if not any(self._sizes):
            self._sizes = [int(one[0]) for one in self._items.of_all(lambda part: [("VCARD", part.vectors)])]
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
        replies = self._items.of_all(
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
                raise StoreDamaged(
                    f"{self._items.url.shown} has lost {self._items.partitions[number].vectors}; restore it from a backup"
                )
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
    def _similar(part: Partition, query: Vectors, search: _Search, case: str, *, is_small: bool) -> Command:
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

    def _learn(self, keys: set[tuple[int, int, str]], known: dict[tuple[int, int, str], Record]) -> None:
        """Read the records that are not known; one that was replaced or deleted since it was found stays unknown."""
        wanted: dict[int, list[tuple[int, int, str]]] = {}
        for key in keys - known.keys():
            wanted.setdefault(key[0], []).append(key)
        calls = {
            self._items.partitions[number].about: [
                ("HMGET", self._items.partitions[number].records, *(one for _, _, one in some))
            ]
            for number, some in wanted.items()
        }
        for some, replies in zip(wanted.values(), self._items.asked(calls), strict=True):
            for key, reply in zip(some, replies[0], strict=True):
                record = read_record(reply)
                if record is not None and record.seq == key[1]:
                    known[key] = record


def _hit(name: bytes | str, score: Any, partition: int) -> _Hit:
    seq, _, one = decoded(name).partition(":")
    return _Hit(2 * float(score) - 1, int(seq), one, partition)  # Redis scores (1 + cosine) / 2


def _pairs(reply: Reply) -> list[tuple[Any, Any]]:
    """Names and scores, which come as a mapping or one after the other."""
    if isinstance(reply, dict):
        return list(reply.items())
    return list(zip(reply[::2], reply[1::2], strict=True))
