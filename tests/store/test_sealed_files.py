"""A file that is whole but says other things than this version writes is damage, healed where it is a cache; no bug of ours."""

from __future__ import annotations

import json
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from binsight.errors import CannotBeDone, StoreDamaged
from binsight.records import Item, Metadata, StoreInfo
from binsight.store import faiss_store, open_store
from binsight.store.files import Generation, crc_of_file, read_sealed_json, sealed_json
from binsight.store.journal import UPSERT, _frame
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


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an index, built once."""
    folder = tmp_path_factory.mktemp("built") / "s.store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faiss_store, "SMALL_ROWS", 500)
        with open_store(folder, create=INFO) as store:
            store.upsert([Item(str(row)) for row in range(700)], vectors())
            store.compact()
    return folder


@pytest.fixture
def indexed(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(faiss_store, "SMALL_ROWS", 500)
    monkeypatch.setattr(faiss_store, "TAIL_ROWS", 50)
    shutil.copytree(built, tmp_path / "s.store")
    return tmp_path / "s.store"


def vectors() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return normalise(np.random.default_rng(3).standard_normal((700, 16)))


def sealed_text(line: bytes) -> bytes:
    return line + b"\n%08x\n" % zlib.crc32(line)


def changed(**fields: object) -> Callable[[Metadata], bytes]:
    return lambda record: sealed_json(record | fields)


def with_parameters(**fields: object) -> Callable[[Metadata], bytes]:
    return lambda record: sealed_json(record | {"parameters": record["parameters"] | fields})


LIES: dict[str, tuple[str, Callable[[Metadata], bytes]]] = {
    "seal not JSON": ("items-000001.seal", lambda _: sealed_text(b"{no json")),
    "seal too deep": ("items-000001.seal", lambda _: sealed_text(b"[" * 100_000)),
    "seal not UTF-8": ("items-000001.seal", lambda _: sealed_text(b"\xff")),
    "seal a list": ("items-000001.seal", lambda _: sealed_text(b"[]")),
    "seq null": ("items-000001.seal", changed(seq=None)),
    "seq a list": ("items-000001.seal", changed(seq=[1])),
    "seq a text": ("items-000001.seal", changed(seq="x")),
    "seq infinite": ("items-000001.seal", changed(seq=float("inf"))),
    "index not JSON": ("index-000001.json", lambda _: sealed_text(b"")),
    "index no file": ("index-000001.json", changed(file="")),
    "index file of a NUL": ("index-000001.json", changed(file="a\0b")),
    "index file a number": ("index-000001.json", changed(file=5)),
    "index long file": ("index-000001.json", changed(file="x" * 300)),
    "index probes a text": ("index-000001.json", with_parameters(probes="8")),
    "index probes 0": ("index-000001.json", with_parameters(probes=0)),
    "index probes beyond lists": ("index-000001.json", with_parameters(probes=1 << 30)),
    "index candidates a float": ("index-000001.json", with_parameters(candidates=1e300)),
    "index rows true": ("index-000001.json", with_parameters(rows=True)),
    "index recall null": ("index-000001.json", with_parameters(recall_at_10=None)),
    "index other lists": ("index-000001.json", with_parameters(lists=7, probes=1)),
    "pointer without a store": ("CURRENT", lambda record: sealed_json({k: v for k, v in record.items() if k != "store"})),
    "pointer not JSON": ("CURRENT", lambda _: sealed_text(b"?")),
    "pointer generation true": ("CURRENT", changed(generation=True)),
    "pointer generation a text": ("CURRENT", changed(generation="1")),
}  # fmt: skip


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("lie", LIES)
def test_what_only_repeats_the_truth_heals_when_it_lies(indexed: Path, lie: str, read_only: bool) -> None:
    name, change = LIES[lie]
    (indexed / name).write_bytes(change(read_sealed_json(indexed / name)))
    with open_store(indexed, read_only=read_only) as store:
        assert [matches[0].item.id for matches in store.query(vectors()[:3], k=1)] == ["0", "1", "2"]
    with open_store(indexed) as store:
        store.compact()
        assert store.verify().is_sound


@pytest.mark.parametrize("told", ["[]", "{", "[" * 100_000, '{"dim": true}', '{"dim": 65537}', "\udcff"])
@pytest.mark.parametrize("read_only", [True, False])
def test_an_identity_that_is_made_up_is_damage(indexed: Path, told: str, read_only: bool) -> None:
    (journal,) = indexed.glob("journal-*")
    journal.write_bytes(_frame(0, 0, 0, 1, told.encode(errors="surrogateescape")))
    with pytest.raises(StoreDamaged):
        open_store(indexed, read_only=read_only)


@pytest.mark.parametrize("body", [b"", b"\xff" * 9, b"\1\0\1\0\0\0\0\0\0\0\xff\xff"])
@pytest.mark.parametrize("read_only", [True, False])
def test_a_frame_that_is_made_up_is_damage_and_stays(indexed: Path, body: bytes, read_only: bool) -> None:
    (journal,) = indexed.glob("journal-*")
    with journal.open("ab") as file:
        file.write(_frame(UPSERT, 2, 700, 1, body))
    before = journal.read_bytes()
    with pytest.raises(CannotBeDone):
        open_store(indexed, read_only=read_only)
    assert journal.read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE state SET seq = 'x'", "UPDATE state SET rows = NULL", "UPDATE state SET journal_end = 1.5",
        "UPDATE state SET items = -1", "UPDATE items SET row = row + 1000000000", "UPDATE items SET row = -1 WHERE row = 0",
    ],
)  # fmt: skip
@pytest.mark.parametrize("read_only", [True, False])
def test_a_table_that_is_made_up_is_built_anew_from_the_journal(indexed: Path, statement: str, read_only: bool) -> None:
    forge(indexed, statement)
    with open_store(indexed, read_only=read_only) as store:
        assert [matches[0].item.id for matches in store.query(vectors()[:3], k=1)] == ["0", "1", "2"]


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 5000])
def test_a_record_that_is_made_up_is_damage(indexed: Path, text: str) -> None:
    forge(indexed, "UPDATE items SET metadata = ? WHERE id = '0'", text)
    with open_store(indexed, read_only=True) as store:
        for look in (
            lambda: store.get(["0"]), lambda: store.query(vectors()[:1]), lambda: list(store.scan()),
        ):  # fmt: skip
            with pytest.raises(StoreDamaged):
                look()
        assert not store.verify().is_sound


def forge(folder: Path, statement: str, *values: str) -> None:
    """Change the table and seal it again."""
    files = Generation(folder, 1)
    with sqlite3.connect(files.items) as table:
        table.execute(statement, values)
        table.commit()
        table.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    table.close()
    seal = read_sealed_json(files.seal) | {"bytes": files.items.stat().st_size, "crc": crc_of_file(files.items)}
    files.seal.write_bytes(sealed_json(json.loads(json.dumps(seal))))
