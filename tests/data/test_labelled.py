"""Labelled pictures: from count folders, class folders, manifests, and a bucket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from binsight.data.labelled import LabelledPicture, open_labelled
from binsight.errors import BadImage, BadSource
from tests.bins import photo, write
from tests.s3_server import BUCKET, lead_to, s3_bucket

TREE = {"1/a.jpg": photo(), "2/b.jpg": photo(), "10/c.jpg": photo(), "2/notes.txt": b"x"}


def told(pictures: tuple[LabelledPicture, ...]) -> list[tuple[str, int | None, str | None]]:
    return [(one.uri, one.count, one.label) for one in pictures]


def refusals(refused: tuple[object, ...]) -> dict[str, str]:
    return {one.path: one.error for one in refused}  # type: ignore[attr-defined]


def test_folders_named_by_numbers_are_counts(tmp_path: Path) -> None:
    found = open_labelled(str(write(tmp_path, TREE)))
    assert (found.kind, found.root, found.refused) == ("counts", str(tmp_path.resolve()), ())
    assert told(found.pictures) == [("1/a.jpg", 1, None), ("10/c.jpg", 10, None), ("2/b.jpg", 2, None)]


def test_other_folders_are_classes(tmp_path: Path) -> None:
    write(tmp_path, {"part/gpu/1.jpg": photo(), "part/cpu/1.jpg": photo(), "top.jpg": photo()})
    found = open_labelled(str(tmp_path))
    assert found.kind == "classes"
    assert told(found.pictures) == [("part/cpu/1.jpg", None, "cpu"), ("part/gpu/1.jpg", None, "gpu")]
    assert refusals(found.refused) == {"top.jpg": "lies in no count or class folder"}


@pytest.mark.parametrize("name", ["007", "1000", "7805"])
def test_a_part_number_is_a_class(tmp_path: Path, name: str) -> None:
    assert told(open_labelled(str(write(tmp_path, {f"{name}/a.jpg": photo()}))).pictures) == [(f"{name}/a.jpg", None, name)]


def test_a_number_among_classes_is_a_class_and_said_to_be_one(tmp_path: Path) -> None:
    found = open_labelled(str(write(tmp_path, {"1/a.jpg": photo(), "gpu/b.jpg": photo()})))
    assert told(found.pictures) == [("1/a.jpg", None, "1"), ("gpu/b.jpg", None, "gpu")]
    assert refusals(found.notes) == {"1": "a number among class folders: taken as a class, not as a count"}


@pytest.mark.parametrize("kind", ["counts", "classes"])
def test_a_folder_without_a_picture_is_noted(tmp_path: Path, kind: str) -> None:
    first, second, empty = ("1", "2", "3") if kind == "counts" else ("gpu", "cpu", "ram")
    write(tmp_path, {f"{first}/a.jpg": photo(), f"{second}/b.jpg": photo(), f"{empty}/read.txt": b"x", ".cache/c": b"x"})
    found = open_labelled(str(tmp_path))
    assert found.kind == kind
    assert refusals(found.notes) == {empty: "holds no picture: there is nothing of it to learn or to measure"}


def test_what_else_a_manifest_says_is_kept_beside(tmp_path: Path) -> None:
    write(tmp_path, {name: photo() for name in ("a.jpg", "b.jpg")})
    rows = ["path,count,label,weight,price,name", 'a.jpg,3,7,0.5,-1,"A red Bin, 3 of 12"', "b.jpg,1,8,,x,Bin"]
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    found = open_labelled(str(tmp_path / "m.csv"))
    assert found.pictures == (
        LabelledPicture("a.jpg", 3, "7", numbers=(("weight", 0.5),), words=("bin", "red")),
        LabelledPicture("b.jpg", 1, "8", words=("bin",)),
    )


def test_a_number_that_no_double_holds_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": photo()})
    (tmp_path / "m.jsonl").write_text(json.dumps({"path": "a.jpg", "count": 1, "size": 10**400, "weight": 2}))
    assert [one.numbers for one in open_labelled(str(tmp_path / "m.jsonl")).pictures] == [(("weight", 2.0),)]


def test_a_csv_manifest_gives_counts_labels_products_and_groups(tmp_path: Path) -> None:
    write(tmp_path, {name: photo() for name in ("a.jpg", "b.jpg", "c.jpg")})
    (tmp_path / "m.csv").write_text("path,count,label,products,group\nb.jpg,3,,B2; B1,\na.jpg,,007,,bin 9\nc.jpg,0,7,,\n")
    found = open_labelled(str(tmp_path / "m.csv"))
    assert (found.kind, found.root) == ("manifest", str(tmp_path.resolve()))
    assert found.pictures == (
        LabelledPicture("a.jpg", None, "007", (), "bin 9"),
        LabelledPicture("b.jpg", 3, None, ("B1", "B2")),
        LabelledPicture("c.jpg", 0, "7"),
    )


def test_rows_of_a_manifest_that_say_nothing_or_nonsense_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {f"{name}.jpg": photo() for name in "abcdef"})
    rows = [
        {"path": "a.jpg", "count": 2, "products": ["B1"]},
        {"path": "b.jpg"},
        {"path": "c.jpg", "count": "many"},
        {"path": "d.jpg", "count": -1},
        {"path": "e.jpg", "count": True},
        {"path": "f.jpg", "label": ["x"]},
        {"path": "gone.jpg", "count": 1},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = open_labelled(str(tmp_path / "m.jsonl"))
    assert found.pictures == (LabelledPicture("a.jpg", 2, None, ("B1",)),)
    whole = "want a count that is a whole number from 0 to 1,000,000, got "
    gone = str(tmp_path.resolve() / "gone.jpg")
    assert refusals(found.refused) == {
        "b.jpg": "the row has neither count nor label",
        "c.jpg": f"{whole}'many'",
        "d.jpg": f"{whole}-1",
        "e.jpg": f"{whole}True",
        "f.jpg": "want a label that is a text, got ['x']",
        gone: f"no such file, but {tmp_path / 'm.jsonl'}:7 names it",
    }


def test_a_picture_that_a_manifest_contradicts_itself_about_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": photo(), "b.jpg": photo()})
    (tmp_path / "m.csv").write_text("path,count\na.jpg,1\nb.jpg,1\na.jpg,2\nb.jpg,1\n")
    found = open_labelled(str(tmp_path / "m.csv"))
    assert told(found.pictures) == [("b.jpg", 1, None)]
    assert refusals(found.refused) == {"a.jpg": "the manifest names it more than once, each time differently"}


def test_only_keeps_the_counts_asked_for(tmp_path: Path) -> None:
    found = open_labelled(str(write(tmp_path, TREE))).only(1, 5)
    assert told(found.pictures) == [("1/a.jpg", 1, None), ("2/b.jpg", 2, None)]


def test_reading_gives_the_bytes_and_a_missing_file_is_a_bad_image(tmp_path: Path) -> None:
    found = open_labelled(str(write(tmp_path, TREE)))
    assert found.read("1/a.jpg") == TREE["1/a.jpg"]
    (tmp_path / "1/a.jpg").unlink()
    with pytest.raises(BadImage, match="cannot be read: No such file"):
        found.read("1/a.jpg")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "no such folder: nowhere"),
        ("gs://bucket/x", r"want a folder, a manifest or s3://BUCKET\[/PREFIX\], got gs://bucket/x"),
        ("s3://", r"want s3://BUCKET\[/PREFIX\]"),
        ("s3://bucket/m.csv", "a manifest is read from this machine, got s3://bucket/m.csv; copy it here"),
    ],
)
def test_a_source_that_is_none_is_named(source: str, message: str) -> None:
    with pytest.raises(BadSource, match=message):
        open_labelled(source)


def test_a_set_of_refused_pictures_only_says_why(tmp_path: Path) -> None:
    write(tmp_path, {"top.jpg": photo()})
    with pytest.raises(BadSource, match=r"no labelled picture in .* \(1 refused; the first: top.jpg: lies in no count"):
        open_labelled(str(tmp_path))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_bucket({f"sets/counts/{name}": data for name, data in TREE.items()}) as address:
        yield address


def test_count_folders_in_a_bucket_read_as_local_ones_do(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lead_to(server, monkeypatch)
    found = open_labelled(f"s3://{BUCKET}/sets/counts/")
    assert (found.kind, found.root) == ("counts", f"s3://{BUCKET}/sets/counts")
    assert found.pictures == open_labelled(str(write(tmp_path, TREE))).pictures
    assert found.read("10/c.jpg") == TREE["10/c.jpg"]
    with pytest.raises(BadImage, match=f"cannot be read: no such file in s3://{BUCKET}/sets/counts"):
        found.read("1/gone.jpg")


def test_an_empty_prefix_of_a_bucket_is_named(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lead_to(server, monkeypatch)
    with pytest.raises(BadSource, match=f"no picture under s3://{BUCKET}/nothing"):
        open_labelled(f"s3://{BUCKET}/nothing")
