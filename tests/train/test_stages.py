"""A backbone in two halves: they compute what the whole computes, the frozen one in float32."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

import binsight
from binsight import network
from binsight.checkpoint import open_folder
from binsight.errors import BadSettings, CannotBeDone
from binsight.network import BinNet
from binsight.preprocess import Preprocess
from binsight.train.config import TrainConfig
from binsight.train.module import BinModule
from binsight.train.place import BEST, LAST
from binsight.train.run import train
from binsight.train.stages import FrozenStages, cut
from tests.model_folders import MEAN, STD, make_model_folder
from tests.train.drawn import counted, settings

PLANES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))

PREPROCESS = Preprocess((32, 32), "squash", 1.0, MEAN, STD, "bicubic")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINSIGHT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return counted(tmp_path_factory.mktemp("counts"))


def netted(architecture: str, mode: str, **arguments: Any) -> BinNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = timm.create_model(architecture, pretrained=False, num_classes=0, **arguments)
        for module in backbone.modules():  # statistics that are not what fresh ones are
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 2.0)
        net = BinNet(backbone, sizes={"count": 7}, mean=MEAN, std=STD)
    network.set_frozen(net, mode)
    return net


def halved(architecture: str, mode: str) -> tuple[BinNet, FrozenStages]:
    net = netted(architecture, mode)
    found = cut(net.backbone, PLANES)
    assert found is not None
    return net, found


@pytest.mark.parametrize(("architecture", "mode", "shape"), [
    ("mobilenetv2_100", "stages:1", (32, 32, 32)), ("mobilenetv2_100", "stages:4", (32, 8, 8)),
    ("resnet10t", "stages:1", (64, 16, 16)),  # the stem with its pooling, which has no weights
    ("resnet10t", "stages:3", (128, 8, 8)), ("efficientnet_b0", "stages:3", (24, 16, 16)),
    ("convnext_atto", "stages:2", (40, 16, 16)),
])  # fmt: skip
def test_both_halves_after_each_other_are_the_whole(architecture: str, mode: str, shape: tuple[int, ...]) -> None:
    net, halves = halved(architecture, mode)
    net.eval()
    with torch.no_grad():
        maps = halves.maps(PLANES)
        assert maps.shape[1:] == shape
        torch.testing.assert_close(halves.features(maps), net.backbone(PLANES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("architecture", "mode", "arguments"), [
    ("mobilenetv2_100", "none", {}), ("mobilenetv2_100", "backbone", {}), ("mobilenetv2_100", "stages:8", {}),
    ("vit_tiny_patch16_224", "stages:3", {"img_size": 64}), ("binsight_vit_tiny", "stages:2", {}),
])  # fmt: skip
def test_what_cannot_be_parted_is_not(architecture: str, mode: str, arguments: dict[str, Any]) -> None:
    """A transformer's position embedding is added between its modules: the halves would compute something else."""
    net = netted(architecture, mode, **arguments)
    was = [module.training for module in net.modules()]
    assert cut(net.backbone, PLANES) is None
    assert [module.training for module in net.modules()] == was


def test_the_frozen_half_computes_in_float32_where_the_rest_does_not() -> None:
    net, halves = halved("mobilenetv2_100", "stages:4")
    net.eval()
    wanted = halves.maps(PLANES)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        maps = halves.maps(PLANES)
        features = halves.features(maps)
        whole = net.backbone(PLANES)
    assert maps.dtype == torch.float32
    assert torch.equal(maps, wanted)
    exact = net.backbone(PLANES).detach()
    assert features.dtype == torch.float32
    assert not torch.equal(features, exact)
    assert (features - exact).norm() < 0.9 * (whole.float() - exact).norm()


def test_only_what_learns_gets_gradients_and_the_backbone_is_whole_again() -> None:
    net, halves = halved("mobilenetv2_100", "stages:4")
    net.train()
    moved = {name for name, value in net.named_buffers() if name.endswith("running_mean")}
    before = {name: value.clone() for name, value in net.named_buffers()}
    net.answers(halves.features(halves.maps(PLANES)))["count"].sum().backward()  # type: ignore[no-untyped-call]  # torch's
    given = {name for name, value in net.named_parameters() if value.grad is not None}
    assert given == {name for name, value in net.named_parameters() if value.requires_grad}
    changed = {name for name in moved if not torch.equal(dict(net.named_buffers())[name], before[name])}
    learning = ("bn2", "blocks.3", "blocks.4", "blocks.5", "blocks.6")
    assert changed == {name for name in moved if name.removeprefix("backbone.").startswith(learning)}
    assert not any("forward" in vars(module) for module in net.modules())


def test_the_backbone_is_whole_again_after_an_error_in_its_learning_half() -> None:
    net, halves = halved("mobilenetv2_100", "stages:4")
    with pytest.raises(RuntimeError):
        halves.features(torch.zeros(2, 5, 8, 8))
    assert not any("forward" in vars(module) for module in net.modules())
    assert net.backbone(PLANES).shape == (4, 1280)


def test_a_copy_of_the_network_has_halves_of_its_own(counts: dict[str, Any], tmp_path: Path) -> None:
    """As averaging weights makes one: what the copy computes follows the copy's weights."""
    config = settings(counts, tmp_path / "m", backbone="resnet10t", freeze="stages:2")
    net = netted("resnet10t", "stages:2")
    module = BinModule(net, None, config)  # type: ignore[arg-type]  # no examples are looked at
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for value in twin.net.parameters():
            value.zero_()
    maps = torch.ones(2, 64, 8, 8)
    assert float(twin._of_maps(maps)["count"].detach().abs().max()) == 0.0
    assert float(module._of_maps(maps)["count"].detach().abs().max()) > 0.0


# ---- whole runs


def viewed(counts: dict[str, Any], tmp_path: Path, name: str, **others: Any) -> TrainConfig:
    start = tmp_path / "start"
    if not start.exists():
        make_model_folder(start, size=32)  # with batch norm
    values: dict[str, Any] = {"backbone": f"local-dir:{start}", "pretrained": True, "freeze": "stages:2", "views": 3}
    return settings(counts, tmp_path / name, **(values | others))


def kept_views(tmp_path: Path) -> tuple[Path, NDArray[np.float16]]:
    (file,) = (tmp_path / "cache" / "features").glob("*.npy")
    return file, np.load(file)


def test_views_are_maps_of_the_picture_and_of_augmented_ones(counts: dict[str, Any], tmp_path: Path) -> None:
    config = viewed(counts, tmp_path, "m", size=32)
    said: list[str] = []
    train(config, say=said.append)
    file, maps = kept_views(tmp_path)
    assert (str(maps.dtype), maps.shape[:2]) == ("float16", (24, 4))
    assert any(line.startswith("3 augmented views of each picture") and str(file) in line for line in said)
    opened = open_folder(tmp_path / "start")
    net = network.build(replace(opened.config, preprocess=PREPROCESS), {}, weights=opened).eval()
    network.set_frozen(net, "stages:2")
    halves = cut(net.backbone, torch.rand(2, 3, 32, 32))
    assert halves is not None
    pictures = sorted(Path(counts["data"]).parent.glob("*.png"))
    pixels = torch.from_numpy(np.stack([PREPROCESS.pixels(path.read_bytes()) for path in pictures]))
    wanted = halves.maps(net.planes(pixels)).numpy()
    np.testing.assert_allclose(maps[:, 0], wanted, rtol=2e-3, atol=2e-3)
    apart = np.abs(maps[:, :, None].astype(np.float32) - maps[:, None]).max((0, 3, 4, 5))
    assert (apart[~np.eye(4, dtype=bool)] > 0.1).all()  # four different pictures


def test_views_are_kept_for_other_runs_on_the_same_stages_and_pictures(counts: dict[str, Any], tmp_path: Path) -> None:
    first, again = viewed(counts, tmp_path, "m"), viewed(counts, tmp_path, "again")
    train(first)
    file, _ = kept_views(tmp_path)
    stamp = file.stat().st_mtime_ns
    said: list[str] = []
    train(again, say=said.append)
    assert file.stat().st_mtime_ns == stamp
    assert not any("augmented views" in line for line in said)
    ours, theirs = (load_file(config.out / "model.safetensors") for config in (first, again))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for others in ({"augment": 0.5}, {"seed": 5}, {"views": 2}, {"freeze": "stages:1"}):
        train(viewed(counts, tmp_path, f"other {others}", **others, epochs=1))
    assert len(list((tmp_path / "cache" / "features").glob("*.npy"))) == 5


def test_a_run_on_views_leaves_the_frozen_stages_and_answers_by_pixels(counts: dict[str, Any], tmp_path: Path) -> None:
    """The last figures are those of whole pictures, as a user gets them."""
    config = viewed(counts, tmp_path, "m", epochs=3, ema=0.5, precision="bf16")
    report = train(config)
    theirs, ours = load_file(tmp_path / "start" / "model.safetensors"), load_file(config.out / "model.safetensors")
    same = {
        name.removeprefix("backbone."): torch.equal(value, theirs[name.removeprefix("backbone.")].to(value.dtype))
        for name, value in ours.items()
        if name.startswith("backbone.") and not name.endswith("num_batches_tracked")
    }
    frozen = [name for name in same if name.startswith(("conv_stem", "bn1", "blocks.0"))]
    assert any(name.endswith("running_mean") for name in frozen)
    assert all(same[name] for name in frozen)
    assert not same["conv_head.weight"]
    encoder = binsight.load_encoder(str(config.out), device="cpu", precision="fp32")
    held = sorted(Path(counts["data"]).parent.glob("*.png"))[16:]
    encoded = encoder.encode(held)
    assert encoded.counts is not None
    right = [count.value == number % 4 + 1 for number, count in enumerate(encoded.counts, start=16)]
    assert report.figures["accuracy"] == pytest.approx(np.mean(right))


def test_a_resumed_run_on_views_ends_as_an_undisturbed_one(counts: dict[str, Any], tmp_path: Path) -> None:
    whole = train(viewed(counts, tmp_path, "whole", epochs=2))
    config = viewed(counts, tmp_path, "killed", epochs=2)

    class Killed(Exception):
        pass

    class Kill(lightning.Callback):
        def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
            if trainer.current_epoch == 1:
                raise Killed

    with pytest.raises(Killed):
        train(config, callbacks=(Kill(),))
    resumed = train(config, resume=True)
    assert resumed.history == whole.history
    assert resumed.fingerprint == whole.fingerprint


def test_a_compiled_backbone_computes_the_learning_half_too() -> None:
    net, halves = halved("resnet10t", "stages:2")
    maps = halves.maps(PLANES)
    compiled = torch.compile(net.backbone, backend="eager")  # an object without a truth value
    torch.testing.assert_close(halves.features(maps, compiled), halves.features(maps))


@pytest.mark.parametrize(("given", "message"), [
    ({"freeze": "none"}, "--views keeps what frozen stages compute: give --freeze stages:N"),
    ({"freeze": "backbone"}, "--views keeps what frozen stages compute: give --freeze stages:N"),
    ({"pretrained": False}, "--views keeps what frozen stages compute: .*a backbone with weights"),
    ({"pooling": "pyramid", "size": 96}, "cannot be cut after stages:2 into two parts; train without --views"),
])  # fmt: skip
def test_views_without_stages_to_keep_them_of_are_refused(
    counts: dict[str, Any], tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadSettings, match=message):
        train(viewed(counts, tmp_path, "m", **given))
    assert not (tmp_path / "m").exists()


def test_views_that_cannot_be_kept_say_so(counts: dict[str, Any], tmp_path: Path) -> None:
    train(viewed(counts, tmp_path, "first", views=0, epochs=1))  # decodes the pictures
    (tmp_path / "cache" / "features").write_text("a file where a folder has to be")
    with pytest.raises(CannotBeDone, match=r"cannot keep features in .*; free some space or set BINSIGHT_CACHE"):
        train(viewed(counts, tmp_path, "m"))


def test_the_last_epoch_is_kept_where_no_figure_is_to_choose(counts: dict[str, Any], tmp_path: Path) -> None:
    config = viewed(counts, tmp_path, "m", keep_best="last", epochs=3, lr=0.03, ema=0.0)
    report = train(config)
    epochs = [torch.load(config.run_dir / name, weights_only=False)["epoch"] for name in (BEST, LAST)]
    assert epochs == [2, 2]
    assert len(report.history) == 3
