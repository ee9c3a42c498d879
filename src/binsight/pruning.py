"""Deleting items whose files are gone, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TypeAlias

from binsight.data.files import Files
from binsight.data.part import Part
from binsight.data.source import Listing, joined
from binsight.decoding import batched
from binsight.errors import BadSource
from binsight.origin import source_of
from binsight.records import Item
from binsight.store.base import VectorStore

File: TypeAlias = tuple[str, str]  # root and uri
_TOGETHER = 1000


def check_prunable(listings: Sequence[Listing]) -> None:
    """Raise BadSource for listings that do not speak for the whole of their root."""
    for listing in listings:
        if not listing.is_whole:
            raise BadSource(f"--prune wants whole folders or manifests, but a single picture of {listing.root} was given")
        if not listing.pictures:
            raise BadSource(f"nothing of {listing.root} is there, so --prune would delete all of it; is it mounted?")


def pruned(listings: Sequence[Listing], store: VectorStore, *, kept: Set[File], part: Part, doors: Mapping[str, Files]) -> int:
    """How many items were deleted: those whose root is one of the listings' and whose file is no candidate any
    more, or one under another id.

    What was refused deletes nothing: neither the items of the files in `kept`, nor, as a lost row may have meant any file,
    those of a file without a row that is still there. Items of other parts stay.
    """
    ids: dict[File, set[str]] = {}
    for listing in listings:
        for picture in listing.pictures:
            ids.setdefault((listing.root, picture.uri), set()).add(picture.id)
    prefixes = {listing.root: listing.id_prefix for listing in listings}
    unlisted = {path for listing in listings for path in listing.unlisted}
    is_unsure = any(listing.has_lost_rows for listing in listings)

    def is_stale(item: Item) -> bool:
        source = source_of(item)
        root, uri = str(source.get("root")), str(source.get("uri"))
        if root not in prefixes or (root, uri) in kept or not part.holds(item.id):
            return False
        if (root, uri) not in ids:
            return not (is_unsure and doors[root].holds(uri))
        if item.id in ids[root, uri] or (is_unsure and joined(root, uri) in unlisted):
            return False
        return not _is_of_another_prefix(item.id, uri, prefixes[root])

    stale = [item.id for item in store.scan() if is_stale(item)]
    return sum(store.delete(some) for some in batched(iter(stale), _TOGETHER))


def _is_of_another_prefix(one: str, uri: str, prefix: str) -> bool:
    """Whether an id comes from indexing the same file under another --id-prefix, which stays."""
    return not one.startswith(prefix) or (one.endswith(uri) and one != prefix + uri)
