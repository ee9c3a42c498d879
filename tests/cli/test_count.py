"""`binsight count`: what it prints and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from binsight.checkpoint import Heads
from binsight.cli import run as binsight
from binsight.cli.count import count
from binsight.counting import Calibration
from binsight.encoder import load_encoder
from binsight.errors import BadSettings, UnknownModel
from tests.model_folders import make_binsight_folder


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(count)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BINSIGHT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("BINSIGHT_DEVICE", "cpu")
        patch.setenv("BINSIGHT_BATCH_SIZE", "2")
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    opened, _ = make_binsight_folder(tmp_path_factory.mktemp("models") / "m", Heads(count=Calibration("softmax", 5)))
    return opened.folder


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{number}.png" for number in range(5)]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((80, 70), Image.Resampling.BICUBIC).save(file)
    return files


def test_each_picture_has_its_count_as_json_in_the_order_given(model: Path, photos: list[Path]) -> None:
    result = run(*photos, "--model", model, "--json")
    assert result.return_value == 0, result.output
    rows = json.loads(result.stdout)
    encoder = load_encoder(str(model), device="cpu")
    for path, row in zip(photos, rows, strict=True):
        wanted = (encoder.encode([path]).counts or [])[0]
        assert list(row) == ["path", "value", "expected", "probabilities", "more", "low", "high"]
        assert (row["path"], row["value"]) == (str(path), wanted.value)
        assert row["expected"] == pytest.approx(wanted.expected, abs=0.02)
        assert row["probabilities"] == pytest.approx(wanted.probabilities, abs=0.02)
        assert sum(row["probabilities"]) + row["more"] == pytest.approx(1, abs=1e-5)
        assert row["low"] <= row["value"] <= row["high"]


def test_a_model_that_is_loaded_for_the_first_time_says_why_it_takes_a_while(
    model: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BINSIGHT_CACHE", str(tmp_path / "cache"))
    for is_first in (True, False):
        assert binsight(["count", str(photos[0]), "--model", str(model), "--json"]) == 0
        out, err = capfd.readouterr()
        assert ("is prepared for this CPU, which is done once and takes a while\n" in err) is is_first
        assert len(json.loads(out)) == 1


def test_a_picture_that_is_refused_is_named_and_does_not_stop_the_others(model: Path, photos: list[Path]) -> None:
    photos[1].write_text("no picture")
    missing = photos[0].with_name("none.png")
    result = run(*photos, missing, "--model", model, "--json")
    assert result.return_value == 1
    rows = json.loads(result.stdout)
    assert [row["path"] for row in rows] == [*map(str, photos), str(missing)]
    assert [sorted(row) == ["error", "path"] for row in rows] == [False, True, False, False, False, True]
    assert f"refused: {photos[1]}: " in result.stderr


def test_people_get_a_table(model: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos[0].parent)
    result = run("0.png", "1.png", "--model", model)
    assert result.return_value == 0
    head, *lines = result.stdout.splitlines()
    assert head.split() == ["path", "count", "sure", "expected", "interval"]
    assert [line.split()[0] for line in lines] == ["0.png", "1.png"]


def test_a_search_counts_too_in_the_words_of_count(
    model: Path, photos: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "s.store")
    assert binsight(["index", *map(str, photos), "--store", store, "--model", str(model), "--json"]) == 0
    row = json.loads(run(photos[2], "--model", model, "--json").stdout)[0]
    capfd.readouterr()
    assert binsight(["search", str(photos[2]), "--store", store, "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["matches"][0]["id"] == "2.png"
    assert {"path": str(photos[2])} | document["count"] == row
    assert binsight(["search", str(photos[2]), "--store", store]) == 0
    said = capfd.readouterr().out.splitlines()
    assert said[0] == f"items in the picture: {row['value']} ({interval_of(model, photos[2])})"
    assert said[1].split() == ["#", "score", "id", "record"]


def interval_of(model: Path, photo: Path) -> str:
    return run(photo, "--model", model).stdout.splitlines()[1].split(maxsplit=4)[-1]


def test_a_model_without_a_count_head_is_wrong_use(photos: list[Path]) -> None:
    with pytest.raises(BadSettings, match="the model binsight:colour-layout has no count head; train one with") as caught:
        raise run(photos[0], "--model", "binsight:colour-layout").exception or AssertionError
    assert caught.value.exit_code == 2
    with pytest.raises(UnknownModel):
        raise run(photos[0], "--model", "no/where").exception or AssertionError
