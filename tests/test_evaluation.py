"""A model judged on labelled pictures: every figure worked out by hand, and what is written of it."""

from __future__ import annotations

import csv
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from binsight import evaluation_files
from binsight.data.labelled import open_labelled
from binsight.data.splits import Split, SplitRow
from binsight.errors import BadSettings, BadSource, CannotBeDone, MissingExtra
from binsight.evaluation import Job, Judged, evaluate_counts, evaluate_labels, evaluate_retrieval
from binsight.evaluation_tables import Table, count_tables, label_tables, markdown, retrieval_tables
from tests.bins import bins, write
from tests.count_fakes import ColourReader, count_folders, whole_split
from tests.fakes import paint
from tests.s3_server import BUCKET, lead_to, s3_bucket

SHOWN = {"1/a.png": 1, "2/a.png": 2, "2/b.png": 4, "5/a.png": 4}  # a folder says the truth, the picture shows the answer


def counted(tmp_path: Path, shown: dict[str, int] | None = None, **changes: object) -> Job:
    shown = SHOWN if shown is None else shown
    labelled = open_labelled(str(count_folders(tmp_path / "bins", shown)))
    return replace(Job(ColourReader(), labelled, whole_split(shown)), **changes)  # type: ignore[arg-type]  # a Job's fields


def named(tmp_path: Path) -> Job:
    """Two reds, of which one looks green, one green, and one yellow, which the reader does not know."""
    colours = {
        "red/a.png": (200, 20, 20),
        "red/b.png": (20, 200, 20),
        "green/a.png": (0, 250, 0),
        "yellow/a.png": (200, 199, 0),
    }
    for uri, colour in colours.items():
        paint(tmp_path / "parts" / uri, colour)
    return Job(ColourReader(), open_labelled(str(tmp_path / "parts")), whole_split(colours, counts=False))


def products(tmp_path: Path, *, with_val: bool = True) -> Job:
    """ABID bins: A in two reds, B in two greens, C alone in blue; the same colours again for validation."""
    holds = {"1": {"A": 1}, "2": {"A": 2}, "3": {"B": 1}, "4": {"B": 3}, "5": {"C": 1}}
    colours = {"1": (220, 0, 0), "2": (200, 30, 0), "3": (0, 220, 0), "4": (30, 200, 0), "5": (0, 0, 200)}
    held = holds | {"1" + stem: {"V" + name: n for name, n in of.items()} for stem, of in holds.items()}
    root = write(tmp_path / "abid", bins(held))
    for stem in held:
        Image.new("RGB", (16, 16), colours[stem[-1]]).save(root / f"bin-images/{stem}.jpg", quality=95)
    labelled = open_labelled(str(root))
    rows = tuple(
        SplitRow(one.uri, "val" if with_val and len(Path(one.uri).stem) > 1 else "test", one.products[0], one.count, None)
        for one in labelled.pictures
    )
    return Job(ColourReader(), labelled, Split(rows, "group", (50.0, 50.0), 0))


# Counts


def test_counts_are_measured_against_the_folders(tmp_path: Path) -> None:
    """Off by 0, 0, 2, 1; the mean is 0.2 above the answer, but 4 where 5 is answered with 0.2 gives 4.2."""
    report = evaluate_counts(counted(tmp_path)).report
    assert (report["n"], report["accuracy"], report["mae"], report["within_1"]) == (4, 0.5, 0.75, 0.75)
    assert report["rmse"] == pytest.approx(math.sqrt(5 / 4))
    assert report["rmse_mean"] == pytest.approx(math.sqrt((0.2**2 + 0.2**2 + 2.2**2 + 0.8**2) / 4), abs=1e-6)
    assert (report["coverage"], report["width"]) == (0.75, 1.0)
    assert report["per_class"]["2"]["accuracy"] == 0.5
    assert (report["constant"]["count"], report["constant"]["accuracy"]) == (2, 0.5)
    assert report["model"] == "colour-reader"
    assert report["split"]["name"] == "test"


def test_small_batches_and_one_worker_say_the_same(tmp_path: Path) -> None:
    job = counted(tmp_path)
    assert evaluate_counts(replace(job, batch_size=1, workers=1)).report == evaluate_counts(job).report


def test_progress_reaches_the_number_of_pictures(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    evaluate_counts(counted(tmp_path, batch_size=3, progress=lambda done, total: seen.append((done, total))))
    assert seen == [(3, 4), (4, 4)]


def test_a_model_without_a_count_head_is_named_with_the_heads_it_has(tmp_path: Path) -> None:
    with pytest.raises(BadSettings) as caught:
        evaluate_counts(counted(tmp_path, encoder=ColourReader(heads=["label"])))
    assert str(caught.value) == "colour-reader has no count head; it has: embedding, label; take a model trained with one"


def test_a_broken_picture_is_refused_and_the_others_are_judged(tmp_path: Path) -> None:
    job = counted(tmp_path)
    (tmp_path / "bins/2/b.png").write_bytes(b"no picture")
    judged = evaluate_counts(job)
    assert (judged.report["n"], judged.report["accuracy"]) == (3, pytest.approx(2 / 3))
    (refusal,) = judged.report["refused"]
    assert refusal["path"] == "2/b.png"
    assert [one.uri for one in judged.pictures] == ["1/a.png", "2/a.png", "5/a.png"]


def test_pictures_of_the_split_that_are_not_in_the_data_are_refused(tmp_path: Path) -> None:
    job = counted(tmp_path, split=whole_split([*SHOWN, "3/gone.png"]))
    judged = evaluate_counts(job)
    assert judged.report["refused"] == [{"path": "3/gone.png", "error": "the split names it, but the data do not hold it"}]
    assert judged.report["split"]["leak"] == {"group_share": 0, "product_share": 0, "sister_share": 0}  # of the others


def test_a_split_that_contradicts_the_data_is_refused_picture_by_picture(tmp_path: Path) -> None:
    job = counted(tmp_path)
    rows = tuple(replace(row, count=3) if row.path == "1/a.png" else row for row in job.split.rows)
    judged = evaluate_counts(replace(job, split=replace(job.split, rows=rows)))
    assert judged.report["refused"][0]["error"] == "the split says 3 items, the data say 1; make the split anew"
    assert judged.report["n"] == 3


def test_a_split_of_other_data_is_refused_as_a_whole(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match=r"no picture of 'test' in .* can be judged; the first is 9/x.png"):
        evaluate_counts(counted(tmp_path, split=whole_split(["9/x.png"])))


def test_data_without_counts_cannot_judge_counts(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="no known count"):
        evaluate_counts(named(tmp_path))


def test_no_readable_picture_at_all_is_said(tmp_path: Path) -> None:
    job = counted(tmp_path)
    for uri in SHOWN:
        (tmp_path / "bins" / uri).write_bytes(b"no picture")
    with pytest.raises(BadSource, match=r"none of 4 pictures can be read; the first is 1/a.png"):
        evaluate_counts(job)


def test_figures_leave_out_larger_counts_but_all_bins_hold_them(tmp_path: Path) -> None:
    report = evaluate_counts(counted(tmp_path, {**SHOWN, "8/a.png": 5})).report
    assert (report["n"], report["all"]["n"], report["all"]["beyond_max_count"]) == (4, 5, 1)


def test_the_range_of_the_figures_is_of_choice(tmp_path: Path) -> None:
    report = evaluate_counts(counted(tmp_path), up_to=2).report
    assert (report["n"], list(report["per_class"])) == (3, ["0", "1", "2"])
    with pytest.raises(BadSettings, match="want --up-to from 1 to 1000, got 0"):
        evaluate_counts(counted(tmp_path), up_to=0)


def test_a_model_that_always_answers_the_same_is_named(tmp_path: Path) -> None:
    shown = {f"{k % 5 + 1}/{k}.png": 3 for k in range(30)}
    collapse = evaluate_counts(counted(tmp_path, shown)).report["collapse"]
    assert (collapse["collapsed"], collapse["answer"], collapse["share"]) == (True, 3, 1.0)


# Labels


def test_labels_are_measured_against_the_folders(tmp_path: Path) -> None:
    """red/a is right, red/b looks green, green/a is right, yellow is unknown."""
    report = evaluate_labels(named(tmp_path)).report
    assert (report["n"], report["top_1"], report["top_5"], report["unknown"]) == (4, 0.5, 0.75, ["yellow"])
    assert report["per_class"]["red"] == {"n": 2, "top_1": 0.5}


def test_a_model_without_a_label_head_is_named_with_the_heads_it_has(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="colour-reader has no label head; it has: embedding, count"):
        evaluate_labels(replace(named(tmp_path), encoder=ColourReader(heads=["count"])))


# Retrieval


def test_bins_find_each_other_by_their_products(tmp_path: Path) -> None:
    """Four of five bins have a partner, which is the nearest by colour."""
    report = evaluate_retrieval(products(tmp_path)).report
    assert (report["relevance"], report["gallery"], report["queries"], report["recall@1"]) == ("product", 5, 4, 1.0)
    assert report["map@r"] == 1.0
    assert report["chance@1"] == 0.25
    assert report["by"]["product"]["scores"]["auc"] == 1.0
    assert report["per_class"]["2 items"] == {"queries": 1, "recall@1": 1.0, "recall@5": 1.0, "recall@10": 1.0, "map@r": 1.0}


def test_questions_for_products_are_answered_by_a_threshold_from_validation(tmp_path: Path) -> None:
    pairs = evaluate_retrieval(products(tmp_path)).report["pairs"]
    assert pairs["threshold_from"] == "val"
    assert (pairs["one_reference"]["questions"], pairs["one_reference"]["accuracy"]) == (8, 1.0)
    assert pairs["all_references"]["accuracy"] == 1.0


def test_without_validation_no_threshold_is_taken_from_what_it_judges(tmp_path: Path) -> None:
    assert evaluate_retrieval(products(tmp_path, with_val=False)).report["pairs"] is None


def test_a_gallery_adds_what_is_found_but_asks_nothing(tmp_path: Path) -> None:
    job = products(tmp_path)
    alone, judged = evaluate_retrieval(job), evaluate_retrieval(job, gallery=["val", "test", "val"])
    report, fixing = judged.report, len(job.split.of("val"))
    assert (report["n"], report["gallery"], report["gallery_parts"]) == (5, 5 + fixing, ["test", "val"])
    assert report["pairs"] == alone.report["pairs"]
    assert [one.uri for one in judged.pictures[5:]] == [row.path for row in job.split.of("val")]
    assert sum(of["queries"] for of in report["per_class"].values()) == report["queries"] <= 5
    assert "of 5 pictures among" in markdown(retrieval_tables(report))
    with written(judged, job, tmp_path / "out", "retrieval")["retrieval.csv"].open(newline="") as lines:
        assert [row["path"] for row in csv.DictReader(lines)] == [one.uri for one in judged.pictures[:5]]


def test_parts_find_each_other_by_their_class(tmp_path: Path) -> None:
    """red/a and red/b look different: each finds another class first. green and yellow have no partner."""
    report = evaluate_retrieval(named(tmp_path)).report
    assert (report["relevance"], report["queries"], report["recall@1"], report["recall@5"]) == ("label", 2, 0.0, 1.0)
    assert list(report["by"]) == ["label"]


def test_data_without_classes_and_products_cannot_judge_retrieval(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match=r"retrieval needs classes or products; .* \(counts\) has neither"):
        evaluate_retrieval(counted(tmp_path))


def test_bins_in_a_bucket_are_judged_and_shown_like_those_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = products(tmp_path, with_val=False)
    folder = tmp_path / "abid"
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with s3_bucket(files) as address:
        lead_to(address, monkeypatch)
        job = replace(local, labelled=open_labelled(f"s3://{BUCKET}"))
        far, near = evaluate_counts(job), evaluate_counts(local)
        page = written(far, job, tmp_path / "out", "count")["count-mistakes.html"].read_text()
    assert far.report | {"data": ""} == near.report | {"data": ""}
    assert far.report["data"] == f"s3://{BUCKET}"
    wrong = round(far.report["n"] * (1 - far.report["accuracy"]))
    assert page.count('src="data:image/jpeg;base64,') == wrong > 0


# What is written


def written(judged: Judged, job: Job, out: Path, kind: str) -> dict[str, Path]:
    writers = {
        "count": evaluation_files.write_counts,
        "labels": evaluation_files.write_labels,
        "retrieval": evaluation_files.write_retrieval,
    }
    files = writers[kind](judged, job.labelled, evaluation_files.prepare(out))
    return {file.name: file for file in files}


def test_counts_are_written_as_json_tables_answers_plots_and_pictures(tmp_path: Path) -> None:
    job = counted(tmp_path)
    judged = evaluate_counts(job)
    files = written(judged, job, tmp_path / "new/out", "count")
    assert json.loads(files["count.json"].read_text()) == judged.report
    assert "| accuracy (0–5) | 50.0% |" in files["count.md"].read_text()
    with files["count.csv"].open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert rows[3] == {
        "path": "5/a.png", "count": "5", "value": "4", "expected": "4.2000", "low": "4", "high": "5", "more": "0.0000",
    }  # fmt: skip
    for name in ("count-confusion.png", "count-classes.png", "count-calibration.png"):
        with Image.open(files[name]) as plot:
            assert plot.width > 300
            assert len(plot.convert("RGB").getcolors(1 << 20) or ()) > 10


def test_the_worst_counts_come_first_with_their_pictures(tmp_path: Path) -> None:
    job = counted(tmp_path)
    page = written(evaluate_counts(job), job, tmp_path / "out", "count")["count-mistakes.html"].read_text()
    assert page.count("<figure>") == 2
    assert page.count('src="data:image/jpeg;base64,') == 2
    assert page.index("holds 2") < page.index("answered 4 (mean 4.2)") < page.index("holds 5")
    assert "interval 4 … 5" in page


def test_a_hostile_file_name_stays_text(tmp_path: Path) -> None:
    job = counted(tmp_path, {"1/<script>alert(1)<!--.png": 3})
    page = written(evaluate_counts(job), job, tmp_path / "out", "count")["count-mistakes.html"].read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_picture_that_went_away_since_leaves_a_gap(tmp_path: Path) -> None:
    job = counted(tmp_path)
    judged = evaluate_counts(job)
    (tmp_path / "bins/2/b.png").unlink()
    page = written(judged, job, tmp_path / "out", "count")["count-mistakes.html"].read_text()
    assert page.count('<div class="gone">no picture</div>') == 1


def test_labels_are_written_too(tmp_path: Path) -> None:
    job = named(tmp_path)
    files = written(evaluate_labels(job), job, tmp_path / "out", "labels")
    assert {path.suffix for path in files.values()} == {".json", ".md", ".csv", ".png", ".html"}
    page = files["labels-mistakes.html"].read_text()
    assert page.index("is red") < page.index("is yellow")  # the more certain first
    assert "| red | 2 | 50.0% |" in files["labels.md"].read_text()


def test_searches_are_written_with_what_was_found_instead(tmp_path: Path) -> None:
    job = named(tmp_path)
    files = written(evaluate_retrieval(job), job, tmp_path / "out", "retrieval")
    page = files["retrieval-mistakes.html"].read_text()
    assert page.count('<figure class="query">') == 2
    assert page.count('<figure class="right">') == 2
    assert page.count('<figure class="wrong">') == 4
    with files["retrieval.csv"].open(newline="") as lines:
        ranks = {row["path"]: row["first_rank"] for row in csv.DictReader(lines)}
    assert ranks == {"green/a.png": "", "red/a.png": "2", "red/b.png": "3", "yellow/a.png": ""}


def test_no_mistakes_make_an_empty_page(tmp_path: Path) -> None:
    job = products(tmp_path)
    page = written(evaluate_retrieval(job), job, tmp_path / "out", "retrieval")["retrieval-mistakes.html"].read_text()
    assert "No queries." in page


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(BadSettings, match="want a folder for --out, got the file"):
        evaluation_files.prepare(tmp_path / "out")


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CannotBeDone, match=r"cannot write into .*: Not a directory; free space or take another --out"):
        evaluation_files.prepare(tmp_path / "file/out")


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"matplotlib is not installed; run: pip install 'binsight\[train\]'"):
        evaluation_files.prepare(tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Tables


def test_every_figure_stands_beside_the_constant_answer(tmp_path: Path) -> None:
    figures, per_class = count_tables(evaluate_counts(counted(tmp_path)).report)
    assert figures.columns == ("figure", "n = 4", "95% interval", "best constant")
    assert [row[1::2] for row in figures.rows[:2]] == [("50.0%", "50.0%"), ("1.118", "1.581")]
    assert per_class.rows[1] == ("1", "1", "100.0%", "0.000", "0.200")
    assert per_class.rows[3] == ("3", "0", "–", "–", "–")


def test_tables_of_labels_and_retrieval_are_those_of_the_report(tmp_path: Path) -> None:
    assert label_tables(evaluate_labels(named(tmp_path)).report)[0].rows[0][:2] == ("top-1", "50.0%")
    found, per_count, asked = retrieval_tables(evaluate_retrieval(products(tmp_path)).report)
    assert found.rows == (("shares a product", "4", "100.0%", "100.0%", "100.0%", "100.0%", "25.0%", "1.000"),)
    assert [row[:2] for row in per_count.rows] == [("1 item", "2"), ("2 items", "1"), ("3 items", "1")]
    assert asked.rows[0][:3] == ("one reference", "8", "100.0%")


def test_a_cell_cannot_break_out_of_a_markdown_table() -> None:
    text = markdown([Table(("class", "n"), (("a|b\n<b>", "1"),))])
    assert text == "| class | n |\n| --- | ---: |\n| a\\|b &lt;b> | 1 |\n"
