"""A small file that is whole but says other things than this version writes is damage of a cache, not our bug."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from binsight.records import Item, StoreInfo
from binsight.store import faiss_store, open_store
from binsight.store.files import sealed_json
from binsight.vectors import normalise

INFO = StoreInfo(dim=16, fingerprint="a" * 64, model="test-model")


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("name", ["items-000001.seal", "index-000001.json"])
def test_a_seal_of_other_fields_heals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, read_only: bool) -> None:
    monkeypatch.setattr(faiss_store, "SMALL_ROWS", 500)
    monkeypatch.setattr(faiss_store, "TAIL_ROWS", 50)
    vectors = normalise(np.random.default_rng(3).standard_normal((700, 16)))
    with open_store(tmp_path / "s.store", create=INFO) as store:
        store.upsert([Item(str(row)) for row in range(700)], vectors)
        store.compact()
    assert (tmp_path / "s.store" / name).exists()
    (tmp_path / "s.store" / name).write_bytes(sealed_json({"bytes": 1, "crc": 2}))
    with open_store(tmp_path / "s.store", read_only=read_only) as store:
        assert len(store) == 700
        assert [matches[0].item.id for matches in store.query(vectors[:5], k=1)] == ["0", "1", "2", "3", "4"]
