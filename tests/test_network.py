"""BinNet: what it answers, what learns, and where its weights come from."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from binsight import backbone, checkpoint, network
from binsight.checkpoint import Checkpoint
from binsight.errors import BadSettings, UnknownModel
from binsight.network import BinNet
from binsight.preprocess import Preprocess
from tests.model_folders import make_model_folder

SMALL = Preprocess(size=(64, 64), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
SIZES = {"embedding": 16, "count": 7, "label": 3}


def made(architecture: str = "resnet10t", **changes: object) -> BinNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return network.build(backbone.random_config(architecture, SMALL), SIZES, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def timms(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = make_model_folder(tmp_path_factory.mktemp("models") / "m", architecture="resnet10t", size=64)
    return checkpoint.open_folder(folder)


def pixels(n: int = 3) -> torch.Tensor:
    return network.example_pixels((64, 64), n)


# What it answers


@pytest.mark.parametrize("architecture", ["resnet50", "resnet101", "mobilenetv2_100", "binsight_vit_tiny", "test_vit"])
def test_every_head_answers_for_any_backbone(architecture: str) -> None:
    net = made(architecture).eval()
    with torch.inference_mode():
        said = net(pixels(2))
    assert {name: tuple(value.shape) for name, value in said.items()} == {
        "embedding": (2, 16),
        "count": (2, 7),
        "label": (2, 3),
    }
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in said.values())


def test_a_head_is_one_linear_layer_on_the_pooled_features() -> None:
    net = made().eval()
    planes = (pixels().permute(0, 3, 1, 2) / 255 - torch.tensor(SMALL.mean).view(3, 1, 1)) / torch.tensor(SMALL.std).view(
        3, 1, 1
    )
    with torch.inference_mode():
        features = net.backbone(planes)
        said = net(pixels())
        again = net.forward_planes(net.planes(pixels()))
    state = net.state_dict()
    for name in SIZES:
        wanted = features @ state[f"{name}.weight"].T + state[f"{name}.bias"]
        torch.testing.assert_close(said[name], wanted, rtol=1e-4, atol=1e-5)
        assert torch.equal(said[name], again[name])


def test_without_an_embedding_head_the_pooled_features_are_the_embedding() -> None:
    net = network.build(backbone.random_config("resnet10t", SMALL), {"count": 7}).eval()
    with torch.inference_mode():
        said = net(pixels())
        assert said.keys() == {"embedding", "count"}
        assert torch.equal(said["embedding"], net.features(net.planes(pixels())))


def test_dropout_is_before_the_count_and_not_before_the_embedding() -> None:
    net = made(dropout=0.5)
    features = torch.ones(1, net.features_dim)
    first, second = net.answers(features), net.answers(features)
    assert torch.equal(first["embedding"], second["embedding"])
    assert not torch.equal(first["count"], second["count"])
    net.eval()
    assert torch.equal(net.answers(features)["count"], net.answers(features)["count"])


def test_heads_are_computed_in_float32_under_autocast() -> None:
    net = made().eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        features = net.features(net.planes(pixels()))
        said = net.answers(features)
    with torch.inference_mode():
        assert torch.equal(said["count"], net.answers(features)["count"])
    assert {value.dtype for value in said.values()} == {torch.float32}


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(BadSettings, match="want heads among embedding, count, label, got 'weight'"):
        network.build(backbone.random_config("resnet10t", SMALL), {"weight": 7})


# What learns


def learning(net: BinNet) -> set[str]:
    return {name for name, value in net.named_parameters() if value.requires_grad}


def moved(net: BinNet) -> set[str]:
    """Buffers that a training step moves."""
    before = {name: value.clone() for name, value in net.named_buffers()}
    net.train()(pixels())
    return {name for name, value in net.named_buffers() if not torch.equal(value, before[name])}


def test_everything_learns_at_first_and_again_when_nothing_is_frozen() -> None:
    net = made()
    everything = {name for name, _ in net.named_parameters()}
    assert learning(net) == everything
    network.set_frozen(net, "backbone")
    assert learning(net) == {f"{head}.{kind}" for head in SIZES for kind in ("weight", "bias")}
    assert moved(net) == set()
    network.set_frozen(net, "none")
    assert learning(net) == everything
    assert any("running_mean" in name for name in moved(net))


@pytest.mark.parametrize(
    ("architecture", "stages", "frozen", "learns"),
    [
        ("resnet10t", 2, ("conv1.", "bn1.", "layer1."), ("layer2.", "layer4.")),
        ("mobilenetv2_050", 3, ("conv_stem.", "bn1.", "blocks.0.", "blocks.1."), ("blocks.2.", "conv_head.")),
        ("binsight_vit_tiny", 2, ("stem.", "blocks.0."), ("blocks.1.", "norm.")),
        ("test_vit", 1, ("patch_embed.", "cls_token", "pos_embed"), ("blocks.0.", "norm.")),
    ],
)
def test_stages_are_frozen_from_the_stem_on(
    architecture: str, stages: int, frozen: tuple[str, ...], learns: tuple[str, ...]
) -> None:
    net = made(architecture)
    network.set_frozen(net, f"stages:{stages}")
    learned = learning(net)
    for name, _ in net.backbone.named_parameters():
        if name.startswith(frozen):
            assert f"backbone.{name}" not in learned, name
    for start in learns:
        assert any(name.startswith(f"backbone.{start}") for name in learned), start
    assert not any(name.startswith(tuple(f"backbone.{start}" for start in frozen)) for name in moved(net))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training == module.weight.requires_grad


def test_all_stages_can_be_frozen_but_no_more() -> None:
    net = made()
    network.set_frozen(net, "stages:5")
    assert not any(name.startswith("backbone.") for name in learning(net))
    with pytest.raises(BadSettings, match="at most the 5 stages of ResNet, got 'stages:6'"):
        network.set_frozen(net, "stages:6")


@pytest.mark.parametrize("mode", ["", "all", "stages", "stages:0", "stages:-1", "stages:x"])
def test_another_mode_is_refused(mode: str) -> None:
    with pytest.raises(BadSettings, match="want to freeze 'none', 'backbone' or 'stages:N'"):
        network.set_frozen(made(), mode)


def test_a_backbone_without_known_stages_says_so() -> None:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    backbone.num_features = 4  # type: ignore[assignment]
    net = BinNet(backbone, sizes={"count": 3}, mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(BadSettings, match="the stages of Sequential are not known; freeze 'none' or 'backbone'"):
        network.set_frozen(net, "stages:1")
    assert [[name for name, _ in group] for group in network.layer_groups(net)] == [
        ["backbone.1.weight", "backbone.1.bias"],
        ["count.weight", "count.bias"],
    ]


def test_layer_groups_go_from_the_stem_to_the_heads_and_hold_every_parameter_once() -> None:
    net = made()
    groups = [[name for name, _ in group] for group in network.layer_groups(net)]
    assert len(groups) == 6
    assert groups[0][0].startswith("backbone.conv1")
    assert all(name.startswith("backbone.layer4.") for name in groups[4])
    assert set(groups[5]) == {f"{head}.{kind}" for head in SIZES for kind in ("weight", "bias")}
    assert sorted(sum(groups, [])) == sorted(name for name, _ in net.named_parameters())  # noqa: RUF017


# Where its weights come from


def test_a_backbone_starts_from_a_timm_folder(timms: Checkpoint) -> None:
    net = network.build(timms.config, SIZES, weights=timms)
    stored = load_file(timms.weights)
    for name, value in net.backbone.state_dict().items():
        assert torch.equal(value, stored[name]), name
    assert net.training
    assert learning(net) == {name for name, _ in net.named_parameters()}


def test_a_state_dict_is_taken_whole_or_refused() -> None:
    first, config = made(), backbone.random_config("resnet10t", SMALL)
    again = network.build(config, SIZES, weights=first.state_dict())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    state = first.state_dict()
    for wrong, message in (
        ({k: v for k, v in state.items() if k != "count.bias"}, r"the state lacks 'count\.bias' \(1 weights in all\)"),
        (state | {"more.bias": torch.ones(1)}, r"the state holds 'more\.bias'"),
        (state | {"count.bias": torch.ones(8)}, r"'count\.bias' is \(8,\), the network's is \(7,\)"),
    ):
        with pytest.raises(UnknownModel, match=message):
            network.build(config, SIZES, weights=wrong)


def test_weights_of_another_architecture_are_refused(timms: Checkpoint) -> None:
    with pytest.raises(UnknownModel, match="holds the weights of resnet10t, not of resnet18"):
        network.build(backbone.random_config("resnet18", SMALL), SIZES, weights=timms)


def test_arguments_for_training_shape_the_network_and_not_its_config(timms: Checkpoint) -> None:
    net = network.build(timms.config, SIZES, weights=timms, training_args={"drop_path_rate": 0.2})
    assert "drop_path_rate" not in timms.config.model_args
    assert any(type(module).__name__ == "DropPath" for module in net.modules())


def test_an_unknown_architecture_or_argument_is_refused() -> None:
    with pytest.raises(UnknownModel, match=r"knows no architecture 'resnte50'; near: .*resnet50"):
        backbone.random_config("resnte50", SMALL)
    with pytest.raises(UnknownModel, match="resnet10t cannot be built with model_args"):
        network.build(backbone.random_config("resnet10t", SMALL, {"no_such": 1}), SIZES)


def test_a_transformer_is_built_for_the_size_of_its_pictures() -> None:
    assert backbone.random_config("vit_tiny_patch16_224", SMALL).model_args == {"img_size": [64, 64]}
    assert backbone.random_config("resnet10t", SMALL).model_args == {}
    assert backbone.random_config("binsight_vit_small", SMALL).model_args == {}
