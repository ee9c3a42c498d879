"""Splits: groups stay whole, shares and counts come out as asked for, and a leak is measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binsight.data.groups import sister_shots
from binsight.data.labelled import LabelledPicture, LabelledSet, open_labelled
from binsight.data.splits import (
    Leak,
    Split,
    SplitRow,
    leak,
    make_split,
    product_groups,
    read_split,
    write_split,
)
from binsight.errors import BadSettings, BadSource, CannotBeDone


def picture(uri: str, count: int | None = 1, products: Sequence[str] = (), *, group: str | None = None) -> LabelledPicture:
    return LabelledPicture(uri, count, None, tuple(products), group)


def labelled(*pictures: LabelledPicture) -> LabelledSet:
    return LabelledSet("/set", "abid", tuple(sorted(pictures, key=lambda one: one.uri)))


def pairs(n: int) -> LabelledSet:
    """n bins, each with two shots: 2i holds i % 5 + 1 items, 2i + 1 one more; a product of its own."""
    shots = [(f"bin-images/{2 * i + j:05}.jpg", i % 5 + 1 + j, (f"B{i}",)) for i in range(n) for j in (0, 1)]
    return labelled(*(picture(*shot) for shot in shots))


def row(path: str, split: str, group: str, count: int | None = 1, label: str | None = None) -> SplitRow:
    return SplitRow(path, split, group, count, label)


def test_a_chain_of_shared_products_is_one_group() -> None:
    chain = [picture("a", 1, ["Z"]), picture("b", 1, ["M"]), picture("c", 1, ["M", "Z"]), picture("d", 1, ["Q"]), picture("e")]
    assert product_groups(chain) == ["M", "M", "M", "Q", "e"]


def test_groups_of_a_manifest_join_as_products_do() -> None:
    shots = [picture("a", group="bin 1"), picture("b", 1, ["B1"], group="bin 1"), picture("c", 1, ["B1"]), picture("d")]
    a, b, c, d = product_groups(shots)
    assert a == b == c != d == "d"


@given(st.lists(st.lists(st.integers(0, 12), max_size=3), max_size=25))
@settings(max_examples=60, deadline=None)
def test_groups_are_the_connected_components(products: list[list[int]]) -> None:
    pictures = [picture(f"u{i}", 1, sorted({f"B{one}" for one in some})) for i, some in enumerate(products)]
    component = list(range(len(pictures)))  # the reference: spread the least number until nothing changes
    for _ in pictures:
        for i, one in enumerate(pictures):
            for j, other in enumerate(pictures):
                if set(one.products) & set(other.products):
                    component[i] = component[j] = min(component[i], component[j])
    groups = product_groups(pictures)
    assert all((groups[i] == groups[j]) == (component[i] == component[j]) for i in range(len(groups)) for j in range(i))


@pytest.mark.parametrize("seed", range(3))
def test_no_group_is_parted_and_shares_and_counts_come_out(seed: int) -> None:
    held = pairs(200)
    split = make_split(held, fractions=(60, 20, 20), seed=seed)
    assert (split.by, split.fractions, split.seed) == ("group", (60, 20, 20), seed)
    assert split.sizes == pytest.approx({"train": 240, "val": 80, "test": 80}, abs=4)  # whole pairs
    assert [one.path for one in split.rows] == [one.uri for one in held.pictures]
    assert leak(split, held) == Leak(400 - split.sizes["train"], 0, 0, 0)
    for name, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        counts = Counter(one.count for one in split.of(name))
        wanted = Counter(one.count for one in held.pictures)
        assert all(abs(counts[n] - share * wanted[n]) <= 2 for n in wanted)


def test_two_fractions_are_train_and_test_of_any_sum() -> None:
    split = make_split(pairs(50), fractions=(4, 1))
    assert (split.sizes, split.fractions) == ({"train": 80, "test": 20}, (80, 20))


def test_a_seed_gives_one_split_and_another_seed_another() -> None:
    held = pairs(60)
    first, again, other = (make_split(held, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert {one.path for one in first.of("test")} != {one.path for one in other.of("test")}


def test_the_order_of_the_pictures_does_not_matter() -> None:
    held = pairs(40)
    turned = replace(held, pictures=held.pictures[::-1])
    assert make_split(held).rows == make_split(turned).rows


def test_one_huge_group_goes_to_train_and_the_rest_is_shared() -> None:
    huge = [picture(f"h{i:03}", i % 3, ["B"]) for i in range(500)]
    others = [picture(f"o{i:03}", i % 3, [f"C{i}"]) for i in range(500)]
    split = make_split(labelled(*huge, *others), fractions=(60, 20, 20))
    assert {one.split for one in split.rows if one.group == "B"} == {"train"}
    assert split.sizes == pytest.approx({"train": 600, "val": 200, "test": 200}, abs=2)


def test_a_group_beyond_trains_share_leaves_equal_parts_to_the_others() -> None:
    huge = [picture(f"h{i:03}", 1, ["B"]) for i in range(800)]
    others = [picture(f"o{i:03}", 1, [f"C{i}"]) for i in range(200)]
    assert make_split(labelled(*huge, *others)).sizes == {"train": 800, "val": 100, "test": 100}


def test_a_random_split_parts_groups_and_names_them_all_the_same() -> None:
    held = pairs(200)
    split = make_split(held, by="random", fractions=(60, 20, 20))
    assert split.sizes == {"train": 240, "val": 80, "test": 80}
    assert {one.group for one in split.rows} == {f"B{i}" for i in range(200)}
    found = leak(split, held)
    assert found.group_share == found.product_share == found.sister_share
    assert found.group_share == pytest.approx(0.6, abs=0.1)  # a shot's sister is in train with the probability 240/399


def test_a_leak_is_told_by_group_by_product_and_by_sister() -> None:
    held = labelled(
        picture("bin-images/00001.jpg", 1, ["A"]),  # train
        picture("bin-images/00002.jpg", 2, ["A"]),  # sister of 1
        picture("bin-images/00009.jpg", 2, ["A", "B"]),  # shares A
        picture("bin-images/00020.jpg", 2, ["B"]),  # only chained
        picture("bin-images/00030.jpg", 2, ["C"]),  # apart
    )
    splits = ["train", "val", "val", "test", "test"]
    rows = tuple(row(one.uri, split, "x") for one, split in zip(held.pictures, splits, strict=True))
    found = leak(Split(rows, "random", (20, 40, 40), None), held)
    assert found == Leak(held_out=4, group_share=0.75, product_share=0.5, sister_share=0.25)
    assert found.is_leaking


def test_sisters_are_neighbours_of_one_series_that_share_a_product() -> None:
    names = ["00001", "00002", "1", "2", "3", "99999", "100000"]
    held = [picture(f"bin-images/{name}.jpg", 1, ["A"]) for name in names] + [picture("bin-images/4.jpg", 1, ["B"])]
    short = {uri[11:-4]: {other[11:-4] for other in others} for uri, others in sister_shots(held).items()}
    padded = {"00001": {"00002"}, "00002": {"00001"}, "99999": {"100000"}, "100000": {"99999"}}
    assert short == {"1": {"2"}, "2": {"1", "3"}, "3": {"2"}} | padded


@pytest.mark.parametrize("fractions", [(), (100,), (60, 20, 0), (50, -50), (1, 1, 1, 1), (math.inf, 1), (math.nan, 1)])
def test_fractions_that_are_none_are_named(fractions: Sequence[float]) -> None:
    with pytest.raises(BadSettings, match=r"want fractions of train/val/test or train/test, such as 60/20/20 or 80/20, got "):
        make_split(pairs(5), fractions=fractions)


def test_one_group_alone_cannot_be_split() -> None:
    held = labelled(*(picture(f"u{i}", 1, ["A"]) for i in range(9)))
    with pytest.raises(BadSettings, match="nothing is left for val, test: 9 pictures in 1 groups that stay whole"):
        make_split(held)


def test_a_leak_of_pictures_that_the_set_does_not_hold_is_refused() -> None:
    split = Split((row("a", "train", "g"), row("b", "test", "h")), "group", (50, 50), None)
    with pytest.raises(BadSource, match=r"2 pictures of the split are not in /set; the first is a"):
        leak(split, labelled(picture("c")))


def test_a_split_that_has_no_such_part_says_which_it_has() -> None:
    split = Split((row("a", "train", "g"), row("b", "test", "h")), "group", (50, 50), None)
    with pytest.raises(BadSource, match=r"the split has no 'val' rows; it has train \(1\), test \(1\)"):
        split.of("val")


def test_a_split_is_written_as_a_manifest_and_read_back(tmp_path: Path) -> None:
    rows = (row("a, b.jpg", "train", "Ü", 3), row("c.jpg", "test", "d", None, "gpu"))
    write_split(Split(rows, "group", (50, 50), 7), tmp_path / "s.csv")
    text = (tmp_path / "s.csv").read_text(encoding="utf-8")
    assert text == 'path,split,group,count,label\n"a, b.jpg",train,Ü,3,\nc.jpg,test,d,,gpu\n'
    assert read_split(tmp_path / "s.csv") == Split(rows, "group", (50, 50), None)
    assert [one.name for one in tmp_path.iterdir()] == ["s.csv"]


def test_a_split_of_counts_has_no_column_of_labels(tmp_path: Path) -> None:
    write_split(make_split(pairs(5), fractions=(3, 2)), tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text().splitlines()[0] == "path,split,group,count"


def test_a_split_whose_groups_cross_is_refused_unless_asked_for(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("path,split,group,count\na,train,g,1\nb,test,g,2\nc,test,h,2\n")
    with pytest.raises(
        BadSource, match=r"s.csv leaks: 1 groups are in train and in val or test, the first is 'g'; make a split"
    ):
        read_split(tmp_path / "s.csv")
    found = read_split(tmp_path / "s.csv", allow_leak=True)
    assert (found.by, found.sizes) == ("random", {"train": 1, "test": 2})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "want the columns path,split,group and count or label"),
        ("path,split,group\na,train,g\n", "want the columns path,split,group and count or label"),
        ("path,split,group,count\n", "has no rows"),
        ("path,split,group,count\na,training,g,1\n", "row 2: want a split of train, val or test, got 'training'"),
        ("path,split,group,count\na,train,g,1\na,train,g,1\n", "row 3 names a again; want every picture once"),
        ("path,split,group,count\na,train,g\n", "row 2 has 3 cells, the header 4"),
        ("path,split,group,count\na,train,g,-1\n", "row 2: want a count that is a whole number of at least 0, got '-1'"),
        ("path,split,group,count\na,train,,1\n", "row 2: want a path and a group, got 'a' and ''"),
        ('path,split,group,count\n"a"b,train,g,1\n', "is not CSV in UTF-8"),
    ],
)
def test_a_file_that_is_no_split_says_why(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(BadSource, match=message):
        read_split(tmp_path / "s.csv")


def test_a_split_that_is_not_there_or_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match=r"cannot read the split .*none.csv: No such file"):
        read_split(tmp_path / "none.csv")
    with pytest.raises(CannotBeDone, match=r"cannot write .*s.csv: No such file or directory"):
        write_split(make_split(pairs(5), fractions=(3, 2)), tmp_path / "none/s.csv")


@pytest.mark.real_data
def test_the_development_bins_split_without_a_leak_by_group_and_leak_at_random(data_folder: Path) -> None:
    held = open_labelled(str(data_folder / "abid"))
    assert len(set(product_groups(held.pictures))) == 4_284
    split = make_split(held)
    assert split.sizes == {"train": 5_233, "val": 1_744, "test": 1_744}
    assert leak(split, held).product_share == 0
    shares = [sum(one.count for one in split.of(name) if one.count) / len(split.of(name)) for name in ("train", "val", "test")]
    assert max(shares) - min(shares) < 0.15  # mean counts
    found = leak(make_split(held, by="random"), held)
    assert found.product_share == pytest.approx(0.60, abs=0.03)
    assert found.sister_share == pytest.approx(0.45, abs=0.03)
