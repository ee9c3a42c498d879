"""`binsight evaluate` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from binsight.cli import run
from binsight.data.splits import SplitRow, write_split
from tests.count_fakes import ColourReader, count_folders, whole_split

SHOWN = {"1/a.png": 1, "2/a.png": 2, "2/b.png": 4, "5/a.png": 4}
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """--data and --split of four pictures in count folders."""
    count_folders(tmp_path / "bins", SHOWN)
    write_split(whole_split(SHOWN), tmp_path / "split.csv")
    return ["--data", str(tmp_path / "bins"), "--split", str(tmp_path / "split.csv")]


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """--model of the fake that reads colours."""
    monkeypatch.setattr("binsight.cli.evaluate.encoder_for", lambda model, settings: ColourReader())
    return ["--model", "colour-reader"]


def fails(arguments: list[str], capfd: Capture, *, code: int) -> str:
    """The one line that a failing command says."""
    capfd.readouterr()
    found = run(arguments)
    out, err = capfd.readouterr()
    assert (found, out) == (code, ""), err
    assert err.startswith("binsight: ")
    return err


def test_count_prints_one_json_document(data: list[str], reader: list[str], capfd: Capture) -> None:
    assert run(["evaluate", "count", *reader, *data, "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert (document["n"], document["accuracy"], document["mae"], document["within_1"]) == (4, 0.5, 0.75, 0.75)
    assert {"rmse", "rmse_mean", "per_class", "constant", "coverage", "width", "bootstrap", "ece"} <= document.keys()
    assert document["files"] == []


def test_count_prints_tables_for_people(data: list[str], reader: list[str], capfd: Capture) -> None:
    assert run(["evaluate", "count", *reader, *data]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split() == ["figure", "n", "=", "4", "95%", "interval", "best", "constant"]
    assert lines[1].split()[:3] == ["accuracy", "(0–5)", "50.0%"]


def test_out_holds_what_was_measured(data: list[str], reader: list[str], tmp_path: Path, capfd: Capture) -> None:
    assert run(["evaluate", "count", *reader, *data, "--out", str(tmp_path / "out"), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert sorted(document["files"]) == sorted(str(file) for file in (tmp_path / "out").iterdir())
    assert json.loads((tmp_path / "out/count.json").read_text())["accuracy"] == 0.5


def test_a_picture_that_cannot_be_read_is_named_and_the_exit_code_is_one(
    data: list[str], reader: list[str], tmp_path: Path, capfd: Capture
) -> None:
    (tmp_path / "bins/5/a.png").write_bytes(b"no picture")
    assert run(["evaluate", "count", *reader, *data, "--json"]) == 1
    out, err = capfd.readouterr()
    assert json.loads(out)["n"] == 3
    assert "refused: 5/a.png: " in err


def test_a_model_without_a_count_head_is_wrong_use(data: list[str], capfd: Capture) -> None:
    said = fails(["evaluate", "count", "--model", "binsight:colour-layout", *data], capfd, code=2)
    assert said == "binsight: binsight:colour-layout has no count head; it has: embedding; take a model trained with one\n"


def test_retrieval_by_a_real_model_finds_parts_of_one_colour(tmp_path: Path, capfd: Capture) -> None:
    from tests.fakes import paint

    colours = {"red": (210, 30, 20), "green": (20, 190, 40), "blue": (20, 40, 220)}
    uris = [f"{name}/{n}.png" for name in colours for n in range(2)]
    for uri in uris:
        paint(tmp_path / "parts" / uri, colours[uri.split("/")[0]], size=(64, 64))
    write_split(whole_split(uris, counts=False), tmp_path / "split.csv")
    data = ["--data", str(tmp_path / "parts"), "--split", str(tmp_path / "split.csv")]
    assert run(["evaluate", "retrieval", "--model", "binsight:colour-layout", *data, "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert (document["queries"], document["recall@1"], document["map@r"]) == (6, 1.0, 1.0)
    assert document["model"] == "binsight:colour-layout"
    assert run(["evaluate", "retrieval", "--model", "binsight:colour-layout", *data, "--gallery", "none"]) == 2
    assert "the split has no 'none' rows" in capfd.readouterr().err


def test_a_split_name_without_rows_is_wrong_use_before_a_model_is_loaded(data: list[str], capfd: Capture) -> None:
    said = fails(["evaluate", "count", "--model", "no/such", *data, "--split-name", "val"], capfd, code=2)
    assert "the split has no 'val' rows; it has test (4)" in said


def test_a_missing_split_is_wrong_use(data: list[str], tmp_path: Path, capfd: Capture) -> None:
    said = fails(["evaluate", "labels", "--model", "m", "--data", data[1], "--split", str(tmp_path / "no.csv")], capfd, code=2)
    assert "cannot read the split" in said


@pytest.mark.parametrize("gone", [(), ("3/gone.png",)])
def test_a_leaking_split_is_judged_with_a_warning(
    data: list[str], reader: list[str], tmp_path: Path, capfd: Capture, gone: tuple[str, ...]
) -> None:
    manifest = tmp_path / "bins/m.csv"
    manifest.write_text("path,count,products\n1/a.png,1,A\n2/a.png,2,A\n2/b.png,2,B\n5/a.png,5,C\n")
    rows = [
        SplitRow(uri, "train" if uri == "1/a.png" else "test", "A" if "a" in uri and uri[0] in "12" else uri, int(uri[0]), None)
        for uri in (*SHOWN, *gone)
    ]
    split = whole_split(SHOWN)
    write_split(type(split)(tuple(rows), "random", (25.0, 75.0), 0), tmp_path / "leaky.csv")
    arguments = ["evaluate", "count", *reader, "--data", str(manifest), "--split", str(tmp_path / "leaky.csv"), "--json"]
    assert run(arguments) == len(gone)
    out, err = capfd.readouterr()
    assert json.loads(out)["split"]["leak"]["product_share"] == pytest.approx(1 / 3)
    assert "warning: the split leaks: 33% of its val and test pictures share a product with train" in err


def test_a_collapsed_model_is_named(reader: list[str], tmp_path: Path, capfd: Capture) -> None:
    shown = {f"{k % 5 + 1}/{k}.png": 3 for k in range(30)}
    count_folders(tmp_path / "same", shown)
    write_split(whole_split(shown), tmp_path / "same.csv")
    assert run(["evaluate", "count", *reader, "--data", str(tmp_path / "same"), "--split", str(tmp_path / "same.csv")]) == 0
    said = capfd.readouterr().err
    assert "warning: the model has collapsed: it answers 3 for 100% of the pictures, true of 20%" in said


def test_counts_beyond_the_head_are_said(reader: list[str], tmp_path: Path, capfd: Capture) -> None:
    shown = {**SHOWN, "8/a.png": 5}
    count_folders(tmp_path / "many", shown)
    write_split(whole_split(shown), tmp_path / "many.csv")
    assert run(["evaluate", "count", *reader, "--data", str(tmp_path / "many"), "--split", str(tmp_path / "many.csv")]) == 0
    assert "warning: 1 pictures hold more than the 5 items that the model tells apart" in capfd.readouterr().err


def test_help_names_the_three_kinds(capfd: Capture) -> None:
    assert run(["evaluate", "--help"]) == 0
    said = capfd.readouterr().out
    assert all(word in said for word in ("count", "labels", "retrieval"))
