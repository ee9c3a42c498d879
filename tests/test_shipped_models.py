"""The models that the project ships: whole, small, licensed, and able to do what their cards say."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from binsight import errors
from binsight.checkpoint import open_folder
from binsight.data.labelled import open_labelled
from binsight.data.parts import catalogue
from binsight.data.splits import TEST, make_split
from binsight.data.warehouse import bin_photo, fill_bins
from binsight.encoder import load_encoder
from binsight.evaluation import Job, evaluate_counts, evaluate_retrieval
from tests.conftest import ROOT

MODELS = sorted(path.parent for path in (ROOT / "models").glob("*/config.json"))
LICENCES = {"bins-mobilenetv2": "CC BY-NC-SA 3.0", "drawn-bins": "Apache"}


def test_all_models_together_stay_small() -> None:
    files = [path for path in (ROOT / "models").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16_000_000
    assert MODELS


@pytest.mark.parametrize("folder", MODELS, ids=lambda path: path.name)
def test_a_model_is_whole_and_names_its_licence(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened = open_folder(folder)  # compares its fingerprint with its weights
    assert opened.heads is not None
    assert opened.heads.count is not None
    assert opened.heads.count.max_count >= 5
    licence = LICENCES[folder.name]
    assert licence in opened.licence
    assert licence in (folder / "LICENSE").read_text()
    card = (folder / "README.md").read_text()
    assert "Limits" in card
    assert "/work/" not in card + (folder / "config.json").read_text()
    with caplog.at_level(logging.WARNING):
        load_encoder(str(folder))
    assert ("are under the licence CC BY-NC-SA 3.0" in caplog.text) is ("-NC-" in opened.licence)


def test_the_drawn_one_counts_and_finds_bins_that_it_has_not_seen() -> None:
    seen = fill_bins(catalogue(0), 30, seed=7)
    rng = np.random.default_rng(7)
    photos = [bin_photo(one, rng, size_px=96).image for one in (*seen, *seen)]
    found = load_encoder(str(ROOT / "models/drawn-bins")).encode(photos)
    true = np.array([one.count for one in (*seen, *seen)])
    expected = np.array([count.expected for count in found.counts or ()])
    assert np.sqrt(np.mean((expected - true) ** 2)) < 0.6 * true.std()
    assert np.mean((found.vectors[:30] @ found.vectors[30:].T).argmax(1) == np.arange(30)) > 0.9


@pytest.mark.real_data
def test_it_counts_better_than_any_constant_answer_and_still_knows_parts(data_folder: Path) -> None:
    """On half the test part of its own split, and on a quarter of the PC parts, of which it has seen none."""
    folder = ROOT / "models/bins-mobilenetv2"
    encoder = load_encoder(str(folder))
    bins = open_labelled(str(data_folder / "abid"))
    split = make_split(bins, fractions=(90, 5, 5), seed=1)
    training = json.loads((folder / "config.json").read_text())["training"]
    assert [one["split"]["sizes"] for one in (training["vectors"], *training["counts"])] == [split.sizes] * 3
    half = replace(split, rows=split.of(TEST)[::2])
    found = evaluate_counts(Job(encoder, bins, half)).report
    assert found["accuracy"] > found["constant"]["accuracy"] + 0.08
    assert found["rmse_mean"] < found["constant"]["rmse_mean"] - 0.3
    assert found["all"]["coverage"] >= 0.85
    assert not found["collapse"]["collapsed"]
    parts = open_labelled(str(data_folder / "pc_parts"))
    assert (
        evaluate_retrieval(Job(encoder, parts, make_split(parts, by="random", fractions=(75, 25)))).report["recall@1"] >= 0.65
    )


def test_a_model_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    config = json.loads((MODELS[0] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"format": "binsight-model-9"}))
    (tmp_path / "model.safetensors").write_bytes((MODELS[0] / "model.safetensors").read_bytes())
    with pytest.raises(errors.UnknownModel, match="binsight-model-9"):
        open_folder(tmp_path)
