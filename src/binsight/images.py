"""A path, bytes, a Pillow image or an array in, RGB pixels out: the only door for untrusted bytes.

A file is taken in three steps. Its container is walked (containers.py), in code that allocates nothing by what the file claims:
lengths, checksums, the size of the picture. The size is held against `Limits`. Only then does a decoder see the file, and only
the parts that make up its first picture: no texts, profiles, thumbnails or later frames. So what makes decoders slow, large or
talkative (Pillow warns through process-wide state, which threads cannot silence) never reaches them.

JPEG is decoded by libjpeg-turbo through simplejpeg: the same pixels as Pillow in two thirds of its time, and told to stop at
the first sign of damage, where Pillow fills what is missing with grey. The other formats are decoded by Pillow.
"""

from __future__ import annotations

import io
import math
import os
import stat
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from binsight.containers import (
    MOST_PIXELS_PER_BYTE,
    UNQUESTIONED_PIXELS,
    WALKS,
    WHITE_IS_ZERO_16,
    Header,
    kind_of,
    orientation,
)
from binsight.errors import BadImage, BadSettings

Pixels: TypeAlias = NDArray[np.uint8]
ImageLike: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any]  # uint8, checked


@dataclass(frozen=True, slots=True)
class Limits:
    """What one picture may cost, checked against what its file claims before any pixel is allocated.

    Decoding takes up to 20 bytes a pixel (an animated WEBP; a JPEG 3 to 6). Raises BadSettings for a limit below 1.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 50_000_000
    max_side_px: int = 30_000

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_side_px"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise BadSettings(f"want {name} to be a whole number of at least 1, got {value!r}")


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Decoded:
    """Decoded pixels, upright, and which part of them is the picture.

    pixels: uint8 (h, w, 3). height, width: of the whole picture, upright. box: left, top, right, bottom of the picture within
    `pixels`: all of them, but for a JPEG decoded at 1/2, 1/4 or 1/8, whose outermost row and column cover less than a pixel.
    """

    pixels: Pixels
    height: int
    width: int
    box: tuple[float, float, float, float]


def load(image: ImageLike, *, limits: Limits = DEFAULT_LIMITS) -> Pixels:
    """The picture as uint8 (height, width, 3): RGB, upright, on white where it is transparent, the first frame of several.

    image: path | bytes | PIL.Image | uint8 array (h, w, 3). 16 bits a channel become the upper 8.
    Raises BadImage for anything else than a whole picture in one of `FORMATS`, saying in a clause what is wrong with it.

    >>> load(np.zeros((2, 3, 3), np.uint8)).shape
    (2, 3, 3)
    """
    return np.ascontiguousarray(decode(image, limits=limits).pixels)


def decode(image: ImageLike, *, limits: Limits = DEFAULT_LIMITS, at_least: tuple[int, int] | None = None) -> Decoded:
    """As `load`; where `at_least` is given, a JPEG may come smaller, but on neither side below that (height, width)."""
    if isinstance(image, np.ndarray):
        return _whole(_array(image, limits))
    if isinstance(image, Image.Image):
        _check_size(image.width, image.height, limits)
        return _whole(_upright(_pillow_pixels(lambda: image), orientation(image.info.get("exif"))))
    if isinstance(image, str | os.PathLike):
        return _decode_file(read_file(image, limits=limits)[0], limits, at_least)
    if isinstance(image, bytes | bytearray | memoryview):
        _check_bytes(memoryview(image).nbytes, limits)
        return _decode_file(bytes(image), limits, at_least)
    raise BadImage(f"want a path, bytes, a Pillow image or a uint8 array (h, w, 3), got {type(image).__name__}")


def size_of(data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Height and width of a picture, upright, as its header claims them: nothing is decoded. Raises BadImage as `load`, but
    not for damage behind the header."""
    _check_bytes(len(data), limits)
    _, header = _header_of(data, limits)
    return (header.width, header.height) if header.turn >= 5 else (header.height, header.width)


def decoding_bytes(data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> int:
    """About how much memory decoding a file takes at most, by the size that it claims. Raises BadImage as `size_of`."""
    _check_bytes(len(data), limits)
    kind, header = _header_of(data, limits)
    return header.width * header.height * (6 if kind == "JPEG" else 20)


def read_file(path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> tuple[bytes, os.stat_result]:
    """What a regular file holds, and its status as it was read. BadImage for anything else; no wait for a pipe or a device."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # asked before open as well: to open a device can act on it
            raise BadImage("cannot be read: not a regular file")
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise BadImage("cannot be read: not a regular file")
            _check_bytes(found.st_size, limits)
            data = file.read(limits.max_bytes + 1)
            _check_bytes(len(data), limits)  # again: it may have grown
            return data, found
    except OSError as error:
        raise BadImage(f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a path that holds a null byte
        raise BadImage(f"cannot be read: {error}") from error


def _array(image: NDArray[Any], limits: Limits) -> Pixels:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise BadImage(f"want a uint8 array (h, w, 3), got {image.dtype} {image.shape}")
    _check_size(image.shape[1], image.shape[0], limits)
    return image


def _header_of(data: bytes, limits: Limits) -> tuple[str, Header]:
    """The kind of a file, and its header once that claims no more than it may."""
    kind = kind_of(data)
    try:
        header = WALKS[kind](data)
    except (struct.error, IndexError) as error:
        raise BadImage(f"a truncated {kind}: it ends inside its header") from error
    _check_size(header.width, header.height, limits)
    if header.width * header.height > max(UNQUESTIONED_PIXELS, MOST_PIXELS_PER_BYTE * len(data)):
        raise BadImage(f"a decompression bomb: {header.width} × {header.height} pixels claimed by {len(data):,} bytes")
    return kind, header


def _decode_file(data: bytes, limits: Limits, at_least: tuple[int, int] | None) -> Decoded:
    kind, header = _header_of(data, limits)
    if kind == "JPEG":
        return _decode_jpeg(data, header, at_least)

    def opened() -> ImageFile:
        image = _PLUGINS[kind](io.BytesIO(header.core))  # not Image.open, whose own size check warns
        if image.size != (header.width, header.height):
            raise BadImage(f"a damaged {kind}: its parts do not agree on its size")
        return image

    pixels = _pillow_pixels(opened)
    if kind == "TIFF" and header.note == WHITE_IS_ZERO_16:
        pixels = 255 - pixels  # Pillow forgets to
    return _whole(_upright(pixels, header.turn))


def _decode_jpeg(data: bytes, header: Header, at_least: tuple[int, int] | None) -> Decoded:
    height, width, shrink = header.height, header.width, 1
    if at_least is not None:
        wanted = at_least if header.turn < 5 else at_least[::-1]
        # Only halvings: libjpeg-turbo has vector code for these, the other eighths take longer than the whole picture.
        while shrink < 8 and height >= 2 * shrink * wanted[0] and width >= 2 * shrink * wanted[1]:
            shrink *= 2
    shape = -(-height // shrink), -(-width // shrink)
    colours = "CMYK" if header.note == 4 else "RGB"

    def decoded(strict: bool) -> Pixels:
        pixels: Pixels = simplejpeg.decode_jpeg(data, colours, min_height=shape[0], min_width=shape[1], strict=strict)
        return pixels

    try:
        try:
            pixels = decoded(strict=True)
        except ValueError as error:
            if HARMLESS not in str(error):
                raise
            pixels = decoded(strict=False)
    except ValueError as error:
        raise BadImage(f"a damaged or truncated JPEG: {error}") from error
    if pixels.shape[:2] != shape:
        raise BadImage("a damaged JPEG: its parts do not agree on its size")
    if colours == "CMYK":  # stored inverted, as Adobe does and every reader takes for granted
        inverted = 255 - pixels
        pixels = np.asarray(Image.frombuffer("CMYK", shape[::-1], inverted, "raw", "CMYK", 0, 1).convert("RGB"))
    box = 0.0, 0.0, width / shrink, height / shrink
    if header.turn != 1:
        pixels, box = _upright(pixels, header.turn), _upright_box(box, shape, header.turn)
    if header.turn >= 5:
        height, width = width, height
    return Decoded(pixels, height, width, box)


# What libjpeg remarks on and then decodes in full; the cameras of some phones write it.
HARMLESS = "Invalid SOS parameters"

# What Pillow's plugins raise for bytes they cannot take. They are Python over bytes, so beside their own errors it is those of
# parsing by hand. 300,000 mutated files raised nothing else. And it asserts what it expects of a file.
DECODER_ERRORS = (
    OSError,  # also UnidentifiedImageError, "image file is truncated"
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    zlib.error,
    OverflowError,
    AssertionError,
    Image.DecompressionBombError,
)


def _pillow_pixels(opened: Callable[[], Image.Image]) -> Pixels:
    try:
        image = opened()
        image.load()
        return _rgb(image)
    except DECODER_ERRORS as error:
        raise BadImage(f"a damaged or truncated picture: {error}") from error


def _rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith("I;16"):
        deep = np.asarray(image)  # (h, w)
        grey = (deep >> 8).astype(np.uint8)  # the upper byte, as Pillow does for 16-bit colour
        if isinstance(image.info.get("transparency"), int):
            grey[deep == image.info["transparency"]] = 255
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise BadImage(f"pixels of 32 bits (mode {image.mode}) have no known white; convert them to 8 or 16 bits")
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white
    return _array_of(image if image.mode == "RGB" else image.convert("RGB"))


def _array_of(image: Image.Image) -> Pixels:
    """Copied strip by strip: np.asarray makes two copies of the whole beside its own."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        pixels[top : top + rows] = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
    return pixels


def _whole(pixels: Pixels) -> Decoded:
    height, width = pixels.shape[:2]
    return Decoded(pixels, height, width, (0.0, 0.0, float(width), float(height)))


def _upright(pixels: Pixels, turn: int) -> Pixels:
    """Undo an EXIF orientation: 5 to 8 exchange the axes, then come the mirrors."""
    if turn >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _upright_box(
    box: tuple[float, float, float, float], shape: tuple[int, int], turn: int
) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    height, width = shape
    if turn >= 5:
        left, top, right, bottom, height, width = top, left, bottom, right, width, height
    if turn in (2, 3, 6, 7):
        left, right = width - right, width - left
    if turn in (3, 4, 7, 8):
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


def _check_bytes(size: int, limits: Limits) -> None:
    if size == 0:
        raise BadImage("an empty file")
    if size > limits.max_bytes:
        raise BadImage(f"too large: {size:,} bytes, at most {limits.max_bytes:,} are read")


def _check_size(width: int, height: int, limits: Limits) -> None:
    if width < 1 or height < 1:
        raise BadImage(f"a picture of {width} × {height} pixels")
    if max(width, height) > limits.max_side_px or width * height > limits.max_pixels:
        shrink = min(1.0, limits.max_side_px / max(width, height), math.sqrt(limits.max_pixels / (width * height)))
        smaller = f"{max(1, int(width * shrink))} × {max(1, int(height * shrink))}"
        raise BadImage(
            f"too large: {width} × {height} pixels, "
            f"at most {limits.max_side_px:,} a side and {limits.max_pixels:,} together are read; "
            f"scale it down to {smaller} or less, as any photo program does"
        )


_STRIP_PIXELS = 2**20
_PLUGINS: dict[str, Callable[[io.BytesIO], ImageFile]] = {
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "GIF": GifImageFile,
}
