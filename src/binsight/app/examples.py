"""Pictures to try the screens with, drawn by us: bins and parts of the made-up warehouse that the demonstration indexes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from binsight.data.parts import catalogue
from binsight.data.warehouse import bin_photo, catalogue_photo, fill_bins

_SIZE_PX = 320
_PARTS = (3, 17, 30)
_BINS = (1, 2, 7)
_SEED = 0  # the demonstration's
_VIEW = 99  # none that it indexes


def draw_parts(folder: Path) -> list[Path]:
    """Photos of single parts, as files."""
    parts = catalogue(_SEED)
    rngs = [np.random.default_rng([_SEED, 7, number, _VIEW]) for number in _PARTS]
    shown = [catalogue_photo(parts[number], rng, size_px=_SIZE_PX) for number, rng in zip(_PARTS, rngs, strict=True)]
    return _saved(shown, [folder / f"part {number}.jpg" for number in _PARTS])


def draw_bins(folder: Path) -> list[Path]:
    """Photos of bins, as files."""
    bins = fill_bins(catalogue(_SEED), max(_BINS) + 1, seed=_SEED)
    rngs = [np.random.default_rng([_SEED, 8, number, _VIEW]) for number in _BINS]
    shown = [bin_photo(bins[number], rng, size_px=_SIZE_PX).image for number, rng in zip(_BINS, rngs, strict=True)]
    return _saved(shown, [folder / f"bin {number}.jpg" for number in _BINS])


def _saved(images: list[Image.Image], paths: list[Path]) -> list[Path]:
    for image, path in zip(images, paths, strict=True):
        image.save(path, quality=88)
    return paths
