"""R1: kill −9 at random moments; what was acknowledged is there, whole, and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from binsight.records import Item
from binsight.store import open_store
from tests.store.workers import (
    INFO,
    Findings,
    Nursery,
    World,
    after,
    compare,
    do,
    grown,
    nursery,
    random_operations,
    read_operations,
    vector_of,
)

KILLS = int(os.environ.get("BINSIGHT_KILLS", "2000"))


def kill_and_compare(folder: Path, *, kills: int, seed: int, acknowledge: int = 0) -> tuple[Findings, int]:
    """Kill a writer that many times, and on until so many operations are acknowledged; all findings, and how many were."""
    rng = np.random.default_rng(seed)
    store, acks = folder / "t.store", folder / "acks"
    worlds: list[World] = [{}]
    total, acknowledged = Findings(), 0
    with nursery(folder) as children:
        numbers = count()
        while (number := next(numbers)) < kills or acknowledged < acknowledge:
            while_opening = bool(rng.random() < 0.3)
            after_s = float(rng.exponential(0.02 if while_opening else 0.06))
            kill_once(children, store, acks, seed=seed * 100_000 + number, after_s=after_s, while_opening=while_opening)
            if not acks.exists() or (rng.random() < 0.5 and number < kills - 1):
                continue  # the next writer opens what this kill left, and is killed, too
            acknowledged += sum(end == "done" for _, end in read_operations(acks))
            worlds = grown(worlds, acks)
            acks.unlink()
            worlds = [check(store, worlds, total, read_only=bool(rng.random() < 0.5))]
            assert not total, f"after kill {number}: {total}; {children.log.read_text()[-2000:]}"
    return total, acknowledged


def kill_once(children: Nursery, store: Path, acks: Path, *, seed: int, after_s: float, while_opening: bool) -> None:
    before = acks.stat().st_size if acks.exists() else 0
    pid = children.start("write", folder=str(store), acks=str(acks), seed=seed)
    deadline = time.monotonic() + 10
    while not while_opening and (not acks.exists() or acks.stat().st_size == before) and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(after_s)
    os.kill(pid, signal.SIGKILL)
    code = children.wait()
    assert code == -signal.SIGKILL, f"the writer ended by itself: {children.log.read_text()[-3000:]}"


def check(folder: Path, worlds: list[World], total: Findings, *, read_only: bool) -> World:
    """The world that the store shows; differences from the nearest one go to `total`."""
    if not (folder / "CURRENT").exists() and {} in worlds:
        return {}  # killed while the store was being made
    with open_store(folder, read_only=read_only) as store:
        report = store.verify()
        assert report.is_sound, report.problems
        seen = {item.id: item.metadata["version"] for item in store.scan()}
        world = seen if seen in worlds else worlds[0]
        found = compare(store, world)
    total.lost += found.lost
    total.ghosts += found.ghosts
    total.wrong += found.wrong
    return world


def test_fifty_kills_lose_nothing(tmp_path: Path) -> None:
    found, _ = kill_and_compare(tmp_path, kills=50, seed=1, acknowledge=100)
    assert not found


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", range(10))
def test_thousands_of_kills_lose_nothing(tmp_path: Path, part: int) -> None:
    found, _ = kill_and_compare(tmp_path, kills=max(1, KILLS // 10), seed=100 + part)
    assert not found


# ---- killed at a chosen change of a file


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory, shim: Path) -> Iterator[Nursery]:
    with nursery(tmp_path_factory.mktemp("children"), preload=shim) as one:
        yield one


def kill_at(children: Nursery, folder: Path, nth: int) -> bool:
    """Kill a writer at the n-th change of a file, beside a reader that stays open; whether it came to that."""
    store, acks = folder / f"{nth}.store", folder / f"{nth}.acks"
    with open_store(store, create=INFO) as made:
        do(made, {"op": "upsert", "ids": ["first"], "first": 999_999})
    begun = {"first": 999_999}
    with open_store(store, read_only=True) as reader:
        code = children.run("write_script", folder=str(store), acks=str(acks), nth=nth)
        assert code in (0, -signal.SIGKILL), children.log.read_text()[-3000:]
        found = Findings()
        worlds = grown([begun], acks) if acks.exists() else [begun]
        world = check(store, worlds, found, read_only=nth % 2 == 0)
        assert not found, f"killed at change {nth}: {found}"
        assert not compare(reader, world), f"killed at change {nth}: an open reader differs"
        with open_store(store) as writer:
            operation = {"op": "upsert", "ids": ["last"], "first": 888_888}
            do(writer, operation)
            assert not compare(writer, after(world, operation))
            assert not compare(reader, after(world, operation)), f"killed at change {nth}: an open reader does not go on"
            assert writer.verify().is_sound
    shutil.rmtree(store)
    return code != 0


def test_killed_at_chosen_changes_of_a_file(children: Nursery, tmp_path: Path) -> None:
    in_a_row, here_and_there = range(40, 56), range(100, 1200, 150)
    assert sum(kill_at(children, tmp_path, nth) for nth in (*in_a_row, *here_and_there)) > 18


@pytest.mark.torture
@pytest.mark.timeout(0)
def test_killed_at_every_change_of_a_file(children: Nursery, tmp_path: Path) -> None:
    nth = 1
    while kill_at(children, tmp_path, nth):
        nth += 1
    assert nth > 500


# ---- interrupted, and going on with the same store


class Interrupted(BaseException):
    """Raised at any moment, as Ctrl-C raises KeyboardInterrupt."""


@contextmanager
def interrupted(after_s: float) -> Iterator[None]:
    """Raise Interrupted in the main thread after some time, unless the block has ended."""

    def strike(*_: object) -> None:
        raise Interrupted

    old = signal.signal(signal.SIGUSR1, strike)
    timer = threading.Timer(after_s, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1))
    try:
        timer.start()
        yield
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        timer.join()
        signal.signal(signal.SIGUSR1, old)


def interrupt(folder: Path, *, times: int, seed: int) -> int:
    """Interrupt operations on one open store; each was done or was not, and the store goes on. How many were cut off."""
    rng, world, cut = np.random.default_rng(seed), World(), 0
    operations = random_operations(seed, names=60, compact=0.15)
    with open_store(folder / "t.store", create=INFO) as store:
        for _ in range(times):
            operation = next(operations)
            worlds = [after(world, operation)]
            try:
                with interrupted(float(rng.uniform(0, 0.006))):
                    do(store, operation)
            except Interrupted:
                cut += 1
                worlds.append(world)
            world = {item.id: item.metadata["version"] for item in store.scan()}
            assert world in worlds, operation
        assert not compare(store, world)
        assert store.verify().is_sound
    with open_store(folder / "t.store") as store:
        assert not compare(store, world)
        assert store.verify().is_sound
    return cut


# a file that was opened and interrupted before its `with` is closed by the collector, which warns
LEFT_OPEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@LEFT_OPEN
def test_an_interrupted_write_is_done_or_not_and_the_store_goes_on(tmp_path: Path) -> None:
    assert interrupt(tmp_path, times=150, seed=3) > 10


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", range(10))
@LEFT_OPEN
def test_thousands_of_interrupts(tmp_path: Path, seed: int) -> None:
    assert interrupt(tmp_path, times=1000, seed=10 + seed) > 50


# ---- what may be in an item


def test_the_largest_and_oddest_items_survive(tmp_path: Path) -> None:
    items = [
        Item("x" * 512, {"text": "y" * (64 * 1024 - 11)}),
        Item("\U0001f600" * 128, {"\u2028": "\x00\x01\x7f\n\r\t", "": {"": [[], {}, None]}}),
        Item("'; DROP TABLE items; --", {"a.b": 1, "$.c": 2, "_source": {"root": "/"}, 'quo"te': "\\"}),
        Item("../../etc/passwd", {"number": 2**63 - 1, "less": -(2**63), "float": 5e-324, "big": 1e308, "deep": [[[[1.5]]]]}),
        Item("id ", {"bsJ1": "bsJ1" * 1000}),
        Item(" id", {}),
    ]
    with open_store(tmp_path / "t.store", create=INFO) as store:
        store.upsert(items, np.concatenate([vector_of(n) for n in range(len(items))]))
        shutil.copytree(tmp_path / "t.store", tmp_path / "killed")  # as a kill would leave it
    for folder in ("t.store", "killed"):
        for read_only in (True, False):
            with open_store(tmp_path / folder, read_only=read_only) as store:
                assert store.get([item.id for item in items]) == items
                for place, item in enumerate(items):
                    assert store.query(vector_of(place), k=1)[0][0].item == item
                assert store.verify().is_sound


def test_the_comparison_sees_a_lost_a_ghost_and_a_swapped_item(tmp_path: Path) -> None:
    operation = {"op": "upsert", "ids": ["a", "b", "c"], "first": 0}
    with open_store(tmp_path / "t.store", create=INFO) as store:
        do(store, operation)
        truth = after({}, operation)
        assert not compare(store, truth)
        assert compare(store, truth | {"d": 9}).lost == ["d"]
        assert compare(store, {"a": 0, "b": 1}).ghosts == ["c"]
        assert compare(store, {"a": 1, "b": 0, "c": 2}).wrong == ["a", "b"]
