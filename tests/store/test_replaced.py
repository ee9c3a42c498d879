"""A store that is removed or replaced under an open handle: the handle says so, and answers and writes nothing wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from binsight.errors import StoreDamaged
from binsight.store import VectorStore, open_store
from tests.store.workers import INFO, Nursery, compare, do, nursery, vector_of

FIRST = {"op": "upsert", "ids": ["a", "b"], "first": 0}
SECOND = {"op": "upsert", "ids": ["c"], "first": 2}
Change = Callable[[Path, Nursery], None]


def remove(folder: Path, others: Nursery) -> None:
    shutil.rmtree(folder)


def make_anew(folder: Path, others: Nursery) -> None:
    shutil.rmtree(folder)
    assert others.run("make", folder=str(folder), told=str(folder.parent / "told"), start=0.0) == 0


def put_another(folder: Path, others: Nursery) -> None:
    other = folder.parent / "other.store"
    assert others.run("make", folder=str(other), told=str(folder.parent / "told"), start=0.0) == 0
    folder.rename(folder.parent / "former.store")
    other.rename(folder)


def put_an_earlier_copy(folder: Path, others: Nursery) -> None:
    """As from a backup: the same store, whose rows mean something else from now on."""
    folder.rename(folder.parent / "former.store")
    shutil.copytree(folder.parent / "backup.store", folder)


CHANGES = [
    pytest.param(remove, "was removed", id="removed"),
    pytest.param(make_anew, "was replaced", id="made anew"),
    pytest.param(put_another, "was replaced", id="another in its place"),
    pytest.param(put_an_earlier_copy, "was replaced", id="an earlier copy"),
]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with nursery(tmp_path_factory.mktemp("others")) as one:
        yield one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "s.store"
    with open_store(folder, create=INFO) as store:
        do(store, FIRST)
    shutil.copytree(folder, tmp_path / "backup.store")
    with open_store(folder) as store:
        do(store, SECOND)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def questions(store: VectorStore) -> list[Callable[[], object]]:
    return [
        lambda: store.query(vector_of(0), k=1),
        lambda: store.query(vector_of(0), k=1, where="version >= 0"),
        lambda: store.get(["a"]),
        lambda: store.vectors_of(["a"]),
        lambda: list(store.scan()),
        lambda: len(store),
        lambda: store.info,
        store.verify,
    ]


@pytest.mark.parametrize(("change", "told"), CHANGES)
@pytest.mark.parametrize("read_only", [True, False])
def test_an_open_store_that_was_replaced_answers_nothing_and_says_why(
    folder: Path, others: Nursery, change: Change, told: str, read_only: bool
) -> None:
    with open_store(folder, read_only=read_only) as store:
        assert not compare(store, {"a": 0, "b": 1, "c": 2})
        change(folder, others)
        for ask in questions(store):
            with pytest.raises(StoreDamaged, match=rf"s\.store {told}.*open it again"):
                ask()


@pytest.mark.parametrize(("change", "told"), CHANGES)
def test_a_writer_of_a_store_that_was_replaced_acknowledges_nothing_and_leaves_the_new_one_alone(
    folder: Path, others: Nursery, change: Change, told: str
) -> None:
    store = open_store(folder)
    do(store, {"op": "upsert", "ids": ["d"], "first": 3})
    change(folder, others)
    found = contents(folder)
    for operation in ({"op": "upsert", "ids": ["e"], "first": 4}, {"op": "delete", "ids": ["a"]}, {"op": "compact"}):
        with pytest.raises(StoreDamaged, match=rf"s\.store {told}.*open it again"):
            do(store, operation)
    store.close()
    assert contents(folder) == found
    if found:
        with open_store(folder) as new:
            assert new.verify().is_sound


def test_a_writer_that_closes_leaves_alone_what_the_next_writer_has_not_folded(folder: Path, others: Nursery) -> None:
    """Both have the same names for their files: SQLite's log of the one must not go with the other."""
    with open_store(folder) as former:
        do(former, {"op": "upsert", "ids": ["d"], "first": 3})
        shutil.rmtree(folder)
        with open_store(folder, create=INFO) as new:
            do(new, FIRST)
            found = contents(folder)
            former.close()
            assert contents(folder) == found
            with open_store(folder, read_only=True) as reader:
                assert not compare(reader, {"a": 0, "b": 1})


def test_a_writer_whose_lock_was_removed_lets_another_one_write(folder: Path) -> None:
    with open_store(folder) as former:
        (folder / "lock").unlink()
        with open_store(folder) as latter:
            with pytest.raises(StoreDamaged, match="was replaced"):
                do(former, {"op": "upsert", "ids": ["d"], "first": 3})
            do(latter, {"op": "upsert", "ids": ["e"], "first": 4})
            assert not compare(latter, {"a": 0, "b": 1, "c": 2, "e": 4})


def test_a_store_that_comes_back_to_its_place_is_read_on(folder: Path, tmp_path: Path) -> None:
    with open_store(folder, read_only=True) as reader:
        folder.rename(tmp_path / "away")
        with pytest.raises(StoreDamaged, match="was removed"):
            len(reader)
        (tmp_path / "away").rename(folder)
        assert not compare(reader, {"a": 0, "b": 1, "c": 2})
