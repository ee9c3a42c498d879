"""The bins of ABID as pictures to index: what is recorded of each becomes metadata that filters find."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from binsight.data.abid import IMAGES, BinRecord, image_uri, parse_metadata, read_bins
from binsight.data.files import Files
from binsight.data.part import WHOLE, Part
from binsight.data.source import Listing, Picture, Refusal, joined
from binsight.records import Metadata

SIZES = {"length": ("length_in", "IN"), "width": ("width_in", "IN"), "height": ("height_in", "IN")}
WEIGHT = ("weight_lb", "pounds")
_MOST_PIECES = 100  # of one product that a sum of sizes takes in


def list_abid(files: Files, *, part: Part = WHOLE, id_prefix: str = "") -> Listing:
    """Every photo below `bin-images` that has metadata, with `path`, `quantity`, `products`, `names`, sizes and `contents`.

    part: only its bins have their metadata read, the others are listed with their path alone. A photo without metadata, or
    with metadata that cannot be read, is refused; one that contradicts itself is taken and noted. Raises BadSource when there
    is no photo, CannotBeDone when the source cannot be reached.
    """
    stamps = files.stamps(IMAGES)
    found = read_bins(files, describe, is_wanted=lambda stem: part.holds(id_prefix + image_uri(stem)))
    pictures, notes = [], []
    for uri, record in found.records.items():
        metadata, note = record if record is not None else ({}, None)
        pictures.append(Picture(id_prefix + uri, files.root, uri, {"path": uri} | metadata, stamps.get(uri)))
        if note is not None:
            notes.append(Refusal(joined(files.root, uri), note))
    notes += [Refusal(joined(files.root, one.path), one.error) for one in found.notes]
    refused = [Refusal(joined(files.root, one.path), one.error) for one in found.refused]
    return Listing(
        files.root,
        pictures,
        refused=refused,
        has_lost_rows=bool(refused),
        id_prefix=id_prefix,
        notes=notes,
        retries=files.retries,
    )


def describe(data: bytes) -> tuple[Metadata, str | None]:
    """One metadata file as an item's fields, and what contradicts in it. Raises ValueError, saying what is wrong with it.

    quantity: EXPECTED_QUANTITY. products, names: of what is recorded as being there. weight_lb: of all of it together, where
    each weight is known; length_in, width_in, height_in: the largest of any product. contents: each product by itself.
    """
    record = parse_metadata(data)
    recorded: Mapping[str, Any] = json.loads(data)["BIN_FCSKU_DATA"]
    contents = [_product(asin, recorded[asin]) for asin in record.products]
    return _fields(record, contents), record.note


def bin_facts(fields: Metadata) -> tuple[tuple[str, float], ...]:
    """How much and how large the things in a bin are, by name, as far as it is known; of what `describe` gives."""
    volumes, weights, sides = [], [], []
    for one in fields["contents"]:
        pieces = min(one["quantity"], _MOST_PIECES)
        lengths = [one[name] for name, _ in SIZES.values() if one.get(name)]
        if len(lengths) == len(SIZES):
            volumes += [math.prod(lengths)] * pieces
            sides.append(max(lengths))
        if one.get(WEIGHT[0]):
            weights += [one[WEIGHT[0]]] * pieces
    facts = {f"volume_{name}": value for name, value in _summary(volumes).items()}
    facts |= {f"weight_{name}": value for name, value in _summary(weights).items() if name != "largest"}
    if sides:
        facts["longest_side"] = max(sides)
    if fields["contents"]:
        facts["most_of_one"] = max(one["quantity"] for one in fields["contents"])
    return tuple(sorted(facts.items()))


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {"sum": sum(values), "mean": sum(values) / len(values), "largest": max(values)} if values else {}


def _fields(record: BinRecord, contents: Sequence[Metadata]) -> Metadata:
    fields: Metadata = {"quantity": record.count, "products": list(record.products)}
    fields["names"] = [one["name"] for one in contents if "name" in one]
    if contents and all(WEIGHT[0] in one for one in contents):
        fields[WEIGHT[0]] = round(sum(one["quantity"] * one[WEIGHT[0]] for one in contents), 4)
    for name, _ in SIZES.values():
        known = [one[name] for one in contents if name in one]
        if known:
            fields[name] = max(known)
    return fields | {"contents": contents}


def _product(asin: str, recorded: Mapping[str, Any]) -> Metadata:
    """A product with what is known of it; a size in another unit than the dataset's is left out."""
    found: Metadata = {"asin": asin, "quantity": recorded["quantity"]}
    if isinstance(recorded.get("name"), str):
        found["name"] = recorded["name"]
    for name, (field, unit) in {"weight": WEIGHT, **SIZES}.items():
        size = recorded.get(name)
        if isinstance(size, dict) and size.get("unit") == unit and _is_size(size.get("value")):
            found[field] = round(size["value"], 4)
    return found


def _is_size(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e6
