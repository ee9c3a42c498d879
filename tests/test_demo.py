"""The demonstration: what it measures, what it writes, and what its command prints."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from binsight import cli, demo, open_store
from binsight.demo import DemoReport
from binsight.demo_training import Recipe
from binsight.encoder import load_encoder
from binsight.errors import BadSettings

TINY = Recipe(bins=12, part_views=2, epochs=1, bins_at_once=6, parts_at_once=4)


@dataclass(frozen=True)
class Run:
    """report: of a small demonstration. shown: of each of its drawings. text: what the command printed."""

    report: DemoReport
    shown: list[list[tuple[int, int]]]
    text: str


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The command, asked for little, over what is left of an earlier demonstration."""
    made: list[DemoReport] = []
    shown: list[list[tuple[int, int]]] = []
    run = demo.run

    def small(folder: Path, **asked: Any) -> DemoReport:
        @contextmanager
        def drawing() -> Iterator[Callable[[int, int], None]]:
            with asked["drawing"]() as show:

                def seen(done: int, total: int) -> None:
                    shown[-1].append((done, total))
                    show(done, total)

                shown.append([])
                yield seen

        recipe = replace(TINY, bins=asked["recipe"].bins, epochs=asked["recipe"].epochs)
        made.append(run(folder, bins=8, views=1, **asked | {"recipe": recipe, "drawing": drawing}))
        return made[0]

    folder = tmp_path_factory.mktemp("demo") / "out"
    for left in (demo._MARK, "notes.txt", "queries/old.jpg", "demo.store/CURRENT"):
        (folder / left).parent.mkdir(parents=True, exist_ok=True)
        (folder / left).touch()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        patch.setattr(demo, "run", small)
        assert cli.run(["demo", "--out", str(folder), "--training-bins", "12", "--epochs", "1"]) == 0
    return Run(made[0], shown, printed.getvalue())


@pytest.fixture
def report(done: Run) -> DemoReport:
    return done.report


def true_counts(report: DemoReport) -> dict[str, int]:
    with (report.folder / "queries/manifest.csv").open(newline="") as file:
        return {row["label"]: int(row["count"]) for row in csv.DictReader(file) if row["kind"] == "bin"}


def notes(report: DemoReport) -> list[tuple[int, int, int, float]]:
    """What the page says of each bin: how many it holds, how many were counted, and the interval."""
    found = re.findall(r"holds (\d+), counted (\d+) \((\d+)(?: to (\d+|more))?\)", report.page.read_text())
    return [(int(h), int(c), int(low), float("inf") if high == "more" else int(high or low)) for h, c, low, high in found]


def test_the_page_tells_each_bins_true_count_and_none_of_a_part(report: DemoReport) -> None:
    assert [held for held, *_ in notes(report)] == list(true_counts(report).values())


def test_accuracy_and_coverage_are_those_of_the_page(report: DemoReport) -> None:
    told = notes(report)
    assert report.count["accuracy"] == np.mean([held == counted for held, counted, _, _ in told])
    assert report.count["coverage"] == np.mean([low <= held <= high for held, _, low, high in told])


def test_the_constant_answer_is_the_best_one_for_these_bins(report: DemoReport) -> None:
    truth = list(true_counts(report).values())
    told = report.to_json()["count"]
    assert told["bins"] == 8
    assert told["constant"]["accuracy"] == max(Counter(truth).values()) / 8
    assert told["constant"]["rmse_mean"] == pytest.approx(np.std(truth), abs=1e-4)


def test_store_and_answers_are_the_trained_models(report: DemoReport) -> None:
    encoder = load_encoder(report.to_json()["model"])
    with open_store(str(report.store), read_only=True) as store:
        store.expect(encoder.info)
        assert store.info.items == report.indexed == 8 + len(list((report.folder / "warehouse/catalogue").iterdir()))


def test_a_seed_below_zero_and_an_empty_warehouse_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="seed of at least 0"):
        demo.run(tmp_path / "out", seed=-1)
    with pytest.raises(BadSettings, match="at least 1 bin and 1 view to index, got 0 and 3"):
        demo.run(tmp_path / "out", bins=0)
    assert not (tmp_path / "out").exists()


def test_how_much_is_drawn_is_shown_to_the_last_picture(done: Run) -> None:
    """The warehouse's pictures first, then the bins that are learned from, and to calibrate on."""
    pictures = len(list(done.report.folder.glob("*/**/*.jpg")))
    bins = TINY.bins + TINY.judged
    assert done.shown == [[(n, pictures) for n in range(1, pictures + 1)], done.shown[1]]
    assert done.shown[1][-1] == (bins, bins)
    assert done.shown[1] == sorted(set(done.shown[1]))
    assert len(done.shown[1]) > 5


def test_the_command_tells_counts_beside_the_constant_answer(done: Run) -> None:
    document = done.report.to_json()
    assert (document["training"]["bins"], document["training"]["epochs"], document["count"]["bins"]) == (12, 1, 8)
    count = document["count"]
    assert "has never seen a photo" in done.text
    assert f"counted    {count['accuracy']:.1%} of 8 bins" in done.text
    assert f"the best constant answer: {count['constant']['accuracy']:.1%}" in done.text
    assert f"RMSE of the mean {count['rmse_mean']:.2f} items" in done.text
    assert f"indexed    {document['indexed']} pictures, 1 of each part and bin, " in done.text
    assert f" search {document['a_bin']} --store " in done.text  # of a part, its count would mean nothing


def test_what_an_earlier_demonstration_left_is_gone_and_nothing_else(report: DemoReport) -> None:
    assert not (report.folder / "queries/old.jpg").exists()
    assert (report.folder / "notes.txt").exists()


def test_the_command_refuses_to_learn_from_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["demo", "--out", str(tmp_path / "out"), "--training-bins", "0"]) == 2
    assert "at least 1 training bin" in capfd.readouterr().err


@pytest.mark.torture
@pytest.mark.timeout(1200)
def test_a_whole_demonstration_finds_and_counts(tmp_path: Path) -> None:
    told = demo.run(tmp_path / "out").to_json()
    assert told["recall_at_1"]["all"] >= 0.95
    assert told["count"]["accuracy"] >= 1.5 * told["count"]["constant"]["accuracy"]
    assert told["count"]["rmse_mean"] <= 0.6 * told["count"]["constant"]["rmse_mean"]
