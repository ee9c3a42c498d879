"""Which pictures are nearly the same: a perceptual hash of each, and the pairs whose hashes differ in few bits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from binsight.images import Decoded

SIDE_PX, LOW = 32, 8  # the picture is made this small; so many low frequencies each way are kept
BITS = LOW * LOW
MOST_PAIRS = 100_000
_ROWS_AT_ONCE = 2**22  # comparisons held in memory together


def perceptual_hash(decoded: Decoded) -> int:
    """64 bits that stay nearly the same when a picture is scaled, squashed, recompressed or a little brighter.

    The signs, about their median, of the lowest 8 × 8 frequencies of the 32 × 32 grey picture, but for the mean brightness.
    Source: pHash, C. Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", section 3.2.
    """
    small = Image.fromarray(decoded.pixels).convert("L").resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR, decoded.box)
    waves = _waves()
    low = (waves @ np.asarray(small, np.float64) @ waves.T).ravel()  # (8 · 8,)
    return sum(1 << place for place, is_set in enumerate(low > np.median(low[1:])) if is_set and place)


def near_pairs(hashes: Sequence[int], *, most_bits: int) -> list[tuple[int, int, int]]:
    """(place, place, bits that differ) of all pairs with at most so many, nearest first; no more than MOST_PAIRS of them.

    Two hashes that differ in b bits agree in one of b + 1 stretches of them at least: only such pairs are compared.
    """
    values = np.array(hashes, np.uint64)
    found: dict[tuple[int, int], int] = {}
    for stretch in _stretches(values, most_bits + 1):
        together: dict[int, list[int]] = defaultdict(list)
        for place, part in enumerate(stretch.tolist()):
            together[part].append(place)
        for places in together.values():
            for a, b, bits in _compared(values, np.array(places, np.int64), most_bits):
                found[a, b] = bits
                if len(found) >= MOST_PAIRS:
                    return _sorted(found)
    return _sorted(found)


def _stretches(values: NDArray[np.uint64], n: int) -> Iterator[NDArray[np.uint64]]:
    edges = np.linspace(0, BITS, n + 1).astype(int).tolist()
    for low, high in pairwise(edges):
        yield (values >> np.uint64(low)) & np.uint64(2 ** (high - low) - 1)


def _compared(values: NDArray[np.uint64], places: NDArray[np.int64], most_bits: int) -> Iterator[tuple[int, int, int]]:
    step = max(1, _ROWS_AT_ONCE // len(places))
    for start in range(0, len(places) - 1, step):
        rows = places[start : start + step]
        bits = np.bitwise_count(values[rows][:, None] ^ values[places][None])  # (rows, places)
        for i, j in np.argwhere(bits <= most_bits).tolist():
            if rows[i] < places[j]:
                yield int(rows[i]), int(places[j]), int(bits[i, j])


def _sorted(found: dict[tuple[int, int], int]) -> list[tuple[int, int, int]]:
    return sorted(((a, b, bits) for (a, b), bits in found.items()), key=lambda pair: (pair[2], pair[0], pair[1]))


def _waves() -> NDArray[np.float64]:
    """(8, 32): the first rows of the cosine transform DCT-II."""
    frequency, place = np.arange(LOW)[:, None], np.arange(SIDE_PX)[None]
    return np.cos(np.pi * frequency * (2 * place + 1) / (2 * SIDE_PX))
