"""R5: eight writers and eight readers through the API: what was acknowledged is seen by every read that begins after it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import binsight
from binsight.records import Item
from tests.api.conftest import picture
from tests.api.servers import Process
from tests.redis_server import redis_server


class History:
    """What was acknowledged of each id: the newest number, None for a delete; and which reads disagreed."""

    def __init__(self, urls: list[str], name: str, *, writes: int, ids: int, searches: bool) -> None:
        self._urls, self._name, self._writes, self._ids, self._searches = urls, name, writes, ids, searches
        self.done: dict[str, int | None] = {}
        self.sent: dict[str, int] = {}
        self.wrong: list[str] = []
        self.reads = 0
        self._lock = threading.Lock()
        self._ends = threading.Event()

    def run(self) -> None:
        """To its end: eight threads write their own ids, eight read all of them."""
        readers = [self._started(self._read, number) for number in range(8)]
        for writer in [self._started(self._write, number) for number in range(8)]:
            writer.join()
        self._ends.set()
        for reader in readers:
            reader.join()

    def _started(self, act: Callable[[int, binsight.Client], None], number: int) -> threading.Thread:
        def acting() -> None:
            try:
                with binsight.Client(self._urls[number % len(self._urls)]) as client:
                    act(number, client)
            except Exception as error:  # noqa: BLE001, a thread's error is the test's
                self.wrong.append(repr(error))

        thread = threading.Thread(target=acting)
        thread.start()
        return thread

    def _write(self, number: int, client: binsight.Client) -> None:
        for n in range(self._writes):
            item_id = f"{self._name}/{number}/{n % self._ids}"
            self.sent[item_id] = n
            if n % 7 == 6 and self._searches:
                client.delete([item_id])
            else:
                client.add([Item(item_id, {"set": self._name, "n": n})], [picture(number)])
            with self._lock:
                self.done[item_id] = None if n % 7 == 6 and self._searches else n

    def _read(self, number: int, client: binsight.Client) -> None:
        rng = random.Random(number)
        while not self._ends.is_set():
            with self._lock:
                before = dict(self.done)
            asked = rng.sample(sorted(before), min(3, len(before)))
            for item_id, item in zip(asked, client.get(asked), strict=True):
                self._compare(item_id, before[item_id], item)
            if asked and self._searches:
                where = f'set = "{self._name}"'
                found = {match.item.id: match.item for match in client.by_image(picture(number), k=50, where=where).matches}
                if len(before) <= 40:
                    for item_id, n in before.items():
                        self._compare(item_id, n, found.get(item_id))

    def _compare(self, item_id: str, acknowledged: int | None, item: Item | None) -> None:
        """A read may see what was acknowledged before it began, or anything sent later."""
        self.reads += 1
        newest = self.sent[item_id]
        if item is None and acknowledged is not None and newest == acknowledged:
            self.wrong.append(f"{item_id} is gone, was {acknowledged}")
        if item is not None and item.metadata["n"] < (acknowledged or 0):
            self.wrong.append(f"{item_id} is {item.metadata['n']}, was {acknowledged}")

    def check(self, client: binsight.Client) -> None:
        """The end is the union of what was acknowledged."""
        assert not self.wrong, self.wrong[:5]
        kept = {item_id: n for item_id, n in self.done.items() if n is not None}
        found = client.by_image(picture(0), k=50, where=f'set = "{self._name}"').matches
        assert {match.item.id: match.item.metadata["n"] for match in found} == kept
        assert [item and item.metadata["n"] for item in client.get(sorted(kept))] == [kept[one] for one in sorted(kept)]


def test_a_history_of_writers_and_readers_is_in_order(process: Process) -> None:
    history = History([process.url], "history", writes=6, ids=3, searches=False)
    history.run()
    with binsight.Client(process.url) as client:
        history.check(client)
    assert len(history.done) == 24


@pytest.mark.torture
@pytest.mark.parametrize("kind", ["local", "shared"])
def test_a_long_history_of_writers_and_readers_is_in_order(kind: str, model: Path, shared_cache: Path, tmp_path: Path) -> None:
    """The shared store behind two servers: a write through one is seen by a read through the other."""
    if kind == "local":
        with Process("--store", tmp_path / "s.store", "--model", model, cache=shared_cache) as running:
            _play([running.url])
        return
    with redis_server(tmp_path / "redis") as redis:
        arguments = ("--store", redis.url("history"), "--model", model)
        with Process(*arguments, cache=shared_cache) as first, Process(*arguments, cache=shared_cache) as second:
            _play([first.url, second.url, first.url])


def _play(urls: list[str]) -> None:
    history = History(urls, "long", writes=300, ids=5, searches=True)
    history.run()
    with binsight.Client(urls[0]) as client:
        history.check(client)
    print(f"2,400 writes in order, {history.reads} reads")  # noqa: T201
