"""One store's items into another one, of any kind: resumable, and compared at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from binsight.errors import CannotBeDone, UnknownItem
from binsight.records import Item
from binsight.store.base import VectorStore
from binsight.vectors import Vectors, normalise

_TOGETHER = 500
_CLOSE = 1e-5  # between numbers of equal vectors
_READS = 100  # of a page whose items others replace meanwhile
_TURNS = 5  # the last one only compares
Progress = Callable[[int, int], None]  # items done, of how many


@dataclass(frozen=True, slots=True)
class CopyReport:
    """copied: items that were written. unchanged: items that were there already, equal. problems: what differs at the end."""

    copied: int
    unchanged: int
    problems: list[str]


def copy_items(source: VectorStore, target: VectorStore, *, progress: Progress | None = None) -> CopyReport:
    """Write every item of `source` into `target` that is not there, or differs there; then compare all of them again.

    Stopped and run again, it writes only what is missing. What changes in the source meanwhile is followed, a few times. Items
    that only `target` holds stay. Raises ModelMismatch when the two are of different models, and what the stores raise.
    """
    target.expect(source.info)
    is_exact = all(one.info.detail.get("exact_vectors", True) for one in (source, target))
    total, written, seen = len(source), set[str](), 0
    differing: list[str] = []
    for turn in range(_TURNS):
        done, differing = 0, []
        for items, rows in _pages(source):
            wrong = _differing(items, rows, target, is_exact=is_exact)
            differing += [items[row].id for row in wrong]
            if wrong and turn < _TURNS - 1:
                target.upsert([items[row] for row in wrong], rows[wrong])
                written.update(items[row].id for row in wrong)
            done += len(items)
            if progress is not None and not turn:
                progress(done, total)
        seen = done
        if not differing:
            break
    return CopyReport(len(written), max(0, seen - len(written)), [f"{one!r} is not as in the source" for one in differing])


def _pages(store: VectorStore) -> Iterator[tuple[list[Item], Vectors]]:
    """Items with their vectors, each of one version; what others replace meanwhile is read again. Raises CannotBeDone."""
    for page in _paged(store.scan()):
        ids = [item.id for item in page]
        for _ in range(_READS):
            before = {item.id: item for item in store.get(ids) if item is not None}
            ids = list(before)
            try:
                rows = store.vectors_of(ids)
            except UnknownItem:
                continue  # one was deleted just now
            after = store.get(ids)
            same = [row for row, one in enumerate(ids) if before[one] == after[row]]
            if same:
                yield [before[ids[row]] for row in same], normalise(rows[same])
            ids = [one for one, item in zip(ids, after, strict=True) if item is not None and before[one] != item]
            if not ids:
                break
        else:
            raise CannotBeDone(f"{ids[0]!r} changes faster than it can be copied; copy again while fewer write")


def _differing(items: list[Item], rows: Vectors, target: VectorStore, *, is_exact: bool) -> list[int]:
    """Rows of those that the target does not hold, or holds with another record or vector."""
    found = target.get([item.id for item in items])
    equal = [row for row, (item, there) in enumerate(zip(items, found, strict=True)) if there == item]
    theirs, mine = normalise(target.vectors_of([items[row].id for row in equal])) if equal else rows[:0], rows[equal]
    step = 0.0 if is_exact else np.abs(mine).max(axis=1, initial=0) / 127  # of eight bits
    near = np.abs(theirs - mine).max(axis=1, initial=0) <= step + _CLOSE
    same = {row for row, is_near in zip(equal, near.tolist(), strict=True) if is_near}
    return [row for row in range(len(items)) if row not in same]


def _paged(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while page := list(islice(rest, _TOGETHER)):
        yield page
