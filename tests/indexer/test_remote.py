"""Pictures of a bucket: read through the same door, tried again when a request fails, refused when one object cannot be had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import numpy as np
import pytest

from binsight.data import files
from binsight.data.files import open_files
from binsight.encoder import Encoder
from binsight.errors import BadSource, CannotBeDone
from binsight.ingest import IngestReport, ingest, list_sources
from binsight.reembed import reembed
from binsight.store import VectorStore, open_store
from tests import bins
from tests.fakes import by_hand, mean_colour_encoder
from tests.faulty_proxy import Fault, Faults, faulty_proxy
from tests.s3_server import BUCKET, lead_to, s3_bucket

COLOURS = {"hall/ram/a.jpg": (200, 0, 0), "hall/ram/b.jpg": (0, 200, 0), "hall/c.jpg": (0, 0, 200)}
FILES = {name: bins.photo(colour) for name, colour in COLOURS.items()} | {"hall/notes.txt": b"no picture"}
BINS = {f"abid/{name}": data for name, data in bins.bins({"00001": {"B1": 2}, "00002": {"B2": 1}}).items()}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_bucket(FILES | BINS) as address:
        yield address


@pytest.fixture(scope="module")
def proxy(server: str) -> Iterator[tuple[str, Faults]]:
    faults = Faults()
    with faulty_proxy(server, faults) as address:
        yield address, faults


@pytest.fixture
def faults(proxy: tuple[str, Faults], monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Faults of a proxy before the bucket, to which requests of this test go; attempts follow each other at once."""
    address, found = proxy
    found.wanted.clear()
    found.asked.clear()
    monkeypatch.setattr("binsight.data.retries.FIRST_PAUSE_S", 0.01)
    lead_to(address, monkeypatch)
    return found


@pytest.fixture
def encoder() -> Encoder:
    return mean_colour_encoder()


@pytest.fixture
def store(encoder: Encoder) -> VectorStore:
    return open_store("exact:", create=encoder.info)


def load(encoder: Encoder, store: VectorStore, source: str = f"s3://{BUCKET}/hall", *, prune: bool = False) -> IngestReport:
    return ingest(list_sources([source]), encoder, store, batch_size=2, prune=prune)


@contextmanager
def changed(address: str, key: str, data: bytes | None) -> Iterator[None]:
    """The bucket with an object changed, added or (None) taken away, while the block runs."""
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=address, **keys)

    def put(content: bytes | None) -> None:
        if content is None:
            client.delete_object(Bucket=BUCKET, Key=key)
        else:
            client.put_object(Bucket=BUCKET, Key=key, Body=content, ACL="public-read")

    put(data)
    yield
    put(FILES.get(key))
    client.close()


def photos_asked(faults: Faults) -> list[str]:
    return sorted(path.removeprefix(f"/{BUCKET}/") for path in faults.asked if path.endswith(".jpg"))


def test_objects_become_items_as_files_of_a_folder_do(faults: Faults, encoder: Encoder, store: VectorStore) -> None:
    report = load(encoder, store)
    assert (report.indexed, report.skipped, report.refused, report.retries) == (3, 1, [], 0)
    (a, c) = store.get(["ram/a.jpg", "c.jpg"])
    assert a is not None
    assert c is not None
    assert {name: a.metadata[name] for name in ("path", "label")} == {"path": "ram/a.jpg", "label": "ram"}
    assert c.metadata["label"] == "hall"
    source = a.metadata["_source"]
    assert set(source) == {"root", "uri", "size", "mtime_ns", "etag", "sha256"}
    assert (source["root"], source["uri"], source["size"]) == (f"s3://{BUCKET}/hall", "ram/a.jpg", len(FILES["hall/ram/a.jpg"]))
    np.testing.assert_allclose(store.vectors_of(["ram/a.jpg"])[0], by_hand(COLOURS["hall/ram/a.jpg"]), atol=0.02)  # JPEG


def test_unchanged_objects_are_not_asked_for_again(faults: Faults, server: str, encoder: Encoder, store: VectorStore) -> None:
    load(encoder, store)
    faults.asked.clear()
    with changed(server, "hall/c.jpg", bins.photo((9, 99, 199))):
        report = load(encoder, store)
    assert (report.indexed, report.unchanged) == (1, 2)
    assert photos_asked(faults) == ["hall/c.jpg"]


def test_items_of_objects_are_read_again_once_each(faults: Faults, server: str, encoder: Encoder, store: VectorStore) -> None:
    """An object that changed since it was indexed gives its new content, and is not read in every turn."""
    load(encoder, store)
    latter = mean_colour_encoder("b" * 64)
    target = open_store("exact:", create=latter.info)
    faults.asked.clear()
    with changed(server, "hall/c.jpg", bins.photo((9, 99, 199))):
        assert reembed(store, target, latter).indexed == 3
        assert reembed(store, target, latter).unchanged == 3
    assert photos_asked(faults)[:3] == ["hall/c.jpg", "hall/c.jpg", "hall/c.jpg"]  # read, and asked for in each later turn
    assert photos_asked(faults)[3:] == ["hall/ram/a.jpg", "hall/ram/b.jpg"]
    np.testing.assert_allclose(target.vectors_of(["c.jpg"])[0], by_hand((9, 99, 199)), atol=0.02)


def test_a_key_is_taken_as_it_is(faults: Faults, server: str, encoder: Encoder, store: VectorStore) -> None:
    with changed(server, "odd/a?versionId=7.jpg", FILES["hall/c.jpg"]), changed(server, "odd/b #%41+.jpg", FILES["hall/c.jpg"]):
        report = load(encoder, store, f"s3://{BUCKET}/odd")
        assert load(encoder, store, f"s3://{BUCKET}/odd").unchanged == 2
    assert report.refused == []
    assert sorted(item.id for item in store.scan()) == ["a?versionId=7.jpg", "b #%41+.jpg"]


def test_prune_deletes_the_items_of_objects_that_are_gone(
    faults: Faults, server: str, encoder: Encoder, store: VectorStore
) -> None:
    load(encoder, store)
    with changed(server, "hall/c.jpg", None):
        assert load(encoder, store, prune=True).pruned == 1
    assert {item.id for item in store.scan()} == {"ram/a.jpg", "ram/b.jpg"}


def test_an_object_that_cannot_be_asked_for_counts_as_there(faults: Faults) -> None:
    """Else pruning would take out its item."""
    files = open_files(f"s3://{BUCKET}/hall")
    assert files.holds("c.jpg")
    assert not files.holds("none.jpg")
    faults.wanted["hall/c.jpg"] = ("503", -1)
    assert files.stamp("c.jpg") is None
    assert files.holds("c.jpg")


@pytest.mark.parametrize(("fault", "least"), [("503", 2), ("cut", 2), ("reset", 1)])  # aiohttp tries a reset one once more
def test_a_request_that_fails_is_made_again_and_counted(
    faults: Faults, encoder: Encoder, store: VectorStore, fault: Fault, least: int
) -> None:
    faults.wanted = {"a.jpg": (fault, 2)}
    report = load(encoder, store)
    assert (report.indexed, report.refused) == (3, [])
    assert least <= report.retries <= 2
    assert photos_asked(faults).count("hall/ram/a.jpg") == 3


def test_a_source_that_times_out_is_asked_again(
    faults: Faults, encoder: Encoder, store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "READ_TIMEOUT_S", 0.5)
    faults.wanted, faults.hang_s = {"b.jpg": ("hang", 1)}, 1.5
    report = load(encoder, store)
    assert (report.indexed, report.refused, report.retries) == (3, [], 1)


def test_an_object_that_always_fails_is_refused_and_the_others_are_taken(
    faults: Faults, encoder: Encoder, store: VectorStore
) -> None:
    faults.wanted = {"a.jpg": ("503", -1)}
    report = load(encoder, store)
    assert (report.indexed, report.retries) == (2, 4)
    (refusal,) = report.refused
    assert refusal.path == f"s3://{BUCKET}/hall/ram/a.jpg"
    assert refusal.error.startswith("cannot be read: 5 attempts, the last: ")
    faults.wanted.clear()
    assert load(encoder, store).indexed == 1


def test_a_half_written_object_is_refused_as_a_damaged_picture(
    faults: Faults, server: str, encoder: Encoder, store: VectorStore
) -> None:
    with changed(server, "hall/half.jpg", FILES["hall/c.jpg"][:300]):
        report = load(encoder, store)
    assert report.indexed == 3
    assert [one.path for one in report.refused] == [f"s3://{BUCKET}/hall/half.jpg"]
    assert "truncated" in report.refused[0].error


def test_a_bucket_that_goes_away_ends_the_job_with_what_it_stored(
    faults: Faults, encoder: Encoder, store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings = list_sources([f"s3://{BUCKET}/hall"])
    faults.wanted = {"": ("reset", -1)}
    with pytest.raises(CannotBeDone, match=f"cannot read s3://{BUCKET}/hall"):
        ingest(listings, encoder, store)
    assert len(store) == 0


def test_a_prefix_without_pictures_is_wrong_use(faults: Faults) -> None:
    with pytest.raises(BadSource, match=r"no picture under s3://.*/none \(0 other objects\), or no such bucket"):
        list_sources([f"s3://{BUCKET}/none"])


def test_bins_of_a_bucket_have_their_records(faults: Faults, encoder: Encoder, store: VectorStore) -> None:
    report = load(encoder, store, f"abid:s3://{BUCKET}/abid")
    assert (report.indexed, report.refused) == (2, [])
    assert [item.id for item in store.scan('products has "B1" and quantity = 2')] == ["bin-images/00001.jpg"]
    assert load(encoder, store, f"abid:s3://{BUCKET}/abid").unchanged == 2


def test_bucket_and_folder_give_the_same_vectors(faults: Faults, tmp_path: Path, encoder: Encoder, store: VectorStore) -> None:
    load(encoder, store)
    local = open_store("exact:", create=encoder.info)
    load(encoder, local, str(bins.write(tmp_path, FILES) / "hall"))
    ids = sorted(item.id for item in store.scan())
    assert ids == sorted(item.id for item in local.scan())
    np.testing.assert_array_equal(store.vectors_of(ids), local.vectors_of(ids))
