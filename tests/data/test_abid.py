"""ABID's layout: what is taken, noted and refused, in a folder and in a bucket alike."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from binsight.data.abid import BinRecord, parse_metadata
from binsight.data.labelled import LabelledPicture, LabelledSet, open_labelled
from binsight.errors import BadSource, CannotBeDone
from tests.bins import bins, metadata, photo, write
from tests.s3_server import BUCKET, lead_nowhere, lead_to, s3_bucket

FILES = {
    **bins({"1": {"B1": 1}, "00001": {"B2": 2, "B1": 1, "B0": 0}, "00002": {}}),
    "bin-images/00003.jpg": photo(),  # no metadata
    "bin-images/00004.jpg": photo(),
    "metadata/00004.json": metadata({"B3": 1}, expected=3),
    "bin-images/00005.jpg": photo(),
    "metadata/00005.json": b'{"BIN_FCSKU_DATA": {}',
    "metadata/00006.json": metadata({"B4": 1}),  # no photo
    "bin-images/.00007.jpg.abc.part": b"",
    "bin-images/2019/00008.jpg": photo(),
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_bucket(FILES) as address:
        yield address


@pytest.fixture(params=["folder", "bucket"])
def found(request: pytest.FixtureRequest, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabelledSet:
    if request.param == "folder":
        return open_labelled(str(write(tmp_path, FILES)))
    lead_to(server, monkeypatch)
    return open_labelled(f"s3://{BUCKET}")


def test_a_bin_has_its_count_and_the_products_that_are_in_it(found: LabelledSet) -> None:
    assert found.kind == "abid"
    assert found.pictures == (
        LabelledPicture("bin-images/00001.jpg", 3, None, ("B1", "B2"), numbers=(("most_of_one", 2),), words=("thing",)),
        LabelledPicture("bin-images/00002.jpg", 0, None, ()),
        LabelledPicture("bin-images/00004.jpg", 3, None, ("B3",), numbers=(("most_of_one", 1),), words=("thing",)),
        LabelledPicture("bin-images/1.jpg", 1, None, ("B1",), numbers=(("most_of_one", 1),), words=("thing",)),
    )
    assert found.read("bin-images/1.jpg") == FILES["bin-images/1.jpg"] != FILES["bin-images/00001.jpg"]


def test_what_contradicts_is_noted_and_what_is_unknown_is_refused(found: LabelledSet) -> None:
    assert [(one.path, one.error) for one in found.notes] == [
        ("bin-images/00004.jpg", "EXPECTED_QUANTITY is 3, but the quantities add up to 1; 3 is kept"),
        ("metadata", "1 metadata files have no photo in bin-images"),
        ("bin-images/2019", "a folder, which is not looked into; want its photos in bin-images"),
    ]
    assert [one.path for one in found.refused] == ["bin-images/00003.jpg", "bin-images/00005.jpg"]
    assert found.refused[0].error == "no metadata: want metadata/00003.json"
    assert found.refused[1].error.startswith("its metadata (metadata/00005.json): not JSON: ")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[]", "want a JSON object, got list"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"BIN_FCSKU_DATA": {}}', "want EXPECTED_QUANTITY to be a whole number from 0 to 1,000,000, got null"),
        (b'{"BIN_FCSKU_DATA": {}, "EXPECTED_QUANTITY": -1}', "from 0 to 1,000,000, got -1"),
        (b'{"BIN_FCSKU_DATA": {}, "EXPECTED_QUANTITY": true}', "from 0 to 1,000,000, got true"),
        (b'{"BIN_FCSKU_DATA": {}, "EXPECTED_QUANTITY": 2.0}', r"from 0 to 1,000,000, got 2\.0"),
        (b'{"EXPECTED_QUANTITY": 2}', "want BIN_FCSKU_DATA to be an object of objects"),
        (b'{"BIN_FCSKU_DATA": {"B1": 2}, "EXPECTED_QUANTITY": 2}', "want BIN_FCSKU_DATA to be an object of objects"),
        (b'{"BIN_FCSKU_DATA": {"B1": {}}, "EXPECTED_QUANTITY": 2}', "want quantity of B1 to be a whole number"),
    ],
)
def test_metadata_that_cannot_be_used_says_why(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_metadata(data)


def test_a_bin_may_be_empty() -> None:
    assert parse_metadata(metadata({})) == BinRecord(0, ())


def test_photos_without_any_metadata_are_no_set(tmp_path: Path) -> None:
    write(tmp_path, {"bin-images/1.jpg": photo()})
    with pytest.raises(BadSource, match=r"1 refused; the first: bin-images/1.jpg: no metadata: want metadata/1.json"):
        open_labelled(str(tmp_path))


def test_a_folder_without_photos_is_no_set(tmp_path: Path) -> None:
    write(tmp_path, {"bin-images/readme.txt": b"x"})
    with pytest.raises(BadSource, match=r"no photo in .*/bin-images; want bin-images/STEM.jpg and metadata/STEM.json"):
        open_labelled(str(tmp_path))


def test_a_link_out_of_the_folder_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "set", bins({"1": {"B1": 1}}))
    (tmp_path / "secret.jpg").write_bytes(photo())
    (tmp_path / "set/bin-images/2.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "set/metadata/2.json").write_bytes(metadata({"B1": 1}))
    assert [one.uri for one in open_labelled(str(tmp_path / "set")).pictures] == ["bin-images/1.jpg"]


def test_a_bucket_that_cannot_be_reached_says_what_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    lead_nowhere(monkeypatch)
    with pytest.raises(CannotBeDone, match=r"cannot read s3://aft-vbi-pds: .*look at the network, AWS_ENDPOINT_URL"):
        open_labelled(f"s3://{BUCKET}")


@pytest.mark.real_data
def test_the_development_bins_open_quickly_and_whole(data_folder: Path) -> None:
    started = time.perf_counter()
    found = open_labelled(str(data_folder / "abid"))
    assert time.perf_counter() - started < 20
    assert (found.kind, len(found.pictures), len(found.refused)) == ("abid", 8_721, 0)
    assert len(found.only(0, 5).pictures) == 6_037
    assert {one.path for one in found.notes} == {f"bin-images/{stem}.jpg" for stem in ("01405", "01406", "09032", "09033")}
    both = [one for one in found.pictures if one.uri in ("bin-images/1.jpg", "bin-images/00001.jpg")]
    assert [one.count for one in both] == [12, 0]
