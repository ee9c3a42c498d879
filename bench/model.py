"""The model alone: `python -m bench.model`.

Pictures a second from pixels in memory, interleaved over several rounds: OpenVINO as `load_encoder` runs it, and torch eager
(one picture at a time and 64) and compiled. The cosine is to torch in float32 on photos, or on made pictures where there are
none. A start is a new process, from its launch to its first vector, with an empty cache (first) and a filled one (second).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.report import Figure, tell
from binsight import checkpoint, network
from binsight.encoder import Encoder, load_encoder
from binsight.mixed_precision import dead_leaves, has_bf16
from binsight.vectors import normalise

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
FIRST_VECTOR = (
    "import sys; from binsight.encoder import load_encoder; e = load_encoder(sys.argv[1], device='cpu'); "
    "e.encode([sys.argv[2]]); assert sys.argv[3] == 'first' or 'torch' not in sys.modules"
)


def torch_runs(folder: Path, *, compiled: bool) -> dict[str, Run]:
    """The same network as torch runs it."""
    import torch

    net = network.load(checkpoint.open_folder(folder))
    last = net.to(memory_format=torch.channels_last)

    def of(batch: int, *, bf16: bool, compile_it: bool = False) -> Run:
        module = torch.compile(last) if compile_it else last

        def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                parts = [module(torch.from_numpy(pixels[at : at + batch]))["embedding"] for at in range(0, len(pixels), batch)]
            return normalise(torch.cat(parts).numpy())

        return run

    runs = {"torch fp32, one at a time": of(1, bf16=False), "torch fp32, 64": of(64, bf16=False)}
    if has_bf16():
        runs["torch bf16, 64"] = of(64, bf16=True)
        if compiled:
            runs["torch bf16 compiled, 64"] = of(64, bf16=True, compile_it=True)
    return runs


def our_run(encoder: Encoder) -> Run:
    return lambda pixels: encoder.encode_pixels(pixels).vectors


def rates(runs: dict[str, Run], pixels: NDArray[np.uint8], rounds: int) -> dict[str, list[float]]:
    """Pictures a second of each, in each round; the first, uncounted round compiles."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            some = pixels[:16] if "one at a time" in name else pixels
            started = time.perf_counter()
            run(some)
            if number:
                found[name].append(len(some) / (time.perf_counter() - started))
    return found


def start_s(model: str, picture: Path, cache: Path, which: str) -> float:
    started = time.perf_counter()
    environment = {**os.environ, "BINSIGHT_CACHE": str(cache)}
    subprocess.run([sys.executable, "-c", FIRST_VECTOR, model, str(picture), which], check=True, env=environment)
    return time.perf_counter() - started


def photos(data: Path, encoder: Encoder, n: int, folder: Path) -> tuple[NDArray[np.uint8], Path]:
    """n pictures as pixels, and the file of one."""
    from PIL import Image

    files = sorted((data / "pc_parts").rglob("*.jpg"))
    if files:
        files = files[:: max(1, len(files) // n)][:n]
        return np.stack([encoder.preprocess.pixels(path) for path in files]), files[0]
    made = dead_leaves(n, encoder.preprocess.size)
    Image.fromarray(made[0]).save(folder / "one.jpg")
    return made, folder / "one.jpg"


def measured(folder: Path, data: Path, rounds: int, *, compiled: bool) -> list[Figure]:
    model, name = f"local-dir:{folder}", folder.name
    encoders = {"openvino fp32": load_encoder(model, device="cpu", precision="fp32", runtime="openvino")}
    if has_bf16():
        encoders["openvino bf16"] = load_encoder(model, device="cpu", precision="bf16", runtime="openvino")
    auto = load_encoder(model, device="cpu")
    if auto.runtime == "openvino bf16 and fp32 on cpu":
        encoders["openvino auto (mixed)"] = auto
    with tempfile.TemporaryDirectory(prefix="binsight-bench-") as scratch:
        pixels, picture = photos(data, auto, 64, Path(scratch))
        torch_ones = torch_runs(folder, compiled=compiled)
        runs = {**torch_ones, **{title: our_run(encoder) for title, encoder in encoders.items()}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.compile's own
            found = rates(runs, pixels, rounds)
        one = rates({"1": lambda batch: auto.encode_pixels(batch[:1]).vectors}, pixels, max(rounds, 9))["1"]
        starts = {"first": [], "second": []}  # type: dict[str, list[float]]
        for number in range(rounds):
            cache = Path(scratch) / f"cache-{number}"
            for which, taken in starts.items():
                taken.append(start_s(model, picture, cache, which))
    slow = found["torch fp32, one at a time"]
    reference = torch_ones["torch fp32, 64"](pixels)
    figures = []
    for title, values in found.items():
        figures.append(Figure.median(f"{name}: {title}", values, "images/s"))
        ratio = [fast / base for fast, base in zip(values, slow, strict=True)]
        figures.append(Figure.median(f"{name}: {title}, over torch fp32 one at a time", ratio, "x"))
    for title, encoder in encoders.items():
        agreed = (encoder.encode_pixels(pixels).vectors * reference).sum(axis=1)
        reach = ">= 0.999" if encoder.runtime == auto.runtime else ""
        figures.append(Figure(f"{name}: {title}, mean cosine to torch fp32", float(agreed.mean()), "", reach))
        figures.append(Figure(f"{name}: {title}, least cosine", float(agreed.min()), ""))
    figures.append(Figure.median(f"{name}: one picture, {auto.runtime}", [1000 * len(pixels) / rate for rate in one], "ms"))
    figures.append(Figure.median(f"{name}: first start to first vector", starts["first"], "s"))
    figures.append(Figure.median(f"{name}: second start to first vector", starts["second"], "s", "<= 3"))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(__file__).resolve().parents[2] / "shared"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("BINSIGHT_DATA") or shared / "data"))
    parser.add_argument("--weights", type=Path, default=Path(os.environ.get("BINSIGHT_WEIGHTS") or shared / "weights"))
    parser.add_argument("--models", nargs="+", default=["resnet50", "mobilenetv2_100"], help="folders under --weights")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compiled", action="store_true", help="torch.compile as well, which takes a minute a model")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    folders = [options.weights / name for name in options.models]
    if missing := [folder for folder in folders if not folder.is_dir()]:
        parser.error(f"no model folder at {missing[0]}: set BINSIGHT_WEIGHTS or --weights to where the timm folders lie")
    figures = [f for folder in folders for f in measured(folder, options.data, options.rounds, compiled=options.compiled)]
    tell("model", figures, as_json=options.json, cores=len(os.sched_getaffinity(0)))


if __name__ == "__main__":
    main()
