"""Read → encode → upsert: pictures from sources into a store, resumable; a bad file becomes a record of the report.

Every item remembers its file in `_source`; a file of the same size and time is not read again, one of the same content is
not encoded again. Files are read and decoded by threads, some batches ahead of the model. Each batch is durable when it is
written, so a killed job goes on where it was when it is started again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from binsight.data.folder import list_folder, list_image
from binsight.data.manifest import SUFFIXES, list_manifest, with_metadata
from binsight.data.source import Listing, Picture, Refusal, checked_unique
from binsight.encoder import Encoder
from binsight.errors import BadImage, BadItem, BadSettings, BadSource
from binsight.images import read_file
from binsight.paths import shown, user_path
from binsight.preprocess import Preprocess
from binsight.records import Item, Metadata
from binsight.store.base import SOURCE_KEY, VectorStore, checked_id, metadata_text

Pixels = NDArray[np.uint8]
Progress = Callable[[int, int], None]  # (done, of how many)

_LOOKUP = 1000  # items asked of the store at once
_AHEAD = 3  # batches that are decoded before the model wants them
_TOGETHER = 8  # pictures that one thread reads in a row: handing them out singly halves what two threads decode
_File: TypeAlias = tuple[str, str]  # root and uri
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of every input; `images_per_s` is indexed / took_s, from the first file opened to the last commit."""

    indexed: int
    unchanged: int
    pruned: int
    skipped: int
    refused: list[Refusal] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    load_s: float = 0.0
    took_s: float = 0.0

    @property
    def images_per_s(self) -> float:
        return self.indexed / self.took_s if self.took_s else 0.0

    def to_json(self) -> Metadata:
        found = asdict(self)
        found |= {"load_s": round(self.load_s, 3), "took_s": round(self.took_s, 3)}
        return found | {"images_per_s": round(self.images_per_s, 2)}


def list_sources(
    sources: Sequence[str], *, metadata: Path | None = None, root: Path | None = None, id_prefix: str = ""
) -> list[Listing]:
    """What the sources hold: folders, pictures, manifests (.csv, .jsonl).

    Raises BadSource when one is not there or empty, or when two pictures have one id.
    """
    if not sources:
        raise BadSource("no source given; want a folder, a picture or a manifest")
    if metadata is not None and any(Path(source).suffix.lower() in SUFFIXES for source in sources):
        raise BadSource("a manifest already holds the metadata; give --metadata with folders or pictures")
    listings = [_list(source, root if metadata is None else None, id_prefix) for source in sources]
    if metadata is not None:
        metadata = user_path(metadata)
        listings = with_metadata(listings, metadata, root=root, id_prefix=id_prefix)
    checked_unique(listings)
    return listings


def _list(source: str, root: Path | None, id_prefix: str) -> Listing:
    if source.startswith("s3://"):
        raise BadSource(f"s3 sources are not part of this version: {source}; copy the pictures into a folder")
    path = user_path(source)
    if path.is_dir():
        return list_folder(path, id_prefix=id_prefix)
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return list_manifest(path, root=root, id_prefix=id_prefix)
    return list_image(path, id_prefix=id_prefix)


def ingest(
    listings: Sequence[Listing],
    encoder: Encoder,
    store: VectorStore,
    *,
    prune: bool = False,
    batch_size: int = 128,
    workers: int = 2,
    progress: Progress | None = None,
) -> IngestReport:
    """Bring a store up to date with what the sources hold now.

    batch_size: pictures encoded and committed together. workers: threads that read and decode.
    Raises ModelMismatch when another model filled the store, BadSettings, and what the store raises.
    """
    if batch_size < 1 or workers < 1:
        raise BadSettings(f"want batch_size and workers of at least 1, got {batch_size} and {workers}")
    store.expect(encoder.info)
    if prune:
        _check_prunable(listings)
    started = perf_counter()
    job = _Job(store, encoder, batch_size)
    pictures = [picture for listing in listings for picture in listing.pictures]
    refused = [refusal for listing in listings for refusal in listing.refused]
    with ThreadPoolExecutor(workers, thread_name_prefix="binsight-decode") as pool:
        reads = _ahead(pool, job.pending(pictures), _AHEAD * batch_size + workers, encoder.preprocess)
        for batch in _batched(reads, batch_size):
            job.take(batch)
            if progress is not None:
                progress(job.done, len(pictures))
    pruned = _prune(listings, store, kept=job.refused_files) if prune else 0
    unread = {one.path for one in job.refused}
    return IngestReport(
        job.indexed,
        job.unchanged,
        pruned,
        sum(listing.skipped for listing in listings),
        [Refusal(shown(one.path), shown(one.error)) for one in refused + job.refused],
        [shown(path) for listing in listings for path in listing.unlisted if path not in unread],
        took_s=perf_counter() - started,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """A picture as read: `pixels` is None when its content is what the store already knows."""

    item: Item
    pixels: Pixels | None


@dataclass(frozen=True, slots=True, eq=False)
class _Refused:
    """A picture that cannot be taken, and why."""

    picture: Picture
    error: str


@dataclass(slots=True)
class _Job:
    """What has been done so far."""

    store: VectorStore
    encoder: Encoder
    batch_size: int
    indexed: int = 0
    unchanged: int = 0
    refused: list[Refusal] = field(default_factory=list)
    refused_files: set[_File] = field(default_factory=set)

    @property
    def done(self) -> int:
        return self.indexed + self.unchanged + len(self.refused)

    def pending(self, pictures: Sequence[Picture]) -> Iterator[tuple[Picture, Item | None]]:
        """The pictures that must be read, each with the item that the store holds under its id."""
        for part in _batched(iter(pictures), _LOOKUP):
            good = [picture for picture in part if self._accepts(picture)]
            known = self.store.get([picture.id for picture in good])
            for picture, item in zip(good, known, strict=True):
                if item is not None and _is_current(picture, item):
                    self.unchanged += 1
                else:
                    yield picture, item

    def _accepts(self, picture: Picture) -> bool:
        try:
            checked_id(picture.id)
            metadata_text(Item(picture.id, picture.metadata))
        except BadItem as error:
            self._refuse(_Refused(picture, str(error)))
            return False
        return True

    def _refuse(self, one: _Refused) -> None:
        self.refused.append(Refusal(str(one.picture.path), one.error))
        self.refused_files.add((str(one.picture.root), one.picture.uri))

    def take(self, batch: Sequence[_Read | _Refused]) -> None:
        """Encode what has new pixels and write the batch."""
        for one in batch:
            if isinstance(one, _Refused):
                self._refuse(one)
        reads = [one for one in batch if isinstance(one, _Read)]
        fresh = [(read.item, read.pixels) for read in reads if read.pixels is not None]
        if fresh:
            vectors = self.encoder.encode_pixels(np.stack([pixels for _, pixels in fresh])).vectors
            self.store.upsert([item for item, _ in fresh], vectors)
        moved = [read.item for read in reads if read.pixels is None]
        if moved:  # same content, other record
            self.store.upsert(moved, self.store.vectors_of([item.id for item in moved]))
        self.indexed += len(reads)


def _is_current(picture: Picture, item: Item) -> bool:
    """Whether neither the file nor what is said of it has changed since the item was written."""
    source = _source_of(item)
    if source.get("root") != str(picture.root) or source.get("uri") != picture.uri:
        return False
    try:
        found = picture.path.stat()
    except OSError:
        return False
    return (
        source.get("size") == found.st_size
        and source.get("mtime_ns") == found.st_mtime_ns
        and _canonical({name: value for name, value in item.metadata.items() if name != SOURCE_KEY})
        == _canonical(picture.metadata)
    )


def _canonical(metadata: Metadata) -> str:
    """JSON text that is equal only for what JSON tells apart: 1, 1.0 and true are equal in Python."""
    return json.dumps(metadata, sort_keys=True)


def _source_of(item: Item) -> Metadata:
    """What an item says of its file; nothing where it was not ingested."""
    found = item.metadata.get(SOURCE_KEY)
    return found if isinstance(found, dict) else {}


def _read_some(wanted: Sequence[tuple[Picture, Item | None]], preprocess: Preprocess) -> list[_Read | _Refused]:
    return [_read(picture, known, preprocess) for picture, known in wanted]


def _read(picture: Picture, known: Item | None, preprocess: Preprocess) -> _Read | _Refused:
    """Read one file and decode it, unless its content is known."""
    try:
        data, found = read_file(picture.path)
        digest = hashlib.sha256(data).hexdigest()
        source = {"root": str(picture.root), "uri": picture.uri, "size": found.st_size}
        source |= {"mtime_ns": found.st_mtime_ns, "sha256": digest}
        item = Item(picture.id, picture.metadata | {SOURCE_KEY: source})
        metadata_text(item)
        if known is not None and _source_of(known).get("sha256") == digest:
            return _Read(item, None)
        return _Read(item, preprocess.pixels(data))
    except (BadImage, BadItem) as error:
        return _Refused(picture, str(error))


def _ahead(
    pool: ThreadPoolExecutor, pending: Iterator[tuple[Picture, Item | None]], window: int, preprocess: Preprocess
) -> Iterator[_Read | _Refused]:
    """Results in order, with about `window` of them in work or waiting."""
    running: deque[Future[list[_Read | _Refused]]] = deque()
    try:
        for some in _batched(pending, _TOGETHER):
            running.append(pool.submit(_read_some, some, preprocess))
            if len(running) * _TOGETHER >= window:
                yield from running.popleft().result()
        while running:
            yield from running.popleft().result()
    finally:
        for future in running:
            future.cancel()


def _check_prunable(listings: Sequence[Listing]) -> None:
    for listing in listings:
        if not listing.is_whole:
            raise BadSource(f"--prune wants whole folders or manifests, but a single picture of {listing.root} was given")
        if not listing.pictures:
            raise BadSource(f"nothing of {listing.root} is there, so --prune would delete all of it; is it mounted?")


def _prune(listings: Sequence[Listing], store: VectorStore, *, kept: Set[_File]) -> int:
    """Delete the items whose root is one of the listings' and whose file is no candidate any more, or one under another id.

    What was refused deletes nothing: neither the items of the files in `kept`, nor, as a lost row may have meant any file,
    those of a file without a row that is still there.
    """
    ids: dict[_File, set[str]] = {}
    for listing in listings:
        for picture in listing.pictures:
            ids.setdefault((str(listing.root), picture.uri), set()).add(picture.id)
    prefixes = {str(listing.root): listing.id_prefix for listing in listings}
    unlisted = {path for listing in listings for path in listing.unlisted}
    is_unsure = any(listing.has_lost_rows for listing in listings)

    def is_stale(item: Item) -> bool:
        source = _source_of(item)
        root, uri = str(source.get("root")), str(source.get("uri"))
        if root not in prefixes or (root, uri) in kept:
            return False
        path = os.path.join(root, uri)  # noqa: PTH118, as `unlisted` and the system take it
        if (root, uri) not in ids:
            return not (is_unsure and os.path.exists(path))  # noqa: PTH110, false too where the system refuses to look
        if item.id in ids[root, uri] or (is_unsure and path in unlisted):
            return False
        return not _is_of_another_prefix(item.id, uri, prefixes[root])

    stale = [item.id for item in store.scan() if is_stale(item)]
    return sum(store.delete(part) for part in _batched(iter(stale), _LOOKUP))


def _is_of_another_prefix(one: str, uri: str, prefix: str) -> bool:
    """Whether an id comes from indexing the same file under another --id-prefix, which stays."""
    return not one.startswith(prefix) or (one.endswith(uri) and one != prefix + uri)


def _batched(values: Iterator[T], size: int) -> Iterator[list[T]]:
    while part := list(islice(values, size)):
        yield part
