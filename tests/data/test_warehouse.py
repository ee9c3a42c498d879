"""The made-up warehouse: same seed, same picture; every count is what one can see."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from binsight.data.parts import Part, catalogue, sprite_of
from binsight.data.warehouse import (
    LEAST_VISIBLE,
    MAX_COUNT,
    Bin,
    World,
    before_after,
    bin_photo,
    catalogue_photo,
    fill_bins,
    layout,
    render,
)
from binsight.errors import BadSettings


@pytest.fixture(scope="module")
def parts() -> tuple[Part, ...]:
    return catalogue(0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return render(tmp_path_factory.mktemp("world"), bins=6, views=2, changes=3, size_px=96)


def rows_of(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pixels(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(image)


def test_the_catalogue_names_every_part_once(parts: tuple[Part, ...]) -> None:
    assert len(parts) >= 40
    assert len({part.sku for part in parts}) == len({part.name for part in parts}) == len(parts)
    assert all(part.price > 0 for part in parts)


def test_a_catalogue_follows_from_its_seed(parts: tuple[Part, ...]) -> None:
    assert catalogue(0) == parts
    assert {part.sku for part in catalogue(1)} != {part.sku for part in parts}


def test_every_part_fills_its_sprite_without_touching_the_rim(parts: tuple[Part, ...]) -> None:
    for part in parts:
        cover = np.asarray(sprite_of(part).outline)
        assert (cover > 127).mean() > 0.05, part.name
        assert max(cover[0].max(), cover[-1].max(), cover[:, 0].max(), cover[:, -1].max()) < 16, part.name


def test_no_two_parts_look_alike(parts: tuple[Part, ...]) -> None:
    looks = [np.asarray(sprite_of(part).faces[-1].convert("RGBa"), np.float32) for part in parts]
    nearest = min(float(np.abs(a - b).mean()) for i, a in enumerate(looks) for b in looks[:i])
    assert nearest > 4  # of 255, averaged over all points


def test_one_generator_gives_one_picture(parts: tuple[Part, ...]) -> None:
    bin_ = fill_bins(parts, 20, seed=1)[7]
    for view in range(2):
        first, again, other = (
            pixels((catalogue_photo(parts[3], rng, size_px=128), bin_photo(bin_, rng, size_px=128).image)[view])
            for rng in map(np.random.default_rng, (5, 5, 6))
        )
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)


def test_a_picture_has_the_size_asked_for(parts: tuple[Part, ...]) -> None:
    image = catalogue_photo(parts[0], np.random.default_rng(0), size_px=224)
    assert (image.mode, image.size) == ("RGB", (224, 224))
    photo = bin_photo(fill_bins(parts, 1)[0], np.random.default_rng(0), size_px=320)
    assert (photo.image.mode, photo.image.size, photo.owner.shape) == ("RGB", (320, 320), (320, 320))


def test_bins_hold_zero_to_nine_items_of_one_to_three_kinds(parts: tuple[Part, ...]) -> None:
    filled = fill_bins(parts, 300, seed=2)
    assert {bin_.count for bin_ in filled} == set(range(MAX_COUNT + 1))
    assert {len(bin_.contents) for bin_ in filled} == {0, 1, 2, 3}
    assert all(bin_.count == sum(quantity for _, quantity in bin_.contents) for bin_ in filled)


@pytest.mark.parametrize("seed", range(3))
def test_the_count_is_what_was_drawn_and_each_item_can_be_seen(parts: tuple[Part, ...], seed: int) -> None:
    for bin_ in fill_bins(parts, 24, seed=seed):
        photo = bin_photo(bin_, np.random.default_rng(bin_.seed), size_px=160)
        assert Counter(photo.items) == Counter(dict(bin_.contents))
        assert len(photo.visible) == bin_.count
        assert min(photo.visible, default=1.0) >= LEAST_VISIBLE, bin_.id
        assert set(np.unique(photo.owner)) == set(range(bin_.count + 1))  # every item owns points of the picture itself


def test_what_an_item_owns_is_where_it_was_drawn(parts: tuple[Part, ...]) -> None:
    red = next(part for part in parts if part.name == "Star grip, red")
    bin_ = Bin("B", ((red, 1),), "grey fabric", "1A", seed=3)
    photo = bin_photo(bin_, np.random.default_rng(0))
    red_of = pixels(photo.image).astype(int) @ np.array([2, -1, -1])
    assert red_of[photo.owner == 1].mean() > 100
    assert abs(red_of[photo.owner == 0].mean()) < 40


def test_views_of_a_bin_show_the_same_things_stirred_a_little(parts: tuple[Part, ...]) -> None:
    bin_ = next(b for b in fill_bins(parts, 30) if b.count == 4)
    one, two = (bin_photo(bin_, np.random.default_rng(seed)) for seed in (0, 1))
    assert one.items == two.items
    for item in range(1, 5):
        middles = [np.argwhere(photo.owner == item).mean(axis=0) for photo in (one, two)]
        assert np.abs(middles[0] - middles[1]).max() < 0.12 * 256


def test_after_a_taking_one_item_is_gone(parts: tuple[Part, ...]) -> None:
    bin_ = next(b for b in fill_bins(parts, 30) if b.count >= 5)
    before, after, taken = before_after(bin_, np.random.default_rng(4))
    assert len(after.items) == bin_.count - 1 == len(before.items) - 1
    assert Counter(before.items) - Counter(after.items) == Counter([taken])
    assert min(after.visible) >= LEAST_VISIBLE


def test_nothing_can_be_taken_from_an_empty_bin() -> None:
    with pytest.raises(BadSettings, match="nothing can be taken from B: it is empty"):
        before_after(Bin("B", (), "grey fabric", "1A", seed=0), np.random.default_rng(0))


def test_a_bin_takes_nine_items_at_most(parts: tuple[Part, ...]) -> None:
    full = Bin("B", ((parts[18], MAX_COUNT),), "blue plastic", "1A", seed=0)  # nine cartons, the largest part
    assert len(layout(full)) == MAX_COUNT
    with pytest.raises(BadSettings, match=r"want 0 to 9 items in a bin.*B has \(10,\)"):
        Bin("B", ((parts[0], 10),), "blue plastic", "1A", seed=0)


def test_manifests_name_pictures_that_exist_and_all_of_them(world: World) -> None:
    for manifest, n in ((world.manifest, world.indexed), (world.queries, world.asked), (world.changes, world.changed)):
        rows = rows_of(manifest)
        paths = {row["path"] for row in rows}
        assert len(rows) == len(paths) == len({row["id"] for row in rows}) == n
        assert paths == {path.relative_to(manifest.parent).as_posix() for path in manifest.parent.rglob("*.jpg")}
    assert world.indexed == 2 * (len(world.parts) + 6)
    assert world.asked == len(world.parts) + 6
    assert world.changed == 6


def test_manifest_rows_tell_the_truth(world: World) -> None:
    rows = {row["path"]: row for row in rows_of(world.manifest)}
    part, bin_ = world.parts[0], max(world.bins, key=lambda b: b.count)
    row = rows[f"catalogue/{part.sku}/0.jpg"]
    assert (row["kind"], row["label"], row["name"], row["count"]) == ("part", part.sku, part.name, "1")
    assert (float(row["price"]), row["material"], row["shelf"]) == (part.price, part.material, part.shelf)
    row = rows[f"bins/{bin_.id}/1.jpg"]
    assert (row["kind"], row["label"], int(row["count"])) == ("bin", bin_.id, bin_.count)
    assert row["contents"] == "; ".join(f"{quantity} x {p.name}" for p, quantity in bin_.contents)


def test_the_rows_of_a_change_differ_by_the_item_taken(world: World) -> None:
    rows = rows_of(world.changes)
    for before, after in zip(rows[::2], rows[1::2], strict=True):
        held = [Counter({n: int(q) for q, n in re.findall(r"(\d) x ([^;]+)", row["contents"])}) for row in (before, after)]
        assert (before["moment"], after["moment"], before["label"]) == ("before", "after", after["label"])
        assert held[0] - held[1] == Counter([before["taken_name"]])
        assert [int(before["count"]), int(after["count"])] == [c.total() for c in held]


def test_queries_are_other_pictures_with_labels_of_the_index(world: World) -> None:
    indexed, asked = rows_of(world.manifest), rows_of(world.queries)
    assert {row["label"] for row in asked} == {row["label"] for row in indexed}
    digests = [
        {hashlib.sha256((manifest.parent / row["path"]).read_bytes()).digest() for row in rows}
        for manifest, rows in ((world.manifest, indexed), (world.queries, asked))
    ]
    assert not digests[0] & digests[1]
    assert len(digests[0]) == world.indexed


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path, world: World) -> None:
    again = render(tmp_path, bins=6, views=1, query_views=0, changes=0, size_px=96)
    for row in rows_of(again.manifest):
        assert (again.manifest.parent / row["path"]).read_bytes() == (world.manifest.parent / row["path"]).read_bytes()


def test_a_second_warehouse_does_not_mix_with_the_first(world: World) -> None:
    with pytest.raises(BadSettings, match=r"warehouse is not empty; remove it or choose another folder"):
        render(world.folder, bins=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"bins": -1}, "want bins from 0 to 100000, got -1"), ({"size_px": 20}, "want size_px from 96 to 1024, got 20")],
)
def test_numbers_out_of_range_are_named(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSettings, match=message):
        render(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())
