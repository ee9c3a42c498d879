"""What the file of a picture says of itself: one walk for each kind of container.

A walk is plain code that allocates nothing by what the file claims. It gives the picture's size and the parts of the file that
make up its first picture, and refuses what is truncated, foreign or a bomb. A walk that runs off the end (struct.error,
IndexError) tells of a truncated file; the caller says so.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from binsight.errors import BadImage

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

# No photo is 2,000 times smaller than its pixels are many, a solid grey JPEG or PNG included (250 and 1,032 at most). Pictures
# small enough to decode in 32 MB need not show it.
MOST_PIXELS_PER_BYTE = 2_000
UNQUESTIONED_PIXELS = 4_000_000
# What a file may consist of: at its limits, each walk takes 20 ms.
MOST_PARTS = 16_384  # segments, chunks, blocks
MOST_TAGS = 256  # looked at in an EXIF block, and in a page of a TIFF; cameras write some dozen
SUB_BLOCKS, MOST_SUB_BLOCKS = 32_768, 300_000  # of a GIF: so many and one for each 128 bytes; 64 MiB of full ones are 263,000
MOST_INFLATED_BYTES = 4 * 2**20  # of compressed texts and profiles in a PNG, together,
LEAST_INFLATED_BYTES = 1_024  # where each counts as so many at least, for the time it takes to begin
# Each scan of a progressive JPEG is a pass over the whole picture, however few bytes it has; encoders write 10.
MOST_SCANS, USUAL_SCANS, MOST_SCANNED_PIXELS = 64, 12, 640_000_000  # pixels × scans: 0.7 s
MOST_PADDING = 4  # times a picture's pixels, in the tiles of a TIFF that cover it; more of a small one
MOST_TIFF_SCANS = 4  # of a JPEG in a TIFF, which may not be progressive


def orientation(exif: object) -> int:
    """The orientation, 1 to 8, in an EXIF block; 1 where there is none to be read."""
    if not isinstance(exif, bytes):
        return 1
    block = exif.removeprefix(b"Exif\0\0")
    order = ">" if block[:2] == b"MM" else "<"
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (entries,) = struct.unpack_from(order + "H", block, start)
        for place in range(start + 2, start + 2 + 12 * min(entries, MOST_TAGS), 12):
            if struct.unpack_from(order + "H", block, place) == (ORIENTATION,):
                return _turn(block, order, place)
    except struct.error:  # a damaged block, and no reason to refuse the picture
        return 1
    return 1


def _turn(block: bytes, order: str, place: int) -> int:
    """The orientation in the tag at `place`, written as any of the whole numbers that programs write it as."""
    (kind,) = struct.unpack_from(order + "H", block, place + 2)
    if kind not in WHOLE_NUMBERS:
        return 1
    (turn,) = struct.unpack_from(order + WHOLE_NUMBERS[kind], block, place + 8)
    return int(turn) if 1 <= turn <= 8 else 1


class Header(NamedTuple):
    width: int
    height: int
    core: bytes  # the file, less what its first picture does not need
    turn: int = 1  # EXIF orientation
    note: int = 0  # JPEG: components of a pixel; TIFF: WHITE_IS_ZERO_16 or 0


def kind_of(data: bytes) -> str:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith((b"II*\0", b"MM\0*")):
        return "TIFF"
    if data.startswith(b"BM") and data[14:18] in BMP_HEADERS:
        return "BMP"
    raise BadImage(f"not a picture we read ({', '.join(FORMATS)}): {_foreign(data)}")


BMP_HEADERS = [struct.pack("<I", size) for size in (12, 40, 52, 56, 64, 108, 124)]


def _foreign(data: bytes) -> str:
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n\0").lower()
    if data[4:8] == b"ftyp":
        return f"it looks like {data[8:12].decode('latin-1').strip()} (HEIC, AVIF or video); convert it to JPEG"
    if b"<svg" in start:
        return "it looks like SVG"
    for magic, name in FOREIGN:
        if start.startswith(magic.lower()):
            return f"it looks like {name}"
    if not start.strip(b"\0"):
        return "it holds only zeros or blanks"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
        return "it looks like text"
    return "its first bytes are of no format we know"


FOREIGN = (
    (b"%PDF", "PDF"),
    (b"%!PS", "EPS or PostScript"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x1f\x8b", "gzip"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"8BPS", "Photoshop"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x0cjP  ", "JPEG 2000"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"\xff\xd8", "a JPEG cut off at its beginning"),
    (b"<", "a web page or XML"),
)


def _check_tail(data: bytes, end: int) -> None:
    """Refuse a file of another kind behind the picture. Other bytes may follow: phones put films and depth maps there."""
    tail = data[end : end + 64].lstrip(b"\0 \t\r\n")
    for magic, name in FOREIGN:
        if tail.startswith(magic):
            raise BadImage(f"two files in one: {name} follows the picture")


def _jpeg(data: bytes) -> Header:
    position, turn, frame = 2, 0, None
    for _ in range(MOST_PARTS):
        if data[position] != 0xFF:
            raise BadImage("a damaged JPEG: a segment does not begin where the one before it ends")
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == 0xDA:  # the first scan
            break
        (length,) = struct.unpack_from(">H", data, position + 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = marker, *struct.unpack_from(">BHHB", data, position + 4)
        elif marker == 0xE1 and not turn and data.startswith(b"Exif\0\0", position + 4):
            turn = orientation(data[position + 4 : position + 2 + length])
        position += 2 + length
    else:
        raise BadImage(f"a JPEG of more than {MOST_PARTS:,} segments")
    if frame is None:
        raise BadImage("a damaged JPEG: no frame header before the first scan")
    marker, bits, height, width, components = frame
    if marker > 0xC2 or bits != 8:
        raise BadImage("a JPEG of a kind we do not read: lossless, arithmetic-coded or of more than 8 bits")
    most_scans = min(MOST_SCANS, max(USUAL_SCANS, MOST_SCANNED_PIXELS // max(1, width * height)))
    if marker == 0xC2 and data.count(b"\xff\xda", position) > most_scans:
        raise BadImage(f"a progressive JPEG of more than {most_scans} scans")
    if not data.endswith(b"\xff\xd9"):
        end = data.find(b"\xff\xd9", position)
        if end < 0:
            raise BadImage("a truncated JPEG: its end marker is missing")
        _check_tail(data, end + 2)
    return Header(width, height, data, turn or 1, components)


def _png(data: bytes) -> Header:
    view = memoryview(data)
    position, turn, kept, spare = 8, 0, [view[:8]], MOST_INFLATED_BYTES
    colours = 0  # of the palette
    for _ in range(MOST_PARTS):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise BadImage("a truncated PNG: it ends inside a chunk")
        if (len(kept) == 1) != (kind == b"IHDR"):
            raise BadImage("a damaged PNG: its header is missing or there twice")
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
                raise BadImage(f"a damaged PNG: the checksum of its {kind.decode()} chunk is wrong")
            if kind in (b"PLTE", b"tRNS") and length > 768:
                raise BadImage(f"a damaged PNG: its {kind.decode()} chunk is too long")
            if kind == b"PLTE":
                colours = length // 3
            if kind == b"IDAT" and data[25] == PNG_PALETTE and not colours:
                raise BadImage("a damaged PNG: its colours are numbers of a palette, and no palette comes before them")
            kept.append(view[position:end])
        elif kind == b"eXIf":
            turn = turn or orientation(data[position + 8 : end - 4])
        elif kind in (b"zTXt", b"iTXt", b"iCCP"):  # never read, but a bomb in the hands of the next program
            spare -= max(LEAST_INFLATED_BYTES, _inflated_bytes(view[position + 8 : end - 4], spare))
            if spare < 0:
                raise BadImage(f"a decompression bomb: its {kind.decode()} chunks unfold to over {MOST_INFLATED_BYTES:,} bytes")
        elif not kind[0] & 0x20:  # critical by its name
            raise BadImage("a PNG of a kind we do not read: it has a critical chunk of its own")
        position = end
        if kind == b"IEND":
            _check_tail(data, end)
            width, height = struct.unpack_from(">II", data, 16)
            return Header(width, height, b"".join(kept), turn or 1)
    raise BadImage(f"a PNG of more than {MOST_PARTS:,} chunks")


def _inflated_bytes(chunk: memoryview, most: int) -> int:
    """The size of the compressed part of a PNG text or profile, counted up to one byte over `most`."""
    head = bytes(chunk[:512])
    start = head.find(b"x", head.find(b"\0"))  # a zlib stream begins with "x"; before it come a keyword and short fields
    try:
        return len(zlib.decompressobj().decompress(chunk[start:], most + 1)) if start > 0 else 0
    except zlib.error:  # plain text, or damaged: it is not read
        return 0


def _webp(data: bytes) -> Header:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise BadImage("a truncated WEBP: it is shorter than its header says")
    position, turn, width, height = 12, 0, 0, 0
    for _ in range(MOST_PARTS):
        if position >= end:
            _check_tail(data, end)
            return Header(width, height, data[:end], turn or 1)
        kind, length = struct.unpack_from("<4sI", data, position)
        body = position + 8
        if body + length > end:
            raise BadImage("a truncated WEBP: it ends inside a chunk")
        wide = high = 0
        if kind == b"VP8X":
            wide, high = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (body + 4, body + 7))
        elif kind == b"VP8 ":
            wide, high = (side & 0x3FFF for side in struct.unpack_from("<HH", data, body + 6))
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, body + 1)
            wide, high = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"EXIF":
            turn = turn or orientation(data[body : body + length])
        width, height = max(width, wide), max(height, high)
        position = body + length + (length & 1)
    raise BadImage(f"a WEBP of more than {MOST_PARTS:,} chunks")


def _gif(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _palette_bytes(flags)
    screen, control, core = data[:position], b"", b""
    spare = min(MOST_SUB_BLOCKS, SUB_BLOCKS + len(data) // 128)
    for _ in range(MOST_PARTS):
        start, kind = position, data[position]
        if kind == 0x3B:  # trailer
            break
        if kind == 0x21:  # extension
            position += 2
        elif kind == 0x2C:  # picture
            left, top, wide, high, flags = struct.unpack_from("<HHHHB", data, position + 1)
            if not core:
                width, height = max(width, left + wide), max(height, top + high)
            position += 11 + _palette_bytes(flags)
        else:
            raise BadImage("a damaged GIF: a block of unknown kind")
        while length := data[position]:
            position += 1 + length
            spare -= 1
            if spare < 0:
                raise BadImage("a GIF of too many parts for its size")
        position += 1
        if kind == 0x2C:
            core = core or screen + control + data[start:position] + b";"
        elif data[start + 1] == 0xF9:  # transparency of the picture that follows
            control = data[start:position]
    if not core:
        raise BadImage("a damaged GIF: no picture in it")
    _check_tail(data, position + 1)
    return Header(width, height, core)


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _bmp(data: bytes) -> Header:
    start, size = struct.unpack_from("<II", data, 10)
    coding = 0
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, bits, coding = struct.unpack_from("<iiHHI", data, 18)
    if coding not in (0, 3):  # Pillow decodes run lengths in Python, byte by byte
        raise BadImage("a BMP of a kind we do not read: compressed")
    height = abs(height)  # negative: stored from the top
    if start + height * ((width * bits + 31) // 32 * 4) > len(data):
        raise BadImage("a truncated BMP: it is shorter than its header says")
    return Header(width, height, data)


PNG_PALETTE = 3  # colour type
ORIENTATION = 274
SHORT, LONG, UNDEFINED = 3, 4, 7
WHOLE_NUMBERS = {1: "B", SHORT: "H", LONG: "I", 6: "b", 8: "h", 9: "i"}  # types that an orientation comes in
TIFF_SIZES = {1: 1, 2: 1, SHORT: 2, LONG: 4, 5: 8, 6: 1, UNDEFINED: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # by type
MOST_PAGES = 64  # of a TIFF, looked at to see that they are there
MOST_STRIPS = 32_768  # or tiles, of one page
TIFF_JPEG = 7  # compression
BITS, PHOTOMETRIC, JPEG_TABLES, SAMPLE_FORMAT, PALETTE = 258, 262, 347, 339, 320
STRIPS, TILES = (273, 279), (324, 325)  # offsets, sizes
WHITE_IS_ZERO_16 = 1
TIFF_TAGS = dict.fromkeys((256, 257, 259, PHOTOMETRIC, 266, 277, 278, 284, 317, 322, 323), 1)  # tag: most values
TIFF_TAGS |= {BITS: 6, 338: 6, SAMPLE_FORMAT: 6, 530: 2, PALETTE: 768, JPEG_TABLES: 65_536}
TIFF_TAGS |= dict.fromkeys(STRIPS + TILES, MOST_STRIPS)


class _Directory(NamedTuple):
    tags: dict[int, NDArray[np.int64]]  # those in TIFF_TAGS
    core: bytes  # the directory with these only, and none behind it
    turn: int
    following: int


def _tiff(data: bytes) -> Header:
    """The first directory is checked and, in place, cut to the tags that make up its picture."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    first = page = _tiff_directory(data, start, order)
    _check_tiff(first.tags, data)
    for _ in range(MOST_PAGES):  # the others need only be there
        if not page.following:
            break
        page = _tiff_directory(data, page.following, order)
        _tiff_parts(page.tags, len(data))
    tags, turn = first.tags, first.turn
    core = data[:start] + first.core + data[start + len(first.core) :]
    note = WHITE_IS_ZERO_16 if tags[BITS][0] == 16 and tags[PHOTOMETRIC][0] == 0 else 0
    return Header(int(tags[256][0]), int(tags[257][0]), core, turn, note)


def _tiff_directory(data: bytes, start: int, order: str) -> _Directory:
    (entries,) = struct.unpack_from(order + "H", data, start)
    end = start + 2 + 12 * entries
    if entries > MOST_TAGS:
        raise BadImage(f"a TIFF with a page of more than {MOST_TAGS} tags")
    (following,) = struct.unpack_from(order + "I", data, end)
    tags: dict[int, NDArray[np.int64]] = {}
    kept, turn = [], 1
    for place in range(start + 2, end, 12):
        tag, kind, count, value = struct.unpack_from(order + "HHII", data, place)
        size = count * TIFF_SIZES.get(kind, 0)
        source = value if size > 4 else place + 8
        if source + size > len(data):
            raise BadImage("a truncated TIFF: a tag points behind its end")
        if tag == ORIENTATION:
            turn = _turn(data, order, place)
        if tag not in TIFF_TAGS:
            continue
        code = {SHORT: "u2", LONG: "u4", UNDEFINED: "u1"}.get(kind)
        misused = code is None or (kind == UNDEFINED) != (tag == JPEG_TABLES)
        if misused or not 1 <= count <= TIFF_TAGS[tag] or tag in tags:
            raise BadImage(f"a damaged TIFF: its tag {tag} holds what it may not hold")
        if size > 4 and source < end + 4 and source + size > start:
            raise BadImage("a damaged TIFF: a tag points into its directory")
        tags[tag] = np.frombuffer(data, f"{order}{code}", count, source).astype(np.int64)
        kept.append(data[place : place + 12])
    return _Directory(tags, struct.pack(order + "H", len(kept)) + b"".join(kept) + bytes(4), turn, following)


def _check_tiff(tags: dict[int, NDArray[np.int64]], data: bytes) -> None:
    for optional in (BITS, PHOTOMETRIC, SAMPLE_FORMAT):
        tags.setdefault(optional, np.ones(1, np.int64))
    one = {tag: int(values[0]) for tag, values in tags.items()}
    width, height, samples = one.get(256, 0), one.get(257, 0), one.get(277, 1)
    if not 1 <= samples <= 6 or min(width, height) < 1:
        raise BadImage("a damaged TIFF: no size, or no samples")
    if one[BITS] not in (1, 2, 4, 8, 16) or (tags[BITS] != one[BITS]).any() or (tags[SAMPLE_FORMAT] != 1).any():
        raise BadImage("a TIFF of a kind we do not read: its samples are not whole numbers of 1, 2, 4, 8 or 16 bits")
    # No fax codings: libtiff reads on over damage in them, and writes a line to stderr for every row.
    if one.get(259, 1) not in (1, 5, 7, 8, 32773, 32946) or one[PHOTOMETRIC] not in (0, 1, 2, 3, 5, 6):
        raise BadImage(f"a TIFF of a kind we do not read: compression {one.get(259, 1)}, colours {one[PHOTOMETRIC]}")
    if (one[PHOTOMETRIC] == 3) != (PALETTE in tags):
        raise BadImage("a damaged TIFF: a palette too many or too few")
    tiled = TILES[0] in tags
    wide, high = (one.get(322, 0), one.get(323, 0)) if tiled else (width, one.get(278, height))
    if wide < 1 or high < 1:
        raise BadImage("a damaged TIFF: strips or tiles of no size")
    parts, pixels = -(-width // wide) * -(-height // high), width * height
    is_padded = parts * wide * high > max(UNQUESTIONED_PIXELS, MOST_PADDING * pixels)
    if tiled and (is_padded or wide * high > max(UNQUESTIONED_PIXELS, pixels)):
        raise BadImage("a decompression bomb: a TIFF whose tiles are larger than the picture")
    parts *= samples if one.get(284, 1) == 2 else 1
    if _tiff_parts(tags, len(data)) != parts:
        raise BadImage("a damaged TIFF: its strips or tiles do not cover the picture once")
    if one.get(259) == TIFF_JPEG and _tiff_scans(tags, data) > MOST_TIFF_SCANS * parts:
        raise BadImage("a TIFF of a kind we do not read: its JPEG is progressive")


def _tiff_scans(tags: dict[int, NDArray[np.int64]], data: bytes) -> int:
    """How many JPEG scans its strips or tiles have together."""
    offsets, sizes = (tags[tag].tolist() for tag in (TILES if TILES[0] in tags else STRIPS))
    return sum(data.count(b"\xff\xda", offset, offset + size) for offset, size in zip(offsets, sizes, strict=True))


def _tiff_parts(tags: dict[int, NDArray[np.int64]], file_size: int) -> int:
    """The number of strips or tiles, all of which lie in the file."""
    offsets, sizes = (tags.get(tag, np.zeros(0, np.int64)) for tag in (TILES if TILES[0] in tags else STRIPS))
    if not len(offsets) or len(offsets) != len(sizes):
        raise BadImage("a damaged TIFF: it does not say where its pixels are")
    # The sum as well: many strips over the same bytes would be read again and again.
    if int((offsets + sizes).max()) > file_size or int(sizes.sum()) > file_size:
        raise BadImage("a truncated TIFF: its pixels lie behind its end")
    return len(offsets)


WALKS: dict[str, Callable[[bytes], Header]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WEBP": _webp,
    "BMP": _bmp,
    "TIFF": _tiff,
    "GIF": _gif,
}
