"""The shared store on a real Redis 8, beyond the contract: filters, scores, many writers, and servers that fail."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from binsight.errors import (
    BadSettings,
    CannotBeDone,
    NotAStore,
    StoreDamaged,
    StoreHeld,
    StoreReadOnly,
    StoreUnavailable,
    StoreWriteFailed,
)
from binsight.filters import Filter
from binsight.records import Item, StoreInfo
from binsight.store import VectorStore, open_alias, open_store, redis_about, redis_search, redis_store, redis_url
from binsight.store.redis_filter import attributes, expressions
from binsight.vectors import Vectors, normalise
from tests.redis_server import RedisServer, old_command, redis_cluster, redis_server, wait_until
from tests.store.test_machine import _SETTINGS, StoreMachine
from tests.test_filters import CASES, FILTERS, METADATA

DIM = 32
INFO = StoreInfo(DIM, "e" * 64, "test")


@pytest.fixture
def server(redis_8: RedisServer) -> RedisServer:
    redis_8.client().flushall()
    return redis_8


@pytest.fixture
def store(server: RedisServer) -> Iterator[VectorStore]:
    with open_store(server.url(), create=INFO) as one:
        yield one


@pytest.fixture
def by_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_search, "SMALL_ITEMS", 0)


def rows_of(n: int, seed: int = 1) -> Vectors:
    return normalise(np.random.default_rng(seed).standard_normal((n, DIM)))


def items_of(n: int) -> list[Item]:
    return [Item(f"i{number}", {"n": number, "even": number % 2 == 0, "kind": f"k{number % 14}"}) for number in range(n)]


# Filters


@pytest.mark.parametrize("part", range(8))
def test_filters_give_the_answers_worked_by_hand(store: VectorStore, part: int) -> None:
    for text, metadata, expected in CASES[part::8]:
        store.upsert([Item("one", metadata)], rows_of(1))
        assert [len(store.query(rows_of(1), where=text)[0]), len(list(store.scan(text)))] == [expected, expected], text


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(FILTERS, st.lists(METADATA, min_size=1, max_size=6))
def test_any_filter_lets_the_same_items_through_as_in_python(store: VectorStore, text: str, rows: list[dict[str, Any]]) -> None:
    store.delete([f"i{number}" for number in range(6)])
    store.upsert([Item(f"i{number}", metadata) for number, metadata in enumerate(rows)], rows_of(len(rows)))
    where = Filter(text)
    found = {match.item.id for match in store.query(rows_of(1, 9), k=10, where=where)[0]}
    assert found == {f"i{number}" for number, metadata in enumerate(rows) if where.matches(metadata)}


def test_what_redis_can_say_of_a_filter_it_is_asked() -> None:
    said = {
        'label = "ram" and quantity >= 2': ('.label == "ram" and .quantity >= 2',),
        "quantity > 2": (".quantity >= 2",),  # inclusive: numbers beyond 2**53 are doubles there
        'label = "a" or tags has 7': ('.label == "a"', "7 in .tags"),
        "label in ('a', 2) and new = true": ('.label in ["a", 2] and .new == 1',),
        'not (label = "a" and n = 1) and n = 2': (".n == 2",),
        'not (not label = "a")': ('.label == "a"',),
        'label < "b"': ("",),
        'label = "a\\"b"': ("",),
        'label = "a" or label < "b"': ("",),
        "x = 1e-200": ("",),
    }
    assert {text: expressions(Filter(text)) for text in said} == said
    assert expressions(None) == ("",)


def test_attributes_are_the_scalars_and_lists_that_a_filter_can_see() -> None:
    record = {"a": "x", "n": 10**400, "no": None, "l": [1, [2], {"y": 3}, "z"], "o": {"p": 1}, "_source": {"q": 1}, "a b": 1}
    assert attributes(record) == '{"a":"x","n":1.7976931348623157e+308,"l":[1,"z"]}'


# Scores


@pytest.mark.parametrize("k", [1, 10, 100])
def test_scores_and_order_are_the_exact_stores(store: VectorStore, k: int) -> None:
    rows, queries = rows_of(900), rows_of(20, 2)
    exact = open_store("exact:", create=INFO)
    for one in (store, exact):
        one.upsert(items_of(900), rows)
    for where in (None, "n >= 450", 'kind = "k3" or kind = "k5"', "not even = true"):
        for mine, theirs in zip(store.query(queries, k=k, where=where), exact.query(queries, k=k, where=where), strict=True):
            assert [match.item for match in mine] == [match.item for match in theirs]
            np.testing.assert_allclose([m.score for m in mine], [m.score for m in theirs], atol=1e-5)


@pytest.mark.parametrize(("quantization", "least", "off"), [("none", 0.97, 1e-5), ("int8", 0.9, 0.02)])
def test_the_graph_finds_most_of_the_nearest_and_a_filter_all(
    by_the_graph: None, server: RedisServer, quantization: str, least: float, off: float
) -> None:
    rows, queries = rows_of(3000), rows_of(50, 2)
    with open_store(server.url(quantization=quantization), create=INFO) as store:
        store.upsert(items_of(3000), rows)
        truth = np.argsort(-(queries @ rows.T), axis=1)[:, :10]
        found = store.query(queries, k=10)
        hits = [
            len({m.item.metadata["n"] for m in line} & set(true.tolist())) / 10 for line, true in zip(found, truth, strict=True)
        ]
        assert np.mean(hits) > least
        for query, line in zip(queries, found, strict=True):
            np.testing.assert_allclose([m.score for m in line], [query @ rows[m.item.metadata["n"]] for m in line], atol=off)
        for where, passing in (('kind = "k3"', range(3, 3000, 14)), ("n < 4", range(4)), ("n in (5, 2999)", (5, 2999))):
            (line,) = store.query(queries[:1], k=500, where=where)
            assert sorted(m.item.metadata["n"] for m in line) == list(passing)
        assert store.info.detail["exact_vectors"] is (quantization == "none")
        np.testing.assert_allclose(store.vectors_of(["i7", "i0"]), rows[[7, 0]], atol=1e-6 if quantization == "none" else 0.01)


@pytest.mark.parametrize("partitions", [1, 3])
def test_many_equal_scores_come_in_order_of_arrival(by_the_graph: None, server: RedisServer, partitions: int) -> None:
    with open_store(server.url(partitions=partitions), create=INFO) as store:
        store.upsert(items_of(300), np.repeat(rows_of(1), 300, axis=0))
        assert [m.item.id for m in store.query(rows_of(1), k=7)[0]] == [f"i{n}" for n in range(7)]
        assert store.info.detail["partitions"] == partitions


# Many at once


def test_an_answer_never_mixes_two_versions_of_an_item(server: RedisServer) -> None:
    rows = rows_of(200)
    stop = threading.Event()
    with open_store(server.url(), create=INFO) as writer, open_store(server.url()) as reader:
        writer.upsert([Item(f"i{n}", {"row": n}) for n in range(20)], rows[:20])

        def write() -> None:
            random = np.random.default_rng(0)
            while not stop.is_set():
                chosen = random.integers(0, 200, 8)
                writer.upsert([Item(f"i{n % 20}", {"row": int(n)}) for n in chosen], rows[chosen])

        thread = threading.Thread(target=write)
        thread.start()
        try:
            end = time.monotonic() + 3
            asked = 0
            while time.monotonic() < end:
                (found,) = reader.query(rows[asked % 200][None], k=30)
                assert sorted({m.item.id for m in found}) == sorted(f"i{n}" for n in range(20))
                for match in found:
                    assert match.score == pytest.approx(float(rows[asked % 200] @ rows[match.item.metadata["row"]]), abs=1e-5)
                asked += 1
        finally:
            stop.set()
            thread.join()
        assert asked > 20
        assert writer.verify().is_sound


def test_writers_of_one_id_end_with_one_version_whole(server: RedisServer) -> None:
    rows = rows_of(64)
    with open_store(server.url(partitions=2), create=INFO):
        pass

    def write(number: int) -> None:
        with open_store(server.url()) as one:
            for turn in range(20):
                one.upsert(
                    [Item(f"i{n}", {"row": number}) for n in range(turn, turn + 5)], np.repeat(rows[number][None], 5, axis=0)
                )

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with open_store(server.url()) as store:
        assert len(store) == 24
        assert store.verify().problems == []
        for item in store.scan():
            np.testing.assert_allclose(store.vectors_of([item.id])[0], rows[item.metadata["row"]], atol=1e-6)


def test_a_write_that_is_sent_twice_counts_once_and_an_older_one_does_not_undo_a_newer(server: RedisServer) -> None:
    rows = rows_of(3)
    with open_store(server.url(), create=INFO) as store:
        assert isinstance(store, redis_store.RedisStore)
        sent: list[Any] = []
        durably = store._writer._durably
        store._writer._durably = lambda calls: (sent.append(calls), durably(calls))[1]  # type: ignore[method-assign,func-returns-value]
        store.upsert([Item("a", {"v": 1})], rows[:1])
        store.upsert([Item("a", {"v": 2})], rows[1:2])
        durably(sent[1])
        durably(sent[0])
        assert store.get(["a"]) == [Item("a", {"v": 2})]
        assert len(store) == 1
        assert store.verify().is_sound


# Servers that are not as they should be


def test_a_store_that_is_not_there_is_named_without_the_password(server: RedisServer) -> None:
    with pytest.raises(NotAStore, match=r"redis://127.0.0.1:\d+/0\?index=t holds no store") as told:
        open_store(server.url(user="default:@"))
    assert "default" not in str(told.value)


def test_a_reader_refuses_writes(store: VectorStore, server: RedisServer) -> None:
    with open_store(server.url(), read_only=True) as reader:
        for write in (lambda: reader.upsert([Item("b")], rows_of(1)), lambda: reader.delete(["a"]), reader.compact):
            with pytest.raises(StoreReadOnly):
                write()


def test_a_killed_server_keeps_what_was_acknowledged_and_is_found_again(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server, open_store(server.url(retry_s=0.5), create=INFO) as store:
        done = 0
        for turn in range(3):
            for _ in range(20):
                store.upsert([Item(f"i{done}", {"n": done})], rows_of(1, done))
                done += 1
            server.end(signal.SIGKILL)
            start = time.monotonic()
            for act in (
                lambda: store.upsert([Item("no")], rows_of(1)),
                lambda: store.query(rows_of(1)),
                lambda: store.get(["i0"]),
            ):
                with pytest.raises(StoreUnavailable, match="cannot be reached"):
                    act()
            assert time.monotonic() - start < 6
            server.start()
            assert store.get([f"i{n}" for n in range(done)]) == [Item(f"i{n}", {"n": n}) for n in range(done)]
            assert store.verify().problems == []
            assert len(store) == done, turn


def test_a_server_that_comes_back_in_time_is_waited_for(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server, open_store(server.url(retry_s=20), create=INFO) as store:
        server.end(signal.SIGKILL)
        timer = threading.Timer(1.0, server.start)
        timer.start()
        store.upsert([Item("a", {"n": 1})], rows_of(1))
        timer.join()
        assert store.get(["a"]) == [Item("a", {"n": 1})]


def test_connections_that_the_server_closed_meanwhile_are_no_error(server: RedisServer) -> None:
    with open_store(server.url(retry_s=0), create=INFO) as store:
        threads = [threading.Thread(target=store.query, args=(rows_of(1),)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()  # several connections are idle now
        for _ in range(3):
            server.client().client_kill_filter(_type="normal", skipme=True)
            store.upsert([Item("a")], rows_of(1))
            assert len(store) == 1


def test_a_server_without_a_file_is_said_to_give_no_durability(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", "--appendonly", "no") as server:
        with pytest.raises(CannotBeDone, match=r"keeps no append-only file; start it with --appendonly yes"):
            open_store(server.url(durability="aof"), create=INFO)
        with open_store(server.url(), create=INFO) as store:
            store.upsert([Item("a")], rows_of(1))
            assert (store.info.detail["durability"], store.info.detail["appendfsync"]) == ("none", "none")
            assert "may be lost" in store.info.detail["warning"]


def test_a_full_server_refuses_writes_and_goes_on_reading(tmp_path: Path) -> None:
    options = ("--maxmemory", "20mb", "--appendonly", "yes")
    with redis_server(tmp_path / "redis", *options) as server, open_store(server.url(), create=INFO) as store:

        def fill() -> None:
            for start in range(0, 100_000, 500):
                store.upsert([Item(f"i{n}", {"pad": "x" * 500}) for n in range(start, start + 500)], rows_of(500, start))

        with pytest.raises(StoreWriteFailed, match="its memory is full"):
            fill()
        assert len(store) >= 500
        assert store.query(rows_of(1), k=1)[0]
        assert store.verify().problems == []
        store.delete([item.id for item in store.scan()])
        server.client().config_set("maxmemory", "0")
        store.upsert([Item("back")], rows_of(1))
        assert len(store) == 1


def test_a_server_without_vector_sets_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", program=old_command())
    server.start()
    try:
        with pytest.raises(
            CannotBeDone, match=r"is Redis 7\.\S+ and lacks VSIM \(vector sets\); binsight needs Redis 8 or newer"
        ):
            open_store(server.url(), create=INFO)
    finally:
        server.end()


@pytest.mark.parametrize("lost", ["about", "partition"])
def test_a_lost_partition_is_an_error_and_never_a_short_answer(server: RedisServer, lost: str) -> None:
    with open_store(server.url(partitions=3), create=INFO) as store:
        store.upsert(items_of(60), rows_of(60))
        number = 1
        names = ("about",) if lost == "about" else ("about", "v", "r", "i")
        server.client().delete(*(f"binsight:{{t:{number}}}:{name}" for name in names))
        for act in (
            lambda: store.query(rows_of(1)),
            lambda: len(store),
            lambda: list(store.scan()),
            lambda: store.upsert(items_of(60), rows_of(60)),
            store.verify,
        ):
            with pytest.raises(StoreDamaged, match="has lost"):
                act()
    with pytest.raises(StoreDamaged, match=r"1 of 3 partitions"):
        open_store(server.url())


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda client, tag, name: client.execute_command("VREM", f"{tag}:v", name), "has no vector"),
        (lambda client, tag, name: client.execute_command("VSETATTR", f"{tag}:v", name, '{"n":-1}'), "attributes that are not"),
        (
            lambda client, tag, name: client.execute_command(
                "VADD", f"{tag}:v", "FP32", rows_of(1).tobytes(), "0:x", "NOQUANT"
            ),
            "vectors",
        ),
        (lambda client, tag, name: client.zadd(f"{tag}:i", {"ghost": 0}), "11 ids, 10 records and 10 vectors"),
    ],
)
def test_verify_names_what_does_not_agree(store: VectorStore, server: RedisServer, harm: Any, says: str) -> None:
    store.upsert(items_of(10), rows_of(10))
    assert store.verify().problems == []
    harm(server.client(), "binsight:{t:0}", "4:i3")
    assert any(says in problem for problem in store.verify().problems)


def test_a_user_of_least_rights_can_do_all_and_one_without_them_is_told(server: RedisServer) -> None:
    call: Any = server.client().execute_command
    needed = "+vadd +vrem +vsim +vemb +vgetattr +vcard +zadd +zrem +zcard +zrange +hset +hget +hdel +hmget +hlen"
    more = "+get +set +exists +del +incr +incrby +eval +waitaof +info +ping +client|setinfo +hello"
    call("ACL", "SETUSER", "job", "on", ">secret", "~binsight:*", *needed.split(), *more.split())
    call("ACL", "SETUSER", "eye", "on", ">secret", "~binsight:*", *more.split(), "-set", "-eval")
    try:
        with open_store(server.url(user="job:secret@"), create=INFO) as store:
            store.upsert(items_of(30), rows_of(30))
            assert len(store.query(rows_of(1), k=5, where="n > 3")[0]) == 5
            assert store.delete(["i1"]) == 1
            assert store.verify().problems == []
            assert store.info.detail["appendfsync"] == "aof"  # this user may not read the configuration
        with open_store(server.url(user="eye:secret@")) as store, pytest.raises(CannotBeDone, match="lets this user not do it"):
            store.query(rows_of(1))
        with pytest.raises(CannotBeDone, match="lets this user not do it") as told:
            open_store(server.url(user="job:wrong@"))
        assert "wrong" not in str(told.value)
        with pytest.raises(redis.exceptions.NoPermissionError):
            redis.Redis(port=server.port, username="job", password="secret").get("other")  # noqa: S106
    finally:
        call("ACL", "DELUSER", "job", "eye")


# Clusters


def test_a_cluster_holds_one_store_and_a_lost_node_is_an_error_never_a_short_answer(tmp_path: Path) -> None:
    rows, queries = rows_of(600), rows_of(20, 2)
    exact = open_store("exact:", create=INFO)
    exact.upsert(items_of(600), rows)
    with redis_cluster(tmp_path) as nodes:
        url = nodes[0].url(scheme="redis+cluster", retry_s=0.5)
        with open_store(url, create=INFO) as store:
            store.upsert(items_of(600), rows)
            held = [len(node.client().keys("*:v")) for node in nodes]
            assert sum(held) == store.info.detail["partitions"] == redis_about.CLUSTER_PARTITIONS
            assert min(held) > 0
            for where in (None, "even = true", 'kind = "k3"'):
                for mine, theirs in zip(store.query(queries, where=where), exact.query(queries, where=where), strict=True):
                    assert [match.item for match in mine] == [match.item for match in theirs]
            assert store.get(["i5", "no"]) == [Item("i5", {"n": 5, "even": False, "kind": "k5"}), None]
            assert store.delete(["i5", "no"]) == 1
            assert (len(store), len(list(store.scan()))) == (599, 599)
            assert store.verify().problems == []
            nodes[2].end(signal.SIGKILL)
            for act in (lambda: store.query(queries), lambda: len(store), lambda: list(store.scan()), lambda: store.verify()):
                with pytest.raises(StoreUnavailable, match="cannot be reached"):
                    act()
            with pytest.raises(StoreUnavailable):
                open_store(url)
            nodes[2].start()
            wait_until(lambda: _answers(store))
            assert (len(store), store.verify().problems) == (599, [])
            check_left(nodes[0], store)


def check_left(node: RedisServer, store: VectorStore) -> None:
    """An alias leaves it for another one, and comes back."""
    with open_alias(node.url("live", scheme="redis+cluster")) as alias, open_store(node.url(scheme="redis+cluster")) as other:
        alias.point_at("other")
        store.hold_writes("it moves", for_s=60, leaving="live")
        ids = [item.id for item in other.scan()]
        with pytest.raises(StoreHeld, match="it moves"):
            other.delete(ids)
        store.release_writes()
        with pytest.raises(StoreHeld, match="it was replaced by other"):
            other.delete(ids)
        assert len(other) == len(ids)
        alias.point_at("t", former="other")
        assert other.delete(ids) == len(ids)


def _answers(store: VectorStore) -> bool:
    try:
        return len(store) > 0
    except StoreUnavailable:
        return False


# Servers that came back with something else


def test_a_counter_that_fell_behind_drops_no_write(store: VectorStore, server: RedisServer) -> None:
    store.upsert([Item(f"i{n}", {"v": 1}) for n in range(40)], rows_of(40))
    server.client().set("binsight:{t:0}:seq", 3)  # as a node that was restored from an older state
    store.upsert([Item(f"i{n}", {"v": 2}) for n in range(40)], rows_of(40, 2))
    assert {item.metadata["v"] for item in store.scan()} == {2}
    np.testing.assert_allclose(store.vectors_of(["i39", "i0"]), rows_of(40, 2)[[39, 0]], atol=1e-6)
    assert store.verify().problems == []


@pytest.mark.parametrize("index", [0, 2])
def test_no_store_is_made_over_the_remains_of_another(server: RedisServer, index: int) -> None:
    with open_store(server.url(partitions=3), create=INFO) as store:
        store.upsert(items_of(60), rows_of(60))
    server.client().delete(*(f"binsight:{{t:{n}}}:about" for n in {0, index}))
    if index == 0:
        server.client().delete(*(f"binsight:{{t:0}}:{name}" for name in ("v", "r", "i", "w", "seq")))
    other = StoreInfo(DIM, "f" * 64, "other")
    for _ in range(2):
        with pytest.raises(StoreDamaged, match="remains of another store: restore that, or delete the keys"):
            open_store(server.url(partitions=3), create=other)
    with pytest.raises((NotAStore, StoreDamaged)):
        open_store(server.url())


@pytest.mark.parametrize("left", ["left", "follows"])
def test_no_store_is_made_over_what_says_of_another_that_it_was_replaced(server: RedisServer, left: str) -> None:
    with open_store(server.url(partitions=2), create=INFO) as store:
        store.hold_writes("", for_s=60, leaving="live")
        store.follow("another")
    server.client().delete("binsight:{t:0}:about", "binsight:{t:1}:about")
    if left == "follows":
        server.client().delete("binsight:{t:0}:left")
    with pytest.raises(StoreDamaged, match="remains of another store: restore that, or delete the keys"):
        open_store(server.url(partitions=2), create=INFO)


def test_making_a_store_that_was_cut_off_is_brought_to_its_end(server: RedisServer) -> None:
    with open_store(server.url(partitions=3), create=INFO) as store:
        about = json.loads(server.client().get("binsight:{t:0}:about") or "")
        assert len(store) == 0
    server.client().set("binsight:{t:0}:about", json.dumps(about | {"making": True}))
    server.client().delete("binsight:{t:2}:about")
    with pytest.raises(NotAStore):
        open_store(server.url())
    with open_store(server.url(), create=INFO) as store:
        store.upsert(items_of(30), rows_of(30))
        assert (len(store), store.info.detail["partitions"]) == (30, 3)


def test_a_store_that_was_made_anew_is_another_one_to_who_had_it_open(server: RedisServer) -> None:
    with open_store(server.url(), create=INFO) as old:
        old.upsert(items_of(5), rows_of(5))
        server.client().flushall()
        with open_store(server.url(), create=StoreInfo(16, "f" * 64, "other")) as new:
            row = normalise(np.ones((1, 16)))
            new.upsert([Item("i1")], row)
            acts = (
                lambda: old.query(rows_of(1)),
                lambda: old.upsert(items_of(2), rows_of(2)),
                lambda: old.delete(["i1"]),
                lambda: old.get(["i1"]),
                lambda: len(old),
                lambda: old.hold_writes("", for_s=60, leaving="live"),
                lambda: old.release_writes(),
                lambda: old.follow("another"),
            )
            for act in acts:
                with pytest.raises(StoreDamaged, match="has lost"):
                    act()
            assert new.follows == ""
            new.upsert([Item("i1")], row)  # nobody holds it
            assert new.query(row)[0][0].item == Item("i1")
            assert new.verify().problems == []


def test_a_server_that_never_syncs_gives_no_durability(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "no") as server:
        with pytest.raises(CannotBeDone, match="never syncs its append-only file"):
            open_store(server.url(durability="aof"), create=INFO)
        with open_store(server.url(), create=INFO) as store:
            store.upsert([Item("a")], rows_of(1))
            assert (store.info.detail["durability"], store.info.detail["appendfsync"]) == ("none", "no")


def test_verify_beside_writers_tells_of_no_damage(server: RedisServer) -> None:
    stop = threading.Event()
    with open_store(server.url(), create=INFO) as store:
        store.upsert(items_of(300), rows_of(300))

        def write() -> None:
            turn = 0
            while not stop.is_set():
                turn += 1
                store.upsert([Item(f"i{n}", {"turn": turn}) for n in range(20)], rows_of(20, turn))
                store.delete([f"i{n}" for n in range(10)])

        thread = threading.Thread(target=write)
        thread.start()
        try:
            assert [store.verify().problems for _ in range(8)] == [[]] * 8
        finally:
            stop.set()
            thread.join()


def test_a_record_that_is_none_is_a_problem_and_not_an_error_of_verify(store: VectorStore, server: RedisServer) -> None:
    store.upsert(items_of(3), rows_of(3))
    for one, harm in (("i0", b"garbage"), ("i1", b"2\n\xff\xfe"), ("i2", b"3\nnot json")):
        server.client().hset("binsight:{t:0}:r", one, harm)
    problems = store.verify().problems
    assert [any(f"'{one}'" in problem for problem in problems) for one in ("i0", "i1", "i2")] == [True] * 3


def test_another_form_than_a_store_was_made_in_is_refused(server: RedisServer) -> None:
    with open_store(server.url(quantization="int8"), create=INFO):
        pass
    for other in ({"quantization": "none"}, {"partitions": 4}):
        with pytest.raises(BadSettings, match="leave it out of the URL"):
            open_store(server.url(**other))


# URLs


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://localhost:6379/0", "want &index=NAME"),
        ("redis://localhost:6379/0?index=a/b", "want &index=NAME"),
        ("redis://localhost:port/0?index=a", "cannot be read"),
        ("redis:///0?index=a", "want redis://HOST:PORT"),
        ("redis://h/0?index=a&durability=maybe", "want &durability=aof|none"),
        ("redis://h/0?index=a&partitions=2000", "from 0 to 1024"),
        ("redis://h/0?index=a&partitions=x", "from 0 to 1024"),
        ("redis://h/0?index=a&speed=1", "'speed' is no parameter"),
        ("redis+cluster://h/3?index=a", "only database 0"),
        ("redis://joe:123/45@h/0?index=a", "number of a database"),
        ("redis://h/abc?index=a", "number of a database"),
        ("redis://h/0?index=a#b", "number of a database"),
        ("redis://h/0?index=a&index=b", "each parameter of a store's URL once"),
        ("redis://h/0?index=a&ca=/x", "give it with rediss://"),
        ("unix://h/0?index=a", "is no kind of store"),
        ("redis+sentinel://h/0?index=a", "is no kind of store"),
    ],
)
def test_a_url_that_names_no_store_is_refused(url: str, says: str) -> None:
    with pytest.raises(BadSettings, match=says.replace("|", r"\|")):
        open_store(url, create=INFO)


def test_a_password_is_never_shown() -> None:
    url = redis_url.parse("rediss://joe:s3cret@h:1/2?index=parts&timeout_s=3")
    assert (url.server, url.shown, url.timeout_s) == ("rediss://joe:s3cret@h:1/2", "rediss://h:1/2?index=parts", 3.0)
    assert "s3cret" not in repr(url)
    for bad in (
        "redis://joe:s3c/ret@h:1/0?index=a",
        "redis://joe:s3c#ret@h:1/0?index=a",
        "redis://joe:s3cret@h:1\uff03/0?index=a",
    ):
        with pytest.raises(BadSettings) as told:
            redis_url.parse(bad)
        assert "s3c" not in str(told.value)
        assert told.value.__cause__ is None
    assert redis_url.parse("redis://[::1]:7/0?index=a").shown == "redis://[::1]:7/0?index=a"


# Random sequences of calls against a plain dictionary


class RedisMachine(StoreMachine):
    """The shared store, in two partitions."""

    off = 1e-6
    server: RedisServer

    def __init__(self) -> None:
        self.server.client().flushall()
        self.url = self.server.url(partitions=2)
        super().__init__()


def test_random_calls_agree_with_a_dictionary(redis_8: RedisServer) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    RedisMachine.server = redis_8
    run_state_machine_as_test(RedisMachine, settings=_SETTINGS)
