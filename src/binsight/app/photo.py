"""A visitor's photo: read through the one door for untrusted bytes, whole or the part that was chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from binsight import images
from binsight.errors import BadImage, BadSettings
from binsight.images import ImageLike, Limits

MOST_PHOTO_BYTES = 20 * 2**20
LIMITS = Limits(max_bytes=MOST_PHOTO_BYTES, max_pixels=25_000_000)  # as the API's
_LEAST_SIDE_PX = 8


def is_number(value: object) -> bool:
    """Whether it is a number that one can reckon with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of a picture: its edges in percent of width and height, from the left and from the top."""

    left: float = 0.0
    top: float = 0.0
    right: float = 100.0
    bottom: float = 100.0

    def __post_init__(self) -> None:
        """Raises BadSettings for what is no number from 0 to 100: a browser may send anything."""
        edges = self.left, self.top, self.right, self.bottom
        if not all(is_number(edge) and 0 <= edge <= 100 for edge in edges):
            told = ", ".join(str(edge)[:20] for edge in edges)
            raise BadSettings(f"want the edges of a crop in percent, from 0 to 100, got {told}")

    @property
    def is_whole(self) -> bool:
        return self == Crop()


def read_photo(path: str, crop: Crop = Crop()) -> ImageLike:
    """What a model is given: the file's own bytes, of which only the header was looked at, or the pixels of a part of it.

    Raises BadImage for what is no picture or too large, BadSettings for a crop that leaves nothing.
    """
    data = _read(path)
    if crop.is_whole:
        images.size_of(data, limits=LIMITS)  # whose limits are not the library's
        return data
    pixels = images.load(data, limits=LIMITS)
    left, top, right, bottom = box(crop, pixels.shape[1], pixels.shape[0])
    return pixels[top:bottom, left:right].copy()


def size_of(path: str) -> tuple[int, int]:
    """Width and height of a photo, upright. Raises BadImage."""
    height, width = images.size_of(_read(path), limits=LIMITS)
    return width, height


def _read(path: str) -> bytes:
    if not Path(path).exists():
        raise BadImage("it was thrown away, as uploads are after an hour; choose it again")
    return images.read_file(path, limits=LIMITS)[0]


def box(crop: Crop, width: int, height: int) -> tuple[int, int, int, int]:
    """The crop in pixels: left, top, right, bottom. Raises BadSettings where it is narrower than a few of them.

    >>> box(Crop(25, 0, 75, 50), 400, 200)
    (100, 0, 300, 100)
    """
    left, right = round(crop.left * width / 100), round(crop.right * width / 100)
    top, bottom = round(crop.top * height / 100), round(crop.bottom * height / 100)
    if right - left < min(_LEAST_SIDE_PX, width) or bottom - top < min(_LEAST_SIDE_PX, height):
        raise BadSettings("the crop leaves nothing of the picture; move its right edge right, or its left edge left")
    return left, top, right, bottom


def tapped(place: object) -> tuple[float, float]:
    """Where a picture was tapped, in pixels, as a browser says it. Raises BadSettings."""
    if not (isinstance(place, list | tuple) and len(place) == 2 and all(map(is_number, place))):
        raise BadSettings("want the place that was tapped, got something else; load the page again")
    return place[0], place[1]


def around(x_share: float, y_share: float, crop: Crop, *, factor: float = 0.6) -> Crop:
    """A crop of `factor` times the size of another, around a point that was tapped; kept within the picture.

    x_share, y_share: where in the whole picture, from 0 to 1.

    >>> around(0.5, 0.1, Crop())
    Crop(left=20.0, top=0.0, right=80.0, bottom=60.0)
    """
    left, right = _span(100 * x_share, factor * (crop.right - crop.left))
    top, bottom = _span(100 * y_share, factor * (crop.bottom - crop.top))
    return Crop(left, top, right, bottom)


def _span(centre: float, size: float) -> tuple[float, float]:
    size = min(max(size, 5.0), 100.0)
    low = min(max(centre - size / 2, 0.0), 100.0 - size)
    return round(low, 1), round(low + size, 1)
