"""R13: a job killed again and again, with bad files among the good, ends as one undisturbed; a full disk ends it with 3."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from indexer.cli import run
from indexer.shards import Shards

from binsight.store import VectorStore, open_store
from tests.fakes import paint_pictures
from tests.indexer.jobs import MODEL, SMALL_BATCHES, Done, assert_alike, done_with, start, state


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL_BATCHES.items():
        monkeypatch.setenv(name, value)


def opened(sink: str) -> VectorStore:
    if sink.startswith("shards:"):
        return Shards.open(Path(sink.removeprefix("shards:")), read_only=True)
    return open_store(sink, read_only=True)


def job(pictures: Path, sink: str) -> subprocess.Popen[str]:
    return start("run", pictures, "--store", sink, "--model", MODEL, "--shard-items", 32, "--json")


def written_bytes(sink: str) -> int:
    folder = Path(sink.removeprefix("shards:"))
    return sum(path.stat().st_size for ending in ("journal-*.log", "part-*.npy") for path in folder.glob(ending))


def kill_at(size: int, pictures: Path, sink: str) -> bool:
    """Kill a job once its sink has so many bytes; whether it was still at work then."""
    with job(pictures, sink) as running:
        while running.poll() is None and written_bytes(sink) < size:
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        return running.returncode == -signal.SIGKILL


def kill_again_and_again(folder: Path, kind: str, done: Done, *, kills: int, pictures: int) -> int:
    """How many of the kills met a job under way."""
    random = np.random.default_rng(9)
    bad = paint_pictures(folder / "pictures", pictures)
    whole, cut = f"{kind}{folder / 'whole'}", f"{kind}{folder / 'cut'}"
    given = ("run", folder / "pictures", "--model", MODEL, "--shard-items", 32)
    report = done(*given, "--store", whole, code=1)
    assert [report[name] for name in ("indexed", "items")] == [pictures, pictures]
    size, met = written_bytes(whole), 0
    for n in range(kills):
        met += kill_at(int(size * (n + 0.2 + 0.6 * random.random()) / kills), folder / "pictures", cut)
    report = done(*given, "--store", cut, code=1)
    assert report["indexed"] + report["unchanged"] == pictures
    assert len(report["refused"]) == bad
    assert report["unchanged"] > 0
    with opened(whole) as first, opened(cut) as second:
        assert second.verify().problems == []
        assert_alike(state(second), state(first))
        assert len(second) == pictures
    return met


def test_a_job_killed_under_way_ends_as_one_undisturbed(tmp_path: Path, done: Done) -> None:
    """Into shards; tests/cli/test_killed_index.py does it with a store."""
    assert kill_again_and_again(tmp_path, "shards:", done, kills=3, pictures=160) >= 2


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["", "shards:"])
def test_a_job_killed_twenty_times_ends_as_one_undisturbed(tmp_path: Path, kind: str, done: Done) -> None:
    assert kill_again_and_again(tmp_path, kind, done, kills=20, pictures=4000) >= 18


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    yield from mounted(folder, "1m")


@pytest.fixture
def large_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    yield from mounted(folder, "64m")


def mounted(folder: Path, size: str) -> Iterator[Path]:
    mount, umount = shutil.which("mount"), shutil.which("umount")
    command = [mount or "mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if not mount or not umount or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no disk of its own can be mounted here: run the tests as root")
    yield folder
    subprocess.run([umount, "-l", str(folder)], check=True)


def fill_up(disk: Path, pictures: Path, kind: str, capsys: pytest.CaptureFixture[str], *, spare_bytes: int) -> None:
    """A job that fills a disk ends with 3 and keeps what it said; with room again it goes on."""
    sink, ballast = f"{kind}{disk / 'sink'}", disk / "ballast"
    ballast.write_bytes(b"x" * (shutil.disk_usage(disk).free - spare_bytes))
    given = ["run", str(pictures), "--store", sink, "--model", MODEL, "--shard-items", "32", "--json"]
    code = run(given)
    out, err = capsys.readouterr()
    assert (code, out) == (3, ""), err
    assert re.search("No space left on device|disk is full", err)
    ballast.unlink()
    with opened(sink) as store:
        assert store.verify().problems == []
        kept = len(store)
    report = done_with(capsys)(*given[:-1], code=1)
    assert report["unchanged"] >= kept
    with opened(sink) as store:
        assert len(store) == report["items"] == report["indexed"] + report["unchanged"]
        assert store.verify().problems == []


@pytest.mark.parametrize("kind", ["", "shards:"])
def test_a_full_disk_ends_a_job_with_3_and_it_goes_on_when_there_is_room(
    disk: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paint_pictures(tmp_path / "pictures", 160)
    fill_up(disk, tmp_path / "pictures", kind, capsys, spare_bytes=150_000)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["", "shards:"])
def test_a_full_disk_of_64_mb_ends_a_job_with_3_and_it_goes_on(
    large_disk: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paint_pictures(tmp_path / "pictures", 4000)
    fill_up(large_disk, tmp_path / "pictures", kind, capsys, spare_bytes=3_000_000)
