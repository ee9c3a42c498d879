"""R4: one writer, whose death frees the lock; readers beside it, also where they may not write; many threads at once."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from binsight.errors import ModelMismatch, NotAStore, StoreLocked
from binsight.records import StoreInfo
from binsight.store import VectorStore, faiss_store, open_store
from tests.store.workers import (
    INFO,
    Nursery,
    World,
    after,
    compare,
    do,
    item_of,
    name_of,
    nursery,
    random_operations,
    vector_of,
)


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Nursery]:
    with nursery(tmp_path) as one:
        yield one


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path.read_text()


# ---- the lock


def test_a_second_writer_is_refused_within_a_second_with_the_pid_of_the_first(children: Nursery, tmp_path: Path) -> None:
    store, ready = tmp_path / "t.store", tmp_path / "ready"
    pid = children.start("hold", folder=str(store), ready=str(ready))
    assert wait_for(ready) == str(pid)
    for _ in range(3):
        start = time.monotonic()
        told = rf"t\.store is being written by process {pid}; wait for it to end, or open .* --read-only of `binsight serve`"
        with pytest.raises(StoreLocked, match=told):
            open_store(store)
        assert time.monotonic() - start < 1.0
    os.kill(pid, signal.SIGKILL)
    children.wait()
    open_store(store).close()


def test_the_lock_ends_with_its_owner_though_threads_and_children_live_on(children: Nursery, tmp_path: Path) -> None:
    store, ready = tmp_path / "t.store", tmp_path / "ready"
    pid = children.start("hold", folder=str(store), ready=str(ready), children=True)
    wait_for(ready)
    left = children_of(pid)
    assert len(left) >= 3
    os.kill(pid, signal.SIGKILL)
    children.wait()
    try:
        open_store(store).close()
        assert sum(Path("/proc", str(one)).exists() for one in left) >= 2
    finally:
        for one in left:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)


def children_of(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            number, _, rest = path.read_text().partition(" (")
            if int(rest.rpartition(") ")[2].split()[1]) == pid:
                found.append(int(number))
    return found


def test_a_writer_is_refused_in_its_own_process_too_and_a_closed_one_frees_the_lock(tmp_path: Path) -> None:
    with open_store(tmp_path / "t.store", create=INFO), pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
        open_store(tmp_path / "t.store")
    open_store(tmp_path / "t.store").close()


def test_a_server_that_holds_the_lock_is_named_with_its_address(tmp_path: Path) -> None:
    with open_store(tmp_path / "t.store", create=INFO) as store:
        store.tell_address("https://[::1]:8000")
        told = (
            f"t.store is being written by process {os.getpid()}, a server at https://[::1]:8000; send it what is to be written"
        )
        told += " (PUT https://[::1]:8000/v1/items/ID), stop it, or open the store for reading only"
        with pytest.raises(StoreLocked, match=re.escape(told)):
            open_store(tmp_path / "t.store")
        (tmp_path / "t.store/lock").write_text(f"{os.getpid()}\nhttp://x\x1b[2J\n")
        with pytest.raises(StoreLocked, match=f"process {os.getpid()}; wait for it to end"):
            open_store(tmp_path / "t.store")
    with open_store(tmp_path / "t.store"), pytest.raises(StoreLocked, match=f"process {os.getpid()}; wait for it to end"):
        open_store(tmp_path / "t.store")


def test_looking_whether_the_lock_is_held_never_refuses_a_writer(tmp_path: Path) -> None:
    from binsight.store.files import WriterLock

    open_store(tmp_path / "t.store", create=INFO).close()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            WriterLock.is_held(tmp_path / "t.store")

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for one in lookers:
        one.start()
    try:
        for _ in range(100):
            WriterLock(tmp_path / "t.store").release()
    finally:
        stop.set()
        for one in lookers:
            one.join()


# ---- making a store


def test_two_processes_that_make_the_same_store_at_once_do_not_harm_each_other(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with nursery(tmp_path) as one, nursery(tmp_path / "b") as two:
        for number in range(12):
            store, start = tmp_path / f"{number}.store", time.time() + 0.03
            told = [tmp_path / f"{number} first", tmp_path / f"{number} second"]
            for child, place in ((one, told[0]), (two, told[1])):
                child.start("make", folder=str(store), told=str(place), start=start)
            assert [one.wait(), two.wait()] == [0, 0], one.log.read_text() + two.log.read_text()
            ends = {place: place.read_text() for place in told}
            assert set(ends.values()) <= {"made", "StoreLocked"}
            with open_store(store) as found:
                assert (
                    {item.id for item in found.scan()} == {str(place) for place, end in ends.items() if end == "made"} != set()
                )


@pytest.mark.parametrize(
    "name", ["photo.jpg", "vectors-mine.npy", "items-1.csv", ".hidden", "journal-000001", "index-list.txt"]
)
def test_a_folder_with_other_things_in_it_is_refused_and_left_as_it_is(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / name).write_bytes(b"mine")
    with pytest.raises(NotAStore, match=r"want a folder that is new, empty or a store, but .* holds"):
        open_store(folder, create=INFO)
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [(name, b"mine")]


def test_other_files_in_a_store_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "t.store"
    open_store(folder, create=INFO).close()
    names = ["photo-000001.jpg", "vectors-mine.npy", ".notes.tmp", "items-7.csv", "my-000002.log"]
    for name in names:
        (folder / name).write_bytes(b"mine")
    with open_store(folder) as store:
        do(store, {"op": "upsert", "ids": ["a", "b"], "first": 0})
        do(store, {"op": "delete", "ids": ["a"]})
        store.compact()
    assert all((folder / name).read_bytes() == b"mine" for name in names)
    assert sorted(path.name.partition("-")[0] for path in folder.iterdir() if path.name not in names) == [
        "CURRENT", "items", "items", "items", "items", "journal", "lock", "vectors",
    ]  # fmt: skip


# ---- readers beside a writer


class Writer:
    """A writer in another process, that does one operation after another as it is told."""

    def __init__(self, children: Nursery, folder: Path, store: Path) -> None:
        orders, answers = folder / "orders", folder / "answers"
        for pipe in (orders, answers):
            pipe.unlink(missing_ok=True)
            os.mkfifo(pipe)
        self._children = children
        self.pid = children.start("obey", folder=str(store), orders=str(orders), answers=str(answers))
        self._orders = orders.open("w")
        self._answers = answers.open()
        assert self._answers.readline() == "ready\n"

    def do(self, operation: dict[str, object]) -> None:
        self._orders.write(json.dumps(operation) + "\n")
        self._orders.flush()
        assert self._answers.readline() == "done\n", self._children.log.read_text()[-2000:]

    def end(self, *, by_kill: bool) -> None:
        if by_kill:
            os.kill(self.pid, signal.SIGKILL)
        self._orders.close()
        self._children.wait()
        self._answers.close()


def test_readers_see_each_write_of_another_process_at_once_also_across_compactions(children: Nursery, tmp_path: Path) -> None:
    store, world = tmp_path / "t.store", World()
    operations = random_operations(5, names=80, compact=0.2)
    reader: VectorStore | None = None
    for round_ in range(4):
        writer = Writer(children, tmp_path, store)
        reader = reader or open_store(store, read_only=True)
        for _ in range(15):
            operation = next(operations)
            writer.do(operation)
            world = after(world, operation)
            assert not compare(reader, world)
            with open_store(store, read_only=True) as new:
                assert len(new) == len(world)
        writer.end(by_kill=round_ % 2 == 0)
        assert not compare(reader, world)
    assert reader is not None
    reader.close()


def test_readers_that_open_beside_a_busy_writer_and_its_deaths_find_no_fault(tmp_path: Path) -> None:
    (tmp_path / "readers").mkdir()
    store, acks = tmp_path / "t.store", tmp_path / "acks"
    with open_store(store, create=INFO) as made:
        do(made, {"op": "upsert", "ids": ["a", "b"], "first": 0})
    with nursery(tmp_path) as writers, nursery(tmp_path / "readers") as readers:
        readers.start("read", folder=str(store), seconds=4.0)
        end = time.monotonic() + 4.0
        while time.monotonic() < end:
            pid = writers.start("write", folder=str(store), acks=str(acks), seed=int(end - time.monotonic() + 10), compact=0.1)
            time.sleep(0.7)
            os.kill(pid, signal.SIGKILL)
            assert writers.wait() == -signal.SIGKILL, writers.log.read_text()[-3000:]
        assert readers.wait() == 0, readers.log.read_text()[-3000:]


@pytest.fixture
def read_only_mount(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A folder, and the same folder mounted read-only."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    mounted = subprocess.run(["/bin/mount", "--bind", inside, outside], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a folder here: {mounted.stderr.strip()}")
    try:
        subprocess.run(["/bin/mount", "-o", "remount,ro,bind", outside], check=True)
        with pytest.raises(OSError, match="Read-only"):
            (outside / "x").touch()
        yield inside, outside
    finally:
        subprocess.run(["/bin/umount", "--lazy", outside], check=True)


def test_readers_on_a_read_only_mount_follow_a_writer_through_kills_and_mends(
    children: Nursery, tmp_path: Path, read_only_mount: tuple[Path, Path]
) -> None:
    inside, outside = read_only_mount[0] / "t.store", read_only_mount[1] / "t.store"
    open_store(inside, create=INFO).close()
    world, operations = World(), random_operations(6, names=80, compact=0.2)
    with open_store(outside, read_only=True) as reader:  # opened where SQLite had nothing to share
        for round_ in range(4):
            writer = Writer(children, tmp_path, inside)
            for _ in range(8):
                operation = next(operations)
                writer.do(operation)
                world = after(world, operation)
                assert not compare(reader, world)
            with open_store(outside, read_only=True) as new:
                assert not compare(new, world)
            writer.end(by_kill=round_ % 2 == 0)
            assert not compare(reader, world)
            with open_store(outside, read_only=True) as new:
                assert not compare(new, world)
                assert new.verify().is_sound


@pytest.mark.parametrize(
    "lost", ["items-*.sqlite", "items-*.seal", "items-*.sqlite-wal", "items-*.sqlite-shm", "items-*", "CURRENT"]
)
def test_a_reader_on_a_read_only_mount_answers_right_where_it_may_not_mend(
    children: Nursery, tmp_path: Path, read_only_mount: tuple[Path, Path], lost: str, caplog: pytest.LogCaptureFixture
) -> None:
    inside, outside = read_only_mount[0] / "t.store", read_only_mount[1] / "t.store"
    writer, world = Writer(children, tmp_path, inside), World()
    for _, operation in zip(range(12), random_operations(7, names=80, compact=0.2), strict=False):
        writer.do(operation)
        world = after(world, operation)
    writer.end(by_kill=True)
    for path in inside.glob(lost):
        path.unlink()
    before = {path.name: path.read_bytes() for path in inside.iterdir()}
    with open_store(outside, read_only=True) as reader:
        assert not compare(reader, world)
        assert reader.verify().is_sound
        assert {path.name: path.read_bytes() for path in inside.iterdir()} == before
        if lost in ("items-*.sqlite", "items-*"):
            assert "it is read through memory" in caplog.text
        writer = Writer(children, tmp_path, inside)  # on the side that may be written
        operation = {"op": "upsert", "ids": ["new"], "first": 1}
        writer.do(operation)
        assert not compare(reader, after(world, operation))
        writer.end(by_kill=False)
        assert not compare(reader, after(world, operation))


def test_a_reader_goes_on_when_the_writer_was_killed_and_the_table_rebuilt(children: Nursery, tmp_path: Path) -> None:
    store, world = tmp_path / "t.store", {"a": 0}
    with open_store(store, create=INFO) as made:
        do(made, {"op": "upsert", "ids": ["a"], "first": 0})
    with open_store(store, read_only=True) as reader:
        assert not compare(reader, world)
        next(store.glob("items-*.seal")).unlink()  # as a kill amid a checkpoint leaves it: the next writer builds anew
        with open_store(store) as writer:
            operation = {"op": "upsert", "ids": ["a", "b"], "first": 1}
            do(writer, operation)
            assert not compare(reader, after(world, operation))


# ---- threads


def test_threads_write_query_and_compact_one_store_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_store, "SMALL_ROWS", 150)
    monkeypatch.setattr(faiss_store, "TAIL_ROWS", 150)
    store = open_store(tmp_path / "t.store", create=INFO)
    kept = [name_of(number) for number in range(120)]  # there throughout, replaced again and again
    do(store, {"op": "upsert", "ids": kept, "first": 0})
    wrong: list[str] = []
    stop = threading.Event()

    def guarded(work: Callable[[np.random.Generator], None]) -> threading.Thread:
        def run() -> None:
            rng = np.random.default_rng(id(work) % 1000)
            try:
                while not stop.is_set():
                    work(rng)
            except BaseException as error:  # noqa: BLE001, told by the test
                wrong.append(f"{work}: {error!r}")
                stop.set()

        return threading.Thread(target=run)

    turn = itertools.count()

    def write(rng: np.random.Generator) -> None:
        ids = [str(one) for one in rng.choice(kept, size=20, replace=False)]
        do(store, {"op": "upsert", "ids": ids, "first": 1000 + 20 * next(turn)})

    def come_and_go(rng: np.random.Generator) -> None:
        ids = [f"passing {n}" for n in range(15)]
        do(store, {"op": "upsert", "ids": ids, "first": 0})
        do(store, {"op": "delete", "ids": ids})

    def query(rng: np.random.Generator) -> None:
        for where in (None, "version >= 0"):
            (matches,) = store.query(vector_of(int(rng.integers(500))), k=200, where=where)
            found = {match.item.id for match in matches}
            assert found >= set(kept), f"{len(set(kept) - found)} of {len(kept)} are not found (where={where!r})"
            assert len(found) == len(matches), "an item came twice"
            for match in matches[:5]:
                assert match.item == item_of(match.item.id, match.item.metadata["version"])

    def nearest(rng: np.random.Generator) -> None:
        query = vector_of(int(rng.integers(500)))
        for match in store.query(query, k=3)[0]:
            score = float((query @ vector_of(match.item.metadata["version"]).T)[0, 0])
            assert abs(match.score - score) < 1e-5, f"{match} has the vector of another item: {score}"

    def look(rng: np.random.Generator) -> None:
        items = store.get(kept)
        assert all(item == item_of(one, item.metadata["version"]) for one, item in zip(kept, items, strict=True) if item)
        assert None not in items
        assert store.vectors_of(kept[:5]).shape == (5, 16)

    def scan(rng: np.random.Generator) -> None:
        found = [item.id for item in store.scan()]
        assert len(found) == len(set(found)), "an item came twice"
        assert set(found) >= set(kept), "an item was passed over"

    def compact(rng: np.random.Generator) -> None:
        store.compact()
        time.sleep(0.02)

    threads = [guarded(work) for work in (write, write, come_and_go, query, nearest, look, scan, compact)]
    for one in threads:
        one.start()
    stop.wait(4.0)
    stop.set()
    for one in threads:
        one.join()
    assert not wrong, wrong[0]
    assert store.verify().is_sound
    store.close()


# ---- many small things


def test_opening_again_and_again_leaks_nothing(tmp_path: Path) -> None:
    store = tmp_path / "t.store"
    with open_store(store, create=INFO) as made:
        do(made, {"op": "upsert", "ids": ["a", "b"], "first": 0})

    def open_once(number: int) -> None:
        with open_store(store, read_only=number % 2 == 0, create=INFO) as one:
            assert one.query(vector_of(0), k=1)[0][0].item.id == "a"
            if number % 2:
                with pytest.raises(StoreLocked):
                    open_store(store)

    open_once(0)
    before = len(os.listdir("/proc/self/fd")), len(Path("/proc/self/maps").read_text().splitlines())  # noqa: PTH208
    for number in range(int(os.environ.get("BINSIGHT_OPENS", "60"))):
        open_once(0 if number % 30 else 1)
    after_ = len(os.listdir("/proc/self/fd")), len(Path("/proc/self/maps").read_text().splitlines())  # noqa: PTH208
    assert after_[0] <= before[0]
    assert after_[1] <= before[1] + 10


def test_replacing_one_item_again_and_again_is_undone_by_compacting(tmp_path: Path) -> None:
    with open_store(tmp_path / "t.store", create=INFO) as store:
        for version in range(200):
            store.upsert([item_of("one", version)], vector_of(version))
        assert len(store) == 1
        assert store.info.detail["rows"] == 200
        assert store.get(["one"]) == [item_of("one", 199)]
        store.compact()
        assert store.info.detail["rows"] == 1
        assert store.get(["one"]) == [item_of("one", 199)]
        assert store.vectors_of(["one"]).tolist() == vector_of(199).tolist()


def test_a_store_made_by_another_model_in_the_meantime_is_refused(tmp_path: Path) -> None:
    with open_store(tmp_path / "t.store", create=INFO) as made:
        do(made, {"op": "upsert", "ids": ["a"], "first": 0})
    (tmp_path / "t.store" / "CURRENT").unlink()  # as a second maker sees it, who looked before the first was done
    with pytest.raises(ModelMismatch, match=r"f{64}"):
        open_store(tmp_path / "t.store", create=StoreInfo(dim=16, fingerprint="other", model="other"))
    open_store(tmp_path / "t.store", create=INFO).close()
