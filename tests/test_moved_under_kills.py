"""An alias that is moved to and fro by processes which are killed at any moment: what takes writes afterwards."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from binsight import takeover
from binsight.errors import StoreHeld
from binsight.records import Item, StoreInfo
from binsight.store import Alias, VectorStore, open_alias, open_store
from tests.conftest import ROOT
from tests.redis_server import RedisServer, wait_until

INFO = StoreInfo(3, "e" * 64, "test")
ROW = np.eye(1, 3, dtype=np.float32)
MOVER = """
import sys
from binsight import takeover
from binsight.errors import StoreHeld
from binsight.store import open_alias, open_store
takeover.LEASE_S, takeover.FOLLOW_S = 0.5, 0.01
live, *places = sys.argv[1:]
with open_alias(live) as alias, open_store(places[0]) as one, open_store(places[1]) as two:
    stores = {"one": one, "two": two}
    print("begun", flush=True)
    while True:
        former = alias.target()
        name = "two" if former == "one" else "one"
        try:
            takeover.exchange(alias, stores[former], stores[name], name=name, former=former)
        except StoreHeld:  # by one that was killed
            continue
        print(name, flush=True)
"""


@pytest.mark.parametrize("kills", [4, pytest.param(300, marks=pytest.mark.torture)])
@pytest.mark.timeout(1800)
def test_killed_at_any_moment_only_the_store_that_the_alias_names_takes_writes(
    redis_8: RedisServer, kills: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writers with handles of their own try both stores all the time, which also clears up behind a killed mover."""
    monkeypatch.setattr(takeover, "FOLLOW_S", 0.01)
    redis_8.client().flushall()
    url, chance = redis_8.url, random.Random(kills)
    ended = threading.Event()
    with (
        open_store(url("one"), create=INFO) as one,
        open_store(url("two"), create=INFO) as two,
        open_alias(url("live")) as alias,
        ThreadPoolExecutor(2) as pool,
    ):
        alias.point_at("two")
        takeover.exchange(alias, two, one, name="one", former="two")
        stores, taken = {"one": one, "two": two}, Counter[str]()
        writers = [pool.submit(keep_writing, redis_8, name, ended, taken) for name in stores]
        try:
            moves = [check_after_a_kill(redis_8, alias, stores, chance) for _ in range(kills)]
            for _ in stores:  # those who opened a store before all that write to it again once it is named
                name = str(alias.target())
                wait_until(partial(wrote_more, taken, name, taken[name]))
                (other,) = stores.keys() - {name}
                takeover.exchange(alias, stores[name], stores[other], name=other, former=name)
        finally:
            ended.set()
        assert sum(moves) > 0
        for writer in writers:
            writer.result()


def wrote_more(taken: Counter[str], name: str, before: int) -> bool:
    return taken[name] > before


def keep_writing(server: RedisServer, name: str, ended: threading.Event, taken: Counter[str]) -> None:
    """Counts the writes that the store took."""
    with open_store(server.url(name)) as store:
        while not ended.is_set():
            taken[name] += takes_writes(store)


def takes_writes(store: VectorStore) -> bool:
    try:
        store.upsert([Item("a")], ROW)
    except StoreHeld:
        return False
    return True


def check_after_a_kill(server: RedisServer, alias: Alias, stores: dict[str, VectorStore], chance: random.Random) -> int:
    """How often it moved. The store that it names now takes writes once nobody holds it any more; the other one does not."""
    command = [sys.executable, "-c", MOVER, *(server.url(name) for name in ("live", "one", "two"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as mover:
        assert mover.stdout is not None
        assert mover.stdout.readline() == b"begun\n"
        moves = sum(bool(mover.stdout.readline()) for _ in range(chance.randrange(3)))
        time.sleep(chance.uniform(0.0, 0.1))
        mover.kill()
        moves += len(mover.stdout.readlines())
    named = alias.target()
    assert named is not None
    wait_until(lambda: takes_writes(stores[named]))
    (other,) = stores.keys() - {named}
    with pytest.raises(StoreHeld, match=f"it was replaced by {named}"):
        wait_until(lambda: not is_held(stores[other]))
    assert alias.target() == named
    return moves


def is_held(store: VectorStore) -> bool:
    """Whether somebody holds it for a time. Raises StoreHeld where it is left."""
    try:
        store.delete(["nothing"])
    except StoreHeld as error:
        if "was replaced" in str(error):
            raise
        return True
    return False
