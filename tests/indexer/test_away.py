"""A shared store that goes away in the middle of a job: waited for, or the job stops cleanly and goes on later."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from indexer.cli import run
from indexer.display import Display
from indexer.job import Job, run_job

from binsight.encoder import load_encoder
from binsight.settings import Settings
from binsight.store import open_store
from tests.fakes import paint, paint_pictures
from tests.indexer.jobs import MODEL, SMALL_BATCHES, assert_alike, state
from tests.redis_server import RedisServer, redis_server


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL_BATCHES.items():
        monkeypatch.setenv(name, value)


def held(server: RedisServer) -> int:
    client: Any = server.client()
    return int(client.hlen("binsight:{t:0}:r"))


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def run_with_server_away(
    folder: Path, capsys: pytest.CaptureFixture[str], *, pictures: int, how: signal.Signals, away_s: float, wait_s: float
) -> Ended:
    """How a job ended whose server stops, or is killed and started again, in its middle."""
    paint_pictures(folder / "pictures", pictures)
    with redis_server(folder / "redis") as server:
        job = ["run", str(folder / "pictures"), "--model", MODEL, "--wait-s", str(wait_s), "--json"]
        here = [*job, "--store", server.url(timeout_s=0.5)]
        with server_away(server, pictures // 4, how, away_s):
            code = run(here)
        ended = Ended(code, *capsys.readouterr())
        assert run(here) == 1  # whatever became of the first, the second brings all there
        report = json.loads(capsys.readouterr().out)
        assert report["indexed"] + report["unchanged"] == report["items"] == pictures
        assert run([*job, "--store", str(folder / "whole.store")]) == 1
        with open_store(server.url(), read_only=True) as store, open_store(folder / "whole.store", read_only=True) as whole:
            assert store.verify().problems == []
            assert_alike(state(store), state(whole))
        return ended


@contextmanager
def server_away(server: RedisServer, items: int, how: signal.Signals, away_s: float) -> Iterator[None]:
    """While the block runs: once the server holds so many items it is away for a while."""

    def act() -> None:
        while held(server) < items:
            time.sleep(0.002)
        assert server.process is not None
        if how is signal.SIGSTOP:
            server.process.send_signal(how)
            time.sleep(away_s)
            server.process.send_signal(signal.SIGCONT)
        else:
            server.end(how)
            time.sleep(away_s)
            server.start()

    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(act)
        yield
        acting.result()


def test_a_job_waits_while_its_store_takes_no_writes_also_to_prune(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], redis_8: RedisServer
) -> None:
    redis_8.client().flushall()
    photos = [paint(tmp_path / f"pictures/{n}.png", (n, 9, 9)) for n in range(3)]
    job = ["run", str(photos[0].parent), "--store", redis_8.url(), "--model", MODEL, "--prune", "--json"]
    with open_store(redis_8.url(), create=load_encoder(MODEL).info) as other:
        for indexed, pruned in ((3, 0), (0, 1)):
            other.hold_writes("it moves", for_s=60)
            assert run([*job, "--wait-s", "0"]) == 3
            assert "takes no writes now: it moves" in capsys.readouterr().err
            other.hold_writes("it moves", for_s=2)
            assert run([*job, "--wait-s", "30"]) == 0
            report = json.loads(capsys.readouterr().out)
            assert (report["indexed"], report["pruned"]) == (indexed, pruned)
            assert 0.5 < report["waited_s"] < 10
            photos[0].unlink(missing_ok=True)


def test_a_job_waits_for_a_server_that_is_away_at_its_very_end(tmp_path: Path) -> None:
    photos = [paint(tmp_path / f"pictures/{n}.png", (n, 9, 9)) for n in range(3)]
    with redis_server(tmp_path / "redis") as server:
        display = Display()

        def stop_at_the_end(done: int, total: int) -> None:
            if done == total:
                assert server.process is not None
                server.process.send_signal(signal.SIGSTOP)
                Timer(2.0, server.process.send_signal, [signal.SIGCONT]).start()

        display.progress = stop_at_the_end  # type: ignore[method-assign]  # the moment after the last write
        job = Job((str(photos[0].parent),), server.url(timeout_s=0.3), MODEL, wait_s=30)
        report = run_job(job, Settings.read(), display)
        assert report.items == 3
        assert 1.0 < report.ingested.waited_s < 10


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_a_job_waits_for_a_server_that_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: signal.Signals
) -> None:
    ended = run_with_server_away(tmp_path, capsys, pictures=200, how=how, away_s=3, wait_s=30)
    assert ended.code == 1, ended.err
    report = json.loads(ended.out)
    assert (report["indexed"], len(report["refused"])) == (200, 10)
    assert report["waited_s"] > 1


def test_a_job_whose_server_stays_away_stops_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = run_with_server_away(tmp_path, capsys, pictures=200, how=signal.SIGKILL, away_s=5, wait_s=0.5)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.splitlines()[-1].startswith("indexer: redis://127.0.0.1:")
    assert "cannot be reached" in ended.err


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_a_job_waits_half_a_minute_for_a_server_that_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: signal.Signals
) -> None:
    ended = run_with_server_away(tmp_path, capsys, pictures=2000, how=how, away_s=30, wait_s=120)
    assert ended.code == 1, ended.err
    report = json.loads(ended.out)
    assert (report["indexed"], len(report["refused"])) == (2000, 100)
    assert report["waited_s"] > 25
