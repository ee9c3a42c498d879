"""A few drawn pictures with counts, products or classes, their split, and settings for runs of seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from binsight.train.config import TrainConfig

N_TRAIN, N_VAL = 16, 8


def draw(count: int, seed: int, side_px: int = 40) -> Image.Image:
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (side_px, side_px), (200, 190, 170))
    pen, cell = ImageDraw.Draw(picture), side_px // 3
    for place in rng.permutation(9)[:count]:
        left, top = place % 3 * cell + 1, place // 3 * cell + 1
        red, green, blue = (int(value) for value in rng.integers(0, 130, 3))
        pen.ellipse([left, top, left + cell - 3, top + cell - 3], fill=(red, green, blue))
    return picture


def counted(root: Path, *, most: int = 4) -> dict[str, Any]:
    """A manifest of 24 pictures with 1 … most items, two and two with a product in common; data and split as settings."""
    root.mkdir(parents=True, exist_ok=True)
    rows, split = ["path,count,products"], ["path,split,group,count"]
    for number in range(N_TRAIN + N_VAL):
        count = number % most + 1
        draw(count, number).save(root / f"{number:02}.png")
        rows.append(f"{number:02}.png,{count},P{number // 2}")
        split.append(f"{number:02}.png,{'train' if number < N_TRAIN else 'val'},P{number // 2},{count}")
    (root / "all.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (root / "split.csv").write_text("\n".join(split) + "\n", encoding="utf-8")
    return {"data": str(root / "all.csv"), "split": root / "split.csv"}


def classed(root: Path, *, val_only: str = "") -> dict[str, Any]:
    """Folders of two classes, with few and with many items. val_only: one more class without a training picture."""
    split = ["path,split,group,label"]
    for number in range(N_TRAIN + N_VAL):
        label, part = ("few", "many")[number % 2], "train" if number < N_TRAIN else "val"
        if val_only and number == N_TRAIN:
            label = val_only
        (root / "in" / label).mkdir(parents=True, exist_ok=True)
        draw(1 if label == "few" else 8, number).save(root / "in" / label / f"{number:02}.png")
        split.append(f"{label}/{number:02}.png,{part},{number},{label}")
    (root / "split.csv").write_text("\n".join(split) + "\n", encoding="utf-8")
    return {"data": str(root / "in"), "split": root / "split.csv"}


def settings(source: dict[str, Any], out: Path, **others: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "out": out, "backbone": "test_efficientnet_ln", "pretrained": False, "size": 32, "epochs": 2, "batch_size": 8,
        "embedding": 8, "max_count": 5, "precision": "fp32", "device": "cpu", "threads": 1, "warmup": 0.0,
    }  # fmt: skip
    return TrainConfig.checked({**values, **source, **others})
