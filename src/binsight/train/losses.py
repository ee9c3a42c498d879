"""What training makes small: losses of counts, classes and embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


def soft_targets(outcomes: int, spread: float) -> Tensor:
    """(outcomes, outcomes): row i is e^(−|i − j| / spread) over its sum: near counts are less wrong than far ones.

    spread 0 gives the identity. Source: SORD, Diaz and Marathe 2019, CVPR, section 3.1, with the absolute difference.
    """
    if spread == 0:
        return torch.eye(outcomes)
    place = torch.arange(outcomes, dtype=torch.float32)
    return torch.softmax(-(place[:, None] - place).abs() / spread, dim=1)


def softmax_loss(logits: Tensor, outcomes: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy with the true outcome's row of targets. logits: (n, C); outcomes: (n,); targets: (C, C)."""
    return -(targets.to(logits.device)[outcomes] * functional.log_softmax(logits.float(), dim=1)).sum(1).mean()


def corn_loss(logits: Tensor, outcomes: Tensor) -> Tensor:
    """Binary cross entropies of "more than k, given more than k − 1", each over the pictures that it concerns.

    logits: (n, C − 1); outcomes: (n,) in 0 … C − 1. Source: CORN, Shi, Cao, Raschka 2021, arXiv:2111.08851, equation 4.
    """
    thresholds = torch.arange(logits.shape[1], device=logits.device)
    concerned = outcomes[:, None] >= thresholds  # y > k − 1
    is_more = (outcomes[:, None] > thresholds).float()
    each = functional.binary_cross_entropy_with_logits(logits.float(), is_more, reduction="none")
    return (each * concerned).sum() / concerned.sum()


class Relation:
    """Which pictures are positives of each other: those that share a key (a product, or a class)."""

    def __init__(self, keys: Sequence[Sequence[str]]) -> None:
        names = {name: place for place, name in enumerate(sorted({key for own in keys for key in own}))}
        self._keys = [np.array(sorted(names[key] for key in set(own)), dtype=np.int64) for own in keys]
        holders: list[list[int]] = [[] for _ in names]
        for row, own in enumerate(self._keys):
            for key in own:
                holders[key].append(row)
        self._holders = [np.array(rows, dtype=np.int64) for rows in holders]

    def positives_of(self, row: int) -> NDArray[np.int64]:
        """All other rows that share a key with this one."""
        found = [self._holders[key] for key in self._keys[row]]
        others: NDArray[np.int64] = np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
        return np.delete(others, np.searchsorted(others, row)) if len(others) else others

    def among(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n, n): whether two of the rows are positives; a row that is there twice is a positive of itself."""
        own = [self._keys[row] for row in rows]
        used = np.unique(np.concatenate(own)) if own else np.empty(0, np.int64)
        holds = np.zeros((len(rows), len(used)), dtype=np.float32)
        for place, keys in enumerate(own):
            holds[place, np.searchsorted(used, keys)] = 1
        shared: NDArray[np.bool_] = (holds @ holds.T > 0) | (rows[:, None] == rows)
        np.fill_diagonal(shared, False)
        return shared


class EmbeddingLoss:
    """A loss of pytorch-metric-learning over the pairs that a relation names."""

    def __init__(self, kind: Literal["supcon", "multisimilarity"]) -> None:
        from pytorch_metric_learning import losses  # slow to import

        self._loss: Any = losses.SupConLoss(temperature=0.1) if kind == "supcon" else losses.MultiSimilarityLoss()

    def __call__(self, embeddings: Tensor, positive: Tensor) -> Tensor:
        """embeddings: (n, dim), of any length; positive: (n, n) bool. 0 when no two are positives."""
        if not bool(positive.any()):
            return embeddings.sum() * 0.0
        negative = ~positive
        negative.fill_diagonal_(False)
        pairs = (*positive.nonzero(as_tuple=True), *negative.nonzero(as_tuple=True))
        loss: Tensor = self._loss(embeddings.float(), indices_tuple=pairs)
        return loss
