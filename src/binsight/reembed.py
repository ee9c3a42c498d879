"""The items of one store in another, with the vectors of another model: every picture is read again from where it came.

Behind an alias, the new store takes the place of the former one: filled while that is read and written, then, while writes are
held for a moment, brought up to the last of them, and named by the alias in one step. The way back is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter

from binsight.data.files import open_files
from binsight.data.source import Listing, Picture, Refusal, inside, joined
from binsight.decoding import batched
from binsight.encoder import Encoder
from binsight.errors import BadSource
from binsight.ingest import IngestReport, ingest
from binsight.origin import COUNTED, said_by_model, source_of
from binsight.records import Item, Metadata
from binsight.store.alias import Alias
from binsight.store.base import SOURCE_KEY, VectorStore
from binsight.takeover import Filling, expect_named, hold_for_followers, replacing, unknown_ids

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
    picture of its own (written with its vector), or whose picture is gone, is refused. What the source does not hold any more
    is deleted from the target. Raises ModelMismatch, BadSettings over a target that holds other things, and what the stores
    raise.
    """
    started = perf_counter()
    with Filling(source, target, encoder.info) as filling:
        job = _Job(source, target, encoder, batch_size, workers, filling.renew)
        return replace(job.followed(progress), took_s=perf_counter() - started)


def replace_behind(
    alias: Alias,
    source: VectorStore,
    target: VectorStore,
    encoder: Encoder,
    *,
    name: str,
    former: str,
    without_refused: bool = False,
    batch_size: int = 128,
    workers: int = 2,
    progress: Progress | None = None,
) -> ReembedReport:
    """`reembed`, and then let the alias of `source`, `former`, name the target, `name`. Both stores are opened for writing.

    Writes to the source are refused (StoreHeld) from before its last reading, and for good once the alias has moved.
    Where items were refused, the alias stays unless without_refused. Raises as `reembed`; StoreHeld where somebody else is
    replacing the source, CannotBeDone where the alias names another store than `former`.
    """
    started = perf_counter()
    expect_named(alias, former)
    with Filling(source, target, encoder.info, look=partial(expect_named, alias, former)) as filling:
        job = _Job(source, target, encoder, batch_size, workers, filling.renew)
        first = job.followed(progress, few=_FEW)
        if first.refused and not without_refused:
            return replace(first, took_s=perf_counter() - started)
        with replacing(alias, source, name, former=former) as held:

            def renew() -> None:
                filling.renew()
                held.renew()

            last = replace(job, between=renew).followed(None)
            is_moved = without_refused or not last.refused
            if is_moved:
                hold_for_followers(target, alias)
                held.renew()
                alias.point_at(name, former=former)
        if is_moved:  # by now nobody writes to the source any more
            filling.hand_over(is_whole=not last.refused)
    return _together(first, last, moved=is_moved, took_s=perf_counter() - started)


def lacking(former: VectorStore, latter: VectorStore) -> int:
    """How many items the former holds that the latter does not, or as of another picture or record."""
    return sum(
        not _is_same(item, known)
        for items in batched(former.scan(), _TOGETHER)
        for item, known in zip(items, latter.get([one.id for one in items]), strict=True)
    )


def _together(first: ReembedReport, last: ReembedReport, *, moved: bool, took_s: float) -> ReembedReport:
    indexed, deleted = first.indexed + last.indexed, first.deleted + last.deleted
    return ReembedReport(indexed, max(0, last.unchanged + last.indexed - indexed), deleted, last.refused, moved, took_s)


@dataclass(frozen=True, slots=True)
class _Job:
    source: VectorStore
    target: VectorStore
    encoder: Encoder
    batch_size: int
    workers: int
    between: Callable[[], None]  # called after every some items

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
            self.between()
            for counted, listings in by_field.items():
                report = self._ingested(listings, counted)
                indexed, unchanged = indexed + report.indexed, unchanged + report.unchanged
                refused += report.refused
            deleted += self._forgotten(items, refused)
            done += len(items)
            self.between()
            if progress is not None:
                progress(done, total)
        for ids in unknown_ids(self.source, self.target):
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
            progress=lambda _done, _total: self.between(),
        )


def _path(item: Item) -> str:
    """What a refusal calls the picture of an item."""
    source = source_of(item)
    return joined(str(source.get("root")), str(source.get("uri")))


def _is_same(item: Item, there: Item | None) -> bool:
    """Whether the target holds an item as it is, but for what a model said of it. Of one without a file nobody knows."""
    if there is None or "sha256" not in source_of(item):
        return False
    return _content(item) == _content(there) and _given(item) == _given(there)


def _content(item: Item) -> list[object]:
    """Which file, and what it held. When it changed does not matter, and is told differently by a listing and by a request."""
    return [source_of(item).get(name) for name in ("root", "uri", "manifest", "sha256")]


def _given(item: Item) -> Metadata:
    said = said_by_model(item)
    return {name: value for name, value in item.metadata.items() if name != SOURCE_KEY and name not in said}


def _out_of_reach(root: str, uri: str) -> str:
    """Why a picture cannot be asked for; empty where it can."""
    try:
        files = open_files(root)
    except BadSource as error:
        return str(error)
    is_inside = files.is_remote or inside(Path(files.root), Path(uri)) is not None
    return "" if is_inside else f"{uri} leads out of {root}"


def _listings(items: list[Item]) -> tuple[dict[str, list[Listing]], list[Refusal]]:
    """The pictures of items, by the field where a model's count stands and by root, and the items that have none."""
    found: dict[str, dict[str, list[Picture]]] = {}
    without: list[Refusal] = []
    for item in items:
        source = source_of(item)
        root, uri, counted = source.get("root"), source.get("uri"), source.get(COUNTED, "")
        if not isinstance(root, str) or not isinstance(uri, str) or not isinstance(counted, str):
            without.append(Refusal(item.id, "it was not indexed from a picture, so there is none to read again"))
            continue
        if why := _out_of_reach(root, uri):
            without.append(Refusal(joined(root, uri), why))
            continue
        picture = Picture(item.id, root, uri, _given(item), manifest=str(source.get("manifest", "")))
        found.setdefault(counted, {}).setdefault(root, []).append(picture)
    listings = {
        counted: [Listing(root, pictures, is_whole=False) for root, pictures in by_root.items()]
        for counted, by_root in found.items()
    }
    return listings, without
