"""Our own vision transformer: its size, its parts, and that timm and OpenVINO take it as one of theirs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import timm
import torch

from binsight import openvino_export, vit
from binsight.vit import BinsightViT


def small(**changes: object) -> BinsightViT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        arguments = {"width": 32, "depth": 2, "heads": 2, "num_classes": 0} | changes
        return BinsightViT(**arguments).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "width", "millions"), [("binsight_vit_tiny", 192, 5.7), ("binsight_vit_small", 384, 20.7)])
def test_timm_builds_them_by_name_and_they_have_the_size_they_claim(name: str, width: int, millions: float) -> None:
    network = timm.create_model(name, num_classes=0)
    assert network.num_features == width
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(millions * 1e6, rel=0.01)
    assert name in timm.list_models("binsight*")
    assert network.pretrained_cfg["crop_mode"] == "squash"


@pytest.mark.parametrize("size", [(32, 32), (224, 224), (64, 112)])
def test_any_size_divisible_by_16_works(size: tuple[int, int]) -> None:
    network = small()
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, *size)).shape == (2, 32)
        assert network.forward_features(torch.zeros(1, 3, *size)).shape == (1, 32, size[0] // 16, size[1] // 16)


def test_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"divisible by 16, got \(40, 32\)"):
        small()(torch.zeros(1, 3, 40, 32))


def test_positions_are_sines_and_cosines_of_column_and_row() -> None:
    found = vit.positions(2, 3, 8)  # two frequencies: 1 and 1 / 10,000
    assert found.shape == (6, 8)
    row, column = 1, 2
    wanted = [f(place * frequency) for place in (column, row) for f in (math.sin, math.cos) for frequency in (1, 1e-4)]
    np.testing.assert_allclose(found[row * 3 + column].numpy(), wanted, rtol=1e-6)


def test_attention_is_that_of_its_definition() -> None:
    attention = small().blocks[0].attention
    tokens = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        came = attention(tokens)[0]  # type: ignore[operator]
        query, key, value = attention.qkv(tokens)[0].reshape(5, 3, 2, 16).unbind(1)  # type: ignore[union-attr,operator]
        heads = []
        for head in range(2):
            q, k = attention.q_norm(query[:, head]), attention.k_norm(key[:, head])  # type: ignore[union-attr,operator]
            heads.append(torch.softmax(q @ k.T / 4, dim=1) @ value[:, head])
        wanted = attention.proj(torch.cat(heads, dim=1))  # type: ignore[union-attr,operator]
    torch.testing.assert_close(came, wanted, rtol=1e-4, atol=1e-6)


def test_a_token_sees_its_neighbours_in_the_feed_forward_and_no_others() -> None:
    mlp = small().blocks[0].mlp
    tokens = torch.zeros(1, 25, 32)
    changed = tokens.clone()
    changed[0, 12] = 1  # the middle of a grid of 5 × 5
    with torch.inference_mode():
        moved = (mlp(changed, 5, 5) - mlp(tokens, 5, 5)).abs().sum(dim=2)[0].reshape(5, 5) > 0  # type: ignore[operator]
    wanted = torch.zeros(5, 5, dtype=torch.bool)
    wanted[1:4, 1:4] = True
    assert torch.equal(moved, wanted)


def test_stochastic_depth_grows_with_depth_and_acts_in_training_only() -> None:
    network = small(depth=3, drop_path_rate=0.4)
    assert [block.drop_path.drop_prob for block in network.blocks] == pytest.approx([0, 0.2, 0.4])  # type: ignore[union-attr]
    planes = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(network(planes), network(planes))
        block = network.train().blocks[2]
        tokens = torch.randn(64, 4, 32)
        left = (block(tokens, 2, 2) == tokens).all(dim=(1, 2)).float().mean()
    assert 0.02 < left < 0.4  # both branches are left out for 0.4² = 0.16 of the pictures


def test_a_classifier_can_be_put_on_and_taken_off() -> None:
    network = small(num_classes=5)
    planes = torch.zeros(1, 3, 32, 32)
    with torch.inference_mode():
        assert network(planes).shape == (1, 5)
        pooled = network.forward_head(network.forward_features(planes), pre_logits=True)
        network.reset_classifier(0)
        assert torch.equal(network(planes), pooled)


def test_recomputing_blocks_to_save_memory_changes_no_gradient() -> None:
    planes = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    gradients = []
    for enable in (False, True):
        network = small().train()
        network.set_grad_checkpointing(enable)
        network(planes).square().sum().backward()
        gradients.append(network.blocks[0].mlp.fc1.weight.grad)  # type: ignore[union-attr]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_it_learns_where_a_spot_is() -> None:
    """Thirty steps are enough to tell apart left from right, on pictures it has not seen."""
    generator = torch.Generator().manual_seed(0)

    def pictures(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        planes, sides = torch.randn(n, 3, 32, 32, generator=generator), torch.randint(0, 2, (n,), generator=generator)
        for plane, side in zip(planes, sides, strict=True):
            plane[:, 8:24, 16 * int(side) : 16 * int(side) + 16] += 2
        return planes, sides

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = small(num_classes=2, depth=1).train()
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
        for _ in range(30):
            planes, sides = pictures(16)
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(planes), sides).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    planes, sides = pictures(64)
    with torch.inference_mode():
        assert (network.eval()(planes).argmax(dim=1) == sides).float().mean() > 0.9


@pytest.mark.parametrize("wrong", [{"width": 30}, {"global_pool": "token"}])
def test_arguments_that_do_not_fit_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"want a width divisible|want global_pool 'avg'"):
        small(**wrong)


def test_openvino_computes_the_same() -> None:
    from binsight.network import quiet_tracing

    network = small()
    planes = torch.randn(3, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    ov = openvino_export.load_openvino()
    with quiet_tracing():
        model = ov.convert_model(network, example_input=planes[:2], input=[-1, 3, 48, 64])
    came = openvino_export.openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(
        {0: planes.numpy()}
    )[0]
    with torch.inference_mode():
        np.testing.assert_allclose(came, network(planes).numpy(), atol=1e-4)
