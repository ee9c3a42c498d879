"""A few bins in ABID's layout: photos of one colour, and their metadata, as files by key."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image


def photo(colour: tuple[int, int, int] = (120, 90, 60), size: tuple[int, int] = (32, 24)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "JPEG", quality=90)
    return out.getvalue()


def metadata(quantities: Mapping[str, int], expected: int | None = None) -> bytes:
    products = {asin: {"asin": asin, "name": f"thing {asin}", "quantity": quantity} for asin, quantity in quantities.items()}
    total = sum(quantities.values()) if expected is None else expected
    return json.dumps({"BIN_FCSKU_DATA": products, "EXPECTED_QUANTITY": total}).encode()


def bins(contents: Mapping[str, Mapping[str, int]]) -> dict[str, bytes]:
    """Files of these bins (stem: ASIN: quantity); every photo has a colour of its own."""
    files = {}
    for place, (stem, quantities) in enumerate(contents.items()):
        files[f"bin-images/{stem}.jpg"] = photo((place * 37 % 256, place * 91 % 256, place * 13 % 256))
        files[f"metadata/{stem}.json"] = metadata(quantities)
    return files


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder
