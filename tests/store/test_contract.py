"""The contract of a store. Every kind of store runs through all of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from binsight.errors import BadFilter, BadItem, BadSettings, BadVectors, ModelMismatch, StoreReadOnly, UnknownItem
from binsight.records import Item, Match, Metadata, StoreInfo
from binsight.store import VectorStore, exact, open_store
from binsight.vectors import Vectors, normalise
from tests.redis_server import RedisServer

DIM = 4
INFO = StoreInfo(dim=DIM, fingerprint="a" * 64, model="test-model")
KINDS = ("exact", "local", "redis")

Opener = Callable[[], VectorStore]


@pytest.fixture(params=KINDS)
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_8")
        server.client().flushall()
        return lambda: open_store(server.url(), create=INFO)
    url = {"exact": "exact:", "local": str(tmp_path / "t.store")}[request.param]
    return lambda: open_store(url, create=INFO)


@pytest.fixture
def store(opener: Opener) -> VectorStore:
    return opener()


def unit(*rows: list[float]) -> Vectors:
    return normalise(np.array(rows, dtype=np.float64))


AXES = unit([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1])


def at_angle(degrees: float) -> Vectors:
    """A vector in the plane of the first two axes."""
    return unit([math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), 0, 0])


def ids(matches: Sequence[Match]) -> list[str]:
    return [match.item.id for match in matches]


def test_a_new_store_is_empty_and_knows_its_model(store: VectorStore) -> None:
    assert len(store) == 0
    assert (store.info.dim, store.info.fingerprint, store.info.model, store.info.metric) == (
        DIM,
        "a" * 64,
        "test-model",
        "cosine",
    )
    assert store.info.items == 0
    assert store.info.created.startswith("20")
    assert store.query(AXES[:2], k=3) == [[], []]
    assert list(store.scan()) == []


def test_scores_are_cosines_worked_out_by_hand(store: VectorStore) -> None:
    store.upsert([Item("0°"), Item("60°"), Item("90°"), Item("180°")], np.concatenate([at_angle(a) for a in (0, 60, 90, 180)]))
    (matches,) = store.query(at_angle(0), k=4)
    assert ids(matches) == ["0°", "60°", "90°", "180°"]
    assert [match.score for match in matches] == pytest.approx([1.0, 0.5, 0.0, -1.0], abs=1e-6)


def test_a_batch_of_queries_gets_a_list_each(store: VectorStore) -> None:
    store.upsert([Item(name) for name in "abcd"], AXES)
    found = store.query(AXES[[2, 0]], k=1)
    assert [ids(matches) for matches in found] == [["c"], ["a"]]
    assert store.query(AXES[:0], k=1) == []


def test_k_beyond_the_store_gives_all_there_are(store: VectorStore) -> None:
    store.upsert([Item("a"), Item("b")], AXES[:2])
    assert len(store.query(AXES[:1], k=50)[0]) == 2


def test_equal_scores_come_in_order_of_arrival(store: VectorStore) -> None:
    store.upsert([Item(name) for name in ("z", "y", "x")], AXES[[0, 0, 0]])
    assert ids(store.query(AXES[:1], k=3)[0]) == ["z", "y", "x"]


def test_metadata_comes_back_as_it_was(store: VectorStore) -> None:
    record = {"label": "räm ☃", "quantity": 3, "price": 1.5, "sold": False, "none": None, "tags": ["a", 1], "deep": {"x": [{}]}}
    store.upsert([Item("a", record)], AXES[:1])
    assert store.get(["a"]) == [Item("a", record)]
    assert store.query(AXES[:1], k=1)[0][0].item.metadata == record
    assert next(iter(store.scan())).metadata == record


def test_get_answers_in_order_with_none_for_the_unknown(store: VectorStore) -> None:
    store.upsert([Item("a", {"n": 1}), Item("b", {"n": 2})], AXES[:2])
    assert store.get(["b", "?", "a", "b"]) == [Item("b", {"n": 2}), None, Item("a", {"n": 1}), Item("b", {"n": 2})]
    assert store.get([]) == []


def test_vectors_of_gives_the_rows_in_order_and_names_the_unknown(store: VectorStore) -> None:
    store.upsert([Item(name) for name in "abcd"], AXES)
    np.testing.assert_array_equal(store.vectors_of(["d", "a"]), AXES[[3, 0]])
    assert store.vectors_of([]).shape == (0, DIM)
    with pytest.raises(UnknownItem, match="'nope'"):
        store.vectors_of(["a", "nope"])


def test_the_same_id_replaces_vector_and_record(store: VectorStore) -> None:
    store.upsert([Item("a", {"v": 1}), Item("b")], AXES[:2])
    store.upsert([Item("a", {"v": 2})], AXES[2:3])
    assert len(store) == 2
    assert store.get(["a"]) == [Item("a", {"v": 2})]
    assert store.query(AXES[2:3], k=1)[0][0].score == pytest.approx(1.0, abs=1e-6)
    assert all(match.score < 0.5 for match in store.query(AXES[:1], k=5)[0])


def test_the_last_of_equal_ids_in_a_batch_wins(store: VectorStore) -> None:
    store.upsert([Item("a", {"v": 1}), Item("b"), Item("a", {"v": 2})], AXES[:3])
    assert len(store) == 2
    assert store.get(["a"]) == [Item("a", {"v": 2})]
    np.testing.assert_array_equal(store.vectors_of(["a"]), AXES[2:3])


def test_deleted_items_are_gone_and_counted(store: VectorStore) -> None:
    store.upsert([Item(name) for name in "abcd"], AXES)
    assert store.delete(["a", "c", "a", "?"]) == 2
    assert store.delete([]) == 0
    assert len(store) == 2
    assert store.get(["a", "b"]) == [None, Item("b")]
    assert ids(store.query(AXES[:1], k=4)[0]) == ["b", "d"]
    store.upsert([Item("a", {"back": True})], AXES[:1])
    assert ids(store.query(AXES[:1], k=1)[0]) == ["a"]


def test_a_filter_never_costs_a_match(store: VectorStore) -> None:
    items = [Item(f"i{n}", {"n": n, "even": n % 2 == 0}) for n in range(200)]
    vectors = normalise(np.random.default_rng(1).standard_normal((200, DIM)))
    store.upsert(items, vectors)
    (matches,) = store.query(AXES[:1], k=10, where="n >= 150 and not even = true")
    wanted = sorted((n for n in range(150, 200) if n % 2), key=lambda n: -vectors[n, 0])[:10]
    assert ids(matches) == [f"i{n}" for n in wanted]
    assert len(store.query(AXES[:1], k=10, where="n < 3")[0]) == 3
    assert store.query(AXES[:1], k=10, where="n < 0") == [[]]
    assert sorted(item.id for item in store.scan("n in (7, 8)")) == ["i7", "i8"]


def test_a_filter_sees_what_was_just_written(store: VectorStore) -> None:
    store.upsert([Item("a", {"n": 1})], AXES[:1])
    assert ids(store.query(AXES[:1], where="n = 1")[0]) == ["a"]
    store.upsert([Item("b", {"n": 1}), Item("a", {"n": 2})], AXES[:2])
    assert ids(store.query(AXES[:1], where="n = 1")[0]) == ["b"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("", "1 to 512 bytes"),
        ("x" * 513, "at most 512 bytes"),
        ("ä" * 257, "at most 512 bytes"),
        ("a\nb", "control characters"),
        ("a\x85b", "control characters"),
        ("\ud800", "valid Unicode"),
        (7, "a string"),
    ],
)
def test_an_id_outside_the_contract_is_refused(store: VectorStore, bad: str, message: str) -> None:
    with pytest.raises(BadItem, match=message):
        store.upsert([Item("good"), Item(bad)], AXES[:2])
    assert len(store) == 0


@pytest.mark.parametrize("name", ["x" * 512, "ä" * 256, "a b/c\\d'\"%_*?[]{}:;☃", " ", "../../etc/passwd"])
def test_any_other_id_is_only_a_name(store: VectorStore, name: str) -> None:
    store.upsert([Item(name, {"n": 1})], AXES[:1])
    assert store.get([name]) == [Item(name, {"n": 1})]
    assert store.delete([name]) == 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"x": float("nan")}, "JSON"),
        ({"x": object()}, "JSON"),
        ({"x": "y" * 65_536}, "at most 65536 bytes"),
        ({1: "x"}, "string keys"),
        (["x"], "JSON object"),
        ({"x": "\ud800"}, "valid Unicode"),
        ({"x": json.loads("[" * 100 + "]" * 100)}, "at most 100 deep"),
    ],
)
def test_metadata_outside_the_contract_is_refused(store: VectorStore, bad: dict[str, object], message: str) -> None:
    with pytest.raises(BadItem, match=message):
        store.upsert([Item("a", bad)], AXES[:1])
    assert len(store) == 0


@pytest.mark.parametrize(
    "bad",
    [
        AXES[:1].astype(np.float64),
        AXES[:1, :3],
        AXES[0],
        AXES[:1] * 2,
        np.full((1, DIM), np.nan, np.float32),
        np.zeros((1, DIM), np.float32),
    ],
    ids=["float64", "short", "flat", "long", "nan", "zero"],
)
def test_vectors_that_are_no_unit_rows_are_refused(store: VectorStore, bad: Vectors) -> None:
    with pytest.raises(BadVectors, match=r"want float32 \(n, 4\) unit rows, got .*call vectors.normalise first"):
        store.upsert([Item("a")], bad)
    with pytest.raises(BadVectors, match="want float32"):
        store.query(bad)
    assert len(store) == 0


def test_items_and_vectors_must_be_as_many(store: VectorStore) -> None:
    with pytest.raises(BadVectors, match="2 vectors for 1 items"):
        store.upsert([Item("a")], AXES[:2])


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3", 10**9])
def test_k_must_be_a_whole_number_from_one_up(store: VectorStore, k: int) -> None:
    with pytest.raises(BadSettings, match="want k from 1"):
        store.query(AXES[:1], k=k)


def test_a_bad_filter_is_refused(store: VectorStore) -> None:
    with pytest.raises(BadFilter):
        store.query(AXES[:1], where="label = ")


def test_one_string_is_no_list_of_ids(store: VectorStore) -> None:
    with pytest.raises(BadSettings, match=r"pass \[id\]"):
        store.get("abc")


def test_another_model_is_refused_with_both_fingerprints(opener: Opener, store: VectorStore) -> None:
    other = StoreInfo(dim=DIM, fingerprint="b" * 64, model="other-model")
    with pytest.raises(ModelMismatch, match=f"{'a' * 64}.*{'b' * 64}"):
        store.expect(other)
    with pytest.raises(ModelMismatch):
        store.expect(StoreInfo(dim=DIM + 1, fingerprint="a" * 64, model="test-model"))
    store.expect(INFO)


def test_verify_and_compact_leave_a_sound_store_as_it_is(store: VectorStore) -> None:
    store.upsert([Item(name, {"n": name}) for name in "abcd"], AXES)
    store.upsert([Item("a", {"n": "new"})], AXES[:1])
    store.delete(["b"])
    before = sorted((item.id, str(item.metadata)) for item in store.scan())
    report = store.verify()
    assert (report.is_sound, report.items) == (True, 3)
    store.compact()
    assert sorted((item.id, str(item.metadata)) for item in store.scan()) == before
    assert store.verify().is_sound
    assert ids(store.query(AXES[2:3], k=1)[0]) == ["c"]
    store.upsert([Item("e")], AXES[1:2])
    assert len(store) == 4


def test_an_answer_may_be_changed_without_changing_the_store(store: VectorStore) -> None:
    records: tuple[Metadata, ...] = ({"n": 1}, {"n": 1, "deep": {"tags": ["x"]}})
    for record in records:
        _check_answers_are_own(store, record)


def _check_answers_are_own(store: VectorStore, record: Metadata) -> None:
    store.upsert([Item("a", record)], AXES[:1])
    looks: list[Callable[[], Item | None]] = [
        lambda: store.query(AXES[:1])[0][0].item,
        lambda: store.get(["a"])[0],
        lambda: next(iter(store.scan())),
    ]
    for look in looks:
        found = look()
        assert found is not None
        found.metadata["n"] = 2
        found.metadata.get("deep", {})["tags"] = []
        assert look() == Item("a", record)


def test_every_place_of_an_answer_has_objects_of_its_own(store: VectorStore) -> None:
    store.upsert([Item("a", {"n": 1}), Item("b", {"n": 1, "deep": {"tags": ["x"]}})], AXES[:2])
    first, second = (matches[0].item for matches in store.query(np.repeat(AXES[:1], 2, axis=0), k=1))
    one, other = store.get(["b", "b"])
    assert one is not None
    assert other is not None
    first.metadata["n"] = 2
    one.metadata["deep"]["tags"].append("y")
    assert second == Item("a", {"n": 1})
    assert other == Item("b", {"n": 1, "deep": {"tags": ["x"]}})
    found = store.get(["a", "nope", "b", "a"])
    assert [item and item.id for item in found] == ["a", None, "b", "a"]


@pytest.mark.parametrize("blocks", [1, 7, 1 << 22])
def test_many_queries_get_what_each_gets_alone(store: VectorStore, monkeypatch: pytest.MonkeyPatch, blocks: int) -> None:
    monkeypatch.setattr(exact, "_BLOCK_SCORES", blocks)
    store.upsert([Item(f"{n}") for n in range(40)], np.repeat(AXES, 10, axis=0))
    queries = unit([3, 2, 1, 0], [0, 1, 2, 3], [1, 1, 1, 1])
    for k in (1, 5, 10, 15, 39, 40, 100):
        together = store.query(queries, k=k)
        assert [ids(matches) for matches in together] == [ids(store.query(row[None], k=k)[0]) for row in queries]
        assert ids(together[0]) == [str(n) for n in range(40)][:k]
        assert ids(together[2]) == [str(n) for n in range(40)][:k]


@pytest.mark.parametrize(
    "bad",
    [
        StoreInfo(DIM, "f", "m", metric=None),  # type: ignore[arg-type]
        StoreInfo(DIM, "f", None),  # type: ignore[arg-type]
        StoreInfo(DIM, "f", "\ud800"),
        StoreInfo(DIM, "\ud800", "m"),
        StoreInfo(DIM, "f", "m" * 4097),
        StoreInfo(DIM, "f" * 4097, "m"),
        StoreInfo(DIM, "f", "m", created=5),  # type: ignore[arg-type]
        StoreInfo(65_537, "f", "m"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_no_store_can_remember_is_refused_before_anything_is_written(
    tmp_path: Path, kind: str, bad: StoreInfo
) -> None:
    with pytest.raises(BadSettings):
        open_store("exact:" if kind == "exact" else tmp_path / "t.store", create=bad)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_store_is_true(store: VectorStore) -> None:
    assert store
    assert len(store) == 0


def test_closing_twice_does_nothing(store: VectorStore) -> None:
    store.close()
    store.close()


def test_a_read_only_store_refuses_writes(tmp_path: Path) -> None:
    with open_store(tmp_path / "t.store", create=INFO) as writer:
        writer.upsert([Item("a")], AXES[:1])
    with open_store(tmp_path / "t.store", read_only=True) as reader:
        assert len(reader) == 1
        for write in (lambda: reader.upsert([Item("b")], AXES[:1]), lambda: reader.delete(["a"]), reader.compact):
            with pytest.raises(StoreReadOnly, match="read_only=True"):
                write()
