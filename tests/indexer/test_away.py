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
from typing import Any

import pytest
from indexer.cli import run

from binsight.store import open_store
from tests.fakes import paint_pictures
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
