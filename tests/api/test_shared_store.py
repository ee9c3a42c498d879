"""R6: a Redis behind the API that is killed, paused, full or gone, under load."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest

from tests.api.servers import NO_TLS, Process
from tests.redis_server import RedisServer, redis_server, wait_until

UNIT = [1.0] + [0.0] * 15
SOON_S = 2.0


class Load:
    """Clients that write items of their own, and others that read, until the `with` ends; what each was told."""

    def __init__(self, url: str, *, writers: int = 4, readers: int = 4) -> None:
        self.url = url
        self.acknowledged: dict[str, int] = {}  # the newest number that was acknowledged of each id
        self.sent: dict[str, int] = {}  # the newest that was sent
        self.answers: list[tuple[str, int, float, str]] = []  # method, status, seconds, Retry-After
        self.wrong: list[str] = []
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(writers)]
        self._threads += [threading.Thread(target=self._read, args=(number,)) for number in range(readers)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, http: httpx.Client, method: str, path: str, **body: Any) -> httpx.Response:  # what httpx takes
        started = time.monotonic()
        response = http.request(method, path, **body)
        took_s = time.monotonic() - started
        self.answers.append((method, response.status_code, took_s, response.headers.get("retry-after", "")))
        if response.status_code == 503:
            time.sleep(0.05)
        return response

    def _write(self, number: int) -> None:
        with httpx.Client(base_url=self.url, timeout=60, verify=NO_TLS) as http:
            for n in range(10**9):
                if self._ends.is_set():
                    return
                item_id = f"{number}/{n % 50}"
                self.sent[item_id] = n
                response = self._ask(http, "PUT", f"/v1/items/{item_id}", json={"vector": UNIT, "metadata": {"n": n}})
                if response.status_code == 200:
                    self.acknowledged[item_id] = n

    def _read(self, number: int) -> None:
        rng = random.Random(number)
        with httpx.Client(base_url=self.url, timeout=60, verify=NO_TLS) as http:
            while not self._ends.is_set():
                known = list(self.acknowledged.items())
                if not known or rng.random() < 0.2:
                    self._ask(http, "POST", "/v1/search", json={"vector": UNIT, "k": 3})
                    continue
                item_id, n = rng.choice(known)
                response = self._ask(http, "GET", f"/v1/items/{item_id}")
                if response.status_code == 404 or (response.status_code == 200 and response.json()["metadata"]["n"] < n):
                    self.wrong.append(f"{item_id} was {n}, then {response.text}")

    def lost(self, http: httpx.Client) -> list[str]:
        """Acknowledged writes that are not there; a newer one of their id, sent but not acknowledged, may be instead."""
        return [one for one, n in self.acknowledged.items() if not n <= self._number(http, one) <= self.sent[one]]

    @staticmethod
    def _number(http: httpx.Client, item_id: str) -> int:
        response = http.get(f"/v1/items/{item_id}")
        return int(response.json()["metadata"]["n"]) if response.status_code == 200 else -1

    def refused_well(self) -> bool:
        """Whether there were refusals, all with Retry-After and in time, and nothing but them and good answers."""
        late = [one for one in self.answers if one[1] != 200 and (one[1] != 503 or one[2] > SOON_S or one[3] != "1")]
        assert not late, late[:5]
        return any(status == 503 for _, status, _, _ in self.answers)


Served: TypeAlias = tuple[RedisServer, Process, httpx.Client]


@pytest.fixture(scope="module")
def served(model: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A Redis, a server on it, and a client of that."""
    with (
        redis_server(tmp_path_factory.mktemp("shared") / "redis") as redis,
        Process("--store", redis.url("served"), "--model", model, cache=shared_cache) as running,
        httpx.Client(base_url=running.url, timeout=60, verify=NO_TLS) as http,
    ):
        yield redis, running, http


def health(http: httpx.Client) -> tuple[int, int]:
    """What /readyz and /healthz say, each in time."""
    found = []
    for path in ("/readyz", "/healthz"):
        started = time.monotonic()
        found.append(http.get(path).status_code)
        assert time.monotonic() - started < SOON_S, path
    return found[0], found[1]


def is_ready(http: httpx.Client) -> bool:
    return http.get("/readyz").status_code == 200


def press(running: Process, redis: RedisServer, http: httpx.Client, *, rounds: int, away_s: float) -> Load:
    """Load under which the server of the store is killed or paused, again and again, and comes back."""
    rng = random.Random(rounds)
    with Load(running.url) as load:
        for turn in range(rounds):
            seen = len(load.acknowledged) + sum(load.sent.values())
            wait_until(lambda: len(load.acknowledged) + sum(load.sent.values()) > seen + 20)  # noqa: B023, called here
            if turn % 2 == 0:
                redis.end(signal.SIGKILL)
            else:
                assert redis.process is not None
                redis.process.send_signal(signal.SIGSTOP)
            time.sleep(away_s * rng.uniform(0.8, 1.2))
            assert health(http) == (503, 200)
            if turn % 2 == 0:
                redis.start()
            else:
                redis.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]  # it was there
            wait_until(lambda: is_ready(http), timeout_s=5)
    return load


def test_a_store_that_is_killed_or_paused_is_told_at_once_and_found_again(served: Served) -> None:
    redis, running, http = served
    load = press(running, redis, http, rounds=2, away_s=2.5)
    assert load.refused_well()
    assert load.wrong == []
    assert load.lost(http) == []


@pytest.mark.parametrize("retry_s", [1.5, 20])
def test_what_was_refused_while_the_store_was_gone_is_not_done_later(
    retry_s: float, model: Path, shared_cache: Path, tmp_path: Path
) -> None:
    """Else it might undo what has been acknowledged since."""

    def body(name: str) -> dict[str, Any]:
        return {"vector": UNIT, "metadata": {"name": name}}

    with redis_server(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always") as redis:
        url = redis.url(retry_s=retry_s)
        with (
            Process("--store", url, "--model", model, cache=shared_cache) as running,
            httpx.Client(base_url=running.url, timeout=60, verify=NO_TLS) as http,
            ThreadPoolExecutor(8) as pool,
        ):
            ids = "abcdefgh"
            for one in ids:
                http.put(f"/v1/items/{one}", json=body("first")).raise_for_status()
            redis.end(signal.SIGKILL)
            calls = [
                ("PUT" if one in "abcd" else "DELETE", f"/v1/items/{one}", body("late") if one in "abcd" else None)
                for one in ids
            ]
            refused = list(pool.map(lambda call: http.request(call[0], call[1], json=call[2]).status_code, calls))
            assert refused == [503] * 8
            redis.start()
            wait_until(lambda: http.get("/readyz").status_code == 200)
            for one in ids:
                http.put(f"/v1/items/{one}", json=body("newer")).raise_for_status()
            time.sleep(2)
            assert [http.get(f"/v1/items/{one}").json().get("metadata") for one in ids] == [{"name": "newer"}] * 8


@pytest.mark.torture
def test_a_store_that_is_killed_and_paused_50_times_loses_nothing(served: Served) -> None:
    redis, running, http = served
    load = press(running, redis, http, rounds=50, away_s=2.5)
    assert load.refused_well()
    assert load.wrong == []
    assert load.lost(http) == []
    print(f"{len(load.answers)} answers, {sum(one[:2] == ('PUT', 200) for one in load.answers)} writes")  # noqa: T201


def test_a_full_store_refuses_writes_at_once_and_goes_on_reading(served: Served) -> None:
    redis, _, http = served
    item = {"vector": UNIT[::-1], "metadata": {"n": 1}}  # another direction than the items of other tests
    http.put("/v1/items/full/a", json=item).raise_for_status()
    redis.client().config_set("maxmemory", "1mb")
    started = time.monotonic()
    full = http.put("/v1/items/full/b", json=item)
    assert time.monotonic() - started < SOON_S
    assert (full.status_code, full.headers["retry-after"]) == (503, "1")
    assert "its memory is full" in full.json()["detail"]
    assert http.get("/v1/items/full/a").json()["metadata"] == {"n": 1}
    assert http.post("/v1/search", json={"vector": UNIT[::-1]}).json()["matches"][0]["id"] == "full/a"
    assert health(http) == (200, 200)
    redis.client().config_set("maxmemory", "0")
    http.put("/v1/items/full/b", json=item).raise_for_status()
    redis.client().execute_command("CLIENT", "PAUSE", "1000", "ALL")  # type: ignore[no-untyped-call]  # slow, not gone
    assert http.get("/v1/items/full/b").status_code == 200
