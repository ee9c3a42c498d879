"""The models that the project ships: whole, small, licensed, and able to do what their cards say."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from binsight import errors
from binsight.checkpoint import open_folder
from binsight.data.labelled import open_labelled
from binsight.data.splits import make_split
from binsight.encoder import load_encoder
from binsight.evaluation import Job, evaluate_counts, evaluate_retrieval
from tests.conftest import ROOT

MODELS = sorted(path.parent for path in (ROOT / "models").glob("*/config.json"))


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
    assert "CC BY-NC-SA 3.0" in opened.licence
    assert "CC BY-NC-SA 3.0" in (folder / "LICENSE").read_text()
    card = (folder / "README.md").read_text()
    assert "Limits" in card
    assert "/work/" not in card + (folder / "config.json").read_text()
    with caplog.at_level(logging.WARNING):
        load_encoder(str(folder))
    assert "CC BY-NC-SA 3.0" in caplog.text


@pytest.mark.real_data
@pytest.mark.parametrize("folder", MODELS, ids=lambda path: path.name)
def test_it_counts_better_than_any_constant_answer_and_still_knows_parts(folder: Path, data_folder: Path) -> None:
    """On the test part of its own split, and on a quarter of the PC parts, of which it has seen none."""
    encoder = load_encoder(str(folder))
    bins = open_labelled(str(data_folder / "abid"))
    split = make_split(bins, fractions=(90, 5, 5), seed=1)
    training = json.loads((folder / "config.json").read_text())["training"]
    assert [one["split"]["sizes"] for one in (training["vectors"], *training["counts"])] == [split.sizes] * 3
    found = evaluate_counts(Job(encoder, bins, split)).report
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
