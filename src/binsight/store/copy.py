"""One store's items into another one, of any kind: resumable, and compared at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from binsight.records import Item
from binsight.store.base import VectorStore
from binsight.vectors import Vectors, normalise

_TOGETHER = 500
_CLOSE, _WIDE = 1e-5, 0.02  # between numbers of equal vectors; the second where one store keeps less than float32
Progress = Callable[[int, int], None]  # items done, of how many


@dataclass(frozen=True, slots=True)
class CopyReport:
    """copied: items that were written. unchanged: items that were there already, equal. problems: what differs at the end."""

    copied: int
    unchanged: int
    problems: list[str]


def copy_items(source: VectorStore, target: VectorStore, *, progress: Progress | None = None) -> CopyReport:
    """Write every item of `source` into `target` that is not there, or differs there; then compare all of them again.

    Stopped and run again, it writes only what is missing. Items that only `target` holds stay. Raises ModelMismatch when
    the two are of different models, and what the stores raise.
    """
    target.expect(source.info)
    off = _CLOSE if all(one.info.detail.get("exact_vectors", True) for one in (source, target)) else _WIDE
    total = len(source)
    copied = done = 0
    for items, rows in _pages(source):
        differing = _differing(items, rows, target, off)
        if differing:
            target.upsert([items[row] for row in differing], rows[differing])
        copied += len(differing)
        done += len(items)
        if progress is not None:
            progress(done, total)
    problems = [
        f"{items[row].id!r} is not as in the source"
        for items, rows in _pages(source)
        for row in _differing(items, rows, target, off)
    ]
    return CopyReport(copied, done - copied, problems)


def _pages(store: VectorStore) -> Iterator[tuple[list[Item], Vectors]]:
    """Items with their vectors; those that were deleted since they were seen are left out."""
    for page in _paged(store.scan()):
        there = {item.id for item in store.get([item.id for item in page]) if item is not None}
        items = [item for item in page if item.id in there]
        if items:
            yield items, normalise(store.vectors_of([item.id for item in items]))


def _differing(items: list[Item], rows: Vectors, target: VectorStore, off: float) -> list[int]:
    """Rows of those that the target does not hold, or holds with another record or vector."""
    found = target.get([item.id for item in items])
    equal = [row for row, (item, there) in enumerate(zip(items, found, strict=True)) if there == item]
    near = np.abs(target.vectors_of([items[row].id for row in equal]) - rows[equal]).max(axis=1, initial=0) <= off
    same = {row for row, is_near in zip(equal, near.tolist(), strict=True) if is_near}
    return [row for row in range(len(items)) if row not in same]


def _paged(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while page := list(islice(rest, _TOGETHER)):
        yield page
