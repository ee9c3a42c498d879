"""`python -m indexer run`: every source into a store, what the report says, and how it ends."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from indexer.cli import run
from indexer.display import Display
from rich.console import Console

from binsight.store import open_store
from tests import bins
from tests.conftest import ROOT
from tests.fakes import paint
from tests.indexer.jobs import MODEL, Done, start
from tests.redis_server import redis_server


def test_a_folder_goes_into_a_store_and_a_second_run_finds_it_there(parts: Path, tmp_path: Path, done: Done) -> None:
    job = ("run", parts, "--store", tmp_path / "s.store")
    report = done(*job, "--model", MODEL)
    assert {name: report[name] for name in ("indexed", "unchanged", "refused", "part", "items", "count_field")} == {
        "indexed": 3, "unchanged": 0, "refused": [], "part": "1/1", "items": 3, "count_field": None
    }  # fmt: skip
    report = done(*job)
    assert (report["indexed"], report["unchanged"], report["items"]) == (0, 3, 3)


def test_a_manifest_and_a_metadata_file_give_their_fields(parts: Path, tmp_path: Path, done: Done) -> None:
    (parts / "m.csv").write_text("path,id,quantity\nram/a.png,A,4\nram/gone.png,G,1\n")
    report = done("run", parts / "m.csv", "--store", tmp_path / "m.store", "--model", MODEL, code=1)
    assert [Path(one["path"]).name for one in report["refused"]] == ["gone.png"]
    done("run", parts, "--metadata", parts / "m.csv", "--store", tmp_path / "f.store", "--model", MODEL, code=1)
    for store, items in (("m", {"A"}), ("f", {"A", "ram/b.png", "cpu/c.png"})):
        with open_store(tmp_path / f"{store}.store", read_only=True) as opened:
            assert {item.id for item in opened.scan()} == items
            assert [item.id for item in opened.scan("quantity = 4")] == ["A"]


def test_every_stage_tells_what_it_did(parts: Path, tmp_path: Path, done: Done) -> None:
    report = done("run", parts, "--store", tmp_path / "s.store", "--model", MODEL)
    items = {one["stage"]: one["items"] for one in report["stages"]}
    assert items == {"list": 3, "compare": 3, "read": 3, "decode": 3, "encode": 3, "write": 3}
    for one in report["stages"]:
        assert one["busy_s"] >= 0
        assert 0 <= one["busy"] <= 1
    busiest = max(report["stages"], key=lambda one: float(one["busy_s"] / one["threads"]))
    assert report["bottleneck"] == busiest["stage"]


def test_what_abid_records_of_a_bin_is_found_by_filters(tmp_path: Path, done: Done) -> None:
    bins.write(tmp_path / "abid", bins.bins({"00001": {"B1": 2, "B2": 1, "B0": 0}, "1": {"B2": 4}, "00003": {}}))
    bins.write(tmp_path / "abid", {"bin-images/00004.jpg": bins.photo()})
    report = done("run", f"abid:{tmp_path / 'abid'}", "--store", tmp_path / "s.store", "--model", MODEL, code=1)
    assert [(Path(one["path"]).name, one["error"]) for one in report["refused"]] == [
        ("00004.jpg", "no metadata: want metadata/00004.json")
    ]
    with open_store(tmp_path / "s.store", read_only=True) as store:
        assert {item.id for item in store.scan('products has "B2"')} == {"bin-images/00001.jpg", "bin-images/1.jpg"}
        assert {item.id for item in store.scan("quantity >= 3")} == {"bin-images/00001.jpg", "bin-images/1.jpg"}
        assert {item.id for item in store.scan('products has "B0"')} == set()


def test_a_shared_store_is_filled_and_its_password_is_not_told(parts: Path, tmp_path: Path, done: Done) -> None:
    with redis_server(tmp_path / "redis", "--appendonly", "yes", "--requirepass", "secret") as server:
        url = server.url(user=":secret@")
        report = done("run", parts, "--store", url, "--model", MODEL)
        assert (report["indexed"], report["items"]) == (3, 3)
        assert "secret" not in json.dumps(report)
        with open_store(url, read_only=True) as store:
            assert len(store) == 3


def test_the_shipped_model_stores_its_count_in_the_same_pass(tmp_path: Path, done: Done) -> None:
    bins.write(tmp_path / "abid", bins.bins({"00001": {"B1": 2}, "00002": {"B1": 5}}))
    job = ("run", f"abid:{tmp_path / 'abid'}", "--store", tmp_path / "s.store")
    report = done(*job, "--model", ROOT / "models/bins-mobilenetv2", "--no-count")
    assert report["count_field"] is None
    report = done(*job)
    assert (report["indexed"], report["count_field"]) == (2, "count")
    with open_store(tmp_path / "s.store", read_only=True) as store:
        for item in store.scan("count >= 0"):
            assert item.metadata["count_low"] <= item.metadata["count"] <= item.metadata["count_high"]
        assert len(list(store.scan("count >= 0"))) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("{parts}/none", "--store", "{tmp}/s.store", "--model", MODEL), 2, "no such file or folder"),
        (("{parts}", "--store", "{tmp}/s.store"), 2, "--model"),
        (("{parts}", "--store", "shards:{tmp}/s"), 2, "--model"),
        (("{parts}", "--store", "shards:{parts}", "--model", MODEL), 2, "is there and holds no shards"),
        (("{parts}", "--store", "shards:{tmp}/s", "--model", MODEL, "--prune"), 2, "only added to"),
        (("{parts}", "--store", "{tmp}/s.store", "--model", MODEL, "--part", "0/4"), 2, "I from 1 to N"),
        (("{parts}", "--store", "{tmp}/s.store", "--model", MODEL, "--part", "two"), 2, "want part I/N such as 2/8"),
        (("{parts}", "--store", "{tmp}/s.store", "--model", MODEL, "--count-field", "seen"), 2, "does not count"),
        (("{parts}", "--store", "{tmp}/s.store", "--model", MODEL, "--wait-s", "-1"), 2, "want to wait from 0"),
        (("{parts}", "--store", "shards:{tmp}/s", "--model", MODEL, "--shard-items", "0"), 2, "want shards of 1"),
        (("abid:{parts}", "--store", "{tmp}/s.store", "--model", MODEL), 2, "no photo in"),
        (("{parts}", "--store", "redis://127.0.0.1:1/0?index=x", "--model", MODEL), 3, "cannot be reached"),
    ],
)
def test_a_job_that_cannot_begin_says_why_in_one_line(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, message: str
) -> None:
    given = [one.format(parts=parts, tmp=tmp_path) for one in arguments]
    assert run(["run", *given, "--json"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("indexer: ")


def test_a_store_that_another_job_writes_is_3(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", str(parts), "--store", str(tmp_path / "s.store"), "--model", MODEL]) == 0
    with open_store(tmp_path / "s.store"):
        assert run(["run", str(parts), "--store", str(tmp_path / "s.store")]) == 3
    assert "indexer: " in capsys.readouterr().err


def test_a_job_told_to_end_says_so_and_goes_on_later(tmp_path: Path, done: Done) -> None:
    for n in range(400):
        paint(tmp_path / f"many/{n}.png", (n % 256, n // 8 % 256, 7), size=(4, 4))
    with start("run", tmp_path / "many", "--store", tmp_path / "s.store", "--model", MODEL) as job:
        while not (tmp_path / "s.store/CURRENT").exists() and job.poll() is None:
            time.sleep(0.001)
        job.terminate()
        _, err = job.communicate()
    assert (job.returncode, err.splitlines()[-1]) == (130, "indexer: interrupted")
    report = done("run", tmp_path / "many", "--store", tmp_path / "s.store")
    assert report["indexed"] + report["unchanged"] == 400


def test_without_a_terminal_a_line_tells_how_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(line_every_s=0.02)
    display.progress(2, 5)
    display.rates.unchanged = 1
    display.rates.add("encode", 100, 2.0)
    with display:
        time.sleep(0.2)
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("2 of 5 done, 1 of them were there already; encode 50/s (")
    assert first.endswith("bottleneck: encode")


def test_on_a_terminal_a_table_marks_the_bottleneck() -> None:
    out = io.StringIO()
    with Display(Console(file=out, force_terminal=True, width=100, color_system=None)) as display:
        display.progress(2, 5)
        display.rates.add("read", 100, 0.5)
        display.rates.add("encode", 100, 2.0)
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert ["read", "100", "200"] in [line[:3] for line in lines]
    assert any(line[:3] == ["encode", "100", "50"] and "bottleneck" in line for line in lines)
