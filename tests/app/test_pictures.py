"""Photos that visitors send, and pictures of items that may be shown to them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from binsight.app.photo import Crop, around, box, read_photo, size_of, tapped
from binsight.app.thumbnails import SIDE_PX, placeholder, shown_as, small, thumbnail
from binsight.errors import BadImage, BadSettings
from binsight.records import Item
from tests.fakes import paint

RED, BLUE = (220, 30, 20), (20, 40, 200)


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    """Red on the left, blue on the right."""
    pixels = np.full((40, 80, 3), RED, np.uint8)
    pixels[:, 40:] = BLUE
    Image.fromarray(pixels).save(tmp_path / "halves.png")
    return tmp_path / "halves.png"


def test_a_whole_photo_is_its_own_bytes_and_a_crop_its_pixels(halves: Path) -> None:
    assert read_photo(str(halves)) == halves.read_bytes()
    right = read_photo(str(halves), Crop(50, 25, 100, 75))
    assert isinstance(right, np.ndarray)
    assert right.shape == (20, 40, 3)
    assert (right == BLUE).all()


def test_what_is_no_photo_or_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"#!/bin/sh")
    (tmp_path / "b.jpg").write_bytes(bytes(30_000_000))
    for name, why in (("a.jpg", "not a picture"), ("b.jpg", "too large: 30,000,000 bytes")):
        with pytest.raises(BadImage, match=why):
            read_photo(str(tmp_path / name))


def test_a_whole_photo_is_measured_and_not_decoded(tmp_path: Path) -> None:
    """The model decodes it once; so damage behind the header is its to find."""
    data = paint(tmp_path / "a.jpg", RED, (90, 30)).read_bytes()
    turned = Image.open(tmp_path / "a.jpg")
    turned.getexif()[0x0112] = 6  # the camera was held upright
    turned.save(tmp_path / "turned.jpg", exif=turned.getexif())
    damaged = data[:-40] + data[-2:]
    (tmp_path / "cut.jpg").write_bytes(damaged)
    assert (size_of(str(tmp_path / "a.jpg")), size_of(str(tmp_path / "turned.jpg"))) == ((90, 30), (30, 90))
    assert read_photo(str(tmp_path / "cut.jpg")) == damaged
    with pytest.raises(BadImage, match="damaged"):
        read_photo(str(tmp_path / "cut.jpg"), Crop(0, 0, 50, 50))
    claimed = bytearray(data)
    at = data.index(b"\xff\xc0") + 5
    claimed[at : at + 4] = (6000).to_bytes(2, "big") * 2
    (tmp_path / "large.jpg").write_bytes(claimed)
    with pytest.raises(BadImage, match=r"6000 × 6000 pixels, .*; scale it down to 5000 × 5000 or less, as any photo program"):
        read_photo(str(tmp_path / "large.jpg"))
    with pytest.raises(BadImage, match="thrown away, as uploads are after an hour"):
        read_photo(str(tmp_path / "gone.jpg"))


@pytest.mark.parametrize("crop", [Crop(60, 0, 40, 100), Crop(0, 50, 100, 51)])
def test_a_crop_that_leaves_nothing_is_refused(crop: Crop) -> None:
    with pytest.raises(BadSettings, match="the crop leaves nothing of the picture"):
        box(crop, 200, 100)


@pytest.mark.parametrize("left", [-5, 101, None, "x", float("nan"), True])
def test_an_edge_that_is_no_part_of_a_picture_is_refused(left: Any) -> None:
    with pytest.raises(BadSettings, match=r"want the edges of a crop in percent, from 0 to 100, got .*, 0\.0, 100\.0, 100\.0"):
        Crop(left)


@pytest.mark.parametrize("place", [None, "xy", [1], ["a", "b"], [1, float("inf")]])
def test_what_is_no_place_in_a_picture_was_not_tapped(place: object) -> None:
    assert tapped([3, 4.5]) == (3, 4.5)
    with pytest.raises(BadSettings, match="load the page again"):
        tapped(place)


def test_tapping_closes_in_and_stays_in_the_picture() -> None:
    once = around(0.9, 0.5, Crop())
    assert once == Crop(40.0, 20.0, 100.0, 80.0)
    assert around(0.9, 0.5, once) == Crop(64.0, 32.0, 100.0, 68.0)
    assert around(0.0, 0.0, Crop(0, 0, 5, 5)) == Crop(0.0, 0.0, 5.0, 5.0)


def item_of(path: Path, root: Path, **changed: object) -> Item:
    source = {"root": str(root), "uri": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return Item("RAM-1", {"_source": source | changed})


def test_the_picture_of_an_item_is_shown_from_the_file_it_was_indexed_from(tmp_path: Path) -> None:
    found = thumbnail(item_of(paint(tmp_path / "a.jpg", RED, (1000, 500)), tmp_path))
    assert found is not None
    assert found.size == (SIDE_PX, SIDE_PX // 2)
    assert np.abs(np.asarray(found).astype(int) - RED).max() <= 4


def test_a_file_that_has_changed_or_gone_is_not_shown(tmp_path: Path) -> None:
    item = item_of(paint(tmp_path / "a.png", RED), tmp_path)
    paint(tmp_path / "a.png", BLUE)
    assert thumbnail(item) is None
    (tmp_path / "a.png").unlink()
    assert thumbnail(item) is None


def test_a_record_cannot_make_the_app_show_other_files(tmp_path: Path) -> None:
    """Neither a picture outside the root, nor one through a link, nor one whose content the record does not know."""
    root = tmp_path / "root"
    root.mkdir()
    secret = paint(tmp_path / "secret.png", RED)
    (root / "link.png").symlink_to(secret)
    (root / "text.png").write_text("a password")
    tries = [
        item_of(secret, root, uri="../secret.png"),
        item_of(secret, root, uri=str(secret)),
        item_of(secret, root, uri="link.png"),
        item_of(secret, tmp_path, sha256="0" * 64),
        item_of(secret, tmp_path, sha256=None),
        item_of(secret, Path("relative")),
        item_of(secret, Path("s3://bucket")),
        item_of(secret, tmp_path, uri="secret.png\0"),
        item_of(root / "text.png", root),
        Item("x", {"_source": "root"}),
        Item("x", {}),
    ]
    assert [thumbnail(item) for item in tries] == [None] * len(tries)
    assert thumbnail(item_of(secret, tmp_path)) is not None


def test_a_placeholder_bears_the_id(tmp_path: Path) -> None:
    shown = shown_as(Item("RAM-1"))
    assert shown.size == (SIDE_PX, SIDE_PX)
    assert np.array_equal(np.asarray(shown), np.asarray(placeholder("RAM-1")))
    assert not np.array_equal(np.asarray(shown), np.asarray(placeholder("RAM-2")))
    assert placeholder("x" * 512).size == placeholder("\u202e\u2603").size


def test_small_is_upright_and_no_larger_than_asked_for(tmp_path: Path) -> None:
    assert small(paint(tmp_path / "tall.jpg", RED, (300, 900)), 90).size == (30, 90)
    assert small(paint(tmp_path / "tiny.png", RED, (5, 4)), 90).size == (5, 4)
