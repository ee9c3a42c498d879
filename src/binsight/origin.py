"""What an item remembers of the file it was made from, in its reserved field `_source`, and what a model said of it.

`_source` holds root, uri, size, mtime_ns and sha256 of the file, for an object also its etag, and the manifest that names it,
if one does; `counted` names the fields in which the model's count stands, to tell them from those that the source gave.
"""

from __future__ import annotations

import json
import re

from binsight.data.source import Picture, Stamp
from binsight.errors import BadSettings
from binsight.records import Count, Item, Metadata
from binsight.store.base import SOURCE_KEY

COUNTED = "counted"  # in `_source`
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")  # as the filter language has it


def source_of(item: Item) -> Metadata:
    """What an item says of its file; nothing where it was not ingested."""
    found = item.metadata.get(SOURCE_KEY)
    return found if isinstance(found, dict) else {}


def source_record(picture: Picture, stamp: Stamp, sha256: str) -> Metadata:
    """The `_source` of a picture that was read."""
    record: Metadata = {"root": picture.root, "uri": picture.uri, "size": stamp.size, "mtime_ns": stamp.mtime_ns}
    if stamp.etag:
        record["etag"] = stamp.etag
    if picture.manifest:
        record["manifest"] = picture.manifest
    return record | {"sha256": sha256}


def is_of(item: Item, picture: Picture, stamp: Stamp | None) -> bool:
    """Whether neither the file nor what its source says of it has changed since the item was written."""
    source = source_of(item)
    named = (source.get("root"), source.get("uri"), source.get("manifest", ""))
    if stamp is None or named != (picture.root, picture.uri, picture.manifest):
        return False
    known = (source.get("size"), source.get("mtime_ns"), source.get("etag", ""))
    given = {name: value for name, value in item.metadata.items() if name != SOURCE_KEY and name not in said_by_model(item)}
    return known == (stamp.size, stamp.mtime_ns, stamp.etag) and _canonical(given) == _canonical(picture.metadata)


def count_names(base: str) -> tuple[str, str, str, str]:
    """The fields of a count: its value, the calibrated interval, and the mean. Raises BadSettings for what no filter can name.

    >>> count_names("seen")
    ('seen', 'seen_low', 'seen_high', 'seen_expected')
    """
    if not _FIELD.fullmatch(base) or base == SOURCE_KEY:
        raise BadSettings(f"want a name for the count of letters, digits and _, not first a digit, got {base!r}")
    return base, f"{base}_low", f"{base}_high", f"{base}_expected"


def count_fields(base: str, count: Count) -> Metadata:
    """A count as filterable numbers; `high` is one more than the model tells apart where it may be more."""
    values = (count.value, count.low, count.high, round(count.expected, 4))
    return dict(zip(count_names(base), values, strict=True))


def said_by_model(item: Item) -> Metadata:
    """The fields of an item that hold a model's count."""
    base = source_of(item).get(COUNTED)
    if not isinstance(base, str) or not _FIELD.fullmatch(base) or base == SOURCE_KEY:
        return {}
    return {name: item.metadata[name] for name in count_names(base) if name in item.metadata}


def _canonical(metadata: Metadata) -> str:
    """JSON text that is equal only for what JSON tells apart: 1, 1.0 and true are equal in Python."""
    return json.dumps(metadata, sort_keys=True)
