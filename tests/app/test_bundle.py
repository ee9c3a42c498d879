"""Photos with a manifest, as they are uploaded; and archives that mean harm."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from binsight.app import bundle
from binsight.app.bundle import Upload, open_bundle
from binsight.errors import BadSource
from tests.bins import photo

PHOTO = photo()
MANIFEST = b"path,id,quantity\nbins/a.jpg,A,3\nbins/b.jpg,B,1\n"


def archive(tmp_path: Path, files: dict[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> list[Upload]:
    path = tmp_path / "upload.zip"
    with zipfile.ZipFile(path, "w", compression) as out:
        for name, data in files.items():
            out.writestr(zipfile.ZipInfo(name), data, compression)
    return [Upload(path, "photos.zip")]


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


def test_an_archive_gives_the_pictures_that_its_manifest_names(tmp_path: Path, into: Path) -> None:
    files = {
        "x/manifest.csv": MANIFEST,
        "x/bins/a.jpg": PHOTO,
        "x/bins/b.jpg": PHOTO,
        "x/notes.txt": b"-",
        "__MACOSX/x/._a.csv": b"-",
    }
    listing = open_bundle(archive(tmp_path, files), into)
    assert [(one.id, one.uri, one.metadata["quantity"]) for one in listing.pictures] == [
        ("A", "bins/a.jpg", 3),
        ("B", "bins/b.jpg", 1),
    ]
    assert Path(listing.pictures[0].path).read_bytes() == PHOTO
    assert listing.refused == []
    assert not list(into.rglob("*.txt"))


def test_files_by_themselves_are_laid_out_by_their_names(tmp_path: Path, into: Path) -> None:
    uploads = []
    for number, (name, data) in enumerate({"manifest.csv": MANIFEST, "bins/a.jpg": PHOTO}.items()):
        (tmp_path / str(number)).write_bytes(data)
        uploads.append(Upload(tmp_path / str(number), name))
    listing = open_bundle(uploads, into)
    assert [one.id for one in listing.pictures] == ["A"]
    (refusal,) = listing.refused
    assert (refusal.path, refusal.error) == ("bins/b.jpg", "no such file, but manifest.csv:3 names it")


def test_files_of_a_folder_whose_names_came_without_it_are_found(tmp_path: Path, into: Path) -> None:
    """Browsers send `a.jpg` for `bins/a.jpg`."""
    (tmp_path / "m").write_bytes(MANIFEST)
    (tmp_path / "p").write_bytes(PHOTO)
    uploads = [Upload(tmp_path / "m", "stock.csv"), Upload(tmp_path / "p", "a.jpg"), Upload(tmp_path / "p", "other.jpg")]
    listing = open_bundle(uploads, into)
    assert [one.uri for one in listing.pictures] == ["bins/a.jpg"]
    assert [one.path for one in listing.refused] == ["bins/b.jpg"]


@pytest.mark.parametrize("name", ["../out.jpg", "/etc/out.jpg", "a/../../out.jpg", "..\\out.jpg", "a/../b.jpg"])
def test_names_that_lead_out_are_refused_and_nothing_is_written(tmp_path: Path, into: Path, name: str) -> None:
    with pytest.raises(BadSource, match="leads out of the archive"):
        open_bundle(archive(tmp_path, {"manifest.csv": MANIFEST, name: PHOTO}), into)
    assert not list(tmp_path.rglob("out.jpg"))
    with pytest.raises(BadSource, match="leads out of the archive"):
        open_bundle([Upload(tmp_path / "upload.zip", name)], into)


def test_names_in_very_many_folders_are_refused_and_no_folder_is_made(tmp_path: Path, into: Path) -> None:
    """A kilobyte of names would be five hundred folders, and an archive of two megabytes a million."""
    deep = "a/" * 17 + "p.jpg"
    with pytest.raises(BadSource, match="lies in too many folders; want at most 16"):
        open_bundle(archive(tmp_path, {deep: PHOTO, "manifest.csv": MANIFEST}), into)
    assert not list(into.iterdir())


def test_one_photo_is_put_into_one_folder_and_not_into_a_deep_one(tmp_path: Path, into: Path) -> None:
    (tmp_path / "m").write_text("path,quantity\n" + "".join(f"{'a/' * depth}p.jpg,1\n" for depth in (17, 2, 3)))
    (tmp_path / "p").write_bytes(PHOTO)
    listing = open_bundle([Upload(tmp_path / "m", "m.csv"), Upload(tmp_path / "p", "p.jpg")], into)
    assert [one.uri for one in listing.pictures] == ["a/a/p.jpg"]
    assert [one.path for one in listing.refused] == ["a/" * 17 + "p.jpg", "a/a/a/p.jpg"]


def test_a_manifest_that_names_files_outside_has_these_rows_refused(tmp_path: Path, into: Path) -> None:
    told = b"path,quantity\n../upload.zip,1\n/etc/hostname,2\na.jpg,3\n"
    listing = open_bundle(archive(tmp_path, {"manifest.csv": told, "a.jpg": PHOTO}), into)
    assert [one.uri for one in listing.pictures] == ["a.jpg"]
    assert [one.path for one in listing.refused] == ["../upload.zip", "/etc/hostname"]
    assert all("leaves the root" in one.error for one in listing.refused)


def test_a_link_in_an_archive_is_refused(tmp_path: Path, into: Path) -> None:
    link = zipfile.ZipInfo("a.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "upload.zip", "w") as out:
        out.writestr(link, "/etc/passwd")
    with pytest.raises(BadSource, match=r"holds a link, a\.jpg"):
        open_bundle([Upload(tmp_path / "upload.zip", "photos.zip")], into)


def test_what_unfolds_to_more_than_it_may_is_refused(tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = bytes(30 * 2**20)
    with pytest.raises(BadSource, match=r"a\.jpg is too large"):
        open_bundle(archive(tmp_path, {"a.jpg": zeros}), into)
    monkeypatch.setattr(bundle, "MOST_BYTES", 2**20)
    with pytest.raises(BadSource, match="of files together, got more"):
        open_bundle(archive(tmp_path, {"b.jpg": zeros}), into)
    assert sum(path.stat().st_size for path in into.rglob("*")) <= 21 * 2**20


def test_an_archive_that_lies_about_a_size_is_still_counted_as_it_comes(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "MOST_BYTES", 2**20)
    path = archive(tmp_path, {"a.jpg": bytes(3 * 2**20)})[0].path
    data = path.read_bytes()
    size = (3 * 2**20).to_bytes(4, "little")
    path.write_bytes(data.replace(size, (1000).to_bytes(4, "little")))
    with pytest.raises(BadSource, match=r"cannot be unpacked|got more"):
        open_bundle([Upload(path, "photos.zip")], into)
    assert sum(one.stat().st_size for one in into.rglob("*")) <= 2**20


def test_an_archive_of_too_many_files_is_refused_before_its_directory_is_read(tmp_path: Path, into: Path) -> None:
    with pytest.raises(BadSource, match="at most 2,000 files, got 2,001"):
        open_bundle(archive(tmp_path, {f"{n}.jpg": b"" for n in range(2001)}), into)
    with pytest.raises(BadSource, match="got many more"):  # 8 ms; 0.5 s when an object was made of each
        open_bundle(archive(tmp_path, dict.fromkeys(map(str, range(4001)), b"")), into)
    path = archive(tmp_path, {"manifest.csv": MANIFEST})[0].path
    data = bytearray(path.read_bytes())
    end = data.index(b"PK\x05\x06")
    data[end + 12 : end + 16] = (2**31).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(BadSource, match="got many more"):
        open_bundle([Upload(path, "photos.zip")], into)
    path.write_bytes(bytes(data) + bytes(data[end:]))
    with pytest.raises(BadSource, match="want a plain zip archive"):
        open_bundle([Upload(path, "photos.zip")], into)


def test_archives_that_are_packed_otherwise_or_damaged_are_refused(tmp_path: Path, into: Path) -> None:
    with pytest.raises(BadSource, match="stored or deflated"):
        open_bundle(archive(tmp_path, {"a.jpg": PHOTO}, compression=zipfile.ZIP_LZMA), into)
    upload = archive(tmp_path, {"a.jpg": PHOTO, "manifest.csv": MANIFEST})[0]
    data = bytearray(upload.path.read_bytes())
    data[60] ^= 0xFF
    upload.path.write_bytes(data)
    with pytest.raises(BadSource, match="cannot be unpacked"):
        open_bundle([upload], into)
    upload.path.write_bytes(b"no archive")
    with pytest.raises(BadSource, match="want a plain zip archive"):
        open_bundle([upload], into)


def test_a_manifest_is_no_longer_than_it_may_be(tmp_path: Path, into: Path) -> None:
    (other := tmp_path / "other").mkdir()
    with pytest.raises(BadSource, match="at most 10,000 rows, got 10,002"):
        open_bundle(archive(tmp_path, {"m.csv": b"path\n" + b"x\n" * 10_001}), into)
    with pytest.raises(BadSource, match="at most 10,000 rows, got 10,002"):
        open_bundle(archive(tmp_path, {"m.csv": b"path\r" + b"x\r" * 10_001}), other)
    (tmp_path / "large.csv").write_bytes(bytes(9 * 2**20))
    with pytest.raises(BadSource, match=r"large\.csv is too large: want at most 8,388,608 bytes"):
        open_bundle([Upload(tmp_path / "large.csv", "large.csv")], into)


def test_one_manifest_is_wanted(tmp_path: Path, into: Path) -> None:
    with pytest.raises(BadSource, match="want photos with a manifest"):
        open_bundle([], into)
    with pytest.raises(BadSource, match=r"want one manifest .*, got none"):
        open_bundle(archive(tmp_path, {"a.jpg": PHOTO}), into)
    more = io.BytesIO(MANIFEST).getvalue()
    with pytest.raises(BadSource, match=r"got a\.csv, b\.csv"):
        open_bundle(archive(tmp_path, {"a.csv": MANIFEST, "b.csv": more}), into)
