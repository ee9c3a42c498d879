"""The index of a local store: what it finds, also after much was deleted, and the graph over its lists."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from binsight.errors import BadItem, StoreUnavailable
from binsight.patience import until
from binsight.records import Item, StoreInfo
from binsight.store import faiss_index, faiss_store, open_store
from binsight.vectors import Vectors, normalise

DIM = 32
INFO = StoreInfo(DIM, "e" * 64, "test")


def curved(n: int, seed: int) -> Vectors:
    """Unit rows near a surface of six dimensions, as embeddings lie."""
    random = np.random.default_rng(seed)
    spread = np.random.default_rng(99).standard_normal((6, DIM))
    return normalise(random.standard_normal((n, 6)) @ spread + 0.05 * random.standard_normal((n, DIM)))


def recall(found: list[list[int]], queries: Vectors, rows: Vectors, live: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
    truth = live[np.argsort(-(queries @ rows[live].T), axis=1)[:, :10]]
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth.tolist(), strict=True)]))


def filled(folder: Path, rows: Vectors) -> faiss_store.FaissStore:
    store = open_store(folder, create=INFO)
    assert isinstance(store, faiss_store.FaissStore)
    store.upsert([Item(str(row)) for row in range(len(rows))], rows)
    store.compact()
    return store


def asked(store: faiss_store.FaissStore, queries: Vectors) -> list[list[int]]:
    return [[int(match.item.id) for match in matches] for matches in store.query(queries, k=10)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_store, "SMALL_ROWS", 2000)
    monkeypatch.setattr(faiss_store, "FEW_ROWS", 200)


@pytest.mark.parametrize("left", [3000, 800, 150])
def test_recall_stays_after_most_rows_were_deleted(small: None, tmp_path: Path, left: int) -> None:
    rows, queries = curved(8000, 1), curved(100, 2)
    store = filled(tmp_path / "s", rows)
    assert store.info.detail["index"]["kind"] == "ivf-pq-fastscan"
    every = np.arange(len(rows))
    assert recall(asked(store, queries), queries, rows, every) > 0.97
    live = np.sort(np.random.default_rng(3).permutation(len(rows))[:left])
    store.delete([str(row) for row in np.setdiff1d(every, live)])
    assert recall(asked(store, queries), queries, rows, live) > 0.97


def test_recall_stays_fair_when_the_side_that_is_asked_for_was_deleted(small: None, tmp_path: Path) -> None:
    rows, queries = curved(8000, 1), curved(200, 2)
    store = filled(tmp_path / "s", rows)
    live = np.flatnonzero(rows[:, 0] > 0)
    store.delete([str(row) for row in np.flatnonzero(rows[:, 0] <= 0)])
    far = queries[queries[:, 0] <= 0]
    assert recall(asked(store, far), far, rows, live) > 0.9  # the hardest case: all near lists are empty


def test_a_graph_over_the_lists_finds_what_comparing_all_of_them_finds(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, queries = curved(8000, 1), curved(100, 2)
    monkeypatch.setattr(faiss_index, "GRAPH_LISTS", 64)
    store = filled(tmp_path / "s", rows)
    index = store._loaded[1]
    assert index is not None
    assert isinstance(faiss_index.faiss.downcast_index(index._index.quantizer), faiss_index.faiss.IndexHNSW)
    assert recall(asked(store, queries), queries, rows, np.arange(len(rows))) > 0.97
    more = curved(2000, 5)  # brought in without training anew: added without the graph, searched with it
    store.upsert([Item(str(8000 + row)) for row in range(len(more))], more)
    store.compact()
    index = store._loaded[1]
    assert index is not None
    assert (index.parameters.rows, index.parameters.trained_rows) == (10_000, 8000)
    assert recall(asked(store, queries), queries, np.concatenate([rows, more]), np.arange(10_000)) > 0.97
    store.close()
    with open_store(tmp_path / "s", read_only=True) as again:  # saved and read with its graph
        assert isinstance(again, faiss_store.FaissStore)
        assert recall(asked(again, queries), queries, np.concatenate([rows, more]), np.arange(10_000)) > 0.97


def test_a_reader_whose_tail_is_long_asks_on_while_a_writer_compacts(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader looks for a newer index at every query; its file comes and goes meanwhile."""
    monkeypatch.setattr(faiss_store, "TAIL_ROWS", -1000)
    rows = curved(2500, 1)
    writer = filled(tmp_path / "s", rows)
    failed: list[Exception] = []
    with open_store(tmp_path / "s", read_only=True) as reader:

        def read() -> None:
            try:
                while not done.is_set():
                    assert reader.query(rows[:1], k=1)[0][0].item.id == "0"
            except Exception as error:  # noqa: BLE001, whatever it is, it is told below
                failed.append(error)

        done = threading.Event()
        thread = threading.Thread(target=read)
        thread.start()
        for _ in range(6):
            writer.upsert([Item("1")], rows[1:2])
            writer.compact()
        done.set()
        thread.join()
    assert failed == []


def test_keys_of_nested_metadata_must_be_text_too(tmp_path: Path) -> None:
    with open_store(tmp_path / "s", create=INFO) as store, pytest.raises(BadItem, match="key"):
        store.upsert([Item("a", {"sizes": {1: "one", "1": "uno"}})], curved(1, 1))


def test_a_store_that_cannot_be_made_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Exception, match="file"):
        open_store(tmp_path / "file" / "s", create=INFO)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_index_answers_beside_faiss_own_torch_functions(tmp_path: Path) -> None:
    """They replace methods of every faiss index, and one of our dependencies loads them."""
    script = """
import sys
import numpy as np
import faiss.contrib.torch_utils
from binsight.store import faiss_index
rows = np.random.default_rng(0).standard_normal((3000, 16), dtype=np.float32)
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
index = faiss_index.build(rows, extend=None, live=lambda: None)
allowed = np.packbits(np.arange(3000) % 2 == 0, bitorder="little")
found = index.candidates(rows[:5], 10, allowed=allowed)
assert found.shape[0] == 5 and (found[found >= 0] % 2 == 0).all()
assert set(range(0, 5, 2)) <= set(found.ravel().tolist())
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, cwd=tmp_path, timeout=120)


def test_a_long_filter_ends_when_nobody_waits_for_its_answer_and_others_are_answered(tmp_path: Path) -> None:
    """900 tests of 20,000 items took 23 s, in which no other search was answered, also after its caller's deadline."""
    store = filled(tmp_path / "s", curved(3000, 1))
    long = " and ".join(f"not n > '{number}'" for number in range(900))
    for ask in (lambda: store.query(curved(1, 2), where=long), lambda: list(store.scan(f"not ({long})"))):
        given_up = threading.Event()
        threading.Timer(0.1, given_up.set).start()
        with until(given_up), pytest.raises(StoreUnavailable, match="nobody waits for the answer any more"):
            ask()
    assert len(store.query(curved(1, 2), k=10, where=long)[0]) == 10
    store.close()


def test_others_are_let_at_the_table_while_a_long_filter_looks_through_it(tmp_path: Path) -> None:
    store = filled(tmp_path / "s", curved(5000, 1))
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(store.query, curved(1, 2), k=10, where=" and ".join(f"not n > '{n}'" for n in range(900)))
        waited = []
        while not looking.done():
            began = time.perf_counter()
            assert len(store.query(curved(1, 3), k=1)[0]) == 1
            waited.append(time.perf_counter() - began)
    assert len(looking.result()[0]) == 10
    assert len(waited) > 5  # whole answers, while that one looked
    assert sum(waited) / len(waited) < 0.5
    store.close()


def test_a_filter_sees_every_row_once_in_many_stretches(tmp_path: Path) -> None:
    with open_store(tmp_path / "s", create=INFO) as store:
        store.upsert([Item(str(row), {"n": row}) for row in range(1000)], curved(1000, 1))
        store.delete([str(row) for row in range(0, 1000, 3)])
        found = store.query(curved(1, 2), k=1000, where="n >= 100")[0]
        assert sorted(int(match.item.id) for match in found) == [row for row in range(100, 1000) if row % 3]
