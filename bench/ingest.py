"""Files in, vectors durable (P1, P2, P3, P13): `python -m bench.ingest --model local-dir:…/resnet50`.

Compared, interleaved, on the same files:
- the plain loop: Pillow, timm's transform, batches of one, fp32 torch, vectors into a list
- a DataLoader loop: two workers, Pillow, timm's transform, batches of 64, bf16 autocast, one .npy at the end
- binsight: `ingest` into a local store, every batch durable

P3 and P13 take all files of the source, the others `--files` of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import Figure, tell
from binsight.encoder import Encoder, load_encoder
from binsight.ingest import ingest, list_sources
from binsight.records import Item
from binsight.store import open_store
from binsight.vectors import normalise


def torch_model(name: str) -> tuple[Any, Any]:
    """The same network in timm and timm's own transform for it."""
    import timm

    model = timm.create_model(name, pretrained=True, num_classes=0).eval()
    config = timm.data.resolve_model_data_config(model)
    return model, timm.data.create_transform(**config, is_training=False)


def plain_loop(model: Any, transform: Any, files: list[Path]) -> Any:
    import torch
    from PIL import Image

    found = []
    with torch.inference_mode():
        for path in files:
            with Image.open(path) as image:
                found.append(model(transform(image.convert("RGB"))[None])[0].numpy())
    return normalise(np.stack(found))


class Files:
    """A torch dataset of decoded, transformed files."""

    def __init__(self, files: list[Path], transform: Any) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        with Image.open(self.files[index]) as image:
            return self.transform(image.convert("RGB"))


def loader_loop(model: Any, transform: Any, files: list[Path], out: Path) -> None:
    import torch

    loader: Any = torch.utils.data.DataLoader(Files(files, transform), batch_size=64, num_workers=2)  # type: ignore[arg-type]
    found = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for batch in loader:
            found.append(model(batch.to(memory_format=torch.channels_last)).float().numpy())
    np.save(out, normalise(np.concatenate(found)))


def ours(encoder: Encoder, source: Path, store: Path) -> float:
    """Seconds, from the first file opened to the last durable commit."""
    shutil.rmtree(store, ignore_errors=True)
    with open_store(store, create=encoder.info) as opened:
        return ingest(list_sources([str(source)]), encoder, opened).took_s


def stages(encoder: Encoder, files: list[Path], folder: Path) -> dict[str, float]:
    """Images/s of each stage alone."""
    parts = [files[at : at + 8] for at in range(0, len(files), 8)]
    started = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        decoded = pool.map(lambda some: [encoder.preprocess.pixels(path.read_bytes()) for path in some], parts)
        pixels = np.stack([one for some in decoded for one in some])
    decode = time.perf_counter() - started
    started = time.perf_counter()
    vectors = np.concatenate([encoder.encode_pixels(pixels[at : at + 128]).vectors for at in range(0, len(pixels), 128)])
    model = time.perf_counter() - started
    shutil.rmtree(folder / "stage.store", ignore_errors=True)
    started = time.perf_counter()
    with open_store(folder / "stage.store", create=encoder.info) as store:
        for at in range(0, len(files), 128):
            store.upsert([Item(str(path)) for path in files[at : at + 128]], vectors[at : at + 128])
        upsert = time.perf_counter() - started
    return {name: len(files) / took for name, took in (("decode", decode), ("model", model), ("upsert", upsert))}


def reindex(encoder: Encoder, source: Path, folder: Path) -> float:
    """Time of a second run with 1% of all of the source's files changed, over the time of the first."""
    store = folder / "again.store"
    full = ours(encoder, source, store)
    files = sorted(source.rglob("*.jpg"))
    for path in files[:: max(1, len(files) // max(1, len(files) // 100))]:
        path.write_bytes(path.read_bytes() + b"\0")  # what follows a JPEG's end is allowed, and is a change
    with open_store(store) as opened:
        again = ingest(list_sources([str(source)]), encoder, opened)
    print(f"(re-index: {again.indexed} of {again.indexed + again.unchanged} changed, {again.took_s:.2f} s of {full:.2f} s)")
    return again.took_s / full


def copied(files: list[Path], folder: Path) -> Path:
    """A folder of copies, each still in a folder named as its own was."""
    for number, path in enumerate(files):
        target = folder / path.parent.name / f"{number}-{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(__file__).resolve().parents[2] / "shared"
    data = Path(os.environ.get("BINSIGHT_DATA") or shared / "data")
    weights = Path(os.environ.get("BINSIGHT_WEIGHTS") or shared / "weights")
    parser.add_argument("--model", default=f"local-dir:{weights / 'resnet50'}")
    parser.add_argument("--source", type=Path, default=data / "pc_parts")
    parser.add_argument("--files", type=int, default=512)
    parser.add_argument("--slow-files", type=int, default=96, help="of them, for the plain loop")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    import torch

    torch.set_num_threads(2)
    encoder = load_encoder(options.model)
    encoder.warm_up(128)
    model, transform = torch_model(options.model)
    fast = model.to(memory_format=torch.channels_last)
    figures = []
    with tempfile.TemporaryDirectory(prefix="binsight-bench-") as name:
        folder = Path(name)
        every = sorted(options.source.rglob("*.jpg"))
        source = copied(every[:: max(1, len(every) // options.files)][: options.files], folder / "pictures")
        whole = copied(every, folder / "all")
        files = sorted(source.rglob("*.jpg"))
        reference = plain_loop(model, transform, files[:64])
        with open_store(folder / "c.store", create=encoder.info) as store:
            ingest(list_sources([str(source)]), encoder, store)
            got = store.vectors_of([str(path.relative_to(source)) for path in files[:64]])
        cosines = np.einsum("ij,ij->i", reference, got)
        rates: dict[str, list[float]] = {"plain": [], "loader": [], "ours": [], "pipeline": []}
        for _ in range(options.rounds):
            started = time.perf_counter()
            plain_loop(model, transform, files[: options.slow_files])
            rates["plain"].append(options.slow_files / (time.perf_counter() - started))
            started = time.perf_counter()
            loader_loop(fast, transform, files, folder / "out.npy")
            rates["loader"].append(len(files) / (time.perf_counter() - started))
            rates["ours"].append(len(files) / ours(encoder, source, folder / "o.store"))
            alone = stages(encoder, sorted(whole.rglob("*.jpg")), folder)
            rates["pipeline"].append(len(every) / ours(encoder, whole, folder / "o.store") / min(alone.values()))
        figures += [Figure.median(f"{name} images/s", rates[name], "images/s") for name in ("plain", "loader", "ours")]
        ratio = [mine / other for mine, other in zip(rates["ours"], rates["plain"], strict=True)]
        figures.append(Figure.median("P1 ours / plain loop", ratio, "x", ">= 8"))
        figures.append(Figure("P1 mean cosine to fp32", float(cosines.mean()), "", ">= 0.999"))
        figures.append(Figure("P1 least cosine to fp32", float(cosines.min()), ""))
        ratio = [mine / other for mine, other in zip(rates["ours"], rates["loader"], strict=True)]
        figures.append(Figure.median("P2 ours / DataLoader loop", ratio, "x", ">= 3"))
        figures.append(Figure.median("P3 end to end / slowest stage alone", rates["pipeline"], "x", ">= 0.90"))
        figures += [Figure(f"stage alone: {name}", rate, "images/s") for name, rate in alone.items()]
        again = reindex(encoder, whole, folder)
        figures.append(Figure("P13 re-index with 1% changed / full", again, "x", "<= 0.02"))
    tell("ingest", figures, as_json=options.json, model=Path(options.model).name, files=len(files), runtime=encoder.runtime)


if __name__ == "__main__":
    main()
