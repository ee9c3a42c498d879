"""`binsight data …` as a user types it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from binsight.cli import run
from tests.bins import bins, photo, write
from tests.s3_server import BUCKET, lead_nowhere, lead_to, s3_bucket

# Two shots of each of ten bins: a split at random leaks.
SHOTS = {f"{2 * i + j:05}": {f"B{i}": i % 3 + 1 + j} for i in range(1, 11) for j in (0, 1)}


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def document(self) -> Any:
        return json.loads(self.out)


class Shell:
    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *arguments: str | Path) -> Result:
        self._capfd.readouterr()
        code = run(["data", *map(str, arguments)])
        return Result(code, *self._capfd.readouterr())

    def fails(self, *arguments: str | Path, code: int) -> str:
        result = self(*arguments)
        assert (result.code, result.out) == (code, ""), result.err
        assert "Traceback" not in result.err
        return result.err


@pytest.fixture
def shell(capfd: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capfd)


@pytest.fixture
def abid(tmp_path: Path) -> Path:
    return write(tmp_path / "abid", bins(SHOTS))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_bucket(bins(SHOTS)) as address:
        yield address


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_split_writes_a_manifest_that_keeps_bins_together(shell: Shell, abid: Path, tmp_path: Path) -> None:
    result = shell("split", abid, "--out", tmp_path / "s.csv", "--fractions", "60/20/20", "--seed", "3", "--json")
    assert (result.code, result.err) == (0, "")
    document = result.document
    assert document["sizes"] == {"train": 12, "val": 4, "test": 4}
    assert document["groups"] == {"train": 6, "val": 2, "test": 2}
    assert (document["by"], document["seed"], document["fractions"]) == ("group", 3, [60, 20, 20])
    assert document["leak"] == {"held_out": 8, "group_share": 0, "product_share": 0, "sister_share": 0}
    rows = rows_of(tmp_path / "s.csv")
    assert list(rows[0]) == ["path", "split", "group", "count"]
    assert len(rows) == 20
    assert len({(row["group"], row["split"]) for row in rows}) == 10


def test_a_random_split_warns_with_the_leak_it_measured(shell: Shell, abid: Path, tmp_path: Path) -> None:
    result = shell("split", abid, "--out", tmp_path / "s.csv", "--by", "random", "--fractions", "80/20")
    assert result.code == 0
    assert result.err.startswith("warning: this split leaks: of 4 val and test pictures, ")
    assert "use --by group" in result.err
    assert [line.split()[:2] for line in result.out.splitlines()] == [["split", "pictures"], ["train", "16"], ["test", "4"]]


def test_a_group_too_large_for_the_fractions_is_said(shell: Shell, tmp_path: Path) -> None:
    held = {f"{i:05}": {"B": 1} for i in range(16)} | {f"{i:05}": {f"C{i}": 1} for i in range(20, 24)}
    result = shell("split", write(tmp_path / "abid", bins(held)), "--out", tmp_path / "s.csv", "--json")
    assert (result.code, result.document["sizes"]) == (0, {"train": 16, "val": 2, "test": 2})
    assert result.err.startswith("note: train, val, test differ from the fractions asked for: the largest groups stay whole")


def test_only_the_counts_asked_for_are_split(shell: Shell, abid: Path, tmp_path: Path) -> None:
    assert shell("split", abid, "--out", tmp_path / "s.csv", "--counts", "2:3", "--by", "random").code == 0
    assert {row["count"] for row in rows_of(tmp_path / "s.csv")} == {"2", "3"}


def test_pictures_without_metadata_are_named_and_the_rest_is_split(shell: Shell, abid: Path, tmp_path: Path) -> None:
    (abid / "bin-images/00099.jpg").write_bytes(photo())
    result = shell("split", abid, "--out", tmp_path / "s.csv", "--json")
    assert result.code == 1
    assert result.document["refused"] == [{"path": "bin-images/00099.jpg", "error": "no metadata: want metadata/00099.json"}]
    assert "refused: bin-images/00099.jpg: no metadata" in result.err
    assert len(rows_of(tmp_path / "s.csv")) == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--by", "product"), "want --by group or --by random, got 'product'"),
        (("--fractions", "60:20:20"), "want --fractions such as 60/20/20"),
        (("--fractions", "100"), "want --fractions such as 60/20/20"),
        (("--counts", "5:1"), "want --counts LOW:HIGH such as 1:5, got '5:1'"),
        (("--counts", "80"), "has a count in 80"),
    ],
)
def test_wrong_options_of_split_are_wrong_use(
    shell: Shell, abid: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    assert message in shell.fails("split", abid, "--out", tmp_path / "s.csv", *options, code=2)
    assert not (tmp_path / "s.csv").exists()


def test_report_writes_a_page_and_prints_its_figures(shell: Shell, abid: Path, tmp_path: Path) -> None:
    shell("split", abid, "--out", tmp_path / "s.csv", "--by", "random")
    result = shell("report", abid, "--out", tmp_path / "report", "--split", tmp_path / "s.csv", "--json")
    assert result.code == 0
    assert result.document["pictures"] == 20
    assert result.document["split"]["leak"]["held_out"] == 8
    assert result.document["page"] == str(tmp_path / "report/report.html")
    assert (tmp_path / "report/report.html").is_file()
    assert "warning: this split leaks" in result.err


def test_report_names_pictures_that_cannot_be_read(shell: Shell, abid: Path, tmp_path: Path) -> None:
    (abid / "bin-images/00002.jpg").write_bytes(photo()[:99])
    result = shell("report", abid, "--out", tmp_path / "report")
    assert result.code == 1
    assert result.err.startswith("refused: bin-images/00002.jpg: ")
    assert "20 (abid)" in result.out


def test_report_of_a_split_of_another_set_is_wrong_use(shell: Shell, abid: Path, tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("path,split,group,count\nx.jpg,train,x,1\ny.jpg,test,y,1\n")
    message = shell.fails("report", abid, "--out", tmp_path / "report", "--split", tmp_path / "s.csv", code=2)
    assert "2 pictures of the split are not in" in message


def test_fetch_brings_bins_from_the_public_bucket(
    shell: Shell, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead_to(server, monkeypatch)
    out = tmp_path / "here"
    result = shell("fetch", "--out", out, "--range", "1:4", "--json")
    assert result.code == 1
    assert (result.document["source"], result.document["fetched"]) == (f"s3://{BUCKET}", 3)
    assert [one["path"] for one in result.document["refused"]] == ["00001"]
    assert sorted(path.name for path in (out / "bin-images").iterdir()) == ["00002.jpg", "00003.jpg", "00004.jpg"]
    (tmp_path / "list.json").write_text(json.dumps({"2": ["00002"], "3": ["00003", "00005"]}))
    again = shell("fetch", "--out", out, "--list", tmp_path / "list.json", "--workers", "2")
    assert again.code == 0
    assert again.out.startswith("1 fetched (0.0 MB), 2 were here, 0 refused; ")
    assert "note: 00005: the list says 3, EXPECTED_QUANTITY 4" in again.err
    assert shell("fetch", "--out", out, "--stems", "00002, 00006", "--source", f"s3://{BUCKET}/").code == 0
    assert shell("split", f"s3://{BUCKET}", "--out", tmp_path / "s.csv", "--json").document["sizes"]["train"] == 12


def test_fetch_from_a_bucket_that_cannot_be_reached_could_not_be_done(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead_nowhere(monkeypatch)
    assert "cannot read s3://aft-vbi-pds" in shell.fails("fetch", "--out", tmp_path, "--stems", "1", code=3)


@pytest.mark.parametrize("options", [(), ("--stems", "1", "--range", "1:2")])
def test_fetch_wants_one_way_to_name_bins(shell: Shell, tmp_path: Path, options: tuple[str, ...]) -> None:
    message = shell.fails("fetch", "--out", tmp_path, *options, code=2)
    assert "want one of --list FILE, --stems A,B and --range FIRST:LAST" in message
