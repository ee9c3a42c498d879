"""What happens to a picture before a model sees it: size, fit, resampling, mean and deviation. It travels with the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from binsight.errors import BadSettings
from binsight.images import DEFAULT_LIMITS, Decoded, ImageLike, Limits, Pixels, decode

try:
    import cykooz_resizer as resizer  # type: ignore[import-untyped]
except ImportError:  # no wheel for Linux on ARM: Pillow's pixels differ by 0.15/255 and take four times as long
    resizer = None

Fit: TypeAlias = Literal["crop", "squash", "pad"]
Interpolation: TypeAlias = Literal["bilinear", "bicubic", "lanczos"]
Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom
Window: TypeAlias = tuple[int, int, int, int]  # top, left, rows, columns

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LARGEST_SIDE_PX = 4096

# A JPEG is decoded at 1/2, 1/4 or 1/8 as long as it stays this much larger than what is made of it. Against full decode of bin
# photos (bicubic; mean difference in 1/255, and of the worst photo): 1 to 1.1 times larger 1.03, 2.2; 1.1 to 1.25 times 0.79,
# 1.6; 1.25 to 1.5 times 0.57, 1.2; 1.5 to 2 times 0.37, 0.6; 2 to 3 times 0.25, 0.4. The 284 originals squashed to 224 px:
# 0.24, 0.86. Half of 391 pixels is 195.5, though 196 come out: without that (Decoded.box) the differences are twice as large.
LEAST_OVERSIZE = 1.25


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the input of a model.

    size: (height, width) in pixels. fit: `crop` scales the picture to cover a canvas, and its margins are lost; `squash` scales
    each side by itself; `pad` scales it to lie within the canvas, on a ground of `mean`, which the model sees as 0. The canvas
    is `size` / `crop_pct`, rounded down, and its centre is kept. These are the crop modes center, squash and border of timm's
    evaluation transform, with its rounding. mean, std: for each channel, of values in [0, 1]. interpolation: the filter, made
    wider where it shrinks (antialiasing), as in Pillow.
    Raises BadSettings for a value out of range.

    >>> Preprocess((224, 224)).pixels(np.zeros((300, 400, 3), np.uint8)).shape
    (224, 224, 3)
    """

    size: tuple[int, int] = (224, 224)
    fit: Fit = "squash"
    crop_pct: float = 1.0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        # One form, so that equal settings give equal JSON and equal fingerprints, be they lists, tuples or whole numbers.
        size = _numbers("size", self.size, 2, 1, LARGEST_SIDE_PX)
        if any(side % 1 for side in size):
            raise BadSettings(f"want size to be two whole numbers (height, width), got {self.size!r}")
        object.__setattr__(self, "size", (int(size[0]), int(size[1])))
        object.__setattr__(self, "crop_pct", _numbers("crop_pct", [self.crop_pct], 1, 0.1, 1.0)[0])
        object.__setattr__(self, "mean", _numbers("mean", self.mean, 3, 0.0, 1.0))
        object.__setattr__(self, "std", _numbers("std", self.std, 3, 0.001, 10.0))
        _one_of("fit", self.fit, get_args(Fit))
        _one_of("interpolation", self.interpolation, get_args(Interpolation))

    @classmethod
    def from_timm(cls, pretrained_cfg: Mapping[str, Any]) -> Preprocess:
        """From timm's description of its pretrained weights, with timm's own defaults for what it leaves out."""
        given = pretrained_cfg.get("input_size") or (3, 224, 224)
        if not isinstance(given, list | tuple) or len(given) != 3:
            raise BadSettings(f"want input_size to be channels, height and width, got {given!r}")
        channels, *size = given
        if channels != 3:
            raise BadSettings(f"want a model of 3 channels, got {channels}")
        modes: dict[str, Fit] = {"center": "crop", "squash": "squash", "border": "pad"}
        mode = pretrained_cfg.get("crop_mode") or "center"
        _one_of("crop_mode", mode, tuple(modes))
        return cls(
            size=tuple(size),
            fit=modes[mode],
            crop_pct=pretrained_cfg.get("crop_pct") or 0.875,
            mean=pretrained_cfg.get("mean") or IMAGENET_MEAN,
            std=pretrained_cfg.get("std") or IMAGENET_STD,
            interpolation=pretrained_cfg.get("interpolation") or "bicubic",
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preprocess:
        """What `to_json` gave. Raises BadSettings for a key that is missing or unknown."""
        names = {field.name for field in fields(cls)}
        if values.keys() != names:
            raise BadSettings(
                f"want the keys {', '.join(sorted(names))} in preprocess, got {', '.join(sorted(map(str, values)))}"
            )
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; equal settings give equal objects."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def pixels(self, image: ImageLike, *, limits: Limits = DEFAULT_LIMITS) -> Pixels:
        """The picture at `size`: uint8 (height, width, 3), contiguous and the caller's own.

        Raises BadImage as `images.load`. Safe to call from many threads at once, which run side by side: decoding and
        resampling leave the interpreter free.
        """
        least = math.ceil(LEAST_OVERSIZE * self._canvas[0]), math.ceil(LEAST_OVERSIZE * self._canvas[1])
        decoded = decode(image, limits=limits, at_least=least)
        scaled = self._scaled(decoded.height, decoded.width)
        top, margin_top, rows = _centre(self.size[0], scaled[0])
        left, margin_left, columns = _centre(self.size[1], scaled[1])
        pixels = _resample(decoded, scaled, (top, left, rows, columns), self.interpolation)
        if (rows, columns) == self.size:
            return pixels.copy() if pixels is image else np.require(pixels, requirements=("C", "W", "O"))
        ground = np.empty((*self.size, 3), np.uint8)
        ground[:] = [round(255 * value) for value in self.mean]
        ground[margin_top : margin_top + rows, margin_left : margin_left + columns] = pixels
        return ground

    def normalised(self, pixels: Pixels) -> NDArray[np.float32]:
        """(pixels / 255 − mean) / std, channels first: the reference for what a runtime does inside its graph.

        pixels: uint8 (n, h, w, 3). Returns float32 (n, 3, h, w).
        """
        values = np.arange(256)[:, None] / 255  # (256, 1)
        table = ((values - self.mean) / self.std).astype(np.float32)  # (256, 3)
        return np.stack([table[pixels[..., channel], channel] for channel in range(3)], axis=1)

    @property
    def _canvas(self) -> tuple[int, int]:
        return math.floor(self.size[0] / self.crop_pct), math.floor(self.size[1] / self.crop_pct)

    def _scaled(self, height: int, width: int) -> tuple[int, int]:
        """The size that a picture of this size is scaled to, before its centre is kept."""
        canvas = self._canvas
        if self.fit == "squash":
            return canvas
        if self.fit == "crop" and canvas[0] == canvas[1]:  # torchvision's Resize rounds down, timm's ResizeKeepRatio to nearest
            short = canvas[0]
            return (short, int(short * width / height)) if height <= width else (int(short * height / width), short)
        ratios = height / canvas[0], width / canvas[1]
        ratio = min(ratios) if self.fit == "crop" else max(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))


def _numbers(name: str, values: object, count: int, least: float, most: float) -> tuple[float, ...]:
    given = tuple(values) if isinstance(values, list | tuple) else ()
    if len(given) != count or not all(type(v) in (int, float) and least <= v <= most for v in given):
        raise BadSettings(f"want {name} to be {count} number(s) of {least:g} to {most:g}, got {values!r}")
    return tuple(float(v) for v in given)


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise BadSettings(f"want {name} to be one of {', '.join(choices)}, got {value!r}")


def _centre(kept: int, scaled: int) -> tuple[int, int, int]:
    """Where the kept part begins in the scaled side, the margin before it where it is too short, and its length."""
    if scaled >= kept:
        return round((scaled - kept) / 2), 0, kept
    return 0, (kept - scaled) // 2, scaled


def _resample(decoded: Decoded, scaled: tuple[int, int], window: Window, interpolation: Interpolation) -> Pixels:
    """What shows in the window of the picture, were it scaled to (height, width). May be a view of the decoded pixels."""
    top, left, rows, columns = window
    pixels, box = decoded.pixels, decoded.box
    whole = box == (0, 0, pixels.shape[1], pixels.shape[0])
    if whole and scaled == pixels.shape[:2]:
        return pixels if (rows, columns) == scaled else pixels[top : top + rows, left : left + columns]
    # The fast resampler is only asked for whole pictures, or to shrink what is a row and a column less: cykooz_resizer 4.0.1
    # ends in a segmentation fault for some boxes inside a picture (57 × 83 pixels, a box of 0.9 × 54.3 of them to 2 × 121).
    # Where little of a large scaled picture shows (of one 30,000 × 1), Pillow with its box is faster anyway.
    shrinks = box[2] - box[0] >= scaled[1] and box[3] - box[1] >= scaled[0]
    if resizer is not None and (whole or shrinks) and scaled[0] * scaled[1] <= 4 * rows * columns:
        return _resized(pixels, None if whole else box, scaled, interpolation)[top : top + rows, left : left + columns]
    across, down = (box[2] - box[0]) / scaled[1], (box[3] - box[1]) / scaled[0]
    shown = (
        box[0] + left * across,
        box[1] + top * down,
        min(box[0] + (left + columns) * across, pixels.shape[1]),  # rounding errors
        min(box[1] + (top + rows) * down, pixels.shape[0]),
    )
    filters = {
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
        "lanczos": Image.Resampling.LANCZOS,
    }
    return np.asarray(Image.fromarray(pixels).resize((columns, rows), filters[interpolation], box=shown))


def _resized(pixels: Pixels, box: Box | None, size: tuple[int, int], interpolation: Interpolation) -> Pixels:
    kernels = {
        "bilinear": resizer.FilterType.bilinear,
        "bicubic": resizer.FilterType.catmull_rom,  # a = −0.5, as Pillow's
        "lanczos": resizer.FilterType.lanczos3,
    }
    options = resizer.ResizeOptions(
        resize_alg=resizer.ResizeAlg.convolution(kernels[interpolation]),
        crop_box=resizer.CropBox(box[0], box[1], box[2] - box[0], box[3] - box[1]) if box else None,
    )
    source = resizer.ImageData(pixels.shape[1], pixels.shape[0], resizer.PixelType.U8x3, pixels.tobytes())
    target = resizer.ImageData(size[1], size[0], resizer.PixelType.U8x3)
    resizer.Resizer().resize(source, target, options)  # of its own: one shared by threads is locked by the one that uses it
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(*size, 3)
