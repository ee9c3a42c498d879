"""Decoded pictures: once, the same as Preprocess makes them, and whole or not there."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from binsight.data.labelled import LabelledSet, open_labelled
from binsight.errors import BadSource, CannotBeDone
from binsight.preprocess import Preprocess
from binsight.train.cache import PixelCache, open_pixels
from tests.train.drawn import draw

SQUASH = Preprocess((24, 20))


@pytest.fixture
def pictures(tmp_path: Path) -> LabelledSet:
    for number in range(5):
        (tmp_path / "in" / "1").mkdir(parents=True, exist_ok=True)
        draw(1, number).save(tmp_path / "in" / "1" / f"{number}.png")
    return open_labelled(str(tmp_path / "in"))


def uris(labelled: LabelledSet) -> list[str]:
    return [picture.uri for picture in labelled.pictures]


def opened(labelled: LabelledSet, root: Path, preprocess: Preprocess = SQUASH) -> PixelCache:
    return open_pixels(labelled, uris(labelled), preprocess, root=root, workers=2)


def test_pixels_are_those_of_preprocess_in_the_order_asked_for(pictures: LabelledSet, tmp_path: Path) -> None:
    order = uris(pictures)[::-1]
    kept = open_pixels(pictures, order, SQUASH, root=tmp_path / "cache")
    assert kept.uris == tuple(order)
    assert kept.refused == ()
    np.testing.assert_array_equal(kept.pixels, np.stack([SQUASH.pixels(pictures.read(uri)) for uri in order]))


def test_pictures_are_read_once(pictures: LabelledSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(pictures, tmp_path / "cache")

    def never(self: LabelledSet, uri: str) -> bytes:
        raise AssertionError(f"read again: {uri}")

    monkeypatch.setattr(LabelledSet, "read", never)
    second = opened(pictures, tmp_path / "cache")
    assert (second.key, second.uris) == (first.key, first.uris)
    np.testing.assert_array_equal(second.pixels, first.pixels)


def test_a_changed_picture_another_size_and_another_order_are_other_pixels(pictures: LabelledSet, tmp_path: Path) -> None:
    keys = {opened(pictures, tmp_path / "c").key, opened(pictures, tmp_path / "c", Preprocess((20, 20))).key}
    keys.add(open_pixels(pictures, uris(pictures)[1:], SQUASH, root=tmp_path / "c").key)
    changed = Path(pictures.root) / uris(pictures)[0]
    draw(7, 99).save(changed)
    os.utime(changed, ns=(1, 1))
    after = opened(pictures, tmp_path / "c")
    assert len(keys | {after.key}) == 4
    np.testing.assert_array_equal(after.pixels[0], SQUASH.pixels(changed.read_bytes()))


def test_mean_and_deviation_do_not_change_the_pixels(pictures: LabelledSet, tmp_path: Path) -> None:
    other = dataclasses.replace(SQUASH, mean=(0.1, 0.1, 0.1))
    assert opened(pictures, tmp_path / "c").key == opened(pictures, tmp_path / "c", other).key


def test_what_is_no_picture_is_refused_by_name_and_the_others_stay(pictures: LabelledSet, tmp_path: Path) -> None:
    (Path(pictures.root) / "1" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    kept = opened(pictures, tmp_path / "cache")
    assert [refusal.path for refusal in kept.refused] == ["1/2.png"]
    assert kept.uris == ("1/0.png", "1/1.png", "1/3.png", "1/4.png")
    assert kept.pixels.shape == (4, 24, 20, 3)
    np.testing.assert_array_equal(kept.pixels[2], SQUASH.pixels(pictures.read("1/3.png")))


def test_no_picture_at_all_is_an_error(pictures: LabelledSet, tmp_path: Path) -> None:
    for uri in uris(pictures):
        (Path(pictures.root) / uri).write_bytes(b"nothing")
    with pytest.raises(BadSource, match=r"none of the 5 pictures of .* can be decoded; the first: "):
        opened(pictures, tmp_path / "cache")


def test_a_damaged_cache_is_made_again(pictures: LabelledSet, tmp_path: Path) -> None:
    first = opened(pictures, tmp_path / "cache")
    file = tmp_path / "cache" / "pixels" / first.key / "pixels.npy"
    wanted = np.array(first.pixels)
    whole = file.read_bytes()
    for damaged in (whole[:-10], whole[:500] + bytes([whole[500] ^ 1]) + whole[501:]):
        file.write_bytes(damaged)
        np.testing.assert_array_equal(opened(pictures, tmp_path / "cache").pixels, wanted)


def test_a_full_disk_is_said_and_leaves_nothing_behind(pictures: LabelledSet, small_disk: Path) -> None:
    with pytest.raises(
        CannotBeDone, match=r"(No space left on device|File too large)\W.*free some space or set BINSIGHT_CACHE"
    ):
        opened(pictures, small_disk, Preprocess((128, 128)))
    assert [path for path in small_disk.rglob("*") if path.is_file()] == []


def test_a_cache_that_cannot_be_written_is_said(pictures: LabelledSet, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file", encoding="utf-8")
    with pytest.raises(CannotBeDone, match="cannot keep decoded pictures in"):
        opened(pictures, tmp_path / "cache")
