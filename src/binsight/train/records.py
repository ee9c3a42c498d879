"""What records say of a picture beside its count, as further things to learn: how many products, how large, which words.

A small set of counted pictures is soon known by heart. What else is known of them teaches the same features more: the head
that answers it learns along and is thrown away afterwards. Source: auxiliary tasks, Caruana 1997, "Multitask Learning",
Machine Learning 28, section 3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from binsight.data.labelled import LabelledPicture

_PRODUCTS = 7  # none … five, and more
_WORDS = 100  # the most frequent ones of the training pictures
_RARE = 0.005  # of the training pictures: a word of fewer teaches nothing
_WORDS_SHARE = 10.0  # most words are missing from most pictures, so the mean over all is small


@dataclass(frozen=True, slots=True, eq=False)
class RecordTargets:
    """products: (n,) number of different products, −1 where not known. numbers: (n, m), standardised logarithms, NaN where not
    known. words: (n, w), whether the records name it."""

    products: NDArray[np.int64]
    numbers: NDArray[np.float32]
    words: NDArray[np.float32]

    @property
    def width(self) -> int:
        """How many values a head gives."""
        return sum(self._widths)

    @property
    def _widths(self) -> list[int]:
        return [_PRODUCTS, int(self.numbers.shape[1]), int(self.words.shape[1])]

    def loss(self, said: Tensor, rows: Tensor) -> Tensor:
        """Of what a head says, (n, width), about the pictures of these rows, (n,)."""
        at = rows.cpu().numpy()
        products, numbers, words = torch.split(said.float(), self._widths, dim=1)
        true_products = torch.from_numpy(self.products[at]).to(said.device)
        true_numbers = torch.from_numpy(self.numbers[at]).to(said.device)
        loss = said.sum() * 0.0
        if bool((known := true_products >= 0).any()):
            loss = loss + functional.cross_entropy(products[known], true_products[known].clamp(max=_PRODUCTS - 1))
        if bool((known := torch.isfinite(true_numbers)).any()):
            loss = loss + functional.smooth_l1_loss(numbers[known], true_numbers[known])
        if words.shape[1]:
            true_words = torch.from_numpy(self.words[at]).to(said.device)
            loss = loss + _WORDS_SHARE * functional.binary_cross_entropy_with_logits(words, true_words)
        return loss


def record_targets(pictures: Sequence[LabelledPicture], train: NDArray[np.int64]) -> RecordTargets | None:
    """Targets of pictures, in their order; scales and words are those of the rows of `train`. None where nothing is known."""
    learnt = [pictures[row] for row in train]
    words = Counter(word for one in learnt for word in one.words)
    kept = [word for word, n in words.most_common(_WORDS) if n >= max(2, _RARE * len(learnt))]
    names = sorted({name for one in learnt for name, _ in one.numbers})
    numbers = np.full((len(pictures), len(names)), np.nan, np.float32)
    for row, one in enumerate(pictures):
        known = dict(one.numbers)
        for column, name in enumerate(names):
            if known.get(name, -1.0) >= 0:
                numbers[row, column] = np.log(known[name] + 1e-3)
    spread = np.array([np.nanstd(column) if np.isfinite(column).any() else 0.0 for column in numbers[train].T])
    numbers = numbers[:, spread > 0]
    if numbers.shape[1]:
        numbers = (numbers - np.nanmean(numbers[train], axis=0)) / np.nanstd(numbers[train], axis=0)
    products = np.array([len(one.products) if one.products or one.count == 0 else -1 for one in pictures], dtype=np.int64)
    has_word = np.zeros((len(pictures), len(kept)), np.float32)
    for row, one in enumerate(pictures):
        has_word[row] = [word in one.words for word in kept]
    if not kept and not numbers.shape[1] and not (products[train] >= 0).any():
        return None
    return RecordTargets(products, numbers.astype(np.float32), has_word)
