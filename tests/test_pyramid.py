"""The embedding of two scales: what it reads, what its head makes of it, and that it is saved and exported as it is."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from binsight import backbone, checkpoint, network
from binsight.checkpoint import Checkpoint, Heads, open_folder
from binsight.counting import Calibration
from binsight.encoder import load_encoder
from binsight.errors import BadSettings, UnknownModel
from binsight.model_folder import write_joined
from binsight.network import BinNet
from binsight.preprocess import Preprocess
from binsight.pyramid import COARSE_GRID, FINE_GRID, PyramidHead
from tests.model_folders import make_binsight_folder

HEADS = Heads(8, Calibration("softmax", 5, 1.5, 0.9, 0.8))
SIZE = 96  # feature maps of 12, 6 and 3 places a side
Written = tuple[Checkpoint, BinNet]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return make_binsight_folder(tmp_path_factory.mktemp("models") / "m", HEADS, size=SIZE, has_pyramid=True)


def pixels(n: int = 3) -> torch.Tensor:
    return network.example_pixels((SIZE, SIZE), n)


def cells(features: NDArray[np.float32], grid: int) -> NDArray[np.float32]:
    """Means over the grid's cells, one after the other; neighbours overlap where the map's side is no multiple."""
    n, _, side, _ = features.shape
    edges = [(side * place // grid, -(-side * (place + 1) // grid)) for place in range(grid)]
    found = [features[:, :, top:bottom, left:right].mean((2, 3)) for top, bottom in edges for left, right in edges]
    return np.stack(found, 1).reshape(n, -1)


def maps(net: BinNet) -> list[NDArray[np.float32]]:
    """Outputs of the blocks after which the side is an eighth and a sixteenth of the picture's, and of the last layer."""
    kept: dict[str, NDArray[np.float32]] = {}
    modules = {"8": net.backbone.blocks[2], "16": net.backbone.blocks[3], "last": net.backbone.bn2}  # type: ignore[index]
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: kept.update({name: out.numpy()}))  # type: ignore[union-attr]
        for name, module in modules.items()
    ]
    with torch.inference_mode():
        net.backbone(net.planes(pixels()))
    for hook in hooks:
        hook.remove()
    return [kept[name] for name in modules]


def test_the_cells_are_means_of_two_middle_levels_and_square_roots_of_the_last(written: Written) -> None:
    net = written[1]
    eighth, sixteenth, last = maps(net)
    assert (eighth.shape[2], sixteenth.shape[2], last.shape[2]) == (12, 6, 3)
    coarse = cells(last, COARSE_GRID)
    wanted = [last.mean((2, 3)), cells(eighth, FINE_GRID), cells(sixteenth, FINE_GRID), np.sign(coarse) * np.abs(coarse) ** 0.5]
    with torch.inference_mode():
        features = net.features(net.planes(pixels())).numpy()
    assert features.shape == (3, net.features_dim)
    np.testing.assert_allclose(features, np.concatenate(wanted, 1), atol=1e-5)


def test_both_halves_weigh_the_same_and_see_only_their_own_levels(written: Written) -> None:
    net = written[1]
    with torch.inference_mode():
        features = net.features(net.planes(pixels()))
        said = net.answers(features)["embedding"]
        features[:, -9 * net.pooled_dim :] = torch.rand(9 * net.pooled_dim)  # the coarse level's
        other = net.answers(features)["embedding"]
    np.testing.assert_allclose(said.norm(dim=1), 1, atol=1e-5)
    np.testing.assert_allclose(said[:, :4].norm(dim=1), 0.5**0.5, atol=1e-5)
    torch.testing.assert_close(said[:, :4], other[:, :4])
    assert float((said[:, 4:] - other[:, 4:]).abs().min()) > 0


def test_counts_are_of_the_pooled_features_alone(written: Written) -> None:
    net = written[1]
    state = net.state_dict()
    with torch.inference_mode():
        said = net(pixels())["count"]
        wanted = net.backbone(net.planes(pixels())) @ state["count.weight"].T + state["count.bias"]
    torch.testing.assert_close(said, wanted, rtol=1e-4, atol=1e-4)


def test_a_folder_is_read_again_and_exported_as_it_was(written: Written) -> None:
    opened = written[0]
    assert json.loads((opened.folder / "config.json").read_text())["pooling"] == "pyramid"
    assert open_folder(opened.folder) == opened
    shown = pixels(5).numpy()
    wanted = network.answers_of(network.load(opened), pixels(5))["embedding"]
    encoder = load_encoder(str(opened.folder), device="cpu")
    said = encoder.encode_pixels(shown)
    assert encoder.runtime.startswith("openvino")
    assert said.vectors.shape == (5, 8)
    assert float((said.vectors * wanted).sum(1).min()) > 0.999
    assert said.counts is not None


def test_without_its_pyramid_a_folder_is_refused(written: Written, tmp_path: Path) -> None:
    for pooling, message in (("default", "embedding"), ("heap", "pooling")):
        folder = tmp_path / pooling
        shutil.copytree(written[0].folder, folder)
        told = json.loads((folder / "config.json").read_text()) | {"pooling": pooling}
        (folder / "config.json").write_text(json.dumps(told))
        with pytest.raises(UnknownModel, match=message):
            load_encoder(str(folder), device="cpu")


def test_vectors_of_a_pyramid_are_joined_to_counts_of_another_model(written: Written, tmp_path: Path) -> None:
    counts, net = make_binsight_folder(tmp_path / "counts", Heads(None, HEADS.count), size=SIZE, seed=3)
    both = write_joined(tmp_path / "both", written[0], counts, licence="x")
    assert both.fingerprint == written[0].fingerprint
    said = network.answers_of(network.load(both), pixels())
    np.testing.assert_allclose(said["count"], network.answers_of(net, pixels())["count"], rtol=0.02, atol=0.02)
    first = network.answers_of(network.load(written[0]), pixels())["embedding"]
    np.testing.assert_allclose(said["embedding"], first, atol=1e-5)


def test_a_backbone_without_those_levels_says_so() -> None:
    for architecture in ("binsight_vit_tiny", "test_vit"):
        config = backbone.random_config(architecture, Preprocess(size=(SIZE, SIZE), mean=(0, 0, 0), std=(1, 1, 1)))
        with pytest.raises(BadSettings, match="--pooling mean"):
            network.build(replace(config, pooling=checkpoint.PYRAMID), {"embedding": 8})


def test_an_odd_dimension_cannot_be_halved(written: Written) -> None:
    assert written[1].pyramid is not None
    with pytest.raises(BadSettings, match="even"):
        PyramidHead(written[1].pyramid.levels, 7)
