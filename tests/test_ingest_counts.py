"""The model's count beside the record: in the same pass, filterable, never over a field that the source gave."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from binsight.data.part import Part
from binsight.encoder import Encoder
from binsight.errors import BadSettings, BadSource
from binsight.ingest import IngestReport, ingest, list_sources
from binsight.records import Metadata
from binsight.store import VectorStore, open_store
from tests.count_fakes import counting_encoder
from tests.fakes import mean_colour_encoder, paint


@pytest.fixture
def encoder() -> Encoder:
    return counting_encoder()


@pytest.fixture
def store(encoder: Encoder) -> VectorStore:
    return open_store("exact:", create=encoder.info)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Pictures that the model takes for 2 and 4 items."""
    paint(tmp_path / "shelf/two.png", (80, 9, 9))
    paint(tmp_path / "shelf/four.png", (160, 9, 9))
    return tmp_path / "shelf"


def load(source: Path, encoder: Encoder, store: VectorStore, count_field: str = "seen") -> IngestReport:
    return ingest(list_sources([str(source)]), encoder, store, count_field=count_field)


def metadata_of(store: VectorStore, one: str) -> Metadata:
    (item,) = store.get([one])
    assert item is not None
    return item.metadata


def passed(encoder: Encoder) -> int:
    """How many pictures have passed the model."""
    return encoder._runtime.pictures  # type: ignore[attr-defined,no-any-return]


def test_the_count_and_its_interval_are_stored_and_found(shelf: Path, encoder: Encoder, store: VectorStore) -> None:
    """By hand: 2 with probability 0.8, 3 with 0.2: the interval that holds 0.9 is 2 … 3, the mean 2.2."""
    load(shelf, encoder, store)
    found = metadata_of(store, "two.png")
    assert [found[name] for name in ("seen", "seen_low", "seen_high")] == [2, 2, 3]
    assert found["seen_expected"] == pytest.approx(2.2, abs=1e-3)
    assert [item.id for item in store.scan("seen_low >= 3")] == ["four.png"]
    assert passed(encoder) == 2


def test_counted_items_are_unchanged_and_uncounted_ones_are_counted_later(
    shelf: Path, encoder: Encoder, store: VectorStore
) -> None:
    load(shelf, encoder, store, "")
    assert "seen" not in metadata_of(store, "two.png")
    assert load(shelf, encoder, store).indexed == 2
    assert load(shelf, encoder, store).unchanged == 2
    assert passed(encoder) == 4
    assert load(shelf, encoder, store, "").unchanged == 2  # who asks for no count takes none away
    assert metadata_of(store, "two.png")["seen"] == 2


def test_another_name_for_the_count_replaces_the_old_one(shelf: Path, encoder: Encoder, store: VectorStore) -> None:
    load(shelf, encoder, store)
    assert load(shelf, encoder, store, "items").indexed == 2
    found = metadata_of(store, "two.png")
    assert found["items"] == 2
    assert "seen" not in found


def test_a_count_stays_when_only_the_record_changes_and_goes_with_the_picture(
    shelf: Path, encoder: Encoder, store: VectorStore
) -> None:
    load(shelf, encoder, store)
    (shelf / "m.jsonl").write_text('{"path": "two.png", "shelf": "A1"}\n')
    load(shelf / "m.jsonl", encoder, store, "")
    found = metadata_of(store, "two.png")
    assert (found["shelf"], found["seen"], passed(encoder)) == ("A1", 2, 2)
    assert load(shelf / "m.jsonl", encoder, store).unchanged == 1
    paint(shelf / "two.png", (120, 9, 9), size=(20, 20))
    load(shelf / "m.jsonl", encoder, store, "")
    assert "seen" not in metadata_of(store, "two.png")


def test_a_field_that_the_source_gives_is_never_the_models(shelf: Path, encoder: Encoder, store: VectorStore) -> None:
    (shelf / "m.jsonl").write_text('{"path": "two.png", "seen_low": "mine"}\n')
    with pytest.raises(BadSource, match=r"two\.png has a field 'seen_low' of its own.*choose another name for the count"):
        load(shelf / "m.jsonl", encoder, store)
    assert len(store) == 0
    (shelf / "m.jsonl").write_text('{"path": "two.png"}\n')
    load(shelf / "m.jsonl", encoder, store)
    (shelf / "m.jsonl").write_text('{"path": "two.png", "seen": "mine"}\n')
    load(shelf / "m.jsonl", encoder, store, "")
    found = metadata_of(store, "two.png")
    assert found["seen"] == "mine"
    assert "seen_low" not in found
    assert load(shelf / "m.jsonl", encoder, store, "").unchanged == 1


def test_a_model_that_does_not_count_is_told_so(shelf: Path) -> None:
    encoder = mean_colour_encoder()
    with pytest.raises(BadSettings, match="mean-colour does not count"):
        load(shelf, encoder, open_store("exact:", create=encoder.info))


def test_a_record_without_room_for_the_count_is_refused_and_the_others_go_on(
    shelf: Path, encoder: Encoder, store: VectorStore
) -> None:
    rows = [{"path": "two.png", "note": "x" * (64 * 1024 - 330)}, {"path": "four.png"}]
    (shelf / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = load(shelf / "m.jsonl", encoder, store)
    assert (report.indexed, [Path(one.path).name for one in report.refused]) == (1, ["two.png"])
    assert "at most 65536 bytes" in report.refused[0].error


def test_a_touched_file_keeps_its_count_without_passing_the_model(shelf: Path, encoder: Encoder, store: VectorStore) -> None:
    load(shelf, encoder, store)
    os.utime(shelf / "two.png", ns=(1, 1))
    assert load(shelf, encoder, store).indexed == 1
    assert (metadata_of(store, "two.png")["seen"], passed(encoder)) == (2, 2)


def test_a_part_of_a_job_takes_its_own_pictures_only(shelf: Path, encoder: Encoder, store: VectorStore) -> None:
    listings = list_sources([str(shelf)])
    reports = [ingest(listings, encoder, store, part=Part(number, 2)) for number in (1, 2)]
    assert sum(report.indexed for report in reports) == 2
    assert passed(encoder) == 2


@pytest.mark.parametrize("name", ["a b", "7up", "_source", "x" * 101, "naïve"])
def test_a_name_that_no_filter_can_say_is_wrong_use(shelf: Path, encoder: Encoder, store: VectorStore, name: str) -> None:
    with pytest.raises(BadSettings, match="want a name for the count"):
        load(shelf, encoder, store, name)
