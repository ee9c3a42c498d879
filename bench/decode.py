"""Decode and resize against Pillow (P4): `python -m bench.decode`.

Compared, interleaved, on the same bytes: `Image.open(…).convert("RGB").resize((224, 224), filter)` and `Preprocess.pixels`, the
whole picture squashed. Times are processor time of the one thread that works, so that neighbours on the machine hardly count.
The difference is that of the pixels, in 1/255: its mean over all photos, and the mean of the worst photo.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from bench.report import Figure, tell
from binsight.images import Pixels
from binsight.preprocess import Interpolation, Preprocess

SIZE = 224
FILTERS: dict[Interpolation, Image.Resampling] = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
FOLDERS = {"bins, originals": "abid/originals", "PC parts, 256 px": "pc_parts", "bins, 224 px": "abid/bin-images"}


def generated(count: int, height: int, width: int) -> list[bytes]:
    """JPEG files of soft shapes under grain, about 60 KB at 500 × 450 like the real ones."""
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        soft = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        grain = rng.normal(0, 7, (height, width, 1))
        out = io.BytesIO()
        Image.fromarray(np.clip(np.asarray(soft) + grain, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=87)
        found.append(out.getvalue())
    return found


def photos(data: Path, most: int) -> dict[str, list[bytes]]:
    """Files by what they are: the real ones where they lie, and photos as a phone takes them, which are generated."""
    found = {}
    for name, folder in FOLDERS.items():
        files = sorted((data / folder).rglob("*.jpg"))
        if files:
            found[name] = [file.read_bytes() for file in files[:: max(1, len(files) // most)][:most]]
    found = found or {"generated, 500 px": generated(min(most, 60), 500, 450)}
    return found | {"generated, 12 megapixels": generated(3, 3000, 4000)}


def pillow(data: bytes, interpolation: Interpolation) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((SIZE, SIZE), FILTERS[interpolation]))


def ms_each(work: Callable[[bytes], Pixels], files: Sequence[bytes]) -> float:
    started = time.thread_time()
    for data in files:
        work(data)
    return (time.thread_time() - started) / len(files) * 1e3


def files_per_s(work: Callable[[bytes], Pixels], files: Sequence[bytes], threads: int) -> float:
    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        list(pool.map(work, files))
        return len(files) / (time.perf_counter() - started)


def compared(name: str, files: Sequence[bytes], interpolation: Interpolation, rounds: int) -> list[Figure]:
    made = Preprocess((SIZE, SIZE), interpolation=interpolation)

    def theirs(data: bytes) -> Pixels:
        return pillow(data, interpolation)

    pairs = [(ms_each(theirs, files), ms_each(made.pixels, files)) for _ in range(rounds)]
    apart = [float(np.abs(made.pixels(data).astype(int) - theirs(data)).mean()) for data in files]
    resized = Image.open(io.BytesIO(files[0])).size != (SIZE, SIZE)  # else there is only decoding to compare
    label = f"{name}, {interpolation}"
    return [
        Figure.median(f"{label}: Pillow", [their for their, _ in pairs], "ms"),
        Figure.median(f"{label}: binsight", [our for _, our in pairs], "ms"),
        Figure.median(f"{label}: times as fast", [their / our for their, our in pairs], "x", ">= 2" if resized else ""),
        Figure(f"{label}: mean difference", float(np.mean(apart)), "/255", "<= 1"),
        Figure(f"{label}: mean difference of the worst photo", max(apart), "/255"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    data = os.environ.get("BINSIGHT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--files", type=int, default=300, help="of each kind, at most")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = []
    kinds = photos(options.data, options.files)
    for name, files in kinds.items():
        for interpolation in FILTERS:
            figures += compared(name, files, interpolation, options.rounds)
    name, files = next(iter(kinds.items()))
    made = Preprocess((SIZE, SIZE))
    speedups = [files_per_s(made.pixels, files, 2) / files_per_s(made.pixels, files, 1) for _ in range(options.rounds)]
    figures.append(Figure.median(f"{name}: two threads against one", speedups, "x"))
    tell("decode", figures, as_json=options.json, size=SIZE, files={name: len(files) for name, files in kinds.items()})


if __name__ == "__main__":
    main()
