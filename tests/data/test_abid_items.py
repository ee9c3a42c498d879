"""What is recorded of a bin, as fields of its item, worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from binsight.data.abid_items import bin_facts, describe, list_abid
from binsight.data.files import open_files
from tests import bins


def product(asin: str, quantity: int, **sizes: Any) -> dict[str, Any]:
    return {"asin": asin, "name": f"thing {asin}", "quantity": quantity, **sizes}


def size(value: object, unit: str = "IN") -> dict[str, object]:
    return {"value": value, "unit": unit}


def described(products: list[dict[str, Any]], expected: int) -> tuple[dict[str, Any], str | None]:
    document = {"BIN_FCSKU_DATA": {one["asin"]: one for one in products}, "EXPECTED_QUANTITY": expected}
    return describe(json.dumps(document).encode())


def test_facts_of_a_bin_are_sums_means_and_largest_of_what_is_known() -> None:
    """By hand: one piece of 10 × 2.5 × 1 and two of 4 × 3 × 0.25 inches; 3 pounds and 2 × 0.5; of B3 only the quantity."""
    fields, _ = described(
        [
            product("B2", 1, weight=size(3, "pounds"), length=size(10), width=size(2.5), height=size(1)),
            product("B1", 2, weight=size(0.5, "pounds"), length=size(4), width=size(3), height=size(0.25)),
            product("B3", 5, length=size(0), width=size(3)),
        ],
        8,
    )
    assert dict(bin_facts(fields)) == pytest.approx({
        "volume_sum": 31, "volume_mean": 31 / 3, "volume_largest": 25, "weight_sum": 4, "weight_mean": 4 / 3,
        "longest_side": 10, "most_of_one": 5,
    })  # fmt: skip
    assert bin_facts(described([], 0)[0]) == ()


def test_a_bin_has_its_quantity_products_names_and_sizes() -> None:
    """By hand: 2 × 0.5 + 1 × 3 pounds; the largest of 4 and 10 inches."""
    fields, note = described(
        [
            product("B2", 1, weight=size(3, "pounds"), length=size(10), width=size(2.5), height=size(1)),
            product("B1", 2, weight=size(0.5, "pounds"), length=size(4), width=size(3), height=size(0.25)),
            product("B0", 0, weight=size(99, "pounds"), length=size(99)),
        ],
        3,
    )
    assert note is None
    contents = fields.pop("contents")
    assert fields == {
        "quantity": 3, "products": ["B1", "B2"], "names": ["thing B1", "thing B2"],
        "weight_lb": 4.0, "length_in": 10, "width_in": 3, "height_in": 1,
    }  # fmt: skip
    assert contents[0] == {
        "asin": "B1", "quantity": 2, "name": "thing B1", "weight_lb": 0.5, "length_in": 4, "width_in": 3, "height_in": 0.25
    }  # fmt: skip


def test_what_is_not_known_is_left_out() -> None:
    first = product("B1", 1, weight=size(1, "pounds"), length=size(4), width=None)
    second = product("B2", 1, weight=None, length=size(9, "CM"), width=size(True), height=size("1")) | {"name": None}
    fields, _ = described([first, second], 2)
    assert "weight_lb" not in fields  # of one product it is not known
    assert fields["length_in"] == 4
    assert fields["names"] == ["thing B1"]
    assert not {"width_in", "height_in"} & fields.keys()
    assert fields["contents"][1] == {"asin": "B2", "quantity": 1}


def test_an_empty_bin_has_no_sizes() -> None:
    assert described([], 0) == ({"quantity": 0, "products": [], "names": [], "contents": []}, None)


def test_what_contradicts_is_noted_and_kept(tmp_path: Path) -> None:
    files = bins.bins({"00001": {"B1": 1}}) | {"metadata/00001.json": bins.metadata({"B1": 1}, expected=3)}
    listing = list_abid(open_files(str(bins.write(tmp_path, files))))
    assert [picture.metadata["quantity"] for picture in listing.pictures] == [3]
    (note,) = listing.notes
    assert note.path == str(tmp_path / "bin-images/00001.jpg")
    assert note.error == "EXPECTED_QUANTITY is 3, but the quantities add up to 1; 3 is kept"


@pytest.mark.real_data
def test_real_bins_have_records(data_folder: Path) -> None:
    listing = list_abid(open_files(str(data_folder / "abid")))
    assert (len(listing.pictures), listing.refused, len(listing.notes)) == (8721, [], 4)
    assert sum("weight_lb" in one.metadata for one in listing.pictures) > 8000
    assert all(len(one.metadata["products"]) == len(one.metadata["contents"]) for one in listing.pictures)


def test_a_photo_whose_name_ends_otherwise_is_listed_as_refused(tmp_path: Path) -> None:
    for name, data in bins.bins({"1": {"B1": 2}, "4": {"B2": 1}}).items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "bin-images/4.jpg").rename(tmp_path / "bin-images/4.JPG")
    found = list_abid(open_files(str(tmp_path)))
    assert [picture.uri for picture in found.pictures] == ["bin-images/1.jpg"]
    (refused,) = found.refused
    assert (refused.path, refused.error) == (f"{tmp_path}/bin-images/4.JPG", "want a name that ends in .jpg")
