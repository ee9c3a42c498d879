"""Which of several shared stores takes writes while aliases move between them, and after a move that came to nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from binsight.errors import StoreHeld
from binsight.records import Item, StoreInfo
from binsight.store import Alias, VectorStore, open_alias, open_store, redis_alias
from binsight.store.redis_link import RedisLink
from binsight.store.redis_url import RedisUrl
from binsight.takeover import exchange, hold_for_followers, replacing
from tests.redis_server import RedisServer, wait_until

INFO = StoreInfo(3, "e" * 64, "test")
ROW = np.eye(1, 3, dtype=np.float32)


@pytest.fixture
def one(redis_8: RedisServer) -> Iterator[VectorStore]:
    redis_8.client().flushall()
    with open_store(redis_8.url("one"), create=INFO) as store:
        yield store


@pytest.fixture
def two(redis_8: RedisServer, one: VectorStore) -> Iterator[VectorStore]:
    with open_store(redis_8.url("two"), create=INFO) as store:
        yield store


@pytest.fixture
def live(redis_8: RedisServer, one: VectorStore) -> Iterator[Alias]:
    with open_alias(redis_8.url("live")) as alias:
        alias.point_at("one")
        yield alias


def test_a_writer_that_asked_the_alias_just_before_it_moved_lets_nobody_write(
    one: VectorStore, two: VectorStore, live: Alias, redis_8: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It clears up behind a replacement that failed; the next one is done between the alias's answer and what comes of it."""
    one.hold_writes("a replacement that fails", for_s=60, leaving="live")
    one.release_writes()
    read = redis_alias.read

    def read_and_overtaken(url: RedisUrl, link: RedisLink) -> str | None:
        named = read(url, link)
        monkeypatch.setattr(redis_alias, "read", read)
        exchange(live, one, two, name="two", former="one")
        return named

    with open_store(redis_8.url("one")) as writer:
        monkeypatch.setattr(redis_alias, "read", read_and_overtaken)
        with pytest.raises(StoreHeld, match="it was replaced by two"):
            writer.upsert([Item("late")], ROW)
    with pytest.raises(StoreHeld, match="it was replaced by two"):
        one.upsert([Item("later")], ROW)
    assert len(one) == 0


def test_a_store_that_was_to_take_a_place_and_did_not_takes_writes_as_before(
    one: VectorStore, two: VectorStore, live: Alias, redis_8: RedisServer
) -> None:
    """Another alias names it; nothing ever left it."""

    def interrupted() -> None:
        with replacing(live, one, "two", former="one"):
            hold_for_followers(two, live)
            raise KeyboardInterrupt

    with open_alias(redis_8.url("test")) as other:
        other.point_at("two")
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    wait_until(lambda: takes_writes(two))
    assert takes_writes(one)


def takes_writes(store: VectorStore) -> bool:
    try:
        store.upsert([Item("a")], ROW)
    except StoreHeld as error:
        if "try again" not in str(error):
            raise
        return False
    return True
