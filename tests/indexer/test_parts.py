"""Job arrays: the parts of a job are disjoint and complete, and leave each other's items alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from binsight.data.part import Part
from binsight.errors import BadSettings
from binsight.store import open_store
from tests import bins
from tests.fakes import paint, paint_pictures
from tests.indexer.jobs import MODEL, Done, assert_alike, state


def test_every_id_is_in_exactly_one_part() -> None:
    ids = [f"bin-images/{n:05}.jpg" for n in range(4000)]
    parts = [Part(number, 8) for number in range(1, 9)]
    held = [sum(part.holds(one) for one in ids) for part in parts]
    assert sum(held) == 4000
    assert all(sum(part.holds(one) for part in parts) == 1 for one in ids)
    assert 430 < min(held) <= max(held) < 570  # 500 ± 3.3 standard deviations of 21


def test_the_part_of_an_id_never_changes() -> None:
    """`printf %s ID | b2sum -l 64` ends in …2f, …75, …65 and …37: of four, the parts 4, 2, 2 and 4."""
    assert [next(n for n in range(1, 5) if Part(n, 4).holds(one)) for one in ("a", "b", "ram/a.png", "ü")] == [4, 2, 2, 4]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "1", "a/b", "1/4/2", "-1/4", "1/99999999"])
def test_a_part_that_there_is_not_is_wrong_use(text: str) -> None:
    with pytest.raises(BadSettings, match="want part I/N"):
        Part.parse(text)


def test_parts_together_are_what_one_job_does(tmp_path: Path, done: Done) -> None:
    bad = paint_pictures(tmp_path / "pictures", 60)
    (tmp_path / "pictures/notes.txt").write_text("no picture")
    whole = done("run", tmp_path / "pictures", "--store", tmp_path / "whole.store", "--model", MODEL, code=1)
    reports = []
    for number in (1, 2, 3):
        job = ("run", tmp_path / "pictures", "--store", tmp_path / "parts.store", "--model", MODEL, "--part", f"{number}/3")
        reports.append(done(*job, code=1 if any_bad(tmp_path / "pictures", number) else 0))
    for name in ("indexed", "skipped"):
        assert sum(report[name] for report in reports) == whole[name]
    refused = [one for report in reports for one in report["refused"]]
    assert sorted(one["path"] for one in refused) == sorted(one["path"] for one in whole["refused"])
    assert len(refused) == bad
    with open_store(tmp_path / "whole.store") as first, open_store(tmp_path / "parts.store") as second:
        assert_alike(state(first), state(second))


def any_bad(folder: Path, number: int) -> bool:
    return any(Part(number, 3).holds(path.name) for path in folder.glob("bad *.jpg"))


def test_pruning_a_part_deletes_its_own_items_only(tmp_path: Path, done: Done) -> None:
    for n in range(40):
        paint(tmp_path / f"pictures/{n}.png", (n, n, n))
    job = ("run", tmp_path / "pictures", "--store", tmp_path / "s.store", "--model", MODEL)
    done(*job)
    for n in range(10):
        (tmp_path / f"pictures/{n}.png").unlink()
    mine = {f"{n}.png" for n in range(10) if Part(2, 3).holds(f"{n}.png")}
    assert 0 < len(mine) < 10
    assert done(*job, "--prune", "--part", "2/3")["pruned"] == len(mine)
    with open_store(tmp_path / "s.store", read_only=True) as store:
        assert {item.id for item in store.scan()} == {f"{n}.png" for n in range(40)} - mine


def test_pruning_a_part_keeps_items_under_another_prefix(tmp_path: Path, done: Done) -> None:
    for n in range(20):
        paint(tmp_path / f"pictures/{n}.png", (n, n, n))
    job = ("run", tmp_path / "pictures", "--store", tmp_path / "s.store", "--model", MODEL)
    done(*job, "--id-prefix", "old/")
    assert sum(done(*job, "--prune", "--part", f"{number}/2")["pruned"] for number in (1, 2)) == 0
    with open_store(tmp_path / "s.store", read_only=True) as store:
        assert len(store) == 40


def test_pruning_parts_keeps_the_item_of_a_file_that_can_no_longer_be_read_under_its_new_id(tmp_path: Path, done: Done) -> None:
    """What was refused deletes nothing, whichever part refuses it."""
    for n in range(20):
        paint(tmp_path / f"pictures/{n}.png", (n, n, n))
    manifest = tmp_path / "pictures/all.csv"
    job = ("run", manifest, "--store", tmp_path / "s.store", "--model", MODEL)

    def named(prefix: str) -> None:
        manifest.write_text("path,id\n" + "".join(f"{n}.png,{prefix}{n}\n" for n in range(20)))

    named("old-")
    done(*job)
    named("new-")
    broken = {n for n in range(10) if Part(1, 2).holds(f"old-{n}") and Part(2, 2).holds(f"new-{n}")}
    assert broken
    for n in broken:
        (tmp_path / f"pictures/{n}.png").write_bytes(b"no picture")
    assert [done(*job, "--prune", "--part", f"{number}/2", code=number - 1)["indexed"] for number in (1, 2)] != [0, 0]
    with open_store(tmp_path / "s.store", read_only=True) as store:
        assert {item.id for item in store.scan()} == {f"old-{n}" if n in broken else f"new-{n}" for n in range(20)}


def test_a_part_reads_the_records_of_its_own_bins_only(tmp_path: Path, done: Done) -> None:
    files = bins.bins({f"{n:05}": {"B1": 1} for n in range(12)})
    others = [name for name in files if name.startswith("metadata/") and not Part(1, 2).holds(image_of(name))]
    assert 0 < len(others) < 12
    bins.write(tmp_path / "abid", files | dict.fromkeys(others, b"not JSON"))
    report = done("run", f"abid:{tmp_path / 'abid'}", "--store", tmp_path / "s.store", "--model", MODEL, "--part", "1/2")
    assert (report["indexed"], report["refused"]) == (12 - len(others), [])


def image_of(name: str) -> str:
    return f"bin-images/{Path(name).stem}.jpg"
