"""`python -m indexer run`: every source into a store, what the report says, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from binsight.store import open_store
from indexer.cli import run
from tests import bins
from tests.fakes import paint

MODEL = "binsight:colour-layout"


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Three pictures in two class folders."""
    for place, name in enumerate(("ram/a.png", "ram/b.png", "cpu/c.png")):
        paint(tmp_path / "parts" / name, (60 * place, 200 - 60 * place, 30))
    return tmp_path / "parts"


def done(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    """The report of a job that ended so; nothing but JSON was on stdout."""
    assert run([*map(str, arguments), "--json"]) == code
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_a_folder_goes_into_a_store_and_a_second_run_finds_it_there(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ("run", parts, "--store", tmp_path / "s.store")
    report = done(capsys, *job, "--model", MODEL)
    assert {name: report[name] for name in ("indexed", "unchanged", "refused", "part", "items", "count_field")} == {
        "indexed": 3, "unchanged": 0, "refused": [], "part": "1/1", "items": 3, "count_field": None
    }  # fmt: skip
    report = done(capsys, *job)
    assert (report["indexed"], report["unchanged"], report["items"]) == (0, 3, 3)


def test_every_stage_tells_what_it_did(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = done(capsys, "run", parts, "--store", tmp_path / "s.store", "--model", MODEL)
    items = {one["stage"]: one["items"] for one in report["stages"]}
    assert items == {"list": 3, "compare": 3, "read": 3, "decode": 3, "encode": 3, "write": 3}
    for one in report["stages"]:
        assert one["busy_s"] >= 0
        assert 0 <= one["busy"] <= 1
    busiest = max(report["stages"], key=lambda one: one["busy_s"] / one["threads"])
    assert report["bottleneck"] == busiest["stage"]


def test_what_abid_records_of_a_bin_is_found_by_filters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = bins.bins({"00001": {"B1": 2, "B2": 1, "B0": 0}, "1": {"B2": 4}, "00003": {}})
    bins.write(tmp_path / "abid", files)
    bins.write(tmp_path / "abid", {"bin-images/00004.jpg": bins.photo()})
    report = done(capsys, "run", f"abid:{tmp_path / 'abid'}", "--store", tmp_path / "s.store", "--model", MODEL, code=1)
    assert [(Path(one["path"]).name, one["error"]) for one in report["refused"]] == [
        ("00004.jpg", "no metadata: want metadata/00004.json")
    ]
    with open_store(tmp_path / "s.store", read_only=True) as store:
        assert {item.id for item in store.scan('products has "B2"')} == {"bin-images/00001.jpg", "bin-images/1.jpg"}
        assert {item.id for item in store.scan("quantity >= 3")} == {"bin-images/00001.jpg", "bin-images/1.jpg"}
        assert {item.id for item in store.scan('products has "B0"')} == set()
