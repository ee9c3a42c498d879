"""Random sequences of calls against a plain dictionary."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from binsight.filters import Filter
from binsight.records import Item, StoreInfo
from binsight.store import VectorStore, faiss_store, open_store
from binsight.vectors import Vectors, normalise

DIM = 8
INFO = StoreInfo(dim=DIM, fingerprint="c" * 64, model="machine")
IDS = st.sampled_from([f"item {n}" for n in range(40)])
RECORDS = st.fixed_dictionaries({"n": st.integers(0, 5), "label": st.sampled_from(["ram", "cpu", "hdd"])})


class StoreMachine(RuleBasedStateMachine):
    """A store beside a dictionary; `url` is set by each kind."""

    url = "exact:"
    off = 0.0  # of a vector that comes back, at most

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="binsight-machine-"))
        self.model: dict[str, tuple[dict[str, object], Vectors]] = {}
        self.random = np.random.default_rng(0)

    @initialize(seed=st.integers(0, 2**16))
    def start(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.store: VectorStore = open_store(self.url or self.folder / "m.store", create=INFO)

    @rule(batch=st.lists(st.tuples(IDS, RECORDS), min_size=1, max_size=12))
    def upsert(self, batch: list[tuple[str, dict[str, object]]]) -> None:
        vectors = normalise(self.random.standard_normal((len(batch), DIM)))
        self.store.upsert([Item(one, record) for one, record in batch], vectors)
        for (one, record), vector in zip(batch, vectors, strict=True):
            self.model[one] = (record, vector)

    @rule(ids=st.lists(IDS, max_size=8))
    def delete(self, ids: list[str]) -> None:
        there = {one for one in ids if one in self.model}
        assert self.store.delete(ids) == len(there)
        for one in there:
            del self.model[one]

    @rule()
    def compact(self) -> None:
        self.store.compact()

    @precondition(lambda self: not self.url)
    @rule(read_only_between=st.booleans())
    def reopen(self, read_only_between: bool) -> None:
        self.store.close()
        if read_only_between:
            with open_store(self.folder / "m.store", read_only=True) as reader:
                assert len(reader) == len(self.model)
        self.store = open_store(self.folder / "m.store")

    @rule(k=st.integers(1, 50), where=st.sampled_from([None, "n >= 3", 'label = "ram"', 'not (n < 2 or label = "cpu")']))
    def query(self, k: int, where: str | None) -> None:
        queries = normalise(self.random.standard_normal((2, DIM)))
        passing = [one for one, (record, _) in self.model.items() if where is None or Filter.parse(where).matches(record)]
        for query, matches in zip(queries, self.store.query(queries, k=k, where=where), strict=True):
            scores = {one: float(np.dot(self.model[one][1], query)) for one in passing}
            best = sorted(scores.values(), reverse=True)[:k]
            np.testing.assert_allclose([match.score for match in matches], best, atol=1e-5)
            assert len({match.item.id for match in matches}) == len(matches)
            for match in matches:
                assert abs(scores[match.item.id] - match.score) < 1e-5
                assert match.item.metadata == self.model[match.item.id][0]

    @rule(ids=st.lists(IDS, max_size=5))
    def get(self, ids: list[str]) -> None:
        wanted = [Item(one, self.model[one][0]) if one in self.model else None for one in ids]
        assert self.store.get(ids) == wanted
        known = [one for one in ids if one in self.model]
        for one, vector in zip(known, self.store.vectors_of(known), strict=True):
            np.testing.assert_allclose(vector, self.model[one][1], atol=self.off)

    @rule(where=st.sampled_from([None, "n = 1", 'label in ("ram", "hdd")']))
    def scan(self, where: str | None) -> None:
        wanted = {one for one, (record, _) in self.model.items() if where is None or Filter.parse(where).matches(record)}
        found = [item.id for item in self.store.scan(where)]
        assert sorted(found) == sorted(wanted)

    @invariant()
    def as_many(self) -> None:
        assert len(self.store) == len(self.model) if hasattr(self, "store") else True

    def teardown(self) -> None:
        if hasattr(self, "store"):
            report = self.store.verify()
            assert report.is_sound, report.problems
            self.store.close()
        shutil.rmtree(self.folder)


class LocalMachine(StoreMachine):
    """The local store, with its index made so eagerly that small stores have one."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.kept = (faiss_store.SMALL_ROWS, faiss_store.TAIL_ROWS, faiss_store.FEW_ROWS)
        faiss_store.SMALL_ROWS, faiss_store.TAIL_ROWS, faiss_store.FEW_ROWS = 10_000, 8, 2

    @rule()
    def let_it_build_an_index(self) -> None:
        faiss_store.SMALL_ROWS = 20
        self.store.compact()

    def teardown(self) -> None:
        super().teardown()
        faiss_store.SMALL_ROWS, faiss_store.TAIL_ROWS, faiss_store.FEW_ROWS = self.kept


_SETTINGS = settings(max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
TestExactStore = StoreMachine.TestCase
TestExactStore.settings = _SETTINGS
TestLocalStore = LocalMachine.TestCase
TestLocalStore.settings = _SETTINGS
