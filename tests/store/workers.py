"""Processes that the reliability tests start in order to kill them, and the truth that they are compared with.

`Nursery` starts one Python that has everything imported and forks a child for each program, so that a kill costs
milliseconds. A child writes each operation to a file before and after it, so that the file says what was acknowledged.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from binsight.errors import BinsightError, CannotBeDone
from binsight.records import Item, StoreInfo
from binsight.store import VectorStore, open_store
from binsight.vectors import Vectors, normalise

ROOT = Path(__file__).resolve().parents[2]
DIM = 16
INFO = StoreInfo(dim=DIM, fingerprint="f" * 64, model="torture")
TEXTS = ("ram", 'it\'s "quoted"; DROP TABLE items', "zwei\nZeilen\t\u2028", "ünï—\U0001f600", "x" * 3000, "")

Operation = dict[str, Any]  # JSON: {"op": "upsert", "ids", "first"} · {"op": "delete", "ids"} · {"op": "compact"}
World = dict[str, int]  # id → version; a version gives vector and metadata


# ---- the truth


@functools.cache
def vector_of(version: int) -> Vectors:
    """The vector of a version: (1, DIM)."""
    return normalise(np.random.default_rng(version).normal(size=(1, DIM)))


def item_of(one: str, version: int) -> Item:
    return Item(one, {"version": version, "a.dotted key": one, "label": TEXTS[version % len(TEXTS)], "list": [version, None]})


def name_of(number: int) -> str:
    """Ids odd but legal, the same number always the same one."""
    odd = (f"item/{number}", f"../{number}%00", f"'{number}\"", f"é\U0001f600 {number}", f"{number}".rjust(512, "L"))
    return odd[number % len(odd)]


def after(world: World, operation: Operation) -> World:
    """The world once an operation has been done."""
    world = dict(world)
    if operation["op"] == "upsert":
        world |= {one: operation["first"] + place for place, one in enumerate(operation["ids"])}
    for one in operation["ids"] if operation["op"] == "delete" else ():
        world.pop(one, None)
    return world


def do(store: VectorStore, operation: Operation) -> None:
    if operation["op"] == "upsert":
        versions = range(operation["first"], operation["first"] + len(operation["ids"]))
        items = [item_of(one, version) for one, version in zip(operation["ids"], versions, strict=True)]
        store.upsert(items, np.concatenate([vector_of(version) for version in versions]))
    elif operation["op"] == "delete":
        store.delete(operation["ids"])
    else:
        store.compact()


def random_operations(seed: int, *, names: int = 200, compact: float = 0.03) -> Iterator[Operation]:
    """Adds, replacements, deletes and compactions without end; versions never come twice for different seeds."""
    rng = np.random.default_rng(seed)
    version = seed * 1_000_000
    while True:
        draw = rng.random()
        some = [name_of(int(n)) for n in rng.choice(names, size=min(names, int(rng.integers(1, 40))), replace=False)]
        if draw < compact:
            yield {"op": "compact"}
        elif draw < 0.25:
            yield {"op": "delete", "ids": some[: len(some) // 2 + 1]}
        else:
            yield {"op": "upsert", "ids": some, "first": version}
            version += len(some)


@dataclass
class Findings:
    """What differs between a store and the truth, counted as R1 counts."""

    lost: list[str] = field(default_factory=list)
    ghosts: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lost or self.ghosts or self.wrong)


def compare(store: VectorStore, world: World) -> Findings:
    """Everything a store answers, against a world: scan, length, get, vectors, and a query by each item's own vector."""
    found = {item.id: item for item in store.scan()}
    out = Findings(sorted(set(world) - set(found)), sorted(set(found) - set(world)))
    both = sorted(set(found) & set(world))
    out.wrong += [one for one in both if found[one] != item_of(one, world[one])]
    if out or not both:
        return out
    truth = np.concatenate([vector_of(world[one]) for one in both])  # (n, DIM)
    if len(store) != len(world) or store.get(both) != [found[one] for one in both]:
        out.wrong.append("len or get")
    out.wrong += [one for one, same in zip(both, (store.vectors_of(both) == truth).all(axis=1), strict=True) if not same]
    for one, matches in zip(both, store.query(truth, k=2), strict=True):
        top = matches[0]
        if top.item != found[one] or abs(top.score - 1.0) > 1e-5:
            out.wrong.append(f"query by {one!r} gave {top.item.id!r} at {top.score}")
    return out


def read_operations(path: Path) -> Iterator[tuple[Operation, str]]:
    """Each operation of the children's file, with how it ended: "done", or "cut" by a kill.

    A kill can cut a line, too: an operation whose line has no end was never begun, and half a "done" is no "done".
    """
    begun: Operation | None = None
    for line in path.read_text().splitlines():
        if line.startswith("{"):
            if begun is not None:
                yield begun, "cut"
            begun = json.loads(line) if line.endswith("}") else None
        elif line and begun is not None:
            yield begun, "done" if line == "done" else "cut"
            begun = None
    if begun is not None:
        yield begun, "cut"


def grown(worlds: Sequence[World], path: Path) -> list[World]:
    """The worlds that are possible after a file of operations: one cut short may have been done or not."""
    found = list(worlds)
    for operation, end in read_operations(path):
        if end == "cut":
            found += [after(world, operation) for world in found]
        elif end == "done":
            found = [after(world, operation) for world in found]
    return [world for place, world in enumerate(found) if world not in found[:place]]


# ---- the programs


def be_hasty() -> None:
    """Lower the thresholds, so that checkpoints, index builds and compactions happen every few operations."""
    from binsight.store import faiss_store, log

    log.CHECKPOINT_BYTES = 200_000  # type: ignore[attr-defined]
    faiss_store.SMALL_ROWS = 150
    faiss_store.TAIL_ROWS = 100


def write(folder: str, acks: str, seed: int, names: int = 200, compact: float = 0.03) -> None:
    """Write for ever, each operation told before and after it."""
    be_hasty()
    told = os.open(acks, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    with open_store(folder, create=INFO) as store:
        for operation in random_operations(seed, names=names, compact=compact):
            os.write(told, f"\n{json.dumps(operation)}\n".encode())  # a kill may have cut the line before
            do(store, operation)
            os.write(told, b"done\n")


def write_script(folder: str, acks: str, nth: int) -> None:
    """Write the short script, and be killed at the n-th change of a file."""
    be_hasty()
    told = os.open(acks, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    Trouble(Path(folder), nth=nth, error=-1)
    store = open_store(folder, create=INFO)
    for operation in short_script():
        os.write(told, f"\n{json.dumps(operation)}\n".encode())  # a kill may have cut the line before
        if operation["op"] == "reopen":
            store.close()
            store = open_store(folder)
        else:
            do(store, operation)
        os.write(told, b"done\n")
    store.close()


def write_down(folder: str, changes: str) -> None:
    """Do the short script with every change of a file written down, and a mark after each operation."""
    from binsight.store import log

    log.CHECKPOINT_BYTES = 150_000  # type: ignore[attr-defined]
    library = ctypes.CDLL(None)
    library.changes_record(os.open(changes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644))
    store = open_store(folder, create=INFO)
    for number, operation in enumerate(short_script()):
        if operation["op"] == "reopen":
            store.close()
            store = open_store(folder)
        else:
            do(store, operation)
        library.changes_mark(ctypes.c_long(number + 1))
    store.close()


def obey(folder: str, orders: str, answers: str) -> None:
    """Do each operation that comes through a pipe, and say so."""
    be_hasty()
    with open_store(folder, create=INFO) as store, Path(orders).open() as lines, Path(answers).open("w") as out:
        print("ready", file=out, flush=True)
        for line in lines:
            do(store, json.loads(line))
            print("done", file=out, flush=True)


def make(folder: str, told: str, start: float) -> None:
    """Create a store at a given moment, add an item, and tell how it went."""
    time.sleep(max(0.0, start - time.time()))
    try:
        with open_store(folder, create=INFO) as store:
            do(store, {"op": "upsert", "ids": [told], "first": 1})
            how = "made"
    except BinsightError as error:
        how = type(error).__name__
    Path(told).write_text(how)


def hold(folder: str, ready: str, children: bool = False) -> None:
    """Open for writing and wait; with children: keep threads, a subprocess and a spawned process beside."""
    import multiprocessing
    import threading

    store = open_store(folder, create=INFO)
    if children:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        os.posix_spawn("/bin/sleep", ["sleep", "20"], {})
        subprocess.Popen(["/bin/sleep", "20"])
        multiprocessing.get_context("spawn").Process(target=time.sleep, args=(20,), daemon=True).start()
        time.sleep(0.5)
    Path(ready).write_text(str(os.getpid()))
    time.sleep(60)
    store.close()


def read(folder: str, seconds: float) -> None:
    """Open and query again and again; ends with an error when an answer or an opening fails."""
    be_hasty()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with open_store(folder, read_only=True) as store:
            for _ in range(20):
                items = list(store.scan())
                for item in items[:3]:
                    (matches,) = store.query(vector_of(item.metadata["version"]), k=1)
                    if store.get([item.id]) == [item]:  # so it was there when it was looked for
                        assert matches[0].item == item, f"{item.id!r} was not found by its own vector: {matches[0]}"
                        assert matches[0].score > 1 - 1e-5


# ---- trouble with the disk


def compiled_shim(folder: Path) -> Path | None:
    """The library of faults.c, to be preloaded; None where there is no C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


class Trouble:
    """Writes that fail until `end`: faults (the n-th change of a file), limit (file size), or full (no room left)."""

    def __init__(self, folder: Path, *, nth: int = 0, count: int = 1, error: int = 0, limit: int = 0, spare: int = -1) -> None:
        self.kind = "limit" if limit else "full" if spare >= 0 else "fault"
        self._ballast = folder.parent / "ballast"
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))  # Python ignores SIGXFSZ: EFBIG
        elif spare >= 0:
            found = os.statvfs(folder.parent)
            with self._ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, found.f_bavail * found.f_frsize - spare))
        else:
            self._library = ctypes.CDLL(None)  # the shim that was preloaded
            self._library.faults_arm(ctypes.c_long(nth), ctypes.c_long(count), error)

    def end(self) -> None:
        if self.kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        elif self.kind == "full":
            self._ballast.unlink(missing_ok=True)
        else:
            self._library.faults_arm(ctypes.c_long(0), ctypes.c_long(0), 0)


def short_script() -> Iterator[Operation]:
    """Every kind of write: new rows, replacements, deletes, a checkpoint, compactions, index builds, closing, opening."""
    for step in range(12):
        ids = [name_of(n) for n in range(step * 10, step * 10 + 40)]
        yield {"op": "upsert", "ids": ids, "first": step * 1000}
        if step % 3 == 1:
            yield {"op": "delete", "ids": ids[:7]}
        if step % 5 == 4:
            yield {"op": "compact"}
        if step % 4 == 3:
            yield {"op": "reopen"}


def troubled(folder: str, told: str, trouble: dict[str, int], through_close: bool = False) -> None:
    """The script with failing writes: each error typed, reads right meanwhile, and after the trouble all goes on.

    through_close: the store is closed, and read by another opening, while writes still fail.
    """
    be_hasty()
    open_store(folder, create=INFO).close()
    place, worlds, errors = Path(folder), [World()], []
    now = Trouble(place, **trouble)
    store: VectorStore | None = None
    for operation in short_script():
        for _ in range(4):
            try:
                store = store if store is not None else open_store(folder, create=INFO)
                if operation["op"] == "reopen":
                    store.close()
                    store = None
                    continue
                do(store, operation)
            except CannotBeDone as error:
                errors.append(str(error))
                if "settles whether it counts" in str(error):
                    worlds += [after(world, operation) for world in worlds]
                look_around(folder, store, worlds)
                if through_close and store is not None:
                    store.close()
                    store = None
                    worlds = [look_around(folder, None, worlds)]
                now.end()
            else:
                worlds = [after(worlds[0], operation)]  # on the same object, what failed was taken back first
                break
        else:
            assert operation["op"] == "reopen", f"still failing: {errors[-1]}"
    now.end()
    if store is not None:
        store.close()
    with open_store(folder) as store:
        assert not compare(store, worlds[0]), compare(store, worlds[0])
        assert store.verify().is_sound, store.verify().problems
    Path(told).write_text(json.dumps(errors))


def look_around(folder: str, store: VectorStore | None, worlds: list[World]) -> World:
    """The world that a new reader sees; the open store's is one of those, too, and both answer rightly."""
    with open_store(folder, read_only=True) as reader:
        for one in (reader,) if store is None else (store, reader):
            found = {item.id: item.metadata["version"] for item in one.scan()}
            assert found in worlds, "not a world that may be"
            assert not compare(one, found), compare(one, found)
    return found


PROGRAMS: dict[str, Callable[..., None]] = {
    one.__name__: one for one in (write, write_script, write_down, obey, make, hold, read, troubled)
}


class Nursery:
    """One process with all modules loaded, that forks a child for each program."""

    def __init__(self, log: Path, *, preload: Path | None = None) -> None:
        import binsight

        paths = [str(Path(binsight.__file__).parents[1]), str(ROOT)]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        if preload is not None:
            env["LD_PRELOAD"] = str(preload)
        self.log, self._child = log, 0
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.store.workers"],
                env=env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip

    def start(self, program: str, **arguments: Any) -> int:
        """Begin a program; its pid."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([program, arguments]) + "\n")
        self._process.stdin.flush()
        self._child = int(self._line())
        return self._child

    def wait(self) -> int:
        """Wait for the program to end: its exit code, or minus the signal that ended it."""
        code = os.waitstatus_to_exitcode(int(self._line()))
        self._child = 0
        return code

    def run(self, program: str, **arguments: Any) -> int:
        self.start(program, **arguments)
        return self.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the nursery ended: {self.log.read_text()[-2000:]}"
        return line

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._child:  # a test failed before it waited
            os.kill(self._child, signal.SIGKILL)
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


@contextmanager
def nursery(folder: Path, *, preload: Path | None = None) -> Iterator[Nursery]:
    one = Nursery(folder / "nursery.log", preload=preload)
    try:
        yield one
    finally:
        one.close()


def main() -> None:
    from binsight.store import faiss_store  # noqa: F401, loaded once for all children

    for line in sys.stdin:
        program, arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                PROGRAMS[program](**arguments)
                code = 0
            except BaseException:  # noqa: BLE001, told and ended with: this is the child's last word
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
