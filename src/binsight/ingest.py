"""Read → encode → upsert: pictures from sources into a store, resumable; a bad file becomes a record of the report.

Every item remembers its file in `_source`; a file of the same size and time is not read again, one of the same content is
not encoded again. Reading, decoding, encoding and writing run side by side, each some batches ahead of the next. Each batch is
durable when it is written, so a killed job goes on where it was when it is started again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np

from binsight.data.abid_items import list_abid
from binsight.data.bucket import list_bucket
from binsight.data.files import S3, Files, open_files
from binsight.data.folder import list_folder, list_image
from binsight.data.manifest import SUFFIXES, list_manifest, with_metadata
from binsight.data.part import WHOLE, Part
from binsight.data.source import Listing, Picture, Refusal, Stamp, checked_unique
from binsight.decoding import Decoder, Read, Refused, Wanted, batched
from binsight.encoder import Encoder
from binsight.errors import BadImage, BadItem, BadSettings, BadSource
from binsight.origin import COUNTED, count_fields, count_names, is_of, source_of
from binsight.paths import shown, user_path
from binsight.patience import Patience
from binsight.pruning import File, Pruned, check_prunable, prune_items
from binsight.rates import Rates, StageRate, bottleneck, rates_json
from binsight.records import Count, Item, Metadata
from binsight.store.base import SOURCE_KEY, VectorStore, checked_id, metadata_text
from binsight.vectors import Vectors

Progress = Callable[[int, int], None]  # (done, of how many)

ABID = "abid:"  # before a source whose metadata files are read
_LOOKUP = 1000  # items asked of the store at once
_AHEAD = 3  # batches that are decoded before the model wants them
_UNWRITTEN = 2  # batches that are encoded before the store takes them
_WIDEST = Count(1000, 1000.0001, (), 0.0, 1001, 1001)  # no count takes more room


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of every input; `images_per_s` is indexed / took_s, from the first file opened to the last commit.

    notes: inputs that were taken although something about them contradicts, and what `prune` left to other sources. retries:
    requests to remote sources that had to be made again; waited_s: for a store that was away or took no writes. stages: what
    each did, and `wall_s` in how much time.
    """

    indexed: int
    unchanged: int
    pruned: int
    skipped: int
    refused: list[Refusal] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    notes: list[Refusal] = field(default_factory=list)
    retries: int = 0
    waited_s: float = 0.0
    load_s: float = 0.0
    took_s: float = 0.0
    stages: list[StageRate] = field(default_factory=list)

    @property
    def images_per_s(self) -> float:
        return self.indexed / self.took_s if self.took_s else 0.0

    def to_json(self) -> Metadata:
        found = {name: value for name, value in asdict(self).items() if name != "stages"}
        found["notes"] = [{"path": one.path, "note": one.error} for one in self.notes]
        found |= {name: round(found[name], 3) for name in ("waited_s", "load_s", "took_s")}
        listing_s = sum(one.busy_s for one in self.stages if one.stage == "list")
        stages = rates_json(self.stages, self.took_s + listing_s)
        return found | {
            "images_per_s": round(self.images_per_s, 2),
            "stages": stages,
            "bottleneck": bottleneck(self.stages),
        }


def list_sources(
    sources: Sequence[str],
    *,
    metadata: Path | None = None,
    root: Path | None = None,
    id_prefix: str = "",
    part: Part = WHOLE,
) -> list[Listing]:
    """What the sources hold: folders, pictures, manifests (.csv, .jsonl), s3://BUCKET[/PREFIX], abid:FOLDER or abid:s3://….

    part: of the bins of ABID, only those of this part have their metadata read; the others are listed without.
    Raises BadSource when one is not there or empty, or when two pictures have one id.
    """
    if not sources:
        raise BadSource("no source given; want a folder, a picture, a manifest or s3://BUCKET/PREFIX")
    if metadata is not None and any(Path(source).suffix.lower() in SUFFIXES for source in sources):
        raise BadSource("a manifest already holds the metadata; give --metadata with folders or pictures")
    if metadata is not None and any(source.startswith((S3, ABID)) for source in sources):
        raise BadSource("--metadata goes with folders and pictures of this machine; list objects without it")
    listings = [_list(source, root if metadata is None else None, id_prefix, part) for source in sources]
    if metadata is not None:
        metadata = user_path(metadata)
        listings = with_metadata(listings, metadata, root=root, id_prefix=id_prefix)
    checked_unique(listings)
    return listings


def _list(source: str, root: Path | None, id_prefix: str, part: Part) -> Listing:
    if source.startswith(ABID):
        return list_abid(_files_of(source.removeprefix(ABID)), part=part, id_prefix=id_prefix)
    if source.startswith(S3):
        return list_bucket(open_files(source), id_prefix=id_prefix)
    path = user_path(source)
    if path.is_dir():
        return list_folder(path, id_prefix=id_prefix)
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return list_manifest(path, root=root, id_prefix=id_prefix)
    return list_image(path, id_prefix=id_prefix)


def _files_of(source: str) -> Files:
    return open_files(source if source.startswith(S3) else str(user_path(source)))


def ingest(
    listings: Sequence[Listing],
    encoder: Encoder,
    store: VectorStore,
    *,
    prune: bool = False,
    part: Part = WHOLE,
    count_field: str = "",
    batch_size: int = 128,
    workers: int = 2,
    patience_s: float = 0.0,
    rates: Rates | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Bring a store up to date with what the sources hold now.

    part: only its pictures are taken, and only its items pruned. count_field: where the model's count is stored with its
    interval (`count_names`); empty for nowhere. batch_size: pictures encoded and committed together. workers: threads that
    decode. patience_s: how long a store that is away, or takes no writes, is waited for. rates: filled while the job runs, for
    who watches it.
    Raises ModelMismatch when another model filled the store, BadSettings, BadSource when a source has a field of the count's
    names, StoreUnavailable when the store stays away, StoreHeld when it goes on to take no writes, CannotBeDone when a source
    stays away, and what the store raises.
    """
    if batch_size < 1 or workers < 1:
        raise BadSettings(f"want batch_size and workers of at least 1, got {batch_size} and {workers}")
    patience = Patience(patience_s)
    patience.call(lambda: store.expect(encoder.info))
    if prune:
        check_prunable(listings)
    if count_field:
        _check_countable(listings, encoder, count_field)
    started = perf_counter()
    doors = {listing.root: open_files(listing.root) for listing in listings}
    job = _Job(store, encoder, doors, rates or Rates(), patience, count_field)
    pictures = [picture for listing in listings for picture in listing.pictures if part.holds(picture.id)]
    refused = [one for listing in listings for one in listing.refused if part.holds(one.path)]
    reserved = count_fields(count_field, _WIDEST) | {COUNTED: count_field} if count_field else {}
    window = _AHEAD * batch_size + workers
    with (
        Decoder(doors, encoder.preprocess, job.rates, workers=workers, window=window, reserved=reserved) as decoder,
        ThreadPoolExecutor(1, "binsight-write") as writer,
    ):
        try:
            if progress is not None:
                progress(0, len(pictures))
            for _ in job.run(batched(decoder.ahead(job.pending(pictures)), batch_size), writer):
                if progress is not None:
                    progress(job.done, len(pictures))
        except BaseException:
            patience.give_up()
            raise
    gone = Pruned()
    if prune:
        gone = prune_items(listings, store, patience, kept=job.refused_files, part=part, doors=doors, is_taken=job.would_take)
    unread = {one.path for one in job.refused}
    notes = [one for listing in listings for one in listing.notes if part.holds(one.path)] + gone.notes
    return IngestReport(
        job.indexed,
        job.unchanged,
        gone.items,
        sum(listing.skipped for listing in listings) if part.number == 1 else 0,
        [Refusal(shown(one.path), shown(one.error)) for one in refused + job.refused],
        [shown(path) for listing in listings for path in listing.unlisted if path not in unread and part.holds(path)],
        [Refusal(shown(one.path), shown(one.error)) for one in notes],
        retries=sum(files.retries for files in doors.values()) + sum(listing.retries for listing in listings),
        waited_s=patience.waited_s,
        took_s=perf_counter() - started,
        stages=job.rates.stages(),
    )


def _check_countable(listings: Sequence[Listing], encoder: Encoder, base: str) -> None:
    if encoder.heads.count is None:
        raise BadSettings(f"{encoder.info.model} does not count; leave out the field for counts")
    names = set(count_names(base))
    for listing in listings:
        for picture in listing.pictures:
            if taken := sorted(names & picture.metadata.keys()):
                raise BadSource(
                    f"{picture.path} has a field {taken[0]!r} of its own, where the model's count would stand; "
                    "choose another name for the count, or store none"
                )


def _check_record(picture: Picture) -> None:
    """Raise BadItem for what no store holds."""
    checked_id(picture.id)
    metadata_text(Item(picture.id, picture.metadata))


@dataclass(slots=True)
class _Job:
    """What has been done so far. All but the writing is one thread's."""

    store: VectorStore
    encoder: Encoder
    doors: dict[str, Files]
    rates: Rates
    patience: Patience
    count_field: str = ""
    indexed: int = 0
    unchanged: int = 0
    refused: list[Refusal] = field(default_factory=list)
    refused_files: set[File] = field(default_factory=set)

    @property
    def done(self) -> int:
        return self.indexed + self.unchanged + len(self.refused)

    def pending(self, pictures: Sequence[Picture]) -> Iterator[Wanted]:
        """The pictures that must be read, each with the item that the store holds under its id."""
        for part in batched(iter(pictures), _LOOKUP):
            with self.rates.timing("compare", len(part)):
                wanted = self._compared([picture for picture in part if self._accepts(picture)])
            yield from wanted

    def _compared(self, pictures: Sequence[Picture]) -> list[Wanted]:
        known = self.patience.call(lambda: self.store.get([picture.id for picture in pictures]))
        wanted = []
        for picture, item in zip(pictures, known, strict=True):
            is_counted = not self.count_field or (item is not None and source_of(item).get(COUNTED) == self.count_field)
            if item is not None and is_counted and is_of(item, picture, self._stamp(picture)):
                self.unchanged += 1
                self.rates.unchanged += 1
            else:
                wanted.append(Wanted(picture, item, is_counted))
        return wanted

    def _stamp(self, picture: Picture) -> Stamp | None:
        return picture.stamp or self.doors[picture.root].stamp(picture.uri)

    def _accepts(self, picture: Picture) -> bool:
        try:
            _check_record(picture)
        except BadItem as error:
            self._refuse(Refused(picture, str(error)))
            return False
        return True

    def would_take(self, picture: Picture) -> bool:
        """Whether a picture that is not read here can be, and has a record that fits."""
        try:
            _check_record(picture)
            self.encoder.preprocess.pixels(self.doors[picture.root].stamped(picture.uri)[0])
        except (BadImage, BadItem):
            return False
        return True

    def _refuse(self, one: Refused) -> None:
        self.refused.append(Refusal(one.picture.path, one.error))
        self.refused_files.add((one.picture.root, one.picture.uri))

    def run(self, batches: Iterator[list[Read | Refused]], writer: ThreadPoolExecutor) -> Iterator[None]:
        """Encode each batch while the one before it is written; gives something after each step."""
        writing: deque[Future[int]] = deque()
        for batch in batches:
            for one in batch:
                if isinstance(one, Refused):
                    self._refuse(one)
            reads = [one for one in batch if isinstance(one, Read)]
            writing.append(writer.submit(self._write, *self._encoded(reads)))
            while len(writing) > _UNWRITTEN or (writing and writing[0].done()):
                self.indexed += writing.popleft().result()
            yield
        while writing:
            self.indexed += writing.popleft().result()
            yield

    def _encoded(self, reads: Sequence[Read]) -> tuple[list[Item], Vectors | None, list[Item]]:
        """Items with new vectors, these vectors, and items whose content is known under another record."""
        fresh = [(read.item, read.pixels) for read in reads if read.pixels is not None]
        moved = [read.item for read in reads if read.pixels is None]
        if not fresh:
            return [], None, moved
        with self.rates.timing("encode", len(fresh)):
            said = self.encoder.encode_pixels(np.stack([pixels for _, pixels in fresh]))
        items = [item for item, _ in fresh]
        if self.count_field and said.counts is not None:
            items = [self._counted(item, count) for item, count in zip(items, said.counts, strict=True)]
        return items, said.vectors, moved

    def _counted(self, item: Item, count: Count) -> Item:
        given = {name: value for name, value in item.metadata.items() if name != SOURCE_KEY}
        source = {SOURCE_KEY: source_of(item) | {COUNTED: self.count_field}}
        return Item(item.id, given | count_fields(self.count_field, count) | source)

    def _write(self, fresh: list[Item], vectors: Vectors | None, moved: list[Item]) -> int:
        with self.rates.timing("write", len(fresh) + len(moved)):
            if vectors is not None:
                self.patience.call(lambda: self.store.upsert(fresh, vectors))
            if moved:
                known = self.patience.call(lambda: self.store.vectors_of([item.id for item in moved]))
                self.patience.call(lambda: self.store.upsert(moved, known))
        return len(fresh) + len(moved)
