"""An encoder whose answers one can compute by hand, and pictures to feed it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from binsight.encoder import Encoder
from binsight.preprocess import Preprocess

SIZE = 8


class MeanColour:
    """Features: the mean red, green and blue of a picture, each plus one so that black has a direction."""

    name = "mean colour"
    dim = 3

    def __init__(self) -> None:
        self.pictures = 0

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.pictures += len(pixels)
        means: NDArray[np.float32] = pixels.mean(axis=(1, 2), dtype=np.float32)
        return means + np.float32(1)


def mean_colour_encoder(fingerprint: str = "e" * 64) -> Encoder:
    third = (1 / 3, 1 / 3, 1 / 3)
    squash = Preprocess(size=(SIZE, SIZE), fit="squash", crop_pct=1.0, mean=third, std=third, interpolation="bilinear")
    return Encoder(model="mean-colour", fingerprint=fingerprint, preprocess=squash, runtime=MeanColour())


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (16, 16)) -> Path:
    """One picture of one colour; the format follows the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def by_hand(colour: tuple[int, int, int]) -> NDArray[np.float64]:
    """The unit vector of a picture of one colour."""
    raw = np.array(colour, dtype=np.float64) + 1
    return raw / np.linalg.norm(raw)


def paint_pictures(folder: Path, pictures: int) -> int:
    """So many pictures, and one that is none for every twenty of them; how many those are."""
    random = np.random.default_rng(7)
    for n in range(pictures):
        red, green, blue = (int(value) for value in random.integers(0, 256, 3))
        paint(folder / f"{n % 7}/{n}.png", (red, green, blue))
    for n in range(pictures // 20):
        (folder / f"bad {n}.jpg").write_bytes(b"\xff\xd8\xff no picture")
    return pictures // 20
