"""The items of one store in another, with the vectors of another model: every picture is read again from where it came.

Behind an alias, the new store takes the place of the former one: filled while that is read and written, then, while writes are
held for a moment, brought up to the last of them, and named by the alias in one step. The way back is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from time import monotonic, perf_counter
from typing import final

from binsight.data.source import Listing, Picture, Refusal, joined
from binsight.decoding import batched
from binsight.encoder import Encoder
from binsight.errors import BadSettings, CannotBeDone
from binsight.ingest import IngestReport, ingest
from binsight.origin import COUNTED, said_by_model, source_of
from binsight.records import Item, Metadata
from binsight.store.alias import Alias
from binsight.store.base import SOURCE_KEY, VectorStore

FOLLOW_S = 2.0  # within which those who look at an alias see that it moved
LEASE_S = 120.0  # a hold ends by itself if its owner was killed
_TOGETHER = 1000
_TURNS = 5  # over a store that others change meanwhile
_FEW = 200  # items that changed during a turn: the rest is sooner read while writes are held
Progress = Callable[[int, int], None]  # items done, of how many


@dataclass(frozen=True, slots=True)
class ReembedReport:
    """indexed: items written. unchanged: items that were there already. deleted: items that the source does not hold any more.

    refused: items that could not be read again, by id. moved: whether the alias names the new store.
    """

    indexed: int = 0
    unchanged: int = 0
    deleted: int = 0
    refused: list[Refusal] = field(default_factory=list)
    moved: bool = False
    took_s: float = 0.0

    def to_json(self) -> Metadata:
        return asdict(self) | {"took_s": round(self.took_s, 3)}


def reembed(
    source: VectorStore,
    target: VectorStore,
    encoder: Encoder,
    *,
    batch_size: int = 128,
    workers: int = 2,
    progress: Progress | None = None,
) -> ReembedReport:
    """Bring `target`, of the encoder's model, up to date with what `source` holds; stopped and run again, it goes on.

    Others may write to the source meanwhile: it is read again, some times, until nothing has changed. An item without a
    picture of its own (written with its vector), or whose picture is gone, is refused. Raises ModelMismatch, BadSettings over a
    target that holds other things, and what the stores raise.
    """
    started = perf_counter()
    job = _Job(source, target, encoder, batch_size, workers)
    job.check_target()
    target.release_writes()
    return replace(job.followed(progress), took_s=perf_counter() - started)


def replace_behind(
    alias: Alias,
    source: VectorStore,
    target: VectorStore,
    encoder: Encoder,
    *,
    name: str,
    without_refused: bool = False,
    batch_size: int = 128,
    workers: int = 2,
    progress: Progress | None = None,
) -> ReembedReport:
    """`reembed`, and then let the alias of `source` name the target, `name`. Both stores are opened for writing.

    Writes to the source are refused (StoreHeld) from before its last reading, and for good once the alias has moved.
    Where items were refused, the alias stays unless without_refused.
    """
    started = perf_counter()
    job = _Job(source, target, encoder, batch_size, workers)
    job.check_target()
    target.release_writes()
    first = job.followed(progress, few=_FEW)
    if first.refused and not without_refused:
        return replace(first, took_s=perf_counter() - started)
    held = _Held(source, f"it is being replaced by {name}; try again in a moment")
    try:
        last = replace(job, between=held.renew).followed(None)
        if last.refused and not without_refused:
            held.release()
            return _together(first, last, moved=False, took_s=perf_counter() - started)
        target.hold_writes("it has just taken the place of another store; try again", for_s=FOLLOW_S)
        held.renew()
        alias.point_at(name)
    except BaseException:
        held.release()
        raise
    source.hold_writes(f"it was replaced by {name}; write to that, or to its alias")
    return _together(first, last, moved=True, took_s=perf_counter() - started)


def _together(first: ReembedReport, last: ReembedReport, *, moved: bool, took_s: float) -> ReembedReport:
    indexed, deleted = first.indexed + last.indexed, first.deleted + last.deleted
    return ReembedReport(indexed, max(0, last.unchanged + last.indexed - indexed), deleted, last.refused, moved, took_s)


@final
class _Held:
    """Writes to a store, refused for as long as its owner lives and says so."""

    def __init__(self, store: VectorStore, why: str) -> None:
        self._store, self._why = store, why
        self._until = 0.0
        self.renew()

    def renew(self) -> None:
        """Raises CannotBeDone when it came too late, for somebody may have written."""
        now = monotonic()
        self._store.hold_writes(self._why, for_s=LEASE_S)
        if self._until and monotonic() > self._until:
            raise CannotBeDone(f"writes could not be held for longer than {LEASE_S:g} s; run it again, it goes on")
        self._until = now + LEASE_S

    def release(self) -> None:
        self._store.release_writes()


@dataclass(frozen=True, slots=True)
class _Job:
    source: VectorStore
    target: VectorStore
    encoder: Encoder
    batch_size: int
    workers: int
    between: Callable[[], None] = lambda: None  # called after every some items

    def check_target(self) -> None:
        """Raise ModelMismatch, and BadSettings where most of the target is unknown to the source: it would be deleted."""
        self.target.expect(self.encoder.info)
        held = len(self.target)
        unknown = sum(len(ids) for ids in self._gone()) if held else 0
        if unknown > held // 2:
            raise BadSettings(f"{unknown} of the {held} items of the new store are not in the former one; give an empty one")

    def followed(self, progress: Progress | None, *, few: int = 0) -> ReembedReport:
        """Pass over the source until a turn finds no more than a few things to do, or often enough."""
        found = ReembedReport()
        for _ in range(_TURNS):
            turn = self._turn(progress)
            indexed, deleted = found.indexed + turn.indexed, found.deleted + turn.deleted
            found = ReembedReport(indexed, max(0, turn.unchanged + turn.indexed - indexed), deleted, turn.refused)
            if turn.indexed + turn.deleted <= few:
                break
            progress = None
        return found

    def _turn(self, progress: Progress | None) -> ReembedReport:
        indexed = unchanged = deleted = done = 0
        refused: list[Refusal] = []
        total = len(self.source)
        for items in batched(self.source.scan(), _TOGETHER):
            there = self.target.get([item.id for item in items])
            stale = [item for item, known in zip(items, there, strict=True) if not _is_same(item, known)]
            unchanged += len(items) - len(stale)
            by_field, without = _listings(stale)
            refused += without
            for counted, listings in by_field.items():
                report = self._ingested(listings, counted)
                indexed, unchanged = indexed + report.indexed, unchanged + report.unchanged
                refused += report.refused
            deleted += self._forgotten(items, refused)
            done += len(items)
            self.between()
            if progress is not None:
                progress(done, total)
        for ids in self._gone():
            deleted += self.target.delete(ids)
            self.between()
        return ReembedReport(indexed, unchanged, deleted, refused)

    def _forgotten(self, items: Sequence[Item], refused: Sequence[Refusal]) -> int:
        """Take out of the target what it holds of items that were refused: it is of a former time."""
        named = {one.path for one in refused}
        if not named:
            return 0
        return self.target.delete([item.id for item in items if item.id in named or _path(item) in named])

    def _ingested(self, listings: list[Listing], counted: str) -> IngestReport:
        """A model that counts says its own count in place of the former one's; one that does not leaves it out."""
        return ingest(
            listings,
            self.encoder,
            self.target,
            count_field=counted if self.encoder.heads.count is not None else "",
            batch_size=self.batch_size,
            workers=self.workers,
        )

    def _gone(self) -> Iterator[list[str]]:
        """Ids of the target that the source does not hold."""
        for items in batched(self.target.scan(), _TOGETHER):
            ids = [item.id for item in items]
            gone = [one for one, known in zip(ids, self.source.get(ids), strict=True) if known is None]
            if gone:
                yield gone


def _path(item: Item) -> str:
    """What a refusal calls the picture of an item."""
    source = source_of(item)
    return joined(str(source.get("root")), str(source.get("uri")))


def _is_same(item: Item, there: Item | None) -> bool:
    """Whether the target holds an item as it is, but for what a model said of it. Of one without a file nobody knows."""
    return there is not None and bool(source_of(item)) and _given(item) == _given(there)


def _given(item: Item) -> Metadata:
    source = {name: value for name, value in source_of(item).items() if name != COUNTED}
    return {name: value for name, value in item.metadata.items() if name not in said_by_model(item)} | {SOURCE_KEY: source}


def _listings(items: list[Item]) -> tuple[dict[str, list[Listing]], list[Refusal]]:
    """The pictures of items, by the field where a model's count stands and by root, and the items that have none."""
    found: dict[str, dict[str, list[Picture]]] = {}
    without: list[Refusal] = []
    for item in items:
        source = source_of(item)
        root, uri = source.get("root"), source.get("uri")
        if not isinstance(root, str) or not isinstance(uri, str):
            without.append(Refusal(item.id, "it was not indexed from a picture, so there is none to read again"))
            continue
        metadata = {name: value for name, value in _given(item).items() if name != SOURCE_KEY}
        found.setdefault(source.get(COUNTED, ""), {}).setdefault(root, []).append(Picture(item.id, root, uri, metadata))
    listings = {
        counted: [Listing(root, pictures, is_whole=False) for root, pictures in by_root.items()]
        for counted, by_root in found.items()
    }
    return listings, without
