"""Training, pictures a second (P12): `python -m bench.train`.

The same network, batch, precision and optimizer, end to end from files, some steps at a time, interleaved:
- timm's loader with the settings of its own training script (Pillow, RandomResizedCrop, RandAugment, random erasing, workers)
- binsight: pictures decoded once into the cache (before the first round), augmented as whole batches, Lightning around it, one
  epoch with its validation
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.report import Figure, tell
from binsight.data.labelled import open_labelled
from binsight.data.splits import make_split, write_split
from binsight.mixed_precision import has_bf16
from binsight.train.config import TrainConfig

ROOT = Path(__file__).resolve().parents[1]


def timm_rate(model: nn.Module, folder: Path, batch: int, steps: int, workers: int) -> float:
    """Pictures a second of a plain loop over timm's loader."""
    import timm

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = timm.data.create_dataset("", root=str(folder), split="train", is_training=True)
    loader: Any = timm.data.create_loader(
        dataset, input_size=(3, 224, 224), batch_size=batch, is_training=True, use_prefetcher=device.type == "cuda",
        num_workers=workers, auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25, interpolation="bicubic", device=device,
    )  # fmt: skip
    model = model.to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    done, started = 0, 0.0
    while True:
        for pictures, labels in loader:
            if done == 2:  # two steps to warm up
                started = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda" or has_bf16()):
                logits = model(pictures.to(device, memory_format=torch.channels_last))
            loss = nn.functional.cross_entropy(logits.float(), labels.to(device))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            done += 1
            if done == steps + 2:
                return batch * steps / (time.perf_counter() - started)


def our_rate(config: TrainConfig) -> float:
    """Pictures a second of one epoch with its validation; decoding was done before."""
    from binsight.train.run import train

    return train(config).images_per_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    data = Path(os.environ.get("BINSIGHT_DATA") or ROOT.parent / "shared/data")
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    import timm

    parts = open_labelled(str(options.data / "pc_parts"))
    rates: dict[str, list[float]] = {"timm": [], "ours": []}
    with tempfile.TemporaryDirectory(prefix="binsight-bench-") as name:
        folder = Path(name)
        split = make_split(parts, by="random", fractions=(80, 10, 10))
        write_split(split, folder / "split.csv")
        epoch = len(split.of("train")) // options.batch
        for number in range(options.rounds):
            network = timm.create_model(options.backbone, num_classes=14)
            rates["timm"].append(timm_rate(network, options.data / "pc_parts", options.batch, options.steps, options.workers))
            config = TrainConfig.checked({
                "data": str(options.data / "pc_parts"), "split": folder / "split.csv", "out": folder / f"m{number}",
                "backbone": options.backbone, "pretrained": False, "epochs": 1, "batch_size": options.batch,
                "embedding_weight": 0, "embedding": 0, "drop_path": 0, "mixup": 0,
            })  # fmt: skip
            rates["ours"].append(our_rate(config))
    figures = [Figure.median(f"{who}: training", found, "images/s") for who, found in rates.items()]
    ratio = [mine / theirs for mine, theirs in zip(rates["ours"], rates["timm"], strict=True)]
    figures.append(Figure.median("P12 ours / timm's loader and settings", ratio, "x", ">= 1.3"))
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    tell("train", figures, as_json=options.json, backbone=options.backbone, batch=options.batch, device=where, epoch=epoch)


if __name__ == "__main__":
    main()
