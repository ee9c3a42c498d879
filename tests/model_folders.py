"""Small networks with random weights, saved as the timm `local-dir` folders that users have, and as our own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from binsight import backbone, checkpoint, network
from binsight.checkpoint import Checkpoint, Heads
from binsight.model_folder import write_model
from binsight.network import BinNet
from binsight.preprocess import Preprocess

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def make_model_folder(
    folder: Path,
    *,
    architecture: str = "test_efficientnet",
    size: int = 96,
    model_args: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """A folder with config.json and model.safetensors; the classifier has seven classes.

    config: keys of config.json to replace.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = timm.create_model(architecture, pretrained=False, num_classes=7, **(model_args or {}))
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in built.state_dict().items()}
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")
    written = {
        "architecture": architecture,
        "num_classes": 7,
        "num_features": built.num_features,
        "model_args": dict(model_args or {}),
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "interpolation": "bilinear",
            "crop_pct": 0.9,
            "mean": list(MEAN),
            "std": list(STD),
            "num_classes": 7,
            "classifier": built.pretrained_cfg["classifier"],
            "first_conv": built.pretrained_cfg["first_conv"],
        },
        **(config or {}),
    }
    (folder / "config.json").write_text(json.dumps(written), encoding="utf-8")
    return folder


def timms_features(folder: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What timm itself says of uint8 (n, h, w, 3), loading the folder its own way: unit rows, fp32."""
    built = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    cfg = built.pretrained_cfg
    planes = (pixels / 255 - np.array(cfg["mean"])) / np.array(cfg["std"])
    with torch.inference_mode():
        features = built(torch.from_numpy(planes.transpose(0, 3, 1, 2).astype(np.float32))).numpy()
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True), np.float32)


def make_binsight_folder(
    folder: Path,
    heads: Heads,
    *,
    architecture: str = "test_efficientnet",
    size: int = 64,
    licence: str = "Apache-2.0",
    half: bool = True,
    seed: int = 0,
    has_pyramid: bool = False,
) -> tuple[Checkpoint, BinNet]:
    """A folder of ours with random weights, and the network that was written, in eval mode; its logits differ by picture."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = backbone.random_config(
            architecture, Preprocess(size=(size, size), mean=MEAN, std=STD, interpolation="bilinear")
        )
        config = replace(config, pooling=checkpoint.PYRAMID) if has_pyramid else config
        net = network.build(config, heads.sizes).eval().requires_grad_(False)
        for name in heads.sizes.keys() - {"embedding"}:
            torch.nn.init.normal_(net.get_parameter(f"{name}.weight"))
    written = write_model(folder, net, config, heads, training={"seed": seed}, licence=licence, card="# Card\n", half=half)
    return written, net
