"""Shards: what is in their files, that damage is noticed, that they go on where they were, and that any store loads them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pyarrow.parquet as pq
import pytest
from indexer.cli import run
from indexer.shards import Shards

from binsight.data.part import Part
from binsight.errors import BadSettings, ModelMismatch, StoreDamaged, StoreLocked, StoreReadOnly, UnknownItem
from binsight.records import Item, StoreInfo
from binsight.store import VectorStore, open_store
from tests.fakes import paint, paint_pictures
from tests.indexer.jobs import MODEL, Done, assert_alike, state
from tests.redis_server import redis_server

INFO = StoreInfo(dim=4, fingerprint="a" * 64, model="test-model")
AXES = np.eye(4, dtype=np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shards"


def opened(folder: Path, *, items: int = 2, part: str = "1/1") -> Shards:
    return Shards.open(folder, INFO, part=Part.parse(part), shard_items=items)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".")


def test_a_shard_holds_records_counts_and_vectors_side_by_side(folder: Path) -> None:
    counted = {"quantity": 3, "seen": 2, "seen_low": 1, "seen_high": 4, "seen_expected": 2.25, "_source": {"counted": "seen"}}
    with opened(folder) as shards:
        shards.upsert([Item("b", counted), Item("a", {"quantity": 1})], AXES[[1, 0]])
    assert names(folder) == ["manifest.json", "part-000001-1of1.json", "part-000001-1of1.npy", "part-000001-1of1.parquet"]
    rows = pq.read_table(folder / "part-000001-1of1.parquet").to_pylist()
    assert [(row["id"], json.loads(row["metadata"])) for row in rows] == [("b", counted), ("a", {"quantity": 1})]
    assert [[row[name] for name in ("count", "count_low", "count_high", "count_expected")] for row in rows] == [
        [2, 1, 4, 2.25], [None, None, None, None]
    ]  # fmt: skip
    vectors = np.load(folder / "part-000001-1of1.npy")
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, AXES[[1, 0]])
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [manifest[name] for name in ("dim", "fingerprint", "model", "metric")] == [4, "a" * 64, "test-model", "cosine"]


def test_jobs_that_start_at_once_make_one_folder_of_shards_for_one_model(tmp_path: Path) -> None:
    jobs, begin = 6, Barrier(6)

    def made(number: int, folder: Path) -> str:
        model = "ab"[number % 2]
        begin.wait()
        try:
            with Shards.open(folder, StoreInfo(4, model * 64, model), part=Part(number, jobs)) as shards:
                shards.upsert([Item(f"{number} {model}")], AXES[:1])
        except ModelMismatch:
            return ""
        return f"{number} {model}"

    with ThreadPoolExecutor(jobs) as pool:
        for turn in range(10):
            folder = tmp_path / f"shards {turn}"
            told = sorted(pool.map(made, range(1, jobs + 1), [folder] * jobs))
            with Shards.open(folder, read_only=True) as shards:
                model = shards.info.model
                assert told == [
                    "",
                    "",
                    "",
                    *(f"{number} {model}" for number in range(1, jobs + 1) if "ab"[number % 2] == model),
                ]
                assert [*told[3:]] == sorted(item.id for item in shards.scan())


def test_nothing_but_shards_is_left_behind(folder: Path) -> None:
    with opened(folder) as shards:
        shards.upsert([Item("a")], AXES[:1])
        assert [path.name for path in folder.iterdir() if path.name[0] == "."] == [".lock-1of1"]
    with pytest.raises(ModelMismatch):
        Shards.open(folder, StoreInfo(dim=4, fingerprint="b" * 64, model="other"))
    (folder.parent / "mine").mkdir()
    (folder.parent / "mine/photo.jpg").touch()
    with pytest.raises(BadSettings, match="holds no shards"):
        opened(folder.parent / "mine")
    assert [path.name for path in (folder.parent / "mine").iterdir()] == ["photo.jpg"]
    assert [path.name for path in folder.iterdir() if path.name[0] == "."] == []


def test_items_are_there_before_and_after_their_shard_is_finished(folder: Path) -> None:
    with opened(folder, items=3) as shards:
        shards.upsert([Item(name, {"n": n}) for n, name in enumerate("abcd")], AXES)
        assert len(names(folder)) == 4  # of the fourth there is no file yet
        check_items(shards)
    with Shards.open(folder, read_only=True) as shards:
        check_items(shards)


def check_items(shards: VectorStore) -> None:
    assert len(shards) == 4
    assert shards.get(["d", "?", "a"]) == [Item("d", {"n": 3}), None, Item("a", {"n": 0})]
    np.testing.assert_array_equal(shards.vectors_of(["d", "a"]), AXES[[3, 0]])
    assert [item.id for item in shards.scan("n >= 2")] == ["c", "d"]
    with pytest.raises(UnknownItem, match="'nope'"):
        shards.vectors_of(["nope"])


def test_of_an_id_that_is_written_again_the_last_holds(folder: Path) -> None:
    for n in range(3):
        with opened(folder) as shards:
            shards.upsert([Item("a", {"n": n}), Item(f"other {n}")], AXES[[n, 3]])
    with Shards.open(folder, read_only=True) as shards:
        assert len(shards) == 4
        assert shards.get(["a"]) == [Item("a", {"n": 2})]
        np.testing.assert_array_equal(shards.vectors_of(["a"]), AXES[[2]])
        assert sorted(item.id for item in shards.scan()) == ["a", "other 0", "other 1", "other 2"]


def test_jobs_of_an_array_write_beside_each_other_and_one_part_has_one_writer(folder: Path) -> None:
    with opened(folder, part="1/2") as first, opened(folder, part="2/2") as second:
        first.upsert([Item("a")], AXES[:1])
        second.upsert([Item("b")], AXES[1:2])
        with pytest.raises(StoreLocked):
            opened(folder, part="1/2")
    with Shards.open(folder, read_only=True) as shards:
        assert {item.id for item in shards.scan()} == {"a", "b"}
    assert [name for name in names(folder) if name.endswith(".npy")] == ["part-000001-1of2.npy", "part-000001-2of2.npy"]


def test_another_model_is_refused(folder: Path) -> None:
    opened(folder).close()
    with pytest.raises(ModelMismatch, match=f"{'a' * 64}.*{'f' * 64}"):
        Shards.open(folder, StoreInfo(dim=4, fingerprint="f" * 64, model="other"))


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda shards: shards.query(AXES[:1]), BadSettings),
        (lambda shards: shards.delete(["a"]), BadSettings),
        (lambda shards: shards.upsert([Item("b")], AXES[:1]), StoreReadOnly),
    ],
)
def test_what_shards_cannot_do_is_said(folder: Path, act: Callable[[Shards], object], error: type[Exception]) -> None:
    with opened(folder) as shards:
        shards.upsert([Item("a")], AXES[:1])
    with Shards.open(folder, read_only=True) as shards, pytest.raises(error):
        act(shards)


def test_a_shard_without_its_json_does_not_count(folder: Path) -> None:
    with opened(folder) as shards:
        shards.upsert([Item(name) for name in "abcd"], AXES)
    (folder / "part-000002-1of1.json").unlink()  # as a kill before the last rename leaves it
    (folder / ".part-000003-1of1.npy.x1y2.part").write_bytes(b"half")
    with opened(folder) as shards:
        assert {item.id for item in shards.scan()} == {"a", "b"}
        assert not list(folder.glob(".part-*"))
        shards.upsert([Item("c"), Item("d")], AXES[2:])
    with Shards.open(folder, read_only=True) as shards:
        assert (len(shards), shards.verify().problems) == (4, [])


@pytest.mark.parametrize("ending", [".parquet", ".npy", ".json"])
def test_every_changed_byte_is_noticed(folder: Path, ending: str) -> None:
    with opened(folder) as shards:
        shards.upsert([Item("a"), Item("b")], AXES[:2])
    path = folder / f"part-000001-1of1{ending}"
    whole = path.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(StoreDamaged, match=r"part-000001-1of1"):
            read_everything(folder)
    path.write_bytes(whole[:-2])
    with pytest.raises(StoreDamaged, match=r"part-000001-1of1"):
        read_everything(folder)


@pytest.mark.parametrize("ending", [".parquet", ".npy"])
def test_a_missing_file_of_a_shard_is_noticed(folder: Path, ending: str) -> None:
    with opened(folder) as shards:
        shards.upsert([Item("a"), Item("b")], AXES[:2])
    (folder / f"part-000001-1of1{ending}").unlink()
    with pytest.raises(StoreDamaged, match="cannot be read: No such file"):
        read_everything(folder)


def read_everything(folder: Path) -> None:
    with Shards.open(folder, read_only=True) as shards:
        shards.vectors_of([item.id for item in shards.scan()])


def test_a_job_goes_on_after_its_finished_shards(tmp_path: Path, done: Done) -> None:
    bad = paint_pictures(tmp_path / "pictures", 60)
    job = ("run", tmp_path / "pictures", "--store", f"shards:{tmp_path / 'sh'}", "--shard-items", 16)
    report = done(*job, "--model", MODEL, code=1)
    assert (report["indexed"], len(report["refused"]), report["items"]) == (60, bad, 60)
    assert len(list((tmp_path / "sh").glob("*.npy"))) == 4  # 16 + 16 + 16 + 12
    for ending in (".json", ".npy", ".parquet"):
        (tmp_path / f"sh/part-000004-1of1{ending}").unlink()
    report = done(*job, code=1)
    assert (report["indexed"], report["unchanged"], report["items"]) == (12, 48, 60)


def test_shards_of_an_array_load_into_any_store(tmp_path: Path, done: Done) -> None:
    paint_pictures(tmp_path / "pictures", 19)
    done("run", tmp_path / "pictures", "--store", tmp_path / "whole.store", "--model", MODEL)
    for number in (1, 2):
        job = ("run", tmp_path / "pictures", "--store", f"shards:{tmp_path / 'sh'}", "--model", MODEL)
        done(*job, "--part", f"{number}/2", "--shard-items", 4)
    with open_store(tmp_path / "whole.store", read_only=True) as store:
        wanted = state(store)
    with redis_server(tmp_path / "redis") as server:
        for url in (str(tmp_path / "loaded.store"), server.url()):
            assert done("load", tmp_path / "sh", "--store", url) == {"loaded": 19, "unchanged": 0, "problems": []}
            assert done("load", tmp_path / "sh", "--store", url) == {"loaded": 0, "unchanged": 19, "problems": []}
            with open_store(url, read_only=True) as store:
                assert_alike(state(store), wanted)


def test_damaged_shards_and_those_of_another_model_are_not_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paint(tmp_path / "pictures/a.png", (1, 2, 3))
    assert run(["run", str(tmp_path / "pictures"), "--store", f"shards:{tmp_path / 'sh'}", "--model", MODEL]) == 0
    open_store(tmp_path / "other.store", create=INFO).close()
    assert run(["load", str(tmp_path / "sh"), "--store", str(tmp_path / "other.store")]) == 3
    assert INFO.fingerprint in capsys.readouterr().err
    (tmp_path / "sh/part-000001-1of1.npy").write_bytes(b"damaged")
    assert run(["load", str(tmp_path / "sh"), "--store", str(tmp_path / "new.store")]) == 3
    assert "does not match its checksum" in capsys.readouterr().err
    assert run(["load", str(tmp_path / "pictures"), "--store", str(tmp_path / "new.store")]) == 2


def test_without_pyarrow_the_extra_is_named(tmp_path: Path) -> None:
    paint(tmp_path / "pictures/a.png", (1, 2, 3))
    program = "import sys; sys.modules['pyarrow'] = None; from indexer.cli import run; sys.exit(run(sys.argv[1:]))"
    arguments = ("run", str(tmp_path / "pictures"), "--store", f"shards:{tmp_path / 'sh'}", "--model", MODEL)
    ended = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr == "indexer: pyarrow is not installed; run: pip install 'binsight[parquet]'\n"
