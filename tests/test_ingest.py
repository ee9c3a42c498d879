"""Pictures into a store: what is indexed, skipped, refused, replaced and pruned."""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from binsight.data.manifest import typed
from binsight.data.source import Refusal
from binsight.encoder import Encoder
from binsight.errors import BadSettings, BadSource, ModelMismatch
from binsight.ingest import IngestReport, ingest, list_sources
from binsight.records import Item
from binsight.store import VectorStore, open_store
from tests.fakes import by_hand, mean_colour_encoder, paint

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


@pytest.fixture
def encoder() -> Encoder:
    return mean_colour_encoder()


@pytest.fixture
def store(encoder: Encoder) -> VectorStore:
    return open_store("exact:", create=encoder.info)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Three pictures in two class folders."""
    paint(tmp_path / "parts/ram/a.png", RED)
    paint(tmp_path / "parts/ram/b.png", GREEN)
    paint(tmp_path / "parts/cpu/c.png", BLUE)
    return tmp_path / "parts"


def load(source: Path | str, encoder: Encoder, store: VectorStore, *, prune: bool = False, **options: object) -> IngestReport:
    listings = list_sources([str(source)], **options)  # type: ignore[arg-type]
    return ingest(listings, encoder, store, prune=prune, batch_size=2)


def figures(report: IngestReport) -> tuple[int, int, int, int, int]:
    return report.indexed, report.unchanged, report.pruned, report.skipped, len(report.refused)


def state(store: VectorStore) -> dict[str, tuple[str, list[float]]]:
    ids = sorted(item.id for item in store.scan())
    items, vectors = store.get(ids), store.vectors_of(ids)
    return {
        one: (json.dumps(item.metadata, sort_keys=True), row.tolist())
        for one, item, row in zip(ids, items, vectors, strict=True)
        if item
    }


def test_a_folder_becomes_items_named_by_path_with_the_parent_as_label(
    parts: Path, encoder: Encoder, store: VectorStore
) -> None:
    assert figures(load(parts, encoder, store)) == (3, 0, 0, 0, 0)
    (item,) = store.get(["ram/a.png"])
    assert item is not None
    assert {name: item.metadata[name] for name in ("path", "label")} == {"path": "ram/a.png", "label": "ram"}
    source = item.metadata["_source"]
    assert set(source) == {"root", "uri", "size", "mtime_ns", "sha256"}
    assert (source["root"], source["uri"]) == (str(parts), "ram/a.png")
    np.testing.assert_allclose(store.vectors_of(["ram/a.png"])[0], by_hand(RED), atol=1e-6)


def test_unchanged_files_are_not_read_again(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    load(parts, encoder, store)
    (parts / "ram/a.png").chmod(0o000)
    assert figures(load(parts, encoder, store)) == (0, 3, 0, 0, 0)
    assert encoder._runtime.pictures == 3  # type: ignore[attr-defined]


def test_a_changed_file_replaces_its_item(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    load(parts, encoder, store)
    paint(parts / "ram/a.png", BLUE, size=(20, 20))
    assert figures(load(parts, encoder, store)) == (1, 2, 0, 0, 0)
    assert len(store) == 3
    np.testing.assert_allclose(store.vectors_of(["ram/a.png"])[0], by_hand(BLUE), atol=1e-6)


def test_a_touched_file_of_the_same_content_is_not_encoded_again(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    load(parts, encoder, store)
    os.utime(parts / "ram/a.png", ns=(1, 1))
    assert figures(load(parts, encoder, store)) == (1, 2, 0, 0, 0)
    assert encoder._runtime.pictures == 3  # type: ignore[attr-defined]
    assert figures(load(parts, encoder, store)) == (0, 3, 0, 0, 0)


def test_files_of_other_types_are_skipped_and_bad_ones_refused_with_a_reason(
    parts: Path, encoder: Encoder, store: VectorStore
) -> None:
    (parts / "notes.txt").write_text("no picture")
    (parts / "no-ending").write_bytes((parts / "ram/a.png").read_bytes())
    (parts / "ram/text.jpg").write_text("no picture either")
    (parts / "ram/cut.png").write_bytes((parts / "ram/a.png").read_bytes()[:-20])
    report = load(parts, encoder, store)
    assert figures(report) == (4, 0, 0, 1, 2)
    assert [Path(refusal.path).name for refusal in report.refused] == ["cut.png", "text.jpg"]
    assert all(refusal.error for refusal in report.refused)
    assert sorted(item.id for item in store.scan()) == ["cpu/c.png", "no-ending", "ram/a.png", "ram/b.png"]


def test_links_out_of_the_root_are_not_followed(parts: Path, tmp_path: Path, encoder: Encoder, store: VectorStore) -> None:
    secret = paint(tmp_path / "elsewhere/secret.png", RED)
    (parts / "out.png").symlink_to(secret)
    (parts / "outside").symlink_to(secret.parent, target_is_directory=True)
    (parts / "loop").symlink_to(parts, target_is_directory=True)
    (parts / "inner.png").symlink_to(parts / "ram/a.png")
    (parts / "broken.png").symlink_to(parts / "nothing")
    os.mkfifo(parts / "pipe.png")
    assert figures(load(parts, encoder, store)) == (4, 0, 0, 5, 0)
    assert "inner.png" in {item.id for item in store.scan()}


def test_an_id_prefix_stands_before_every_id(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    load(parts, encoder, store, id_prefix="hall-2/")
    assert {item.id for item in store.scan()} == {"hall-2/ram/a.png", "hall-2/ram/b.png", "hall-2/cpu/c.png"}


def test_one_picture_is_a_source(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    assert figures(load(parts / "ram/a.png", encoder, store)) == (1, 0, 0, 0, 0)
    assert {item.id for item in store.scan()} == {"a.png"}


@pytest.mark.parametrize("name", ["nothing", "empty", "only-text"])
def test_a_source_without_a_picture_is_wrong_use(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "only-text").mkdir()
    (tmp_path / "only-text/a.txt").write_text("x")
    with pytest.raises(BadSource, match=name):
        list_sources([str(tmp_path / name)])


def test_two_inputs_with_one_id_are_both_named(parts: Path, tmp_path: Path) -> None:
    paint(tmp_path / "other/ram/a.png", RED)
    with pytest.raises(BadSource, match=r"parts/ram/a\.png and .*other/ram/a\.png"):
        list_sources([str(parts), str(tmp_path / "other")])


def test_a_source_given_twice_is_told_as_that(parts: Path) -> None:
    with pytest.raises(BadSource, match=r"\.png is named twice"):
        list_sources([str(parts), f"{parts}/./"])


def test_prune_deletes_what_is_gone_from_the_roots_being_indexed_only(
    parts: Path, tmp_path: Path, encoder: Encoder, store: VectorStore
) -> None:
    other = paint(tmp_path / "other/x.png", RED)
    load(parts, encoder, store)
    load(other.parent, encoder, store)
    (parts / "ram/a.png").unlink()
    other.unlink()
    paint(tmp_path / "other/y.png", RED)
    assert figures(load(parts, encoder, store)) == (0, 2, 0, 0, 0)
    assert figures(load(parts, encoder, store, prune=True)) == (0, 2, 1, 0, 0)
    assert {item.id for item in store.scan()} == {"ram/b.png", "cpu/c.png", "x.png"}


def test_prune_keeps_items_under_another_prefix_and_refuses_a_single_picture(
    parts: Path, encoder: Encoder, store: VectorStore
) -> None:
    load(parts, encoder, store, id_prefix="old/")
    assert figures(load(parts, encoder, store, prune=True)) == (3, 0, 0, 0, 0)
    assert len(store) == 6
    with pytest.raises(BadSource, match="single picture"):
        load(parts / "ram/a.png", encoder, store, prune=True)


def test_prune_refuses_a_root_that_is_gone(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    load(parts, encoder, store)
    for path in list(parts.rglob("*.png")):
        path.unlink()
    with pytest.raises(BadSource, match="no picture under"):
        load(parts, encoder, store, prune=True)
    assert len(store) == 3


def manifest(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_manifest_gives_ids_and_typed_fields(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    rows = [
        {"path": "ram/a.png", "id": "RAM-1", "quantity": "4", "sku": "007", "price": "1.5", "sold": "true", "note": ""},
        {"path": "cpu/c.png", "id": "", "quantity": "1e3", "sku": "x", "price": "1.50", "sold": "True", "note": "a,b"},
    ]
    assert figures(load(manifest(parts / "m.csv", rows), encoder, store)) == (2, 0, 0, 0, 0)
    (first, second) = store.get(["RAM-1", "cpu/c.png"])
    assert first is not None
    assert second is not None
    first.metadata.pop("_source")
    second.metadata.pop("_source")
    assert first.metadata == {"path": "ram/a.png", "quantity": 4, "sku": "007", "price": 1.5, "sold": True, "note": ""}
    assert second.metadata == {
        "path": "cpu/c.png", "quantity": "1e3", "sku": "x", "price": "1.50", "sold": "True", "note": "a,b"
    }  # fmt: skip


def test_blanks_around_the_names_of_columns_are_no_part_of_them(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    (parts / "m.csv").write_text("path, quantity ,\tnote\nram/a.png,4, as written \n")
    assert figures(load(parts / "m.csv", encoder, store)) == (1, 0, 0, 0, 0)
    (item,) = store.get(["ram/a.png"])
    assert item is not None
    item.metadata.pop("_source")
    assert item.metadata == {"path": "ram/a.png", "quantity": 4, "note": " as written "}
    (parts / "m.csv").write_text("path,x, x\nram/a.png,4,5\n")
    with pytest.raises(BadSource, match="the column 'x' stands twice"):
        load(parts / "m.csv", encoder, store)


def test_json_lines_keep_their_types_and_bad_lines_are_refused(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    lines = ['{"path": "ram/a.png", "tags": ["x", 1], "deep": {"a": null}}', "", "{not json", '["list"]', '{"id": "no path"}']
    (parts / "m.jsonl").write_text("\n".join(lines))
    report = load(parts / "m.jsonl", encoder, store)
    assert figures(report) == (1, 0, 0, 0, 3)
    assert [refusal.path.rsplit(":")[-1] for refusal in report.refused] == ["3", "4", "5"]
    (item,) = store.get(["ram/a.png"])
    assert item is not None
    assert (item.metadata["tags"], item.metadata["deep"]) == (["x", 1], {"a": None})


def test_a_manifest_may_not_leave_its_root(parts: Path, tmp_path: Path, encoder: Encoder, store: VectorStore) -> None:
    paint(tmp_path / "secret.png", RED)
    (parts / "ram/link.png").symlink_to(tmp_path / "secret.png")
    paths = ["../secret.png", str(tmp_path / "secret.png"), "ram/../../secret.png", "ram/link.png", "ram/a.png", "ram/none.png"]
    report = load(manifest(parts / "m.csv", [{"path": path} for path in paths]), encoder, store)
    assert figures(report) == (1, 0, 0, 0, 5)
    assert sum("leaves the root" in refusal.error for refusal in report.refused) == 4
    assert figures(load(parts / "m.csv", encoder, store, root=tmp_path))[4] == 5  # other paths now, none of them outside


def test_wide_headers_and_deep_paths_cost_no_more_than_their_bytes(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    """16,000 columns took 10 s, and a path of 128,000 signs 2 s: four times that for twice as many."""
    names = ",".join(f"c{number}" for number in range(16_000))
    (parts / "m.csv").write_text(f"path,{names}\nram/a.png\n{'a/' * 60_000}b.png\n")
    started = time.process_time()
    report = load(parts / "m.csv", encoder, store)
    assert time.process_time() - started < 1
    assert figures(report) == (1, 0, 0, 0, 1)
    assert "is too deep" in report.refused[0].error


@pytest.mark.parametrize(
    "row",
    [
        "{not json",
        '{"path": "cpu/c.png", "id": 7}',
        '["cpu/c.png"]',
        '{"path": 5}',
        '{"path": "\\ud83d.png"}',
        '{"path": "../c"}',
    ],
)
def test_a_refused_row_never_costs_its_item_when_pruning(parts: Path, encoder: Encoder, store: VectorStore, row: str) -> None:
    file = parts / "m.jsonl"
    file.write_text('{"path": "ram/a.png"}\n{"path": "cpu/c.png", "id": "C"}\n{"path": "ram/b.png"}\n')
    load(file, encoder, store, prune=True)
    (parts / "ram/b.png").unlink()
    file.write_text('{"path": "ram/a.png"}\n' + row + "\n")
    assert figures(load(file, encoder, store, prune=True)) == (0, 1, 1, 0, 1)
    assert {item.id for item in store.scan()} == {"ram/a.png", "C"}


def test_a_row_whose_file_is_away_is_refused_and_keeps_its_own_item_only(
    parts: Path, encoder: Encoder, store: VectorStore
) -> None:
    file = parts / "m.jsonl"
    file.write_text("".join(json.dumps({"path": path}) + "\n" for path in ("ram/a.png", "cpu/c.png", "ram/b.png")))
    load(file, encoder, store)
    (parts / "ram/b.png").unlink()
    file.write_text('{"path": "ram/a.png"}\n{"path": "ram/b.png"}\n')
    report = load(file, encoder, store, prune=True)
    assert figures(report) == (0, 1, 1, 0, 1)
    assert report.refused[0].error.endswith("m.jsonl:2 names it")
    assert {item.id for item in store.scan()} == {"ram/a.png", "ram/b.png"}
    file.write_text('{"path": "ram/a.png"}\n')
    assert figures(load(file, encoder, store, prune=True)) == (0, 1, 1, 0, 0)


def test_a_row_of_a_metadata_file_whose_picture_is_away_keeps_its_item(
    parts: Path, encoder: Encoder, store: VectorStore
) -> None:
    file = manifest(parts.parent / "m.csv", [{"path": "ram/a.png", "id": "A"}, {"path": "ram/b.png", "id": "B"}])
    load(parts, encoder, store, metadata=file, root=parts)
    (parts / "ram/a.png").unlink()
    (parts / "cpu/c.png").rename(parts / "cpu/d.png")
    assert figures(load(parts, encoder, store, metadata=file, root=parts, prune=True)) == (1, 1, 1, 0, 1)
    assert {item.id for item in store.scan()} == {"A", "B", "cpu/d.png"}


def test_two_manifests_in_one_folder_never_prune_each_others_items(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    rows = [{"path": "ram/a.png", "id": "A"}, {"path": "ram/b.png", "id": "B"}]
    one, two = manifest(parts / "one.csv", rows), manifest(parts / "two.csv", [{"path": "cpu/c.png", "id": "C"}])
    assert figures(load(one, encoder, store, prune=True)) == (2, 0, 0, 0, 0)
    for file, unchanged, others in ((two, 0, 2), (one, 2, 1), (two, 1, 2)):
        report = load(file, encoder, store, prune=True)
        assert figures(report) == (1 - min(unchanged, 1), unchanged, 0, 0, 0)
        (note,) = report.notes
        other = one if file == two else two
        assert note.error == f"{others} items stay: they were indexed from the manifest {other}, which was not given"
    manifest(one, rows[:1])
    assert figures(load(one, encoder, store, prune=True)) == (0, 1, 1, 0, 0)
    assert {item.id for item in store.scan()} == {"A", "C"}


def test_a_picture_belongs_to_the_manifest_that_named_it_last(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    rows = [{"path": "ram/a.png", "id": "A"}, {"path": "ram/b.png", "id": "B"}]
    one, two = manifest(parts / "one.csv", rows), manifest(parts / "two.csv", rows[1:])
    load(one, encoder, store)
    vectors = store.vectors_of(["B"]).tolist()
    assert figures(load(two, encoder, store)) == (1, 0, 0, 0, 0)  # its row is the same, but it stands in another file
    assert store.vectors_of(["B"]).tolist() == vectors
    manifest(one, rows[:1])
    assert figures(load(one, encoder, store, prune=True)) == (0, 1, 0, 0, 0)
    assert {item.id for item in store.scan()} == {"A", "B"}


def test_a_folder_and_a_manifest_in_it_never_prune_each_others_items(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    file = manifest(parts / "m.csv", [{"path": "ram/a.png", "id": "A"}])
    load(file, encoder, store)
    assert figures(load(parts, encoder, store, prune=True)) == (3, 0, 0, 1, 0)
    report = load(file, encoder, store, prune=True)
    assert figures(report) == (0, 1, 0, 0, 0)
    assert [note.error[:58] for note in report.notes] == ["3 items stay: they were indexed without a manifest, from t"]
    assert len(store) == 4


def test_a_picture_that_is_refused_keeps_its_old_item_when_pruning(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    file = parts / "m.jsonl"
    file.write_text('{"path": "ram/a.png", "id": "A"}\n{"path": "ram/b.png", "id": "B"}\n{"path": "cpu/c.png", "id": "C"}\n')
    load(file, encoder, store)
    (parts / "ram/b.png").write_text("no picture any more")
    file.write_text(
        '{"path": "ram/a.png", "id": "bad\\nid"}\n{"path": "ram/b.png", "id": "B2"}\n{"path": "cpu/c.png", "id": "C"}\n'
    )
    assert figures(load(file, encoder, store, prune=True)) == (0, 1, 0, 0, 2)
    assert {item.id for item in store.scan()} == {"A", "B", "C"}


def test_what_the_system_refuses_to_look_at_is_not_gone_when_pruning(encoder: Encoder, store: VectorStore) -> None:
    """Neither pictures in a folder that may be listed and not entered, nor one without an ending that may not be opened."""
    with TemporaryDirectory() as name:  # anybody may go there, as the other folders of tests do not let them
        folder = Path(name)
        folder.chmod(0o755)
        for picture in ("a.png", "shut/b.png", "c.png"):
            paint(folder / picture, RED)
        (folder / "c.png").rename(folder / "c")
        load(folder, encoder, store)
        (folder / "shut").chmod(0o644)
        (folder / "c").chmod(0o200)
        user = os.geteuid()
        if user == 0:  # root may look at everything
            os.seteuid(65534)
        try:
            report = load(folder, encoder, store, prune=True)
        finally:
            os.seteuid(user)
            (folder / "shut").chmod(0o755)
    assert figures(report) == (0, 1, 0, 1, 1)
    assert report.refused == [Refusal(str(folder / "shut/b.png"), "cannot be read: Permission denied")]
    assert {item.id for item in store.scan()} == {"a.png", "shut/b.png", "c"}


def test_a_lost_row_of_a_metadata_file_keeps_the_item_under_its_id(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    file = parts.parent / "m.jsonl"
    file.write_text('{"path": "ram/a.png", "id": "A"}\n{"path": "ram/b.png", "id": "B"}\n')
    load(parts, encoder, store, metadata=file, root=parts)
    file.write_text('{"path": "ram/a.png", "id": "A2"}\n{"path": "ram/b.png" "id": "B"}\n')
    assert figures(load(parts, encoder, store, metadata=file, root=parts, prune=True)) == (2, 1, 1, 0, 1)
    assert {item.id for item in store.scan()} == {"A2", "B", "ram/b.png", "cpu/c.png"}


def test_a_row_with_a_new_id_leaves_no_item_under_the_old_one_when_pruning(
    parts: Path, encoder: Encoder, store: VectorStore
) -> None:
    for before, after in (("ram/a.png", "A"), ("A", "B"), ("B", "ram/a.png")):
        load(manifest(parts / "m.csv", [{"path": "ram/a.png", "id": before}]), encoder, store)
        report = load(manifest(parts / "m.csv", [{"path": "ram/a.png", "id": after}]), encoder, store, prune=True)
        assert (report.indexed, report.pruned) == (1, 1)
        assert {item.id for item in store.scan()} == {after}


def test_pruning_passes_over_items_that_were_not_ingested(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    load(parts, encoder, store)
    odd = [Item(str(n), {"_source": source}) for n, source in enumerate(("text", None, {"root": [1]}, {"root": str(parts)}))]
    store.upsert(odd[:3], store.vectors_of(["ram/a.png"] * 3))
    assert figures(load(parts, encoder, store, prune=True)) == (0, 3, 0, 0, 0)
    assert len(store) == 6


@pytest.mark.parametrize(
    ("before", "after"), [("1", "true"), ("0", "false"), ("1", "1.0"), ("[1]", "[true]"), ('{"a": 0}', '{"a": 0.0}')]
)
def test_fields_that_are_equal_in_python_but_not_in_json_have_changed(
    parts: Path, encoder: Encoder, store: VectorStore, before: str, after: str
) -> None:
    for value, wanted in ((before, (1, 0)), (after, (1, 0)), (after, (0, 1))):
        (parts / "m.jsonl").write_text(f'{{"path": "ram/a.png", "x": {value}}}\n')
        report = load(parts / "m.jsonl", encoder, store)
        assert (report.indexed, report.unchanged) == wanted
    (item,) = store.get(["ram/a.png"])
    assert item is not None
    assert json.dumps(item.metadata["x"]) == after


def test_a_row_whose_path_no_file_can_have_is_refused(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    paths = ["x" * 300, "x/" * 3000, "\ud83d", "a\0b", "ram/a.png"]
    (parts / "m.jsonl").write_text("".join(json.dumps({"path": path}) + "\n" for path in paths))
    report = load(parts / "m.jsonl", encoder, store)
    assert figures(report) == (1, 0, 0, 0, 4)
    json.dumps(report.to_json(), ensure_ascii=False).encode()


def test_a_folder_too_deep_for_the_system_is_wrong_use(tmp_path: Path) -> None:
    top = tmp_path / "top"
    here = os.getcwd()  # noqa: PTH109
    top.mkdir()
    try:
        os.chdir(top)
        for _ in range(22):
            Path("d" * 200).mkdir()
            os.chdir("d" * 200)
        Path("a.png").write_bytes(b"")
    finally:
        os.chdir(here)
    with pytest.raises(BadSource, match="File name too long"):
        list_sources([str(top)])


def test_a_pipe_is_no_manifest_and_is_not_waited_for(parts: Path) -> None:
    os.mkfifo(parts / "m.csv")
    with pytest.raises(BadSource, match="regular file"):
        list_sources([str(parts)], metadata=parts / "m.csv")
    with pytest.raises(BadSource, match=r"m\.csv"):
        list_sources([str(parts / "m.csv")])


def test_a_manifest_with_a_cell_beyond_all_metadata_says_so(parts: Path) -> None:
    with pytest.raises(BadSource, match=r"m\.csv:2 has a cell of more than 131,072 characters"):
        list_sources([str(manifest(parts / "m.csv", [{"path": "ram/a.png", "note": "x" * 131_073}]))])


def test_names_that_are_no_utf_8_are_told_in_a_way_that_json_carries(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    raw = os.fsdecode(b"\xff.png")
    (parts / "ram" / raw).write_bytes(b"no picture")
    report = load(parts, encoder, store, metadata=manifest(parts / "m.csv", [{"path": "ram/a.png"}]))
    (parts / "m.jsonl").write_text(json.dumps({"path": f"ram/no{raw}"}))
    report_2 = load(parts / "m.jsonl", encoder, store)
    assert str(parts / "ram/\\udcff.png") in [one.path for one in report.refused]
    assert [one.path for one in report_2.refused] == [str(parts / "ram/no\\udcff.png")]
    json.dumps([report.to_json(), report_2.to_json()], ensure_ascii=False).encode()


def test_changed_fields_are_written_without_encoding_again(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    load(manifest(parts / "m.csv", [{"path": "ram/a.png", "quantity": "4"}]), encoder, store)
    before = store.vectors_of(["ram/a.png"])
    assert figures(load(manifest(parts / "m.csv", [{"path": "ram/a.png", "quantity": "5"}]), encoder, store)) == (1, 0, 0, 0, 0)
    (item,) = store.get(["ram/a.png"])
    assert item is not None
    assert item.metadata["quantity"] == 5
    np.testing.assert_array_equal(store.vectors_of(["ram/a.png"]), before)
    assert encoder._runtime.pictures == 1  # type: ignore[attr-defined]


def test_a_metadata_file_joins_a_folder_and_both_leftovers_are_listed(
    parts: Path, encoder: Encoder, store: VectorStore
) -> None:
    rows = [{"path": "ram/a.png", "price": "2"}, {"path": "ram/gone.png", "price": "3"}]
    report = load(parts, encoder, store, metadata=manifest(parts / "m.csv", rows))
    assert figures(report) == (3, 0, 0, 1, 1)  # m.csv itself is skipped
    assert report.refused[0].path.endswith("ram/gone.png")
    assert [Path(path).name for path in report.unlisted] == ["c.png", "b.png"]
    (item,) = store.get(["ram/a.png"])
    assert item is not None
    assert (item.metadata["label"], item.metadata["price"]) == ("ram", 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,price\na,1\n", "want a column 'path'"),
        ("path,price,price\na,1,1\n", "'price' stands twice"),
        ("path,_source\na,1\n", "'_source' is reserved"),
        ("", "want a column 'path'"),
        ("path\n", "has no rows"),
        ('path\n"open', "is not CSV"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_wrong_use(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(BadSource, match=message):
        list_sources([str(tmp_path / "m.csv")])


def test_only_numbers_that_round_trip_are_typed() -> None:
    numbers = {"0": 0, "-3": -3, "2.5": 2.5, "1.0": 1.0, "9007199254740992": 2**53}
    assert {text: typed(text) for text in numbers} == numbers
    for text in ("007", "+1", "1.50", "1e3", "NaN", "Infinity", "-0", " 1", "1_000", "0x1", "9007199254740993", "null", "TRUE"):
        assert typed(text) == text


def test_a_killed_job_goes_on_and_ends_as_an_undisturbed_one(parts: Path, tmp_path: Path, encoder: Encoder) -> None:
    for n in range(20):
        paint(parts / f"more/{n}.png", (n * 10, 255 - n, 7))

    class Interrupted(Exception):
        pass

    def stop(done: int, of: int) -> None:
        if done >= 9:
            raise Interrupted

    with open_store(tmp_path / "a.store", create=encoder.info) as store, pytest.raises(Interrupted):
        ingest(list_sources([str(parts)]), encoder, store, batch_size=2, progress=stop)
    with open_store(tmp_path / "a.store") as store:
        assert 8 <= len(store) < 23
        load(parts, encoder, store)
        resumed = state(store)
    with open_store(tmp_path / "b.store", create=encoder.info) as store:
        load(parts, encoder, store)
        assert resumed == state(store)


def test_another_model_is_refused_before_anything_is_read(parts: Path, store: VectorStore) -> None:
    with pytest.raises(ModelMismatch, match=f"{'e' * 64}.*{'f' * 64}"):
        load(parts, mean_colour_encoder("f" * 64), store)
    assert len(store) == 0


def test_an_odd_file_name_is_listed_not_fatal(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    raw = Path(os.fsdecode(os.fsencode(parts) + b"/ram/\xff.png"))
    raw.write_bytes((parts / "ram/a.png").read_bytes())
    paint(parts / "ram/new\nline.png", RED)
    report = load(parts, encoder, store)
    assert figures(report) == (3, 0, 0, 0, 2)
    assert all(refusal.path.isprintable() or "\n" in refusal.path for refusal in report.refused)


def test_bad_numbers_are_wrong_use(parts: Path, encoder: Encoder, store: VectorStore) -> None:
    with pytest.raises(BadSettings, match="batch_size"):
        ingest(list_sources([str(parts)]), encoder, store, batch_size=0)
