"""Aliases of stores, and what a store does whose writes are held."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from binsight import takeover
from binsight.cli import run
from binsight.errors import BadSettings, CannotBeDone, NotAStore, StoreDamaged, StoreHeld
from binsight.records import Item, StoreInfo
from binsight.store import open_alias, open_store
from binsight.vectors import Vectors, normalise
from tests.redis_server import RedisServer

DIM = 8
INFO = StoreInfo(DIM, "e" * 64, "test")


def rows_of(n: int, seed: int = 1) -> Vectors:
    return normalise(np.random.default_rng(seed).standard_normal((n, DIM)))


def make(url: str, item: str) -> None:
    with open_store(url, create=INFO) as store:
        store.upsert([Item(item)], rows_of(1))


def ids(url: str) -> list[str]:
    with open_store(url, read_only=True) as store:
        return [item.id for item in store.scan()]


def test_an_alias_names_one_store_and_then_another_and_back(
    place: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "FOLLOW_S", 0.2)
    for name in ("one", "two"):
        make(place % name, f"in {name}")
    live = place % "live"
    for name in ("one", "two", "one"):
        assert run(["store", "alias", live, name, "--json"]) == 0
        assert json.loads(capfd.readouterr().out)["store"] == name
        assert ids(live) == [f"in {name}"]
        time.sleep(0.25)
        with open_store(live) as store:
            store.upsert([Item("more")], rows_of(1))  # what is named takes writes, also after it was not for a while
            store.delete(["more"])
    assert run(["store", "alias", live]) == 0
    assert capfd.readouterr().out == f"{live} names one\n"


def test_what_is_no_alias_is_told_and_no_store_is_hidden_by_one(place: str, capfd: pytest.CaptureFixture[str]) -> None:
    make(place % "one", "a")
    assert run(["store", "alias", place % "one"]) == 2
    assert run(["store", "alias", place % "one", "one"]) == 2
    assert run(["store", "alias", place % "live", "missing"]) == 2
    assert run(["store", "alias", place % "live", "../one"]) == 2
    assert ids(place % "one") == ["a"]
    with pytest.raises(NotAStore):
        open_store(place % "live", read_only=True)
    errors = capfd.readouterr().err.splitlines()
    assert len(errors) == 4
    assert "is no alias" in errors[0]
    assert "another name" in errors[1]


def test_an_alias_names_a_store_that_is_there_and_no_alias(place: str, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        make(place % name, f"in {name}")
    assert run(["store", "alias", place % "live", "one"]) == 0
    assert run(["store", "alias", place % "other", "live"]) == 2
    assert run(["store", "reembed", place % "live", "--into", "live", "--model", "demo"]) == 2
    assert "live is an alias" in capfd.readouterr().err
    assert run(["store", "alias", place % "live", "live"]) == 2
    assert "live is an alias itself" in capfd.readouterr().err
    with open_alias(place % "live") as alias:
        with pytest.raises(BadSettings, match="is an alias itself"), open_alias(place % "other") as other:
            other.point_at("live")
        with pytest.raises(CannotBeDone, match="named two and names one now"):
            alias.point_at("two", former="two")
        with pytest.raises(CannotBeDone, match="was no alias and names one now"):
            alias.point_at("two")
        alias.point_at("gone", former="one")
    for read_only in (False, True):
        with pytest.raises(NotAStore, match="an alias of gone, which is not there"):
            open_store(place % "live", create=INFO, read_only=read_only)


def test_an_alias_that_goes_back_tells_what_does_not_come_along(
    place: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "FOLLOW_S", 0.05)
    for name in ("one", "two"):
        make(place % name, "in both")
    live = place % "live"
    assert run(["store", "alias", live, "one"]) == 0
    assert run(["store", "alias", live, "two"]) == 0
    time.sleep(0.1)
    with open_store(live) as store:
        store.upsert([Item("later")], rows_of(1))
    capfd.readouterr()
    assert run(["store", "alias", live, "one"]) == 0
    assert capfd.readouterr().err.startswith("2 items of two are not in one")  # of one without a picture nobody knows


def test_an_alias_leaves_a_store_that_is_damaged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        make(str(tmp_path / name), f"in {name}")
    live = str(tmp_path / "live")
    assert run(["store", "alias", live, "one"]) == 0
    (journal,) = (tmp_path / "one").glob("*.log")
    journal.write_bytes(b"\0" * 200)
    assert run(["store", "alias", live, "two"]) == 0
    told = capfd.readouterr().err
    assert "one is left as it is" in told
    assert "lost its first frame" in told
    assert ids(live) == ["in two"]


def test_a_local_store_may_be_named_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "sub/two"):
        make(str(tmp_path / name), "a")
    monkeypatch.chdir(tmp_path)
    for given in ("one/", "./one", str(tmp_path / "one")):
        assert run(["store", "alias", "live", given]) == 0
        with open_alias("live") as alias:
            assert alias.target() == "one"
        (tmp_path / "live").unlink()
    assert run(["store", "alias", "live", "sub/two"]) == 2


def test_a_store_of_another_kind_takes_the_place_of_one(redis_8: RedisServer) -> None:
    redis_8.client().flushall()
    make(redis_8.url("one"), "a")
    with open_alias(redis_8.url("live", quantization="int8")) as alias:
        alias.point_at("one")
        with open_store(alias.url_of("one")) as store, open_store(alias.url_of("two", is_new=True), create=INFO) as new:
            assert (store.info.detail["quantization"], new.info.detail["quantization"]) == ("none", "int8")


def test_a_url_in_the_place_of_a_name_does_not_show_its_password(capfd: pytest.CaptureFixture[str]) -> None:
    both = ["redis://clerk:s3cret@127.0.0.1:1/0?index=redis://clerk:s3cret@127.0.0.1:1/0", "parts"]
    assert run(["store", "alias", *both]) == 2
    told = capfd.readouterr()
    assert "got a URL" in told.err
    assert "s3cret" not in told.out + told.err


def test_a_damaged_or_foreign_pointer_file_is_not_followed(tmp_path: Path) -> None:
    make(str(tmp_path / "one"), "a")
    live = tmp_path / "live"
    with open_alias(live) as alias:
        alias.point_at("one")
        assert alias.target() == "one"
        live.write_bytes(live.read_bytes().replace(b"one", b"two"))
        with pytest.raises(StoreDamaged, match="checksum"):
            alias.target()
        live.write_text("my notes")
        with pytest.raises(NotAStore, match="is a file"):
            open_store(live)
        with pytest.raises(NotAStore):
            alias.point_at("one")
    assert live.read_text() == "my notes"
    with pytest.raises(BadSettings, match="no alias"):
        open_alias("exact:")


def test_readers_of_an_alias_that_moves_to_and_fro_never_find_nothing(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make(str(tmp_path / name), name)
    live = tmp_path / "live"
    with open_alias(live) as alias:
        alias.point_at("one")
        ended = threading.Event()

        def move() -> None:
            for turn in range(200):
                alias.point_at(("one", "two")[turn % 2], former=alias.target())
            ended.set()

        mover = threading.Thread(target=move)
        mover.start()
        seen: set[str | None] = set()
        while not ended.is_set() or len(seen) < 2:
            seen.add(open_alias(live).target())
        mover.join()
    assert seen == {"one", "two"}


def test_held_writes_are_refused_in_every_handle_until_they_are_released_or_time_is_up(redis_8: RedisServer) -> None:
    redis_8.client().flushall()
    url = redis_8.url(partitions=3)
    with open_store(url, create=INFO) as store, open_store(url) as other:
        store.upsert([Item("a")], rows_of(1))
        store.hold_writes("it moves", for_s=1)
        for write in (lambda: other.upsert([Item("b")], rows_of(1)), lambda: other.delete(["a"])):
            with pytest.raises(StoreHeld, match="takes no writes now: it moves"):
                write()
        assert other.query(rows_of(1))[0][0].item.id == "a"
        time.sleep(1.05)
        other.upsert([Item("b")], rows_of(1))
        store.hold_writes("a moment", for_s=60)
        with pytest.raises(StoreHeld, match="a moment"):
            other.release_writes()
        store.release_writes()
        assert other.delete(["b"]) == 1
        assert store.verify().is_sound
