"""An embedding head without gradients: features in which pictures of one product vary as little as they can.

The covariance of the differences between positives, made a little rounder, is whitened, and the directions of most variance
are kept: linear discriminant analysis with shrinkage, as face and speaker verification use it (WCCN: Hatch, Kajarekar, Stolcke
2006, Interspeech).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from binsight.errors import BadSettings
from binsight.pyramid import Level, PyramidHead

Matrix = NDArray[np.float64]
SHRINKAGE = 0.3  # of 0.01 … 1 on the development bins: see LOG.md


def whitening(
    features: NDArray[np.float32], groups: Sequence[int] | NDArray[np.int64], dim: int, *, shrinkage: float = SHRINKAGE
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight (dim, d) and bias (dim,) of a linear layer on features (n, d).

    groups: (n,); rows of one group are positives of each other. shrinkage: how much of the mean variance is added to all
    directions before whitening. Raises BadSettings when no group has two rows, or dim is larger than d.
    """
    rows = features.astype(np.float64)
    if not 1 <= dim <= rows.shape[1]:
        raise BadSettings(f"want an embedding of 1 to {rows.shape[1]} dimensions from this backbone, got {dim}")
    _, place, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if sizes.max(initial=0) < 2:
        raise BadSettings("want pictures that share a product or a class, to learn what may differ between them; got none")
    middle = rows.mean(axis=0)
    centred = rows - middle
    sums = np.zeros((len(sizes), rows.shape[1]))
    np.add.at(sums, place, centred)
    apart = (centred - (sums / sizes[:, None])[place])[sizes[place] > 1]  # (m, d): from the middle of its own group
    within: Matrix = apart.T @ apart / len(apart)
    within += shrinkage * np.trace(within) / len(within) * np.eye(len(within))
    white = np.linalg.cholesky(np.linalg.inv(within))  # (d, d): whiteᵀ · within · white = 1
    spread, axes = np.linalg.eigh(np.cov((centred @ white).T))
    axes = axes[:, np.argsort(-spread)[:dim]]
    weight = (white @ axes).T  # (dim, d)
    weight /= np.sqrt(np.square(centred @ weight.T).sum(axis=1).mean())  # rows of about unit length
    return weight.astype(np.float32), (-weight @ middle).astype(np.float32)


def fit_head(
    head: torch.nn.Module, features: NDArray[np.float32], groups: NDArray[np.int64], *, shrinkage: float = SHRINKAGE
) -> None:
    """Set an embedding head, a linear layer or a PyramidHead, to the whitening of features (n, d) that it takes.

    Of a pyramid, the cells of each level are first brought down to their directions of most variance, and each half is
    whitened by itself. Raises BadSettings as `whitening`, and for another kind of head.
    """
    with torch.no_grad():
        if isinstance(head, PyramidHead):
            parts = np.split(features, np.cumsum([level.size for level in head.levels])[:-1], axis=1)
            for layer, level, part in zip(head.cells, head.levels, parts, strict=True):
                _fill(layer, *_principal(part, level))
            low = [part.numpy() for part in head.brought_down(torch.from_numpy(features))]
            _fill(head.fine, *whitening(np.concatenate(low[:-1], axis=1), groups, head.fine.out_features, shrinkage=shrinkage))
            _fill(head.coarse, *whitening(low[-1], groups, head.coarse.out_features, shrinkage=shrinkage))
        elif isinstance(head, torch.nn.Linear):
            _fill(head, *whitening(features, groups, head.out_features, shrinkage=shrinkage))
        else:
            raise BadSettings(f"a {type(head).__name__} has no closed form")


def _principal(cells: NDArray[np.float32], level: Level) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight and bias that bring cells (n, grid² · channels) down to their principal components.

    Scaled so that a picture's cells together have a mean square of one: levels then weigh the same in what comes after.
    """
    rows = cells.reshape(-1, level.channels)
    middle = rows.mean(axis=0, dtype=np.float64)
    covariance = (rows.T @ rows).astype(np.float64) / len(rows) - np.outer(middle, middle)
    spread, axes = np.linalg.eigh(covariance)
    order = np.argsort(-spread)[: level.cell]
    scale = (level.grid**2 * spread[order].sum()) ** -0.5
    weight = scale * axes[:, order].T
    return weight.astype(np.float32), (-weight @ middle).astype(np.float32)


def _fill(layer: torch.nn.Module, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
    layer.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
