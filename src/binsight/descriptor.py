"""`binsight:colour-layout`: a picture's colours by distance from its middle, and its edges by place. Nothing here is learned.

It needs no weights, no torch and no network, so that the demonstration and the tests run anywhere. It finds another view of the
same thing in another light, turned by some 25 degrees; it knows nothing of what things are. On real photos of parts its nearest
neighbour is of the same kind in a quarter of the cases, where a trained network reaches three quarters: use one of those.

1. Grey world (Buchsbaum 1980): each channel is divided by its mean, so the lamp's colour and brightness leave.
2. Colour: log-lightness and two opponent ratios, in soft bins, counted in rings around the middle: turning moves nothing
   from ring to ring.
3. Edges: gradients of log-brightness, which a lamp cannot change, by direction (a half turn apart is the same) on a coarse
   grid, after Dalal and Triggs 2005.
4. The square root of each histogram (Hellinger's kernel), so that the cosine compares shares rather than peaks.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from binsight.preprocess import Preprocess

NAME = "binsight:colour-layout"
VERSION = 1  # raise it with every change that changes a vector
PREPROCESS = Preprocess(
    size=(64, 64), fit="squash", crop_pct=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), interpolation="bilinear"
)
Planes: TypeAlias = NDArray[np.float32]
_CHUNK = 16  # pictures worked on at a time: their planes fit the cache


@dataclass(frozen=True, slots=True)
class Parameters:
    """Chosen on rendered warehouses of seeds 0 to 2; see bench/model.py for those it was not chosen on."""

    rings: int = 5
    reach: float = 0.55  # of the outermost ring, in sides of the picture
    lightness_bins: int = 3
    lightness_range: tuple[float, float] = (-1.5, 1.0)  # natural logarithm, around a grey of 0.4
    opponent_bins: int = 5
    opponent_range: tuple[float, float] = (-0.25, 0.25)
    grid: int = 4
    directions: int = 8
    edge_limit: float = 0.5  # a stronger edge counts no more
    edge_share: float = 0.4  # of the edges' part of the vector to the colours'

    @property
    def dim(self) -> int:
        return self.rings * self.lightness_bins * self.opponent_bins**2 + self.grid**2 * self.directions


@final
class ColourLayout:
    """The descriptor as a runtime: pixels in, features out."""

    name = "numpy"

    def __init__(self, parameters: Parameters | None = None) -> None:
        self._parameters = parameters or Parameters()
        self.dim = self._parameters.dim

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of uint8 (n, h, w, 3): float32 (n, dim), none of them zero."""
        chunks = [_describe(pixels[i : i + _CHUNK], self._parameters) for i in range(0, len(pixels), _CHUNK)]
        return np.concatenate(chunks)


def fingerprint(parameters: Parameters | None = None) -> str:
    """sha256 of the canonical JSON of name, version, parameters and preprocessing."""
    told = {
        "name": NAME,
        "version": VERSION,
        "parameters": asdict(parameters or Parameters()),
        "preprocess": PREPROCESS.to_json(),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _describe(pixels: NDArray[np.uint8], p: Parameters) -> NDArray[np.float32]:
    light = pixels.astype(np.float32) / np.float32(255)  # (n, h, w, 3)
    colours, edges = _unit_roots(_colours(light, p)), _unit_roots(_edges(light, p))
    return np.concatenate([colours, p.edge_share * edges], axis=1)


def _colours(light: Planes, p: Parameters) -> Planes:
    """Shares of each colour in each ring: (n, rings · lightness bins · opponent bins²)."""
    n, height, width, _ = light.shape
    grey = 0.4 * light / np.maximum(light.mean(axis=(1, 2), keepdims=True), 1e-3)
    red, green, blue = np.moveaxis(grey.reshape(n, height * width, 3), 2, 0)  # each (n, h·w)
    total = red + green + blue + np.float32(0.15)  # dark pixels have no colour to speak of
    lightness = _soft_bins(np.log(total + np.float32(0.1)), *p.lightness_range, p.lightness_bins)
    red_green = _soft_bins((red - green) / total, *p.opponent_range, p.opponent_bins)
    yellow_blue = _soft_bins((red + green - 2 * blue) / (2 * total), *p.opponent_range, p.opponent_bins)
    chroma = (red_green[:, :, None] * yellow_blue[:, None]).reshape(n, -1, height * width)
    placed = (_rings(height, width, p)[None, :, None] * lightness[:, None]).reshape(n, -1, height * width)
    shares: Planes = placed @ chroma.transpose(0, 2, 1)  # (n, rings · lightness, opponents²)
    return shares.reshape(n, -1)


def _edges(light: Planes, p: Parameters) -> Planes:
    """Strength of the edges of each direction in each cell: (n, grid² · directions)."""
    brightness = np.log(light.mean(axis=3) + np.float32(0.08))  # (n, h, w)
    down, across = np.zeros_like(brightness), np.zeros_like(brightness)
    down[:, 1:-1] = brightness[:, 2:] - brightness[:, :-2]
    across[:, :, 1:-1] = brightness[:, :, 2:] - brightness[:, :, :-2]
    strength = np.minimum(np.hypot(across, down), np.float32(p.edge_limit))
    angle = np.arctan2(down, across) * np.float32(p.directions / np.pi) % p.directions  # (n, h, w), a half turn is all
    gap = np.abs(angle[:, None] - np.arange(p.directions, dtype=np.float32)[:, None, None])
    planes = strength[:, None] * np.maximum(0, 1 - np.minimum(gap, p.directions - gap))  # (n, directions, h, w)
    rows, columns = _windows(light.shape[1], p.grid), _windows(light.shape[2], p.grid)
    cells: Planes = rows @ planes @ columns.T  # (n, directions, grid, grid)
    return cells.reshape(len(light), -1)


def _soft_bins(values: Planes, low: float, high: float, bins: int) -> Planes:
    """Each value shared between the two nearest of evenly spaced bins: (n, …) → (n, bins, …)."""
    place = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1) * (bins - 1)
    shares: Planes = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(bins, dtype=np.float32)[:, None]))
    return shares


@lru_cache(maxsize=4)
def _rings(height: int, width: int, p: Parameters) -> Planes:
    """Soft rings around the middle, each with weights of sum 1: (rings, h·w)."""
    down, across = (np.arange(height) + 0.5) / height - 0.5, (np.arange(width) + 0.5) / width - 0.5
    distance = np.hypot(down[:, None], across[None]).ravel()
    step = p.reach / p.rings
    middles = (np.arange(p.rings)[:, None] + 0.5) * step
    weights = np.exp(-0.5 * ((distance - middles) / (0.6 * step)) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


@lru_cache(maxsize=4)
def _windows(length: int, cells: int) -> Planes:
    """Soft cells along one side, each with weights of sum 1: (cells, length)."""
    place, middles = (np.arange(length) + 0.5) / length, (np.arange(cells)[:, None] + 0.5) / cells
    weights = np.exp(-0.5 * ((place - middles) * 2 * cells) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _unit_roots(shares: Planes) -> Planes:
    roots = np.sqrt(shares)
    lengths = np.linalg.norm(roots, axis=1, keepdims=True)
    return np.asarray(roots / np.maximum(lengths, 1e-6), np.float32)  # a picture without any edge keeps zeros there
