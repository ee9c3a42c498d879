"""The picture of an item, made small: from the file it was indexed from, if that file is still the same, else a placeholder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from binsight.data.source import inside
from binsight.errors import BadImage
from binsight.images import ImageLike, decode, read_file
from binsight.origin import source_of
from binsight.records import Item

Thumbnail: TypeAlias = Image.Image

SIDE_PX = 320
_GROUND, _INK = "#dfe3e8", "#49525e"
_LINE_CHARS, _LINES = 18, 6


def shown_as(item: Item) -> Thumbnail:
    """An item's picture, or a placeholder that bears its id."""
    return thumbnail(item) or placeholder(item.id)


def thumbnail(item: Item) -> Thumbnail | None:
    """The picture that an item was indexed from; None where there is none on this machine any more.

    A record may be another's writing, so its word is not enough to show a file: the file lies within the root that the record
    names, links followed, and its bytes are those that were indexed (their SHA-256 stands in the record).
    """
    source = source_of(item)
    root, uri, digest = source.get("root"), source.get("uri"), source.get("sha256")
    if not (isinstance(root, str) and isinstance(uri, str) and isinstance(digest, str) and os.path.isabs(root)):  # noqa: PTH117
        return None
    try:
        base = Path(root).resolve()
        if inside(base, Path(uri)) is None:
            return None
        data, _ = read_file(base / uri)
        return small(data) if hashlib.sha256(data).hexdigest() == digest else None
    except (BadImage, OSError, ValueError, RuntimeError):  # RuntimeError: links without end; ValueError: a null byte
        return None


def small(image: ImageLike, side_px: int = SIDE_PX) -> Thumbnail:
    """A picture at most `side_px` wide and high. Raises BadImage."""
    found = Image.fromarray(decode(image, at_least=(side_px, side_px)).pixels)
    found.thumbnail((side_px, side_px), Image.Resampling.BILINEAR)
    return found


def placeholder(text: str) -> Thumbnail:
    """A grey square with a text in it, in place of a picture that is not here."""
    image = Image.new("RGB", (SIDE_PX, SIDE_PX), _GROUND)
    draw = ImageDraw.Draw(image)
    printable = "".join(sign if sign.isprintable() else "?" for sign in text)
    lines = [printable[start : start + _LINE_CHARS] for start in range(0, len(printable), _LINE_CHARS)]
    shown = lines if len(lines) <= _LINES else [*lines[: _LINES - 1], "…"]
    draw.multiline_text(
        (SIDE_PX / 2, SIDE_PX / 2),
        "\n".join([*shown, "", "no picture here"]),
        fill=_INK,
        font=ImageFont.load_default(26),
        anchor="mm",
        align="center",
    )
    return image
