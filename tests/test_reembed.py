"""The items of a store in another one with another model's vectors, and the alias that then names it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from binsight import takeover
from binsight.checkpoint import Heads
from binsight.cli import run
from binsight.encoder import Encoder, load_encoder
from binsight.errors import BadSettings, CannotBeDone, ModelMismatch, StoreHeld
from binsight.ingest import ingest, list_sources
from binsight.records import Item
from binsight.reembed import reembed, replace_behind
from binsight.store import Alias, VectorStore, open_alias, open_store
from tests.count_fakes import counting_encoder
from tests.fakes import MeanColour, by_hand, mean_colour_encoder, paint
from tests.model_folders import make_binsight_folder
from tests.redis_server import RedisServer


class Turned(MeanColour):
    """Features: the mean blue, green and red."""

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return super().run(pixels)[:, ::-1]


FORMER = mean_colour_encoder("f" * 64)
LATTER = Encoder(model="turned", fingerprint="b" * 64, preprocess=FORMER.preprocess, runtime=Turned())


def colour(number: int) -> tuple[int, int, int]:
    return number % 256, (7 * number) % 256, (31 * number) % 256


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(20):
        paint(tmp_path / "photos" / f"{number:02d}.png", colour(number))
    return tmp_path / "photos"


def fill(store: VectorStore, photos: Path, encoder: Encoder = FORMER) -> None:
    ingest(list_sources([str(photos)]), encoder, store)


def check_turned(store: VectorStore, numbers: range) -> None:
    ids = [f"{number:02d}.png" for number in numbers]
    wanted = [by_hand(colour(number))[::-1] for number in numbers]
    np.testing.assert_allclose(store.vectors_of(ids), wanted, atol=1e-6)
    assert len(store) == len(ids)


def test_every_item_is_read_again_with_its_record(tmp_path: Path, photos: Path) -> None:
    with (
        open_store(tmp_path / "one", create=FORMER.info) as source,
        open_store(tmp_path / "two", create=LATTER.info) as target,
    ):
        fill(source, photos)
        report = reembed(source, target, LATTER)
        assert (report.indexed, report.unchanged, report.refused) == (20, 0, [])
        check_turned(target, range(20))
        assert {item.id: item for item in target.scan()} == {item.id: item for item in source.scan()}
        with pytest.raises(ModelMismatch):
            reembed(target, source, LATTER)


def test_run_again_it_follows_what_changed(tmp_path: Path, photos: Path) -> None:
    with (
        open_store(tmp_path / "one", create=FORMER.info) as source,
        open_store(tmp_path / "two", create=LATTER.info) as target,
    ):
        fill(source, photos)
        reembed(source, target, LATTER)
        source.delete(["19.png"])
        (moved,) = source.get(["03.png"])
        assert moved is not None
        source.upsert([Item("03.png", moved.metadata | {"shelf": 4})], source.vectors_of(["03.png"]))
        again = reembed(source, target, LATTER)
        assert (again.indexed, again.unchanged, again.deleted, again.refused) == (1, 18, 1, [])
        check_turned(target, range(19))
        (now,) = target.get(["03.png"])
        assert now is not None
        assert now.metadata["shelf"] == 4


def test_items_of_a_manifest_stay_items_of_it(tmp_path: Path, photos: Path) -> None:
    """Else its next `--prune` would not know them."""
    (photos / "m.csv").write_text("path,shelf\n00.png,4\n01.png,5\n")
    with (
        open_store(tmp_path / "one", create=FORMER.info) as source,
        open_store(tmp_path / "two", create=LATTER.info) as target,
    ):
        ingest(list_sources([str(photos / "m.csv")]), FORMER, source)
        assert reembed(source, target, LATTER).indexed == 2
        assert target.get(["00.png"]) == source.get(["00.png"])
        (photos / "m.csv").write_text("path,shelf\n00.png,4\n")
        assert ingest(list_sources([str(photos / "m.csv")]), LATTER, target, prune=True).pruned == 1


def test_a_count_in_the_record_becomes_the_new_models_or_goes(tmp_path: Path, photos: Path) -> None:
    former, latter = counting_encoder("f" * 64), counting_encoder("b" * 64)
    with (
        open_store(tmp_path / "one", create=former.info) as source,
        open_store(tmp_path / "two", create=latter.info) as target,
        open_store(tmp_path / "three", create=LATTER.info) as plain,
    ):
        ingest(list_sources([str(photos)]), former, source, count_field="seen")
        (item,) = source.get(["00.png"])
        assert item is not None
        assert {"seen", "seen_low", "path"} <= item.metadata.keys()
        assert reembed(source, target, latter).indexed == 20
        assert target.get(["00.png"]) == [item]
        assert reembed(source, target, latter).indexed == 0
        assert reembed(source, plain, LATTER).indexed == 20
        (without,) = plain.get(["00.png"])
        assert without is not None
        assert "seen" not in without.metadata
        assert reembed(source, plain, LATTER).indexed == 0


def test_what_cannot_be_read_again_is_named_and_keeps_the_alias_unless_told(tmp_path: Path, photos: Path) -> None:
    with (
        open_store(tmp_path / "one", create=FORMER.info) as source,
        open_store(tmp_path / "two", create=LATTER.info) as target,
        open_alias(tmp_path / "live") as alias,
    ):
        fill(source, photos)
        alias.point_at("one")
        source.upsert([Item("by hand")], source.vectors_of(["00.png"]))
        (photos / "05.png").unlink()
        report = replace_behind(alias, source, target, LATTER, name="two", former="one")
        assert sorted(refusal.path.rpartition("/")[2] for refusal in report.refused) == ["05.png", "by hand"]
        assert not report.moved
        assert alias.target() == "one"
        source.upsert([Item("by hand")], source.vectors_of(["01.png"]))  # it still takes writes
        report = replace_behind(alias, source, target, LATTER, name="two", former="one", without_refused=True)
        assert report.moved
        assert (report.indexed, len(report.refused)) == (0, 2)
        assert alias.target() == "two"
        assert len(target) == 19


def test_an_item_without_a_file_is_never_taken_for_the_same(tmp_path: Path, photos: Path) -> None:
    """Its record may be equal and its vector, of another picture, not."""
    with (
        open_store(tmp_path / "one", create=FORMER.info) as source,
        open_store(tmp_path / "two", create=LATTER.info) as target,
    ):
        fill(source, photos)
        reembed(source, target, LATTER)
        for store, picture in ((source, "00.png"), (target, "01.png")):
            store.upsert([Item("by hand", {"shelf": 1})], store.vectors_of([picture]))
        report = reembed(source, target, LATTER)
        assert [refusal.path for refusal in report.refused] == ["by hand"]
        assert report.unchanged == 20


def test_what_is_refused_does_not_stay_as_it_was_in_the_target(tmp_path: Path, photos: Path) -> None:
    """One item came to have a vector of somebody's own, the other a new record and no file."""
    with (
        open_store(tmp_path / "one", create=FORMER.info) as source,
        open_store(tmp_path / "two", create=LATTER.info) as target,
    ):
        fill(source, photos)
        reembed(source, target, LATTER)
        (changed,) = source.get(["05.png"])
        assert changed is not None
        vectors = source.vectors_of(["05.png", "06.png"])
        source.upsert([Item("05.png", changed.metadata | {"shelf": 9}), Item("06.png", {"shelf": 7})], vectors)
        (photos / "05.png").unlink()
        report = reembed(source, target, LATTER)
        assert sorted(refusal.path.rpartition("/")[2] for refusal in report.refused) == ["05.png", "06.png"]
        assert target.get(["05.png", "06.png", "07.png"])[:2] == [None, None]
        assert (report.deleted, len(target)) == (2, 18)


def test_a_target_that_holds_other_things_is_left_alone(tmp_path: Path, photos: Path) -> None:
    with (
        open_store(tmp_path / "one", create=FORMER.info) as source,
        open_store(tmp_path / "two", create=LATTER.info) as target,
    ):
        fill(source, photos)
        target.upsert([Item("a"), Item("b")], source.vectors_of(["00.png", "01.png"]))
        with pytest.raises(BadSettings, match="2 of the 2 items"):
            reembed(source, target, LATTER)
        assert len(target) == 2


def test_a_store_that_somebody_else_filled_loses_nothing(tmp_path: Path, photos: Path) -> None:
    """Not one item; one that was filled from the source loses what that has lost since."""
    with (
        open_store(tmp_path / "one", create=FORMER.info) as source,
        open_store(tmp_path / "two", create=LATTER.info) as target,
        open_store(tmp_path / "three", create=LATTER.info) as followed,
    ):
        fill(source, photos)
        assert reembed(source, followed, LATTER).indexed == 20
        fill(target, photos, LATTER)
        source.delete(["00.png"])
        with pytest.raises(BadSettings, match="1 of the 20 items"):
            reembed(source, target, LATTER)
        assert len(target) == 20
        assert reembed(source, followed, LATTER).deleted == 1


def test_of_two_that_replace_one_store_one_moves_the_alias(photos: Path, redis_8: RedisServer) -> None:
    """The second is done while the first reads; what was written to the second's store stays named by the alias."""
    redis_8.client().flushall()
    url = redis_8.url
    with (
        open_store(url("one"), create=FORMER.info) as source,
        open_store(url("one")) as again,
        open_store(url("two"), create=LATTER.info) as two,
        open_store(url("three"), create=LATTER.info) as three,
        open_alias(url("live")) as alias,
    ):
        fill(source, photos)
        alias.point_at("one")

        def meanwhile(_done: int, _total: int) -> None:
            if alias.target() == "one":
                assert replace_behind(alias, again, three, LATTER, name="three", former="one").moved

        with pytest.raises(CannotBeDone, match="named one and names three now"):
            replace_behind(alias, source, two, LATTER, name="two", former="one", progress=meanwhile)
        assert alias.target() == "three"
        with pytest.raises(StoreHeld, match="replaced by three"):
            source.delete(["00.png"])
        two.delete(["00.png"])  # what was filled in vain is not held


@contextmanager
def named_one(photos: Path, server: RedisServer) -> Iterator[tuple[Alias, VectorStore, VectorStore]]:
    """An alias, and two handles of the filled store that it names."""
    server.client().flushall()
    with (
        open_store(server.url("one"), create=FORMER.info) as source,
        open_store(server.url("one")) as other,
        open_alias(server.url("live")) as alias,
    ):
        fill(source, photos)
        alias.point_at("one")
        yield alias, source, other


def test_a_store_stays_held_once_the_alias_has_left_it_whatever_fails_then(photos: Path, redis_8: RedisServer) -> None:
    with named_one(photos, redis_8) as (alias, source, other):

        def moved_and_interrupted() -> None:
            with takeover.replacing(alias, source, "two", former="one"):
                alias.point_at("two", former="one")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            moved_and_interrupted()
        with pytest.raises(StoreHeld, match="replaced by two"):
            other.delete(["00.png"])


KILLED = """
import os, signal, sys
from binsight import takeover
from binsight.store import open_alias, open_store
live, one, two, when = sys.argv[1:]
takeover.LEASE_S = 0.3
alias, source, target = open_alias(live), open_store(one), open_store(two)
with takeover.replacing(alias, source, "two", former="one"):
    takeover.hold_for_followers(target, alias)
    if when == "after":
        alias.point_at("two", former="one")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("moved", [True, False])
def test_killed_around_the_alias_move_only_what_it_names_takes_writes(photos: Path, redis_8: RedisServer, moved: bool) -> None:
    """Once the hold of the killed process is over, in handles that were open all the time. Another alias left the new store."""
    with (
        named_one(photos, redis_8) as (_, _, other),
        open_store(redis_8.url("two"), create=FORMER.info) as two,
        open_alias(redis_8.url("test")) as test,
    ):
        two.hold_writes("a moment", for_s=60, leaving="test")  # which is no alias: it left nothing
        two.release_writes()
        row = other.vectors_of(["00.png"])
        two.upsert([Item("before")], row)
        test.point_at("two")
        with takeover.replacing(test, two, "one", former="two"):
            test.point_at("one", former="two")
        check_killed_at_the_move(redis_8.url, "after" if moved else "before")
        left, named = (other, two) if moved else (two, other)
        with pytest.raises(StoreHeld, match="it was replaced by " + ("two" if moved else "one")):
            retried(lambda: left.upsert([Item("late")], row), until="was replaced")
        retried(lambda: named.upsert([Item("late")], row))
        assert named.get(["late"]) == [Item("late")]
        assert left.get(["late"]) == [None]


def check_killed_at_the_move(url: Callable[[str], str], when: str) -> None:
    places = [url(name) for name in ("live", "one", "two")]
    ended = subprocess.run([sys.executable, "-c", KILLED, *places, when], check=False)
    assert ended.returncode == -signal.SIGKILL


def retried(write: Callable[[], None], until: str = "-") -> None:
    """The write, once the store is not held for a time any more."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return write()
        except StoreHeld as error:
            if until in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_a_replacement_that_fails_leaves_a_store_as_another_alias_left_it(photos: Path, redis_8: RedisServer) -> None:
    with (
        named_one(photos, redis_8) as (alias, source, other),
        open_store(redis_8.url("two"), create=LATTER.info) as two,
        open_store(redis_8.url("three"), create=LATTER.info) as three,
        open_store(redis_8.url("three")) as busy,
        open_alias(redis_8.url("test")) as second,
    ):
        second.point_at("one")
        assert replace_behind(alias, source, two, LATTER, name="two", former="one").moved
        busy.hold_writes("it is busy", for_s=60)
        with pytest.raises(StoreHeld, match="it is busy"):
            takeover.exchange(second, other, three, name="three", former="one")
        assert second.target() == "one"
        with pytest.raises(StoreHeld, match="replaced by two"):
            other.delete(["00.png"])


def test_who_waited_to_fill_a_store_leaves_it_alone_once_the_alias_names_it(photos: Path, redis_8: RedisServer) -> None:
    """The first of two that fill it is done meanwhile; what was written to it since is newer than the source."""
    redis_8.client().flushall()
    url = redis_8.url
    with (
        open_store(url("one"), create=FORMER.info) as source,
        open_store(url("two"), create=LATTER.info) as two,
        open_store(url("two")) as again,
        open_alias(url("live")) as alias,
        ThreadPoolExecutor(1) as second,
    ):
        fill(source, photos)
        alias.point_at("one")
        fill(two, photos, LATTER)
        two.hold_writes("it is being filled from another store", for_s=30.0, but_mine=True)
        waiting = second.submit(replace_behind, alias, source, again, LATTER, name="two", former="one")
        assert not wait([waiting], timeout=0.5).done
        alias.point_at("two", former="one")
        paint(photos / "20.png", colour(20))
        fill(two, photos, LATTER)
        two.release_writes()
        with pytest.raises(CannotBeDone, match="named one and names two now"):
            waiting.result(timeout=30)
        check_turned(two, range(21))
        assert not two.follows
        assert two.delete(["20.png"]) == 1


def test_a_store_of_two_aliases_is_left_by_the_one_and_then_by_the_other(photos: Path, redis_8: RedisServer) -> None:
    redis_8.client().flushall()
    url = redis_8.url
    with (
        open_store(url("one"), create=FORMER.info) as source,
        open_store(url("one")) as again,
        open_store(url("two"), create=LATTER.info) as two,
        open_store(url("three"), create=LATTER.info) as three,
        open_alias(url("live")) as alias,
        open_alias(url("test")) as other,
    ):
        fill(source, photos)
        alias.point_at("one")
        other.point_at("one")
        assert replace_behind(alias, source, two, LATTER, name="two", former="one").moved
        with pytest.raises(StoreHeld, match="replaced by two"):
            source.upsert([Item("late")], source.vectors_of(["00.png"]))
        assert replace_behind(other, again, three, LATTER, name="three", former="one").moved
        with pytest.raises(StoreHeld, match="replaced by three"):
            source.upsert([Item("late")], source.vectors_of(["00.png"]))


def test_who_finds_that_the_alias_has_left_the_store_leaves_it_held(photos: Path, redis_8: RedisServer) -> None:
    """Another moved it while this one held the store, its time having run out in between."""
    with named_one(photos, redis_8) as (alias, source, other):

        def overtaken() -> None:
            with takeover.replacing(alias, source, "two", former="one"):
                alias.point_at("three", former="one")
                alias.point_at("two", former="one")

        with pytest.raises(CannotBeDone, match="named one and names three now"):
            overtaken()
        with pytest.raises(StoreHeld, match="replaced by three"):
            other.delete(["00.png"])


def test_a_source_that_the_alias_no_longer_names_takes_nobodys_place(tmp_path: Path, photos: Path) -> None:
    """The alias moved between being looked at and the source being opened: what its store has got since would be lost."""
    with (
        open_store(tmp_path / "one", create=FORMER.info) as source,
        open_store(tmp_path / "two", create=LATTER.info) as two,
        open_store(tmp_path / "three", create=LATTER.info) as three,
        open_alias(tmp_path / "live") as alias,
    ):
        fill(source, photos)
        alias.point_at("one")
        assert replace_behind(alias, source, two, LATTER, name="two", former="one").moved
        paint(photos / "20.png", colour(20))
        fill(two, photos, LATTER)
        with pytest.raises(CannotBeDone, match="named one and names two now"):
            replace_behind(alias, source, three, LATTER, name="three", former="one")
        assert alias.target() == "two"
        check_turned(two, range(21))


def test_the_way_back_does_not_delete_what_was_refused_on_the_way_there(tmp_path: Path, photos: Path) -> None:
    """Nobody deleted it: it has no picture to be read again, and so the new store never held it."""
    with (
        open_store(tmp_path / "one", create=FORMER.info) as source,
        open_store(tmp_path / "two", create=LATTER.info) as target,
        open_alias(tmp_path / "live") as alias,
    ):
        fill(source, photos)
        source.upsert([Item("upload", {"shelf": 4})], source.vectors_of(["00.png"]))
        alias.point_at("one")
        assert replace_behind(alias, source, target, LATTER, name="two", former="one", without_refused=True).moved
        with pytest.raises(BadSettings, match="1 of the 21 items"):
            replace_behind(alias, target, source, FORMER, name="one", former="two")
        assert source.get(["upload"]) == [Item("upload", {"shelf": 4})]
        assert alias.target() == "two"


def test_a_store_that_is_being_filled_takes_its_fillers_writes_alone(
    photos: Path, redis_8: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "FILLING_S", 2.0)
    redis_8.client().flushall()
    with (
        open_store(redis_8.url("one"), create=FORMER.info) as source,
        open_store(redis_8.url("two"), create=LATTER.info) as target,
        open_store(redis_8.url("two")) as other,
        takeover.Filling(source, target, LATTER.info) as filling,
    ):
        fill(source, photos)
        fill(target, photos, LATTER)
        filling.renew()
        with pytest.raises(StoreHeld, match="being filled"):
            other.delete(["00.png"])
        other_filling = takeover.Filling(source, other, LATTER.info)
        with other_filling:  # once the first one's time is up
            with pytest.raises(StoreHeld, match="being filled"):
                filling.renew()
            assert other.delete(["00.png"]) == 1
        with open_alias(redis_8.url("live")) as alias:
            alias.point_at("one")
        assert run(["store", "alias", redis_8.url("live"), "two"]) == 0


def test_pictures_that_cannot_be_reached_are_refused_one_by_one(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "x.png").write_bytes((photos / "00.png").read_bytes())
    (photos / "out.png").write_bytes(b"")
    with (
        open_store(tmp_path / "one", create=FORMER.info) as source,
        open_store(tmp_path / "two", create=LATTER.info) as target,
    ):
        fill(source, tmp_path / "gone")
        fill(source, photos)
        (good,) = source.get(["00.png"])
        assert good is not None
        origin = good.metadata["_source"]
        odd = {
            "up": origin | {"uri": "../gone/x.png"},
            "link": origin | {"uri": "out.png"},
            "bucket": origin | {"root": "s3://"},
            "web": origin | {"root": "https://example.org"},
            "counted": origin | {"counted": ["seen"]},
        }
        items = [Item(name, {"_source": one}) for name, one in odd.items()]
        source.upsert(items, source.vectors_of(["00.png"] * len(items)))
        (photos / "out.png").unlink()
        (photos / "out.png").symlink_to(tmp_path / "gone" / "x.png")
        (tmp_path / "gone" / "x.png").rename(tmp_path / "y.png")
        (tmp_path / "gone").rmdir()
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "y.png").rename(tmp_path / "elsewhere" / "x.png")
        report = reembed(source, target, LATTER)
    told = sorted(one.error for one in report.refused)
    assert report.indexed == 20
    assert len(told) == 6
    assert sum("leads out of" in one for one in told) == 2
    assert sum("no such folder" in one for one in told) == 1
    assert sum("want s3://BUCKET" in one for one in told) == 1


def test_no_write_is_lost_while_the_alias_moves_there_and_back(
    tmp_path: Path, photos: Path, redis_8: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers through the alias take what they are refused to the store that it names then."""
    monkeypatch.setattr(takeover, "FOLLOW_S", 0.2)
    redis_8.client().flushall()
    with open_store(redis_8.url("one"), create=FORMER.info) as first, open_store(redis_8.url("two"), create=LATTER.info):
        fill(first, photos)
    with open_alias(redis_8.url("live")) as alias:
        alias.point_at("one")
    acknowledged: list[int] = []
    refusals: list[int] = []
    ended = threading.Event()

    def write() -> None:
        number = 100
        while not ended.is_set():
            with open_store(redis_8.url("live")) as store:
                encoder = FORMER if store.info.fingerprint == FORMER.info.fingerprint else LATTER
                try:
                    while not ended.is_set():
                        paint(photos / f"{number}.png", colour(number))
                        ingest(list_sources([str(photos / f"{number}.png")]), encoder, store)
                        acknowledged.append(number)
                        number += 1
                except StoreHeld:
                    refusals.append(number)
                    time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for former, latter, encoder in (("one", "two", LATTER), ("two", "one", FORMER)):
            before = len(acknowledged)
            with (
                open_alias(redis_8.url("live")) as alias,
                open_store(redis_8.url(former)) as source,
                open_store(redis_8.url(latter)) as target,
            ):
                assert replace_behind(alias, source, target, encoder, name=latter, former=former).moved
                deadline = time.monotonic() + 20
                while len(acknowledged) < before + 20 and time.monotonic() < deadline:
                    time.sleep(0.01)
                with pytest.raises(StoreHeld, match=f"replaced by {latter}"):
                    source.delete(["00.png"])
    finally:
        ended.set()
        writer.join()
    assert len(acknowledged) > 40
    assert refusals
    with open_store(redis_8.url("live"), read_only=True) as store:
        assert store.info.detail["index"] == "one"
        ids = [f"{number}.png" for number in acknowledged]
        np.testing.assert_allclose(store.vectors_of(ids), [by_hand(colour(number)) for number in acknowledged], atol=1e-6)
        assert store.verify().is_sound


def test_a_hold_that_was_not_renewed_in_time_moves_nothing(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "LEASE_S", 0.0)
    with (
        open_store(tmp_path / "one", create=FORMER.info) as source,
        open_store(tmp_path / "two", create=LATTER.info) as target,
        open_alias(tmp_path / "live") as alias,
    ):
        fill(source, photos)
        alias.point_at("one")
        with pytest.raises(CannotBeDone, match="could not be held"):
            replace_behind(alias, source, target, LATTER, name="two", former="one")
        assert alias.target() == "one"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> tuple[Path, Path]:
    folders = []
    for seed in (1, 2):
        folders.append(tmp_path_factory.mktemp("models") / f"model-{seed}")
        make_binsight_folder(folders[-1], Heads(16, None, None), size=32, seed=seed)
    return folders[0], folders[1]


def test_the_command_killed_anywhere_goes_on_and_ends_as_undisturbed(
    tmp_path: Path, models: tuple[Path, Path], capfd: pytest.CaptureFixture[str], shared_cache: Path
) -> None:
    for number in range(300):
        paint(tmp_path / "photos" / f"{number:03d}.png", colour(number), (40, 40))
    former, latter = models
    live = str(tmp_path / "live")
    assert run(["index", str(tmp_path / "photos"), "--store", str(tmp_path / "one"), "--model", str(former)]) == 0
    assert run(["store", "alias", live, "one"]) == 0
    command = [sys.executable, "-c", "from binsight.cli import main; main()", "store", "reembed", live, "--model", str(latter)]
    held: list[int] = []
    for _ in range(2):
        with subprocess.Popen([*command, "--into", "two"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            while process.poll() is None:
                time.sleep(0.02)
                if (tmp_path / "two" / "CURRENT").exists():
                    with open_store(tmp_path / "two", read_only=True) as store:
                        now = len(store)
                    if now > (held[-1] if held else 0):
                        held.append(now)
                        process.send_signal(signal.SIGKILL)
                        process.wait()
        with open_alias(live) as alias:
            if alias.target() == "two":
                break
    capfd.readouterr()
    run(["store", "reembed", live, "--model", str(latter), "--into", "two"])
    with open_alias(live) as alias:
        assert alias.target() == "two"
    encoder = load_encoder(str(latter))
    with open_store(tmp_path / "two", read_only=True) as store:
        assert len(store) == 300
        wanted = encoder.encode([tmp_path / "photos" / f"{number:03d}.png" for number in range(300)]).vectors
        np.testing.assert_allclose(store.vectors_of([f"{number:03d}.png" for number in range(300)]), wanted, atol=1e-4)
        assert store.verify().is_sound


def test_the_command_names_the_new_store_by_its_model_and_leaves_a_plain_store_in_place(
    tmp_path: Path, photos: Path, models: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    former, latter = (str(model) for model in models)
    plain = str(tmp_path / "parts.store")
    assert run(["index", str(photos), "--store", plain, "--model", former]) == 0
    capfd.readouterr()
    assert run(["store", "reembed", plain, "--model", latter, "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    fingerprint = load_encoder(latter).info.fingerprint
    assert document | {"took_s": 0} == {
        "from": "parts.store", "into": f"parts.store-{fingerprint[:8]}", "indexed": 20, "unchanged": 0, "deleted": 0,
        "refused": [], "moved": False, "took_s": 0,
    }  # fmt: skip
    with open_store(plain, read_only=True) as store:
        assert store.info.model.endswith(former)
    assert run(["store", "reembed", plain, "--model", former, "--into", "parts.store"]) == 2
