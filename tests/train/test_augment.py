"""Augmentation keeps counts true: nothing leaves the picture, nothing is there twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from binsight.train.augment import DRAWS, affine, augment

uniform = hnp.arrays(np.float32, (1, DRAWS), elements=st.floats(0, 0.9990234375, width=32))
CORNERS = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])


def noise(n: int = 3, side: int = 24, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 255


def draws_of(n: int, seed: int = 1) -> Tensor:
    return torch.rand(n, DRAWS, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=200, deadline=None)
@given(uniform, st.floats(0, 2))
def test_the_corners_of_the_old_picture_stay_inside_the_new_one(draws: np.ndarray, strength: float) -> None:
    back = affine(torch.from_numpy(draws), strength)[0].double()
    new = torch.linalg.solve(back[:, :2], (CORNERS.double() - back[:, 2]).T).T  # where each old corner lies now
    assert float(new.abs().max()) <= 1 + 1e-4


@settings(max_examples=60, deadline=None)
@given(uniform, st.sampled_from([0.5, 1.0, 2.0]))
def test_an_item_near_the_edge_is_not_doubled(draws: np.ndarray, strength: float) -> None:
    draws[:, [14, 16]] = 0.99  # neither blurred nor hidden by a patch
    picture = torch.zeros(1, 3, 48, 48)
    picture[:, :, 3:7, 3:7] = 255
    changed = augment(picture, torch.from_numpy(draws), strength=strength)[0].mean(0)
    assert float(changed.max()) > 20
    is_item = changed > float(changed.min()) + 0.4 * float(changed.max() - changed.min())
    for axis in (0, 1):
        line = torch.cat([torch.zeros(1), is_item.any(axis).float(), torch.zeros(1)])
        assert int((line.diff() > 0).sum()) == 1  # one run of rows, one of columns
    assert int(is_item.sum()) <= 30  # of 16 pixels, seen smaller


def test_without_strength_a_picture_is_at_most_flipped() -> None:
    planes, draws = noise(2), draws_of(2)
    draws[:, 4] = torch.tensor([0.2, 0.8])
    torch.testing.assert_close(
        augment(planes, draws, strength=0), torch.stack([planes[0].flip(2), planes[1]]), atol=0.02, rtol=0
    )


@settings(max_examples=100, deadline=None)
@given(uniform, st.floats(0.05, 1))
def test_a_crop_lies_in_the_picture_and_keeps_its_share(draws: np.ndarray, crop: float) -> None:
    places = torch.from_numpy(draws)
    places[:, 6] = 0.9  # not moved otherwise
    down, across = torch.meshgrid(torch.linspace(0, 255, 64), torch.linspace(0, 255, 64), indexing="ij")
    seen = augment(torch.stack([across, down, down])[None], places, strength=0, crop=crop)[0, :2]
    spans = torch.stack([(one.max() - one.min()) / (255 * 63 / 64) for one in seen])
    assert float(spans.prod()) >= 0.7 * crop - 0.01  # long sides end at the picture's
    assert float(seen.min()) >= 0
    assert float(seen.max()) <= 255.01
    whole = augment(torch.stack([across, down, down])[None], places, strength=0, crop=1.0)[0, :2]
    if crop < 0.5 and float(places[0, 24]) < 0.5:
        assert float(spans.prod()) < 0.8
        assert not torch.allclose(seen, whole, atol=4)


def test_crops_go_everywhere_and_take_every_size() -> None:
    down, across = torch.meshgrid(torch.linspace(0, 255, 32), torch.linspace(0, 255, 32), indexing="ij")
    planes = torch.stack([across, down, down]).expand(500, 3, 32, 32)
    seen = augment(planes, draws_of(500), strength=0, crop=0.2)[:, :2]
    middles = seen.mean((2, 3)) / 255
    spans = (seen.amax((2, 3)) - seen.amin((2, 3))) / 255
    assert float(middles.min()) < 0.3
    assert float(middles.max()) > 0.7
    assert float(spans.prod(1).min()) < 0.25
    assert float(spans.prod(1).max()) > 0.85


def test_it_is_a_function_of_its_draws_for_each_picture_alone() -> None:
    planes, draws = noise(6), draws_of(6)
    before = planes.clone()
    torch.manual_seed(0)
    first = augment(planes, draws)
    torch.manual_seed(1)
    assert torch.equal(augment(planes, draws), first)
    assert torch.equal(planes, before)
    torch.testing.assert_close(augment(planes[4:5], draws[4:5]), first[4:5], atol=1e-3, rtol=0)
    assert not torch.allclose(augment(planes, draws_of(6, seed=2)), first)


@settings(max_examples=50, deadline=None)
@given(uniform, st.floats(0, 2))
def test_values_stay_those_of_pixels(draws: np.ndarray, strength: float) -> None:
    changed = augment(noise(1), torch.from_numpy(draws), strength=strength)
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 255.001


@pytest.mark.parametrize("seed", range(20))
def test_an_erased_patch_covers_at_most_a_twentieth(seed: int) -> None:
    draws = draws_of(1, seed)
    draws[:, 14] = 0.9
    draws[:, 16] = 0.9
    without = augment(noise(1, 64), draws)
    draws[:, 16] = 0.1
    erased = (augment(noise(1, 64), draws) != without).any(1).float().mean()
    assert 0.08**2 * 0.7 <= float(erased) <= 0.05 + 0.01


def test_every_other_picture_keeps_its_scale_and_is_at_most_flipped() -> None:
    places = affine(torch.rand(4000, DRAWS, generator=torch.Generator().manual_seed(0)))
    kept = (places.abs() - torch.eye(2, 3)).abs().amax((1, 2)) < 1e-6
    assert 0.45 < float(kept.float().mean()) < 0.55
    assert 0.45 < float((places[kept][:, 0, 0] < 0).float().mean()) < 0.55
