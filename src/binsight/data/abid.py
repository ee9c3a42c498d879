"""The layout of the Amazon Bin Image Dataset: `bin-images/STEM.jpg` beside `metadata/STEM.json`, in a folder or a bucket.

A stem is a string: `1` and `00001` are two photos. Source: the dataset's own README, registry.opendata.aws/amazon-bin-imagery.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Generic, TypeVar

from binsight.data.files import Files
from binsight.data.source import PICTURE_SUFFIXES, Refusal
from binsight.errors import BadImage, BadSource

IMAGES, METADATA = "bin-images", "metadata"
BUCKET = "s3://aft-vbi-pds"
MOST_OF_A_BIN = 1_000_000  # a larger count is no count
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BinRecord:
    """What one metadata file says: items in the bin, ASINs of which there is at least one (sorted), and what contradicts."""

    count: int
    products: tuple[str, ...]
    note: str | None = None


@dataclass(frozen=True, slots=True)
class ReadBins(Generic[T]):
    """What was made of each metadata file (None where it was not read), by the uri of its photo, sorted; photos refused; and
    notes on photos that are taken all the same.
    """

    records: dict[str, T | None]
    refused: list[Refusal]
    notes: list[Refusal]


def image_uri(stem: str) -> str:
    return f"{IMAGES}/{stem}.jpg"


def metadata_uri(stem: str) -> str:
    return f"{METADATA}/{stem}.json"


def read_bins(
    files: Files, parse: Callable[[bytes], T], *, is_wanted: Callable[[str], bool] = lambda _stem: True
) -> ReadBins[T]:
    """Every photo with what `parse` makes of its metadata file, or raises ValueError for; None for stems not wanted.

    Raises BadSource when there is no `bin-images` or no photo in it.
    """
    names, inner = files.listed(IMAGES) or ([], [])
    photos = [name for name in names if _is_photo(name)]
    images = [name for name in photos if name.endswith(".jpg")]
    if not images:
        raise BadSource(f"no photo in {files.root}/{IMAGES}; want {IMAGES}/STEM.jpg and {METADATA}/STEM.json")
    stems = [name.removesuffix(".jpg") for name in images]
    known = {name.removesuffix(".json") for name in files.names(METADATA) or () if name.endswith(".json")}
    refused = [Refusal(image_uri(stem), f"no metadata: want {metadata_uri(stem)}") for stem in stems if stem not in known]
    refused += [Refusal(f"{IMAGES}/{name}", "want a name that ends in .jpg") for name in photos if not name.endswith(".jpg")]
    records: dict[str, T | None] = {image_uri(stem): None for stem in stems if stem in known}
    for uri, data in files.read_all([metadata_uri(stem) for stem in stems if stem in known and is_wanted(stem)]):
        photo = image_uri(uri.removeprefix(f"{METADATA}/").removesuffix(".json"))
        try:
            if isinstance(data, BadImage):
                raise ValueError(str(data))
            records[photo] = parse(data)
        except ValueError as error:
            refused.append(Refusal(photo, f"its metadata ({uri}): {error}"))
            del records[photo]
    alone = len(known.difference(stems))
    notes = [Refusal(METADATA, f"{alone:,} metadata files have no photo in {IMAGES}")] if alone else []
    why = f"a folder, which is not looked into; want its photos in {IMAGES}"
    notes += [Refusal(f"{IMAGES}/{name}", why) for name in inner if not name.startswith(".")]
    return ReadBins(dict(sorted(records.items())), sorted(refused, key=lambda one: one.path), notes)


def _is_photo(name: str) -> bool:
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES


def parse_metadata(data: bytes) -> BinRecord:
    """One metadata file. Raises ValueError, saying what is wrong with it.

    Where EXPECTED_QUANTITY is not the sum of the quantities, it is kept, and the note says so.

    >>> parse_metadata(b'{"BIN_FCSKU_DATA": {"B1": {"quantity": 2}, "B0": {"quantity": 0}}, "EXPECTED_QUANTITY": 2}')
    BinRecord(count=2, products=('B1',), note=None)
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"want a JSON object, got {type(document).__name__}")
    count = _quantity(document, "EXPECTED_QUANTITY")
    products = document.get("BIN_FCSKU_DATA")
    if not isinstance(products, dict) or not all(isinstance(one, dict) for one in products.values()):
        raise ValueError("want BIN_FCSKU_DATA to be an object of objects")
    quantities = {asin: _quantity(one, "quantity", f" of {asin}") for asin, one in products.items()}
    total = sum(quantities.values())
    note = None if total == count else f"EXPECTED_QUANTITY is {count}, but the quantities add up to {total}; {count} is kept"
    return BinRecord(count, tuple(sorted(asin for asin, quantity in quantities.items() if quantity)), note)


def _quantity(record: dict[str, Any], name: str, of: str = "") -> int:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_OF_A_BIN:
        raise ValueError(f"want {name}{of} to be a whole number from 0 to {MOST_OF_A_BIN:,}, got {json.dumps(value)[:40]}")
    return value
