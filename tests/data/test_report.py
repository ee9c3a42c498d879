"""The data report: figures one can work out by hand, pictures that look alike, and a page that is safe to open."""

from __future__ import annotations

import hashlib
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from binsight.data.labelled import LabelledPicture, LabelledSet, open_labelled
from binsight.data.likeness import near_pairs, perceptual_hash
from binsight.data.report import Groups, NearPair, Products, Sisters, look, report
from binsight.data.report_page import page, write_report
from binsight.data.source import Refusal
from binsight.data.splits import Leak, Split, SplitRow, make_split
from binsight.errors import BadSettings, CannotBeDone
from binsight.images import decode
from tests.bins import metadata, photo, write


def scene(seed: int, size: tuple[int, int] = (160, 120), *, brighter: int = 0, quality: int = 92) -> bytes:
    """A JPEG of soft blobs; another seed, other blobs."""
    rough = np.random.default_rng(seed).integers(0, 200, (6, 8, 3), np.uint8) + np.uint8(brighter)
    out = io.BytesIO()
    Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=quality)
    return out.getvalue()


def hash_of(data: bytes) -> int:
    return perceptual_hash(decode(data))


BINS = {
    "bin-images/00001.jpg": scene(1),
    "metadata/00001.json": metadata({"A": 1}),
    "bin-images/00002.jpg": scene(1, quality=60),  # the second shot
    "metadata/00002.json": metadata({"A": 1, "B": 1}),
    "bin-images/00005.jpg": scene(2, (80, 60)),
    "metadata/00005.json": metadata({"B": 3}, expected=2),
    "bin-images/00007.jpg": scene(3),
    "metadata/00007.json": metadata({}),
    "bin-images/00008.jpg": scene(3),  # the same file with another count
    "metadata/00008.json": metadata({"C": 4}),
    "bin-images/00009.jpg": scene(4)[:300],
    "metadata/00009.json": metadata({"D": 1}),
    "bin-images/00010.jpg": photo(),
}


@pytest.fixture
def labelled(tmp_path: Path) -> LabelledSet:
    return open_labelled(str(write(tmp_path / "set", BINS)))


def bits_between(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def test_figures_of_a_set_are_those_one_counts_by_hand(labelled: LabelledSet) -> None:
    opened, unreadable = look(labelled, workers=2)
    told = report(labelled, opened, unreadable)
    assert (told.kind, told.pictures, told.opened) == ("abid", 6, 5)
    assert told.counts == {0: 1, 1: 2, 2: 2, 4: 1}
    assert told.products == Products(4, 2, 1, 1.0, {1: 2, 2: 2}, (("A", 2), ("B", 2), ("C", 1), ("D", 1)))
    assert told.groups == Groups(4, 3, {1: 3, 3: 1})
    assert told.sisters == Sisters(pairs=1, pictures=2, same_count=0, differ_by_one=1)
    assert told.resolutions == ((160, 120, 4), (80, 60, 1))
    assert told.width_px == (80, 96, 160, 160, 160, 160, 160)
    sizes = [len(BINS[one.picture.uri]) for one in opened]
    assert (told.file_bytes[0], told.file_bytes[3], told.file_bytes[-1]) == (min(sizes), sorted(sizes)[2], max(sizes))
    assert [one.path for one in told.unreadable] == ["bin-images/00009.jpg"]
    assert [one.path for one in told.refused] == ["bin-images/00010.jpg"]
    assert told.notes == (Refusal("bin-images/00005.jpg", "EXPECTED_QUANTITY is 2, but the quantities add up to 3; 2 is kept"),)


def test_pictures_that_look_alike_are_paired_and_contradictions_named(labelled: LabelledSet) -> None:
    opened, _ = look(labelled)
    pairs = report(labelled, opened).near_duplicates
    assert pairs[0] == NearPair("bin-images/00007.jpg", "bin-images/00008.jpg", 0, True, False, contradicts=True)
    assert [(one.a, one.b, one.is_same_file, one.are_sisters) for one in pairs[1:]] == [
        ("bin-images/00001.jpg", "bin-images/00002.jpg", False, True)
    ]


def test_a_sample_opens_so_many_and_counts_all(labelled: LabelledSet) -> None:
    opened, unreadable = look(labelled, sample=2, seed=1)
    assert len(opened) + len(unreadable) == 2
    assert report(labelled, opened, unreadable).pictures == 6
    assert look(labelled, sample=2, seed=1)[0] == opened


def test_the_leak_of_a_split_is_told(labelled: LabelledSet) -> None:
    chosen = zip(labelled.pictures, ["train", "test", "test", "train", "train", "test"], strict=True)
    split = Split(tuple(SplitRow(one.uri, name, "g", one.count, None) for one, name in chosen), "random", (50, 50), None)
    told = report(labelled, look(labelled)[0], split=split).split
    assert told is not None
    assert told.near_crossing == 1  # 1 and 2; 7 and 8 are both in train
    assert (told.sizes, told.crossing) == ({"train": 3, "test": 3}, 1)
    assert told.counts == {"train": {0: 1, 1: 1, 4: 1}, "test": {1: 1, 2: 2}}
    assert told.leak == Leak(3, pytest.approx(2 / 3), pytest.approx(1 / 3), pytest.approx(1 / 3))  # type: ignore[arg-type]


@pytest.mark.parametrize("changed", [scene(1, (320, 240)), scene(1, (200, 200)), scene(1, brighter=30), scene(1, quality=35)])
def test_a_hash_stays_when_a_picture_is_scaled_squashed_brightened_or_recompressed(changed: bytes) -> None:
    assert bits_between(hash_of(scene(1)), hash_of(changed)) <= 4


def test_other_pictures_have_other_hashes() -> None:
    hashes = [hash_of(scene(seed)) for seed in range(20)]
    assert min(bits_between(a, b) for i, a in enumerate(hashes) for b in hashes[:i]) > 12


def test_a_hash_is_that_of_the_plain_cosine_transform() -> None:
    decoded = decode(scene(5, (32, 32)))
    grey = np.asarray(Image.fromarray(decoded.pixels).convert("L"), np.float64)
    values = [
        sum(
            grey[y, x] * np.cos(np.pi * u * (2 * y + 1) / 64) * np.cos(np.pi * v * (2 * x + 1) / 64)
            for y in range(32)
            for x in range(32)
        )
        for u in range(8)
        for v in range(8)
    ]
    middle = np.median(values[1:])
    assert perceptual_hash(decoded) == sum(1 << i for i, value in enumerate(values) if i and value > middle)


@pytest.mark.parametrize("most_bits", [0, 3, 6])
def test_near_pairs_are_those_of_comparing_all_with_all(most_bits: int) -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 40).tolist()
    for one in list(hashes):
        flipped = rng.permutation(64)[: rng.integers(0, 9)].tolist()
        hashes.append(one ^ sum(1 << bit for bit in flipped))
    wanted = {
        (i, j): bits_between(hashes[i], hashes[j])
        for j in range(len(hashes))
        for i in range(j)
        if bits_between(hashes[i], hashes[j]) <= most_bits
    }
    found = near_pairs(hashes, most_bits=most_bits)
    assert {(i, j): bits for i, j, bits in found} == wanted
    assert [bits for _, _, bits in found] == sorted(wanted.values())


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.images += [value or "" for name, value in attrs if tag == "img" and name == "src"]


def test_a_report_is_a_page_with_its_plots_and_figures(labelled: LabelledSet, tmp_path: Path) -> None:
    opened, unreadable = look(labelled)
    told = report(labelled, opened, unreadable, split=make_split(labelled, by="random", fractions=(1, 1)))
    written = write_report(told, opened, labelled, tmp_path / "new/report")
    assert written == tmp_path / "new/report/report.html"
    reader = Reader()
    reader.feed(written.read_text(encoding="utf-8"))
    assert set(reader.images) == {
        "counts.png", "products.png", "groups.png", "resolutions.png", "file_sizes.png", "near_duplicates.png"
    }  # fmt: skip
    for name in reader.images:
        pixels = np.asarray(Image.open(written.parent / name).convert("RGB"))
        assert min(pixels.shape[:2]) > 100
        assert 0.2 < (pixels == 255).all(axis=2).mean() < 0.999, name  # something is drawn on white
    figures = json.loads((written.parent / "report.json").read_text(encoding="utf-8"))
    assert figures["counts"] == {"0": 1, "1": 2, "2": 2, "4": 1}
    assert figures["quantiles"] == [0, 5, 25, 50, 75, 95, 100]


def test_a_set_of_classes_shows_its_classes(tmp_path: Path) -> None:
    names = {"gpu": 2, "$x_{1}$": 1, "Gehäuse": 1}
    tree = {f"{label}/{n}.jpg": scene(len(label) + n) for label, n_of in names.items() for n in range(n_of)}
    labelled = open_labelled(str(write(tmp_path / "set", tree)))
    opened, _ = look(labelled)
    told = report(labelled, opened)
    assert told.labels == {"$x_{1}$": 1, "Gehäuse": 1, "gpu": 2}
    assert told.products is None
    written = write_report(told, opened, labelled, tmp_path / "out")
    assert (written.parent / "classes.png").is_file()
    assert not (written.parent / "counts.png").exists()


def test_names_cannot_put_markup_into_the_page() -> None:
    nasty = '<script>alert("x")</script>'
    labelled = LabelledSet(nasty, "classes", (LabelledPicture(nasty, None, nasty),), (Refusal(nasty, nasty),))
    reader = Reader()
    reader.feed(page(report(labelled, [])))
    assert "script" not in reader.tags
    assert "table" in reader.tags


def test_a_page_says_when_a_split_leaks_and_only_then(labelled: LabelledSet) -> None:
    leaking = make_split(labelled, by="random", fractions=(1, 1), seed=0)
    sound = make_split(labelled, fractions=(1, 1))
    assert "This split leaks" in page(report(labelled, [], split=leaking))
    assert "This split leaks" not in page(report(labelled, [], split=sound))


def test_a_report_that_cannot_be_written_is_named(labelled: LabelledSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CannotBeDone, match=r"cannot make the folder .*/file/report: Not a directory"):
        write_report(report(labelled, []), [], labelled, tmp_path / "file/report")


def test_numbers_out_of_range_are_named(labelled: LabelledSet) -> None:
    with pytest.raises(BadSettings, match="want near_bits from 0 to 16, got 17"):
        report(labelled, [], near_bits=17)
    with pytest.raises(BadSettings, match="want a sample of at least 1 and workers from 1 to 256, got 0 and 4"):
        look(labelled, sample=0)


@pytest.mark.real_data
def test_sister_shots_of_the_development_bins_never_hold_the_same_count(data_folder: Path) -> None:
    labelled = open_labelled(str(data_folder / "abid"))
    told = report(labelled, [])
    assert told.products is not None
    assert told.sisters == Sisters(pairs=3_431, pictures=6_405, same_count=0, differ_by_one=2_478)
    assert (told.products.distinct, told.products.in_one_picture, told.groups.largest) == (13_966, 7_151, 18)
    opened, unreadable = look(labelled, sample=100)
    assert (unreadable, {(one.width_px, one.height_px) for one in opened}) == ([], {(224, 224)})
    first = opened[0]
    assert first.sha256 == hashlib.sha256((data_folder / "abid" / first.picture.uri).read_bytes()).digest()
