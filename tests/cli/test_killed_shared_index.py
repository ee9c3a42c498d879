"""R13 on the shared store: `binsight index` killed under way, and its Redis killed under it; both end as undisturbed ones."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_killed_index import ENVIRONMENT, PROGRAM, state
from tests.fakes import paint_pictures
from tests.redis_server import RedisServer, redis_server


def start(pictures: Path, url: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        "index",
        str(pictures),
        "--store",
        url,
        "--model",
        "binsight:colour-layout",
        "--json",
    ]
    return subprocess.Popen(command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def held(server: RedisServer, index: str) -> int:
    client: Any = server.client()
    return int(client.hlen(f"binsight:{{{index}:0}}:r"))


def kill_at(items: int, pictures: Path, server: RedisServer) -> bool:
    """Kill a job once the store holds so many items; whether it was still at work then."""
    with start(pictures, server.url("cut")) as job:
        while job.poll() is None and held(server, "cut") < items:
            time.sleep(0.002)
        job.send_signal(signal.SIGKILL)
        job.communicate()
        return job.returncode == -signal.SIGKILL


def finished(pictures: Path, url: str) -> dict[str, Any]:
    with start(pictures, url) as job:
        out, err = job.communicate()
    assert job.returncode == 1, err  # some pictures are none
    report: dict[str, Any] = json.loads(out)
    return report


def kill_again_and_again(folder: Path, *, kills: int, pictures: int) -> int:
    """How many of the kills met a job under way. The end is compared with one undisturbed run."""
    bad = paint_pictures(folder / "pictures", pictures)
    met = 0
    with redis_server(folder / "redis") as server:
        assert finished(folder / "pictures", server.url("whole"))["indexed"] == pictures
        wanted = state(server.url("whole"))
        for n in range(kills):
            met += kill_at(int(pictures * (n + 0.5) / kills), folder / "pictures", server)
        report = finished(folder / "pictures", server.url("cut"))
        assert len(report["refused"]) == bad
        assert report["indexed"] + report["unchanged"] == pictures
        assert state(server.url("cut")) == wanted
    return met


def test_an_indexer_killed_under_way_ends_as_one_undisturbed(tmp_path: Path) -> None:
    assert kill_again_and_again(tmp_path, kills=3, pictures=200) >= 2


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_an_indexer_killed_twenty_times_ends_as_one_undisturbed(tmp_path: Path) -> None:
    assert kill_again_and_again(tmp_path, kills=20, pictures=4000) >= 18


def away_for(seconds: float, folder: Path, *, pictures: int, retry_s: float) -> tuple[int, str, dict[str, Any], dict[str, Any]]:
    """Exit code and stderr of a job whose server is killed and gone so long; its store, and one of an undisturbed job."""
    paint_pictures(folder / "pictures", pictures)
    with redis_server(folder / "redis") as server:
        finished(folder / "pictures", server.url("whole"))
        with start(folder / "pictures", server.url("cut", retry_s=retry_s)) as job:
            while job.poll() is None and held(server, "cut") < pictures // 2:
                time.sleep(0.002)
            server.end(signal.SIGKILL)
            timer = threading.Timer(seconds, server.start)
            timer.start()
            _, err = job.communicate()
            timer.join()
        return job.returncode, err, state(server.url("cut")), state(server.url("whole"))


def test_a_job_waits_for_a_server_that_restarts(tmp_path: Path) -> None:
    code, err, found, wanted = away_for(1.5, tmp_path, pictures=200, retry_s=30)
    assert code == 1, err
    assert found == wanted


def test_a_job_whose_server_stays_away_stops_with_what_it_stored(tmp_path: Path) -> None:
    code, err, found, wanted = away_for(4.0, tmp_path, pictures=200, retry_s=0.5)
    assert code == 3, err
    assert "cannot be reached" in err
    assert "Traceback" not in err
    assert len(found) >= 60
    assert found == {one: wanted[one] for one in found}


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_a_job_waits_half_a_minute_for_a_server_that_restarts(tmp_path: Path) -> None:
    code, err, found, wanted = away_for(30.0, tmp_path, pictures=2000, retry_s=60)
    assert code == 1, err
    assert found == wanted
