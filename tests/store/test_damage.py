"""R3: flip bytes, cut files short, delete them, swap them; never a wrong answer.

Every mutated store is opened for reading and for writing. What it answers is equal to the truth, or a typed error that
says what is damaged. Damage to a file that is only a cache heals by itself.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from binsight.errors import BinsightError, CannotBeDone, NotAStore, StoreDamaged
from binsight.records import Item, Match
from binsight.store import faiss_store, open_store
from binsight.store.files import sealed_json
from binsight.store.journal import identity_frame
from binsight.vectors import Vectors
from tests.store.workers import INFO, World, after, do, item_of, vector_of

MUTATIONS = int(os.environ.get("BINSIGHT_MUTATIONS", "20000"))


@dataclass(frozen=True)
class Sample:
    """A store's folder to be copied and damaged, what it holds, and what it answers when it is sound."""

    folder: Path
    world: World
    queries: Vectors
    answers: list[list[Match]]


def build(folder: Path, *, items: int, compact_at: int, kind: str = "closed", first: int = 0) -> Sample:
    """A store with replaced and deleted items. kind: closed, or killed: as kill −9 leaves it, nothing folded."""
    world: World = {}
    store = open_store(folder / "live", create=INFO)
    for start in range(0, items, 40):
        names = [f"id {n}" for n in range(start, start + 40)]
        for operation in (
            {"op": "upsert", "ids": names, "first": first + start},
            {"op": "upsert", "ids": names[:5], "first": first + 10_000 + start},
            {"op": "delete", "ids": names[5:9]},
        ):
            do(store, operation)
            world = after(world, operation)
        if start == compact_at:
            store.compact()
    if kind == "closed":
        store.close()
    sample = taken(folder / "live", folder / kind, world)
    store.close()
    return sample


def taken(live: Path, to: Path, world: World) -> Sample:
    """A copy of a store at this moment."""
    shutil.copytree(live, to)
    queries = np.concatenate([vector_of(version) for version in list(world.values())[::7]])
    with open_store(live, read_only=True) as store:
        return Sample(to, world, queries, store.query(queries, k=5))


@pytest.fixture(scope="module", autouse=True)
def small_indexes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faiss_store, "SMALL_ROWS", 200)
        patch.setattr(faiss_store, "TAIL_ROWS", 400)
        yield


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sample]:
    new = tmp_path_factory.mktemp
    return {
        "small": build(new("small"), items=80, compact_at=0),
        "small killed": build(new("small-killed"), items=80, compact_at=0, kind="killed"),
        "indexed": build(new("indexed"), items=400, compact_at=200),
        "indexed killed": build(new("indexed-killed"), items=400, compact_at=200, kind="killed"),
    }


# ---- damaging


def flip(rng: np.random.Generator, path: Path) -> str:
    """Change one bit, or some bytes in a row, often near the beginning or the end."""
    data = bytearray(path.read_bytes())
    where = int(rng.integers(len(data)))
    draw = rng.random()
    if draw < 0.25:
        where = int(rng.integers(min(len(data), 100)))
    elif draw < 0.4:
        where = len(data) - 1 - int(rng.integers(min(len(data), 100)))
    if rng.random() < 0.5:
        data[where] ^= 1 << int(rng.integers(8))
    else:
        size = min(len(data) - where, int(rng.integers(1, 600)))
        data[where : where + size] = bytes(rng.integers(256, size=size, dtype=np.uint8))
    path.write_bytes(data)
    return f"flip {path.name} at {where}"


def cut(rng: np.random.Generator, path: Path) -> str:
    size = path.stat().st_size
    size = int(rng.integers(size)) if rng.random() < 0.7 else max(0, size - int(rng.integers(1, 9)))
    os.truncate(path, size)
    return f"cut {path.name} to {size}"


def grow(rng: np.random.Generator, path: Path) -> str:
    with path.open("ab") as file:
        file.write(bytes(int(rng.integers(1, 9000))) if rng.random() < 0.5 else rng.bytes(int(rng.integers(1, 9000))))
    return f"grow {path.name}"


def remove(rng: np.random.Generator, path: Path) -> str:
    path.unlink()
    return f"remove {path.name}"


def zero(rng: np.random.Generator, path: Path) -> str:
    """A page of zeros, as some file systems leave after a power cut."""
    size = path.stat().st_size
    at = int(rng.integers(size // 512 + 1)) * 512
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(max(0, min(512, size - at))))
    return f"zero {path.name} at {at}"


DAMAGES = (flip, flip, flip, cut, cut, remove, zero, grow)


# ---- looking


@dataclass
class Look:
    """What one opening of a store showed: `errors` are typed ones; a wrong answer or another error fails at once."""

    errors: list[BinsightError]
    problems: list[str]
    is_open: bool


def look(folder: Path, sample: Sample, *, read_only: bool, what: str) -> Look:
    """Open and ask everything. Fails on a wrong answer and on an error that is not of ours."""
    errors: list[BinsightError] = []
    try:
        store = open_store(folder, read_only=read_only)
    except BinsightError as error:
        return Look([error], [], is_open=False)
    truth = {one: item_of(one, version) for one, version in sample.world.items()}
    ids = list(truth)
    with store:

        def ask(question: Callable[[], object], want: object) -> None:
            try:
                got = question()
            except BinsightError as error:
                errors.append(error)
            else:
                assert got == want, f"{what}: a wrong answer\n{str(got)[:600]}\nwant\n{str(want)[:600]}"

        ask(lambda: len(store), len(truth))
        ask(lambda: store.get([*ids, "not there"]), [*truth.values(), None])
        ask(lambda: sorted(store.scan(), key=lambda item: item.id), sorted(truth.values(), key=lambda item: item.id))
        ask(lambda: store.query(sample.queries, k=5), sample.answers)
        for start in range(0, len(ids), 16):
            want = np.concatenate([vector_of(sample.world[one]) for one in ids[start : start + 16]]).tolist()
            ask(lambda start=start: store.vectors_of(ids[start : start + 16]).tolist(), want)  # type: ignore[misc]
        ask(lambda: rounded(store.query(sample.queries[:3], k=400, where="version < 60")), rounded(filtered(sample)))
        problems = store.verify().problems
    return Look(errors, problems, is_open=True)


def filtered(sample: Sample) -> list[list[Match]]:
    ids = [one for one, version in sample.world.items() if version < 60]
    if not ids:
        return [[] for _ in sample.queries[:3]]
    rows = np.concatenate([vector_of(sample.world[one]) for one in ids])
    scores = sample.queries[:3] @ rows.T  # (3, n)
    found = [[Match(item_of(one, sample.world[one]), float(s)) for one, s in zip(ids, line, strict=True)] for line in scores]
    return [sorted(line, key=lambda match: -match.score) for line in found]


def rounded(found: list[list[Match]]) -> list[list[tuple[Item, float]]]:
    return [[(match.item, round(match.score, 4)) for match in line] for line in found]


def mutate_and_look(sample: Sample, folder: Path, rng: np.random.Generator, outcomes: Counter[str]) -> None:
    """One random damage; a reader's look and a writer's at copies of it, in both orders of coming."""
    work = folder / "work"
    shutil.copytree(sample.folder, work)
    path = rng.choice(np.array(sorted(path for path in work.iterdir() if path.stat().st_size), dtype=object))
    damage = DAMAGES[int(rng.integers(len(DAMAGES)))]
    before = path.read_bytes()
    what = f"{sample.folder.name}: {damage(rng, path)}"
    is_truth_whole = path.exists() and is_whole(path, before, sample)
    modes = (True, False, True) if rng.random() < 0.5 else (False, True)
    looks = [look(work, sample, read_only=mode, what=f"{what} (read_only={mode})") for mode in modes]
    judge(path.name, looks, what, is_truth_whole=is_truth_whole)
    last = looks[-1]
    outcomes["refused" if not last.is_open else "named" if last.errors or last.problems else "right"] += 1
    outcomes[f"{path.name.partition('-')[0]}: {'right' if last.is_open and not last.errors else 'error'}"] += 1
    shutil.rmtree(work)


def is_whole(path: Path, before: bytes, sample: Sample) -> bool:
    """Whether damage to the vectors or the journal left what counts as it was: it may hit rows that are dead."""
    now = path.read_bytes()
    if not path.name.startswith("vectors-"):
        return now[: len(before)] == before
    places = [(before.index(wanted), wanted) for wanted in (vector_of(one).tobytes() for one in sample.world.values())]
    return now[:4096] == before[:4096] and all(now[at : at + len(wanted)] == wanted for at, wanted in places)


def is_cache(name: str) -> bool:
    return name.startswith(("items-", "index-")) or name in ("CURRENT", "lock")


def judge(name: str, looks: list[Look], what: str, *, is_truth_whole: bool) -> None:
    """Damage to a cache is healed, damage to the truth is told by every look, with an error that names it."""
    for one in looks:
        for error in one.errors:
            assert isinstance(error, StoreDamaged), f"{what}: {error!r}"
        if is_cache(name):
            assert one.is_open, f"{what}: {one.errors}"
            assert not one.errors, f"{what}: {one.errors}"
        elif not is_truth_whole:
            assert one.errors or one.problems, f"{what}: was not noticed"
    if is_cache(name):
        assert not [problem for problem in looks[-1].problems if "cache" not in problem], f"{what}: {looks[-1].problems}"


@pytest.mark.parametrize("kind", ["small", "small killed", "indexed", "indexed killed"])
def test_damage_gives_the_truth_or_a_typed_error(
    samples: dict[str, Sample], tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    outcomes: Counter[str] = Counter()
    rng = np.random.default_rng(len(kind))
    for _ in range(30):
        mutate_and_look(samples[kind], tmp_path, rng, outcomes)
    assert outcomes["right"] > 10
    assert outcomes["refused"] + outcomes["named"] > 2


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", range(20))
def test_thousands_of_damages_give_the_truth_or_a_typed_error(samples: dict[str, Sample], tmp_path: Path, part: int) -> None:
    outcomes: Counter[str] = Counter()
    rng = np.random.default_rng(1000 + part)
    for number in range(max(4, MUTATIONS // 20)):
        mutate_and_look(list(samples.values())[number % 4], tmp_path, rng, outcomes)
    print(dict(outcomes))  # noqa: T201


# ---- files of another time, another generation, another store


def role(name: str) -> str:
    """What a file is, whatever its generation: "vectors", "items.sqlite-wal", "index.faiss", …"""
    return re.sub(r"-\d{6}(-[\d-]+)?", "", name)


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sample]:
    """The same store at several moments, closed and as killed, and another store that looks alike."""
    folder = tmp_path_factory.mktemp("moments")
    live, world, found = folder / "live", World(), {}
    for moment in range(4):  # 0: generation 1; 1: compacted; 2: written to; 3: folded and written to again
        with open_store(live, create=INFO) as store:
            for start in range(0, 40 if moment == 2 else 240, 40):  # few pages at 2: its log is a patch on what comes later
                names = [f"id {start + n}" for n in range(3 if moment == 2 else 40)]
                operation = {"op": "upsert", "ids": names, "first": moment * 1000 + start}
                do(store, operation)
                world = after(world, operation)
            if moment == 1:
                store.compact()
            found[f"{moment} killed"] = taken(live, folder / f"{moment}-killed", world)
        found[f"{moment} closed"] = taken(live, folder / f"{moment}-closed", world)
    found["other"] = build(folder, items=240, compact_at=200, kind="killed", first=50_000)
    return found


GROUPS = (
    ("CURRENT",), ("vectors.f32",), ("journal.log",), ("items.sqlite",), ("items.seal",), ("items.sqlite-wal",),
    ("items.sqlite-shm",), ("index.json",), ("index.faiss",), ("items.sqlite", "items.seal"), ("index.json", "index.faiss"),
    ("items.sqlite", "items.seal", "items.sqlite-wal"), ("items.sqlite", "items.sqlite-wal"),
    ("items.seal", "items.sqlite-wal"), ("vectors.f32", "items.sqlite", "items.seal"), ("CURRENT", "vectors.f32"),
)  # fmt: skip


@pytest.mark.parametrize("roles", GROUPS, ids="+".join)
@pytest.mark.parametrize("donors", ["few", pytest.param("all", marks=pytest.mark.torture)])
def test_files_of_another_moment_or_store_never_give_a_wrong_answer(
    moments: dict[str, Sample], tmp_path: Path, roles: tuple[str, ...], donors: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    for target in ("3 killed", "3 closed"):
        for place, donor in enumerate(sorted(set(moments) - {target})):
            if donors == "few" and donor not in ("0 closed", "2 killed", "other"):
                continue
            for order in ((True, False), (False, True)):
                if donors == "few" and order[0] == place % 2:
                    continue
                work = tmp_path / f"{target} {donor} {order[0]}"
                shutil.copytree(moments[target].folder, work)
                if not transplant(moments[donor].folder, work, roles):
                    continue
                what = f"{'+'.join(roles)} of {donor!r} in {target!r}"
                looks = [look(work, moments[target], read_only=mode, what=f"{what} (read_only={mode})") for mode in order]
                for one in looks:
                    assert all(isinstance(error, StoreDamaged) for error in one.errors), f"{what}: {one.errors}"
                if all(one.startswith(("items.", "index.")) for one in roles):
                    assert [one.errors for one in looks] == [[], []], what


def transplant(donor: Path, to: Path, roles: tuple[str, ...]) -> bool:
    """Put the donor's files in the place of ours, named as ours; whether that changed anything."""
    did = False
    for path in donor.iterdir():
        if role(path.name) not in roles:
            continue
        mine = [one for one in to.iterdir() if role(one.name) == role(path.name)]
        number = re.search(r"-\d{6}", next(one.name for one in to.iterdir() if one.name.startswith("journal-")))
        assert number is not None
        place = mine[0] if mine else to / re.sub(r"-\d{6}", number[0], path.name)
        did |= not place.exists() or place.read_bytes() != path.read_bytes()
        shutil.copyfile(path, place)
    return did


# ---- what healing looks like


def test_lost_caches_are_built_anew_with_a_warning(
    samples: dict[str, Sample], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = tmp_path / "work"
    shutil.copytree(samples["indexed"].folder, work)
    for path in [*work.glob("items-*"), *work.glob("index-*"), work / "CURRENT"]:
        path.unlink()
    seen = look(work, samples["indexed"], read_only=False, what="no caches")
    assert seen == Look([], [], is_open=True)
    assert "it is built anew from the journal" in caplog.text
    assert "the one journal says what it said" in caplog.text
    assert (work / "CURRENT").read_bytes() == (samples["indexed"].folder / "CURRENT").read_bytes()


def test_a_damaged_vector_is_named_and_the_rest_goes_on_once_it_is_deleted(samples: dict[str, Sample], tmp_path: Path) -> None:
    sample, work = samples["small"], tmp_path / "work"
    shutil.copytree(sample.folder, work)
    (path,) = work.glob("vectors-*")
    data = bytearray(path.read_bytes())
    at = data.index(vector_of(sample.world["id 20"]).tobytes())
    data[at] ^= 1
    path.write_bytes(data)
    with open_store(work) as store:
        assert [problem for problem in store.verify().problems if "id 20" in problem] == store.verify().problems != []
        with pytest.raises(StoreDamaged, match=r"vectors-000002.f32 does not match its checksums: row \d+ \(id 'id 20'\)"):
            store.vectors_of(["id 20"])
        with pytest.raises(StoreDamaged, match="id 20"):
            store.query(sample.queries)
        with pytest.raises(StoreDamaged, match="id 20"):
            store.compact()
        assert store.vectors_of(["id 21"]).tolist() == vector_of(sample.world["id 21"]).tolist()
        assert store.delete(["id 20"]) == 1
        assert store.query(vector_of(sample.world["id 21"]), k=1)[0][0].item.id == "id 21"
        store.compact()
        assert store.verify().is_sound


def test_a_damaged_journal_is_told_by_verify_and_written_anew_by_compact(samples: dict[str, Sample], tmp_path: Path) -> None:
    sample, work = samples["small"], tmp_path / "work"
    shutil.copytree(sample.folder, work)
    (path,) = work.glob("journal-*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with open_store(work) as store:
        (problem,) = store.verify().problems
        assert problem.startswith("journal-000002.log: damaged at byte ")
        store.compact()
        assert store.verify().is_sound
    assert look(work, sample, read_only=False, what="compacted") == Look([], [], is_open=True)


def test_a_damaged_journal_without_a_table_is_refused(samples: dict[str, Sample], tmp_path: Path) -> None:
    sample, work = samples["small"], tmp_path / "work"
    shutil.copytree(sample.folder, work)
    (path,) = work.glob("journal-*")
    os.truncate(path, path.stat().st_size - 1)
    next(work.glob("items-*.sqlite")).unlink()
    for read_only in (True, False, True, False):
        with pytest.raises(StoreDamaged, match=r"ends after frame \d of \d, and nothing tells of the rows from \d+ on"):
            open_store(work, read_only=read_only)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_store_follows_no_links_and_waits_for_no_pipes(samples: dict[str, Sample], tmp_path: Path, kind: str) -> None:
    for original in sorted(samples["indexed killed"].folder.iterdir()):
        work, outside = tmp_path / "work", tmp_path / "outside"
        shutil.copytree(samples["indexed killed"].folder, work)
        shutil.copyfile(original, outside)
        path = work / original.name
        path.unlink()
        if kind == "link":
            path.symlink_to(outside)
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.mkdir()
        for read_only in (True, False):
            seen = look(work, samples["indexed killed"], read_only=read_only, what=f"{kind} {path.name}")
            assert all(isinstance(error, CannotBeDone) for error in seen.errors)
        assert outside.read_bytes() == original.read_bytes(), path.name
        shutil.rmtree(work)


def test_a_lost_CURRENT_never_lets_a_new_store_overwrite_the_old(samples: dict[str, Sample], tmp_path: Path) -> None:  # noqa: N802
    work = tmp_path / "work"
    shutil.copytree(samples["small"].folder, work)
    (work / "CURRENT").unlink()
    with open_store(work, create=INFO) as store:
        assert len(store) == len(samples["small"].world)


@pytest.mark.parametrize(
    "lie", [{"dim": 0}, {"dim": "16"}, {"generation": "../1"}, {"store": None}, {"model": 7}, {"version": 99}, {"dim": 1 << 40}]
)
def test_a_store_that_was_made_up_is_refused(samples: dict[str, Sample], tmp_path: Path, lie: dict[str, object]) -> None:
    work = tmp_path / "work"
    shutil.copytree(samples["small"].folder, work)
    with open_store(work) as store:
        told: dict[str, object] = {"format": "binsight-store", "version": 1, "store": "", "generation": 2, "dim": 16}
        told |= {"fingerprint": store.info.fingerprint, "model": "", "metric": "cosine", "created": ""} | lie
    for path in work.glob("journal-*"):
        path.write_bytes(identity_frame(json.dumps(told)))
    (work / "CURRENT").write_bytes(sealed_json(told))
    for read_only in (True, False):
        with pytest.raises((StoreDamaged, NotAStore)):
            open_store(work, read_only=read_only)
