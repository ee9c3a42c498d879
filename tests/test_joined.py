"""Two models in one: the vectors of the first, the counts of the second."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from binsight import network
from binsight.checkpoint import Heads, open_folder
from binsight.cli import run
from binsight.counting import Calibration
from binsight.encoder import load_encoder
from binsight.errors import BadSettings, UnknownModel
from binsight.model_folder import write_joined
from binsight.network import joined
from tests.model_folders import make_binsight_folder, make_model_folder

COUNTS = Heads(None, Calibration("softmax", 5, 1.5, 0.9, 0.8), ("board", "disk"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Vectors, counts, and the two joined."""
    folder = tmp_path_factory.mktemp("joined")
    first, _ = make_binsight_folder(folder / "vectors", Heads(16), seed=1)
    second, _ = make_binsight_folder(folder / "counts", COUNTS, seed=2)
    write_joined(folder / "both", first, second, licence="CC BY-NC-SA 3.0", licence_text="its text")
    return folder / "vectors", folder / "counts", folder / "both"


def test_vectors_are_the_firsts_and_counts_and_labels_the_seconds(models: tuple[Path, Path, Path]) -> None:
    vectors, counts, both = (load_encoder(str(folder), device="cpu", precision="fp32") for folder in models)
    shown = np.random.default_rng(0).integers(0, 256, (9, *both.preprocess.size, 3), dtype=np.uint8)
    said, first, second = both.encode_pixels(shown), vectors.encode_pixels(shown), counts.encode_pixels(shown)
    np.testing.assert_allclose(said.vectors, first.vectors, atol=2e-4)
    assert said.counts is not None
    assert second.counts is not None
    np.testing.assert_allclose([c.probabilities for c in said.counts], [c.probabilities for c in second.counts], atol=2e-3)
    assert [label[0][0] for label in said.labels or []] == [label[0][0] for label in second.labels or []]


def test_the_fingerprint_is_the_firsts_so_its_stores_stay_good(models: tuple[Path, Path, Path]) -> None:
    vectors, counts, both = (open_folder(folder) for folder in models)
    assert both.fingerprint == vectors.fingerprint
    assert len({vectors.identity, counts.identity, both.identity}) == 3


def test_a_changed_counter_is_noticed_though_it_changes_no_vector(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    state = load_file(models[2] / "model.safetensors")
    name = next(one for one in state if one.startswith("counter.") and state[one].is_floating_point())
    state[name] = state[name] + 1
    for file in models[2].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(UnknownModel, match="identity"):
        open_folder(tmp_path)


def test_cards_licence_and_training_of_both_are_kept(models: tuple[Path, Path, Path]) -> None:
    config = json.loads((models[2] / "config.json").read_text())
    assert config["heads"]["counter"] == {}
    assert config["licence"] == "CC BY-NC-SA 3.0"
    assert set(config["training"]) == {"vectors", "counts"}
    assert (models[2] / "LICENSE").read_text() == "its text"
    card = (models[2] / "README.md").read_text()
    for folder in models[:2]:
        assert (folder / "README.md").read_text().strip() in card


def test_models_that_do_not_fit_are_refused(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    vectors, counts = open_folder(models[0]), open_folder(models[1])
    with pytest.raises(BadSettings, match="neither a count nor a label head"):
        joined(counts, vectors)
    other = open_folder(make_model_folder(tmp_path / "other", architecture="test_resnet"))
    with pytest.raises(BadSettings, match="one architecture"):
        joined(other, counts)


def test_the_command_writes_the_folder(
    models: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m"
    code = run(["join", "--vectors", str(models[0]), "--counts", str(models[1]), "--out", str(out), "--json"])
    assert code == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"] == open_folder(models[0]).fingerprint
    assert isinstance(network.load(open_folder(out)).counter, torch.nn.Module)
