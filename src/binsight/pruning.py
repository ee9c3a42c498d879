"""Deleting items that their source no longer holds, and nothing else.

An item belongs to the folder, bucket or manifest that it was indexed from last; of two manifests in one folder, neither
speaks for the items of the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from binsight.data.files import Files
from binsight.data.part import Part
from binsight.data.source import Listing, Picture, Refusal, joined
from binsight.decoding import batched
from binsight.errors import BadSource
from binsight.origin import source_of
from binsight.patience import Patience
from binsight.records import Item
from binsight.store.base import VectorStore

File: TypeAlias = tuple[str, str]  # root and uri
_TOGETHER = 1000


@dataclass(slots=True)
class Pruned:
    """How many items were deleted; and how many stay, by the other source of the same root that they belong to."""

    items: int = 0
    of_others: Counter[File] = field(default_factory=Counter)

    @property
    def notes(self) -> list[Refusal]:
        told = "{} items stay: they were indexed {}, which was not given"
        by = {True: "from the manifest {}", False: "without a manifest, from the folder itself"}
        return [
            Refusal(root, told.format(count, by[bool(manifest)].format(manifest)))
            for (root, manifest), count in sorted(self.of_others.items())
        ]


def check_prunable(listings: Sequence[Listing]) -> None:
    """Raise BadSource for listings that do not speak for the whole of their root."""
    for listing in listings:
        if not listing.is_whole:
            raise BadSource(f"--prune wants whole folders or manifests, but a single picture of {listing.root} was given")
        if not listing.pictures:
            raise BadSource(f"nothing of {listing.root} is there, so --prune would delete all of it; is it mounted?")


def prune_items(
    listings: Sequence[Listing],
    store: VectorStore,
    patience: Patience,
    *,
    kept: Set[File],
    part: Part,
    doors: Mapping[str, Files],
    is_taken: Callable[[Picture], bool],
) -> Pruned:
    """Delete the items that belong to the listings' sources and whose file is no candidate any more, or one under another id.

    What was refused deletes nothing: neither the items of the files in `kept`, nor those of files that a row names and that
    are away, nor, as a lost row may have meant any file, those of a file without a row that is still there. Items of other
    parts stay. is_taken: whether a picture of another part is one that its job does not refuse.
    """
    pictures: dict[File, list[Picture]] = {}
    for listing in listings:
        for picture in listing.pictures:
            pictures.setdefault((listing.root, picture.uri), []).append(picture)
    prefixes = {(listing.root, listing.manifest): listing.id_prefix for listing in listings}
    away = {path for listing in listings for path in listing.away}
    done = Pruned()
    unlisted = {path for listing in listings for path in listing.unlisted}
    is_unsure = any(listing.has_lost_rows for listing in listings)

    def is_stale(item: Item) -> bool:
        source = source_of(item)
        root, uri, manifest = str(source.get("root")), str(source.get("uri")), str(source.get("manifest", ""))
        if root not in doors or (root, uri) in kept or joined(root, uri) in away or not part.holds(item.id):
            return False
        if (root, manifest) not in prefixes:
            done.of_others[root, manifest] += 1
            return False
        named = pictures.get((root, uri), [])
        if not named:
            return not (is_unsure and doors[root].holds(uri))
        if any(item.id == picture.id for picture in named) or (is_unsure and joined(root, uri) in unlisted):
            return False
        if _is_of_another_prefix(item.id, uri, prefixes[root, manifest]):
            return False
        return any(part.holds(picture.id) or is_taken(picture) for picture in named)

    def found() -> list[str]:
        done.of_others.clear()  # of a scan that was cut short
        return [item.id for item in store.scan() if is_stale(item)]

    for some in batched(iter(patience.call(found)), _TOGETHER):
        done.items += patience.call(partial(store.delete, some))
    return done


def _is_of_another_prefix(one: str, uri: str, prefix: str) -> bool:
    """Whether an id comes from indexing the same file under another --id-prefix, which stays."""
    return not one.startswith(prefix) or (one.endswith(uri) and one != prefix + uri)
