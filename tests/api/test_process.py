"""The server as a process: its start, its log, its end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from binsight.cli import run
from binsight.store import open_store
from tests.api.conftest import picture
from tests.api.servers import NO_TLS, Process, web
from tests.redis_server import redis_server

UNIT = [1.0] + [0.0] * 15


def end_under_load(store: str | Path, model: Path, cache: Path, *, name: str, drain_s: float) -> None:
    """Eight clients write pictures when SIGTERM comes: what was acknowledged is there, and nothing else; the exit code is 0."""
    acknowledged: list[str] = []
    with Process("--store", store, "--model", model, cache=cache, api_drain_s=drain_s) as running:

        def write(client_number: int) -> None:
            with httpx.Client(base_url=running.url, timeout=30, verify=NO_TLS) as http:
                for n in range(10_000):
                    item_id = f"{name}/{client_number}/{n}"
                    try:
                        response = http.put(f"/v1/items/{item_id}", files={"image": picture(client_number)})
                    except httpx.TransportError:  # the end; a connection that was idle may be closed as a request comes
                        return
                    assert response.status_code == 200, response.text
                    acknowledged.append(item_id)

        with ThreadPoolExecutor(8) as pool:
            writers = [pool.submit(write, number) for number in range(8)]
            while len(acknowledged) < 20:
                time.sleep(0.01)
            running.terminate()
            draining = ready_status(running.url) if drain_s else 503
            assert running.end() == 0
        for writer in writers:
            writer.result()
    assert draining == 503
    assert not [one for one in running.other if "Traceback" in one]
    with open_store(str(store), read_only=True) as kept:
        written = {item.id for item in kept.scan() if item.id.startswith(f"{name}/")}
    assert written == set(acknowledged)  # none lost, and none written without an answer


def test_sigterm_lets_running_requests_finish_and_loses_nothing(model: Path, shared_cache: Path, tmp_path: Path) -> None:
    """R13."""
    end_under_load(tmp_path / "s.store", model, shared_cache, name="once", drain_s=1.5)


@pytest.mark.torture
def test_20_times_sigterm_under_load_loses_nothing(model: Path, shared_cache: Path, tmp_path: Path) -> None:
    """R13, on a local and on a shared store in turn, with and without a pause for who sends requests."""
    with redis_server(tmp_path / "redis") as redis:
        for turn in range(20):
            store = redis.url("ended") if turn % 2 else tmp_path / "s.store"
            end_under_load(store, model, shared_cache, name=str(turn), drain_s=(0.0, 0.5)[turn % 4 // 2])


def ready_status(url: str) -> int:
    """What /readyz says once the signal has arrived; it stays so until the port is closed."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        status = web.get(f"{url}/readyz", timeout=5).status_code
        if status != 200:
            return status
    return 200


def test_no_torch_is_imported_when_the_export_is_cached(model: Path, shared_cache: Path, tmp_path: Path) -> None:
    with Process("--store", tmp_path / "s.store", "--model", model, cache=shared_cache) as running:
        assert web.post(f"{running.url}/v1/count", files={"image": picture(1)}).status_code == 200
        mapped = Path(f"/proc/{running.process.pid}/maps").read_text()
    assert "openvino" in mapped
    assert "libtorch" not in mapped
    assert "/torch/" not in mapped


def test_ctrl_c_ends_with_130(model: Path, shared_cache: Path, tmp_path: Path) -> None:
    with Process("--store", tmp_path / "s.store", "--model", model, cache=shared_cache, api_drain_s=0) as running:
        running.terminate(signal.SIGINT)
        assert running.end() == 130


def test_a_read_only_server_stands_beside_a_writer_and_refuses_writes(
    model: Path, shared_cache: Path, tmp_path: Path, process: Process
) -> None:
    written = web.get(f"{process.url}/v1/info").json()["path"]
    with Process("--store", written, "--model", model, "--read-only", cache=shared_cache) as reader:
        web.put(f"{process.url}/v1/items/seen", json={"vector": UNIT}).raise_for_status()
        assert web.get(f"{reader.url}/v1/items/seen").status_code == 200
        for refused in (
            web.put(f"{reader.url}/v1/items/seen", json={"vector": UNIT}),
            web.delete(f"{reader.url}/v1/items/seen"),
        ):
            assert refused.status_code == 403
            assert "--read-only" in refused.json()["detail"]


def test_a_shared_store_that_goes_away_and_comes_back(model: Path, shared_cache: Path, tmp_path: Path) -> None:
    """Two servers on one Redis see each other's writes; without it, 503 with a reason, and afterwards all as before."""
    with redis_server(tmp_path / "redis") as redis:
        arguments = ("--store", redis.url("served"), "--model", model)
        with Process(*arguments, cache=shared_cache) as first, Process(*arguments, cache=shared_cache) as second:
            web.put(f"{first.url}/v1/items/a/1", json={"vector": UNIT, "metadata": {"n": 1}}).raise_for_status()
            found = web.post(f"{second.url}/v1/search", json={"vector": UNIT}).json()
            assert [match["id"] for match in found["matches"]] == ["a/1"]
            assert web.post(f"{second.url}/v1/search", files={"image": picture(1)}).json()["matches"][0]["id"] == "a/1"
            redis.end()
            for path in ("readyz", "v1/info", "v1/items/a/1"):
                gone = web.get(f"{second.url}/{path}", timeout=30)
                assert (gone.status_code, gone.headers["retry-after"]) == (503, "1"), gone.text
            assert web.get(f"{second.url}/healthz").status_code == 200
            redis.start()
            second.wait_ready()
            assert web.get(f"{second.url}/v1/items/a/1").json()["metadata"] == {"n": 1}


def fails(arguments: list[str | Path], capfd: pytest.CaptureFixture[str], code: int) -> str:
    assert run(["serve", *map(str, arguments)]) == code
    out, err = capfd.readouterr()
    assert out == ""
    return err.splitlines()[-1]


def test_what_prevents_a_start_is_one_line_and_an_exit_code(
    model: Path, shared_cache: Path, tmp_path: Path, process: Process, capfd: pytest.CaptureFixture[str]
) -> None:
    del shared_cache
    store = tmp_path / "s.store"
    assert "--allow-anonymous" in fails(["--store", store, "--host", "0.0.0.0"], capfd, 2)  # noqa: S104, to be refused
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BINSIGHT_API_KEYS", "me:all:secret")
        line = fails(["--store", store, "--model", model], capfd, 2)
        assert line.startswith("binsight: BINSIGHT_API_KEYS: want NAME:SCOPES:SHA256")
        assert "secret" not in line
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "choose another with --port" in fails(["--store", store, "--port", str(port)], capfd, 3)
    written = web.get(f"{process.url}/v1/info").json()["path"]
    for arguments, code, reason in (
        (["--store", store], 2, "needs --model"),
        (["--store", store, "--read-only"], 2, ""),
        (["--store", written, "--model", model], 3, str(process.process.pid)),
        (["--store", store, "--model", tmp_path / "nowhere"], 2, "nowhere"),
    ):
        program = "import sys; from binsight.cli import run; sys.exit(run(sys.argv[1:]))"
        command = [sys.executable, "-c", program, "serve", "--port", "0", *map(str, arguments)]
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        last = found.stderr.splitlines()[-1]
        assert (found.returncode, found.stdout) == (code, ""), found.stderr
        assert last.startswith("binsight: ")
        assert reason in last
        assert "listening" not in found.stderr  # no address is announced that nobody will answer at


def test_who_finds_the_store_of_a_server_locked_is_told_its_address(
    process: Process, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    written = web.get(f"{process.url}/v1/info").json()["path"]
    assert run(["index", str(tmp_path), "--store", written]) == 3
    told = (
        f"{written} is being written by process {process.process.pid}, a server at {process.url}; send it what is to be written"
    )
    assert told in capfd.readouterr().err


def test_health_is_told_while_the_model_loads(model: Path, shared_cache: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ("--store", tmp_path / "s.store", "--model", model, "--port", str(port))
    with Process(*arguments, cache=shared_cache, wait_ready=False) as running:
        url = f"http://127.0.0.1:{port}"
        found = [answer_while_starting(f"{url}/{path}") for path in ("healthz", "readyz", "v1/info")]
        if found[1].status_code == 503:  # it may be as quick as this
            assert "not loaded" in found[1].json()["detail"]
            assert found[1].headers["retry-after"] == "1"
        assert found[0].status_code == 200
        running.wait_ready()
        assert [line["event"] for line in running.lines if line["event"] in ("listening", "ready")] == ["listening", "ready"]


def answer_while_starting(url: str) -> httpx.Response:
    """What is answered as soon as the port is open."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return web.get(url, timeout=30)
        except httpx.ConnectError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
