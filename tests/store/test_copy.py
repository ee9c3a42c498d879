"""`store copy`: between all kinds of stores, stopped and run again."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from binsight.cli import run
from binsight.errors import ModelMismatch, StoreWriteFailed
from binsight.records import Item, StoreInfo
from binsight.store import VectorStore, open_store
from binsight.store.copy import CopyReport, copy_items
from binsight.vectors import Vectors, normalise
from tests.redis_server import RedisServer, redis_server

DIM = 16
INFO = StoreInfo(DIM, "e" * 64, "test")


def rows_of(n: int, seed: int = 1) -> Vectors:
    return normalise(np.random.default_rng(seed).standard_normal((n, DIM)))


def filled(store: VectorStore, n: int = 1200) -> VectorStore:
    store.upsert([Item(f"i{number}", {"n": number, "_source": {"uri": f"{number}.jpg"}}) for number in range(n)], rows_of(n))
    return store


def equal(a: VectorStore, b: VectorStore) -> bool:
    theirs = {item.id: item for item in b.scan()}
    mine = {item.id: item for item in a.scan()}
    return mine == theirs and bool(np.allclose(a.vectors_of(list(mine)), b.vectors_of(list(mine)), atol=1e-6))


def test_there_and_back_between_a_folder_and_redis(tmp_path: Path, redis_8: RedisServer) -> None:
    redis_8.client().flushall()
    with open_store(tmp_path / "a.store", create=INFO) as local, open_store(redis_8.url(partitions=2), create=INFO) as shared:
        filled(local)
        assert copy_items(local, shared) == CopyReport(1200, 0, [])
        assert equal(local, shared)
        with open_store(tmp_path / "b.store", create=INFO) as back:
            assert copy_items(shared, back) == CopyReport(1200, 0, [])
            assert equal(back, local)


def test_a_second_run_writes_what_changed_and_leaves_what_only_the_target_has(tmp_path: Path) -> None:
    with open_store(tmp_path / "a.store", create=INFO) as source, open_store("exact:", create=INFO) as target:
        filled(source, 30)
        copy_items(source, target)
        target.upsert([Item("own")], rows_of(1))
        target.upsert([Item("i3", {"n": "other"})], target.vectors_of(["i3"]))
        target.upsert(target.get(["i4"]), rows_of(1, 5))  # type: ignore[arg-type]
        target.delete(["i5"])
        assert copy_items(source, target) == CopyReport(3, 27, [])
        assert len(target) == 31
        target.delete(["own"])
        assert equal(source, target)


def test_a_copy_that_a_full_server_stopped_goes_on(tmp_path: Path) -> None:
    with (
        redis_server(tmp_path / "redis", "--maxmemory", "3mb", "--appendonly", "yes") as server,
        open_store("exact:", create=INFO) as source,
        open_store(server.url(), create=INFO) as target,
    ):
        filled(source, 6000)
        with pytest.raises(StoreWriteFailed):
            copy_items(source, target)
        held = len(target)
        assert 0 < held < 6000
        server.client().config_set("maxmemory", "0")
        again = copy_items(source, target)
        assert again.copied + again.unchanged == 6000
        assert again.unchanged >= held - 500
        assert again.problems == []
        assert equal(source, target)


def test_quantised_vectors_are_compared_as_far_as_they_go(redis_8: RedisServer) -> None:
    redis_8.client().flushall()
    with open_store("exact:", create=INFO) as source, open_store(redis_8.url(quantization="int8"), create=INFO) as target:
        filled(source, 100)
        assert copy_items(source, target) == CopyReport(100, 0, [])
        assert copy_items(source, target) == CopyReport(0, 100, [])
        with open_store("exact:", create=INFO) as back:
            assert copy_items(target, back) == CopyReport(100, 0, [])


def test_a_small_change_of_a_vector_is_copied_into_eight_bits_too(redis_8: RedisServer) -> None:
    redis_8.client().flushall()
    with open_store("exact:", create=INFO) as source, open_store(redis_8.url(quantization="int8"), create=INFO) as target:
        filled(source, 100)
        copy_items(source, target)
        near = normalise(rows_of(100) + 0.03 * np.random.default_rng(2).standard_normal((100, DIM)))
        assert float((near * rows_of(100)).sum(axis=1).mean()) > 0.98
        source.upsert([item for item in source.get([f"i{n}" for n in range(100)]) if item], near)
        assert copy_items(source, target).copied > 90
        assert float((normalise(target.vectors_of([f"i{n}" for n in range(100)])) * near).sum(axis=1).min()) > 0.999


def test_a_source_that_is_written_meanwhile_gives_no_mixed_items(redis_8: RedisServer) -> None:
    redis_8.client().flushall()
    stop = threading.Event()
    with open_store(redis_8.url(), create=INFO) as source, open_store("exact:", create=INFO) as target:
        filled(source, 300)

        def write() -> None:
            turn = 300
            while not stop.is_set():
                turn += 1
                source.upsert([Item(f"i{n}", {"row": turn}) for n in range(20)], np.repeat(rows_of(1, turn), 20, axis=0))
                source.delete([f"i{n}" for n in range(5)])

        thread = threading.Thread(target=write)
        thread.start()
        try:
            copy_items(source, target)
        finally:
            stop.set()
            thread.join()
        for item in target.scan():
            if "row" in item.metadata:
                np.testing.assert_allclose(target.vectors_of([item.id]), rows_of(1, item.metadata["row"]), atol=1e-5)
        assert copy_items(source, target).problems == []


def test_an_item_deleted_while_its_page_is_read_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store("exact:", create=INFO) as source, open_store("exact:", create=INFO) as target:
        filled(source, 30)
        vectors_of = source.vectors_of

        def deleted_first(ids: list[str]) -> Vectors:
            source.delete(["i7"])
            return vectors_of(ids)

        monkeypatch.setattr(source, "vectors_of", deleted_first)
        assert copy_items(source, target) == CopyReport(29, 0, [])
        assert equal(source, target)


def test_another_model_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    other = StoreInfo(DIM, "f" * 64, "other")
    with open_store("exact:", create=INFO) as source, open_store(tmp_path / "t.store", create=other) as target:
        filled(source, 3)
        with pytest.raises(ModelMismatch):
            copy_items(source, target)
        assert len(target) == 0


def test_the_command_copies_into_no_store_that_would_be_gone_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    open_store(tmp_path / "a.store", create=INFO).close()
    assert run(["store", "copy", str(tmp_path / "a.store"), "exact:"]) == 2
    assert "exact: lives in memory" in capfd.readouterr().err


def test_the_command_tells_what_it_did(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with open_store(tmp_path / "a.store", create=INFO) as source:
        filled(source, 20)
    names = [str(tmp_path / "a.store"), str(tmp_path / "b.store")]
    assert run(["store", "copy", *names, "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"copied": 20, "unchanged": 0, "problems": [], "items": 20}
    assert run(["store", "copy", *names]) == 0
    assert capfd.readouterr().out == "0 copied, 20 were there already; it holds 20 now\n"
    assert run(["store", "copy", str(tmp_path / "none.store"), names[1]]) == 2
