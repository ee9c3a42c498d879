"""Pictures made to break a reader, and odd ones that a reader must take; made here, byte for byte the same each time.

`malformed()` and `bombs()` must be refused, `odd()` must be read; `mutations()` of `seeds()` may be either, but never crash or
hang. All are dicts from a name, so that a failing test says which file it was; made once and shared, so not to be changed.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RED, BLUE, WHITE = (220, 30, 20), (20, 40, 200), (255, 255, 255)


class Odd(NamedTuple):
    """A valid file: its upright (height, width), and the colour of its upper left corner once it is on white."""

    data: bytes
    size: tuple[int, int]
    corner: tuple[int, int, int]
    tolerance: int = 0


def photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Something like a photo: soft shapes, edges and grain."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(soft).astype(np.int16)
    for _ in range(12):
        y, x = int(rng.integers(0, height)), int(rng.integers(0, width))
        pixels[y : y + height // 5 + 1, x : x + width // 5 + 1] = rng.integers(0, 256, 3)
    return np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)


def encoded(image: Image.Image | NDArray[np.uint8], kind: str, **options: Any) -> bytes:  # what Pillow's save takes
    if "append_images" in options:  # save leaves traces in an image, which break the next save of it
        options["append_images"] = [more.copy() for more in options["append_images"]]
    out = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image.copy()).save(out, kind, **options)
    return out.getvalue()


def exif(turn: int) -> bytes:
    block = Image.Exif()
    block[274] = turn
    return block.tobytes()


@cache
def seeds() -> dict[str, bytes]:
    """One small valid file of each kind, to be damaged."""
    rgb = Image.fromarray(photo(48, 64))
    more = [Image.fromarray(photo(48, 64, seed)) for seed in (1, 2)]
    alpha = rgb.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(rgb.size))
    deep = Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21)
    return {
        "jpeg": encoded(rgb, "JPEG"),
        "jpeg progressive": encoded(rgb, "JPEG", progressive=True),
        "jpeg grey": encoded(rgb.convert("L"), "JPEG"),
        "jpeg cmyk": encoded(rgb.convert("CMYK"), "JPEG"),
        "jpeg exif": encoded(rgb, "JPEG", exif=exif(6), comment=b"bin 7", restart_marker_blocks=4),
        "png": encoded(rgb, "PNG"),
        "png palette": encoded(rgb.quantize(16), "PNG", transparency=3),
        "png alpha": encoded(alpha, "PNG", exif=exif(8)),
        "png 16 bit": encoded(deep, "PNG"),
        "png 1 bit": encoded(rgb.convert("1"), "PNG"),
        "png animated": encoded(rgb, "PNG", save_all=True, append_images=more),
        "webp": encoded(rgb, "WEBP"),
        "webp lossless": encoded(alpha, "WEBP", lossless=True, exif=exif(3)),
        "webp animated": encoded(rgb, "WEBP", save_all=True, append_images=more),
        "bmp": encoded(rgb, "BMP"),
        "bmp palette": encoded(rgb.quantize(16), "BMP"),
        "tiff": encoded(rgb, "TIFF"),
        "tiff lzw": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "tiff deflate": encoded(alpha, "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": encoded(rgb, "TIFF", compression="jpeg"),
        "tiff packbits": encoded(rgb.quantize(16), "TIFF", compression="packbits"),
        "tiff 1 bit": encoded(rgb.convert("1"), "TIFF", compression="packbits"),
        "tiff 16 bit": encoded(deep, "TIFF"),
        "tiff pages": encoded(rgb, "TIFF", save_all=True, append_images=more),
        "gif": encoded(rgb, "GIF"),
        "gif animated": encoded(rgb, "GIF", save_all=True, append_images=more),
        "gif transparent": encoded(rgb.quantize(16), "GIF", transparency=2, interlace=True),
    }


@cache
def malformed() -> dict[str, bytes]:
    """Truncated, damaged and foreign files: each of them must be refused."""
    files = {"empty": b"", "one byte": b"\xff", "zeros": bytes(4096), "random": random.Random(7).randbytes(4096)}
    for name, data in seeds().items():
        for tenth in range(1, 10):
            files[f"{name} cut at {tenth}0%"] = data[: len(data) * tenth // 10]
        if name != "tiff pages":  # Pillow pads a page to 16 bytes, and nothing is lost with the padding
            files[f"{name} without its last byte"] = data[:-1]
    for magic in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"BM", b"II*\0", b"MM\0*", b"GIF89a"):
        files[f"only {magic!r}"] = magic
    jpeg, png, webp = seeds()["jpeg"], seeds()["png"], seeds()["webp"]
    files |= {
        "jpeg without end marker": jpeg[:-2],
        "jpeg of half a scan with end marker": jpeg[: len(jpeg) * 3 // 4] + b"\xff\xd9",
        "jpeg without tables": jpeg[:2] + jpeg[jpeg.index(b"\xff\xc0") :],
        "jpeg that names no height": _patched(jpeg, jpeg.index(b"\xff\xc0") + 5, b"\0\0"),
        "jpeg of 12 bits": _patched(jpeg, jpeg.index(b"\xff\xc0") + 4, b"\x0c"),
        "jpeg arithmetic": _patched(jpeg, jpeg.index(b"\xff\xc0") + 1, b"\xc9"),
        "png with a wrong checksum": _patched(png, len(png) // 2, bytes([png[len(png) // 2] ^ 1])),
        "png without pixels": png_file(8, 8, b""),
        "png header twice": png[:33] + png[8:],
        "png palette missing": png_file(2, 2, zlib.compress(bytes(6)), colour=3),
        "png palette missing, with transparency": png_file(
            2, 2, zlib.compress(bytes(6)), png_chunk(b"tRNS", b"\x80"), colour=3
        ),
        "png palette empty": png_file(2, 2, zlib.compress(bytes(6)), png_chunk(b"PLTE", b""), colour=3),
        "png pixels not zlib": png_file(8, 8, b"no zlib stream at all"),
        "webp longer by its header": _patched(webp, 4, struct.pack("<I", len(webp))),
        "gif without picture": b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0) + b";",
        "tiff in a loop": b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 0) + struct.pack("<I", 8),
        "tiff fax": encoded(Image.new("1", (48, 32), 1), "TIFF", compression="group4"),
        "text": b"bin 00042: three items, one of them a book\n" * 20,
        "json": b'{"path": "a.jpg"}',
        "svg": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect/></svg>',
        "svg entities": b'<!DOCTYPE svg [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><svg>&b;</svg>',
        "html": b"<!doctype html><img src=x onerror=alert(1)>",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n%%EOF\n",
        "eps binary": b"\xc5\xd0\xd3\xc6" + bytes(60),
        "pdf": b"%PDF-1.7\n1 0 obj <<>> endobj\ntrailer <<>>\n%%EOF\n",
        "pdf before jpeg": b"%PDF-1.7\n" + jpeg,
        "zip": b"PK\x03\x04" + bytes(60),
        "gzip of png": b"\x1f\x8b\x08" + zlib.compress(png),
        "heic": b"\0\0\0\x18ftypheic" + bytes(60),
        "avif": b"\0\0\0\x1cftypavif" + bytes(60),
        "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60),
        "photoshop": b"8BPS\0\1" + bytes(60),
        "icon": b"\0\0\1\0\1\0" + bytes(60),
        "big tiff": b"II+\0\x08\0\0\0" + bytes(60),
        "jpeg and zip": jpeg + b"PK\x03\x04" + bytes(60),
        "png and zip": png + b"PK\x03\x04" + bytes(60),
        "jpeg and script": jpeg + b"\n<?php system($_GET[0]); ?>",
        "gif and script": b"GIF89a/*" + bytes(60) + b"*/=1;alert(1)",
        "jpeg magic, png body": b"\xff\xd8\xff" + png,
        "png magic, jpeg body": png[:8] + jpeg,
    }
    return files


@cache
def bombs() -> dict[str, bytes]:
    """Small files that claim, or unfold to, far more than they are: to be refused at once and without memory."""
    jpeg, progressive = seeds()["jpeg"], seeds()["jpeg progressive"]
    sof, sof2 = jpeg.index(b"\xff\xc0"), progressive.index(b"\xff\xc2")
    scans = progressive[progressive.index(b"\xff\xda") : -2]
    pixels = zlib.compress(bytes(25 * 8))
    zeros = zlib.compress(bytes(40_000_000), 9)
    exif = b"\xff\xe1" + struct.pack(">H", 60_016) + b"Exif\0\0II*\0\x08\0\0\0" + bytes([0x88, 0x13]) + bytes(59_998)
    files = {
        "jpeg 65535": _patched(jpeg, sof + 5, b"\xff\xff\xff\xff"),
        "jpeg 7000": _patched(jpeg, sof + 5, struct.pack(">HH", 7000, 7000)),
        "jpeg 65535 progressive": _patched(progressive, sof2 + 5, b"\xff\xff\xff\xff"),
        "jpeg of 2,000 scans": _patched(progressive, sof2 + 5, struct.pack(">HH", 3000, 3000))[:-2] + scans * 200 + b"\xff\xd9",
        "jpeg of 60 scans of 25 megapixels": _patched(progressive, sof2 + 5, struct.pack(">HH", 5000, 5000))[:-2]
        + scans * 5
        + b"\xff\xfe\xff\xff"
        + bytes(65_533)
        + b"\xff\xd9",
        "png 2^31": png_file(2**31 - 1, 2**31 - 1, pixels),
        "png 50000": png_file(50_000, 50_000, pixels),
        "png 7000": png_file(7000, 7000, pixels),
        "png 20000 whole": png_file(20_000, 20_000, zlib.compress(bytes(2501 * 20_000), 9), depth=1, colour=0),
        "png one line": png_file(1_000_000_000, 1, pixels),
        "png zTXt": png_file(8, 8, pixels, png_chunk(b"zTXt", b"Comment\0\0" + zeros)),
        "png iTXt": png_file(8, 8, pixels, png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + zeros)),
        "png iCCP": png_file(8, 8, pixels, png_chunk(b"iCCP", b"icc\0\0" + zeros)),
        "png of many texts": png_file(8, 8, pixels, png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000))) * 400),
        "png of a million chunks": png_file(8, 8, pixels, png_chunk(b"tEXt", b"") * 450_000),
        "png of many empty texts": png_file(8, 8, pixels, png_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"")) * 16_000),
        "jpeg of many exif blocks": b"\xff\xd8" + exif * 20,
        "gif screen": _gif((65_535, 65_535), (0, 0, 8, 8)),
        "gif frame": _gif((8, 8), (0, 0, 65_535, 65_535)),
        "gif frame far off": _gif((8, 8), (65_000, 65_000, 8, 8)),
        "gif of a million blocks": _gif((8, 8), (0, 0, 8, 8))[:-2] + b"\1\0" * 1_000_000 + b"\0;",
        "gif of many blocks of many": _gif((8, 8), (0, 0, 8, 8))[:-1] + (b"!\xf9" + b"\1\0" * 40 + b"\0") * 20_000 + b";",
        "gif of a long comment": b"GIF89a"
        + struct.pack("<HHBBB", 8, 8, 0, 0, 0)
        + b"!\xfe"
        + (b"\xff" + bytes(255)) * 20_000
        + b"\0;",
        "gif 7000": _gif((7000, 7000), (0, 0, 7000, 7000)),
        "webp canvas": _webp(b"VP8X", bytes(4) + b"\xff" * 6),
        "webp canvas animated": _webp(b"VP8X", b"\x02" + bytes(3) + b"\xff\x3f\0\xff\x3f\0", b"ANIM", bytes(6)),
        "webp lossy": _webp(b"VP8 ", b"\x10\0\0\x9d\x01\x2a\xff\x3f\xff\x3f" + bytes(40)),
        "webp lossless": _webp(b"VP8L", b"\x2f\xff\xff\xff\x0f" + bytes(40)),
        "webp of a million chunks": _webp(*(b"EXIF", b"") * 100_000),
        "webp 7000": _webp(b"VP8L", b"\x2f" + struct.pack("<I", 6999 | 6999 << 14) + bytes(40)),
        "webp solid": encoded(Image.new("RGB", (7000, 7000), RED), "WEBP", lossless=True, method=0),
        "bmp 2^31": _bmp(2**31 - 1, 2**31 - 1),
        "bmp upside down": _bmp(60_000, -60_000),
        "bmp -2^31": _bmp(60_000, -(2**31)),
        "bmp 7000": _bmp(7000, 7000),
        "bmp run lengths": _bmp(7000, 7000, bits=8, coding=1),
        "bmp header of 4 GB": b"BM" + struct.pack("<IIII", 0, 0, 54, 2**32 - 1) + bytes(40),
    }
    base = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 8, 279: 64}
    tiffs: dict[str, dict[int, int | tuple[int, int]]] = {
        "tiff 2^32": {256: 2**32 - 1, 257: 2**32 - 1},
        "tiff 65535": {256: 65_535, 257: 65_535, 278: 65_535},
        "tiff 7000": {256: 7000, 257: 7000, 278: 7000},
        "tiff 7000 fax": {256: 7000, 257: 7000, 278: 7000, 258: 1, 259: 4},
        "tiff samples": {277: 65_535},
        "tiff bits": {258: 65_535},
        "tiff of 2^32 strips": {273: (2**32 - 1, 8), 279: (2**32 - 1, 8)},
        "tiff strip of 4 GB": {279: 2**32 - 1},
        "tiff strips far off": {273: 2**32 - 1},
        "tiff tiles": {322: 65_536, 323: 65_536, 324: 8, 325: 64},
        "tiff tiles of nothing": {322: 0, 323: 0, 324: 8, 325: 64},
        "tiff no rows in a strip": {278: 0},
        "tiff bits of 4 GB": {258: (2**32 - 1, 8)},
        "tiff palette of 4 GB": {262: 3, 320: (2**32 - 1, 8)},
    }
    files |= {name: tiff_file(base | changed) for name, changed in tiffs.items()}
    ring = tiff_file(base | dict.fromkeys(range(1_000, 61_000), 0))
    files["tiff whose only page follows itself"] = ring[:-4] + ring[4:8]
    plain = {258: 8, 259: 8, 262: 1, 277: 1}
    tile = zlib.compress(bytes(4_000_000), 9)
    files["tiff of tiles far larger than it"] = tiff_of([tile] * 50, plain | {256: 800, 257: 1, 322: 16, 323: 250_000})
    grey = encoded(Image.new("L", (2000, 2000)), "JPEG", progressive=True)
    last = grey[grey.rindex(b"\xff\xda") : -2]
    files["tiff of a progressive jpeg"] = tiff_of([grey[:-2] + last * 80 + b"\xff\xd9"], plain | {256: 2000, 257: 2000, 259: 7})
    return files


@cache
def odd() -> dict[str, Odd]:
    """Rare but whole pictures: red in their upper left quarter where nothing else is said, blue elsewhere."""
    square = np.full((32, 48, 3), BLUE, np.uint8)
    square[:16, :24] = RED
    rgb, size = Image.fromarray(square), (32, 48)
    jpeg = encoded(rgb, "JPEG", quality=95, subsampling=0)
    green = Image.new("RGB", rgb.size, (0, 255, 0))
    half = rgb.copy()
    half.putalpha(Image.new("L", rgb.size, 128))
    clear = rgb.quantize(4)
    red_index = clear.getpixel((0, 0))
    grey = np.full(size, 200, np.uint8)
    deep = Image.fromarray(np.full(size, 200 * 257, np.uint16))
    faded = (237, 142, 137)  # RED at 128/255 on white: 255 − (255 − v) × 128 / 255
    mpo = encoded(rgb, "MPO", save_all=True, append_images=[green], quality=95)
    files = {
        "jpeg progressive": Odd(encoded(rgb, "JPEG", quality=95, subsampling=0, progressive=True), size, RED, 4),
        "jpeg grey": Odd(encoded(Image.fromarray(grey), "JPEG"), size, (200, 200, 200), 2),
        "jpeg cmyk": Odd(encoded(rgb.convert("CMYK"), "JPEG", quality=95), size, RED, 6),
        "jpeg rgb": Odd(encoded(rgb, "JPEG", quality=95, keep_rgb=True), size, RED, 6),
        "jpeg with zeros behind": Odd(jpeg + bytes(1000), size, RED, 4),
        "jpeg with a film behind": Odd(jpeg + b"\0\0\0\x18ftypmp42" + bytes(100), size, RED, 4),
        "jpeg with a progressive scan header": Odd(_patched(jpeg, jpeg.index(b"\xff\xda") + 12, b"\0"), size, RED, 4),
        "jpeg with damaged exif": Odd(
            encoded(rgb, "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0II*\0\xff\xff"), size, RED, 4
        ),
        "jpeg of two pictures (MPO)": Odd(mpo, size, RED, 6),
        "png palette transparent": Odd(encoded(clear, "PNG", transparency=red_index), size, WHITE),
        "png palette half transparent": Odd(encoded(clear, "PNG", transparency=bytes([128] * 4)), size, faded, 1),
        "png colour key": Odd(encoded(rgb, "PNG", transparency=RED), size, WHITE),
        "png grey alpha": Odd(encoded(half.convert("LA"), "PNG"), size, (168, 168, 168), 2),
        "png alpha": Odd(encoded(half, "PNG"), size, faded, 1),
        "png 16 bit grey": Odd(encoded(deep, "PNG"), size, (200, 200, 200)),
        "png 16 bit grey key": Odd(png_deep_grey_key(), (2, 2), WHITE),
        "png 16 bit rgb": Odd(
            png_file(2, 1, zlib.compress(b"\0" + bytes([200, 9, 100, 9, 50, 9] * 2)), depth=16), (1, 2), (200, 100, 50)
        ),
        "png 1 bit": Odd(encoded(Image.new("1", (48, 32), 1), "PNG"), size, WHITE),
        "png interlaced": Odd(png_interlaced(), (2, 2), RED),
        "png animated": Odd(encoded(rgb, "PNG", save_all=True, append_images=[green]), size, RED),
        "png of one line": Odd(encoded(Image.new("RGB", (20_000, 1), RED), "PNG"), (1, 20_000), RED),
        "png with a long text": Odd(
            png_file(8, 8, zlib.compress(bytes(25 * 8)), png_chunk(b"tEXt", b"a\0" + b"x" * 2_000_000)), (8, 8), (0, 0, 0)
        ),
        "webp lossy": Odd(encoded(rgb, "WEBP", quality=95), size, RED, 12),
        "webp lossless": Odd(encoded(rgb, "WEBP", lossless=True), size, RED),
        "webp alpha": Odd(encoded(half, "WEBP", lossless=True, exact=True), size, faded, 1),
        "webp animated": Odd(encoded(rgb, "WEBP", save_all=True, append_images=[green], lossless=True), size, RED),
        "gif": Odd(encoded(rgb.quantize(4), "GIF"), size, RED),
        "gif transparent": Odd(encoded(clear, "GIF", transparency=red_index), size, WHITE),
        "gif animated": Odd(encoded(rgb, "GIF", save_all=True, append_images=[green, rgb]), size, RED),
        "bmp": Odd(encoded(rgb, "BMP"), size, RED),
        "bmp palette": Odd(encoded(rgb.quantize(4), "BMP"), size, RED),
        "bmp 1 bit": Odd(encoded(Image.new("1", (48, 32), 1), "BMP"), size, WHITE),
        "bmp 32 bit": Odd(encoded(half, "BMP"), size, RED),  # its header does not say that the fourth byte is alpha
        "bmp from the top": Odd(_bmp(1, -2, pixels=bytes([20, 30, 220, 0, 200, 40, 20, 0])), (2, 1), RED),
        "tiff big endian": Odd(
            tiff_file({256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 8, 279: 64}, ">"), (8, 8), (7, 7, 7)
        ),
        "tiff lzw": Odd(encoded(rgb, "TIFF", compression="tiff_lzw"), size, RED),
        "tiff deflate alpha": Odd(encoded(half, "TIFF", compression="tiff_adobe_deflate"), size, faded, 1),
        "tiff jpeg": Odd(encoded(rgb, "TIFF", compression="jpeg", quality=95), size, RED, 20),
        "tiff 1 bit": Odd(encoded(Image.new("1", (48, 32), 1), "TIFF", compression="packbits"), size, WHITE),
        "tiff palette": Odd(encoded(rgb.quantize(4), "TIFF"), size, RED),
        "tiff cmyk": Odd(encoded(rgb.convert("CMYK"), "TIFF"), size, RED, 1),
        "tiff 16 bit": Odd(encoded(deep, "TIFF"), size, (200, 200, 200)),
        "tiff 16 bit lzw": Odd(encoded(deep, "TIFF", compression="tiff_lzw"), size, (200, 200, 200)),
        "tiff 16 bit, white is 0": Odd(
            tiff_file({256: 4, 257: 8, 258: 16, 259: 1, 262: 0, 273: 8, 277: 1, 278: 8, 279: 64}), (8, 4), (248, 248, 248)
        ),
        "tiff white is 0": Odd(
            tiff_file({256: 8, 257: 8, 258: 8, 259: 1, 262: 0, 273: 8, 277: 1, 278: 8, 279: 64}), (8, 8), (248,) * 3
        ),
        "tiff of many pages": Odd(encoded(rgb, "TIFF", save_all=True, append_images=[green, green]), size, RED),
    }
    for turn in range(1, 9):
        turned = Image.fromarray(_as_stored(square, turn))
        files[f"jpeg turned {turn}"] = Odd(encoded(turned, "JPEG", quality=95, subsampling=0, exif=exif(turn)), size, RED, 4)
    for kind in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        turned = Image.fromarray(_as_stored(square, 6))
        files[f"{kind.lower()} turned 6"] = Odd(encoded(turned, kind, exif=exif(6), **options), size, RED)
    return files


def mutations(data: bytes, rng: random.Random, count: int) -> Iterator[bytes]:
    """Damaged copies: bits flipped, bytes set to telling values, pieces cut out, doubled, moved, or the end cut off."""
    telling = (b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x80\0", b"\xff\xd8", b"\xff\xda")
    for _ in range(count):
        copy = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 5, 20))):
            # Half of the damage goes to the first 200 bytes, where the headers are.
            at = rng.randrange(min(len(copy), 200)) if rng.random() < 0.5 else rng.randrange(len(copy))
            length = rng.choice((1, 2, 4, 16, 100))
            match rng.randrange(6):
                case 0 | 1:
                    copy[at] ^= 1 << rng.randrange(8)
                case 2:
                    value = rng.choice(telling)
                    copy[at : at + len(value)] = value
                case 3:
                    del copy[at : at + length]
                case 4:
                    copy[at:at] = copy[at : at + length]
                case _:
                    copy[at : at + length] = rng.randbytes(length)
            if not copy:
                copy = bytearray(b"\0")
        if rng.random() < 0.1:
            del copy[rng.randrange(len(copy)) :]
        yield _resealed(bytes(copy)) if data.startswith(b"\x89PNG") and rng.random() < 0.5 else bytes(copy)


def _resealed(png: bytes) -> bytes:
    """With right checksums, so that the damage reaches the decoder."""
    position, out = 8, png[:8]
    while position + 12 <= len(png):
        length = int.from_bytes(png[position : position + 4], "big")
        out += png_chunk(png[position + 4 : position + 8], png[position + 8 : position + 8 + length])
        position += 12 + length
    return out


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_file(width: int, height: int, idat: bytes, *more: bytes, depth: int = 8, colour: int = 2, interlaced: int = 0) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + png_chunk(b"IDAT", idat) + png_chunk(b"IEND", b"")


def png_interlaced() -> bytes:
    red, blue = bytes(RED), bytes(BLUE)
    passes = b"\0" + red + b"\0" + blue + b"\0" + blue + blue  # passes 1, 6 and 7 of Adam7 for 2 × 2 pixels
    return png_file(2, 2, zlib.compress(passes), interlaced=1)


def png_deep_grey_key() -> bytes:
    rows = b"\0\x12\x34\x00\x00" * 2
    return png_file(2, 2, zlib.compress(rows), png_chunk(b"tRNS", b"\x12\x34"), depth=16, colour=0)


def tiff_file(tags: dict[int, Any], order: str = "<") -> bytes:  # values: a number, or (count, offset)
    """A TIFF of 64 bytes of value 7 at offset 8, and one directory behind them."""
    entries = b""
    for tag, value in sorted(tags.items()):
        count, number = value if isinstance(value, tuple) else (1, value)
        entries += struct.pack(order + "HHII", tag, 4, count, number)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", 72) + b"\7" * 64 + struct.pack(order + "H", len(tags)) + entries + bytes(4)


def tiff_of(parts: list[bytes], tags: dict[int, int]) -> bytes:
    """A TIFF of these strips, or tiles where its tags give them a size."""
    places, sizes = (324, 325) if 322 in tags else (273, 279)
    offsets = [8 + sum(map(len, parts[:number])) for number in range(len(parts))]
    body = b"".join(parts)
    body += bytes(len(body) & 1)
    lists = {places: offsets, sizes: [len(part) for part in parts]}
    entries = {tag: (1, value) for tag, value in tags.items()}
    for tag, values in lists.items():
        entries[tag] = (len(values), values[0] if len(values) == 1 else 8 + len(body))
        body += struct.pack(f"<{len(values)}I", *values) if len(values) > 1 else b""
    directory = b"".join(struct.pack("<HHII", tag, 4, *entry) for tag, entry in sorted(entries.items()))
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(entries)) + directory + bytes(4)


def _patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def _gif(screen: tuple[int, int], frame: tuple[int, int, int, int]) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes(6)
    return head + b"," + struct.pack("<HHHHB", *frame, 0) + b"\x02\x02\x4c\x01\0;"


def _webp(*parts: bytes) -> bytes:
    chunks = zip(parts[::2], parts[1::2], strict=True)
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) & 1) for kind, content in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _bmp(width: int, height: int, *, bits: int = 24, coding: int = 0, pixels: bytes = bytes(64)) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, coding, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + header + pixels


def _as_stored(upright: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """The pixels that a camera held this way writes: what orientation `turn` makes upright (EXIF 2.32, section 4.6.4)."""
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: np.rot90(upright, 2),
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    return np.ascontiguousarray(stored[turn])
