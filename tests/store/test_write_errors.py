"""R2: writes that fail. The error is typed, reads go on, writes resume, and nothing acknowledged is lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from binsight.errors import BadItem
from binsight.records import Item
from binsight.store import journal, open_store
from tests.store.workers import INFO, Nursery, nursery, vector_of


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory, shim: Path) -> Iterator[Nursery]:
    with nursery(tmp_path_factory.mktemp("children"), preload=shim) as one:
        yield one


def suffer(children: Nursery, folder: Path, *, through_close: bool = False, **trouble: int) -> list[str]:
    """Run the script with failing writes in a child; the messages of the errors that it met."""
    told = folder / "told"
    told.unlink(missing_ok=True)
    store = folder / "t.store"
    shutil.rmtree(store, ignore_errors=True)
    code = children.run("troubled", folder=str(store), told=str(told), trouble=trouble, through_close=through_close)
    assert code == 0, f"{trouble} through_close={through_close}: {children.log.read_text()[-3000:]}"
    return list(json.loads(told.read_text()))


def try_nth(children: Nursery, folder: Path, *, step: int, start: int) -> tuple[int, int]:
    """Let the n-th change fail, for every step-th n until the script has no more; (runs, runs that met an error)."""
    n, runs, met = start, 0, 0
    quiet = 0
    while quiet < 4:
        error, count = ((errno.ENOSPC, 1), (errno.EIO, 1), (errno.ENOSPC, 1 << 30))[runs % 3]
        errors = suffer(children, folder, through_close=runs % 2 == 1, nth=n, count=count, error=error)
        assert all(os.strerror(error) in one or "not" in one for one in errors), errors
        runs, met, quiet = runs + 1, met + bool(errors), 0 if errors else quiet + 1
        n += step
    return runs, met


def test_the_nth_change_of_a_file_fails(children: Nursery, tmp_path: Path) -> None:
    runs, met = try_nth(children, tmp_path, step=199, start=1)
    assert met > 4
    assert runs > met


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("start", [1, 2, 3])
def test_every_change_of_a_file_fails_once(children: Nursery, tmp_path: Path, start: int) -> None:
    runs, met = try_nth(children, tmp_path, step=3, start=start)
    print(runs, met)  # noqa: T201
    assert met > 50


@pytest.mark.parametrize(
    "limit", [3000, *(pytest.param(one, marks=pytest.mark.torture) for one in (9000, 80_000)), 30_000, 250_000]
)
@pytest.mark.parametrize("through_close", [False, True])
def test_files_may_not_grow(children: Nursery, tmp_path: Path, limit: int, through_close: bool) -> None:
    errors = suffer(children, tmp_path, limit=limit, through_close=through_close)
    assert errors
    assert all("File too large" in one or "disk" in one or "not" in one for one in errors), errors


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 64 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["/bin/mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["/bin/umount", str(place)], check=True)


@pytest.mark.parametrize("through_close", [False, True])
def test_the_disk_is_full(children: Nursery, small_disk: Path, through_close: bool) -> None:
    for spare in (0, 20_000, 120_000):
        errors = suffer(children, small_disk, spare=spare, through_close=through_close)
        assert errors, spare


def test_more_than_a_frame_can_hold_is_refused_at_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_MAX_BODY", 1000)
    with open_store(tmp_path / "t.store", create=INFO) as store:
        store.upsert([Item("a", {"text": "x" * 900})], vector_of(0))
        with pytest.raises(BadItem, match=r"want at most 1000 bytes of ids and metadata at once, got 1\d{3}; pass fewer"):
            store.upsert([Item("b", {"text": "x" * 1000})], vector_of(1))
        store.upsert([Item("c")], vector_of(2))
        assert {item.id for item in store.scan()} == {"a", "c"}
        assert store.verify().is_sound
