"""Fetching bins from a real S3 server: checked, resumed, and each failure named."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from binsight.data.fetch import FetchReport, fetch, stems_of_list, stems_of_range
from binsight.data.files import LocalFiles
from binsight.data.labelled import open_labelled
from binsight.errors import BadSettings, BadSource, CannotBeDone
from tests.bins import bins, metadata, photo, write
from tests.s3_server import BUCKET, lead_nowhere, lead_to, s3_bucket

GOOD = [f"{n:05}" for n in range(1, 13)] + ["1"]
FILES = {
    **bins({stem: {f"B{stem}": place % 4} for place, stem in enumerate(GOOD)}),
    "bin-images/00100.jpg": photo(),  # no metadata
    "metadata/00101.json": metadata({}),  # no photo
    "bin-images/00102.jpg": photo()[:200],  # cut off
    "metadata/00102.json": metadata({}),
    "bin-images/00103.jpg": photo(),
    "metadata/00103.json": b"<html>",
}
WANTED = {**dict.fromkeys(GOOD), "00100": None, "00101": None, "00102": None, "00103": None}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_bucket(FILES) as address:
        yield address


@pytest.fixture(autouse=True)
def led_to_the_server(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lead_to(server, monkeypatch)


def refusals(report: FetchReport) -> dict[str, str]:
    return {one.path: one.error for one in report.refused}


def held(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_sound_bins_arrive_byte_for_byte_and_the_others_are_named(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = fetch(WANTED, tmp_path, workers=4, progress=lambda done, total: seen.append((done, total)))
    wanted = {name: data for name, data in FILES.items() if Path(name).stem in GOOD}
    assert held(tmp_path) == wanted
    assert (report.source, report.fetched, report.present) == (f"s3://{BUCKET}", 13, 0)
    assert report.fetched_bytes == sum(map(len, wanted.values()))
    assert seen == [(n, 17) for n in range(1, 18)]
    errors = refusals(report)
    assert errors.keys() == {"00100", "00101", "00102", "00103"}
    assert errors["00100"] == f"metadata/00100.json cannot be read: no such file in s3://{BUCKET}"
    assert errors["00101"] == f"bin-images/00101.jpg cannot be read: no such file in s3://{BUCKET}"
    assert errors["00102"].startswith("bin-images/00102.jpg: a truncated JPEG")
    assert errors["00103"].startswith("metadata/00103.json: not JSON")


def test_what_was_fetched_opens_as_a_labelled_set(tmp_path: Path) -> None:
    fetch({"00002": None, "1": None}, tmp_path)
    found = open_labelled(str(tmp_path))
    assert [(one.uri, one.count, one.products) for one in found.pictures] == [
        ("bin-images/00002.jpg", 1, ("B00002",)),
        ("bin-images/1.jpg", 0, ()),
    ]


def test_a_second_run_fetches_only_what_is_missing_or_damaged(tmp_path: Path) -> None:
    fetch(dict.fromkeys(GOOD), tmp_path)
    (tmp_path / "bin-images/00003.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "metadata/00004.json").write_bytes(b"")
    (tmp_path / "bin-images/00005.jpg").unlink()
    untouched = (tmp_path / "bin-images/00006.jpg").stat().st_mtime_ns
    report = fetch(dict.fromkeys(GOOD), tmp_path)
    assert (report.fetched, report.present, report.refused) == (3, 10, ())
    assert held(tmp_path) == {name: data for name, data in FILES.items() if Path(name).stem in GOOD}
    assert (tmp_path / "bin-images/00006.jpg").stat().st_mtime_ns == untouched


def test_what_a_killed_run_left_half_written_is_removed_once_it_is_old(tmp_path: Path) -> None:
    write(tmp_path, {"bin-images/.00001.jpg.a.part": b"", "bin-images/.00002.jpg.b.part": b""})
    os.utime(tmp_path / "bin-images/.00001.jpg.a.part", (time.time() - 7_200,) * 2)
    fetch({"00001": None}, tmp_path)
    assert sorted(path.name for path in (tmp_path / "bin-images").iterdir()) == [".00002.jpg.b.part", "00001.jpg"]


def test_a_count_that_the_list_contradicts_is_noted(tmp_path: Path) -> None:
    report = fetch({"00002": 1, "00003": 1}, tmp_path)
    assert [(one.path, one.error) for one in report.notes] == [("00003", "the list says 1, EXPECTED_QUANTITY 2")]
    again = fetch({"00002": 1, "00003": 1}, tmp_path)
    assert (again.present, again.notes) == (2, report.notes)


def test_a_local_folder_is_a_source_too(tmp_path: Path) -> None:
    source = write(tmp_path / "here", bins({"00001": {"B1": 2}}))
    assert fetch({"00001": None}, tmp_path / "there", source=str(source)).fetched == 1
    assert held(source) == held(tmp_path / "there")


def test_a_file_shorter_than_its_source_says_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "here", bins({"00001": {"B1": 2}}))
    monkeypatch.setattr(LocalFiles, "size_bytes", lambda self, uri: 4_096)  # as when the source grows while it is read
    report = fetch({"00001": None}, tmp_path / "there", source=str(source))
    size = len((source / "metadata/00001.json").read_bytes())
    assert refusals(report) == {"00001": f"metadata/00001.json came with {size} bytes, the source says 4,096"}
    assert held(tmp_path / "there") == {}


def test_a_source_that_cannot_be_reached_ends_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lead_nowhere(monkeypatch)
    with pytest.raises(CannotBeDone, match=r"cannot read s3://aft-vbi-pds: .*; run it again, it goes on where it was"):
        fetch(dict.fromkeys(GOOD), tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CannotBeDone, match=r"cannot make the folder .*file/bin-images: Not a directory"):
        fetch({"00001": None}, tmp_path / "file")


def test_no_stems_and_no_workers_are_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="no stems to fetch"):
        fetch({}, tmp_path)
    with pytest.raises(BadSettings, match="want workers from 1 to 256, got 0"):
        fetch({"1": None}, tmp_path, workers=0)


@pytest.mark.parametrize(
    ("text", "stems"),
    [
        ("00001\n\n# a remark\n1\n00001\n", {"00001": None, "1": None}),
        ("bin-images/00001.jpg\n", {"00001": None}),
        ('["00001", "00002"]', {"00001": None, "00002": None}),
        ('{"1": ["data/metadata/00014.json"], "2": ["00015", "00015"]}', {"00014": 1, "00015": 2}),
        ('{"train": ["00014"]}', {"00014": None}),
    ],
)
def test_lists_of_stems_come_in_many_forms(tmp_path: Path, text: str, stems: dict[str, int | None]) -> None:
    (tmp_path / "list").write_text(text)
    assert stems_of_list(tmp_path / "list") == stems


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("../../etc/passwd.json/..\n", r"want a stem such as 00014, got '../../etc/passwd.json/..'"),
        ("a b\n", "want a stem such as 00014, got 'a b'"),
        ('{"1": "00014"}', """want lists of stems in .*, got "00014" under '1'"""),
        ('{"1": [14]}', r"want lists of stems in .*, got \[14\] under '1'"),
        ('{"1": ["00014"], "2": ["00014"]}', "names 00014 under two counts, 1 and 2"),
        ('{"1": ', "is not JSON"),
    ],
)
def test_a_list_that_is_none_says_why(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list").write_text(text)
    with pytest.raises(BadSource, match=message):
        stems_of_list(tmp_path / "list")


@pytest.mark.parametrize("text", ["", "5", "9:1", "1:x", "-1:3", "1:100000000", "1:2:3"])
def test_a_range_that_is_none_is_named(text: str) -> None:
    with pytest.raises(BadSettings, match="want a range FIRST:LAST such as 1:100, got "):
        stems_of_range(text)


def test_a_range_has_both_ends_and_five_digits() -> None:
    assert list(stems_of_range("8:11")) == ["00008", "00009", "00010", "00011"]


def test_the_report_is_json() -> None:
    report = FetchReport("s3://b", "here", 1, 2, (), (), 3, 0.12345)
    assert report.to_json() == {
        "source": "s3://b",
        "out": "here",
        "fetched": 1,
        "present": 2,
        "refused": [],
        "notes": [],
        "fetched_bytes": 3,
        "took_s": 0.123,
    }


def test_killed_at_any_time_it_goes_on_where_it_was(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from binsight.data.fetch import fetch, stems_of_list\n"
        "fetch(stems_of_list(Path(sys.argv[1])), Path(sys.argv[2]), workers=1)"
    )
    (tmp_path / "list").write_text("\n".join(GOOD))
    out = tmp_path / "out"
    job = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "list"), str(out)])
    try:
        end = time.monotonic() + 60
        while len(list(out.glob("bin-images/*.jpg"))) < 2 and job.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
    finally:
        job.kill()
        job.wait()
    whole = {name: data for name, data in FILES.items() if Path(name).stem in GOOD}
    left = {name: data for name, data in held(out).items() if not name.endswith(".part")}
    assert left.items() <= whole.items()  # what is there is whole
    n = len(list(out.glob("bin-images/*.jpg")))
    report = fetch(dict.fromkeys(GOOD), out)
    assert (report.present, report.fetched) == (n, len(GOOD) - n)
    assert {name: data for name, data in held(out).items() if not name.endswith(".part")} == whole
