"""Strided depthwise convolutions that learn in float32."""

from __future__ import annotations

import copy
import pickle

import torch
from torch import nn

from binsight.backbone import random_config
from binsight.network import build, set_frozen
from binsight.preprocess import Preprocess
from binsight.train.depthwise import strided_in_float32

PLANES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def learning(freeze: str = "none") -> nn.Module:
    torch.manual_seed(0)
    net = build(random_config("mobilenetv2_100", Preprocess(size=(64, 64))), {"count": 7}).eval()
    set_frozen(net, freeze)
    return net.backbone


def test_only_strided_depthwise_convolutions_that_learn_are_changed() -> None:
    assert strided_in_float32(learning()) == 4  # one where each of four groups of blocks halves the map
    assert strided_in_float32(learning("stages:4")) == 2
    assert strided_in_float32(learning("backbone")) == 0


def test_in_float32_nothing_changes_and_weights_keep_their_names() -> None:
    plain, changed = learning(), learning()
    strided_in_float32(changed)
    assert torch.equal(plain(PLANES), changed(PLANES))
    assert plain.state_dict().keys() == changed.state_dict().keys()


def test_under_autocast_they_compute_in_float32_and_the_others_do_not() -> None:
    net = learning()
    strided_in_float32(net)
    said: dict[tuple[int, bool], set[torch.dtype]] = {}

    def heard(module: nn.Module, _: object, out: torch.Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        said.setdefault((module.stride[0], module.groups > 1), set()).add(out.dtype)

    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(heard)
    with torch.autocast("cpu", torch.bfloat16):
        net(PLANES).float().sum().backward()
    assert said == {
        (2, True): {torch.float32}, (1, True): {torch.bfloat16}, (1, False): {torch.bfloat16}, (2, False): {torch.bfloat16},
    }  # fmt: skip
    assert all(value.grad is not None for value in net.parameters())


def test_copies_compute_with_their_own_weights() -> None:
    net = learning()
    strided_in_float32(net)
    before = net(PLANES)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):  # noqa: S301  # our own
        with torch.no_grad():
            for module in other.modules():
                if isinstance(module, nn.Conv2d) and module.groups > 1 and module.stride[0] > 1:
                    module.weight.zero_()
        assert not torch.allclose(other(PLANES), before)
        assert torch.equal(net(PLANES), before)
