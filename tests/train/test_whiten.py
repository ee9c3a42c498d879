"""The closed form of the embedding head."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from binsight.errors import BadSettings
from binsight.pyramid import Level, PyramidHead
from binsight.train.whiten import fit_head, whitening


def noisy(
    seed: int = 0,
) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float32]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """60 groups of 8 that differ in six directions, drowned by what varies within them in two more."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(60), 8)
    rows = np.zeros((480, 9))
    rows[:, :6] = rng.normal(size=(60, 6))[groups]
    rows[:, 6:8] = 20 * rng.normal(size=(480, 2))
    rows += 0.05 * rng.normal(size=rows.shape) + 7
    return rows.astype(np.float32), groups


def recall(rows: np.ndarray[Any, Any], groups: np.ndarray[Any, Any]) -> float:
    """The share of rows whose nearest by cosine is of their group."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    scores = unit @ unit.T
    np.fill_diagonal(scores, -np.inf)
    return float((groups[scores.argmax(1)] == groups).mean())


def test_what_varies_within_a_group_counts_no_longer() -> None:
    rows, groups = noisy()
    weight, bias = whitening(rows, groups, 6, shrinkage=1e-6)
    assert recall(rows @ weight.T + bias, groups) > 0.9
    assert recall(rows - rows.mean(0), groups) < 0.3


def test_within_groups_it_is_white_and_in_the_middle_it_is_zero() -> None:
    """With all directions kept and no shrinkage, WᵀΣW is a multiple of the identity."""
    rows, groups = noisy(1)
    weight, bias = whitening(rows, groups, 9, shrinkage=0.0)
    found = (rows @ weight.T + bias).astype(np.float64)
    middles = np.stack([found[groups == group].mean(0) for group in range(60)])
    within = np.cov((found - middles[groups]).T)
    np.testing.assert_allclose(within / within[0, 0], np.eye(9), atol=0.02)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-3)


def test_without_two_of_a_group_there_is_nothing_to_learn_from() -> None:
    rows, groups = noisy()
    with pytest.raises(BadSettings, match="share a product"):
        whitening(rows[::8], groups[::8], 3)
    with pytest.raises(BadSettings, match="1 to 9 dimensions"):
        whitening(rows, groups, 10)


def test_each_half_of_a_pyramid_is_whitened_by_itself() -> None:
    """Cells hold what `noisy` rows do, shuffled over a grid; one fine level's are noise of a thousand times the size."""
    levels = (Level(2, 9, 9), Level(2, 5, 3), Level(2, 9, 8))
    rows, groups = noisy(2)
    spread = np.random.default_rng(3)
    tiled = [np.concatenate([rows + 0.1 * spread.normal(size=rows.shape) for _ in range(4)], axis=1) for _ in range(2)]
    noise = 1000 * spread.normal(size=(len(rows), 20))
    features = np.concatenate([tiled[0], noise, tiled[1]], axis=1).astype(np.float32)
    head = PyramidHead(levels, 12)
    fit_head(head, features, groups, shrinkage=1e-6)
    with torch.inference_mode():
        found = head(torch.from_numpy(features)).numpy()
    assert recall(features - features.mean(0), groups) < 0.1
    assert recall(found[:, :6], groups) > 0.9
    assert recall(found[:, 6:], groups) > 0.9
    assert recall(found, groups) > 0.95


def test_another_head_has_no_closed_form() -> None:
    with pytest.raises(BadSettings, match="Identity"):
        fit_head(torch.nn.Identity(), np.zeros((4, 2), np.float32), np.zeros(4, np.int64))
