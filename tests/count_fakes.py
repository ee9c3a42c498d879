"""A model whose counts, classes and vectors one reads off a picture's colour, and sets of pictures to judge it on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from time import sleep

import numpy as np
from numpy.typing import NDArray

from binsight import vectors
from binsight.checkpoint import Heads
from binsight.counting import Calibration
from binsight.data.splits import Split, SplitRow
from binsight.encoder import Encoder
from binsight.preprocess import Preprocess
from binsight.records import Encoded, StoreInfo
from tests.fakes import SIZE, paint

STEP = 40  # of red: one item more
CLASSES = ("red", "green", "blue")


class ColourReader:
    """Counts red / 40 items with probability 0.8, one more with 0.2 (up to 5 and "more"); names the strongest channel.

    A class has its channel's share of the light. heads: which of count and label it answers.
    """

    def __init__(self, heads: Iterable[str] = ("count", "label")) -> None:
        half = (0.5, 0.5, 0.5)
        squash = Preprocess(size=(SIZE, SIZE), fit="squash", crop_pct=1.0, mean=half, std=half, interpolation="bilinear")
        self.preprocess = squash
        self.info = StoreInfo(dim=3, fingerprint="c" * 64, model="colour-reader")
        self.heads = frozenset(heads)
        self.load_s = 0.0

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> Encoded:
        means = pixels.mean(axis=(1, 2), dtype=np.float64)  # (n, 3)
        items = np.clip(np.rint(means[:, 0] / STEP).astype(int), 0, 5)
        chances = np.full((len(pixels), 7), 1e-9)
        chances[np.arange(len(pixels)), items] = 0.8
        chances[np.arange(len(pixels)), items + 1] = 0.2
        shares = (means + 1) / (means + 1).sum(axis=1, keepdims=True)
        named = [tuple(sorted(zip(CLASSES, row, strict=True), key=lambda one: -one[1])) for row in shares.tolist()]
        return Encoded(
            vectors.normalise(means + 1),
            Calibration("softmax", 5, threshold=0.9).counts(np.log(chances)) if "count" in self.heads else None,
            named if "label" in self.heads else None,
        )


def count_folders(root: Path, shown: dict[str, int]) -> Path:
    """Pictures `COUNT/NAME.png` that the reader takes for these many items."""
    for uri, items in shown.items():
        paint(root / uri, (items * STEP, 30, 10))
    return root


def whole_split(uris: Iterable[str], *, counts: bool = True, split: str = "test") -> Split:
    """A split that puts all pictures into one part; each is a group. Folders are counts, or classes."""
    rows = []
    for uri in sorted(uris):
        folder = uri.split("/")[0]
        rows.append(SplitRow(uri, split, uri, int(folder) if counts else None, None if counts else folder))
    return Split(tuple(rows), "group", (100.0,), None)


class ColourCounter:
    """A runtime with a count head: red / 40 items with probability 0.8, one more with 0.2 (up to 5 and "more").

    delay_s: how long a batch takes.
    """

    name = "colour counter"
    dim = 3

    def __init__(self, delay_s: float = 0.0) -> None:
        self.pictures = 0
        self._delay_s = delay_s

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.run_heads(pixels)["embedding"]

    def run_heads(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        self.pictures += len(pixels)
        sleep(self._delay_s)
        means = pixels.mean(axis=(1, 2), dtype=np.float32)  # (n, 3)
        items = np.clip(np.rint(means[:, 0] / STEP).astype(int), 0, 5)
        chances = np.full((len(pixels), 7), 1e-9, np.float32)
        chances[np.arange(len(pixels)), items] = 0.8
        chances[np.arange(len(pixels)), items + 1] = 0.2
        return {"embedding": means + np.float32(1), "count": np.log(chances)}


def counting_encoder(fingerprint: str = "d" * 64, *, delay_s: float = 0.0) -> Encoder:
    half = (0.5, 0.5, 0.5)
    squash = Preprocess(size=(SIZE, SIZE), fit="squash", crop_pct=1.0, mean=half, std=half, interpolation="bilinear")
    heads = Heads(count=Calibration("softmax", 5, threshold=0.9))
    runtime = ColourCounter(delay_s)
    return Encoder(model="colour-counter", fingerprint=fingerprint, preprocess=squash, runtime=runtime, heads=heads)
